"""YAML 1.2 in bounded time and memory: params.yaml may come from anywhere."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import Node

from comics.errors import UserError

LARGEST = 500_000
"""Bytes of the file; reading them takes some seconds."""
DEEPEST = 50
"""Levels of lists and mappings within each other."""
MOST = 100_000
"""Values, where each alias counts as all that it stands for."""
LARGEST_NUMBER = 2**53
"""Integers from here on are no settings, and no exact numbers to most of what reads them."""


class _Refused(YAMLError):
    """More than a settings file holds."""


class _BoundedComposer(Composer):
    """A composer that counts: depth, and values with aliases written out."""

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader)
        self._level = self._count = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.parser.peek_event()
        line = event.start_mark.line + 1
        if isinstance(event, AliasEvent):
            node: Node = super().compose_node(parent, index)
            if id(node) not in self._sizes:
                raise _Refused(f"line {line}: *{event.anchor} stands within itself")
            self._count += self._sizes[id(node)]
        else:
            self._level += 1
            if self._level > DEEPEST:
                raise _Refused(f"line {line}: nested more than {DEEPEST} deep")
            before = self._count
            self._count += 1
            node = super().compose_node(parent, index)
            self._sizes[id(node)] = self._count - before
            self._level -= 1
        if self._count > MOST:
            raise _Refused(f"line {line}: more than {MOST:,} values, with aliases written out")
        return node


def read_yaml(path: Path) -> Any:
    """What the YAML file `path` says.

    Raises:
        UserError: absent, unreadable, not YAML, or larger, deeper or with larger numbers than a settings file has.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path}: not a file.", "Give the file that has the settings.")
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
        if len(raw) > LARGEST:
            raise UserError(f"{path}: larger than {LARGEST:,} bytes.", "Settings are short: is this the right file?")
        text = raw.decode("utf-8")
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file.", "Run the command in the project's folder, or give --params FILE."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}).") from None
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _BoundedComposer
    try:
        content = yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{path}: {place}{error.problem or error}.", "Mend the YAML there.") from None
    except YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}.") from None
    except Exception as error:  # a loader of numbers, dates and tags can raise nearly anything on what only looks so
        raise UserError(f"{path}: not valid YAML ({type(error).__name__}: {str(error)[:200]}).") from None
    _refuse_large_numbers(content, path, "")
    return content


def _refuse_large_numbers(value: Any, path: Path, key: str) -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            _refuse_large_numbers(inner, path, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _refuse_large_numbers(inner, path, f"{key}[{number}]")
    elif isinstance(value, int) and abs(value) >= LARGEST_NUMBER:
        raise UserError(f"{path}: {key}: a number of {value.bit_length()} bits.", "Give one below 2^53.")
