"""Real or forged: the metrics of a binary classifier, of anything that has a P(fake), with multiplicities.

Faces, images, pixels, videos and tracks are all judged by these (`comics.evaluation.judging` says what P(fake) is of each).
`Points` holds what is classified, several of a value and of a kind in one row, so that millions of pixels are a few rows an
image; every metric weighs rows by how often their image counts, as a bootstrap asks. Sources: AUC as the area under the ROC
curve with ties halved (Fawcett, "An introduction to ROC analysis", 2006); EER where false positive and false negative rate
cross, on the straight line between thresholds; TPR at a bounded FPR as the best threshold that keeps the bound; ECE over 15
equal bins of P(fake) (Guo et al., "On calibration of modern neural networks", 2017); Brier score (1950).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from comics.evaluation.coco import Bools, Floats, Ints

THRESHOLD = 0.5
"""P(fake) from which on something is called fake."""
BINS = 15
"""Of the expected calibration error."""


@dataclass(frozen=True)
class Points:
    """What is classified, by descending P(fake): make it with `points`.

    Attributes:
        values: (N,) P(fake), descending.
        forged, real: (N,) how many of this value are forged, and how many are real.
        images: (N,) index of the image whose multiplicity counts.
        stated: (N,) False for what was not found: its value is the wrong verdict, and no probability.
    """

    values: Floats
    forged: Floats
    real: Floats
    images: Ints
    stated: Bools

    @cached_property
    def ends(self) -> Ints:
        """The last row of each value: a threshold never parts equals."""
        return np.flatnonzero(np.append(np.diff(self.values) != 0, True)) if len(self.values) else np.zeros(0, np.int64)

    @cached_property
    def called(self) -> int:
        """How many rows reach `THRESHOLD`."""
        return int(np.searchsorted(-self.values, -THRESHOLD, side="right"))

    @cached_property
    def bins(self) -> Ints:
        """(N,) bin of each value."""
        return np.clip((self.values * BINS).astype(np.int64), 0, BINS - 1)


def points(values: Floats, forged: Floats, real: Floats, images: Ints, stated: Bools | None = None) -> Points:
    """`Points` of rows in any order; the arguments are its attributes."""
    stated = np.ones(len(values), bool) if stated is None else stated
    order = np.argsort(-values, kind="stable")
    return Points(values[order], forged[order], real[order], images[order], stated[order])


def joined(parts: Sequence[Points]) -> Points:
    """The rows of all, of the same images."""
    if len(parts) == 1:
        return parts[0]
    columns = ([getattr(part, name) for part in parts] for name in ("values", "forged", "real", "images", "stated"))
    return points(*map(np.concatenate, columns))


def pooled(one: Points, other: Points, images: int) -> Points:
    """The rows of both; the images of `other` are numbered on after the `images` of `one`."""
    pairs = ((getattr(one, name), getattr(other, name)) for name in ("values", "forged", "real", "stated"))
    values, forged, real, stated = (np.concatenate(pair) for pair in pairs)
    return points(values, forged, real, np.concatenate([one.images, other.images + images]), stated)


class Counted:
    """`Points` whose images count `counts` (I,) times, or once when None.

    Attributes:
        forged, real: (N,) with multiplicity, of each row.
        positives, negatives: in all.
    """

    def __init__(self, of: Points, counts: Floats | None = None) -> None:
        self.points = of
        weights = 1.0 if counts is None else counts[of.images]
        self.forged, self.real = of.forged * weights, of.real * weights
        self.positives, self.negatives = float(self.forged.sum()), float(self.real.sum())

    @cached_property
    def found(self) -> Floats:
        """(1 + K,) forged that reach each of K values, from none on."""
        return np.concatenate([[0.0], np.cumsum(self.forged)[self.points.ends]])

    @cached_property
    def alarms(self) -> Floats:
        """(1 + K,) real that reach each of K values, from none on."""
        return np.concatenate([[0.0], np.cumsum(self.real)[self.points.ends]])

    @property
    def both(self) -> bool:
        """Whether there are forged and real."""
        return self.positives > 0 and self.negatives > 0

    @cached_property
    def at_threshold(self) -> tuple[float, float]:
        """Forged and real that are called fake."""
        called = self.points.called
        return float(self.forged[:called].sum()), float(self.real[:called].sum())


def auc(of: Counted) -> float:
    """Area under the ROC curve; NaN unless there are forged and real."""
    if not of.both:
        return np.nan
    return float(np.trapezoid(of.found, of.alarms) / (of.positives * of.negatives))


def eer(of: Counted) -> float:
    """Equal error rate; NaN unless there are forged and real."""
    if not of.both:
        return np.nan
    fpr, fnr = of.alarms / of.negatives, 1 - of.found / of.positives
    above = int(np.argmax(fpr >= fnr))  # at the last value all are called fake
    if above == 0:
        return float(fpr[0])
    gap = fnr - fpr
    share = gap[above - 1] / (gap[above - 1] - gap[above])
    return float(fpr[above - 1] + share * (fpr[above] - fpr[above - 1]))


def accuracy(of: Counted) -> float:
    """Share of right verdicts at `THRESHOLD`."""
    total = of.positives + of.negatives
    hits, alarms = of.at_threshold
    return (hits + of.negatives - alarms) / total if total > 0 else np.nan


def balanced_accuracy(of: Counted) -> float:
    """Mean of the shares of forged and of real that are judged rightly; NaN unless there are both."""
    if not of.both:
        return np.nan
    hits, alarms = of.at_threshold
    return (hits / of.positives + 1 - alarms / of.negatives) / 2


def tpr_at(bound: float) -> Callable[[Counted], float]:
    """The share of forged that is found by the best threshold with a false positive rate of at most `bound`."""

    def rate(of: Counted) -> float:
        if not of.both:
            return np.nan
        kept = int(np.searchsorted(of.alarms, bound * of.negatives * (1 + 1e-12), side="right")) - 1
        return float(of.found[kept] / of.positives)

    return rate


def ece(of: Counted) -> float:
    """Expected calibration error of what was found: mean over bins of |mean P(fake) - share of forged|."""
    stated = of.points.stated
    forged, real = of.forged * stated, of.real * stated
    total = float(forged.sum() + real.sum())
    if not total > 0:
        return np.nan
    sums = (np.bincount(of.points.bins, weights, BINS) for weights in ((forged + real) * of.points.values, forged))
    told, true = sums
    return float(np.abs(told - true).sum() / total)


def brier(of: Counted) -> float:
    """Mean square of P(fake) minus the truth, of what was found."""
    stated = of.points.stated
    forged, real = of.forged * stated, of.real * stated
    total = float(forged.sum() + real.sum())
    errors = forged * (1 - of.points.values) ** 2 + real * of.points.values**2
    return float(errors.sum() / total) if total > 0 else np.nan


def found(of: Counted) -> float:
    """Share that was found at all, whatever the verdict."""
    total = of.positives + of.negatives
    return float(((of.forged + of.real) * of.points.stated).sum() / total) if total > 0 else np.nan


def f1(of: Counted) -> float:
    """F1 of the forged at `THRESHOLD`; NaN where nothing is forged."""
    hits, alarms = of.at_threshold
    return 2 * hits / (hits + alarms + of.positives) if of.positives > 0 else np.nan


def iou(of: Counted) -> float:
    """Intersection over union of the forged and of what is called fake at `THRESHOLD`; NaN where nothing is forged."""
    hits, alarms = of.at_threshold
    return hits / (alarms + of.positives) if of.positives > 0 else np.nan


def best_f1(of: Counted) -> float:
    """F1 at the threshold that is best for all images together, chosen with the truth in hand."""
    if not of.positives > 0:
        return np.nan
    return float((2 * of.found / (of.found + of.alarms + of.positives)).max())


def best_iou(of: Counted) -> float:
    """IoU at the threshold that is best for all images together, chosen with the truth in hand."""
    return float((of.found / (of.alarms + of.positives)).max()) if of.positives > 0 else np.nan


Metric = Callable[[Counted], float]

_RATES: dict[str, Metric] = {"AUC": auc, "EER": eer, "ACC": accuracy}
_AREAS: dict[str, Metric] = {"AUC": auc, "F1": f1, "IoU": iou, "F1_best": best_f1, "IoU_best": best_iou}
METRICS: dict[str, tuple[str, Metric]] = {
    f"{kind}_{name}": (kind, metric)
    for kind, metrics in {
        "face": {
            **_RATES,
            "BACC": balanced_accuracy,
            "TPR1": tpr_at(0.01),
            "TPR5": tpr_at(0.05),
            "ECE": ece,
            "Brier": brier,
            "found": found,
        },
        "image": {**_RATES, "F1": f1},
        "pixel": _AREAS,
        "pixel_core": _AREAS,
        "video": {**_RATES, "F1": f1},
        "track": {**_RATES, "BACC": balanced_accuracy},
    }.items()
    for name, metric in metrics.items()
}
"""Name, as columns have it -> the kind of `Points` that it is of, and the function."""
VERDICT_METRICS: tuple[str, ...] = tuple(METRICS)


def verdict_scores(
    verdicts: Mapping[str, Points], counts: Floats | None = None, metrics: Iterable[str] = VERDICT_METRICS
) -> dict[str, float]:
    """Metric -> value, as a fraction; NaN where it is undefined or there is nothing of its kind.

    Args:
        verdicts: kind -> what is classified.
        counts: (I,) how often each image counts; once when None.
        metrics: those to compute, of `VERDICT_METRICS`.
    """
    counted: dict[str, Counted] = {}
    values = {}
    for name in metrics:
        kind, metric = METRICS[name]
        if kind in verdicts and kind not in counted:
            counted[kind] = Counted(verdicts[kind], counts)
        values[name] = metric(counted[kind]) if kind in counted else np.nan
    return values
