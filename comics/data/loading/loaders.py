"""Batches for training and inference: which images, in which order, loaded by whom."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from comics.data.loading.batches import Batch, collate, padded
from comics.data.loading.geometry import fit
from comics.data.loading.samples import Annotations, ForensicsDataset, Sample
from comics.errors import UserError
from comics.params import ResolvedRun


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
    """In loader processes: a terminal's Ctrl-C and end, and a cluster's SIGTERM, reach them too, and the batch is still wanted."""
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
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
