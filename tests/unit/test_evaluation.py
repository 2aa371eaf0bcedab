"""Scores against plain loops, the two libraries against each other, and the corners of both."""

import copy
import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from evaluation_scenes import detection, plain_olrp, scene, truth
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from comics.evaluation import (
    METRICS,
    TASKS,
    Scores,
    evaluate,
    inputs,
    lrp_curve,
    match,
    match_tasks,
    optimal_lrp,
    read_detections,
    read_ground_truth,
    write_scores,
)
from comics.evaluation.classification import verdict_scores
from comics.evaluation.judging import judged
from comics.evaluation.lrp import TAU
from comics.evaluation.resampling import class_scores

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
FACE = [20.0, 20.0, 40.0, 40.0]


def same(one: Scores, other: Scores) -> None:
    assert one.values.keys() == other.values.keys()
    for key, value in one.values.items():
        assert value == pytest.approx(other.values[key], abs=1e-12, nan_ok=True), key


@given(st.integers(0, 10**6))
@QUICK
def test_both_libraries_give_the_same_scores(seed: int) -> None:
    ground_truth, found = scene(seed)
    same(evaluate(ground_truth, found), evaluate(ground_truth, found, engine="pycocotools"))


@given(st.integers(0, 10**6), st.integers(1, 12), st.booleans(), st.booleans())
@QUICK
def test_some_images_at_a_time_give_the_scores_of_all_at_once(seed: int, most: int, boxed: bool, few: bool) -> None:
    """Also where an image has more detections than are matched at once, and where there is nothing to find."""
    ground_truth, found = scene(seed)
    if not boxed:
        found = [{key: value for key, value in one.items() if key != "bbox"} for one in found]
    if few:
        ground_truth = {**ground_truth, "annotations": ground_truth["annotations"][:1]}
    with pytest.MonkeyPatch.context() as patch:
        whole = evaluate(ground_truth, found)
        patch.setattr(inputs, "BLOCK", most)
        parts = evaluate(ground_truth, found)
    for key, value in whole.values.items():
        assert parts.values[key] == pytest.approx(value, abs=1e-12, nan_ok=True), key


@given(st.integers(0, 10**6))
@QUICK
def test_olrp_is_that_of_plain_loops(seed: int) -> None:
    ground_truth, found = scene(seed)
    scores = evaluate(ground_truth, found)
    for category, name in ((1, "Real"), (2, "Fake")):
        for metric, value in plain_olrp(ground_truth, found, category).items():
            assert scores["detection", name, metric] == pytest.approx(value, abs=1e-9, nan_ok=True), (name, metric)


@given(st.integers(0, 10**6), st.sampled_from(["hotcoco", "pycocotools"]), st.sampled_from(TASKS))
@QUICK
def test_counting_each_image_once_gives_the_librarys_precision(seed: int, engine: str, task: str) -> None:
    ground_truth, found = scene(seed)
    checked = read_ground_truth(ground_truth)
    detections = read_detections(found, checked)
    matched = judged(checked, detections, {task: match(checked, detections, task, engine, detailed=True)}, engine)[task]
    rows = class_scores(checked, matched, np.ones(len(checked.image_ids)))
    scores = evaluate(ground_truth, found, engine=engine)
    for cls in scores.classes:
        for metric in METRICS:
            if metric in rows[cls]:
                expected = scores[task, cls, metric]
                assert rows[cls][metric] == pytest.approx(expected, abs=1e-12, nan_ok=True), (cls, metric)


@given(st.integers(0, 10**6), st.lists(st.integers(0, 2), min_size=6, max_size=6))
@QUICK
def test_counting_an_image_twice_is_evaluating_it_twice(seed: int, counts: list[int]) -> None:
    """Scores are made distinct: among equal ones, repeating images changes the order that COCO ranks them in."""
    ground_truth, found = scene(seed)
    for place, one in enumerate(found):
        one["score"] = (place + 1) / (len(found) + 1)
    repeated: dict = {"images": [], "annotations": [], "categories": ground_truth["categories"]}
    repeated_found = []
    ids = sorted(one["id"] for one in ground_truth["images"])
    for number, count in zip(ids, counts, strict=True):
        for repeat in range(count):
            new = number + 1000 * repeat
            repeated["images"] += [{**one, "id": new} for one in ground_truth["images"] if one["id"] == number]
            for one in ground_truth["annotations"]:
                if one["image_id"] == number:
                    entry = {**one, "image_id": new, "id": len(repeated["annotations"]) + 1}
                    repeated["annotations"].append(entry)
            repeated_found += [{**one, "image_id": new} for one in found if one["image_id"] == number]
    checked = read_ground_truth(ground_truth)
    detections = read_detections(found, checked)
    of_tasks = judged(checked, detections, match_tasks(checked, detections, TASKS, detailed=True))
    matched = of_tasks["detection"]
    # With an IoU of exactly tau LRP is the same with and without a face: which of its copies are kept is open.
    assume(not any((one.ious == TAU).any() for one in matched.classes.values()))
    rows = class_scores(checked, matched, np.array(counts, float))
    expected = evaluate(repeated, repeated_found)
    for cls in expected.classes:
        for metric in METRICS:
            if metric in rows[cls]:
                value = expected["detection", cls, metric]
                assert rows[cls][metric] == pytest.approx(value, abs=1e-9, nan_ok=True), (cls, metric)
    for metric, value in verdict_scores(of_tasks["segmentation"].verdicts, np.array(counts, float)).items():
        expected_value = expected["segmentation", "all", metric]
        assert value == pytest.approx(expected_value, abs=1e-9, nan_ok=True), metric


def test_lrp_by_hand() -> None:
    """Two of three objects found: IoU 0.9, a false positive between, IoU 0.6."""
    ious, matched = np.array([0.9, 0.0, 0.6]), np.array([True, False, True])
    assert lrp_curve(ious, matched, 3) == pytest.approx([(0.2 + 2) / 3, (0.2 + 1 + 2) / 4, (0.2 + 0.8 + 1 + 1) / 4])
    best = optimal_lrp(np.array([0.8, 0.7, 0.3]), ious, matched, 3)
    assert best.olrp == pytest.approx(2.2 / 3)
    assert (best.loc, best.fp, best.fn, best.threshold) == pytest.approx((0.1, 0.0, 2 / 3, 0.8))


def test_the_whole_curve_has_no_smaller_value() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        matched = rng.random(30) < 0.5
        ious = np.where(matched, rng.uniform(0.5, 1, 30), 0)
        weights = rng.integers(0, 3, 30).astype(float)
        objects = int((weights * matched).sum()) + 4
        best = optimal_lrp(np.linspace(1, 0, 30), ious, matched, objects, weights)
        curve = lrp_curve(ious, matched, objects, weights)
        assert best.olrp == pytest.approx(np.nanmin(curve))


@pytest.mark.parametrize("engine", ["hotcoco", "pycocotools"])
class TestCorners:
    def test_perfect(self, engine: str) -> None:
        scores = evaluate(
            truth([(5, 1, FACE), (5, 2, FACE)], [5]), [detection(5, c, FACE, 0.5) for c in (1, 2)], engine=engine
        )
        for task in TASKS:
            row = [scores[task, "all", metric] for metric in ("AP", "AP_M", "oLRP", "oLRP_Loc", "oLRP_FP", "oLRP_FN")]
            assert row == pytest.approx([1, 1, 0, 0, 0, 0])
            assert math.isnan(scores[task, "all", "AP_S"])
            assert scores[task, "Real", "oLRP_threshold"] == 0.5
            assert math.isnan(scores[task, "all", "oLRP_threshold"])

    def test_no_detection_at_all(self, engine: str) -> None:
        scores = evaluate(truth([(1, 1, FACE)], [1]), [], engine=engine)
        for task in TASKS:
            assert scores[task, "Real", "AP"] == 0
            assert scores[task, "Real", "oLRP"] == scores[task, "Real", "oLRP_FN"] == 1
            assert math.isnan(scores[task, "Real", "oLRP_Loc"])
            assert math.isnan(scores[task, "Real", "oLRP_FP"])
            assert math.isnan(scores[task, "Fake", "oLRP"])
            assert scores[task, "all", "oLRP"] == 1

    def test_a_class_without_ground_truth_leaves_the_average(self, engine: str) -> None:
        found = [detection(1, 1, FACE, 0.9), detection(1, 2, FACE, 0.9)]
        scores = evaluate(truth([(1, 1, FACE)], [1]), found, engine=engine)
        assert math.isnan(scores["detection", "Fake", "AP"])
        assert math.isnan(scores["detection", "Fake", "oLRP"])
        assert scores["detection", "all", "AP"] == pytest.approx(1)
        assert scores["detection", "all", "oLRP"] == 0

    def test_no_face_anywhere(self, engine: str) -> None:
        for found in ([], [detection(1, 1, FACE, 0.9)]):
            scores = evaluate(truth([], [1, 2]), found, engine=engine)
            assert all(math.isnan(value) for key, value in scores.values.items() if key[2] != "image_ACC")
            assert scores["segmentation", "all", "image_ACC"] == 1  # images without a face are real

    def test_crowd_regions_alone(self, engine: str) -> None:
        for found in ([], [detection(1, 1, FACE, 0.9)]):
            scores = evaluate(truth([(1, 1, FACE)], [1], crowd=(0,)), found, engine=engine)
            assert all(math.isnan(value) for key, value in scores.values.items() if key[2] != "image_ACC")

    def test_no_image_at_all(self, engine: str) -> None:
        assert all(math.isnan(value) for value in evaluate(truth([], []), [], engine=engine).values.values())

    def test_false_positives_on_images_without_faces_count(self, engine: str) -> None:
        found = [detection(1, 1, FACE, 0.5), *(detection(2, 1, FACE, score) for score in (0.6, 0.7, 0.8))]
        scores = evaluate(truth([(1, 1, FACE)], [1, 2]), found, engine=engine)
        assert scores["detection", "Real", "AP"] == pytest.approx(0.25)
        assert scores["detection", "Real", "oLRP_FP"] == 0.75

    def test_what_lies_in_a_crowd_region_counts_neither_way(self, engine: str) -> None:
        region = [80.0, 20.0, 60.0, 60.0]
        ground_truth = truth([(1, 1, FACE), (1, 1, region)], [1], crowd=(1,))
        found = [detection(1, 1, FACE, 0.5), *(detection(1, 1, [90.0, y, 20.0, 20.0], 0.9) for y in (25.0, 50.0))]
        scores = evaluate(ground_truth, found, engine=engine)
        for task in TASKS:
            assert scores[task, "Real", "AP"] == pytest.approx(1)
            assert scores[task, "Real", "oLRP"] == 0

    def test_the_hundred_best_of_a_class_in_an_image_count(self, engine: str) -> None:
        wrong = [detection(1, 1, [100.0, 60.0, 8.0, 8.0], 0.9)] * 100
        ground_truth = truth([(1, 1, FACE)], [1])
        assert (
            evaluate(ground_truth, [*wrong, detection(1, 1, FACE, 0.5)], engine=engine)["detection", "Real", "AP"] == 0
        )
        scores = evaluate(ground_truth, [*wrong[1:], detection(1, 1, FACE, 0.5)], engine=engine)
        assert scores["detection", "Real", "AP"] == pytest.approx(0.01)

    def test_categories_from_zero(self, engine: str) -> None:
        ground_truth = truth([(0, 0, FACE), (9, 1, FACE)], [9, 0], categories=(0, 1))
        found = [detection(0, 0, FACE, 0.9), detection(9, 1, FACE, 0.9), detection(9, 0, FACE, 0.1)]
        scores = evaluate(ground_truth, found, engine=engine)
        assert scores["segmentation", "all", "AP"] == pytest.approx(1)
        assert scores["segmentation", "Real", "oLRP"] == 0

    def test_masks_alone_and_boxes_alone(self, engine: str) -> None:
        ground_truth, found = scene(4)
        both = evaluate(ground_truth, found, engine=engine)
        for left_out, empty, kept in (
            ("bbox", "detection", "segmentation"),
            ("segmentation", "segmentation", "detection"),
        ):
            fewer = [{key: value for key, value in one.items() if key != left_out} for one in found]
            scores = evaluate(ground_truth, fewer, engine=engine)
            assert all(math.isnan(scores[empty, cls, metric]) for cls in scores.classes for metric in METRICS)
            for metric in ("AP", "AP50", "oLRP", "oLRP_Loc"):
                assert scores[kept, "all", metric] == pytest.approx(both[kept, "all", metric])

    def test_inputs_are_left_as_they_are(self, engine: str) -> None:
        ground_truth, found = scene(5)
        before = copy.deepcopy((ground_truth, found))
        evaluate(ground_truth, found, engine=engine)
        assert (ground_truth, found) == before


def test_equal_scores_rank_by_image_and_place() -> None:
    """Of equal scores the detection of the lower image id goes first, as in COCO; ids need not be sorted in the file."""
    ground_truth = truth([(3, 1, FACE)], [8, 3])
    tied = [detection(8, 1, FACE, 0.5), detection(3, 1, FACE, 0.5)]
    for engine in ("hotcoco", "pycocotools"):
        scores = evaluate(ground_truth, tied, engine=engine)
        assert scores["detection", "Real", "AP"] == pytest.approx(1)
        assert scores["detection", "Real", "oLRP_FP"] == 0


def test_the_csv_has_full_precision_and_empty_cells(tmp_path: Path) -> None:
    ground_truth, found = scene(6)
    scores = evaluate(ground_truth, [one for one in found if one["category_id"] == 1])
    write_scores(tmp_path / "scores.csv", scores)
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["task"], row["class"]) for row in rows] == [
        (task, cls) for task in TASKS for cls in ("all", "Real", "Fake")
    ]
    assert list(rows[0]) == ["task", "class", *METRICS]
    for row in rows:
        for metric in METRICS:
            value = scores[row["task"], row["class"], metric]
            assert (row[metric] == "") if math.isnan(value) else (float(row[metric]) == value)


def test_no_deep_learning_framework_is_imported() -> None:
    code = "import sys, comics.evaluation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_files_content_is_what_counts(tmp_path: Path) -> None:
    ground_truth, found = scene(7)
    (tmp_path / "gt.json").write_text(json.dumps(ground_truth))
    (tmp_path / "dt.json").write_text(json.dumps(found))
    same(evaluate(tmp_path / "gt.json", tmp_path / "dt.json"), evaluate(ground_truth, found))
