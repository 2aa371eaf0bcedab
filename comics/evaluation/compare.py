"""Is one run better than another? Paired over the images they were both scored on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from comics.errors import UserError
from comics.evaluation.matching import Engine, Matches
from comics.evaluation.scores import METRICS, Evaluation, evaluate_matches, resample, score_matches

COMPARED = ("AP", "oLRP")


def _swap(first: Matches, second: Matches, swapped: NDArray[np.bool_]) -> Matches:
    """`first`, but with the detections of `second` in the images where `swapped`."""
    keep, take = ~swapped[first.images], swapped[second.images]
    order = np.argsort(np.concatenate([first.images[keep], second.images[take]]), kind="stable")

    def join(one: NDArray, other: NDArray) -> NDArray:
        return np.concatenate([one[..., keep], other[..., take]], axis=-1)[..., order]

    return Matches(
        join(first.scores, second.scores),
        join(first.images, second.images),
        join(first.matched, second.matched),
        join(first.ignored, second.ignored),
        first.faces,
        join(first.iou, second.iou),
    )


def _both(evaluation: Evaluation, task: str) -> NDArray[np.float64]:
    """`COMPARED` scores of all classes together."""
    return score_matches(evaluation.tasks[task])[0, [METRICS.index(metric) for metric in COMPARED]]


def compare_evaluations(
    first: Evaluation, second: Evaluation, samples: int = 1000, seed: int = 0, tasks: Iterable[str] | None = None
) -> pd.DataFrame:
    """`compare`, of matches that exist."""
    rng = np.random.default_rng(seed)
    rows = []
    columns = [METRICS.index(metric) for metric in COMPARED]
    for task in tasks if tasks is not None else [task for task in first.tasks if task in second.tasks]:
        one, two = first.tasks[task], second.tasks[task]
        scores = _both(first, task), _both(second, task)
        difference = scores[0] - scores[1]
        resampled, permuted = np.empty((samples, len(COMPARED))), np.empty((samples, len(COMPARED)))
        share = np.full(first.images, 1 / first.images)
        for sample in range(samples):
            counts = rng.multinomial(first.images, share)
            swapped = rng.random(first.images) < 0.5
            pair = [
                score_matches({key: resample(matches, counts) for key, matches in side.items()})[0, columns]
                for side in (one, two)
            ]
            resampled[sample] = pair[0] - pair[1]
            mixed = [
                score_matches({key: _swap(a[key], b[key], swapped) for key in a})[0, columns]
                for a, b in ((one, two), (two, one))
            ]
            permuted[sample] = mixed[0] - mixed[1]
        for index, metric in enumerate(COMPARED):
            extreme = np.abs(permuted[:, index]) >= abs(difference[index]) - 1e-12
            low, high = np.nanquantile(resampled[:, index], [0.025, 0.975])
            rows.append(
                (task, metric, scores[0][index], scores[1][index], difference[index], low, high)
                + ((1 + int(extreme.sum())) / (1 + samples),)
            )
    return pd.DataFrame(rows, columns=["task", "metric", "first", "second", "difference", "low", "high", "p"])


def compare(
    truth: str | os.PathLike[str],
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    samples: int = 1000,
    seed: int = 0,
    engine: Engine = "hotcoco",
    tasks: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Paired comparison of two COCO results files on the same ground truth.

    The interval is the bootstrap's over images, both files resampled alike. The p-value is that of a permutation test: were
    the two alike, exchanging their detections of any image would change nothing; it is the share of random exchanges whose
    difference is at least as large, the observed one counted too (Phipson and Smyth, 2010).

    Args:
        truth: COCO ground truth.
        first, second: COCO results.
        samples: resamples, and exchanges.
        seed: of both.
        engine: who matches.
        tasks: which; all that both files have a field for when None.

    Returns:
        One row a task and metric (AP, oLRP): ``task, metric, first, second, difference, low, high, p``.
    """
    evaluations = [evaluate_matches(truth, path, engine) for path in (first, second)]
    if not evaluations[0].images:
        raise UserError(f"{os.fspath(truth)}: has no images to compare on.")
    return compare_evaluations(*evaluations, samples=samples, seed=seed, tasks=tasks)
