"""Localisation recall precision (LRP) error and its optimum, oLRP.

Source: Oksuz, Cam, Kalkan and Akbas, "One metric to measure them all: localisation recall precision (LRP) for evaluating
visual detection tasks", TPAMI 2021. Of one class, for detections whose score is at least s,

    LRP(s) = [ sum over TP of (1 - IoU) / (1 - tau)  +  |FP|  +  |FN| ] / (|TP| + |FP| + |FN|),

where TP are the detections matched with an IoU of at least tau, FP the other ones and FN the objects left over. oLRP is
the minimum over every score-ranked prefix of the detections: no grid of thresholds. At that prefix its components are

    Loc = sum over TP of (1 - IoU) / |TP|,    FP = |FP| / (|TP| + |FP|),    FN = |FN| / |objects|.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from comics.evaluation.coco import Bools, Floats

TAU = 0.5
"""IoU from which on a detection and an object match."""


@dataclass(frozen=True)
class Lrp:
    """oLRP of one class, with its components and the score of the last detection kept. Undefined values are NaN."""

    olrp: float
    loc: float
    fp: float
    fn: float
    threshold: float


def lrp_curve(ious: Floats, matched: Bools, objects: float, weights: Floats | None = None, tau: float = TAU) -> Floats:
    """LRP of every score-ranked prefix.

    Args:
        ious: (N,) of the detections by descending score, with the object each is matched to.
        matched: (N,) whether it is a true positive.
        objects: number of objects of the class.
        weights: (N,) multiplicity of each detection, for resampling; `objects` is then the resampled number.
        tau: IoU threshold of the matching.

    Returns:
        (N,): element n is the LRP of the first n + 1 detections; NaN where there is neither object nor detection.
    """
    w = np.ones_like(ious) if weights is None else weights
    found = np.cumsum(w * matched)
    kept = np.cumsum(w)
    error = np.cumsum(w * np.where(matched, (1 - ious) / (1 - tau), 0.0))
    with np.errstate(invalid="ignore"):
        # FP = kept - found and FN = objects - found; so TP + FP + FN = kept + FN.
        return (error + (kept - found) + (objects - found)) / (kept + objects - found)


def optimal_lrp(
    scores: Floats, ious: Floats, matched: Bools, objects: float, weights: Floats | None = None, tau: float = TAU
) -> Lrp:
    """The smallest LRP over all score-ranked prefixes, and its components there.

    Without a true positive oLRP and FN are 1 and the rest is NaN; without an object everything is NaN. Of equally good
    prefixes the shortest that finds an object counts.

    Args:
        scores: (N,) descending.
        ious, matched: (N,) see `lrp_curve`.
        objects: number of objects of the class.
        weights: (N,) multiplicity of each detection, 0 for those that do not count.
        tau: IoU threshold of the matching.
    """
    if not objects > 0:
        return Lrp(np.nan, np.nan, np.nan, np.nan, np.nan)
    w = np.ones_like(ious) if weights is None else weights
    # A false positive never lowers LRP, which is at most 1: the best prefix ends with a true positive.
    ends = np.flatnonzero(matched & (w > 0))
    if not len(ends):
        return Lrp(1.0, np.nan, np.nan, 1.0, np.nan)
    w_end, distance = w[ends], 1 - ious[ends]
    kept = np.cumsum(w)[ends]
    found = np.cumsum(w_end)
    error = np.cumsum(w_end * distance)
    lrp = (error / (1 - tau) + kept + objects - 2 * found) / (kept + objects - found)
    best = int(np.argmin(lrp))
    return Lrp(
        olrp=float(lrp[best]),
        loc=float(error[best] / found[best]),
        fp=float((kept[best] - found[best]) / kept[best]),
        fn=float((objects - found[best]) / objects),
        threshold=float(scores[ends[best]]),
    )
