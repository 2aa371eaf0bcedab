"""What a training tells people beside its progress."""

from __future__ import annotations

import sys

from comics.training.launch import rank


def warn(text: str) -> None:
    """Write a line to the terminal, or to the log that stands for it; of several processes, the first does."""
    if rank():
        return
    print(text, file=sys.stderr, flush=True)
