"""MEInst's mask code (Zhang et al., CVPR 2020): masks as a few numbers, by principal components of the training masks.

Each training mask is cropped to its box, resized to 28 x 28 and taken through the inverse sigmoid, as the published
implementation does; the principal components of these 784 values are the code's basis. The components are exact, from
one pass that sums a covariance matrix, and nested: a code of K numbers uses the first K rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from comics.data.canonical.coco import stream
from comics.errors import UserError
from comics.files import atomic_write, file_digest
from comics.provenance import require_intact, write_sidecar

SIDE = 28  # of a mask, in cells
INSIDE_RANGE = (0.01, 0.05)
"""A cell outside the mask has a probability from this range, a cell inside 1 minus it. So the logits are finite and
differ a little, without which the components of identical cells would be undetermined. Published implementation."""
FILE = "mask_codec.npz"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MaskCodec:
    """Principal components, the most important first.

    Attributes:
        mean: (784,) logits.
        components: (784, 784), orthonormal rows.
        variances: (784,) of the training masks along each component.
    """

    mean: Floats
    components: Floats
    variances: Floats

    def encode(self, logits: Floats, count: int) -> Floats:
        """Logits (N, 784) to whitened codes (N, `count`)."""
        return (logits - self.mean) @ self.components[:count].T / np.sqrt(self.variances[:count])

    def decode(self, codes: Floats) -> Floats:
        """Codes (N, K) to logits (N, 784)."""
        count = codes.shape[1]
        return codes * np.sqrt(self.variances[:count]) @ self.components[:count] + self.mean


def logits_of(masks: NDArray[np.bool_], random: np.random.Generator) -> Floats:
    """Masks (N, ...) to logits, with probabilities drawn from `INSIDE_RANGE`."""
    low, high = INSIDE_RANGE
    outside = np.maximum(high * random.random(masks.shape), low)
    value = np.log(outside / (1 - outside))
    return np.where(masks, -value, value)


def fit(batches: Iterable[NDArray[np.bool_]], seed: int = 0) -> MaskCodec:
    """The codec of masks that come in batches (N, 28, 28).

    Args:
        batches: read once.
        seed: of the probabilities.

    Raises:
        ValueError: fewer than two masks.
    """
    random = np.random.default_rng(seed)
    count, total, products = 0, np.zeros(SIDE**2), np.zeros((SIDE**2, SIDE**2))
    for batch in batches:
        logits = logits_of(batch.reshape(-1, SIDE**2), random)
        count += len(logits)
        total += logits.sum(axis=0)
        products += logits.T @ logits
    if count < 2:
        raise ValueError("principal components need at least two masks")
    mean = total / count
    values, vectors = np.linalg.eigh((products - count * np.outer(mean, mean)) / (count - 1))
    components = vectors.T[::-1]
    largest = np.abs(components).argmax(axis=1)  # eigenvectors have no sign of their own
    components = components * np.sign(components[np.arange(len(components)), largest])[:, None]
    variances = np.maximum(values[::-1], 1e-6 * values[-1])  # few masks leave directions without variance
    return MaskCodec(mean, components, variances)


def crop(face: dict[str, Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask (28, 28) of a COCO annotation, cropped to its box.

    Args:
        face: with `bbox` and `segmentation`, polygons or RLE.
        size: height and width of the image.
    """
    left, top, width, height = face["bbox"]
    segmentation = face["segmentation"]
    if isinstance(segmentation, list):
        scale, corner = np.array([SIDE / width, SIDE / height]), np.array([left, top])
        rings = [((np.reshape(ring, (-1, 2)) - corner) * scale).ravel().tolist() for ring in segmentation]
        return rle.decode(rle.merge(rle.frPyObjects(rings, SIDE, SIDE))).astype(bool)
    code = rle.frPyObjects(segmentation, *size) if isinstance(segmentation["counts"], list) else segmentation
    mask = rle.decode(code)
    centres = (np.arange(SIDE) + 0.5) / SIDE
    rows = np.clip(top + height * centres, 0, size[0] - 1).astype(int)
    columns = np.clip(left + width * centres, 0, size[1] - 1).astype(int)
    return mask[np.ix_(rows, columns)].astype(bool)


def training_masks(annotations: Path, batch: int = 1024) -> Iterator[NDArray[np.bool_]]:
    """The cropped masks of a canonical COCO file, without crowds, in batches."""
    sizes: dict[int, tuple[int, int]] = {}
    crops: list[NDArray[np.bool_]] = []
    for section, index, element in stream(annotations):
        if section == "images" and index >= 0:
            sizes[element["id"]] = (element["height"], element["width"])
        elif section == "annotations" and index >= 0 and not element.get("iscrowd", 0):
            crops.append(crop(element, sizes[element["image_id"]]))
            if len(crops) == batch:
                yield np.stack(crops)
                crops = []
    if crops:
        yield np.stack(crops)


def encode_masks(
    annotations: Path, output: Path, seed: int = 0, progress: Callable[[int], None] | None = None
) -> tuple[int, dict[int, float]]:
    """Fit the codec of the training split and write it.

    Args:
        annotations: canonical COCO file of the training split.
        output: `.npz` file to write; its sidecar tells what it was made from.
        seed: of the probabilities.
        progress: called with the number of masks read so far.

    Returns:
        How many masks there were, and for some lengths of the code the mean IoU of up to 1,024 of them with what their
        code decodes to.

    Raises:
        UserError: the file is missing or has fewer than two faces.
    """
    if not annotations.is_file():
        raise UserError(f"{annotations}: no such file.", "Make or convert the dataset first: comics data --help.")
    count, first = 0, np.zeros((0, SIDE, SIDE), dtype=bool)

    def batches() -> Iterator[NDArray[np.bool_]]:
        nonlocal count, first
        for masks in training_masks(annotations):
            first = first if len(first) else masks
            count += len(masks)
            if progress:
                progress(count)
            yield masks

    try:
        codec = fit(batches(), seed)
    except ValueError:
        raise UserError(f"{annotations}: has {count} faces, two are needed to fit a mask code.") from None
    with atomic_write(output) as beside, beside.open("wb") as file:
        np.savez(
            file,
            mean=codec.mean.astype(np.float32),
            components=codec.components.astype(np.float32),
            variances=codec.variances.astype(np.float32),
        )
    quality = {length: reconstruction(codec, first, length, seed) for length in (20, 60, 120)}
    write_sidecar(
        output,
        {
            "annotations_sha256": file_digest(annotations),
            "masks": count,
            "seed": seed,
            "mean_iou": {str(length): round(value, 4) for length, value in quality.items()},
        },
    )
    return count, quality


def reconstruction(codec: MaskCodec, masks: NDArray[np.bool_], length: int, seed: int = 0) -> float:
    """Mean IoU of masks (N, 28, 28) with what their codes of `length` numbers decode to."""
    logits = logits_of(masks.reshape(len(masks), -1), np.random.default_rng(seed))
    decoded = codec.decode(codec.encode(logits, length)).reshape(masks.shape) >= 0
    union = (decoded | masks).sum(axis=(1, 2))
    return float(((decoded & masks).sum(axis=(1, 2)) / np.maximum(union, 1)).mean())


def load(path: Path) -> MaskCodec:
    """Read what `encode_masks` wrote.

    Raises:
        UserError: the file is missing, is not a codec, or has changed since it was written.
    """
    remedy = "Make it with `comics data encode-masks`."
    if not path.is_file():
        raise UserError(f"{path}: no such file; the detector meinst needs it.", remedy)
    require_intact(path, remedy)
    try:
        with np.load(path, allow_pickle=False) as content:
            mean, components, variances = (
                content[name].astype(np.float64) for name in ("mean", "components", "variances")
            )
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: is not a mask code ({error}).", remedy) from None
    if mean.shape != (SIDE**2,) or variances.shape != (SIDE**2,) or components.shape != (SIDE**2, SIDE**2):
        raise UserError(f"{path}: is a code of masks of another size.", remedy)
    return MaskCodec(mean, components, variances)
