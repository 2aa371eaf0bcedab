"""One line for the whole training: how far, the loss and its terms, images a second, the time left."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
from pytorch_lightning.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from comics.files import write_json
from comics.training.module import TrainingModule
from comics.training.status import STATUS_NAME, STATUS_SECONDS, clock
from comics.training.throughput import Throughput

WIDE = 120
"""Columns of a terminal that has room for a bar beside the text."""
LINE_SECONDS = 10.0
"""Between two lines where the output is a file, so that a log tells the time left too."""


def describe(loss: float, terms: Mapping[str, float], speed: float | None, left: float) -> str:
    """``loss 1.234 (cls 0.5, mask 0.7), 12.3 images/s, 0:01:02 left``."""
    named = ", ".join(f"{name.removeprefix('loss_')} {value:.3g}" for name, value in terms.items())
    shown = f" ({named})" if named else ""
    rate = f", {speed:.3g} images/s" if speed else ""
    return f"loss {loss:.3f}{shown}{rate}, {clock(left)} left"


class TrainingProgress(ProgressBar):
    """A line that is drawn anew on a terminal, wrapped where it is narrow and with a bar where it is wide; elsewhere a line every
    `LINE_SECONDS`.

    Args:
        title: what is being trained.
        throughput: what images a second are asked of.
        folder: of the run, for the file that `comics runs --watch` reads; None writes none.
    """

    def __init__(self, title: str, throughput: Throughput, folder: Path | None = None) -> None:
        super().__init__()
        self.title, self.throughput = title, throughput
        self.status = None if folder is None else folder / STATUS_NAME
        self.console = Console(file=sys.stderr, highlight=False)
        self.progress: Progress | None = None
        self.task = TaskID(0)

    def disable(self) -> None:  # Lightning asks for it on every process but the first
        self.console = Console(quiet=True)
        self.status = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.total = int(trainer.estimated_stepping_batches)
        self.first_step = trainer.global_step
        self.start = self.last_line = time.monotonic()
        self.last_status = 0.0
        if self.console.is_terminal:
            text = "{task.description}: step {task.completed}/{task.total}, {task.fields[state]}"
            self.progress = Progress(
                *([BarColumn(bar_width=20)] if self.console.width >= WIDE else []),
                TextColumn(text, table_column=Column(ratio=1), markup=False),
                console=self.console,
                expand=True,
            )
            self.progress.start()
            self.task = self.progress.add_task(
                self.title, total=self.total, completed=self.first_step, state="starting"
            )

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step, now = trainer.global_step, time.monotonic()
        bar, line = self.progress is not None, self.progress is None and now - self.last_line >= LINE_SECONDS
        status = self.status is not None and now - self.last_status >= STATUS_SECONDS
        if not (bar or line or status):
            return
        assert isinstance(pl_module, TrainingModule)
        loss, terms = pl_module.loss, pl_module.terms()
        left = (now - self.start) / max(1, step - self.first_step) * (self.total - step)
        text = describe(loss, terms, self.throughput.recent, left)
        if self.progress is not None:
            self.progress.update(self.task, completed=step, state=text)
        if line:
            self.last_line = now
            self.console.print(f"{self.title}: step {step}/{self.total}, {text}", soft_wrap=True)
        if status:
            self.last_status = now
            self._tell(step, loss, left)

    def _tell(self, step: int, loss: float, left: float) -> None:
        assert self.status is not None
        fields = {"step": step, "total": self.total, "loss": round(loss, 4), "left": round(left)}
        speed = self.throughput.recent
        fields["images_per_second"] = round(speed, 2) if speed else None  # type: ignore[assignment]
        try:
            write_json(self.status, {**fields, "process": os.getpid(), "time": round(time.time())})
        except OSError:
            self.status = None  # it is told to nobody, which must not end a training

    def _stop(self) -> None:
        if self.progress is not None:
            with suppress(OSError):  # the terminal may be gone
                self.progress.stop()
            self.progress = None
        if self.status is not None:
            self.status.unlink(missing_ok=True)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._stop()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        self._stop()
