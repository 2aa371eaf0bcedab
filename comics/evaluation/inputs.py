"""Reading ground truth and detections in COCO's formats."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from comics.errors import UserError
from comics.files import read_json

Source = str | os.PathLike[str]


@dataclass(frozen=True)
class GroundTruth:
    """Checked ground truth.

    Attributes:
        name: the file, for messages.
        dataset: COCO's dictionary with images, annotations and categories.
        image_ids: (I,) ascending.
        categories: id -> name, by ascending id.
        has_boxes, has_masks: whether the annotations have them; both are true without annotations.
    """

    name: str
    dataset: dict[str, Any]
    image_ids: NDArray[np.int64]
    categories: dict[int, str]
    has_boxes: bool
    has_masks: bool


@dataclass(frozen=True)
class Detections:
    """Checked detections, in the file's order.

    Attributes:
        name: the file, for messages.
        entries: COCO results.
        image_ids, category_ids: (N,).
        scores: (N,).
        boxes: (N, 4) x, y, width, height in px; None where the detections have none.
        has_masks: whether the detections have masks. Without a detection there is every task to evaluate.
    """

    name: str
    entries: list[dict[str, Any]]
    image_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    scores: NDArray[np.float64]
    boxes: NDArray[np.float64] | None
    has_masks: bool


def read_ground_truth(source: Source | Mapping[str, Any]) -> GroundTruth:
    """Ground truth from a COCO file, or from its content.

    Raises:
        UserError: it is no COCO ground truth.
    """
    if isinstance(source, Mapping):
        name, content = "ground truth", dict(source)
    else:
        name, content = str(source), read_json(source)
    if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= set(content):
        raise UserError(f"{name}: no COCO ground truth: an object with images, annotations and categories.")
    annotations = content["annotations"]
    return GroundTruth(
        name=name,
        dataset=content,
        image_ids=np.array(sorted(image["id"] for image in content["images"]), dtype=np.int64),
        categories={one["id"]: one["name"] for one in sorted(content["categories"], key=lambda one: one["id"])},
        has_boxes=all("bbox" in one for one in annotations),
        has_masks=all("segmentation" in one for one in annotations),
    )


def read_detections(source: Source | Sequence[Mapping[str, Any]], truth: GroundTruth) -> Detections:
    """Detections of `truth`'s images from a COCO results file, or from its content.

    Raises:
        UserError: they are no COCO results, or not of this ground truth.
    """
    if isinstance(source, str | os.PathLike):
        name, content = str(source), read_json(source)
    else:
        name, content = "detections", list(source)
    if not isinstance(content, list):
        raise UserError(f"{name}: no COCO results: a list of detections.")
    has_boxes = all("bbox" in one for one in content)
    return Detections(
        name=name,
        entries=content,
        image_ids=np.array([one["image_id"] for one in content], dtype=np.int64),
        category_ids=np.array([one["category_id"] for one in content], dtype=np.int64),
        scores=np.array([one["score"] for one in content], dtype=np.float64),
        boxes=np.array([one["bbox"] for one in content], dtype=np.float64).reshape(-1, 4) if has_boxes else None,
        has_masks=all("segmentation" in one for one in content),
    )
