"""What would be trained, and for how long, from the steps of the trainings that there are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comics.errors import UserError
from comics.files import read_json
from comics.params import Params, ResolvedRun
from comics.report.results import resolved_runs, training_state


@dataclass(frozen=True)
class Measured:
    """A training that is done.

    Attributes:
        run: its name.
        detector: of the run.
        components: of the run.
        steps: that it took.
        epochs: that it took.
        seconds: of a step.
    """

    run: str
    detector: str
    components: frozenset[str]
    steps: int
    epochs: int
    seconds: float


@dataclass(frozen=True)
class Planned:
    """A training that is to be done.

    Attributes:
        run: what is trained.
        steps: that are left from the start on; None where the size of the training split is not known yet.
        like: the training whose steps are taken for its; None where none is done on this dataset.
    """

    run: ResolvedRun
    steps: int | None
    like: Measured | None

    @property
    def seconds(self) -> float | None:
        """Expected of the training."""
        return None if self.steps is None or self.like is None else self.steps * self.like.seconds


def done(params: Params, root: Path = Path()) -> list[Measured]:
    """The finished trainings on the dataset of `params`, of whatever version of their runs."""
    found = []
    for path in sorted((root / "results" / params.dataset).glob("*/seed*/run.json")):
        try:
            facts: Any = read_json(path)
            description = facts["description"]
            found.append(
                Measured(
                    run=str(facts["run"]),
                    detector=str(description["detector"]),
                    components=frozenset(_components(description)),
                    steps=int(facts["steps"]),
                    epochs=int(description["training"]["epochs"]),
                    seconds=float(facts["seconds"]) / max(1, int(facts["steps"])),
                )
            )
        except (UserError, KeyError, TypeError, ValueError):
            continue  # of another version, or it does not tell: no measure for anything
    return found


def _components(description: dict[str, Any]) -> Iterator[str]:
    for part in ("views", "attention"):
        if part in description:
            yield part
    yield from (part for part in ("coarse", "fine", "dual") if part in description.get("objective", {}))


def _nearest(run: ResolvedRun, measured: list[Measured]) -> Measured | None:
    """The training most like `run`: of its detector, of its components, and of the longest ones among those."""

    def distance(one: Measured) -> tuple[bool, int, int]:
        return one.detector != run.detector, len(one.components ^ run.components), -one.steps

    return min(measured, key=distance, default=None)


def _images(run: ResolvedRun, measured: list[Measured]) -> float | None:
    """Training images: as params.yaml or a training that was done tells."""
    own = getattr(run.dataset, "train", None)
    if isinstance(own, int):
        return own
    return next((one.steps / one.epochs * run.training.batch_size for one in measured), None)


def plan(params: Params, root: Path = Path()) -> list[Planned]:
    """The trainings of all runs that have no weights of their own version, each once, in the file's order."""
    measured = done(params, root)
    planned, seen = [], set()
    for name in params.runs:
        for run in resolved_runs(params, name):
            if run.folder in seen or training_state(run, root) == "trained":
                continue
            seen.add(run.folder)
            images = _images(run, measured)
            steps = None if images is None else run.training.epochs * math.ceil(images / run.training.batch_size)
            planned.append(Planned(run, steps, _nearest(run, measured)))
    return planned


def clock(seconds: float | None) -> str:
    """Hours and minutes, or minutes and seconds; a dash where nothing is known."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min {rest:02} s"
