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
        UserError: file absent, not YAML, a key unknown or written twice, a value out of range, a name that nothing
            bears; the message names file and key, the remedy the nearest valid name.
    """
    path = Path(path)
    return Params(_validate(_read_yaml(path), path), path)


def _read_yaml(path: Path) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file.", "Run the command in the project's folder, or give --params FILE."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}).") from None
    try:
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{path}: {place}{error.problem or error}.", "Mend the YAML there.") from None
    except YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}.") from None


def _validate(content: Any, path: Path) -> ParamsFile:
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected keys such as `dataset:` and `runs:`, found {type(content).__name__}.")
    try:
        return ParamsFile.model_validate(content)
    except ValidationError as error:
        raise as_user_error(error, ParamsFile, path) from None
