"""How far long work is: what it is told to, and nothing about how that is shown."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""``progress(task, done, total)``: how far a task is, in any unit. May be called from several threads."""


def silent(task: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""
