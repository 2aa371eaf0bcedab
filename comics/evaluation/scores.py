"""Average precision, oLRP and verdict metrics of every class and task, as a table."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from statistics import fmean, stdev
from typing import Any, get_args

import numpy as np

from comics.evaluation.classification import VERDICT_METRICS, verdict_scores
from comics.evaluation.coco import Floats, Task
from comics.evaluation.inputs import ALL, Detections, GroundTruth, Source, read_detections, read_ground_truth
from comics.evaluation.judging import judged
from comics.evaluation.lrp import optimal_lrp
from comics.evaluation.matching import Matched, Matches, match_tasks
from comics.evaluation.precision import AP_METRICS
from comics.files import write_text

TASKS: tuple[Task, ...] = get_args(Task)
LRP_METRICS = ("oLRP", "oLRP_Loc", "oLRP_FP", "oLRP_FN", "oLRP_threshold")
METRICS = (*AP_METRICS, *LRP_METRICS, *VERDICT_METRICS)
CSV_HEADER = ("task", "class", *METRICS)


@dataclass(frozen=True)
class Scores:
    """Metrics as fractions, NaN where undefined.

    Attributes:
        classes: ``all`` and the names of the classes.
        values: (task, class, metric) -> value.
    """

    classes: tuple[str, ...]
    values: Mapping[tuple[str, str, str], float]

    def __getitem__(self, key: tuple[str, str, str]) -> float:
        """The value of (task, class, metric)."""
        return self.values[key]

    def rows(self) -> Iterator[tuple[str, str, list[float]]]:
        """Task, class and a value for each of `METRICS`."""
        for task in TASKS:
            for cls in self.classes:
                yield task, cls, [self.values[task, cls, metric] for metric in METRICS]


def evaluate(
    ground_truth: Source | Mapping[str, Any] | GroundTruth,
    detections: Source | Sequence[Mapping[str, Any]] | Detections,
    *,
    engine: str = "hotcoco",
) -> Scores:
    """Average precision, oLRP and verdict metrics of boxes and masks.

    A task is left undefined when the detections, or the ground truth, have nothing of its kind.

    Args:
        ground_truth: a COCO file, or its content.
        detections: a COCO results file, or its content.
        engine: ``hotcoco`` or ``pycocotools``, the reference.

    Raises:
        UserError: an input is not usable; the message names it and its first offending entry.
    """
    truth, found = read_inputs(ground_truth, detections)
    return score(truth, judged(truth, found, match_tasks(truth, found, tasks_of(truth, found), engine), engine))


def read_inputs(
    ground_truth: Source | Mapping[str, Any] | GroundTruth,
    detections: Source | Sequence[Mapping[str, Any]] | Detections,
) -> tuple[GroundTruth, Detections]:
    """Both, read and checked unless they are already."""
    truth = ground_truth if isinstance(ground_truth, GroundTruth) else read_ground_truth(ground_truth)
    return truth, detections if isinstance(detections, Detections) else read_detections(detections, truth)


def tasks_of(truth: GroundTruth, found: Detections) -> list[Task]:
    """The tasks for which both inputs have what is compared."""
    boxes = truth.boxes is not None and found.boxes is not None
    masks = truth.masks is not None and found.masks is not None
    return [task for task, can in zip(TASKS, (boxes, masks), strict=True) if can]


def score(truth: GroundTruth, matched: Mapping[Task, Matched]) -> Scores:
    """The scores of matched tasks; those of the other tasks are undefined."""
    names = tuple(truth.categories.values())
    values: dict[tuple[str, str, str], float] = {}
    for task in TASKS:
        by_class: dict[str, dict[str, float]] = {name: {} for name in names}
        if task in matched:
            for index, (category, name) in enumerate(truth.categories.items()):
                by_class[name] = {
                    **_library_precisions(matched[task].precision[:, :, index]),
                    **lrp_errors(matched[task].classes[category]),
                }
        verdicts = verdict_scores(matched[task].verdicts) if task in matched else {}
        by_class = {ALL: average(by_class.values()) | verdicts, **by_class}
        for cls, row in by_class.items():
            values |= {(task, cls, metric): row.get(metric, np.nan) for metric in METRICS}
    return Scores((ALL, *names), values)


def _library_precisions(precision: Floats) -> dict[str, float]:
    """Metric -> average precision from a library's (10 IoU thresholds, 101 recall thresholds, 4 areas) of a class."""
    everywhere = precision[..., 0]
    parts = (everywhere, everywhere[0], everywhere[5], *np.moveaxis(precision[..., 1:], -1, 0))
    return {
        metric: float(part.mean()) if part.min() > -1 else np.nan
        for metric, part in zip(AP_METRICS, parts, strict=True)
    }


def lrp_errors(matches: Matches, counts: Floats | None = None, area: int = 0) -> dict[str, float]:
    """Metric -> oLRP of a class, its components and its threshold.

    Args:
        matches: of the class.
        counts: (I,) how often each image counts; once when None.
        area: index of the area range.
    """
    counts = np.ones(matches.objects.shape[1]) if counts is None else counts
    weights = counts[matches.images] * ~matches.ignored[0, area]
    objects = float(matches.objects[area] @ counts)
    lrp = optimal_lrp(matches.scores, matches.ious[area], matches.matched[0, area], objects, weights)
    return dict(zip(LRP_METRICS, astuple(lrp), strict=True))


def average(classes: Any) -> dict[str, float]:
    """Metric -> mean over the classes that define it. Thresholds belong to a class and have no mean; verdicts to no class."""
    rows: list[dict[str, float]] = list(classes)
    means = {}
    for metric in (*AP_METRICS, *LRP_METRICS[:-1]):
        defined = [value for row in rows if not np.isnan(value := row.get(metric, np.nan))]
        means[metric] = sum(defined) / len(defined) if defined else np.nan
    return means


@dataclass(frozen=True)
class Spread:
    """A metric over seeds: mean and sample standard deviation of those that define it; NaN where undefined."""

    mean: float
    std: float
    seeds: int


def aggregate(frames: Sequence[Scores]) -> dict[tuple[str, str, str], Spread]:
    """(task, class, metric) -> mean and standard deviation over the scores of several seeds."""
    spreads = {}
    for key in frames[0].values if frames else ():
        defined = [frame.values[key] for frame in frames if not np.isnan(frame.values[key])]
        spreads[key] = Spread(
            mean=fmean(defined) if defined else np.nan,
            std=stdev(defined) if len(defined) > 1 else np.nan,
            seeds=len(defined),
        )
    return spreads


def read_scores(path: str | os.PathLike[str]) -> Scores:
    """Scores as `write_scores` wrote them.

    Raises:
        UserError: the file is not a whole scores CSV, or a cell is not in [0, 1].
    """
    from comics.score_files import read_score_file  # with params.yaml's schema, which takes longer than all of numpy

    read = read_score_file(path)
    values = {key: np.nan if value is None else value for key, value in read.items()}
    return Scores(tuple(dict.fromkeys(cls for _, cls, _ in values)), values)


def write_scores(path: str | os.PathLike[str], scores: Scores) -> None:
    """Write `scores` as CSV: a row for each task and class, fractions in full precision, undefined cells empty."""
    write_table(path, CSV_HEADER, ([task, cls, *values] for task, cls, values in scores.rows()))


def write_table(path: str | os.PathLike[str], header: Sequence[str], rows: Any) -> None:
    """Write CSV, numbers in full precision and NaN as an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow(["" if value is None or value != value else _plain(value) for value in row])
    write_text(path, text.getvalue())


def _plain(value: Any) -> Any:
    return repr(float(value)) if isinstance(value, float | np.floating) else value
