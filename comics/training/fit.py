"""From a resolved run to ``model.pt``."""

from __future__ import annotations

import errno
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy

from comics.data.canonical.content import Content, content_of
from comics.data.loading.loaders import evaluation_loader, training_loader
from comics.errors import UserError
from comics.files import exclusive, read_json, write_json
from comics.machine import peak_resident
from comics.params import ResolvedRun
from comics.provenance import is_intact, read_sidecar
from comics.training.checkpoint import load_weights, save_weights
from comics.training.checkpoints import CheckpointFolder, Checkpoints
from comics.training.curves import CurveLogger
from comics.training.devices import choose, claimed, device
from comics.training.energy import Expense, nvml_counters, rapl_counters
from comics.training.hardware import autocast_dtype, git_state, gpu_uuid, hardware, precision_measured, versions
from comics.training.launch import launch, rank, ranks
from comics.training.messages import warn
from comics.training.module import LOG_EVERY, TrainingModule
from comics.training.norms import over_ranks
from comics.training.progress import TrainingProgress
from comics.training.signals import Interruption
from comics.training.status import STATUS_NAME
from comics.training.throughput import Throughput
from comics.training.validation import Validation, require_boxes

_LITTER = (".model.*.pt", ".run.*.json", ".model.pt.meta.*.json", "..progress.*.json", STATUS_NAME)
"""What `atomic_write` leaves of a killed training in its run's folder."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_trained(run: ResolvedRun, data: Content, root: Path = Path()) -> bool:
    """Whether ``model.pt`` and ``run.json`` are of this very run and of the data as it is."""
    folder = root / run.folder
    model = folder / "model.pt"
    if not (model.exists() and (folder / "run.json").exists()):
        return False
    told, described = read_sidecar(model), read_json(folder / "run.json")
    return (
        told.get("digest") == described.get("checkpoint_digest") == run.checkpoint_digest
        and told.get("data") == data.facts
        and is_intact(model)
    )


def _trainer(
    run: ResolvedRun,
    folder: Path,
    dtype: torch.dtype,
    files: CheckpointFolder,
    callbacks: list[lightning.Callback],
    first_step: int,
    gpus: list[int],
) -> lightning.Trainer:
    training = run.training
    logs = folder / "logs"
    resumed: dict[str, Any] = {"purge_step": first_step} if first_step else {}
    return lightning.Trainer(
        max_epochs=training.epochs,
        accelerator="gpu" if gpus else "cpu",
        devices=gpus or ranks(),
        # Queues and statistics are the same on all ranks by themselves; a rank without faces uses fewer parameters
        strategy="auto" if ranks() == 1 else DDPStrategy(find_unused_parameters=True, broadcast_buffers=False),
        accumulate_grad_batches=training.accumulate,
        precision="bf16-mixed" if dtype == torch.bfloat16 else "32-true",
        callbacks=callbacks,
        # Named, lest Lightning finds SLURM: it would save into the working folder, requeue by itself, and take what lies there
        plugins=[files, LightningEnvironment()],
        default_root_dir=files.folder,
        enable_checkpointing=False,
        logger=[
            CurveLogger(logs / "metrics.csv", first_step),
            TensorBoardLogger(logs, name="", version="tensorboard", **resumed),
        ],
        log_every_n_steps=LOG_EVERY,
        gradient_clip_val=training.clip_gradient_norm or None,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


@contextmanager
def _full_disks_told(folder: Path, files: CheckpointFolder) -> Iterator[None]:
    """Turn a full disk, wherever it is met, into a `UserError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        where = error.filename or folder
        raise UserError(
            f"{where}: cannot be written ({error.strerror}); {files.kept}.",
            "Free some space, then run the same command again.",
        ) from None


def train(run: ResolvedRun, root: Path = Path()) -> Path:
    """Train `run` and write ``model.pt`` and ``run.json`` into its folder below `root`.

    An interrupted training of the same description goes on from its last checkpoint; one that is done is left alone.

    Returns:
        The path of ``model.pt``.

    Raises:
        UserError: the dataset or the weights that it starts from are missing, the training data has changed since the last
            checkpoint, a number is no longer finite, the disk is full, or another process is training this very run.
        Interrupted: a signal asked it to stop, and a checkpoint was written.
    """
    os.environ.pop("COMICS_RANKS", None)  # this process is no rank, whatever is exported: it would wait for the others
    folder = root / run.folder
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / ".lock", f"{run.folder}: is being trained"):
        annotations, training = root / run.annotations("train"), run.training
        if annotations.exists() and is_trained(run, content_of(annotations), root):
            warn(f"{folder / 'model.pt'} is trained already; remove it to train anew.")
            return folder / "model.pt"
        with claimed(training.devices, training.batch_size, warn) as gpus:
            count = len(gpus) or (1 if training.devices == "auto" else training.devices)
            if count == 1:
                return _train(run, root, gpus)
            training_loader(run, root, count)  # what is wrong is told once, before there are many
            if training.validation.every:
                evaluation_loader(run, "val", root)
            launch(run, root, count, gpus, "the last step is saved, the same command goes on from it")
    return folder / "model.pt"


def train_rank(run: ResolvedRun, root: Path) -> Path:
    """The part of one rank in a training that several processes share (`comics.training.launch`)."""
    gpus = [int(index) for index in os.environ["COMICS_GPUS"].split(",") if index]
    return _train(run, root, gpus)


def _train(run: ResolvedRun, root: Path, gpus: list[int]) -> Path:
    folder = root / run.folder
    model = folder / "model.pt"
    if gpus:
        choose(gpus[rank()])
    for library in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(library).setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", module=library)  # of a srun on the path, say, that is not used
    lightning.seed_everything(run.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision("high")

    loader = training_loader(run, root, ranks(), rank())
    if run.training.validation.every:
        evaluation_loader(run, "val", root)  # now rather than after an epoch
    data = content_of(root / run.annotations("train"))
    for pattern in _LITTER:
        for litter in folder.glob(pattern):
            litter.unlink(missing_ok=True)
    files = CheckpointFolder(folder / "checkpoints", run, data.facts)
    if rank() == 0:
        files.sweep()
    resume = files.newest(warn)
    told = _read(resume)
    first_step = int(told.get("global_step", 0))
    dtype = autocast_dtype(run.training.precision, device())
    timed = precision_measured(device()) if run.training.precision == "auto" else None
    if told:  # it goes on in what it began with, whatever this machine would choose
        dtype = getattr(torch, told["comics_precision"])
    precision = str(dtype).removeprefix("torch.")
    if run.start is not None:
        load_weights(root / run.start.weights_file, run.start)  # refuses those of a run that has since changed
    steps_per_epoch = max(1, len(loader) // run.training.accumulate)
    module = TrainingModule(run.from_start(root), steps_per_epoch, folder, precision)
    require_boxes(run, module.model.detector.predicts_boxes)
    if ranks() > 1:
        over_ranks(module.model)
    module.model.detector.prepare(root / "data" / run.dataset_name)
    throughput = Throughput()
    gpu = gpu_uuid(device())
    expense = Expense(rapl_counters() + (nvml_counters(gpu) if gpu else []), resumes=resume is not None)
    if resume is not None:
        warn(f"{run.folder}: goes on from step {first_step}")
    with Interruption() as interruption, _full_disks_told(folder, files):
        checkpoints = Checkpoints(files, run.training.checkpoint_minutes, interruption, throughput.from_here)
        validation = Validation(run, root, checkpoints) if run.training.validation.every else None
        callbacks: list[lightning.Callback] = [
            expense,
            throughput,
            TrainingProgress(f"{run.name} seed {run.seed}", throughput, folder),
            checkpoints,
            *([validation] if validation else []),
        ]
        trainer = _trainer(run, folder, dtype, files, callbacks, first_step, gpus)
        trainer.fit(module, loader, ckpt_path=resume, weights_only=True)
        if validation is not None and validation.due:  # the last one, interrupted: no step was left to begin with
            validation.catch_up(trainer, module.to(device()))
        if rank():
            return model
        if validation is not None and "weights" in validation.best:
            save_weights(model, validation.best["weights"], run, data.facts)
        else:
            with module.as_kept():
                save_weights(model, module.model, run, data.facts)
        write_json(
            folder / "run.json",
            {
                "run": run.name,
                "seed": run.seed,
                "dataset": run.dataset_name,
                "digest": run.digest,
                "checkpoint_digest": run.checkpoint_digest,
                "description": run.description,
                "data": data.facts,
                "hardware": hardware(device()),
                "devices": ranks(),
                "precision": precision,
                "precision_measured": timed.report() if timed else None,
                "versions": versions(),
                **git_state(),
                "steps": trainer.global_step,
                "epochs": trainer.global_step // steps_per_epoch,
                "validation": validation.report() if validation else None,
                **expense.report(),
                **throughput.report(),
                "peak_memory": peak_memory(),
                "resumed": resume is not None,
            },
            indent=2,
        )
    files.clear()
    return model


def _read(checkpoint: Path | None) -> dict[str, Any]:
    """A checkpoint that was found whole, its tensors left on the disk."""
    if checkpoint is None:
        return {}
    content: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    return content


def peak_memory() -> dict[str, int | None]:
    """Most bytes that this process has held: resident ones of the host, tensors of the device (None without one)."""
    on = device()
    return {
        "host": peak_resident(),
        "device": torch.cuda.max_memory_allocated(on) if on.type == "cuda" else None,
    }
