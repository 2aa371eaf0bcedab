"""What the machine offers, told without torch."""

from __future__ import annotations

import os
import shutil


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # macOS has no affinity to ask for
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_gpu() -> bool:
    """Whether there is an NVIDIA GPU, by its driver's tool."""
    return shutil.which("nvidia-smi") is not None
