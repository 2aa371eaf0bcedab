"""What a machine computes in: bf16 where that is faster here, by measurement.

A processor's flags do not tell. With AVX512_BF16 and without AMX, one takes half the time of float32 in bf16, another half as much
again. So a few layers of a backbone are timed forward and backward, once a machine: the answer is kept in the user's cache, by
device, threads and version of torch.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from comics.files import write_json

GAIN = 0.9
"""Bf16 must take at most so much of float32's time: on a tie, float32 is the more exact."""
ROUNDS = 3


@dataclass(frozen=True)
class Measured:
    """Seconds of the same layers, forward and backward: of the processor's time on a CPU, by the clock on a GPU."""

    float32_seconds: float
    bfloat16_seconds: float

    @property
    def dtype(self) -> torch.dtype:
        """The faster one."""
        return torch.bfloat16 if self.bfloat16_seconds < GAIN * self.float32_seconds else torch.float32

    def report(self) -> dict[str, float]:
        """For run.json."""
        return asdict(self)


def computes_bf16(on: torch.device) -> bool:
    """Whether `on` multiplies bfloat16 matrices in hardware; emulation is slower than float32 everywhere."""
    if on.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def measure(on: torch.device) -> Measured:
    """Time both, by turns, and take the least of each: what else runs on the machine only adds."""
    generator = torch.Generator().manual_seed(0)
    widths = [(64, 64, 1, 3), (64, 128, 2, 3), (128, 128, 1, 3), (128, 256, 1, 1)]
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):  # a training that measures draws the same as one that need not
        for inputs, outputs, stride, kernel in widths:
            conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
            layers += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
    model = nn.Sequential(*layers).to(on, memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 4:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    images = torch.randn(2, 64, 56, 56, generator=generator).to(on, memory_format=torch.channels_last)
    taken = {dtype: [_time(model, images, dtype) for _ in range(1)] for dtype in (torch.float32, torch.bfloat16)}
    for one in taken.values():
        one.clear()  # the first round warms up
    for _ in range(ROUNDS):
        for dtype, times in taken.items():
            times.append(_time(model, images, dtype))
    return Measured(round(min(taken[torch.float32]), 6), round(min(taken[torch.bfloat16]), 6))


def _time(model: nn.Module, images: Tensor, dtype: torch.dtype) -> float:
    on_gpu = images.device.type == "cuda"
    clock: Callable[[], float] = time.perf_counter if on_gpu else time.process_time
    if on_gpu:
        torch.cuda.synchronize(images.device)
    start = clock()
    with torch.enable_grad(), torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
        model(images).float().sum().backward()
    if on_gpu:
        torch.cuda.synchronize(images.device)
    return clock() - start


def cache_path() -> Path:
    """Where measurements of this machine are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "comics" / "precision.json"


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Trainings that start together measure once, and choose the same; where no file may be made, each measures."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path.with_suffix(".lock"), "w")  # noqa: SIM115 - closed below
    except OSError:
        yield
        return
    with file:
        with suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def measured(on: torch.device, name: str, path: Path | None = None) -> Measured:
    """What `measure` says of `on`, measured at most once a machine.

    Args:
        on: the device.
        name: of the device, as people know it.
        path: of the file that keeps it; the user's cache by default.
    """
    path = path or cache_path()
    threads = "" if on.type == "cuda" else f", {torch.get_num_threads()} threads"
    key = f"{name}{threads}, torch {torch.__version__}"
    with _one_at_a_time(path):
        known = _read(path)
        with suppress(KeyError, TypeError, ValueError):
            return Measured(float(known[key]["float32_seconds"]), float(known[key]["bfloat16_seconds"]))
        found = measure(on)
        with suppress(OSError):
            write_json(path, {**known, key: found.report()}, indent=2)
    return found
