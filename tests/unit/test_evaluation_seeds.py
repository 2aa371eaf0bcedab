"""Means over seeds compared with a baseline, over images and seeds."""

import numpy as np
import pytest
from evaluation_scenes import detection, truth

from comics.errors import UserError
from comics.evaluation import evaluate
from comics.evaluation.seeds import compare_runs


def scene(images=12):
    faces = [(image, 1 + image % 2, [10.0 + image, 10.0, 40.0, 50.0]) for image in range(1, images + 1)]
    return truth(faces, list(range(1, images + 1))), faces


def found(faces, missed):
    """All faces but those of images in `missed`, a little off."""
    return [
        detection(image, cls, [x + 1, y, w, h], 0.5 + 0.01 * image)
        for image, cls, (x, y, w, h) in faces
        if image not in missed
    ]


def test_values_are_those_of_the_evaluation_and_the_difference_is_of_their_means():
    ground_truth, faces = scene()
    base = [found(faces, {1, 2}), found(faces, {3, 4, 5})]
    arm = [found(faces, {1}), found(faces, set()), found(faces, {7, 8})]
    gains = {(gain.task, gain.metric): gain for gain in compare_runs(ground_truth, base, {"arm": arm}, samples=20)}
    assert set(gains) == {(t, m) for t in ("detection", "segmentation") for m in ("AP", "oLRP")}
    for (task, metric), gain in gains.items():
        scores = [[evaluate(ground_truth, one)[task, "all", metric] for one in seeds] for seeds in (arm, base)]
        assert gain.run == "arm"
        assert gain.values == pytest.approx(scores[0], abs=1e-12)
        assert gain.baseline == pytest.approx(scores[1], abs=1e-12)
        assert gain.difference == pytest.approx(np.mean(scores[0]) - np.mean(scores[1]), abs=1e-12)
        assert gain.low < gain.difference < gain.high


def test_alike_runs_differ_by_nothing_because_images_are_paired():
    ground_truth, faces = scene()
    seeds = [found(faces, {1, 5, 6})]
    for gain in compare_runs(ground_truth, seeds, {"same": seeds}, samples=30):
        assert (gain.difference, gain.low, gain.high) == (0, 0, 0)


def test_a_run_that_finds_more_in_every_seed_is_above_the_baseline():
    ground_truth, faces = scene(24)
    base = [found(faces, set(range(1, 13)) | {seed}) for seed in (20, 21, 22)]
    arm = [found(faces, {seed}) for seed in (20, 21, 22)]
    gains = compare_runs(ground_truth, base, {"arm": arm}, samples=200)
    for gain in gains:
        assert gain.low > 0 if gain.metric == "AP" else gain.high < 0


def test_a_task_that_one_lacks_is_left_out():
    ground_truth, faces = scene()
    boxes = [{key: value for key, value in one.items() if key != "segmentation"} for one in found(faces, {1})]
    gains = compare_runs(ground_truth, [found(faces, {2})], {"boxes": [boxes]}, samples=5)
    assert {gain.task for gain in gains} == {"detection"}


def test_nothing_to_compare_is_said():
    ground_truth, faces = scene()
    with pytest.raises(UserError, match="no detections to compare"):
        compare_runs(ground_truth, [found(faces, set())], {"arm": []}, samples=5)
    with pytest.raises(UserError, match="at least one"):
        compare_runs(ground_truth, [found(faces, set())], {}, samples=0)
    with pytest.raises(UserError, match="no images"):
        compare_runs(truth([], []), [[]], {}, samples=5)
