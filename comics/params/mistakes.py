"""From pydantic's errors to ours: file, key and the nearest valid name."""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Annotated, Any, Union

from pydantic import ValidationError

from comics.errors import UserError, did_you_mean
from comics.params.block import Block

MOST_LINES = 20
"""Mistakes of one file that are told."""


def _unwrap(annotation: Any, step: Any) -> tuple[Any, bool]:
    """The type behind `annotation` at `step` of an error's place, and whether the step was used up."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _unwrap(typing.get_args(annotation)[0], step)
    if origin in (Union, types.UnionType):
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
        for member in members:  # a discriminated union puts its tag into the place
            if isinstance(member, type) and issubclass(member, Block):
                kind = member.model_fields.get("kind")
                if kind is not None and kind.default == step:
                    return member, True
        return _unwrap(members[0], step)
    if origin in (dict, list, tuple):
        return typing.get_args(annotation)[-1 if origin is dict else 0], True
    if isinstance(annotation, type) and issubclass(annotation, Block):
        field = annotation.model_fields.get(step)
        return (field.annotation if field else None), True
    return None, True


def _valid_keys(model: Any, place: tuple[Any, ...]) -> list[str]:
    """The keys that the block at `place` may hold."""
    current: Any = model
    for step in place:
        used = False
        while not used and current is not None:
            current, used = _unwrap(current, step)
    while current is not None and not (isinstance(current, type) and issubclass(current, Block)):
        args = typing.get_args(current)
        current = next((arg for arg in args if isinstance(arg, type) and issubclass(arg, Block)), None)
    return list(current.model_fields) if current is not None else []


def as_user_error(error: ValidationError, model: Any, path: Path, prefix: tuple[str, ...] = ()) -> UserError:
    """All mistakes of `error` in one `UserError`, the first with a remedy."""
    lines, remedy = [], ""
    for item in sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden"):  # misspelt before missing
        place = item["loc"]
        key = _key((*prefix, *place))
        if item["type"] == "extra_forbidden":
            lines.append(f"{path}: {key}: unknown key.")
            hint = did_you_mean(str(place[-1]), _valid_keys(model, place[:-1]))
        elif item["type"] in ("literal_error", "enum"):
            lines.append(f"{path}: {key}: {_short(item['input'])} is not one of the values it takes.")
            expected = item.get("ctx", {}).get("expected", "")
            hint = did_you_mean(
                str(item["input"]), [word.strip(" '") for word in expected.replace(" or ", ", ").split(",")]
            )
        elif item["type"] == "union_tag_not_found":
            lines.append(f"{path}: {key}.kind: missing.")
            hint = "Add it."
        elif item["type"] == "union_tag_invalid":
            tag, tags = str(item["ctx"]["tag"]), item["ctx"]["expected_tags"]
            lines.append(f"{path}: {key}.kind: '{tag}' is not one of the values it takes.")
            hint = did_you_mean(tag, [word.strip(" '") for word in tags.split(",")])
        elif item["type"] == "missing":
            lines.append(f"{path}: {key}: missing.")
            hint = "Add it."
        else:
            lines.append(f"{path}: {key}: {item['msg']} (found {_short(item['input'])}).")
            hint = ""
        remedy = remedy or hint
    if len(lines) > MOST_LINES:
        lines[MOST_LINES:] = [f"And {len(lines) - MOST_LINES} more."]
    return UserError("\n".join(lines), remedy)


def _short(value: Any) -> str:
    """`value` as it is written, or its beginning."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _key(place: tuple[Any, ...]) -> str:
    """An error's place as a dotted key; the tag that pydantic adds for a kind of dataset is left out."""
    parts = list(place)
    if len(parts) > 2 and parts[0] in ("datasets", "figures"):
        del parts[2]
    if parts and parts[-1] == "[key]":
        parts.pop()
    key = ""
    for part in parts:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
    return key
