"""One verdict a face, and the metrics of verdicts: against plain loops, scikit-learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_scenes import HEIGHT, WIDTH, box_iou, detection, rectangle_mask, scene
from evaluation_scenes import truth as truth_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle
from scipy import ndimage
from sklearn import metrics
from sklearn.calibration import calibration_curve
from typer.testing import CliRunner

from comics.cli import app
from comics.evaluation import compare, evaluate, match_tasks, read_detections, read_ground_truth
from comics.evaluation.classification import VERDICT_METRICS, points, verdict_scores
from comics.evaluation.judging import judged, near_outline
from comics.evaluation.resampling import draws
from comics.report.style import higher_is_better, tex
from comics.verdicts import coco_masks, faces, grouped

QUICK = settings(max_examples=40, deadline=None)
FACE = [20.0, 20.0, 40.0, 40.0]
ASIDE = [22.0, 20.0, 40.0, 40.0]
ELSEWHERE = [100.0, 20.0, 40.0, 40.0]


def plain_faces(boxes: list[list[float]], scores: list[float], fake: list[bool]) -> list[tuple[int, float, set[int]]]:
    """Leader, P(fake) and members of every face, in loops."""
    left = sorted(range(len(boxes)), key=lambda one: -scores[one])
    found = []
    while left:
        leader = left[0]
        members = {one for one in left if one == leader or box_iou(boxes[leader], boxes[one]) >= 0.5}
        left = [one for one in left if one not in members]
        forged = max([scores[one] for one in members if fake[one]], default=0.0) + 0.05
        real = max([scores[one] for one in members if not fake[one]], default=0.0) + 0.05
        found.append((leader, forged / (forged + real), members))
    return found


@given(st.integers(0, 10**6))
@QUICK
def test_masks_without_boxes_are_grouped_as_by_plain_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 9))
    masks = np.zeros((count, 24, 30), np.uint8)
    for mask in masks:
        x, y, w, h = rng.integers(0, 12, 2).tolist() + rng.integers(0, 14, 2).tolist()
        mask[y : y + h, x : x + w] = rng.random((h, w)) < 0.9
    scores, images = rng.random(count).round(1), rng.integers(0, 2, count)
    entries = [rle.encode(np.asfortranarray(mask)) for mask in masks]
    boxes, overlaps = coco_masks(entries)
    leaders, groups = grouped(boxes, scores, images, overlaps=overlaps)
    left = sorted(range(count), key=lambda one: (images[one], -scores[one]))
    expected: list[set[int]] = []
    while left:
        leader, members = left[0], {left[0]}
        for one in left[1:]:
            both, either = (masks[one] & masks[leader]).sum(), (masks[one] | masks[leader]).sum()
            if images[one] == images[leader] and either and both / either >= 0.5:
                members.add(one)
        left = [one for one in left if one not in members]
        expected.append(members)
    assert [set(np.flatnonzero(groups == group)) for group in range(len(leaders))] == expected
    np.testing.assert_array_equal(boxes, np.asarray(rle.toBbox(entries)).reshape(-1, 4))


@given(st.integers(0, 10**6))
@QUICK
def test_faces_are_those_of_plain_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 12))
    boxes = np.concatenate([rng.integers(0, 30, (count, 2)), rng.integers(10, 30, (count, 2))], axis=1).astype(float)
    scores, fake = rng.random(count).round(1), rng.random(count) < 0.5
    found = faces(boxes, scores, fake)
    plain = plain_faces(boxes.tolist(), scores.tolist(), fake.tolist())
    assert found.leaders.tolist() == [leader for leader, *_ in plain]
    np.testing.assert_allclose(found.p_fake, [p for _, p, _ in plain])
    assert [set(np.flatnonzero(found.groups == group)) for group in range(len(plain))] == [m for *_, m in plain]


def test_a_face_found_as_both_is_one_and_undecided() -> None:
    found = faces(np.array([FACE, ASIDE, ELSEWHERE]), np.array([0.8, 0.8, 0.9]), np.array([True, False, True]))
    assert found.leaders.tolist() == [2, 0]
    assert found.groups.tolist() == [1, 1, 0]
    assert found.p_fake == pytest.approx([0.95, 0.5])


@pytest.mark.parametrize(("fake", "expected"), [(True, 0.95), (False, 0.05)])
def test_a_face_reported_once(fake: bool, expected: float) -> None:
    assert faces(np.array([FACE]), np.array([0.9]), np.array([fake])).p_fake == pytest.approx([expected])


def test_no_detection_is_no_face() -> None:
    found = faces(np.zeros((0, 4)), np.zeros(0), np.zeros(0, bool))
    assert len(found.leaders) == len(found.p_fake) == len(found.groups) == 0


def test_empty_boxes_overlap_with_nothing() -> None:
    assert faces(np.array([[5.0, 5.0, 0.0, 0.0]] * 2), np.array([0.5, 0.6]), np.ones(2, bool)).leaders.tolist() == [
        1,
        0,
    ]


def test_faces_of_two_images_never_meet() -> None:
    leaders, groups = grouped(np.array([FACE, FACE, ASIDE]), np.array([0.5, 0.6, 0.7]), np.array([3, 1, 3]))
    assert leaders.tolist() == [1, 2]
    assert groups.tolist() == [1, 0, 1]


def dense(mask: dict[str, Any]) -> np.ndarray:
    return rle.decode(mask).astype(bool)


def mask_iou(one: dict[str, Any], other: dict[str, Any]) -> float:
    a, b = dense(one["segmentation"]), dense(other["segmentation"])
    return (a & b).sum() / max((a | b).sum(), 1)


def plain_verdicts(ground_truth: dict[str, Any], found: list[dict[str, Any]], task: str) -> dict[str, Any]:
    """What is judged, in loops over images: rows of (truth, P(fake), whether it was stated), pixels as arrays."""
    face, image, pixel = [], [], ([], [])
    for entry in ground_truth["images"]:
        there = [one for one in ground_truth["annotations"] if one["image_id"] == entry["id"] and not one["iscrowd"]]
        own = [one for one in found if one["image_id"] == entry["id"]]
        fake = [one["category_id"] == 2 for one in own]
        groups = plain_faces([one["bbox"] for one in own], [one["score"] for one in own], fake)
        verdict: dict[int, float] = {}
        canvas = np.zeros((HEIGHT, WIDTH))
        value = 0.0
        for leader, p, members in groups:
            overlap = {
                one["id"]: mask_iou(own[leader], one)
                if task == "segmentation"
                else box_iou(own[leader]["bbox"], one["bbox"])
                for one in there
                if one["id"] not in verdict
            }
            if overlap and max(overlap.values()) >= 0.5:
                verdict[max(overlap, key=lambda one: overlap[one])] = p
            value = max(value, own[leader]["score"] * p)
            forged = [one for one in sorted(members) if fake[one]]
            if forged:
                area = dense(own[max(forged, key=lambda one: own[one]["score"])]["segmentation"])
                canvas[area] = np.maximum(canvas[area], own[leader]["score"] * p)
        for one in there:
            forged = one["category_id"] == 2
            face.append((forged, verdict.get(one["id"], 0.0 if forged else 1.0), one["id"] in verdict))
        truth_map = np.zeros((HEIGHT, WIDTH), bool)
        for one in there:
            if one["category_id"] == 2:
                truth_map |= dense(one["segmentation"])
        image.append((any(one["category_id"] == 2 for one in there), value, True))
        pixel[0].append(truth_map.ravel())
        pixel[1].append(canvas.ravel())
    return {"face": face, "image": image, "pixel": tuple(np.concatenate(part) for part in pixel)}


def spread_scores(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """No two scores alike: which of equals goes first is a matter of convention."""
    return [{**one, "score": (place + 0.5) / len(found)} for place, one in enumerate(found)]


def is_close(value: float, expected: float) -> bool:
    return bool(np.isclose(value, expected, atol=1e-9))


@given(st.integers(0, 10**6), st.sampled_from(["detection", "segmentation"]))
@settings(QUICK, max_examples=20)
def test_verdict_metrics_are_scikit_learns(seed: int, task: str) -> None:
    ground_truth, found = scene(seed, images=8)
    found = spread_scores(found)
    scores = evaluate(ground_truth, found)
    plain = plain_verdicts(ground_truth, found, task)
    for kind in ("face", "image"):
        truth, p, stated = (np.array(column) for column in zip(*plain[kind], strict=True)) if plain[kind] else [[]] * 3

        def of(metric: str, kind: str = kind) -> float:
            return scores[task, "all", f"{kind}_{metric}"]

        if not len(truth):
            assert np.isnan(of("ACC"))
            continue
        assert is_close(of("ACC"), np.mean((p >= 0.5) == truth))
        if kind == "image" and truth.any():
            assert is_close(of("F1"), metrics.f1_score(truth, p >= 0.5))
        if kind == "face":
            assert is_close(of("found"), stated.mean())
            if stated.any():
                assert is_close(of("Brier"), metrics.brier_score_loss(truth[stated], p[stated], pos_label=True))
        if len(set(truth.tolist())) < 2:
            assert np.isnan(of("AUC"))
            assert np.isnan(of("EER"))
            continue
        assert is_close(of("AUC"), metrics.roc_auc_score(truth, p))
        fpr, tpr, _ = metrics.roc_curve(truth, p, drop_intermediate=False)
        crossing = np.interp(0, fpr + tpr - 1, fpr)
        assert is_close(of("EER"), crossing)
        if kind == "face":
            assert is_close(of("BACC"), metrics.balanced_accuracy_score(truth, p >= 0.5))
            assert is_close(of("TPR5"), tpr[fpr <= 0.05].max())
    truth, p = plain["pixel"]
    if task == "segmentation" and truth.any():
        assert is_close(scores[task, "all", "pixel_AUC"], metrics.roc_auc_score(truth, p))
        assert is_close(scores[task, "all", "pixel_F1"], metrics.f1_score(truth, p >= 0.5))
        assert is_close(scores[task, "all", "pixel_IoU"], metrics.jaccard_score(truth, p >= 0.5))
        precision, recall, _ = metrics.precision_recall_curve(truth, p)
        best = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
        assert is_close(scores[task, "all", "pixel_F1_best"], best)
        assert is_close(scores[task, "all", "pixel_IoU_best"], best / (2 - best))
    elif task == "detection":
        assert np.isnan(scores[task, "all", "pixel_AUC"])


def test_calibration_error_is_scikit_learns_reliability_curve() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(500)
    truth = rng.random(500) < p**2
    of = points(p, truth.astype(float), (~truth).astype(float), np.arange(500))
    share, told = calibration_curve(truth, p, n_bins=15)
    sizes = np.histogram(p, bins=15, range=(0, 1))[0]
    expected = np.average(np.abs(share - told), weights=sizes)
    assert verdict_scores({"face": of})["face_ECE"] == pytest.approx(expected)


def painted(runs: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    flat = np.zeros(HEIGHT * WIDTH, bool)
    for start, stop in zip(*runs[1:], strict=True):
        flat[start:stop] = True
    return flat.reshape(WIDTH, HEIGHT).T


@given(st.integers(0, 10**6), st.integers(1, 3))
@settings(QUICK, max_examples=20)
def test_the_band_is_that_of_plain_dilation_and_erosion(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(count):
        area = ndimage.gaussian_filter(rng.random((HEIGHT, WIDTH)), 6) > 0.5
        area[:, : rng.integers(WIDTH)] = False
        masks.append(area)
    together = np.any(masks, axis=0)
    window = np.ones((3, 3))
    expected = ndimage.binary_dilation(together, window) & ~ndimage.binary_erosion(together, window, border_value=1)
    texts = [rle.encode(np.asfortranarray(area.astype(np.uint8)))["counts"].decode() for area in masks]
    assert (painted(near_outline(texts, HEIGHT, WIDTH)) == expected).all()


def test_pixels_near_the_outline_are_left_out_of_the_core() -> None:
    """The band of an image of 120 x 160 px is one pixel on each side of the outline."""
    ground_truth = truth_of([(1, 2, FACE)], [1])
    bigger = [19.0, 19.0, 42.0, 42.0]
    scores = evaluate(ground_truth, [detection(1, 2, bigger, 0.9)])
    assert scores["segmentation", "all", "pixel_IoU"] == pytest.approx(40**2 / 42**2)
    assert scores["segmentation", "all", "pixel_core_IoU"] == 1
    band = painted(near_outline([rectangle_mask(FACE)["counts"]], HEIGHT, WIDTH))
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[19:61, 19:61] = True
    expected[21:59, 21:59] = False
    assert (band == expected).all()


def test_the_images_edge_is_no_outline() -> None:
    left = rectangle_mask([0.0, 0.0, 40.0, float(HEIGHT)])["counts"]
    band = painted(near_outline([left], HEIGHT, WIDTH))
    assert np.flatnonzero(band.any(axis=0)).tolist() == [39, 40]
    assert band[:, 39:41].all()


def test_a_missed_face_counts_as_judged_wrongly_and_not_for_calibration() -> None:
    faces_there = [(1, 1, FACE), (1, 2, ELSEWHERE), (2, 1, FACE), (2, 2, ELSEWHERE)]
    found = [detection(1, 1, FACE, 0.95), detection(1, 2, ELSEWHERE, 0.95)]
    scores = evaluate(truth_of(faces_there, [1, 2]), found)
    row = {metric: scores["detection", "all", f"face_{metric}"] for metric in ("ACC", "AUC", "found", "Brier")}
    assert row == pytest.approx({"ACC": 0.5, "AUC": 0.25, "found": 0.5, "Brier": 0.05**2}, abs=1e-3)


def test_videos_and_tracks_are_means_over_their_frames() -> None:
    faces_there = [(one, 2 if one < 3 else 1, FACE) for one in (1, 2, 3, 4)]
    ground_truth = truth_of(faces_there, [1, 2, 3, 4])
    for image in ground_truth["images"]:
        image["video_id"] = 70 if image["id"] < 3 else 8
    for face in ground_truth["annotations"]:
        face["track_id"] = 5
    found = [detection(1, 2, FACE, 0.95), detection(2, 1, FACE, 0.95), detection(3, 1, FACE, 0.95)]
    checked = read_ground_truth(ground_truth)
    read = read_detections(found, checked)
    verdicts = judged(checked, read, match_tasks(checked, read, ["detection"]))["detection"].verdicts
    video, track = verdicts["video"], verdicts["track"]
    assert video.values == pytest.approx([(0.95 * 0.95 * 1 + 0.95 * (0.05 / 1.05)) / 2, 0.95 * 0.0476 / 2], rel=0.06)
    assert video.forged.tolist() == [1, 0]
    assert video.images.tolist() == [0, 2]
    assert track.values == pytest.approx([(1 / 1.05 + 0.05 / 1.05) / 2, 0.05 / 1.05])
    assert track.forged.tolist() == [1, 0]


@pytest.mark.parametrize("forged", [True, False])
def test_a_single_class_has_no_auc(forged: bool) -> None:
    scores = evaluate(truth_of([(1, 1 + forged, FACE)], [1]), [detection(1, 1 + forged, FACE, 0.9)])
    row = {metric: scores["segmentation", "all", metric] for metric in VERDICT_METRICS}
    for metric in ("face_AUC", "face_EER", "face_BACC", "face_TPR1", "image_AUC"):
        assert np.isnan(row[metric])
    assert row["face_ACC"] == row["image_ACC"] == 1
    assert np.isnan(row["pixel_F1"]) == (not forged)


def test_without_a_category_fake_nothing_is_judged() -> None:
    ground_truth = truth_of([(1, 1, FACE)], [1])
    ground_truth["categories"] = [{"id": 1, "name": "face"}, {"id": 2, "name": "body"}]
    scores = evaluate(ground_truth, [detection(1, 1, FACE, 0.9)])
    assert all(np.isnan(scores["detection", "all", metric]) for metric in VERDICT_METRICS)


def test_detections_without_boxes_are_grouped_by_the_boxes_of_their_masks() -> None:
    found = [detection(1, 1, FACE, 0.6), detection(1, 2, ASIDE, 0.9)]
    ground_truth = truth_of([(1, 2, FACE), (1, 1, ELSEWHERE)], [1])
    with_boxes = evaluate(ground_truth, found)
    for one in found:
        del one["bbox"]
    without = evaluate(ground_truth, found)
    for metric in VERDICT_METRICS:
        expected = with_boxes["segmentation", "all", metric]
        assert without["segmentation", "all", metric] == pytest.approx(expected, nan_ok=True)


def test_the_names_are_those_that_params_yaml_takes() -> None:
    from comics.params import METRICS

    assert METRICS[-len(VERDICT_METRICS) :] == VERDICT_METRICS


@pytest.mark.parametrize(
    ("metric", "expected"),
    [("face_AUC", r"AUC$_{\mathrm{face}}$"), ("pixel_core_F1_best", r"F1$_{\mathrm{pixel\ core\ best}}$")],
)
def test_names_are_typeset_with_an_index(metric: str, expected: str) -> None:
    assert tex(metric) == expected


def test_errors_are_better_low() -> None:
    low = {metric for metric in VERDICT_METRICS if not higher_is_better(metric)}
    assert low == {"face_EER", "face_ECE", "face_Brier", "image_EER", "video_EER", "track_EER"}


def test_a_better_judge_is_found_better_by_a_paired_test() -> None:
    """The same faces found at the same places; the second calls four of ten wrongly."""
    faces_there = [(image, 1 + image % 2, FACE) for image in range(1, 31)]
    good = [detection(image, category, FACE, 0.5 + image / 100) for image, category, _ in faces_there]
    poor = [{**one, "category_id": 3 - one["category_id"]} if one["image_id"] % 5 < 2 else one for one in good]
    asked = ["face_ACC", "face_AUC", "pixel_F1", "AP"]
    better = compare(
        truth_of(faces_there, list(range(1, 31))), good, poor, samples=100, tasks=["segmentation"], metrics=asked
    )
    assert [one.metric for one in better] == asked
    assert better[0].difference == pytest.approx(0.4)
    assert all(one.p < 0.05 and 0 < one.low <= one.difference <= one.high for one in better)
    same = compare(
        truth_of(faces_there, list(range(1, 31))), good, good, samples=20, tasks=["segmentation"], metrics=asked
    )
    assert all(one.p == 1 and one.low == one.high == 0 for one in same)


def test_images_of_a_video_are_drawn_together() -> None:
    videos = np.array([0, 1, 1, 0, 2])
    for counts in draws(5, 20, 0, videos):
        assert counts[0] == counts[3]
        assert counts[1] == counts[2]
        assert counts[[0, 1, 4]].sum() == 3


def test_scores_are_printed_without_an_output_file(tmp_path: Path) -> None:
    ground_truth, found = tmp_path / "truth.json", tmp_path / "found.json"
    ground_truth.write_text(json.dumps(truth_of([(1, 1, FACE), (1, 2, ELSEWHERE), (2, 1, FACE)], [1, 2])))
    found.write_text(json.dumps([detection(1, 1, FACE, 0.9), detection(1, 2, ELSEWHERE, 0.7)]))
    result = CliRunner().invoke(app(), ["evaluate", str(ground_truth), str(found), "--bootstrap", "3"])
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["detection", "Real", "50.5", "50.5", "50.5"] in [row[:5] for row in rows]
    assert any(row[:2] == ["face", "detection"] and "66.7" in row for row in rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.json", "truth.json"]
