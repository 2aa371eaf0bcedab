"""YAML 1.2 in bounded time and memory: params.yaml may come from anywhere."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml import AliasEvent, MappingStartEvent, MarkedYAMLError, ScalarEvent, SequenceStartEvent, YAMLError

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


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's parser, in C where it was built so, with the core schema of YAML 1.2 (section 10.3.2): ``1e-4`` is a number,
    ``on`` and ``1:30`` are words. A key written twice is an error."""

    yaml_implicit_resolvers: ClassVar[dict[str | None, list[tuple[str, re.Pattern[str]]]]] = {}

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        if id(node) not in (checked := self.__dict__.setdefault("_checked", set())):
            checked.add(id(node))  # before `<<` is written out, which lets keys come twice
            seen = set()
            for key, _ in node.value:
                if (key.tag, key.value if isinstance(key.value, str) else None) in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key.value!r}", key.start_mark)
                if isinstance(key.value, str):
                    seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep=deep)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("merge", r"<<", "<"),
):
    _firsts = [*_first, ""] if _tag == "null" else [*_first]
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _firsts)


def _integer(loader: Any, node: Any) -> int:
    text = loader.construct_scalar(node)
    return int(text[2:], 8 if text[1] == "o" else 16) if text[:2] in ("0o", "0x") else int(text)


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def _refuse_large(text: str) -> None:
    """Count depth, and values with aliases written out, before anything is built."""
    level = count = 0
    sizes: dict[str, int] = {}
    opened: list[tuple[str | None, int]] = []
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, AliasEvent):
            if event.anchor not in sizes:
                if event.anchor in (name for name, _ in opened):
                    raise _Refused(f"line {line}: *{event.anchor} stands within itself")
                continue  # building says that there is no such anchor
            count += sizes[event.anchor]
        elif isinstance(event, ScalarEvent):
            count += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, MappingStartEvent | SequenceStartEvent):
            level += 1
            if level > DEEPEST:
                raise _Refused(f"line {line}: nested more than {DEEPEST} deep")
            opened.append((event.anchor, count))
            count += 1
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            level -= 1
            anchor, before = opened.pop()
            if anchor:
                sizes[anchor] = count - before
        if count > MOST:
            raise _Refused(f"line {line}: more than {MOST:,} values, with aliases written out")


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
    try:
        _refuse_large(text)
        content = yaml.load(text, Loader=_Loader)
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
