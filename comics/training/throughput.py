"""Images a second, and how much of the time a training waits for them."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import pytorch_lightning as lightning

WINDOW = 20
"""Steps over which the present speed is told."""


class Throughput(lightning.Callback):
    """Counts images, seconds and seconds of waiting for data, over all stretches of a training.

    Seconds are those of steps and of waiting between them; start, checkpoints and validation are not in them.
    """

    def __init__(self) -> None:
        self.images, self.seconds, self.waiting = 0, 0.0, 0.0
        self._recent: deque[tuple[int, float]] = deque(maxlen=WINDOW)
        self._ready: float | None = None
        self._start = 0.0

    @property
    def recent(self) -> float | None:
        """Images a second over the last steps; None before the first of them."""
        seconds = sum(one for _, one in self._recent)
        return sum(images for images, _ in self._recent) / seconds if seconds else None

    def report(self) -> dict[str, float | None]:
        """The fields of run.json: images a second, and the share of the time that was waited for data."""
        if not self.seconds:
            return {"images_per_second": None, "data_wait_share": None}
        return {
            "images_per_second": round(self.images / self.seconds, 2),
            "data_wait_share": round(self.waiting / self.seconds, 4),
        }

    def from_here(self) -> None:
        """What was done since the last batch, a checkpoint, was no waiting for the next one."""
        self._ready = time.perf_counter()

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._ready = time.perf_counter()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._start = time.perf_counter()
        self._waited = 0.0 if self._ready is None else self._start - self._ready

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._ready = time.perf_counter()
        images = len(batch.image_ids) * trainer.world_size
        taken = self._ready - self._start + self._waited
        self.images += images
        self.seconds += taken
        self.waiting += self._waited
        self._recent.append((images, taken))

    def state_dict(self) -> dict[str, Any]:
        return {"images": self.images, "seconds": self.seconds, "waiting": self.waiting}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.images, self.seconds = state_dict["images"], state_dict["seconds"]
        self.waiting = state_dict["waiting"]
