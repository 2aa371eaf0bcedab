"""Instance segmenters behind one contract (`comics.detectors.base`), chosen by name.

They know nothing of contrastive learning; `comics.model` is where both meet.
"""

from comics.detectors.base import (
    Detector,
    LevelProposals,
    Prediction,
    Size,
    Target,
    build,
    crop_features,
    names,
    register,
)

NAMES = tuple(names())

__all__ = [
    "NAMES",
    "Detector",
    "LevelProposals",
    "Prediction",
    "Size",
    "Target",
    "build",
    "crop_features",
    "names",
    "register",
]
