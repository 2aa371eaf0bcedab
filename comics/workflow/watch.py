"""A pipeline's output on a terminal, with live bars below it: the whole pipeline, and every training at work.

What is to be done and what is done is read from Snakemake's own lines, how far a training is from the last line of its log.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from comics.workflow.estimate import clock

SECONDS = 1.0
"""Between two looks at the logs."""

_STARTED = re.compile(r"Job (?P<job>\d+): .*\(progress: tail -f (?P<log>.+)\)")
_FINISHED = re.compile(r"Finished jobid: (?P<job>\d+)\b(?: \(Rule: (?P<rule>\w+)\))?")
_STATISTICS = re.compile(r"job +count\s*")
_COUNT = re.compile(r"(?P<rule>\w+) +(?P<count>\d+)\s*")
_DONE = re.compile(r"(?P<done>\d+) of (?P<total>\d+) steps \(\d+%\) done")
_TRAINING = re.compile(
    r"(?P<title>[^\n]+): step (?P<step>\d+)/(?P<total>\d+), loss (?P<loss>[^\s,]+)[^\n]*?, (?P<left>[\d:]+) left"
)
_TAIL = 2000  # bytes of a log that surely hold its last line

COSTS = {
    "make_dataset": 60.0,
    "train": 60.0,
    "predict": 10.0,
    "encode_masks": 10.0,
    "compare_table": 12.0,
    "page": 8.0,
    "figure": 4.0,
}
"""Seconds that a job of each rule takes one core of an AMD EPYC, on the embedded dataset (docs/performance.md)."""
OTHER_COST = 3.0
_TRUSTED = 60.0  # of those seconds: so much is done until what was measured counts as much as what was expected


class Estimate:
    """How long a pipeline has still to go: by what its jobs cost elsewhere, at the speed at which they are done here.

    Args:
        at_once: jobs that run side by side, which is the speed before anything is known.
        clock: seconds, of any origin.
    """

    def __init__(self, at_once: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self.at_once, self.clock = at_once, clock
        self.ahead: dict[str, int] = {}
        """Rule -> jobs that are not finished."""
        self.done = 0.0
        self.start = clock()

    def plan(self, rule: str, count: int) -> None:
        self.ahead[rule] = count

    def finished(self, rule: str) -> None:
        if self.ahead.get(rule):
            self.ahead[rule] -= 1
            self.done += COSTS.get(rule, OTHER_COST)

    def left(self, trainings: float = 0.0) -> float | None:
        """Seconds; None while it is not known what is to be done.

        Args:
            trainings: how many trainings the parts add up to that are done of those at work.
        """
        ahead = sum(count * COSTS.get(rule, OTHER_COST) for rule, count in self.ahead.items())
        if not ahead:
            return None
        partly = trainings * COSTS["train"]
        done = self.done + partly
        speed = (done + _TRUSTED) / (self.clock() - self.start + _TRUSTED / self.at_once)
        return max(0.0, ahead - partly) / speed


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
        estimate: of the time that is left.
    """

    def __init__(self, console: Console, estimate: Estimate | None = None) -> None:
        self.estimate = estimate or Estimate()
        self._counting = False
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[remark]}"),
            console=console,
        )
        self.whole: TaskID | None = None
        self._done = False
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
            self.estimate.finished(finished["rule"] or "")
        elif done := _DONE.search(text):
            self._whole(int(done["done"]), int(done["total"]))
        elif _STATISTICS.fullmatch(text):
            self._counting = self.whole is None  # not those at the end of a dry run
        elif self._counting and (counted := _COUNT.fullmatch(text)):
            if counted["rule"] == "total":
                self._counting = False
                self._whole(0, int(counted["count"]))
            else:
                self.estimate.plan(counted["rule"], int(counted["count"]))

    def _whole(self, done: int, total: int) -> None:
        if self.whole is None:
            self.whole = self.progress.add_task("all", total=total, unit="jobs", remark="")
        self._done = done == total
        self.progress.update(self.whole, completed=done, total=total)
        if self._done:
            self.progress.update(self.whole, remark="")

    def _end(self, job: str) -> None:
        if job in self.trainings:
            self.progress.remove_task(self.trainings.pop(job)[1])

    def look(self) -> None:
        """Bring the bars of the trainings to where their logs are, and tell the time left of the whole."""
        parts = 0.0
        for log, task in list(self.trainings.values()):
            if step := last_step(log):
                parts += int(step["step"]) / max(1, int(step["total"]))
                self.progress.update(
                    task,
                    completed=int(step["step"]),
                    total=int(step["total"]),
                    remark=f"{step['left']} left, loss {step['loss']}",
                )
        if self.whole is not None and not self._done and (left := self.estimate.left(parts)) is not None:
            self.progress.update(self.whole, remark=f"about {clock(left)} left")


def follow(process: subprocess.Popen[str], console: Console, at_once: int = 1) -> threading.Thread:
    """Show `process`, whose output is a pipe and whose jobs run so many `at_once`, until it ends; the thread that does so,
    already started."""
    output = process.stdout
    assert output is not None

    def show(lines: IO[str]) -> None:
        watch = Watch(console, Estimate(at_once))
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
