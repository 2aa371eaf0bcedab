"""Which GPU: each training takes free ones of its own, by a lock file a device that the system releases when a process dies.

The locks are in a folder of the machine, named by the devices' own identifiers, so that they hold between projects, users and
whatever numbers `CUDA_VISIBLE_DEVICES` gives. It, and what SLURM has allotted, bound what may be taken.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Literal

import torch

from comics.errors import UserError

SECONDS = 1.0
"""Between two looks for a free device."""

_kept: list[IO[str]] = []  # locks that last as long as the process
_chosen: list[int] = []


def respect_slurm() -> None:
    """Bound what is visible by what SLURM has allotted, on clusters that tell it and do not see to it themselves."""
    for name in ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS"):
        if os.environ.get(name) and "CUDA_VISIBLE_DEVICES" not in os.environ:
            os.environ["CUDA_VISIBLE_DEVICES"] = os.environ[name]


def gpus() -> list[str]:
    """Identifiers of the visible GPUs, in the order of their numbers for torch."""
    respect_slurm()
    if not torch.cuda.is_available():
        return []
    properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [str(getattr(one, "uuid", index)) for index, one in enumerate(properties)]


def folder() -> Path:
    """Where the locks are."""
    return Path(tempfile.gettempdir()) / "comics-gpus"


def _lock(name: str) -> IO[str] | None:
    """The lock of a device, held; None where another process holds it."""
    place = folder()
    if not place.is_dir():
        place.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):
            place.chmod(0o1777)  # of all users of the machine
    path = place / f"{re.sub(r'[^A-Za-z0-9-]', '_', name)}.lock"
    if not path.exists():
        with suppress(OSError):
            path.touch()
            path.chmod(0o666)
    file = path.open("r+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    file.truncate(0)
    file.write(f"process {os.getpid()}\n")
    file.flush()
    return file


def _take(names: list[str], count: int | Literal["auto"], batch: int) -> dict[int, IO[str]]:
    """Locks by device number: `count` of them or none; for ``auto`` as many free ones as divide `batch`."""
    held: dict[int, IO[str]] = {}
    for index, name in enumerate(names):
        if len(held) != count and (file := _lock(name)) is not None:
            held[index] = file
    wanted = count if count != "auto" else max((n for n in range(1, len(held) + 1) if batch % n == 0), default=1)
    # all or none: two that wait for each other would for ever
    keep = list(held)[:wanted] if len(held) >= wanted else []
    for index in [index for index in held if index not in keep]:
        held.pop(index).close()
    return held


@contextmanager
def claimed(count: int | Literal["auto"], batch: int, tell: Callable[[str], None]) -> Iterator[list[int]]:
    """Numbers of `count` GPUs that no other training has, while the block runs; waits until they are free.

    Args:
        count: how many; ``auto`` takes all free ones, at least one.
        batch: images a step, which ``auto`` divides evenly.
        tell: is called once where it has to wait.

    Yields:
        Their numbers for torch; none on a machine without a GPU.

    Raises:
        UserError: there are fewer.
    """
    names = gpus()
    if not names:
        yield []
        return
    if count != "auto" and count > len(names):
        raise UserError(
            f"training.devices: {count} GPUs are wanted, {len(names)} are visible.",
            "Lower it in params.yaml, or look at CUDA_VISIBLE_DEVICES.",
        )
    waiting = False
    while not (held := _take(names, count, batch)):
        if not waiting:
            waiting = True
            tell(f"Waiting for {count if count != 'auto' else 1} of {len(names)} GPUs: other trainings have them.")
        time.sleep(SECONDS)
    try:
        yield list(held)
    finally:
        for file in held.values():
            file.close()


def choose(index: int) -> None:
    """Let this process compute on the GPU of this number."""
    _chosen[:] = [index]


def settle() -> None:
    """For work that is short, as a prediction: a free GPU for as long as the process lasts, or the first, shared."""
    names = gpus()
    if not names or _chosen:
        return
    held = _take(names, 1, 1)
    _kept.extend(held.values())
    choose(next(iter(held), 0))


def device() -> torch.device:
    """The GPU that was chosen, the first visible one, or the processor."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", _chosen[0] if _chosen else 0)
