"""Ways of training compared with error bars over images and seeds: of a mean over seeds, against that of a baseline.

Images are paired: every run is judged on the same ones, so that what makes an image hard cancels. Seeds are not: seed 1 of
two runs has nothing in common, so each run's seeds are drawn for themselves. Both are drawn with replacement (a bootstrap
of two levels; Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from comics.errors import UserError
from comics.evaluation.inputs import Source, read_detections, read_ground_truth
from comics.evaluation.matching import Floats, Task
from comics.evaluation.resampling import COMPARED, compared_scores, drawn, interval, matched_for, require_samples
from comics.evaluation.scores import tasks_of
from comics.progress import Progress, silent


@dataclass(frozen=True)
class Gain:
    """A run against the baseline, in fractions, over all classes together; NaN where undefined.

    Attributes:
        values: of the run, one a seed.
        baseline: of the baseline, one a seed.
        difference: mean of `values` minus mean of `baseline`, with its 95 % interval `low` to `high`.
    """

    run: str
    task: Task
    metric: str
    values: tuple[float, ...]
    baseline: tuple[float, ...]
    difference: float
    low: float
    high: float


def mean_difference(first: Floats, second: Floats, rng: np.random.Generator) -> Floats:
    """Resampled differences (S,) of two means over seeds.

    Args:
        first, second: (K, S) and (L, S), K and L seeds on the same S resamples of the images.
        rng: draws the seeds, for each resample and each of the two anew.
    """
    means = []
    for values in (first, second):
        seeds, samples = values.shape
        drawn = rng.integers(seeds, size=(seeds, samples))
        means.append(np.take_along_axis(values, drawn, axis=0).mean(axis=0))
    return means[0] - means[1]


def compare_runs(
    ground_truth: Source | Mapping[str, Any],
    baseline: Sequence[Source],
    runs: Mapping[str, Sequence[Source]],
    *,
    samples: int = 1000,
    seed: int = 0,
    engine: str = "hotcoco",
    tasks: Iterable[Task] = ("detection", "segmentation"),
    metrics: Sequence[str] = COMPARED,
    progress: Progress = silent,
) -> list[Gain]:
    """Each run minus the baseline, both means over their seeds, of all classes together.

    With three seeds the interval is a little narrow: drawing from K values shows (K - 1) / K of their variance.

    Args:
        ground_truth: a COCO file, or its content.
        baseline: COCO results files of the baseline, one a seed.
        runs: the same for every run that is compared with it.
        samples: resamples.
        seed: of the draws.
        engine: the library that matches.
        tasks: those to compare, where baseline and run both have them.
        metrics: those to compare, of `scores.METRICS`.
        progress: told of the runs.

    Raises:
        UserError: an input is not usable, `samples` is not positive, or a run has no file.
    """
    truth = read_ground_truth(ground_truth)
    require_samples(truth, samples)
    images = len(truth.image_ids)
    counted = [np.ones(images), *drawn(truth, samples, seed)]  # the first is what was observed

    def scored(sources: Sequence[Source], name: str) -> dict[Task, Floats]:
        """Task -> (seeds, metrics, 1 + samples)."""
        if not sources:
            raise UserError(f"{name}: has no detections to compare.")
        found = [read_detections(source, truth) for source in sources]
        common = [task for task in tasks if all(task in tasks_of(truth, one) for one in found)]
        of_seeds: dict[Task, list[Floats]] = {task: [] for task in common}
        for one in found:
            for task, matched in matched_for(truth, one, common, metrics, engine).items():
                scores = [compared_scores(truth, matched, counts, metrics) for counts in counted]
                of_seeds[task].append(np.stack(scores, axis=1))
        return {task: np.stack(values) for task, values in of_seeds.items()}

    base = scored(baseline, "the baseline")
    progress("Resample", 1, 1 + len(runs))
    gains = []
    for done, (name, sources) in enumerate(runs.items(), start=2):
        rng = np.random.default_rng((seed, 2))
        for task, values in scored(sources, name).items():
            if task not in base:
                continue
            for index, metric in enumerate(metrics):
                own, other = values[:, index], base[task][:, index]
                low, high = interval(mean_difference(own[:, 1:], other[:, 1:], rng))
                gains.append(
                    Gain(
                        run=name,
                        task=task,
                        metric=metric,
                        values=tuple(own[:, 0].tolist()),
                        baseline=tuple(other[:, 0].tolist()),
                        difference=float(own[:, 0].mean() - other[:, 0].mean()),
                        low=low,
                        high=high,
                    )
                )
        progress("Resample", done, 1 + len(runs))
    return gains
