"""Ways of training compared with error bars over images and seeds: of a mean over seeds, against that of a baseline.

Images are paired: every run is judged on the same ones, so that what makes an image hard cancels. Seeds are not: seed 1 of
two runs has nothing in common. So the variance over images comes from resamples that all runs and seeds share, that over seeds
from each run's own, and the interval is Student's over their sum (`comics.evaluation.intervals.studentised`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from comics.errors import UserError
from comics.evaluation.coco import Floats, Task
from comics.evaluation.inputs import Source, read_detections, read_ground_truth
from comics.evaluation.intervals import studentised
from comics.evaluation.resampling import COMPARED, compared_scores, drawn, matched_for, require_samples
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
    clusters = len(truth.image_ids) if truth.videos is None else int(truth.videos.max()) + 1
    counted = [np.ones(len(truth.image_ids)), *drawn(truth, samples, seed)]  # the first is what was observed

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
        for task, values in scored(sources, name).items():
            if task not in base:
                continue
            for index, metric in enumerate(metrics):
                own, other = values[:, index], base[task][:, index]
                low, high = studentised(own, other, clusters)
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
