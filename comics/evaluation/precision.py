"""Average precision from matches, to the letter of COCO's accumulation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from comics.evaluation.matching import Matches

RECALLS: NDArray[np.float64] = np.linspace(0.0, 1.0, 101)


def ranked(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Best first; equal scores in the order they came in."""
    return np.argsort(-scores, kind="mergesort")


def interpolated_precision(matches: Matches) -> NDArray[np.float64] | None:
    """Precision at `RECALLS`, (T, 101); None where there is no face to be found."""
    total = int(matches.faces.sum())
    if total == 0:
        return None
    order = ranked(matches.scores)
    counted = ~matches.ignored[:, order]
    right = np.cumsum(matches.matched[:, order] & counted, axis=1, dtype=float)
    wrong = np.cumsum(~matches.matched[:, order] & counted, axis=1, dtype=float)
    recall = right / total
    precision = right / (right + wrong + np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    result = np.zeros((len(right), len(RECALLS)))
    for row in range(len(right)):
        place = np.searchsorted(recall[row], RECALLS, side="left")
        reached = place < recall.shape[1]
        result[row, reached] = envelope[row, place[reached]]
    return result


def average_precision(matches: Matches) -> NDArray[np.float64]:
    """AP at every threshold, (T,); NaN where there is no face to be found."""
    precision = interpolated_precision(matches)
    return np.full(len(matches.matched), np.nan) if precision is None else precision.mean(axis=1)
