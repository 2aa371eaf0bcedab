"""Error bars: confidence intervals of the scores and paired comparisons, from matches that exist.

Images are what is drawn, because detections of one image depend on each other. A resample draws as many images as there
are, with replacement (Efron and Tibshirani, "An introduction to the bootstrap", 1993): every detection and object then
counts as often as its image was drawn, and nothing is matched again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from comics.errors import UserError
from comics.evaluation.classification import VERDICT_METRICS, pooled, verdict_scores
from comics.evaluation.coco import Floats, Ints, Task
from comics.evaluation.inputs import Detections, GroundTruth, Source, read_detections, read_ground_truth
from comics.evaluation.intervals import bca, blocks
from comics.evaluation.judging import judged
from comics.evaluation.matching import Matched, Matches, match_tasks
from comics.evaluation.precision import average_precisions
from comics.evaluation.scores import ALL, METRICS, TASKS, Scores, average, lrp_errors, score, tasks_of
from comics.progress import Progress, silent, told

COMPARED = ("AP", "oLRP")
"""The metrics of a paired comparison, unless it is told others: any that all classes together have."""

Row = dict[str, float]


@dataclass(frozen=True)
class Interval:
    """A score with its confidence interval; NaN where undefined."""

    task: Task
    cls: str
    metric: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A paired comparison of two results on the same images, of all classes together.

    Attributes:
        first, second: the two scores.
        difference: first minus second, with its interval `low` to `high`.
        p: of the permutation test.
    """

    task: Task
    metric: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float


def class_scores(truth: GroundTruth, matched: Matched, counts: Floats) -> dict[str, Row]:
    """Class -> metric -> value, with every image counted `counts` (I,) times; ``all`` is their average.

    Args:
        truth: whose classes these are.
        matched: detailed matches.
        counts: (I,) multiplicities.
    """
    rows = _class_scores(truth, matched, counts)
    return {ALL: average(rows.values()) | verdict_scores(matched.verdicts, counts), **rows}


def _class_scores(truth: GroundTruth, matched: Matched, counts: Floats) -> dict[str, Row]:
    return {
        name: {**average_precisions(matched.classes[category], counts), **lrp_errors(matched.classes[category], counts)}
        for category, name in truth.categories.items()
    }


def draws(images: int, samples: int, seed: int, clusters: Ints | None = None) -> Iterator[Floats]:
    """`samples` times (I,): how often each image is drawn; images of a cluster, numbered from 0 in `clusters` (I,), together."""
    rng = np.random.default_rng(seed)
    number = images if clusters is None else int(clusters.max()) + 1
    for _ in range(samples):
        counts = np.bincount(rng.integers(number, size=number), minlength=number).astype(np.float64)
        yield counts if clusters is None else counts[clusters]


def drawn(truth: GroundTruth, samples: int, seed: int) -> Iterator[Floats]:
    """`draws` of the images of `truth`: of whole videos, where images belong to videos."""
    return draws(len(truth.image_ids), samples, seed, truth.videos)


def bootstrap(
    truth: GroundTruth, matched: Mapping[Task, Matched], samples: int, seed: int, progress: Progress = silent
) -> tuple[Scores, list[Interval]]:
    """Scores and a 95 % BCa interval (`comics.evaluation.intervals`) for each that is defined.

    Args:
        truth: ground truth.
        matched: detailed matches of each task.
        samples: resamples.
        seed: of the draws, which all tasks share.
        progress: told of the resamples.

    Raises:
        UserError: `samples` is not positive, or there is no image to draw.
    """
    require_samples(truth, samples)
    scores = score(truth, matched)
    intervals = []
    for task, of_task in matched.items():

        def row(counts: Floats, of_task: Matched = of_task) -> list[float]:
            rows = class_scores(truth, of_task, counts)
            return [rows[cls].get(metric, np.nan) for cls in scores.classes for metric in METRICS]

        resampled = [row(counts) for counts in told(drawn(truth, samples, seed), samples, progress, f"Resample {task}")]
        left_out = [row(counts) for counts in blocks(len(truth.image_ids), truth.videos)] or [
            [np.nan] * len(resampled[0])
        ]
        columns = zip(np.array(resampled).T, np.array(left_out).T, strict=True)
        for cls in scores.classes:
            for metric in METRICS:
                value, column = scores[task, cls, metric], next(columns)
                if not np.isnan(value):
                    intervals.append(Interval(task, cls, metric, value, *bca(value, *column)))
    return scores, intervals


def compare(
    ground_truth: Source | Mapping[str, Any],
    first: Source | Sequence[Mapping[str, Any]],
    second: Source | Sequence[Mapping[str, Any]],
    *,
    samples: int = 1000,
    seed: int = 0,
    engine: str = "hotcoco",
    tasks: Iterable[Task] | None = None,
    metrics: Sequence[str] = COMPARED,
    progress: Progress = silent,
) -> list[Difference]:
    """Paired comparison of two results on the same images, of all classes together.

    The interval is the bootstrap's, both drawn alike. The p-value is a permutation test's: if the two were alike, nothing
    would change by swapping their detections of any image. It is the share of random swaps with a difference at least as
    large, the observed one included (Phipson and Smyth, 2010), so that it is never 0.

    Args:
        ground_truth: a COCO file, or its content.
        first, second: COCO results files, or their content.
        samples: resamples, and as many swaps.
        seed: of both.
        engine: the library that matches.
        tasks: those to compare; all that are defined for both when None.
        metrics: those to compare, of `scores.METRICS`; what a task does not define is NaN.
        progress: told of the resamples, then of the swaps.

    Raises:
        UserError: an input is not usable.
    """
    truth = read_ground_truth(ground_truth)
    require_samples(truth, samples)
    found = [read_detections(source, truth) for source in (first, second)]
    both: list[Task] = [task for task in tasks_of(truth, found[0]) if task in tasks_of(truth, found[1])]
    wanted = both if tasks is None else [task for task in both if task in set(tasks)]
    one, other = (matched_for(truth, source, wanted, metrics, engine) for source in found)
    return [
        difference
        for task in wanted
        for difference in compare_matched(
            truth, task, one[task], other[task], samples=samples, seed=seed, metrics=metrics, progress=progress
        )
    ]


def matched_for(
    truth: GroundTruth, found: Detections, tasks: Sequence[Task], metrics: Sequence[str], engine: str = "hotcoco"
) -> dict[Task, Matched]:
    """What `metrics` are computed from: matches of all areas, verdicts where one is asked for."""
    matched = match_tasks(truth, found, tasks, engine, detailed=True, areas=("all",))
    return judged(truth, found, matched, engine) if set(metrics) & set(VERDICT_METRICS) else matched


def compare_matched(
    truth: GroundTruth,
    task: Task,
    first: Matched,
    second: Matched,
    *,
    samples: int,
    seed: int,
    metrics: Sequence[str] = COMPARED,
    progress: Progress = silent,
) -> list[Difference]:
    """`compare`, of matches."""
    observed = [compared_scores(truth, one, np.ones(len(truth.image_ids)), metrics) for one in (first, second)]

    def difference(counts: Floats) -> Floats:
        return compared_scores(truth, first, counts, metrics) - compared_scores(truth, second, counts, metrics)

    drawing = told(drawn(truth, samples, seed), samples, progress, f"Resample {task}")
    resampled = np.array([difference(counts) for counts in drawing])
    left_out = np.array([difference(counts) for counts in blocks(len(truth.image_ids), truth.videos)])
    left_out = left_out.reshape(-1, len(metrics))
    p = _permutation_test(truth, task, first, second, observed[0] - observed[1], samples, seed, metrics, progress)
    return [
        Difference(
            task, metric, one, other, one - other, *bca(one - other, resampled[:, index], left_out[:, index]), p[metric]
        )
        for index, (metric, one, other) in enumerate(zip(metrics, *map(np.ndarray.tolist, observed), strict=True))
    ]


def _permutation_test(
    truth: GroundTruth,
    task: Task,
    first: Matched,
    second: Matched,
    observed: Floats,
    samples: int,
    seed: int,
    metrics: Sequence[str] = COMPARED,
    progress: Progress = silent,
) -> Row:
    """Metric of `metrics` -> p-value of its `observed` difference; NaN where that is."""
    images = len(truth.image_ids)
    both = Matched(
        first.precision,
        {key: _pooled(first.classes[key], second.classes[key]) for key in first.classes},
        {kind: pooled(first.verdicts[kind], second.verdicts[kind], images) for kind in first.verdicts},
    )
    clusters = np.arange(images) if truth.videos is None else truth.videos
    swapped = np.empty((samples, len(metrics)))
    rng = np.random.default_rng((seed, 1))
    for index in told(range(samples), samples, progress, f"Swap {task}"):
        own = (rng.random(int(clusters.max()) + 1) < 0.5).astype(np.float64)[clusters]
        # In `both` there are twice the images; each is there once, with the detections of one of the two.
        halves = np.concatenate([own, 1 - own])
        swapped[index] = compared_scores(truth, both, halves, metrics) - compared_scores(
            truth, both, 1 - halves, metrics
        )
    # Swaps that change nothing must count as at least as large, whatever the rounding.
    extreme = (np.abs(swapped) >= np.abs(observed) - 1e-12).sum(axis=0)
    p = np.where(np.isnan(observed), np.nan, (1 + extreme) / (1 + samples))
    return dict(zip(metrics, p.tolist(), strict=True))


class PairedTests:
    """`compare`'s p-values alone, for many pairs of results on the same images: each is read and matched once.

    Args:
        ground_truth: a COCO file.
        tasks: those that will be asked for.
        metrics: those to compare.
        samples: swaps.
        seed: of the swaps.

    Raises:
        UserError: the file is not usable, or has no image.
    """

    def __init__(
        self,
        ground_truth: Source,
        tasks: Sequence[Task] = TASKS,
        metrics: Sequence[str] = COMPARED,
        *,
        samples: int = 1000,
        seed: int = 0,
    ) -> None:
        self.truth = read_ground_truth(ground_truth)
        require_samples(self.truth, samples)
        self.tasks, self.metrics, self.samples, self.seed = tasks, metrics, samples, seed
        self.scored: dict[str, dict[Task, tuple[Matched, Floats]]] = {}

    def __call__(self, first: Source, second: Source, task: Task) -> Row:
        """Metric -> p-value of the paired difference of two COCO results files in `task`, which both have.

        Raises:
            UserError: a file is not usable.
        """
        (one, of_one), (other, of_other) = self._scored(first, task), self._scored(second, task)
        difference = of_one - of_other
        return _permutation_test(self.truth, task, one, other, difference, self.samples, self.seed, self.metrics)

    def _scored(self, source: Source, task: Task) -> tuple[Matched, Floats]:
        key = str(source)
        if key not in self.scored:
            found = read_detections(source, self.truth)
            tasks = [one for one in tasks_of(self.truth, found) if one in self.tasks]
            matched = matched_for(self.truth, found, tasks, self.metrics)
            once = np.ones(len(self.truth.image_ids))
            self.scored[key] = {
                one: (of_task, compared_scores(self.truth, of_task, once, self.metrics))
                for one, of_task in matched.items()
            }
        if task not in self.scored[key]:
            raise UserError(f"{source}: has nothing to compare in {task}.")
        return self.scored[key][task]


def require_samples(truth: GroundTruth, samples: int) -> None:
    """Raise `UserError` unless there are images to draw, and a number of times to draw them."""
    if samples < 1:
        raise UserError(f"{samples} resamples: there must be at least one.")
    if not len(truth.image_ids):
        raise UserError(f"{truth.name}: has no images to draw.")


def compared_scores(truth: GroundTruth, matched: Matched, counts: Floats, metrics: Sequence[str] = COMPARED) -> Floats:
    """`metrics` of all classes together."""
    row = verdict_scores(matched.verdicts, counts, [metric for metric in metrics if metric in VERDICT_METRICS])
    if any(metric not in row for metric in metrics):
        row |= average(_class_scores(truth, matched, counts).values())
    return np.array([row[metric] for metric in metrics])


def _pooled(first: Matches, second: Matches) -> Matches:
    """The detections of both, ranked together; the images of `second` are numbered on after those of `first`."""
    images = first.objects.shape[1]
    scores = np.concatenate([first.scores, second.scores])
    numbers = np.concatenate([first.images, second.images + images])
    # Of equal scores the lower image id goes first, as in COCO's ranking.
    ranked = np.lexsort((numbers % images, -scores))

    def joined(name: str) -> Any:
        return np.concatenate([getattr(first, name), getattr(second, name)], axis=-1)[..., ranked]

    return Matches(
        scores=scores[ranked],
        images=numbers[ranked],
        matched=joined("matched"),
        ignored=joined("ignored"),
        ious=joined("ious"),
        objects=np.concatenate([first.objects, second.objects], axis=-1),
        partners=joined("partners"),
    )
