"""How a run's scores fall as images get worse: every operation at every severity, found and scored in memory.

No perturbed image is written: it is made from the split's own, looked at and forgotten. The severities come from a file that
is made once for the dataset (`calibrate_severities`), so that all runs see the same images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from comics.data.canonical.coco import read
from comics.data.loading.batches import collate
from comics.data.loading.geometry import fit
from comics.data.loading.samples import Sample
from comics.data.perturb import severity
from comics.data.perturb.operations import WARPS, Pixels, generator_for, warp_image
from comics.data.perturb.severity import FAMILY_OF, Severity
from comics.data.perturb.split import warp_face
from comics.detect.predictor import Predictor
from comics.detectors.results import batch_results
from comics.errors import UserError
from comics.evaluation.scores import ALL, METRICS, evaluate
from comics.params import ResolvedRun, RobustnessParams
from comics.progress import Progress, silent, told

CALIBRATED_ON = 6
"""Images that severities are calibrated on."""
SHOWN = tuple(metric for metric in METRICS if metric != "oLRP_threshold")
HEADER = ("operation", "family", "severity", "psnr", "ssim", "task", *SHOWN)


@dataclass(frozen=True)
class Photos:
    """Images of a split and their ground truth.

    Attributes:
        images: (H, W, 3) uint8 each.
        truth: COCO content of these images alone, in their order.
    """

    images: list[Pixels]
    truth: dict[str, Any]


def read_photos(annotations: Path, count: int) -> Photos:
    """`count` images of a canonical COCO file (all of them if fewer), spread evenly in order of id.

    Raises:
        UserError: the file or an image is missing or not readable.
    """
    content = read(annotations)
    images = sorted(content["images"], key=lambda one: one["id"])
    count = min(count, len(images))
    chosen = [images[(2 * index + 1) * len(images) // (2 * count)] for index in range(count)]
    ids = {one["id"] for one in chosen}
    photos = []
    for one in chosen:
        try:
            with Image.open(annotations.parent / one["file_name"]) as file:
                photos.append(np.array(file.convert("RGB")))
        except (OSError, ValueError, SyntaxError) as error:
            raise UserError(f"{annotations.parent / one['file_name']}: no readable image ({error}).") from None
    faces = [one for one in content["annotations"] if one["image_id"] in ids]
    return Photos(photos, {"images": chosen, "annotations": faces, "categories": content["categories"]})


def operations(block: RobustnessParams) -> list[str]:
    """The operations of the families of `block`, family by family."""
    return [name for family in block.families for name, of in FAMILY_OF.items() if of == family]


def calibrate_severities(
    photos: Photos, block: RobustnessParams, progress: Progress = silent
) -> dict[str, tuple[Severity, ...]]:
    """Operation -> how it is applied at the severities 1 to 5."""
    names = operations(block)
    step = max(1, len(photos.images) // CALIBRATED_ON)
    images = photos.images[::step][:CALIBRATED_ON]
    return {
        name: severity.calibrate(images, name) for name in told(names, len(names), progress, "Calibrate severities")
    }


def perturbed(photos: Photos, name: str, amount: float) -> Photos:
    """All images with an operation; where it moves pixels, their faces too."""
    images, faces = [], []
    for picture, one in zip(photos.images, photos.truth["images"], strict=True):
        generator = generator_for(0, f"{name}:{one['file_name']}")
        own = [face for face in photos.truth["annotations"] if face["image_id"] == one["id"]]
        if name in WARPS:
            height, width = picture.shape[:2]
            positions = WARPS[name]((height, width), amount, generator)
            images.append(warp_image(picture, positions))
            for face in own:
                change = warp_face(face["segmentation"], positions, height, width)
                faces += [{**face, **change}] if change is not None else []
        else:
            images.append(severity.changed(picture, name, amount, generator))
            faces += own
    return Photos(images, {**photos.truth, "annotations": faces})


def detections(predictor: Predictor, photos: Photos) -> list[dict[str, Any]]:
    """What a run finds in `photos`, as COCO results."""
    run = predictor.run
    entries: list[dict[str, Any]] = []
    has_boxes = predictor.model.detector.predicts_boxes
    samples = [
        _sample(picture, one["id"], run.training.image_size)
        for picture, one in zip(photos.images, photos.truth["images"], strict=True)
    ]
    for batch in map(collate, _batches(samples, run.inference.batch_size)):
        found = predictor(batch.images, batch.sizes)
        entries += batch_results(found, batch.sizes, batch.original_sizes, batch.image_ids, has_boxes)
    return entries


def _sample(picture: Pixels, image_id: int, longest: int) -> Sample:
    height, width = picture.shape[:2]
    pixels = np.asarray(fit(height, width, longest).image(Image.fromarray(picture)))
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float().div_(255)
    nothing: Tensor = torch.zeros(0, dtype=torch.long)
    masks = torch.zeros(0, *image.shape[-2:], dtype=torch.bool)
    return Sample(image, None, torch.zeros(0, 4), nothing, masks, image_id, (height, width))


def _batches(samples: Sequence[Sample], size: int) -> Iterator[list[Sample]]:
    """Of images of the same size, as many as belong together."""
    groups: dict[tuple[int, ...], list[Sample]] = {}
    for sample in samples:
        groups.setdefault(tuple(sample.image.shape), []).append(sample)
    for group in groups.values():
        for start in range(0, len(group), size):
            yield group[start : start + size]


def measure(
    run: ResolvedRun,
    block: RobustnessParams,
    severities: dict[str, tuple[Severity, ...]],
    root: Path = Path(),
    progress: Progress = silent,
) -> list[list[Any]]:
    """Rows under `HEADER`: scores of all classes together, first of the images as they are (severity 0).

    Args:
        run: whose weights are there.
        block: of params.yaml.
        severities: as `calibrate_severities` made them.
        root: the project's.
        progress: told of the conditions.

    Raises:
        UserError: weights or images are missing, or an operation has no severities.
    """
    names = operations(block)
    lacking = [name for name in names if name not in severities]
    if lacking:
        raise UserError(
            f"No severities of {', '.join(lacking)}.", "Renew them with: snakemake --force calibrate_severities"
        )
    predictor = Predictor(run, root)
    photos = read_photos(root / run.annotations(block.split), block.images)
    conditions: list[tuple[str, int]] = [("none", 0), *((name, one) for name in names for one in block.severities)]
    rows: list[list[Any]] = []
    for name, level in told(conditions, len(conditions), progress, f"{run.name}, operations and severities"):
        one = severities[name][level - 1] if level else Severity(0.0)
        now = perturbed(photos, name, one.amount) if level else photos
        scores = evaluate(now.truth, detections(predictor, now))
        for task in ("detection", "segmentation"):
            values = [scores[task, ALL, metric] for metric in SHOWN]
            rows.append([name, FAMILY_OF.get(name, "none"), level, one.psnr, one.ssim, task, *values])
    return rows
