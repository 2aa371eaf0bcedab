"""How the commands show progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from comics.progress import Progress


@contextmanager
def bars(in_bytes: bool = False) -> Iterator[Progress]:
    """Progress bars with the time left, one a task, on a terminal; nothing in a log file."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        ProgressColumn,
        TaskID,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    amount: list[ProgressColumn] = (
        [DownloadColumn(), TransferSpeedColumn()] if in_bytes else [TaskProgressColumn(), MofNCompleteColumn()]
    )
    columns = (TextColumn("{task.description}"), BarColumn(), *amount, TimeRemainingColumn())
    with Bars(*columns, console=console, disable=not console.is_terminal, transient=True) as shown:
        tasks: dict[str, TaskID] = {}

        def progress(task: str, done: int, total: int) -> None:
            if task not in tasks:
                tasks[task] = shown.add_task(task, total=total)
            shown.update(tasks[task], completed=done, total=total)

        yield progress
