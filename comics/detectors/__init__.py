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
    detector_class,
    register,
)
from comics.params.detectors import names

NAMES = tuple(names())
"""The detectors of this package."""

__all__ = [
    "NAMES",
    "Detector",
    "LevelProposals",
    "Prediction",
    "Size",
    "Target",
    "build",
    "crop_features",
    "detector_class",
    "names",
    "register",
]
