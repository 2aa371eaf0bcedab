"""params.yaml read: one YAML 1.2 loader (``1e-4`` is a number, a key written twice is an error), then the schema."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from comics.errors import UserError
from comics.params.expand import expand, extended
from comics.params.file import ParamsFile
from comics.params.mistakes import as_user_error
from comics.params.resolve import Params

ENVIRONMENT = "COMICS_PARAMS"
"""The variable that names the file where no command does: how the workflow tells its steps."""


def load(path: str | Path | None = None) -> Params:
    """Read and validate a params.yaml, and the files that it extends.

    Args:
        path: the file; by default the one that `ENVIRONMENT` names, or params.yaml in the current folder.

    Raises:
        UserError: file absent, not YAML, too large or too deep, a key unknown or written twice, a value out of range, a name that nothing
            bears; the message names file and key, the remedy the nearest valid name.
    """
    from comics.params.bounded import read_yaml

    path = Path(path or os.environ.get(ENVIRONMENT) or "params.yaml")
    content, base = extended(path, read_yaml)
    if base is None:
        return Params(_validate(content, path), path)
    below = load(path.parent / read_yaml(path)["extends"])
    return Params(_validate(content, path), path, below)


def _validate(content: Any, path: Path) -> ParamsFile:
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected keys such as `dataset:` and `runs:`, found {type(content).__name__}.")
    content = expand(content, path)
    try:
        return ParamsFile.model_validate(content)
    except ValidationError as error:
        raise as_user_error(error, ParamsFile, path) from None
