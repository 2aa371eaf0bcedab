"""Predictions as entries of a COCO results file, in the pixels of the original images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as rle
from torch import Tensor
from torch.nn.functional import interpolate

from comics.classes import category_id
from comics.detectors.base import Prediction


def _masks(prediction: Prediction, size: tuple[int, int], original: tuple[int, int]) -> Iterator[Tensor]:
    """Each mask of a prediction made at `size`, (height, width) bool, at the `original` size."""
    if size == original:
        yield from prediction["masks"]
    elif "soft" in prediction:
        yield from prediction["soft"].each(original)
    else:
        for mask in prediction["masks"]:
            large = interpolate(mask[None, None].float(), size=original, mode="bilinear", align_corners=False)[0, 0]
            yield large >= 0.5


def coco_results(
    prediction: Prediction,
    image_id: int,
    boxes: bool = True,
    sizes: tuple[tuple[int, int], tuple[int, int]] | None = None,
) -> list[dict[str, Any]]:
    """`prediction` as entries of a COCO results file.

    Args:
        prediction: of one image.
        image_id: the image's id.
        boxes: whether the detector predicts boxes; without, entries have a segmentation only.
        sizes: (height, width) at which it was made, and of the original image, where that is another; its masks are drawn one by
            one.
    """
    (height, width), original = sizes or ((1, 1), (1, 1))
    masks = prediction["masks"] if sizes is None else _masks(prediction, (height, width), original)
    codes = [rle.encode(np.asfortranarray(mask.to(torch.uint8).cpu().numpy())) for mask in masks]
    scale = torch.tensor([original[1] / width, original[0] / height], dtype=torch.float64).repeat(2).numpy()
    corners = prediction["boxes"].double().cpu().numpy() * scale
    entries = []
    mask_scores = prediction["mask_scores"].tolist() if "mask_scores" in prediction else None
    for index, (score, label) in enumerate(
        zip(prediction["scores"].tolist(), prediction["labels"].tolist(), strict=True)
    ):
        x1, y1, x2, y2 = corners[index].tolist()
        entry: dict[str, Any] = {"image_id": image_id, "category_id": category_id(label), "score": score}
        if mask_scores is not None:
            entry["score_mask"] = mask_scores[index]
        if boxes:
            entry["bbox"] = [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)]
        entry["segmentation"] = {"size": list(codes[index]["size"]), "counts": codes[index]["counts"].decode()}
        entries.append(entry)
    return entries


def batch_results(
    predictions: Sequence[Prediction],
    sizes: Sequence[Sequence[int]],
    original_sizes: Sequence[Sequence[int]],
    image_ids: Sequence[int],
    boxes: bool = True,
) -> list[dict[str, Any]]:
    """The entries of a batch.

    Args:
        predictions: one an image.
        sizes: (height, width) at which each was made.
        original_sizes: (height, width) of each image's file.
        image_ids: of the images.
        boxes: see `coco_results`.
    """
    return [
        entry
        for prediction, size, original, image_id in zip(predictions, sizes, original_sizes, image_ids, strict=True)
        for entry in coco_results(prediction, image_id, boxes, (_pair(size), _pair(original)))
    ]


def _pair(size: Sequence[int]) -> tuple[int, int]:
    height, width = size
    return int(height), int(width)
