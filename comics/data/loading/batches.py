"""Batches for training and inference from canonical COCO files.

Annotations are held in a few flat arrays, which worker processes share: memory does not grow with their number. Every sample
draws from a seed of its own, made of the run's seed, the epoch and the image's index, so that what is learned does not depend
on how many workers load it, or on where a training was interrupted.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from comics.classes import class_label
from comics.data.loading.geometry import Affine, fit, random_affine
from comics.data.loading.views import view
from comics.errors import UserError
from comics.files import read_json
from comics.images import UnreadableImage, opened
from comics.params import ResolvedRun, TrainingParams, ViewsParams

PAD_TO = 32
"""Sides of a batch are multiples of it, in px: the coarsest stride of the backbones."""

CACHE_PIXELS = 64 * 10**6
"""Datasets of at most so many pixels are decoded once and kept (about 200 MB)."""


def padded(side: int) -> int:
    """A side of an image in px, padded."""
    return -(-side // PAD_TO) * PAD_TO


MIN_SIDE = 1.0
"""Faces whose box is thinner after the transform, in px, are dropped."""


@dataclass
class Batch:
    """A batch of images, padded on the right and below. What the padding holds counts nowhere (`comics.padding`).

    Attributes:
        images: (B, 3, H, W) float32 RGB in [0, 1].
        keys: the second view of the same images, or None.
        targets: for each image `boxes` (N, 4) xyxy px, `labels` (N,) class indices and `masks` (N, H, W) bool.
        sizes: (height, width) of each image before padding.
        image_ids: ids in the COCO file.
        original_sizes: (height, width) of each image on disk.
    """

    images: Tensor
    keys: Tensor | None
    targets: list[Any]
    sizes: list[tuple[int, int]]
    image_ids: list[int]
    original_sizes: list[tuple[int, int]]

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`, its images channels last."""

        def move(images: Tensor) -> Tensor:
            return images.to(device, non_blocking=True, memory_format=torch.channels_last)

        return replace(
            self,
            images=move(self.images),
            keys=None if self.keys is None else move(self.keys),
            targets=[{k: v.to(device, non_blocking=True) for k, v in target.items()} for target in self.targets],
        )

    def pin_memory(self) -> Batch:
        return replace(
            self,
            images=self.images.pin_memory(),
            keys=None if self.keys is None else self.keys.pin_memory(),
            targets=[{k: v.pin_memory() for k, v in target.items()} for target in self.targets],
        )


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


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples of any sizes as one batch, padded to a common multiple of `PAD_TO`."""
    sizes = [(int(sample.image.shape[-2]), int(sample.image.shape[-1])) for sample in samples]
    height, width = (padded(max(sides)) for sides in zip(*sizes, strict=True))

    def pad(images: Sequence[Tensor]) -> Tensor:
        batch = torch.zeros(len(images), 3, height, width)
        for slot, image in zip(batch, images, strict=True):
            slot[:, : image.shape[-2], : image.shape[-1]] = image
        return batch

    targets = []
    for sample, (h, w) in zip(samples, sizes, strict=True):
        masks = torch.zeros(len(sample.masks), height, width, dtype=torch.bool)
        masks[:, :h, :w] = sample.masks
        targets.append({"boxes": sample.boxes, "labels": sample.labels, "masks": masks})
    keys = [sample.key for sample in samples if sample.key is not None]
    return Batch(
        pad([sample.image for sample in samples]),
        pad(keys) if keys else None,
        targets,
        sizes,
        [sample.image_id for sample in samples],
        [sample.original_size for sample in samples],
    )


class EpochSampler(Sampler[tuple[int, int]]):
    """Every image once an epoch, in an order made of seed and epoch; yields (epoch, row).

    `set_epoch` is called by the trainer; a last batch that is not full is left out by the loader.

    Args:
        length: number of images.
        seed: of the run.
        batch: images of an optimiser step. It is cut into `parts`, one after the other, and each of them into `ranks`, side
            by side: whatever these are, a step sees the same images. 0: images one by one, for one process.
        parts, ranks, rank: of what this process loads.
    """

    def __init__(self, length: int, seed: int, batch: int = 0, parts: int = 1, ranks: int = 1, rank: int = 0) -> None:
        self.length, self.seed = length, seed
        self.batch, self.parts, self.ranks, self.rank = batch, parts, ranks, rank
        self.epoch = self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Draw the order of `epoch`; its first `start` images are left out. The same epoch again keeps its start."""
        if epoch != self.epoch or start:
            self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        if self.batch:
            return self.length // self.batch * self.batch // self.ranks
        return self.length  # of a whole epoch, also when it is taken up in the middle: what progress is told against

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        if self.batch:
            steps = len(order) // self.batch
            own = order[: steps * self.batch].reshape(steps, self.parts, self.ranks, -1)
            order = own[:, :, self.rank].ravel()
        return iter([(self.epoch, int(row)) for row in order[self.start :]])


class Loader(DataLoader[Batch]):
    """A loader that raises here what a worker found wrong with a file."""

    def __init__(self, dataset: ForensicsDataset, **options: Any) -> None:
        super().__init__(dataset, **{**options, "collate_fn": _collate_or_error})  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, UserError):
                raise batch
            yield batch


def _collate_or_error(samples: Sequence[Sample]) -> Any:
    return next((sample for sample in samples if isinstance(sample, UserError)), None) or collate(samples)


class TrainingLoader(Loader):
    """A loader that knows how far its epoch is: Lightning keeps its state in every checkpoint.

    A training that was interrupted goes on with the batch it would have seen next. Without that, Lightning takes
    the first batches of the epoch a second time, and never those at its end.

    Args:
        dataset: the training samples.
        sampler: their order.
        options: of `DataLoader`; `batch_size` is one of them.
    """

    def __init__(self, dataset: ForensicsDataset, sampler: EpochSampler, **options: Any) -> None:
        super().__init__(dataset, sampler=sampler, **options)
        self.order = sampler
        self._done = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # a generator, so that the order is drawn with the first batch: the trainer sets the epoch after `iter`
        self._done = self.order.start // (self.batch_size or 1)
        for batch in super().__iter__():
            self._done += 1  # counts what was handed out, not what workers loaded ahead
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch, and the number of its batches that were handed out."""
        return {"epoch": self.order.epoch, "batches": self._done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the batches of `state`; after the last of an epoch, with the next epoch."""
        over = state["batches"] >= len(self)
        self._done = 0 if over else state["batches"]
        self.order.set_epoch(state["epoch"] + over, self._done * (self.batch_size or 1))


def _annotations(run: ResolvedRun, split: str, root: Path, dataset: str | None = None) -> Annotations:
    target = run.annotations(split, dataset)
    if not (root / target).exists():
        raise UserError(f"{root / target}: no such file.", f"Make it with: snakemake --cores 1 {target}")
    return Annotations(root / target)


def _ignore_signals(_: int) -> None:
    """In loader processes: a terminal's Ctrl-C and a cluster's SIGTERM reach them too, and the batch is still wanted."""
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)


def training_loader(run: ResolvedRun, root: Path = Path(), ranks: int = 1, rank: int = 0) -> TrainingLoader:
    """Batches of the training split of `run`, with the views that its components ask for.

    Args:
        run: whose batches; each is cut into its `training.accumulate` parts and `ranks`.
        root: of the project.
        ranks, rank: processes that share a batch, and which of them this is.

    Raises:
        UserError: the split is not there, has fewer images than a batch, or a batch cannot be cut evenly.
    """
    annotations = _annotations(run, "train", root)
    training = run.training
    if len(annotations) < training.batch_size:
        raise UserError(
            f"{annotations.path}: {len(annotations)} images do not fill a batch of {training.batch_size}.",
            "Lower training.batch_size in params.yaml.",
        )
    share, rest = divmod(training.batch_size, training.accumulate * ranks)
    if rest:
        raise UserError(
            f"training.batch_size: {training.batch_size} images are not divided evenly by {ranks} devices and "
            f"{training.accumulate} parts (training.accumulate).",
            "Choose numbers whose product divides it.",
        )
    views = run.views if "views" in run.components else None
    dataset = ForensicsDataset(
        annotations,
        training,
        run.seed,
        views,
        two_views=views is not None and bool(run.components & {"coarse", "dual"}),
    )
    return TrainingLoader(
        dataset,
        EpochSampler(len(dataset), run.seed, training.batch_size, training.accumulate, ranks, rank),
        batch_size=share,
        num_workers=training.workers,
        drop_last=True,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=False,  # they would keep the epoch they were started with
        worker_init_fn=_ignore_signals,
        generator=torch.Generator(),  # of the seeds that workers are given and nobody draws from
    )


class SizeBatches(Sampler[list[int]]):
    """Batches of images of one padded size, in the order in which their first images come: `comics.model.Comics` looks at
    each size for itself.

    Args:
        sizes: (height, width) of all images.
        batch_size: images a batch, at most.
        ranks, rank: processes that share the batches, and which of them this is.

    Attributes:
        rounds: batches of the process that has most of them.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], batch_size: int, ranks: int = 1, rank: int = 0) -> None:
        groups: dict[tuple[int, int], list[int]] = {}
        for row, (height, width) in enumerate(sizes):
            groups.setdefault((padded(height), padded(width)), []).append(row)
        batches = sorted(
            rows[start : start + batch_size] for rows in groups.values() for start in range(0, len(rows), batch_size)
        )
        self.batches, self.rounds = batches[rank::ranks], math.ceil(len(batches) / ranks)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


def evaluation_loader(
    run: ResolvedRun,
    split: str,
    root: Path = Path(),
    ranks: int = 1,
    rank: int = 0,
    *,
    dataset: str | None = None,
    within_training: bool = False,
) -> DataLoader[Batch]:
    """Batches of `split`, of the run's dataset or of `dataset`, each of images of one padded size, which are as they are but for
    the longest side.

    Args:
        run: whose batches.
        split: its name.
        root: of the project.
        ranks, rank: processes that share the batches, and which of them this is.
        dataset: another than the run's own.
        within_training: signals are the training's, which ends in its own time.

    Raises:
        UserError: the split is not there.
    """
    annotations = _annotations(run, split, root, dataset)
    images = ForensicsDataset(annotations, run.training)
    sides = zip(annotations.heights.tolist(), annotations.widths.tolist(), strict=True)
    sizes = [fit(height, width, run.training.image_size).size for height, width in sides]
    return Loader(
        images,
        batch_sampler=SizeBatches(sizes, run.inference.batch_size, ranks, rank),
        num_workers=run.training.workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_ignore_signals if within_training else None,
    )
