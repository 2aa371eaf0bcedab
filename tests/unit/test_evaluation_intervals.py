"""Intervals cover as often as they say, in simulations with a known truth; and the power of a number of seeds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from comics.evaluation.intervals import (
    bca,
    blocks,
    detectable,
    percentile,
    power,
    seed_noise,
    seeds_needed,
    studentised,
)


def test_bca_intervals_of_a_skewed_score_cover_more_often_than_percentile_ones() -> None:
    """Brier-like scores: the mean over 20 images of squared exponential errors, whose mean is 2."""
    rng = np.random.default_rng(0)
    covered = np.zeros((400, 2), bool)
    for trial in range(len(covered)):
        errors = rng.exponential(size=20) ** 2
        values = errors[rng.integers(20, size=(500, 20))].mean(axis=1)
        left_out = np.array([errors @ counts / counts.sum() for counts in blocks(20)])
        for index, (low, high) in enumerate((percentile(values), bca(errors.mean(), values, left_out))):
            covered[trial, index] = low <= 2 <= high
    of_percentile, of_bca = covered.mean(axis=0)
    assert of_percentile < 0.83  # where it says 0.95
    assert of_bca > of_percentile + 0.03


def test_bca_is_that_of_scipy() -> None:
    rng = np.random.default_rng(1)
    data = rng.gamma(0.7, size=60)
    theirs = stats.bootstrap((data,), np.var, method="BCa", n_resamples=4000, rng=np.random.default_rng(3))
    left_out = np.array([np.var(data[counts > 0]) for counts in blocks(60)])
    ours = bca(float(np.var(data)), theirs.bootstrap_distribution, left_out)
    assert ours == pytest.approx(tuple(theirs.confidence_interval), rel=0.02)


def test_intervals_of_nothing_and_of_one_value() -> None:
    assert np.isnan(bca(np.nan, np.full(5, np.nan), np.zeros(0))).all()
    assert bca(0.5, np.full(5, 0.5), np.full(3, 0.5)) == (0.5, 0.5)
    assert blocks(1) == []


def test_blocks_leave_out_every_image_once_and_clusters_whole() -> None:
    left = blocks(250)
    assert len(left) == 100
    assert (np.sum([1 - counts for counts in left], axis=0) == 1).all()
    clusters = np.array([0, 0, 1, 2, 2])
    assert [counts.tolist() for counts in blocks(5, clusters)] == [[0, 0, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 1, 0, 0]]


@pytest.mark.parametrize(("seed_deviation", "least"), [(0.5, 0.92), (2.0, 0.92), (0.02, 0.92)])
def test_intervals_over_three_seeds_and_images_cover_as_they_say(seed_deviation: float, least: float) -> None:
    """Means over 80 images of difficulty (shared) + effect of the seed + noise; the runs are alike, so the truth is 0.
    A bootstrap of both levels, as it was before, covers far less when seeds matter."""
    rng = np.random.default_rng(5)
    images, samples, trials = 80, 200, 300
    covered = np.zeros((trials, 2), bool)
    for trial in range(trials):
        difficulty = rng.normal(size=images)
        counts = np.vstack([np.ones(images), rng.multinomial(images, np.full(images, 1 / images), samples)])
        runs = []
        for _ in range(2):
            noise = rng.normal(size=(3, images))
            scores = difficulty + seed_deviation * rng.normal(size=(3, 1)) + noise
            runs.append(scores @ counts.T / images)
        low, high = studentised(*runs, images)
        covered[trial, 0] = low <= 0 <= high
        drawn = [
            np.take_along_axis(one[:, 1:], rng.integers(3, size=(3, samples)), axis=0).mean(axis=0) for one in runs
        ]
        low, high = percentile(drawn[0] - drawn[1])
        covered[trial, 1] = low <= 0 <= high
    assert least <= covered[:, 0].mean()
    if seed_deviation >= 0.5:
        assert covered[:, 1].mean() < 0.85


def test_without_a_second_seed_the_interval_is_of_images_alone() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.normal(1, 0.1, (1, 400)), rng.normal(0, 0.1, (1, 400))
    low, high = studentised(first, second, 100)
    assert (high - low) / 2 == pytest.approx(1.984 * (first - second)[0, 1:].std(ddof=1), rel=1e-3)
    assert studentised(np.ones((2, 5)), np.ones((3, 5)), 10) == (0, 0)


def test_noise_of_seeds_is_pooled_over_runs() -> None:
    noise = seed_noise([[1.0, 3.0], [10.0, 10.0, 13.0], [7.0]])
    assert noise is not None
    assert (noise.deviation, noise.freedom) == (pytest.approx(((2 + 6) / 3) ** 0.5), 3)
    low, high = noise.range()
    assert low == pytest.approx(noise.deviation * (3 / stats.chi2.ppf(0.975, 3)) ** 0.5)
    assert high == pytest.approx(noise.deviation * (3 / stats.chi2.ppf(0.025, 3)) ** 0.5)
    assert seed_noise([[1.0], []]) is None


def test_power_is_that_of_simulated_tests() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(1, 1, (4000, 8)), rng.normal(0, 1, (4000, 8))
    found = stats.ttest_ind(first, second, axis=1).pvalue < 0.05
    assert power(1.0, 1.0, 8) == pytest.approx(found.mean(), abs=0.03)


def test_seeds_needed_are_the_fewest() -> None:
    """17 a group is the textbook's number for one standard deviation at 80 %."""
    assert seeds_needed(1.0, 1.0) == 17
    assert power(1.0, 1.0, 17) >= 0.8 > power(1.0, 1.0, 16)
    assert detectable(1.0, 17) == pytest.approx(1.0, abs=0.03)
    assert seeds_needed(1e-6, 1.0) is None
    assert seeds_needed(1.0, 0.0) == 2
