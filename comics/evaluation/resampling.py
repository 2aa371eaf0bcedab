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
from comics.evaluation.inputs import GroundTruth, Source, read_detections, read_ground_truth
from comics.evaluation.matching import Floats, Matched, Matches, Task, match_tasks
from comics.evaluation.precision import average_precisions
from comics.evaluation.scores import ALL, METRICS, TASKS, Scores, average, lrp_errors, score, tasks_of
from comics.progress import Progress, silent, told

CONFIDENCE = 0.95
COMPARED = ("AP", "oLRP")
"""The metrics of a paired comparison."""

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
    rows = {
        name: {**average_precisions(matched.classes[category], counts), **lrp_errors(matched.classes[category], counts)}
        for category, name in truth.categories.items()
    }
    return {ALL: average(rows.values()), **rows}


def draws(images: int, samples: int, seed: int) -> Iterator[Floats]:
    """`samples` times (I,): how often each image is drawn."""
    rng = np.random.default_rng(seed)
    for _ in range(samples):
        yield np.bincount(rng.integers(images, size=images), minlength=images).astype(np.float64)


def interval(values: Floats) -> tuple[float, float]:
    """The central `CONFIDENCE` of resampled values (S,); resamples that leave the metric undefined are left out."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return np.nan, np.nan
    low, high = np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def bootstrap(
    truth: GroundTruth, matched: Mapping[Task, Matched], samples: int, seed: int, progress: Progress = silent
) -> tuple[Scores, list[Interval]]:
    """Scores and a 95 % percentile interval for each that is defined.

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
        resampled = [
            [rows[cls].get(metric, np.nan) for cls in scores.classes for metric in METRICS]
            for counts in told(draws(len(truth.image_ids), samples, seed), samples, progress, f"Resample {task}")
            for rows in [class_scores(truth, of_task, counts)]
        ]
        columns = iter(np.array(resampled).T)
        for cls in scores.classes:
            for metric in METRICS:
                value, column = scores[task, cls, metric], next(columns)
                if not np.isnan(value):
                    intervals.append(Interval(task, cls, metric, value, *interval(column)))
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
    progress: Progress = silent,
) -> list[Difference]:
    """Paired comparison of two results on the same images: AP and oLRP of all classes together.

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
        progress: told of the resamples, then of the swaps.

    Raises:
        UserError: an input is not usable.
    """
    truth = read_ground_truth(ground_truth)
    require_samples(truth, samples)
    found = [read_detections(source, truth) for source in (first, second)]
    both: list[Task] = [task for task in tasks_of(truth, found[0]) if task in tasks_of(truth, found[1])]
    wanted = both if tasks is None else [task for task in both if task in set(tasks)]
    one, other = (match_tasks(truth, source, wanted, engine, detailed=True, areas=("all",)) for source in found)
    return [
        difference
        for task in wanted
        for difference in compare_matched(
            truth, task, one[task], other[task], samples=samples, seed=seed, progress=progress
        )
    ]


def compare_matched(
    truth: GroundTruth,
    task: Task,
    first: Matched,
    second: Matched,
    *,
    samples: int,
    seed: int,
    progress: Progress = silent,
) -> list[Difference]:
    """`compare`, of matches."""
    observed = [compared_scores(truth, one, np.ones(len(truth.image_ids))) for one in (first, second)]
    resampled = np.array(
        [
            compared_scores(truth, first, counts) - compared_scores(truth, second, counts)
            for counts in told(draws(len(truth.image_ids), samples, seed), samples, progress, f"Resample {task}")
        ]
    )
    p = _permutation_test(truth, task, first, second, observed[0] - observed[1], samples, seed, progress)
    return [
        Difference(task, metric, one, other, one - other, *interval(resampled[:, index]), p[metric])
        for index, (metric, one, other) in enumerate(zip(COMPARED, *map(np.ndarray.tolist, observed), strict=True))
    ]


def _permutation_test(
    truth: GroundTruth,
    task: Task,
    first: Matched,
    second: Matched,
    observed: Floats,
    samples: int,
    seed: int,
    progress: Progress = silent,
) -> Row:
    """Metric of `COMPARED` -> p-value of its `observed` difference; NaN where that is."""
    pooled = Matched(first.precision, {key: _pooled(first.classes[key], second.classes[key]) for key in first.classes})
    swapped = np.empty((samples, len(COMPARED)))
    rng = np.random.default_rng((seed, 1))
    for index in told(range(samples), samples, progress, f"Swap {task}"):
        own = (rng.random(len(truth.image_ids)) < 0.5).astype(np.float64)
        # In `pooled` there are twice the images; each is there once, with the detections of one of the two.
        halves = np.concatenate([own, 1 - own])
        swapped[index] = compared_scores(truth, pooled, halves) - compared_scores(truth, pooled, 1 - halves)
    # Swaps that change nothing must count as at least as large, whatever the rounding.
    extreme = (np.abs(swapped) >= np.abs(observed) - 1e-12).sum(axis=0)
    p = np.where(np.isnan(observed), np.nan, (1 + extreme) / (1 + samples))
    return dict(zip(COMPARED, p.tolist(), strict=True))


class PairedTests:
    """`compare`'s p-values alone, for many pairs of results on the same images: each is read and matched once.

    Args:
        ground_truth: a COCO file.
        tasks: those that will be asked for.
        samples: swaps.
        seed: of the swaps.

    Raises:
        UserError: the file is not usable, or has no image.
    """

    def __init__(
        self, ground_truth: Source, tasks: Sequence[Task] = TASKS, *, samples: int = 1000, seed: int = 0
    ) -> None:
        self.truth = read_ground_truth(ground_truth)
        require_samples(self.truth, samples)
        self.tasks, self.samples, self.seed = tasks, samples, seed
        self.scored: dict[str, dict[Task, tuple[Matched, Floats]]] = {}

    def __call__(self, first: Source, second: Source, task: Task) -> Row:
        """Metric -> p-value of the paired difference of two COCO results files in `task`, which both have.

        Raises:
            UserError: a file is not usable.
        """
        (one, of_one), (other, of_other) = self._scored(first, task), self._scored(second, task)
        return _permutation_test(self.truth, task, one, other, of_one - of_other, self.samples, self.seed)

    def _scored(self, source: Source, task: Task) -> tuple[Matched, Floats]:
        key = str(source)
        if key not in self.scored:
            found = read_detections(source, self.truth)
            tasks = [one for one in tasks_of(self.truth, found) if one in self.tasks]
            matched = match_tasks(self.truth, found, tasks, detailed=True, areas=("all",))
            once = np.ones(len(self.truth.image_ids))
            self.scored[key] = {
                one: (of_task, compared_scores(self.truth, of_task, once)) for one, of_task in matched.items()
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


def compared_scores(truth: GroundTruth, matched: Matched, counts: Floats) -> Floats:
    """`COMPARED` metrics of all classes together."""
    row = class_scores(truth, matched, counts)[ALL]
    return np.array([row[metric] for metric in COMPARED])


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
    )
