"""COCO's formats as types: a decoder that knows what to expect reads a usual file in a third of the time and memory.

It takes no more than the checks of `comics.evaluation.inputs` do. What it does not take (NaN, say, or bytes that are no
JSON) is left to those, which read the file again as plain JSON and tell what is wrong.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from comics.files import require_file

__all__ = [
    "UNSET",
    "Annotation",
    "Category",
    "Content",
    "Detection",
    "Image",
    "RunLengths",
    "Struct",
    "read_layout",
    "read_parts",
]

Box = tuple[float, float, float, float]
"""x, y, width, height in px."""
Polygons = list[list[float]]


class RunLengths(Struct, gc=False):
    """A mask as run lengths in text."""

    size: tuple[int, int]
    counts: str


class Detection(Struct, gc=False):
    """Of a results file."""

    image_id: int
    category_id: int
    score: float
    score_mask: float | UnsetType = UNSET
    bbox: Box | UnsetType = UNSET
    segmentation: RunLengths | UnsetType = UNSET


class Annotation(Struct, gc=False):
    """Of the ground truth."""

    id: int
    image_id: int
    category_id: int
    area: float
    iscrowd: int = 0
    bbox: Box | UnsetType = UNSET
    segmentation: RunLengths | Polygons | UnsetType = UNSET
    track_id: int | str | UnsetType = UNSET
    forgery: str | UnsetType = UNSET


class Image(Struct, gc=False):
    """Of the ground truth."""

    id: int
    height: int | UnsetType = UNSET
    width: int | UnsetType = UNSET
    video_id: int | str | UnsetType = UNSET


class Category(Struct, gc=False):
    """Of the ground truth."""

    id: int
    name: str


class Content(Struct, gc=False):
    """Of a ground truth file."""

    images: list[Image]
    annotations: list[Annotation]
    categories: list[Category]


Layout = TypeVar("Layout")


def read_layout(path: str | os.PathLike[str], layout: type[Layout]) -> Layout | None:
    """The content of a JSON file; None where it cannot be read, or not as `layout`."""
    try:
        require_file(path)
        content = Path(path).read_bytes()
        if not content.isascii():
            content.decode()  # the decoder below does not look at fields that it does not need
        return msgspec.json.decode(content, type=layout)
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError):
        return None


PART = 1 << 23
"""Bytes of a file that are read at once."""
_BETWEEN = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*(?=\{)")
"""Where one object of a list ends and the next begins: or something that looks so, within a text or a list of an object."""


def read_parts(path: str | os.PathLike[str], entry: type[Layout]) -> Iterator[tuple[bytes, list[Layout] | None]]:
    """A list of objects, some at a time: a list of JSON that holds them, and what it is as `entry`, None where it is none.

    The file is cut between objects. A cut within an object leaves a part that is no JSON, which is the mark of it: the text goes on
    to the next cut then. What is no list of objects at all comes as one part, the whole.
    """
    with open(path, "rb") as file:
        rest, size = file.read(PART).lstrip(), PART
        if not rest.startswith(b"["):
            yield rest + file.read(), None
            return
        rest = rest[1:]
        while True:
            block = file.read(size)
            if not block:
                break
            cut = _last_cut(rest)
            if cut is not None:
                part = b"[" + rest[: cut.start() + 1] + b"]"
                read = _decoded(part, entry)
                if read is not None or _is_json(part):
                    yield part, read
                    rest = rest[cut.end() :]
            rest += block
        part = b"[" + rest
        yield part, _decoded(part, entry)


def _last_cut(text: bytes) -> re.Match[bytes] | None:
    """The last place between two objects."""
    reach = 1 << 16
    while True:
        start = max(0, len(text) - reach)
        found = list(_BETWEEN.finditer(text, start))
        if found or not start:
            return found[-1] if found else None
        reach *= 8


def _decoded(part: bytes, entry: type[Layout]) -> list[Layout] | None:
    try:
        if not part.isascii():
            part.decode()
        return msgspec.json.decode(part, type=list[entry])  # type: ignore[valid-type]
    except (UnicodeDecodeError, msgspec.MsgspecError):
        return None


def _is_json(part: bytes) -> bool:
    """Whether it can be read at all, also as what no decoder by types takes: NaN, say."""
    try:
        json.loads(part)
    except (ValueError, RecursionError):
        return False
    return True
