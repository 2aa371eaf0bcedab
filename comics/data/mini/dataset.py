"""The embedded dataset `mini`: a small OpenForensics, rendered from a seed and written as OpenForensics writes itself.

Every image has a random generator of its own, made of the dataset's seed, its split and its number: the result does not depend
on how many processes render it or on where they were interrupted, and is the same to the last bit on every machine.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import contourpy
import numpy as np

from comics.data.mini.scenes import render_scene
from comics.data.openforensics.dataset import SPLIT_NAMES, annotation_name
from comics.data.perturb.operations import perturb
from comics.data.rendering.camera import compress, recompress
from comics.data.rendering.shapes import Array
from comics.files import atomic_write, write_json
from comics.machine import cores
from comics.params import SPLITS, MiniDataset
from comics.progress import Progress, silent
from comics.provenance import is_intact, made_by, write_sidecar

FAKE_SHARE = {"train": 0.44, "val": 0.69, "test_dev": 0.58, "test_challenge": 0.58}
"""Forged faces among all faces of each split of OpenForensics (table of counts in its paper)."""

OUTLINE_TOLERANCE = 0.35
"""Largest distance in px of a polygon from the outline it simplifies."""

MIN_RING_AREA = 6.0
"""Parts of a face smaller than so many square px are left out."""

RECIPE = 3
"""Raised by hand when the same seed gives other images."""

Render = Callable[[Any, str, int], tuple[bytes, list[dict[str, Any]]]]
"""Block, split and number to an image's JPEG file and its annotations without ids."""


def simplify(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """A closed ring (P, 2) with fewer points, none farther than `tolerance` from it (Douglas and Peucker, 1973)."""
    if len(ring) < 8:
        return ring
    keep = np.zeros(len(ring), bool)
    middle = int(np.argmax(((ring - ring[0]) ** 2).sum(1)))
    keep[[0, middle]] = True
    closed = np.vstack([ring, ring[:1]])
    spans = [(0, middle), (middle, len(ring))]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        start, end = closed[first], closed[last]
        chord = end - start
        length = float(np.hypot(*chord))
        offsets = closed[first + 1 : last] - start
        distance = (
            np.abs(offsets[:, 0] * chord[1] - offsets[:, 1] * chord[0]) / length
            if length > 0
            else np.hypot(offsets[:, 0], offsets[:, 1])
        )
        farthest = int(np.argmax(distance))
        if distance[farthest] > tolerance:
            split = first + 1 + farthest
            keep[split] = True
            spans += [(first, split), (split, last)]
    return ring[keep]


def _area(ring: np.ndarray) -> float:
    """Area of a closed ring in square px (shoelace formula)."""
    x, y = ring[:, 0], ring[:, 1]
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def outline(coverage: Array) -> list[list[float]]:
    """Polygons in COCO's form around the pixels of which at least half is covered; empty for a face too small."""
    padded = np.pad(coverage, 1)
    polygons = []
    for line in contourpy.contour_generator(z=padded).lines(0.5):
        ring = np.asarray(line, float)[:-1] - 0.5  # the padding moves by 1 px, pixel centres by 1/2
        ring = np.clip(ring, 0, [coverage.shape[1], coverage.shape[0]])
        if len(ring) >= 3 and _area(ring) >= MIN_RING_AREA:
            polygons.append(np.round(simplify(ring, OUTLINE_TOLERANCE), 2).ravel().tolist())
    return polygons


def annotation(polygons: list[list[float]], fake: bool, area: float) -> dict[str, Any]:
    """A face as OpenForensics notes it, without ids; `area` in square px."""
    points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in polygons])
    low, high = points.min(0), points.max(0)
    return {
        "iscrowd": 0,
        "area": area,
        "category_id": int(fake),
        "bbox": [round(float(value), 2) for value in (*low, *(high - low))],
        "segmentation": polygons,
    }


def render_image(spec: MiniDataset, split: str, index: int) -> tuple[bytes, list[dict[str, Any]]]:
    """One image of the dataset: its JPEG file and its annotations, without ids."""
    name = f"{spec.seed}/{RECIPE}/{split}/{index}"
    rng = np.random.default_rng([spec.seed, RECIPE, SPLITS.index(split), index])
    pixels, faces, quality = render_scene(rng, spec.height, spec.width, FAKE_SHARE[split])
    if split == "test_challenge":
        # the photograph is perturbed after it was compressed, as pictures on their way through the web are
        pixels = recompress(pixels, quality)
        pixels = perturb(pixels, seed=spec.seed, name=name, level=spec.challenge_level).image
        quality = 92
    annotations = []
    for face in faces:
        polygons = outline(face.coverage)
        if polygons:
            area = round(sum(_area(np.reshape(polygon, (-1, 2))) for polygon in polygons), 2)
            annotations.append(annotation(polygons, face.fake, area))
    return compress(pixels, quality), annotations


def _write_image(task: tuple[Render, Any, str, int, str]) -> list[dict[str, Any]]:
    render, spec, split, index, path = task
    data, annotations = render(spec, split, index)
    with atomic_write(path) as beside:
        beside.write_bytes(data)
    return annotations


def _in_order(tasks: list[Any], processes: int) -> Iterator[list[dict[str, Any]]]:
    if processes <= 1:
        yield from map(_write_image, tasks)
        return
    context = multiprocessing.get_context("spawn")  # forking a process that has threads may hang
    with ProcessPoolExecutor(processes, context) as pool:
        try:
            yield from pool.map(_write_image, tasks, chunksize=4)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def make(spec: MiniDataset, root: Path, progress: Progress = silent, processes: int | None = None) -> None:
    """Render the dataset below `root`, as `write_dataset` describes."""
    write_dataset(spec, root, render_image, RECIPE, progress, processes)


def _decides(recipe: dict[str, Any]) -> dict[str, Any]:
    """What of a recipe decides its split: not how many images the others have."""
    spec = recipe.get("spec")
    if not isinstance(spec, dict):
        return recipe
    others = {*SPLITS, "challenge_level"} - {recipe.get("split")}
    if recipe.get("split") == "test_challenge":
        others.discard("challenge_level")
    return {**recipe, "spec": {key: value for key, value in spec.items() if key not in others}}


def write_dataset(
    spec: Any, root: Path, render: Render, version: int, progress: Progress = silent, processes: int | None = None
) -> None:
    """Render a dataset in OpenForensics' own form: ``{Split}_poly.json`` and ``Images/<Split>/*.jpg`` below `root`.

    A split that is there already, made of the same `spec` (but for the other splits' sizes) and `version`, is not rendered again.

    Args:
        spec: its block of params.yaml: sizes, seed, numbers of images.
        root: folder to write to.
        render: gives an image; a function of a module, as other processes call it.
        version: of the recipe.
        progress: told after every image: task, images done, images in all.
        processes: how many at a time; all cores when None.
    """
    for split in SPLITS:
        target = root / annotation_name(split)
        recipe = {"recipe": version, "split": split, "spec": spec.model_dump(mode="json")}
        if target.exists() and _decides(made_by(target)) == _decides(recipe) and is_intact(target):
            continue
        count = getattr(spec, split)
        names = [f"Images/{SPLIT_NAMES[split]}/{split}_{index:05d}.jpg" for index in range(count)]
        (root / names[0]).parent.mkdir(parents=True, exist_ok=True)
        tasks = [(render, spec, split, index, str(root / name)) for index, name in enumerate(names)]
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index, faces in enumerate(_in_order(tasks, processes or cores())):
            images.append({"id": index, "file_name": names[index], "width": spec.width, "height": spec.height})
            for face in faces:
                annotations.append({"id": len(annotations), "image_id": index, **face})
            progress(f"rendering {split}", index + 1, count)
        categories = [{"id": 0, "name": "Real"}, {"id": 1, "name": "Fake"}]
        write_json(target, {"categories": categories, "images": images, "annotations": annotations})
        write_sidecar(target, recipe)
