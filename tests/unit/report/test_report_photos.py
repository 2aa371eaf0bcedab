"""Figures of photographs: which are picked, what is judged an error, what is drawn."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from comics.errors import UserError
from comics.report import figures
from comics.report.gallery import verdict_text
from comics.report.samples import (
    AGAIN,
    FALSE_ALARM,
    HIT,
    WRONG,
    Face,
    add_detections,
    box_iou,
    comparison_samples,
    faces_of,
    judge,
    outlines,
    pick_differences,
    pick_examples,
    read_samples,
    spread,
    thresholds,
)


def face(label, box, score=None):
    return Face(label, box, [], score)


def test_overlap_of_boxes_is_intersection_over_union():
    others = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [20, 20, 5, 5], [0, 0, 0, 0]], dtype=float)
    assert box_iou((0, 0, 10, 10), others) == pytest.approx([1, 50 / 150, 0, 0])


def test_detections_are_judged_in_order_of_score():
    truth = [face(0, (0, 0, 10, 10)), face(1, (50, 0, 10, 10)), face(0, (100, 0, 10, 10))]
    found = [
        face(0, (0, 1, 10, 10), 0.6),  # a hit, but a better one of its face comes first
        face(0, (0, 0, 10, 10), 0.9),
        face(0, (50, 0, 10, 10), 0.8),  # a real face where the face is fake
        face(1, (200, 0, 10, 10), 0.7),
    ]
    missed = judge(truth, found, 0.5)
    assert [one.verdict for one in found] == [AGAIN, HIT, WRONG, FALSE_ALARM]
    assert [one.box for one in missed] == [(100, 0, 10, 10)]


def entry(label, mask, score, box=None):
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    segmentation = {"size": list(code["size"]), "counts": code["counts"].decode()}
    return {"image_id": 1, "category_id": label + 1, "score": score, "segmentation": segmentation} | (
        {"bbox": box} if box else {}
    )


def test_detections_of_both_classes_are_one_face_with_one_verdict():
    left, right = np.zeros((20, 40)), np.zeros((20, 40))
    left[5:15, 5:15] = right[5:15, 25:35] = 1
    boxes = [[5, 5, 10, 10], [5, 6, 10, 10], [25, 5, 10, 10]]
    entries = [entry(0, left, 0.6, boxes[0]), entry(1, left, 0.7, boxes[1]), entry(0, right, 0.9, boxes[2])]
    assert [(one.label, one.score, list(one.box)) for one in faces_of(entries)] == [
        (0, 0.9, boxes[2]),
        (1, 0.7, boxes[1]),
    ]
    assert faces_of([]) == []
    bare = [{key: value for key, value in one.items() if key != "bbox"} for one in entries]
    assert [(one.label, one.score, list(one.box)) for one in faces_of(bare)] == [(0, 0.9, boxes[2]), (1, 0.7, boxes[0])]


def test_nothing_there_and_nothing_found():
    assert judge([], [], 0.5) == []
    alone = face(1, (0, 0, 5, 5), 0.9)
    assert judge([], [alone], 0.5) == []
    assert alone.verdict == FALSE_ALARM
    assert len(judge([face(0, (0, 0, 5, 5))], [], 0.5)) == 1


def test_verdicts_are_words():
    one = face(1, (0, 0, 1, 1), 0.934)
    for verdict, text in (
        (HIT, "fake .93"),
        (WRONG, "not fake .93"),
        (AGAIN, "+ fake .93"),
        (FALSE_ALARM, "no face .93"),
    ):
        one.verdict = verdict
        assert verdict_text(one) == text


def test_outlines_of_an_rle_enclose_its_area():
    mask = np.zeros((40, 50), np.uint8)
    mask[5:25, 10:30] = 1
    mask[0:3, 45:50] = 1  # touches the border
    rle = coco_mask.encode(np.asfortranarray(mask))
    rings = outlines({"size": [40, 50], "counts": rle["counts"].decode()}, 40, 50)
    areas = []
    for ring in rings:
        x, y = ring[:, 0], ring[:, 1]
        areas.append(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
    assert sorted(areas) == pytest.approx([15, 400], abs=1)
    assert rings[int(np.argmax(areas))].min(axis=0) == pytest.approx([10, 5])
    assert rings[int(np.argmax(areas))].max(axis=0) == pytest.approx([30, 25])
    uncompressed = {"size": [40, 50], "counts": [0, 2000]}
    assert len(outlines(uncompressed, 40, 50)) == 1


def test_examples_are_spread_evenly_over_images_with_both_classes(project):
    project.dataset(9)
    samples = read_samples(project.params, "test_dev", project.root)
    assert [sample.image_id for sample in samples] == list(range(1, 10))
    both = [sample.image_id for sample in samples if {one.label for one in sample.truth} == {0, 1}]
    picked = [sample.image_id for sample in pick_examples(samples, 3)]
    assert picked == [both[1], both[3], both[5]]
    assert len(both) == 6
    single = [sample for sample in samples if len(sample.truth) == 1]
    assert pick_examples(single, 2) == spread(single, 2)
    assert pick_examples([], 3) == []


def test_differences_are_picked_by_number_of_errors_in_either_favour(project):
    project.scores(["blendmask", "comics"])
    project.dataset(9)
    project.detections(["blendmask", "comics"])
    params, root = project.params, project.root
    samples = read_samples(params, "test_dev", root)
    for run in ("blendmask", "comics"):
        add_detections(params, samples, run, "test_dev", "optimal", 0.5, root)
    picked = pick_differences(samples, "blendmask", "comics", 3)
    gap = {sample.image_id: abs(sample.errors("blendmask") - sample.errors("comics")) for sample in samples}
    assert [sample.image_id for sample in picked] == sorted(gap, key=lambda key: (-gap[key], key))[:3]
    again = comparison_samples(params, params.figures["figure_11"], root)["test_dev"]
    assert [sample.image_id for sample in again] == [sample.image_id for sample in picked]


def test_detections_below_the_threshold_of_their_class_do_not_count(project):
    scores = {("segmentation", "Real", "oLRP_threshold"): 0.5, ("segmentation", "Fake", "oLRP_threshold"): None}
    assert thresholds(scores, "optimal") == [0.5, 1.0]
    assert thresholds(scores, 0.3) == [0.3, 0.3]
    project.scores(["comics"])
    project.dataset(6)
    project.detections(["comics"])
    params = project.params
    samples = read_samples(params, "test_dev", project.root)
    add_detections(params, samples, "comics", "test_dev", 0.7, 0.5, project.root)
    found = [one for sample in samples for one in sample.found["comics"]]
    assert found
    assert all(one.score >= 0.7 for one in found)


@pytest.mark.parametrize("name", ["figure_8", "figure_11"])
def test_equal_inputs_give_equal_bytes(project, name):
    project.scores(["blendmask", "comics"])
    project.dataset(6)
    project.detections(["blendmask", "comics"])
    first = figures.draw(project.params, name, project.root / "a.pdf", project.root)
    second = figures.draw(project.params, name, project.root / "b.pdf", project.root)
    assert [one.read_bytes() for one in first] == [one.read_bytes() for one in second]


def test_one_image_without_faces_is_enough(project):
    project.scores(["blendmask", "comics"])
    project.dataset(1)
    for split in ("test_dev", "test_challenge"):
        path = project.root / "data/mini" / split / "annotations.json"
        content = json.loads(path.read_text()) | {"annotations": []}
        path.write_text(json.dumps(content))
    project.detections(["blendmask", "comics"])
    for name in ("figure_8", "figure_11"):
        assert all(path.stat().st_size for path in figures.draw(project.params, name, project.root / "a.pdf"))


def test_what_is_missing_is_told_with_the_command(project):
    with pytest.raises(UserError) as caught:
        figures.draw(project.params, "figure_8", project.root / "a.pdf", project.root)
    assert caught.value.remedy == "Make the dataset with: snakemake data/mini/test_dev/annotations.json"
    project.dataset(2)
    project.scores(["blendmask", "comics"])
    project.detections(["blendmask"])
    with pytest.raises(UserError) as caught:
        figures.draw(project.params, "figure_11", project.root / "a.pdf", project.root)
    assert caught.value.remedy == (
        "Renew with: snakemake results/mini/comics/seed0/test_dev.detections.json "
        "results/mini/comics/seed0/test_challenge.detections.json"
    )
    (project.root / "data/mini/test_dev/images/001.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"001\.jpg: cannot be read"):
        figures.draw(project.params, "figure_8", project.root / "a.pdf", project.root)
