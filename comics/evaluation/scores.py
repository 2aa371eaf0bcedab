"""Average precision and oLRP of every class and task, as a table."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from comics.evaluation.inputs import Detections, GroundTruth, Source, read_detections, read_ground_truth
from comics.evaluation.lrp import Lrp, optimal_lrp
from comics.evaluation.matching import Floats, Matched, Task, build_engine, by_class
from comics.files import write_text

TASKS: tuple[Task, ...] = get_args(Task)
AP_METRICS = ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L")
LRP_METRICS = ("oLRP", "oLRP_Loc", "oLRP_FP", "oLRP_FN", "oLRP_threshold")
METRICS = (*AP_METRICS, *LRP_METRICS)
ALL = "all"
"""The average over classes."""


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
    """Average precision and oLRP of boxes and masks.

    A task is left undefined when the detections, or the ground truth, have nothing of its kind.

    Args:
        ground_truth: a COCO file, or its content.
        detections: a COCO results file, or its content.
        engine: ``hotcoco`` or ``pycocotools``, the reference.

    Raises:
        UserError: an input is not usable; the message names it and its first offending entry.
    """
    truth = ground_truth if isinstance(ground_truth, GroundTruth) else read_ground_truth(ground_truth)
    found = detections if isinstance(detections, Detections) else read_detections(detections, truth)
    library = build_engine(engine)
    values: dict[tuple[str, str, str], float] = {}
    classes = (ALL, *truth.categories.values())
    for task in TASKS:
        if not can_evaluate(truth, found, task):
            values |= {(task, cls, metric): np.nan for cls in classes for metric in METRICS}
            continue
        matched = library.match(truth, found, task)
        for (cls, metric), value in {
            **average_precisions(truth, matched),
            **lrp_errors(truth, found, matched),
        }.items():
            values[task, cls, metric] = value
    return Scores(classes, values)


def can_evaluate(truth: GroundTruth, found: Detections, task: Task) -> bool:
    """Whether both inputs have what `task` compares."""
    if task == "detection":
        return truth.has_boxes and found.boxes is not None
    return truth.has_masks and found.has_masks


def average_precisions(truth: GroundTruth, matched: Matched) -> dict[tuple[str, str], float]:
    """(class, metric) -> COCO's average precision."""
    precision = matched.precision
    parts = {
        "AP": precision[:, :, :, 0],
        "AP50": precision[0, :, :, 0],
        "AP75": precision[5, :, :, 0],
        "AP_S": precision[:, :, :, 1],
        "AP_M": precision[:, :, :, 2],
        "AP_L": precision[:, :, :, 3],
    }
    values = {(ALL, metric): _mean_defined(part) for metric, part in parts.items()}
    for index, cls in enumerate(truth.categories.values()):
        values |= {(cls, metric): _mean_defined(part[..., index]) for metric, part in parts.items()}
    return values


def _mean_defined(precision: Floats) -> float:
    """Mean of the values that COCO defines (-1 stands for undefined)."""
    defined = precision[precision > -1]
    return float(defined.mean()) if len(defined) else np.nan


def lrp_errors(truth: GroundTruth, found: Detections, matched: Matched) -> dict[tuple[str, str], float]:
    """(class, metric) -> oLRP, its components and threshold; there is no threshold of all classes."""
    values: dict[tuple[str, str], float] = {}
    for category, matches in by_class(truth, found, matched).items():
        lrp = optimal_lrp(matches.scores, matches.ious, int(matches.objects.sum()))
        for metric, value in zip(LRP_METRICS, _lrp_values(lrp), strict=True):
            values[truth.categories[category], metric] = value
    for metric in LRP_METRICS:
        defined = [value for (_, other), value in values.items() if other == metric and not np.isnan(value)]
        values[ALL, metric] = float(np.mean(defined)) if defined and metric != "oLRP_threshold" else np.nan
    return values


def _lrp_values(lrp: Lrp) -> tuple[float, ...]:
    return lrp.olrp, lrp.loc, lrp.fp, lrp.fn, lrp.threshold


def write_scores(path: str | os.PathLike[str], scores: Scores) -> None:
    """Write `scores` as CSV: a row for each task and class, fractions in full precision, undefined cells empty."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["task", "class", *METRICS])
    for task, cls, values in scores.rows():
        writer.writerow([task, cls, *("" if np.isnan(value) else repr(float(value)) for value in values)])
    write_text(path, text.getvalue())
