"""What a training tells people beside its progress."""

from __future__ import annotations

import sys


def warn(text: str) -> None:
    """Write a line to the terminal, or to the log that stands for it."""
    print(text, file=sys.stderr, flush=True)
