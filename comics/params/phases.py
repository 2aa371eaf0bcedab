"""Two phases: a run whose faces another run finds.

Of a run with `model.two_phase.faces`, the network of the first phase, its attention and its inference are those of the run named
there, which is also where its weights start from; so the workflow trains that one first.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from comics.errors import UserError
from comics.params.backbones import check_backbone
from comics.params.detectors import settings_of
from comics.params.runs import TWO_PHASE, InferenceParams, RunParams


def faces_of(run: RunParams) -> str | None:
    """The run that finds the faces of `run`; None where it is no run of two phases, or finds them itself."""
    return getattr(run.model.settings, "faces", None) if run.detector == TWO_PHASE else None


def on_faces(run: RunParams, faces: RunParams, stated: Mapping[str, Any], key: str, path: Path) -> RunParams:
    """`run`, whose faces `faces` finds, complete.

    Args:
        run: as the file has it.
        faces: the run named in its `faces`.
        stated: what its own entry states.
        key: of its entry, for messages.
        path: of the file.

    Raises:
        UserError: the two do not go together.
    """
    name, settings = faces_of(run), run.model.settings
    if faces.detector == TWO_PHASE:
        raise UserError(
            f"{path}: {key}.model.{TWO_PHASE}.faces: '{name}' has two phases itself.",
            "Name the run that finds its faces.",
        )
    for other in stated.get("model", {}):
        if other != TWO_PHASE:
            raise UserError(
                f"{path}: {key}.model.{other}: has no effect, the network that finds the faces is that of '{name}'.",
                f"Leave it out; the classifier's settings stand under `model: {{{TWO_PHASE}: ...}}`.",
            )
    if lost := [one for one in run.components if one not in ("views", "dual")]:
        raise UserError(
            f"{path}: {key}.components: {lost[0]} has no effect, '{name}' finds the faces and is not trained further.",
            f"Name a run with {lost[0]} in `faces`.",
        )
    own = {"detector": faces.detector, "detector_settings": faces.model.settings.model_dump(mode="json")}
    model = faces.model.model_copy(
        update={"weights": "none", "start": name, "settings": settings.model_copy(update=own)}
    )
    update: dict[str, Any] = {
        "model": model,
        "inference": InferenceParams.model_validate({**faces.inference.model_dump(), **stated.get("inference", {})}),
    }
    if "attention" in faces.components:
        update |= {"components": [*run.components, "attention"], "attention": faces.attention}
    return run.model_copy(update=update)


def check_phases(run: RunParams) -> None:
    """Raise `ValueError` for settings of a run that only make sense with two phases, or that make none with them."""
    if run.detector != TWO_PHASE:
        if "dual" in run.components:
            raise ValueError(f"components: dual compares crops of faces, which only detector {TWO_PHASE} has")
        return
    settings: Any = run.model.settings
    where = f"model.{TWO_PHASE}"
    try:
        check_backbone(settings.classifier)
    except ValueError as error:
        raise ValueError(f"{where}.classifier: {error}") from None
    if settings.classifier_width != 1 and settings.classifier_weights == "imagenet":
        raise ValueError(f"{where}.classifier_width: there are ImageNet weights for a width of 1 only")
    try:
        kind = settings_of(settings.detector)
        kind.model_validate(settings.detector_settings)
    except UserError as error:
        raise ValueError(f"{where}.detector: {error.message}") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where}.detector_settings.{key}: {first['msg']}") from None
    if settings.detector == TWO_PHASE:
        raise ValueError(f"{where}.detector: {TWO_PHASE} cannot find the faces of itself")
    if settings.faces is None and kind.prepared:
        raise ValueError(
            f"{where}.detector: {settings.detector} needs files that are prepared for a run of its own: name one in `faces`"
        )
