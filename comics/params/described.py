"""From the description that travels with trained weights back to their run, without params.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from comics.errors import UserError
from comics.params.datasets import Dataset
from comics.params.objective import Component
from comics.params.resolve import ResolvedRun
from comics.params.runs import RunParams


def from_description(description: Any, name: str, source: str) -> ResolvedRun:
    """The run whose `ResolvedRun.description` is `description`.

    What a description leaves out because it decides nothing, such as the number of loaders, has its default. Its digest is that of
    the description, which may be of another code version, and not the result's.

    Args:
        description: as weights carry it.
        name: what to call the run.
        source: the file it came from, for messages.

    Raises:
        UserError: it is none, or one of another version of this package.
    """
    try:
        content = dict(description)
        for version in ("code_version", "detector_code", "prediction_code"):
            content.pop(version, None)
        dataset = dict(content.pop("dataset"))
        dataset_name, seed = str(dataset.pop("name")), int(content.pop("seed"))
        # what its weights started from is in them; digests of files are not settings
        content["model"] = {key: value for key, value in content["model"].items() if key not in ("start", "contents")}
        parts = {**content, **(content.get("objective") or {})}
        components = [component for component in get_args(Component) if isinstance(parts.get(component), Mapping)]
        return ResolvedRun(
            name=name,
            place=name,
            seed=seed,
            dataset_name=dataset_name,
            dataset=TypeAdapter(Dataset).validate_python(dataset),
            params=RunParams.model_validate({**content, "components": components}),
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{source}: its description does not fit this version of comics ({where}: {first['msg']}).",
            "Use the version that trained it, or train it anew.",
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{source}: has no description of its run ({type(error).__name__}: {error}).") from None
