"""How far long work is: what it is told to, and nothing about how that is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

Progress = Callable[[str, int, int], None]
"""``progress(task, done, total)``: how far a task is, in any unit. May be called from several threads."""


def silent(task: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""


def told(items: Iterable[Item], total: int, progress: Progress, task: str) -> Iterator[Item]:
    """`items`, of which there are `total`; `progress` is told of each when it is done."""
    for done, item in enumerate(items, start=1):
        yield item
        progress(task, done, total)
