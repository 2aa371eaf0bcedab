"""Masks of images as instances: connected components, and values of indexed masks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from comics.errors import UserError

Mask = NDArray[np.uint8]


def read_mask(path: Path, size: tuple[int, int], where: str) -> Mask:
    """The values of a mask file.

    Args:
        path: an image of one channel, of a palette (its indices count), or of colours (their luma counts).
        size: width and height of the image that it belongs to.
        where: names the mask in messages.

    Returns:
        (H, W) in uint8. Grey values of 16 bits are taken down to their upper eight.

    Raises:
        UserError: it is no readable image, or has another size than its image.
    """
    try:
        with Image.open(path) as image:
            if image.size != size:
                raise UserError(
                    f"{where}: {path} is {image.width} x {image.height} px, its image {size[0]} x {size[1]}.",
                    "Scale the mask to its image (nearest neighbour), or give the one that belongs to it.",
                )
            if image.mode in ("P", "L"):
                return np.array(image, dtype=np.uint8)
            if image.mode.startswith("I"):
                return (np.array(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8)
            return np.array(image.convert("L"), dtype=np.uint8)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{where}: {path} is no readable image ({error}).", "Extract it again.") from None


def instances(mask: Mask, indexed: bool, threshold: int = 128, least: int = 1) -> Iterator[NDArray[np.bool_]]:
    """The instances of a mask, from the top left to the bottom right.

    Args:
        mask: (H, W).
        indexed: each value but 0 and 255 (which datasets use for what is ignored) is one instance; otherwise each
            8-connected component of the pixels of `threshold` or more is.
        threshold: where foreground begins in a mask that is not indexed; compression leaves values between.
        least: instances of fewer pixels are left out.

    Yields:
        (H, W) masks that do not overlap.
    """
    from scipy import ndimage

    if indexed:
        labels = np.where(mask == 255, 0, mask)
        values = [int(value) for value in np.unique(labels) if value]
    else:
        labels, count = ndimage.label(mask >= threshold, structure=np.ones((3, 3)))
        values = list(range(1, count + 1))
    areas = np.bincount(labels.ravel(), minlength=1 + max(values, default=0))
    for value in values:
        if areas[value] >= least:
            yield labels == value


def as_annotation(instance: NDArray[np.bool_]) -> dict[str, Any]:
    """The ``segmentation`` (compressed RLE), ``bbox``, ``area`` and ``iscrowd`` of an instance (H, W)."""
    from pycocotools import mask as coco_mask

    encoded = coco_mask.encode(np.asfortranarray(instance, dtype=np.uint8))
    return {
        "segmentation": {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")},
        "bbox": [float(value) for value in coco_mask.toBbox(encoded)],
        "area": int(coco_mask.area(encoded)),
        "iscrowd": 0,
    }


def as_mask(annotation: dict[str, Any]) -> NDArray[np.bool_]:
    """The instance (H, W) of what `as_annotation` gives."""
    from pycocotools import mask as coco_mask

    return coco_mask.decode(annotation["segmentation"]).astype(bool)


def box_annotation(box: tuple[float, float, float, float], size: tuple[int, int]) -> dict[str, Any] | None:
    """The fields of a face of which only the box ``(x, y, width, height)`` is known, whose ellipse stands for its mask.

    None when nothing of it lies inside an image of `size` (width, height).
    """
    x, y, width, height = box
    rows, columns = np.ogrid[: size[1], : size[0]]
    if width <= 0 or height <= 0:
        return None
    across = (columns + 0.5 - x - width / 2) / (width / 2)
    down = (rows + 0.5 - y - height / 2) / (height / 2)
    inside = across**2 + down**2 <= 1
    return as_annotation(inside) if inside.any() else None
