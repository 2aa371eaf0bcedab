"""Confidence intervals from resamples, and how many seeds a difference needs.

Where resamples are skewed or off centre, percentile intervals miss the truth more often than they say: BCa intervals (Efron,
"Better bootstrap confidence intervals", JASA 1987) correct both. A handful of seeds cannot be resampled to any purpose: three
values, drawn again, show two thirds of their variance and never more than themselves. There the interval is studentised:
variances of images and of seeds add up, and Student's t has as many degrees of freedom as they allow (Satterthwaite, 1946).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from comics.evaluation.coco import Floats

CONFIDENCE = 0.95
BLOCKS = 100
"""Images are left out in at most this many blocks, for the acceleration of BCa."""
MOST_SEEDS = 10_000


def percentile(values: Floats) -> tuple[float, float]:
    """The central `CONFIDENCE` of resampled values (S,); resamples that leave the metric undefined are left out."""
    return _quantiles(values, (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)


def _quantiles(values: Floats, low: float, high: float) -> tuple[float, float]:
    defined = values[~np.isnan(values)]
    if not len(defined):
        return np.nan, np.nan
    ends = np.quantile(defined, [low, high])
    return float(ends[0]), float(ends[1])


def bca(observed: float, values: Floats, left_out: Floats) -> tuple[float, float]:
    """The bias-corrected and accelerated interval.

    Args:
        observed: the metric.
        values: (S,) of the resamples; undefined ones are left out.
        left_out: (B,) the metric without each of B equal blocks of the images; undefined ones are left out.
    """
    from scipy.special import ndtr, ndtri

    defined, left_out = values[~np.isnan(values)], left_out[~np.isnan(left_out)]
    if not len(defined) or np.isnan(observed) or defined.min() == defined.max():
        return percentile(values)
    below = ((defined < observed).sum() + (defined == observed).sum() / 2) / len(defined)
    edge = 0.5 / len(defined)
    bias = ndtri(min(max(below, edge), 1 - edge))
    spread = left_out.mean() - left_out if len(left_out) else np.zeros(1)
    squares = float((spread**2).sum())
    acceleration = float((spread**3).sum()) / (6 * squares**1.5) if squares > 0 else 0.0
    ends = []
    for share in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2):
        z = bias + ndtri(share)
        ends.append(float(ndtr(bias + z / max(1 - acceleration * z, 1e-9))))
    return _quantiles(defined, ends[0], ends[1])


def blocks(images: int, clusters: NDArray[np.int64] | None = None) -> list[Floats]:
    """How often each image counts (I,), without each of at most `BLOCKS` blocks of images, or of clusters of images."""
    of_image = np.arange(images) if clusters is None else clusters
    number = int(of_image.max(initial=-1)) + 1
    parts = min(number, BLOCKS)
    # Neighbours are alike (frames of a film, say): every block takes from all places.
    return [(of_image % parts != part).astype(np.float64) for part in range(parts)] if parts > 1 else []


def studentised(first: Floats, second: Floats, images: int) -> tuple[float, float]:
    """The interval of the difference of two means over seeds, both judged on the same resampled images.

    The variance of the difference is that over images, seeds as they are, plus that over the seeds of each run, images as
    they are; with one seed of a run nothing is known of the latter, and the interval is of images alone.

    Args:
        first, second: (K, 1 + S) and (L, 1 + S) scores of K and L seeds: as observed, then on S resamples of the images.
        images: how many are resampled.
    """
    from scipy.special import stdtrit

    difference = first.mean(axis=0) - second.mean(axis=0)
    observed, resampled = difference[0], difference[1:]
    resampled = resampled[~np.isnan(resampled)]
    if np.isnan(observed) or not len(resampled):
        return np.nan, np.nan
    parts = [(float(resampled.var(ddof=1)) if len(resampled) > 1 else 0.0, max(images - 1, 1))]
    parts += [(float(one[:, 0].var(ddof=1)) / len(one), len(one) - 1) for one in (first, second) if len(one) > 1]
    total = sum(variance for variance, _ in parts)
    if total <= 0:
        return float(observed), float(observed)
    freedom = total**2 / sum(variance**2 / degrees for variance, degrees in parts)
    reach = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * total**0.5
    return float(observed) - reach, float(observed) + reach


@dataclass(frozen=True)
class SeedNoise:
    """How much scores vary from seed to seed.

    Attributes:
        deviation: pooled over runs, as the scores are.
        freedom: degrees of freedom: seeds beyond the first, of all runs.
    """

    deviation: float
    freedom: int

    def range(self) -> tuple[float, float]:
        """The 95 % interval of the deviation."""
        from scipy.special import chdtri

        ends = (chdtri(self.freedom, (1 - CONFIDENCE) / 2), chdtri(self.freedom, (1 + CONFIDENCE) / 2))
        return tuple(self.deviation * (self.freedom / end) ** 0.5 for end in ends)  # type: ignore[return-value]


def seed_noise(runs: Sequence[Sequence[float]]) -> SeedNoise | None:
    """The noise of runs with several seeds each (scores of one run a row); None where no run has two."""
    several = [np.array(values, np.float64) for values in runs if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    if not freedom:
        return None
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in several)
    return SeedNoise((squares / freedom) ** 0.5, freedom)


def power(difference: float, deviation: float, seeds: int) -> float:
    """The chance that a two-sided t-test of two runs of `seeds` seeds each finds their true `difference` at 5 %."""
    from scipy.stats import nct, t

    if seeds < 2:
        return 0.0
    if deviation <= 0:
        return 1.0
    freedom = 2 * seeds - 2
    shift = abs(difference) / (deviation * (2 / seeds) ** 0.5)
    critical = t.ppf((1 + CONFIDENCE) / 2, freedom)
    return float(nct.sf(critical, freedom, shift) + nct.cdf(-critical, freedom, shift))


def seeds_needed(difference: float, deviation: float, wanted: float = 0.8) -> int | None:
    """The fewest seeds a run with which `power` is at least `wanted`; None beyond `MOST_SEEDS`."""
    low, high = 1, 2
    while power(difference, deviation, high) < wanted:
        low, high = high, 2 * high
        if low >= MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(difference, deviation, middle) >= wanted else (middle, high)
    return high


def detectable(deviation: float, seeds: int, wanted: float = 0.8) -> float:
    """The smallest true difference that two runs of `seeds` seeds each show with a chance of `wanted`."""
    low, high = 0.0, max(deviation, 1e-12)
    while power(high, deviation, seeds) < wanted:
        high *= 2
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, deviation, seeds) >= wanted else (middle, high)
    return high
