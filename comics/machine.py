"""What the machine offers, told without torch."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import sys
from contextlib import suppress
from pathlib import Path


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # macOS has no affinity to ask for
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_gpu() -> bool:
    """Whether there is an NVIDIA GPU, by its driver's tool."""
    return shutil.which("nvidia-smi") is not None


def peak_resident() -> int:
    """Most bytes of memory that this process has held.

    Linux counts them in ``VmHWM``: what ``getrusage`` gives begins at the size of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def release_memory() -> None:
    """Give memory that was freed back to the system, where glibc's allocator keeps it: between pieces of work by several threads it
    keeps as much as they took."""
    with suppress(OSError, AttributeError):  # another libc
        ctypes.CDLL(None).malloc_trim(0)
