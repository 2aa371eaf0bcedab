"""COMICS: contrastive multi-face forgery detection - models, experiments and reports.

The rooms: ``comics.data`` (datasets), ``comics.detectors`` (instance segmenters), ``comics.contrast`` and
``comics.attention`` (the paper's additions), ``comics.model`` (where the two meet), ``comics.training``,
``comics.evaluation`` and ``comics.report``. ``docs/`` explains each.

To use a trained model: `load`, then ``detect`` of what it gives (docs/detect.md).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

    from comics.detect.model import Model

__all__ = ["list_detectors", "load", "load_results"]
_BUILT = Path(__file__).parent / "_build.json"
"""Of a wheel: its version, from the git tag, and its commit. A checkout has none."""

BASE_VERSION = "0.1.0"
"""The version that is released next, or was last; a wheel between two has git's count and commit behind it."""

__version__: str = json.loads(_BUILT.read_text())["version"] if _BUILT.exists() else BASE_VERSION


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


def load_results(params: str | os.PathLike[str] | None = None, root: str | os.PathLike[str] = ".") -> pandas.DataFrame:
    """The scores of every run as one tidy table, a row a number (`comics.results.load`).

    Args:
        params: a params.yaml; by default that of the folder `root`.
        root: the project's folder, which holds ``results/``.

    Raises:
        UserError: params.yaml or a file of scores is not what it should be.
    """
    from comics.results import load

    return load(None if params is None else os.fspath(params), os.fspath(root))
