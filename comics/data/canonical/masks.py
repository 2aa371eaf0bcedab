"""Images with masks of what is forged (``kind: masks``), and their conversion to canonical COCO.

Datasets of image manipulation and of forged faces come as a folder of images and a folder of masks. Each instance of a
mask becomes a Fake face. Real faces are not in such masks: they are unknown, unless a COCO file of a face detector's boxes
says where faces are; then a box that hardly overlaps the fake ones is a Real face, whose mask is the box's ellipse.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from comics.classes import category_id
from comics.data.canonical import coco
from comics.data.canonical.convert import Report, convert_coco, image_size
from comics.data.canonical.frames import natural_key, sample
from comics.data.canonical.instances import Mask, as_annotation, as_mask, box_annotation, instances, read_mask
from comics.errors import UserError
from comics.files import write_json
from comics.params import MasksDataset
from comics.progress import Progress, silent

FAKE, REAL = category_id(1), category_id(0)
# A detector's box is a fake face's where its overlap with that face's box is at least this (IoU), or half of it is forged.
SAME_FACE = 0.3
COVERED = 0.5
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class MaskSource:
    """One split of images and masks.

    Attributes:
        images: a folder of images, with folders in it or not.
        masks: a folder of masks, under the images' relative names with any suffix. An image without one has no forged face.
        faces: a COCO file of faces' boxes, whatever their categories, whose file names are relative to `images`.
        suffix: what follows the image's name in the mask's: ``_gt`` for ``a.jpg`` and ``a_gt.png``.
        indexed: each value of a mask is an instance, rather than each connected component.
        threshold: where foreground begins in a mask that is not indexed.
        least: instances of fewer pixels are left out.
    """

    images: Path
    masks: Path
    faces: Path | None = None
    suffix: str = ""
    indexed: bool = False
    threshold: int = 128
    least: int = 16


def real_faces(path: Path) -> dict[str, list[tuple[float, float, float, float]]]:
    """The boxes ``(x, y, width, height)`` of a COCO file, by the file name of their image."""
    names: dict[int, str] = {}
    boxes: dict[str, list[tuple[float, float, float, float]]] = {}
    found: list[tuple[int, str, tuple[float, float, float, float]]] = []
    for key, index, item in coco.stream(path):
        if index < 0:
            coco.require_section(key, item, path)
            continue
        where = f"{path}: {key}[{index}]"
        if key == "images":
            image = coco.require_object(item, where)
            name = coco.require_file_name(image.get("file_name"), f"{where}.file_name")
            names[coco.require_integer(image.get("id"), f"{where}.id")] = name.as_posix()
        elif key == "annotations":
            face = coco.require_object(item, where)
            box = coco.require_box(face.get("bbox"), f"{where}.bbox")
            found.append((coco.require_integer(face.get("image_id"), f"{where}.image_id"), where, box))
    for identity, where, box in found:
        if identity not in names:
            raise UserError(f"{where}.image_id: the file has no image {identity}.")
        boxes.setdefault(names[identity], []).append(box)
    return boxes


def _is_known(box: tuple[float, float, float, float], known: list[dict[str, Any]], covered: NDArray[np.bool_]) -> bool:
    """Whether a detected face is one of those that a mask shows."""
    x, y, width, height = box
    for face in known:
        left, top, across, down = face["bbox"]
        shared_width = min(x + width, left + across) - max(x, left)
        shared_height = min(y + height, top + down) - max(y, top)
        shared = max(0.0, shared_width) * max(0.0, shared_height)
        if shared >= SAME_FACE * (width * height + across * down - shared):
            return True
    part = covered[max(0, round(y)) : max(0, round(y + height)), max(0, round(x)) : max(0, round(x + width))]
    return bool(part.size and part.mean() >= COVERED)


def masked_faces(mask: Mask, label: int, indexed: bool, threshold: int, least: int) -> list[dict[str, Any]]:
    """The instances of a mask (H, W) as faces of category `label`: COCO annotations without ids."""
    return [{"category_id": label, **as_annotation(one)} for one in instances(mask, indexed, threshold, least)]


def detected_faces(
    boxes: list[tuple[float, float, float, float]], known: list[dict[str, Any]], size: tuple[int, int]
) -> list[dict[str, Any]]:
    """The faces of a detector's `boxes` that are none of the `known` ones, as Real, in an image of `size` (width, height)."""
    covered = np.zeros(size[::-1], dtype=bool)
    for face in known:
        covered |= as_mask(face)
    found = (box_annotation(box, size) for box in boxes if not _is_known(box, known, covered))
    return [{"category_id": REAL, **face} for face in found if face is not None]


def _masks_by_name(folder: Path) -> dict[str, Path]:
    """The masks at or below `folder` by their relative path without suffix."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder.", "Name the split's folder of masks under `masks`.")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*"), key=lambda path: natural_key(str(path))):
        if path.suffix.lower() in MASK_SUFFIXES and path.is_file():
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in found:
                raise UserError(f"{path}: {found[name].name} is a mask of the same image.", "Remove one of them.")
            found[name] = path
    return found


def describe(source: MaskSource, progress: Progress = silent, task: str = "reading masks") -> dict[str, Any]:
    """A split of images and masks as COCO content.

    Raises:
        UserError: a folder is missing, a mask belongs to no image, or a file cannot be read.
    """
    paths = sample(source.images, 1)
    if not paths:
        raise UserError(f"{source.images}: holds no image.", "Name the split's folder of images under `images`.")
    masks = _masks_by_name(source.masks)
    boxes = real_faces(source.faces) if source.faces is not None else {}
    images: list[dict[str, Any]] = []
    faces: list[dict[str, Any]] = []
    used = set()
    for number, path in enumerate(paths, 1):
        relative = path.relative_to(source.images)
        name = relative.as_posix()
        size = image_size(path, name)
        stem = f"{relative.with_suffix('').as_posix()}{source.suffix}"
        if stem in masks:
            used.add(stem)
            mask = read_mask(masks[stem], size, f"mask of {name}")
        else:
            mask = np.zeros(size[::-1], dtype=np.uint8)
        images.append({"id": number, "file_name": name, "width": size[0], "height": size[1]})
        found = masked_faces(mask, FAKE, source.indexed, source.threshold, source.least)
        if name in boxes:
            found += detected_faces(boxes[name], found, size)
        for face in found:
            faces.append({"id": len(faces) + 1, "image_id": number, **face})
        progress(task, number, len(paths))
    lost = [path for stem, path in masks.items() if stem not in used]
    if lost:
        raise UserError(
            f"{source.masks}: {len(lost)} of {len(masks)} masks belong to no image, {lost[0].name} first.",
            "A mask has its image's relative path without the suffix, and `mask_suffix` after it.",
        )
    unknown = sorted(boxes.keys() - {image["file_name"] for image in images})
    if unknown:
        raise UserError(
            f"{source.faces}: {unknown[0]} is not in {source.images}.", "Give names relative to that folder."
        )
    return {"images": images, "annotations": faces, "categories": coco.CATEGORIES}


def mask_sources(block: MasksDataset, splits: Collection[str]) -> dict[str, MaskSource]:
    """The sources of `splits` that a dataset of params.yaml names."""
    return {
        name: MaskSource(
            images=Path(split.images),
            masks=Path(split.masks),
            faces=Path(split.faces) if split.faces else None,
            suffix=block.mask_suffix,
            indexed=block.indexed,
            threshold=block.threshold,
            least=block.min_area,
        )
        for name, split in block.splits.items()
        if name in splits
    }


def convert_masks(
    sources: Mapping[str, MaskSource],
    output: Path,
    strict: bool = False,
    allow_missing: bool = False,
    progress: Progress = silent,
) -> Report:
    """Convert images with masks, a `MaskSource` a split, to ``output/<split>/``; what the masks say lies in ``output/raw/``."""
    annotations = {}
    for split, source in sources.items():
        content = describe(source, progress, f"{split}: reading masks")
        annotations[split] = output / "raw" / f"{split}.json"
        annotations[split].parent.mkdir(parents=True, exist_ok=True)
        write_json(annotations[split], content)
    images = {split: source.images for split, source in sources.items()}
    return convert_coco(annotations, images, output, strict=strict, allow_missing=allow_missing, progress=progress)
