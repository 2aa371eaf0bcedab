"""Checked inputs as the engines take them: entries in COCO's format, numbered from 1."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from comics.evaluation.coco import Ints
from comics.evaluation.inputs import Detections, GroundTruth


def coco_ground_truth(truth: GroundTruth) -> dict[str, Any]:
    """What a library needs of the ground truth, in COCO's format.

    Fields that no evaluation needs are left out, because libraries insist on types of theirs. Ids of images, annotations
    and categories are their places in the checked arrays plus 1, because libraries do not take every integer.
    """
    images = truth.annotation_images
    return {
        "images": images_of(truth),
        "annotations": [
            {"id": index + 1, "image_id": image + 1, "category_id": category, "area": area, "iscrowd": crowd, **shape}
            for index, (image, category, area, crowd, shape) in enumerate(
                zip(
                    images.tolist(),
                    category_numbers(truth, truth.annotation_categories),
                    truth.areas.tolist(),
                    truth.crowd.astype(int).tolist(),
                    _shapes(truth, truth, np.arange(len(images)), images),
                    strict=True,
                )
            )
        ],
        "categories": categories_of(truth),
    }


def coco_results(truth: GroundTruth, found: Detections, chosen: Ints) -> list[dict[str, Any]]:
    """The `chosen` (M,) detections in COCO's format, with the ids of `coco_ground_truth`."""
    images = found.images[chosen]
    return [
        {"image_id": image + 1, "category_id": category, "score": score, **shape}
        for image, category, score, shape in zip(
            images.tolist(),
            category_numbers(truth, found.category_ids[chosen]),
            found.scores[chosen].tolist(),
            _shapes(truth, found, chosen, images),
            strict=True,
        )
    ]


def with_objects(truth: GroundTruth) -> Iterator[tuple[int, int]]:
    """Number for the libraries and id of each category that has annotations; scores of the others are undefined.

    A library takes them one after the other: detections and objects of two classes never meet, and it is less memory.
    """
    for number, category in enumerate(truth.categories, start=1):
        if (truth.annotation_categories == category).any():
            yield number, category


def images_of(truth: GroundTruth) -> list[dict[str, int]]:
    """The images with their sizes in px."""
    sizes = truth.image_sizes.tolist()
    return [{"id": number, "height": height, "width": width} for number, (height, width) in enumerate(sizes, start=1)]


def categories_of(truth: GroundTruth) -> list[dict[str, Any]]:
    """The categories with their names."""
    return [{"id": number, "name": name} for number, name in enumerate(truth.categories.values(), start=1)]


def category_numbers(truth: GroundTruth, category_ids: Ints) -> list[int]:
    """(M) the number that each of `category_ids` (M,) has here."""
    return (np.searchsorted(np.array(list(truth.categories), np.int64), category_ids) + 1).tolist()


def _shapes(truth: GroundTruth, of: GroundTruth | Detections, chosen: Ints, images: Ints) -> Iterable[dict[str, Any]]:
    """Box and mask, if there are any, of the `chosen` (M,) entries of `of`, which are in `images` (M,)."""
    boxes = [{} for _ in chosen] if of.boxes is None else [{"bbox": box} for box in of.boxes[chosen].tolist()]
    masks = masks_of(truth, of, chosen, images)
    if masks is None:
        return boxes
    return ({**box, "segmentation": mask} for box, mask in zip(boxes, masks, strict=True))


def masks_of(truth: GroundTruth, of: GroundTruth | Detections, chosen: Ints, images: Ints) -> list[Any] | None:
    """Masks, if there are any, of the `chosen` (M,) entries of `of`, which are in `images` (M,)."""
    if of.masks is None:
        return None
    sizes = truth.image_sizes.tolist()
    return [{"size": sizes[i], "counts": text} for i, text in zip(images.tolist(), of.masks[chosen], strict=True)]
