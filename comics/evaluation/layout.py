"""COCO's formats as types: a decoder that knows what to expect reads a usual file in a third of the time and memory.

It takes no more than the checks of `comics.evaluation.inputs` do. What it does not take (NaN, say, or bytes that are no
JSON) is left to those, which read the file again as plain JSON and tell what is wrong.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from comics.files import require_file

__all__ = ["UNSET", "Annotation", "Category", "Content", "Detection", "Image", "RunLengths", "Struct", "read_layout"]

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
