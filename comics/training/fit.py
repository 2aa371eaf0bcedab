"""From a resolved run to ``model.pt``."""

from __future__ import annotations

import logging
import math
import subprocess
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from comics.data.loading.batches import training_loader
from comics.files import exclusive, write_json
from comics.params import ResolvedRun
from comics.training.checkpoint import load_weights, save_weights
from comics.training.energy import Expense, nvml_counters, rapl_counters
from comics.training.hardware import autocast_dtype, device, gpu_uuid, hardware, versions
from comics.training.module import TrainingModule
from comics.training.progress import TrainingProgress


def _commit() -> str | None:
    """The commit of the code, for run.json only: a digest never depends on it."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def _resumable(path: Path, run: ResolvedRun) -> Path | None:
    """`path` where it is a checkpoint that this very run can go on from."""
    if not path.exists():
        return None
    try:
        digest = torch.load(path, map_location="cpu", weights_only=True, mmap=True).get("comics_digest")
    except Exception:  # half of a file from a full disk, say: training from the start is always right
        return None
    return path if digest == run.checkpoint_digest else None


def _trainer(run: ResolvedRun, folder: Path, dtype: torch.dtype, expense: Expense) -> lightning.Trainer:
    training = run.training
    logs = folder / "logs"
    checkpoints = folder / "checkpoints"
    keep_last: dict[str, Any] = {"save_top_k": 1, "monitor": None, "enable_version_counter": False}
    callbacks: list[lightning.Callback] = [
        expense,
        ModelCheckpoint(checkpoints, filename="last", every_n_epochs=1, save_on_train_epoch_end=True, **keep_last),
        ModelCheckpoint(
            checkpoints,
            filename="last",
            train_time_interval=timedelta(minutes=training.checkpoint_minutes),
            **keep_last,
        ),
        TrainingProgress(f"{run.name} seed {run.seed}"),
    ]
    return lightning.Trainer(
        max_epochs=training.epochs,
        accelerator="gpu" if device().type == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed" if dtype == torch.bfloat16 else "32-true",
        callbacks=callbacks,
        logger=[CSVLogger(logs, name="", version=""), TensorBoardLogger(logs, name="", version="tensorboard")],
        log_every_n_steps=10,
        gradient_clip_val=training.clip_gradient_norm or None,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def train(run: ResolvedRun, root: Path = Path()) -> Path:
    """Train `run` and write ``model.pt`` and ``run.json`` into its folder below `root`.

    An interrupted training of the same description goes on from ``checkpoints/last.ckpt``.

    Returns:
        The path of ``model.pt``.

    Raises:
        UserError: the dataset or the weights that it starts from are missing, the loss is no longer finite, or another process is
            training this very run.
    """
    folder = root / run.folder
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / ".lock", f"{run.folder}: is being trained"):
        return _train(run, root)


def _train(run: ResolvedRun, root: Path) -> Path:
    folder = root / run.folder
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    lightning.seed_everything(run.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision("high")

    loader = training_loader(run, root)
    steps_per_epoch = max(1, math.ceil(len(loader)))
    dtype = autocast_dtype(run.training.precision, device())
    if run.start is not None:
        load_weights(root / run.start.weights_file, run.start)  # refuses those of a run that has since changed
    module = TrainingModule(run.from_start(root), steps_per_epoch)
    module.model.detector.prepare(root / "data" / run.dataset_name)
    resume = _resumable(folder / "checkpoints" / "last.ckpt", run)
    gpu = gpu_uuid(device())
    expense = Expense(rapl_counters() + (nvml_counters(gpu) if gpu else []), resumes=resume is not None)
    trainer = _trainer(run, folder, dtype, expense)
    trainer.fit(module, loader, ckpt_path=resume, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    write_json(
        folder / "run.json",
        {
            "run": run.name,
            "seed": run.seed,
            "dataset": run.dataset_name,
            "digest": run.digest,
            "checkpoint_digest": run.checkpoint_digest,
            "description": run.description,
            "hardware": hardware(device()),
            "precision": str(dtype).removeprefix("torch."),
            "versions": versions(),
            "commit": _commit(),
            "steps": trainer.global_step,
            **expense.report(),
            "resumed": resume is not None,
        },
        indent=2,
    )
    save_weights(folder / "model.pt", module.model, run)
    return folder / "model.pt"
