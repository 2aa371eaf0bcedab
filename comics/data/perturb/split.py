"""A whole split perturbed: `comics.data.perturb.operations` applied to every image of a canonical COCO file."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pycocotools import mask as coco_mask

from comics.data.canonical import coco
from comics.data.canonical.coco import SPLITS
from comics.data.canonical.convert import ANNOTATIONS_NAME, ID_STRIDE, replace_folder
from comics.data.perturb import operations
from comics.errors import UserError, did_you_mean
from comics.files import atomic_write, read_json, write_json
from comics.progress import Progress, silent

REPORT_NAME = "perturbation.json"
# Raised by hand when the same image, seed and level give another result: everything is then perturbed again.
VERSION = 1


@dataclass
class PerturbReport:
    """How many images and faces were written, faces lost because they left the image, and uses of each operation."""

    images: int = 0
    faces: int = 0
    lost: int = 0
    operations: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Task:
    source: Path
    target: Path
    name: str
    seed: int
    level: int | None
    geometry: bool
    faces: tuple[tuple[int, Any], ...]
    """Number and segmentation of each face, where the geometry may change; empty where it may not."""


def _save(image: NDArray[np.uint8], path: Path) -> None:
    """JPEG at quality 95 without chroma subsampling, or PNG where the name says so."""
    with atomic_write(path) as beside:
        if path.suffix == ".png":
            Image.fromarray(image).save(beside, "PNG")
        else:
            Image.fromarray(image).save(beside, "JPEG", quality=95, subsampling=0)


def _perturb_file(task: _Task) -> tuple[list[str], dict[int, dict[str, Any] | None]]:
    """Perturb one image file; the operations, and the new fields of each face when pixels moved (None: it is gone)."""
    options: dict[str, Any] = {"seed": task.seed, "name": task.name, "level": task.level, "geometry": task.geometry}
    result: operations.Plan | operations.Perturbed
    try:
        with Image.open(task.source) as file:
            width, height = file.size
            if task.target.is_file():  # from a run that was interrupted
                result = operations.plan((height, width), **options)
            else:
                result = operations.perturb(np.array(file.convert("RGB")), **options)
                _save(result.image, task.target)
    except (UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise UserError(f"{task.source}: no readable image ({error}).", "Convert the dataset again.") from None
    except OSError as error:
        raise UserError(f"{task.source} or {task.target}: {error.strerror or error}.") from None
    faces: dict[int, dict[str, Any] | None] = {}
    if result.positions is not None:
        for number, segmentation in task.faces:
            faces[number] = warp_face(segmentation, result.positions, height, width)
    return [f"level {result.level}", *result.operations], faces


def warp_face(segmentation: Any, positions: NDArray[np.float32], height: int, width: int) -> dict[str, Any] | None:
    """The ``segmentation`` (compressed RLE), ``bbox`` and ``area`` of a face after its image was warped.

    Args:
        segmentation: canonical polygons or RLE.
        positions: (2, H, W), see `comics.data.perturb.operations.Perturbed`.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        None when no pixel of the face is left in the image.
    """
    rle = segmentation
    if isinstance(rle, list):
        rle = coco_mask.merge(coco_mask.frPyObjects(rle, height, width))
    warped = coco_mask.encode(np.asfortranarray(operations.warp_mask(coco_mask.decode(rle), positions)))
    area = float(coco_mask.area(warped))
    if area < 1:
        return None
    return {
        "bbox": [float(value) for value in coco_mask.toBbox(warped)],
        "area": area,
        "segmentation": {"size": [height, width], "counts": warped["counts"].decode("ascii")},
    }


def _results(tasks: list[_Task], jobs: int) -> Iterator[tuple[list[str], dict[int, dict[str, Any] | None]]]:
    """The result of every task, in order."""
    if jobs <= 1:
        yield from map(_perturb_file, tasks)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures: list[Future] = [pool.submit(_perturb_file, task) for task in tasks]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def perturb_split(
    annotations: Path,
    output: Path,
    seed: int = 0,
    level: int | None = None,
    geometry: bool = False,
    png: bool = False,
    jobs: int = 1,
    progress: Progress = silent,
) -> PerturbReport:
    """Perturb every image of a canonical split into another split's folder, going on where it was interrupted.

    Args:
        annotations: canonical COCO file.
        output: folder of the new split; its name, one of `SPLITS`, decides the ids. It appears when all is done.
        seed: with an image's file name, decides what happens to the image.
        level: 1 ... 4; None draws one an image.
        geometry: also flip, rotate or bend each image; masks become RLE, and boxes follow them.
        png: write PNG, exact and large, rather than JPEG of quality 95.
        jobs: processes.
        progress: ``progress(task, done, total)`` in images.

    Raises:
        UserError: for a wrong annotation file, an unreadable image, or an output that would replace its own source.
    """
    split = output.name
    if split not in SPLITS:
        raise UserError(f"'{split}' is no split.", did_you_mean(split, SPLITS))
    if output.resolve() == annotations.parent.resolve():
        raise UserError(f"{output}: a split cannot be perturbed into itself.", "Name another split.")
    if level is not None and level not in operations.LEVELS:
        raise UserError(f"--level: expected 1 to {operations.LEVELS[-1]}, found {level}.")
    coco.validate(annotations)
    document = coco.read(annotations)
    partial = output.parent / f".{split}.perturbed"
    recipe = {
        "version": VERSION,
        "seed": seed,
        "level": level,
        "geometry": geometry,
        "png": png,
        "images": [image["file_name"] for image in document["images"]],
    }
    _prepare(partial, recipe)

    faces_of: dict[int, list[dict[str, Any]]] = {}
    for face in document["annotations"]:
        faces_of.setdefault(face["image_id"], []).append(face)
    names = _names(document["images"], ".png" if png else ".jpg")
    tasks = [
        _Task(
            annotations.parent / image["file_name"],
            partial / name,
            str(PurePosixPath(image["file_name"]).name),
            seed,
            level,
            geometry,
            tuple((n, face["segmentation"]) for n, face in enumerate(faces_of.get(image["id"], [])))
            if geometry
            else (),
        )
        for image, name in zip(document["images"], names, strict=True)
    ]
    report = PerturbReport(images=len(tasks))
    first_id = SPLITS.index(split) * ID_STRIDE + 1
    images: list[dict[str, Any]] = []
    faces: list[dict[str, Any]] = []
    applied: dict[str, list[str]] = {}
    for order, (drawn, warped) in enumerate(_results(tasks, jobs)):
        image = document["images"][order]
        images.append({**image, "id": first_id + order, "file_name": names[order], "source_id": image["id"]})
        applied[names[order]] = drawn
        report.operations.update(drawn[1:])  # without the level
        for number, face in enumerate(faces_of.get(image["id"], [])):
            change = warped.get(number, {})
            if change is None:
                report.lost += 1
                continue
            identity = {"id": first_id + len(faces), "image_id": first_id + order, "source_id": face["id"]}
            faces.append({**face, **change, **identity})
        progress(f"{split}: perturbing images", order + 1, len(tasks))
    report.faces = len(faces)
    coco.write(partial / ANNOTATIONS_NAME, images, faces, description=f"{split}, perturbed with seed {seed}")
    (partial / "recipe.json").unlink()
    write_json(partial / REPORT_NAME, {"recipe": recipe, "lost": report.lost, "operations": applied}, indent=1)
    replace_folder(partial, output)
    return report


def _prepare(partial: Path, recipe: dict[str, Any]) -> None:
    """A folder to go on in: emptied unless it was made by the same recipe."""
    note = partial / "recipe.json"
    try:
        same = read_json(note) == recipe
    except UserError:
        same = False
    if not same:
        shutil.rmtree(partial, ignore_errors=True)
        write_json(note, recipe)
    (partial / "images").mkdir(parents=True, exist_ok=True)


def _names(images: list[dict[str, Any]], suffix: str) -> list[str]:
    """New file names: the old ones with `suffix`; the old suffix stays in the name where two would be the same."""
    plain = [str(PurePosixPath("images") / PurePosixPath(image["file_name"]).name) for image in images]
    stems = [str(PurePosixPath(name).with_suffix("")) for name in plain]
    count = Counter(stem.casefold() for stem in stems)
    return [(stem if count[stem.casefold()] == 1 else name) + suffix for name, stem in zip(plain, stems, strict=True)]


def write_examples(image: Path, folder: Path, width: int = 200) -> list[str]:
    """One small example picture of each operation and warp at three quarters of its strength, and the original.

    Args:
        image: any photograph.
        folder: where ``original.jpg`` and ``<operation>.jpg`` go.
        width: of the pictures, in pixels.

    Returns:
        names of the operations.
    """
    with Image.open(image) as file:
        picture = file.convert("RGB")
        picture = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
        pixels = np.array(picture)
    examples = {"original": pixels}
    for name, operation in operations.OPERATIONS.items():
        examples[name] = operation(pixels, 0.75, operations.generator_for(0, name))
    for name, warp in operations.WARPS.items():
        height, breadth = pixels.shape[:2]
        examples[name] = operations.warp_image(pixels, warp((height, breadth), 0.75, operations.generator_for(0, name)))
    for name, example in examples.items():
        with atomic_write(folder / f"{name}.jpg") as beside:
            Image.fromarray(example).save(beside, "JPEG", quality=80, optimize=True)
    return [name for name in examples if name != "original"]
