"""What a training took: seconds and joules, over all the stretches it was trained in.

Joules are read from counters of the hardware, where there are any that may be read. These count all that the device did
meanwhile, also for others; and no counter sees memory, disks, fans or the loss in the power supply.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning

GPU = "whole GPU (NVML)"
PROCESSOR = "whole processor (RAPL)"

UPDATE_SECONDS = 60.0
"""Between two readings: RAPL's counter can start again from zero after a quarter of an hour at full load."""


@dataclass(frozen=True)
class Counter:
    """A counter of energy."""

    source: str
    """Readings of one source are added up."""
    read: Callable[[], float]
    """Joules since some moment; OSError or ValueError where they cannot be read."""
    wraps_at: float | None = None
    """Joules after which it starts again from zero, if ever."""


def rapl_counters(folder: Path = Path("/sys/class/powercap")) -> list[Counter]:
    """One counter a processor package, of Linux's RAPL; none where one of them may not be read (by default root alone may).

    Other zones are left out: cores and graphics are part of their package, and ``psys`` contains it.
    """
    counters = []
    try:
        for zone in sorted(folder.glob("intel-rapl:*")):  # AMD's processors have this name, too
            if (zone / "name").read_text().startswith("package"):
                wraps_at = int((zone / "max_energy_range_uj").read_text()) / 1e6
                counter = Counter(PROCESSOR, _microjoules(zone / "energy_uj"), wraps_at)
                counter.read()
                counters.append(counter)
    except (OSError, ValueError):
        return []
    return counters


def _microjoules(path: Path) -> Callable[[], float]:
    return lambda: int(path.read_text()) / 1e6


def nvml_counters(uuid: str, library: Any = None) -> list[Counter]:
    """The counter of the GPU `uuid` (as torch tells it), since its driver was loaded; none where it has no such counter.

    NVML is called directly: it comes with the driver, and its Python package would be one more requirement.

    Args:
        uuid: with or without the prefix ``GPU-``.
        library: NVML; the driver's by default.
    """
    try:
        library = library or ctypes.CDLL("libnvidia-ml.so.1")
        handle = ctypes.c_void_p()
        name = f"GPU-{uuid.removeprefix('GPU-')}".encode()
        if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByUUID(name, ctypes.byref(handle)):
            return []

        def read() -> float:
            millijoules = ctypes.c_ulonglong()
            status = library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules))
            if status:
                raise OSError(f"NVML answers {status}")
            return millijoules.value / 1e3

        read()
    except (OSError, AttributeError):  # no driver, an old one, or a device that does not count
        return []
    return [Counter(GPU, read)]


class EnergyMeter:
    """Joules by source since the meter was made. A source is left out from the first reading of it that fails."""

    def __init__(self, counters: Sequence[Counter]) -> None:
        self.joules = {counter.source: 0.0 for counter in counters}
        first = [(counter, self._read(counter)) for counter in counters]
        self._last = [(counter, value) for counter, value in first if value is not None]

    def _read(self, counter: Counter) -> float | None:
        try:
            return counter.read()
        except (OSError, ValueError):
            self.joules.pop(counter.source, None)
            return None

    def update(self) -> None:
        """Read the counters; to be called before one of them has gone round."""
        last, self._last = self._last, []
        for counter, before in last:
            now = self._read(counter)
            if now is None or counter.source not in self.joules:
                continue
            if now < before and counter.wraps_at is None:  # the driver was loaded anew
                del self.joules[counter.source]
                continue
            self.joules[counter.source] += now - before + (counter.wraps_at or 0.0) * (now < before)
            self._last.append((counter, now))


class Expense(lightning.Callback):
    """Seconds and joules of a training, kept in its checkpoints, so that those of all stretches add up.

    Steps that were lost, because a training was stopped after its last checkpoint, are not in them.

    Args:
        counters: what to read joules from.
        resumes: whether the training goes on from a checkpoint. Unless that tells what it took, nothing is known.
    """

    def __init__(self, counters: Sequence[Counter], resumes: bool) -> None:
        self._counters = counters
        self._earlier_seconds: float | None = None if resumes else 0.0
        self._earlier_joules: dict[str, float] | None = {} if resumes else None
        self._begin()

    def _begin(self) -> None:
        self._start = self._updated = time.monotonic()
        self._meter = EnergyMeter(self._counters)

    @property
    def seconds(self) -> float | None:
        """Over all stretches; None where an earlier one did not tell."""
        if self._earlier_seconds is None:
            return None
        return self._earlier_seconds + time.monotonic() - self._start

    @property
    def joules(self) -> dict[str, float]:
        """By source, over all stretches; without the sources that were not read in each of them."""
        self._meter.update()
        if self._earlier_joules is None:
            return dict(self._meter.joules)
        return {
            source: self._earlier_joules[source] + joules
            for source, joules in self._meter.joules.items()
            if source in self._earlier_joules
        }

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self._begin()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        now = time.monotonic()
        if now - self._updated >= UPDATE_SECONDS:
            self._updated = now
            self._meter.update()

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "joules": self.joules}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._earlier_seconds = state_dict["seconds"]
        self._earlier_joules = state_dict["joules"]

    def report(self) -> dict[str, Any]:
        """The fields of run.json: ``seconds``, ``energy_joules`` (both None where not known) and its parts by source."""
        seconds, joules = self.seconds, self.joules
        return {
            "seconds": None if seconds is None else round(seconds, 1),
            "energy_joules": round(sum(joules.values()), 1) if joules else None,
            "energy_sources": {source: round(value, 1) for source, value in joules.items()},
        }
