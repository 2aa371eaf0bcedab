"""A pipeline's output on a terminal, with live bars below it: the whole pipeline, and every training at work.

What is done is read from Snakemake's own lines, how far a training is from the last line of its log.
"""

from __future__ import annotations

import re
import subprocess
import threading
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

SECONDS = 1.0
"""Between two looks at the logs."""

_STARTED = re.compile(r"Job (?P<job>\d+): .*\(progress: tail -f (?P<log>.+)\)")
_FINISHED = re.compile(r"Finished jobid: (?P<job>\d+)\b")
_DONE = re.compile(r"(?P<done>\d+) of (?P<total>\d+) steps \(\d+%\) done")
_TRAINING = re.compile(
    r"(?P<title>[^\n]+): step (?P<step>\d+)/(?P<total>\d+), loss (?P<loss>[^\s,]+)[^\n]*?, (?P<left>[\d:]+) left"
)
_TAIL = 2000  # bytes of a log that surely hold its last line


def last_step(log: Path) -> re.Match[str] | None:
    """The last line of a training's log that tells how far it is; None while there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL))
            found = list(_TRAINING.finditer(file.read().decode("utf-8", "replace")))
    except OSError:
        return None
    return found[-1] if found else None


class Watch:
    """Bars for one pipeline. Feed it Snakemake's lines (`line`) and let it look at the logs now and then (`look`).

    Args:
        console: where the lines and the bars go.
    """

    def __init__(self, console: Console) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[remark]}"),
            console=console,
        )
        self.whole: TaskID | None = None
        self.trainings: dict[str, tuple[Path, TaskID]] = {}
        """Job id -> its log and its bar."""

    def line(self, text: str) -> None:
        """Print one line of Snakemake's and take in what it tells."""
        self.progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
        if started := _STARTED.search(text):
            title = Path(started["log"]).parent
            task = self.progress.add_task(f"{title.parent.name} {title.name}", total=1, unit="steps", remark="starting")
            self._end(started["job"])  # it may be a retry
            self.trainings[started["job"]] = Path(started["log"]), task
        elif finished := _FINISHED.search(text):
            self._end(finished["job"])
        elif done := _DONE.search(text):
            if self.whole is None:
                self.whole = self.progress.add_task("all", total=int(done["total"]), unit="jobs", remark="")
            self.progress.update(self.whole, completed=int(done["done"]), total=int(done["total"]))

    def _end(self, job: str) -> None:
        if job in self.trainings:
            self.progress.remove_task(self.trainings.pop(job)[1])

    def look(self) -> None:
        """Bring the bars of the trainings to where their logs are."""
        for log, task in list(self.trainings.values()):
            if step := last_step(log):
                self.progress.update(
                    task,
                    completed=int(step["step"]),
                    total=int(step["total"]),
                    remark=f"{step['left']} left, loss {step['loss']}",
                )


def follow(process: subprocess.Popen[str], console: Console) -> threading.Thread:
    """Show `process`, whose output is a pipe, until it ends; the thread that does so, already started."""
    output = process.stdout
    assert output is not None

    def show(lines: IO[str]) -> None:
        watch = Watch(console)
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(SECONDS):
                watch.look()

        with watch.progress:
            looking = threading.Thread(target=look, daemon=True)
            looking.start()
            for line in lines:
                watch.line(line.rstrip("\n"))
            ended.set()
            looking.join()

    thread = threading.Thread(target=show, args=(output,), daemon=True)
    thread.start()
    return thread
