"""The embedded dataset `crowd`: harder than `mini`, with kinds of forgery that are named, each given away by several traces.

Like mini it is rendered from a seed and written as OpenForensics writes itself; every image has a random generator of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from comics.data.crowd.scenes import render_scene
from comics.data.mini.dataset import FAKE_SHARE, annotation, outline, write_dataset
from comics.data.perturb.operations import perturb
from comics.data.rendering.camera import compress, recompress
from comics.params import SPLITS, CrowdDataset
from comics.progress import Progress, silent

RECIPE = 4
"""Raised by hand when the same seed gives other images."""


def _annotation(polygons: list[list[float]], forgery: str, size: tuple[int, int]) -> dict[str, Any]:
    area = int(coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(polygons, *size))))
    return annotation(polygons, bool(forgery), area) | ({"forgery": forgery} if forgery else {})


def render_image(spec: CrowdDataset, split: str, index: int) -> tuple[bytes, list[dict[str, Any]]]:
    """One image of the dataset: its JPEG file and its annotations, without ids."""
    name = f"{spec.seed}/{RECIPE}/{split}/{index}"
    rng = np.random.default_rng([spec.seed, RECIPE, SPLITS.index(split), index])
    held_out = spec.held_out if split in ("train", "val") else ()
    pixels, faces, quality = render_scene(rng, spec.height, spec.width, FAKE_SHARE[split], spec.traces, held_out)
    if split == "test_challenge":
        # the photograph is perturbed after it was compressed, as pictures on their way through the web are
        pixels = recompress(pixels, quality)
        pixels = perturb(pixels, seed=spec.seed, name=name, level=spec.challenge_level).image
        quality = 92
    annotations = []
    for face in faces:
        polygons = outline(face.coverage)
        if polygons:
            annotations.append(_annotation(polygons, face.forgery, (spec.height, spec.width)))
    return compress(pixels, quality), annotations


def make(spec: CrowdDataset, root: Path, progress: Progress = silent, processes: int | None = None) -> None:
    """Render the dataset below `root`, as `comics.data.mini.dataset.write_dataset` describes."""
    write_dataset(spec, root, render_image, RECIPE, progress, processes)
