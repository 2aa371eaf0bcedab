"""COMICS: contrastive multi-face forgery detection - models, experiments and reports.

The rooms: ``comics.data`` (datasets), ``comics.detectors`` (instance segmenters), ``comics.contrast`` and
``comics.attention`` (the paper's additions), ``comics.model`` (where the two meet), ``comics.training``,
``comics.evaluation`` and ``comics.report``. ``docs/`` explains each.

To use a trained model: `load`, then ``detect`` of what it gives (docs/detect.md).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from comics.detect.model import Model

__all__ = ["list_detectors", "load"]
__version__ = "0.1.0"


def load(run_or_file: str | os.PathLike[str], **settings: Any) -> Model:
    """A trained model, ready to find faces: ``comics.load("model.pt").detect("photo.jpg")``.

    Args:
        run_or_file: a file (``model.pt``, ``.safetensors``, ``.onnx``), the folder of a run, or the name of a trained run.
        settings: ``threshold``, ``seed``, ``device``, ``precision`` and ``project`` of `comics.detect.model.load`.

    Raises:
        UserError: there is nothing of that name, or it cannot be used.
    """
    from comics.detect.model import load  # here, so that `import comics` stays quick

    return load(run_or_file, **settings)


def list_detectors() -> list[str]:
    """Names of the detectors that a run may be made of."""
    from comics.detectors import names

    return names()
