"""Images and their faces from canonical COCO files, one at a time.

Annotations are held in a few flat arrays, which worker processes share: memory does not grow with their number. Every sample
draws from a seed of its own, made of the run's seed, the epoch and the image's index, so that what is learned does not depend
on how many workers load it, or on where a training was interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from comics.classes import class_label
from comics.data.loading.geometry import Affine, fit, random_affine
from comics.data.loading.views import view
from comics.errors import UserError
from comics.files import read_json
from comics.images import UnreadableImage, opened
from comics.params import TrainingParams, ViewsParams

CACHE_PIXELS = 64 * 10**6
"""Datasets of at most so many pixels are decoded once and kept (about 200 MB)."""

MIN_SIDE = 1.0
"""Faces whose box is thinner after the transform, in px, are dropped."""


@dataclass
class Sample:
    """One image before collation; `masks` are (N, h, w) bool."""

    image: Tensor
    key: Tensor | None
    boxes: Tensor
    labels: Tensor
    masks: Tensor
    image_id: int
    original_size: tuple[int, int]


def _pack(strings: Sequence[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Byte strings as one array and the ends of its parts."""
    ends = np.cumsum([len(string) for string in strings], dtype=np.int64)
    return np.frombuffer(b"".join(strings), np.uint8), ends


class Annotations:
    """A COCO file as flat arrays: a Python object an annotation would be copied into every worker sooner or later.

    Args:
        path: a canonical COCO file (`comics.data.canonical.coco`).

    Raises:
        UserError: the file is absent or not canonical.
    """

    def __init__(self, path: Path) -> None:
        content = read_json(path)
        try:
            images, faces = content["images"], content["annotations"]
            self.ids = np.array([image["id"] for image in images], np.int64)
            self.heights = np.array([image["height"] for image in images], np.int32)
            self.widths = np.array([image["width"] for image in images], np.int32)
            self._names, self._name_ends = _pack([image["file_name"].encode() for image in images])
            row_of = {int(image_id): row for row, image_id in enumerate(self.ids)}
            faces = [face for face in faces if not face.get("iscrowd", 0)]
            rows = np.array([row_of[face["image_id"]] for face in faces], np.int64)
            order = np.argsort(rows, kind="stable")
            self.face_starts = np.searchsorted(rows[order], np.arange(len(images) + 1))
            self.labels = np.array([class_label(faces[index]["category_id"]) for index in order], np.int64)
            self._outlines(faces, order)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}: not a canonical COCO file ({type(error).__name__}: {error}).",
                "Make it with `comics data make` or `comics data convert`.",
            ) from None
        self.folder = path.parent
        self.path = path

    def _outlines(self, faces: list[dict[str, Any]], order: NDArray) -> None:
        """Rings of all polygons end to end; a face given as RLE has none and keeps its code."""
        points: list[NDArray[np.float32]] = []
        ring_ends, face_ends, codes = [], [], []
        total = 0
        for index in order:
            segmentation = faces[index]["segmentation"]
            code = b""
            if isinstance(segmentation, dict):
                counts = segmentation["counts"]
                if isinstance(counts, list):  # uncompressed
                    counts = rle.frPyObjects(segmentation, *segmentation["size"])["counts"]
                code = counts if isinstance(counts, bytes) else counts.encode()
            else:
                for ring in segmentation:
                    points.append(np.asarray(ring, np.float32).reshape(-1, 2))
                    total += len(points[-1])
                    ring_ends.append(total)
            face_ends.append(len(ring_ends))
            codes.append(code)
        self.points = np.concatenate(points) if points else np.zeros((0, 2), np.float32)
        self.ring_ends = np.array(ring_ends, np.int64)
        self.face_ends = np.array(face_ends, np.int64)
        self._codes, self._code_ends = _pack(codes)

    def __len__(self) -> int:
        return len(self.ids)

    def file(self, row: int) -> Path:
        start = self._name_ends[row - 1] if row else 0
        return self.folder / self._names[start : self._name_ends[row]].tobytes().decode()

    def faces(self, row: int) -> range:
        """Indices of the faces of an image."""
        return range(self.face_starts[row], self.face_starts[row + 1])

    def rings(self, face: int) -> list[NDArray[np.float32]]:
        """The polygons of a face, (P, 2) each."""
        first, last = self.face_ends[face - 1] if face else 0, self.face_ends[face]
        starts = [self.ring_ends[ring - 1] if ring else 0 for ring in range(first, last)]
        return [self.points[start:end] for start, end in zip(starts, self.ring_ends[first:last], strict=True)]

    def code(self, face: int) -> bytes:
        """The compressed RLE of a face that has no polygons."""
        start = self._code_ends[face - 1] if face else 0
        return self._codes[start : self._code_ends[face]].tobytes()


def rasterise(rings: Sequence[NDArray], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The union of polygons (P, 2) as a mask of `size` (height, width), by COCO's own rule."""
    polygons = [ring.astype(np.float64).ravel().tolist() for ring in rings if len(ring) >= 3]
    if not polygons:
        return np.zeros(size, bool)
    return rle.decode(rle.merge(rle.frPyObjects(polygons, *size))).astype(bool)


def box_of(mask: NDArray[np.bool_]) -> tuple[float, float, float, float] | None:
    """Left, top, right, bottom of the set pixels, or None."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


class ForensicsDataset(Dataset[Sample]):
    """Images and faces of one split.

    Args:
        annotations: the split.
        training: sizes and, for training, the geometric transforms.
        seed: of the run; None for evaluation, which only shrinks images to the longest side.
        views: settings of the photometric views, or None for images as they are.
        two_views: whether samples hold a second view.
    """

    def __init__(
        self,
        annotations: Annotations,
        training: TrainingParams,
        seed: int | None = None,
        views: ViewsParams | None = None,
        two_views: bool = False,
    ) -> None:
        self.annotations, self.training = annotations, training
        self.seed, self.views, self.two_views = seed, views, two_views
        pixels = int((annotations.heights.astype(np.int64) * annotations.widths).sum())
        self._cache: dict[int, Image.Image] | None = {} if seed is not None and pixels <= CACHE_PIXELS else None

    def __len__(self) -> int:
        return len(self.annotations)

    def _picture(self, row: int) -> Image.Image:
        if self._cache is not None and row in self._cache:
            return self._cache[row]
        path = self.annotations.file(row)
        told = int(self.annotations.widths[row]), int(self.annotations.heights[row])
        try:
            with opened(path) as file:
                if file.size != told:
                    raise UnreadableImage(f"{path}: is {file.width} x {file.height} px, not {told[0]} x {told[1]}.")
                file.draft("RGB", (self.training.image_size, self.training.image_size))  # JPEG: decode no finer
                picture = file.convert("RGB")  # not turned by EXIF: sizes and outlines are of the pixels as stored
        except UnreadableImage as error:
            raise UserError(error.message, "Check the dataset with `comics data verify`.") from None
        if self._cache is not None:
            self._cache[row] = picture
        return picture

    def __getitem__(self, item: int | tuple[int, int]) -> Sample:
        """The sample of an image; `item` is its row, or (epoch, row) in training.

        A worker process returns a `UserError` in its place: raised there, it would come out of the loader as a text
        that holds the worker's traceback.
        """
        try:
            return self._sample(item)
        except UserError as error:
            if get_worker_info() is None:
                raise
            return error  # type: ignore[return-value]

    def _sample(self, item: int | tuple[int, int]) -> Sample:
        epoch, row = item if isinstance(item, tuple) else (0, item)
        notes = self.annotations
        height, width = int(notes.heights[row]), int(notes.widths[row])
        picture = self._picture(row)
        if self.seed is None:
            affine = fit(height, width, self.training.image_size)
        else:
            rng = np.random.default_rng((self.seed, epoch, row))
            affine = random_affine(rng, height, width, self.training)
        decoded = Affine(affine.matrix * [[width / picture.width, height / picture.height, 1]], affine.size)
        pixels = np.asarray(decoded.image(picture))
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float().div_(255)

        key = None
        if self.seed is not None:
            key = image if self.two_views else None
            if self.views is not None:
                generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
                if self.views.query == "augmented":
                    image = view(image, generator, self.views)
                key = view(key, generator, self.views) if key is not None else None

        boxes, labels, masks = self._faces(row, affine, (height, width))
        return Sample(image, key, boxes, labels, masks, int(notes.ids[row]), (height, width))

    def _faces(self, row: int, affine: Affine, original: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, labels and masks after the transform; faces that fell out of the image are dropped."""
        notes = self.annotations
        boxes, labels, masks = [], [], []
        for face in notes.faces(row):
            rings = notes.rings(face)
            if rings:
                mask = rasterise([affine.points(ring) for ring in rings], affine.size)
            else:
                whole = rle.decode({"size": list(original), "counts": notes.code(face)})
                mask = np.asarray(affine.image(Image.fromarray(whole * 255))) >= 128
            box = box_of(mask)
            if box is None or min(box[2] - box[0], box[3] - box[1]) < MIN_SIDE:
                continue
            boxes.append(box)
            labels.append(int(notes.labels[face]))
            masks.append(mask)
        stacked = np.stack(masks) if masks else np.zeros((0, *affine.size), bool)
        return (
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            torch.tensor(labels, dtype=torch.long),
            torch.from_numpy(stacked),
        )
