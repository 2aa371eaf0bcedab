"""Predictions as entries of a COCO results file, in the pixels of the original images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as rle
from torch.nn.functional import interpolate

from comics.classes import category_id
from comics.detectors.base import Prediction


def to_original(prediction: Prediction, size: tuple[int, int], original: tuple[int, int]) -> Prediction:
    """`prediction` made at `size` (height, width), in the pixels of the `original` size."""
    if size == original:
        return prediction
    scale = torch.tensor([original[1] / size[1], original[0] / size[0]], device=prediction["boxes"].device)
    masks = prediction["masks"]
    if len(masks):
        masks = interpolate(masks[:, None].float(), size=original, mode="bilinear", align_corners=False)[:, 0] >= 0.5
    else:
        masks = masks.new_zeros((0, *original))
    return {**prediction, "boxes": prediction["boxes"] * scale.repeat(2), "masks": masks}


def coco_results(prediction: Prediction, image_id: int, boxes: bool = True) -> list[dict[str, Any]]:
    """`prediction` as entries of a COCO results file.

    Args:
        prediction: in the pixels of the original image.
        image_id: the image's id.
        boxes: whether the detector predicts boxes; without, entries have a segmentation only.
    """
    masks = prediction["masks"].to(torch.uint8).cpu().numpy()
    codes = rle.encode(np.asfortranarray(masks.transpose(1, 2, 0))) if len(masks) else []
    corners = prediction["boxes"].double().cpu().numpy()
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
        for entry in coco_results(to_original(prediction, _pair(size), _pair(original)), image_id, boxes)
    ]


def _pair(size: Sequence[int]) -> tuple[int, int]:
    height, width = size
    return int(height), int(width)
