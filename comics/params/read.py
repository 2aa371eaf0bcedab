"""params.yaml read: one YAML 1.2 loader (``1e-4`` is a number, a key written twice is an error), then the schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from comics.errors import UserError
from comics.params.file import ParamsFile
from comics.params.mistakes import as_user_error
from comics.params.resolve import Params


def load(path: str | Path = "params.yaml") -> Params:
    """Read and validate params.yaml.

    Raises:
        UserError: file absent, not YAML, too large or too deep, a key unknown or written twice, a value out of range, a name that nothing
            bears; the message names file and key, the remedy the nearest valid name.
    """
    from comics.params.bounded import read_yaml

    path = Path(path)
    return Params(_validate(read_yaml(path), path), path)


def _validate(content: Any, path: Path) -> ParamsFile:
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected keys such as `dataset:` and `runs:`, found {type(content).__name__}.")
    try:
        return ParamsFile.model_validate(content)
    except ValidationError as error:
        raise as_user_error(error, ParamsFile, path) from None
