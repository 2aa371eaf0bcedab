"""Checkpoints that a training goes on from: the last two, each whole and with its checksum, or not there.

A checkpoint is ``checkpoints/step-00000120.ckpt`` with a sidecar that tells its SHA-256. It is written beside, brought to
the disk, and renamed; then its sidecar likewise; then the one before the one before is removed. So a kill, a full disk or a power
cut at any moment leaves a whole one. What cannot be trusted is named and left out, and the one before it taken.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from lightning_fabric.plugins.io import TorchCheckpointIO

from comics.errors import UserError
from comics.params import ResolvedRun
from comics.provenance import is_intact, read_sidecar, sidecar_path, write_sidecar
from comics.ranks import world
from comics.training.signals import Interrupted, Interruption
from comics.training.tensors import write_tensors
from comics.weights.finite import require_finite

KEPT = 2
_NAME = re.compile(r"step-(?P<step>\d{8})\.ckpt")


def tensors_of(content: Any, name: str = "") -> dict[str, torch.Tensor]:
    """All tensors in nested dicts and lists, by their path."""
    if isinstance(content, torch.Tensor):
        return {name: content}
    found: dict[str, torch.Tensor] = {}
    items = content.items() if isinstance(content, Mapping) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        found |= tensors_of(value, f"{name}.{key}" if name else str(key))
    return found


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        pass  # a file system that cannot (some network ones, for folders) must not stop the work
    finally:
        os.close(handle)


def require_space(folder: Path, needed: int, kept: str) -> None:
    """Refuse to begin writing what the disk has no room for.

    Args:
        folder: where it is to be.
        needed: bytes.
        kept: what is there in its place, for the message.

    Raises:
        UserError: names how much is needed and how much is free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: the disk is full: {needed / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free; {kept}.",
            "Free some, then run the same command again.",
        )


class CheckpointFolder(TorchCheckpointIO):
    """The checkpoints of one run. Lightning writes and reads them through it.

    Args:
        folder: of the checkpoints.
        run: whose they are; those of another description are refused.
        data: what its training data is (`comics.data.canonical.content.Content.facts`).
    """

    def __init__(self, folder: Path, run: ResolvedRun, data: Mapping[str, Any]) -> None:
        self.folder, self.run, self.data = folder, run, dict(data)

    @property
    def steps(self) -> list[int]:
        """Of the checkpoints that are there, whole or not, the last one first."""
        names = [] if not self.folder.is_dir() else [_NAME.fullmatch(path.name) for path in self.folder.iterdir()]
        return sorted((int(name["step"]) for name in names if name), reverse=True)

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08}.ckpt"

    @property
    def kept(self) -> str:
        """What the next call goes on from, for people."""
        return f"the checkpoint of step {self.steps[0]} is kept" if self.steps else "there is no checkpoint yet"

    def sweep(self) -> list[Path]:
        """Remove what killed trainings left: halves of files, and what other libraries save when a cluster calls."""
        if not self.folder.is_dir():
            return []
        known = {self.path(step).name for step in self.steps}
        known |= {sidecar_path(name).name for name in known}
        litter = [path for path in self.folder.iterdir() if path.is_file() and path.name not in known]
        for path in litter:
            path.unlink(missing_ok=True)
        return litter

    def newest(self, tell: Callable[[str], None]) -> Path | None:
        """The last checkpoint that this very run can go on from.

        Args:
            tell: is called with a sentence for each that is refused.

        Raises:
            UserError: the training data has changed since the checkpoint was written.
        """
        for step in self.steps:
            path = self.path(step)
            try:
                content = self._whole(path)
            except (OSError, UserError) as error:
                reason = error.message if isinstance(error, UserError) else str(error)
                tell(f"{path}: {reason}; not taken")
                continue
            if content.get("comics_digest") != self.run.checkpoint_digest:
                tell(f"{path}: is of another version of the run ({content.get('comics_digest')}); not taken")
                continue
            if content.get("comics_data") != self.data:
                raise UserError(
                    f"{path}: the training data of '{self.run.name}' has changed since: {_changed(content, self.data)}.",
                    f"Bring the data back, or remove {self.folder} to train anew.",
                )
            return path
        if self.steps:
            tell(f"{self.run.folder}: no checkpoint can be taken: the training begins with step 0")
        return None

    def _whole(self, path: Path) -> dict[str, Any]:
        if not read_sidecar(path):
            raise UserError("has no checksum, its writing was not finished")
        if not is_intact(path):
            raise UserError("its bytes are not those that were written (SHA-256), it is truncated or damaged")
        try:
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:
            raise UserError(f"cannot be read ({type(error).__name__}: {error})") from None
        return content

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write `checkpoint`, its sidecar, and remove all but the last two.

        Raises:
            UserError: no room, or a tensor that is not finite: nothing is written.
        """
        target = Path(path)
        checkpoint = {**checkpoint, "comics_digest": self.run.checkpoint_digest, "comics_data": self.data}
        tensors = tensors_of(checkpoint)
        require_finite(tensors, f"{target}: is not written", f"{self.kept.capitalize()}. Lower training.lr.")
        self.folder.mkdir(parents=True, exist_ok=True)
        require_space(self.folder, sum(t.nbytes for t in tensors.values()) + 2**20, self.kept)
        if target.exists():
            sidecar_path(target).unlink(missing_ok=True)
        write_tensors(target, checkpoint, durable=True)
        write_sidecar(target, {"digest": self.run.checkpoint_digest, "run": self.run.name, "step": _step(target)})
        sync(sidecar_path(target))
        sync(self.folder)
        steps = [step for step in self.steps if step <= _step(target) and sidecar_path(self.path(step)).exists()]
        for step in self.steps:  # later ones were refused: what they would have led to is trained anew
            if step not in steps[:KEPT]:
                self.remove_checkpoint(self.path(step))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        require_finite(tensors_of(content), str(path), f"Remove it: {path}")
        return content

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)
        sidecar_path(path).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove all of it: the run is done."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _step(path: Path) -> int:
    name = _NAME.fullmatch(path.name)
    return int(name["step"]) if name else -1


def _changed(content: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    then = content.get("comics_data") or {}
    differing = [f"{key} ({then.get(key, 'unknown')}, now {now[key]})" for key in now if then.get(key) != now[key]]
    return ", ".join(differing) or "unknown"


class Checkpoints(lightning.Callback):
    """Saves every so many minutes, at the end of every epoch, and when a signal asks the training to stop.

    Args:
        files: where to.
        minutes: between two checkpoints.
        interruption: what a signal is remembered in.
        saved: called after a checkpoint between two batches, whose time is no waiting for data.
    """

    def __init__(
        self,
        files: CheckpointFolder,
        minutes: float,
        interruption: Interruption,
        saved: Callable[[], None] = lambda: None,
    ) -> None:
        self.files, self.seconds, self.interruption, self.saved = files, 60 * minutes, interruption, saved
        self._saved = time.monotonic()
        self._step = -1

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.interruption.install()  # Lightning has put its own handlers in place meanwhile
        self._saved = time.monotonic()

    def _save(self, trainer: lightning.Trainer) -> None:
        if trainer.global_step != self._step:
            trainer.save_checkpoint(self.files.path(trainer.global_step))
            self._step = trainer.global_step
            self.saved()
        self._saved = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # gradients of half a step are in no checkpoint
        if trainer.is_last_batch:
            return  # from a checkpoint of here Lightning would count the epoch once more: its end is about to be saved
        self._save_if_asked(trainer, pl_module)

    def _save_if_asked(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        stop, due = self._asked(pl_module.device, time.monotonic() - self._saved >= self.seconds)
        if stop is not None or due:
            self._save(trainer)
        if stop is not None:
            raise self._interrupted(trainer, stop)

    def stop_if_asked(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """To be called by all ranks together, of a step that is saved.

        Raises:
            Interrupted: a signal asked one of them to stop.
        """
        stop, _ = self._asked(pl_module.device, False)
        if stop is not None:
            raise self._interrupted(trainer, stop)

    def _interrupted(self, trainer: lightning.Trainer, signum: int) -> Interrupted:
        return Interrupted(signum, f"step {trainer.global_step} is saved, the same command goes on from it")

    def _asked(self, on: torch.device, due: bool) -> tuple[int | None, bool]:
        """Whether to stop, and whether to save: the same answer on all ranks."""
        if world() == 1:
            return self.interruption.signum, due
        asked = torch.tensor([self.interruption.signum or 0, int(due)], device=on)
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
        stop, late = asked.tolist()
        return stop or None, bool(late)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._save(trainer)
        self._save_if_asked(trainer, pl_module)
