"""COCO's average precision from matches, with multiplicities: what resampling images needs.

The point estimates of `comics.evaluation.scores` come from a library; weights of one give the same numbers here.
"""

from __future__ import annotations

import numpy as np

from comics.evaluation.coco import RECALL_THRESHOLDS, Floats
from comics.evaluation.matching import Matches

AP_METRICS = ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L")

_EPSILON = float(np.spacing(1))
"""What COCO adds to the denominator of precision."""


def interpolated_precision(found: Floats, kept: Floats, objects: float) -> Floats:
    """Precision at COCO's 101 recall thresholds: the best among the ranked prefixes with at least that recall.

    An image drawn n times repeats its detections n times. Of repeated detections only the last prefix matters, so it is
    enough to count each detection n times.

    Args:
        found: (P,) objects found by each prefix that ends with a match, with multiplicity.
        kept: (P,) detections in it, with multiplicity.
        objects: their number, with multiplicity; positive.

    Returns:
        (101,), 0 beyond the highest recall.
    """
    precision = found / (kept + _EPSILON)
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return envelope[np.searchsorted(found / objects, RECALL_THRESHOLDS, side="left")]


def precision_curves(matches: Matches, area: int = 0, counts: Floats | None = None) -> Floats:
    """(T, 101) precision at each IoU threshold and recall threshold; NaN where there is no object.

    Args:
        matches: detailed ones.
        area: index of the area range.
        counts: (I,) how often each image counts; once when None.
    """
    counts = np.ones(matches.objects.shape[1]) if counts is None else counts
    weights = counts[matches.images]
    objects = float(matches.objects[area] @ counts)
    curves = np.full((len(matches.prefixes[area]), len(RECALL_THRESHOLDS)), np.nan)
    if objects > 0:
        sums: dict[int, tuple[Floats, Floats]] = {}
        for curve, prefixes in zip(curves, matches.prefixes[area], strict=True):
            if id(prefixes.counted) not in sums:
                of_counted = weights[prefixes.counted]
                sums[id(prefixes.counted)] = of_counted, np.cumsum(of_counted)
            of_counted, kept = sums[id(prefixes.counted)]
            curve[:] = interpolated_precision(np.cumsum(of_counted[prefixes.ends]), kept[prefixes.ends], objects)
    return curves


def average_precisions(matches: Matches, counts: Floats | None = None) -> dict[str, float]:
    """COCO's six metrics of a class; only AP, AP50 and AP75 where the matches are of all areas alone.

    Args:
        matches: detailed ones.
        counts: (I,) how often each image counts; once when None.

    Returns:
        Metric -> value, NaN where there is no object.
    """
    values: dict[str, float] = {}
    for area, metric in enumerate(("AP", "AP_S", "AP_M", "AP_L")[: matches.matched.shape[1]]):
        by_iou = precision_curves(matches, area, counts).mean(axis=1)
        values[metric] = float(by_iou.mean())
        if area == 0:
            values |= {"AP50": float(by_iou[0]), "AP75": float(by_iou[5])}
    return {metric: values[metric] for metric in AP_METRICS if metric in values}
