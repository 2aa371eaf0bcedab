"""One progress bar for the whole training, with the time left."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytorch_lightning as lightning
from pytorch_lightning.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_SECONDS = 10.0
"""Between two lines where the output is a file, so that a log tells the time left too."""


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


class TrainingProgress(ProgressBar):
    """A bar on a terminal, a line every `LINE_SECONDS` elsewhere.

    Args:
        title: what is being trained.
    """

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title
        self.console = Console(file=sys.stderr, highlight=False)
        self.progress: Progress | None = None
        self.task = TaskID(0)

    def disable(self) -> None:  # Lightning asks for it on every process but the first
        self.console = Console(quiet=True)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.total = int(trainer.estimated_stepping_batches)
        self.first_step = trainer.global_step
        self.start = self.last_line = time.monotonic()
        if self.console.is_terminal:
            self.progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total} steps, loss {task.fields[loss]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self.progress.start()
            self.task = self.progress.add_task(self.title, total=self.total, completed=self.first_step, loss="...")

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step, now = trainer.global_step, time.monotonic()
        if self.progress is not None:
            self.progress.update(self.task, completed=step, loss=f"{float(outputs['loss']):.3f}")
        elif now - self.last_line >= LINE_SECONDS:
            self.last_line = now
            left = (now - self.start) / max(1, step - self.first_step) * (self.total - step)
            self.console.print(
                f"{self.title}: step {step}/{self.total}, loss {float(outputs['loss']):.3f}, {_clock(left)} left"
            )

    def _stop(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._stop()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        self._stop()
