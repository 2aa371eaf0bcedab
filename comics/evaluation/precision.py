"""COCO's average precision from matches, with multiplicities: what resampling images needs.

The point estimates of `comics.evaluation.scores` come from a library; weights of one give the same numbers here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from comics.evaluation.matching import IOU_THRESHOLDS, RECALL_THRESHOLDS, Bools, Floats, Matches

AP_METRICS = ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L")

_EPSILON = float(np.spacing(1))
"""What COCO adds to the denominator of precision."""


def interpolated_precision(matched: Bools, weights: Floats, objects: float) -> Floats:
    """Precision at COCO's 101 recall thresholds: the best among the ranked prefixes with at least that recall.

    An image drawn n times repeats its detections n times. Of repeated detections only the last prefix matters, so it is
    enough to count each detection n times.

    Args:
        matched: (N,) by descending score.
        weights: (N,) multiplicity of each detection, 0 for the ignored.
        objects: their number, with multiplicity; positive.

    Returns:
        (101,), 0 beyond the highest recall.
    """
    # Precision falls with every false positive: only prefixes that end with a match can be the best.
    ends = np.flatnonzero(matched & (weights > 0))
    found = np.cumsum(weights[ends])
    precision = found / (np.cumsum(weights)[ends] + _EPSILON)
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return envelope[np.searchsorted(found / objects, RECALL_THRESHOLDS, side="left")]


def average_precisions(matches: Matches, counts: NDArray[np.float64] | None = None) -> dict[str, float]:
    """COCO's six metrics of a class; only AP, AP50 and AP75 where the matches are of all areas alone.

    Args:
        matches: detailed ones.
        counts: (I,) how often each image counts; once when None.

    Returns:
        Metric -> value, NaN where there is no object.
    """
    areas = matches.matched.shape[1]
    counts = np.ones(matches.objects.shape[1]) if counts is None else counts
    weights = counts[matches.images]
    values: dict[str, float] = {}
    for area, metric in enumerate(("AP", "AP_S", "AP_M", "AP_L")[:areas]):
        objects = float(matches.objects[area] @ counts)
        by_iou = np.full(len(IOU_THRESHOLDS), np.nan)
        if objects > 0:
            for index in range(len(IOU_THRESHOLDS)):
                matched, ignored = matches.matched[index, area], matches.ignored[index, area]
                by_iou[index] = interpolated_precision(matched & ~ignored, weights * ~ignored, objects).mean()
        values[metric] = float(by_iou.mean())
        if area == 0:
            values |= {"AP50": float(by_iou[0]), "AP75": float(by_iou[5])}
    return {metric: values[metric] for metric in AP_METRICS if metric in values}
