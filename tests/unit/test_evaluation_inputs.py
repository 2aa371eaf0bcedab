"""What is wrong with an input is told: the file, the first offending entry, and how many more there are."""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_scenes import HEIGHT, WIDTH, detection, rectangle_mask, truth
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle

from comics.errors import UserError
from comics.evaluation import evaluate, inputs, layout, read_detections, read_ground_truth
from comics.evaluation.rle import pixels

FACE = [20.0, 20.0, 40.0, 40.0]
TRUTH = truth([(1, 1, FACE), (2, 2, FACE)], [1, 2])


def detections(**changes: Any) -> list[dict[str, Any]]:
    """Four detections; `changes` go into the second and the fourth."""
    good = [
        detection(1, 1, FACE, 0.9),
        detection(2, 1, FACE, 0.8),
        detection(2, 2, FACE, 0.7),
        detection(1, 2, FACE, 0.6),
    ]
    return [{**one, **changes} if index % 2 else one for index, one in enumerate(good)]


def refused(call: Any, *told: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    for part in told:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"image_id": 3}, ["image_id: 3", "no such image"]),
        ({"image_id": "1"}, ["image_id: '1'", "not an integer"]),
        ({"image_id": True}, ["not an integer"]),
        ({"image_id": 2**70}, ["too large"]),
        ({"category_id": 0}, ["category_id: 0", "[1, 2]"]),
        ({"category_id": None}, ["category_id", "not an integer"]),
        ({"score": math.nan}, ["score: nan", "not finite"]),
        ({"score": math.inf}, ["score: inf", "not finite"]),
        ({"score": 7}, ["score: 7", "not between 0 and 1"]),
        ({"score": -0.001}, ["not between 0 and 1"]),
        ({"score": "0.5"}, ["not a number"]),
        ({"score": 10**400}, ["score", "not finite"]),
        ({"bbox": [10**400, 1, 1, 1]}, ["bbox", "not finite"]),
        ({"bbox": np.ones(4)}, ["bbox", "four numbers"]),
        ({"bbox": [1.0, math.nan, 2.0, 2.0]}, ["bbox", "not finite"]),
        ({"bbox": [1.0, -math.inf, 2.0, 2.0]}, ["bbox", "not finite"]),
        ({"bbox": [1.0, 2.0, -1.0, 2.0]}, ["bbox", "negative size"]),
        ({"bbox": [1.0, 2.0, 3.0]}, ["bbox", "four numbers"]),
        ({"bbox": ["1", "2", "3", "4"]}, ["bbox", "four numbers"]),
        ({"bbox": 7}, ["bbox", "four numbers"]),
        ({"segmentation": {"size": [HEIGHT, HEIGHT], "counts": "a"}}, [f"{[HEIGHT, HEIGHT]}", f"{[HEIGHT, WIDTH]}"]),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "a"}}, ["do not add up"]),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "é"}}, ["run lengths"]),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [5, 7]}}, ["do not add up"]),
        ({"segmentation": {"size": [10**30, WIDTH], "counts": "a"}}, ["of an image of"]),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [10**30]}}, ["do not add up"]),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": b"\xff"}}, ["do not add up"]),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [-1, HEIGHT * WIDTH + 1]}}, ["not run lengths"]),
        ({"segmentation": {"size": [HEIGHT, WIDTH]}}, ["not run lengths"]),
        ({"segmentation": [[1, 1, 5, 1, 5, 5]]}, ["not run lengths"]),
    ],
)
def test_detections(changes: dict[str, Any], told: list[str]) -> None:
    checked = read_ground_truth(TRUTH)
    refused(lambda: read_detections(detections(**changes), checked), "detections[1]", "1 more", *told)


@pytest.mark.parametrize("field", ["image_id", "category_id", "score", "bbox", "segmentation"])
def test_a_missing_field(field: str) -> None:
    found = detections()
    del found[2][field]
    refused(lambda: evaluate(TRUTH, found), "detections[2]", field, "missing")


def test_no_bbox_and_no_segmentation() -> None:
    refused(lambda: evaluate(TRUTH, [{"image_id": 1, "category_id": 1, "score": 0.5}]), "neither bbox nor segmentation")


@pytest.mark.parametrize(
    ("part", "changes", "told"),
    [
        ("annotations", {"id": 0}, ["annotations[1].id: 0", "below 1"]),
        ("annotations", {"id": 1}, ["annotations[1].id: 1", "earlier"]),
        ("annotations", {"image_id": 5}, ["annotations[1].image_id: 5", "no such image"]),
        ("annotations", {"category_id": 5}, ["annotations[1].category_id: 5", "no such category"]),
        ("annotations", {"area": -1.0}, ["annotations[1].area", "negative"]),
        ("annotations", {"area": None}, ["annotations[1].area", "not a number"]),
        ("annotations", {"iscrowd": 2}, ["annotations[1].iscrowd", "0 nor 1"]),
        ("annotations", {"bbox": [0, 0, -3, 3]}, ["annotations[1].bbox", "negative"]),
        ("annotations", {"segmentation": [[1, 2, 3]]}, ["annotations[1].segmentation", "polygons"]),
        ("annotations", {"segmentation": [[1, 2, 3, 4, 5, math.nan]]}, ["annotations[1].segmentation", "polygons"]),
        ("annotations", {"segmentation": [[0, 0, 1e9, 0, 5, 5]]}, ["annotations[1].segmentation", "polygons"]),
        ("annotations", {"segmentation": "x"}, ["annotations[1].segmentation", "run lengths"]),
        ("images", {"id": 1}, ["images[1].id", "earlier"]),
        ("images", {"width": 0}, ["images[1].width", "not positive"]),
        ("categories", {"id": 1}, ["categories[1].id", "earlier"]),
        ("categories", {"name": "Real"}, ["categories[1].name", "earlier"]),
        ("categories", {"name": None}, ["categories[1].name", "not a name"]),
        ("categories", {"name": "all"}, ["categories[1].name", "average"]),
    ],
)
def test_ground_truth(part: str, changes: dict[str, Any], told: list[str]) -> None:
    entries = [TRUTH[part][0], {**TRUTH[part][1], **changes}]
    refused(lambda: read_ground_truth({**TRUTH, part: entries}), *told)


def test_files_of_another_kind(tmp_path: Path) -> None:
    good, found = tmp_path / "gt.json", tmp_path / "dt.json"
    good.write_text(json.dumps(TRUTH))
    found.write_text(json.dumps(detections()))
    refused(lambda: evaluate(found, good), str(found), "order of the arguments")
    refused(lambda: evaluate(good, good), str(good), "order of the arguments")
    truncated = tmp_path / "truncated.json"
    truncated.write_text(json.dumps(detections())[:-20])
    refused(lambda: evaluate(good, truncated), str(truncated), "not valid JSON")
    refused(lambda: evaluate(good, tmp_path / "absent.json"), "absent.json", "no such file")
    text = tmp_path / "table.csv"
    text.write_text("image,score\n1,0.5\n")
    refused(lambda: evaluate(good, text), str(text), "not valid JSON")
    for content in ({"a": 1}, [1, 2], "x", None):
        other = tmp_path / "other.json"
        other.write_text(json.dumps(content))
        refused(partial(evaluate, good, other), str(other))
        refused(partial(evaluate, other, found), str(other))


BAD: list[dict[str, Any]] = [
    {"image_id": 3},
    {"image_id": 1.0},
    {"image_id": True},
    {"image_id": 2**70},
    {"category_id": None},
    {"score": math.nan},
    {"score": True},
    {"score": "0.5"},
    {"score": 10**400},
    {"bbox": None},
    {"bbox": [1.0, 2.0, 3.0]},
    {"bbox": [1.0, 2.0, -1.0, 2.0]},
    {"segmentation": None},
    {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "a"}},
    {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "\u732b"}},
    {"segmentation": {"size": [HEIGHT, HEIGHT], "counts": "a"}},
    {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [5, 7]}},
]


@pytest.mark.parametrize("changes", BAD)
def test_a_file_and_its_content_are_refused_alike(tmp_path: Path, changes: dict[str, Any]) -> None:
    file = tmp_path / "detections.json"
    file.write_text(json.dumps(detections(**changes)))
    checked = read_ground_truth(TRUTH)
    with pytest.raises(UserError) as of_content:
        read_detections(json.loads(file.read_text()), checked)
    refused(lambda: read_detections(file, checked), str(of_content.value).removeprefix("Detections: "), f"{file}: ")


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is large: it is read a few bytes at a time."""
    monkeypatch.setattr(inputs, "LARGE", 0)
    monkeypatch.setattr(layout, "PART", 70)


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize("changes", [*BAD, {"segmentation": ...}, {"bbox": ...}, {"score_mask": 0.5}])
def test_a_large_file_is_refused_as_its_content_is(tmp_path: Path, changes: dict[str, Any]) -> None:
    found = [{key: value for key, value in one.items() if value is not ...} for one in detections(**changes)]
    file = tmp_path / "detections.json"
    file.write_text(json.dumps(found))
    checked = read_ground_truth(TRUTH)
    with pytest.raises(UserError) as of_content:
        read_detections(found, checked)
    told = str(of_content.value).removeprefix("Detections: ").split(" And ")[0]  # others may be in another part
    refused(lambda: read_detections(file, checked), f"{file}: {told}")


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize(
    "odd",
    [
        {"note": "}, {"},
        {"note": [{"a": 1}, {"b": [{}, {}]}]},
        {"note": "\u732b },{"},
        {"note": math.nan},
        {"score": 1},
        {"score_mask": 0.25},
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_a_large_file_is_read_as_its_content_is(tmp_path: Path, odd: dict[str, Any], indent: int | None) -> None:
    found = [{**one, **odd} for one in detections()]
    file = tmp_path / "found.json"
    file.write_text(json.dumps(found, indent=indent, ensure_ascii=False), encoding="utf-8")
    of_file, of_content = evaluate(TRUTH, file).values, evaluate(TRUTH, found).values
    assert {key: repr(value) for key, value in of_file.items()} == {k: repr(v) for k, v in of_content.items()}


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize(
    ("text", "told"),
    [
        (lambda text: text[:-5], "not valid JSON"),
        (lambda text: text[:-1] + ",]", "not valid JSON"),
        (lambda text: text + "]", "not valid JSON"),
        (lambda text: text.replace("}, {", "} {"), "not valid JSON"),
        (lambda text: json.dumps({"annotations": json.loads(text)}), "not COCO results"),
        (lambda text: "  ", "not valid JSON"),
    ],
)
def test_a_large_file_that_is_none_is_refused(tmp_path: Path, text: Callable[[str], str], told: str) -> None:
    file = tmp_path / "found.json"
    file.write_text(text(json.dumps(detections())))
    refused(lambda: read_detections(file, read_ground_truth(TRUTH)), str(file), told)


@pytest.mark.parametrize("part", ["images", "annotations", "categories"])
@pytest.mark.parametrize("changes", [{"id": 1}, {"id": "2"}, {"id": None}, {"width": 0, "area": -1, "name": ""}])
def test_a_ground_truth_file_and_its_content_are_refused_alike(
    tmp_path: Path, part: str, changes: dict[str, Any]
) -> None:
    content = {**TRUTH, part: [TRUTH[part][0], {**TRUTH[part][1], **changes}]}
    file = tmp_path / "truth.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError) as of_content:
        read_ground_truth(content)
    refused(lambda: read_ground_truth(file), str(of_content.value).removeprefix("Ground truth: "), f"{file}: ")


@pytest.mark.parametrize("odd", [{}, {"note": math.nan}, {"note": "\u732b"}, {"id": "a", "area": None}])
def test_a_file_is_read_as_its_content_is(tmp_path: Path, odd: dict[str, Any]) -> None:
    """Whether it is read by types or, with what those do not take, as plain JSON."""
    polygons = [{**one, "segmentation": [[20, 20, 60, 20, 60, 60.5]]} for one in TRUTH["annotations"]]
    truths, found = ({**TRUTH, **odd}, {**TRUTH, "annotations": polygons}), [{**one, **odd} for one in detections()]
    (tmp_path / "found.json").write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
    for content in truths:
        (tmp_path / "truth.json").write_text(json.dumps(content), encoding="utf-8")
        of_files = evaluate(tmp_path / "truth.json", tmp_path / "found.json").values
        of_content = evaluate(content, found).values
        assert {key: repr(value) for key, value in of_files.items()} == {k: repr(v) for k, v in of_content.items()}


def test_bytes_that_are_no_text_are_refused_where_nobody_looks(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    file.write_bytes(json.dumps([{**one, "note": "?"} for one in detections()]).encode().replace(b"?", b"\xff"))
    refused(lambda: read_detections(file, read_ground_truth(TRUTH)), str(file), "not valid JSON")


def test_an_unknown_engine() -> None:
    refused(lambda: evaluate(TRUTH, detections(), engine="hotcocoa"), "hotcocoa", "hotcoco")


@pytest.mark.parametrize("engine", ["hotcoco", "pycocotools"])
def test_what_no_evaluation_needs_may_be_anything(engine: str) -> None:
    """Other tools write other fields, and fill those of COCO with other types, on which the libraries insist."""
    odd = {"license": "cc", "date_captured": 3, "coco_url": None, "file_name": None}
    content = {
        "info": None,
        "licenses": "none",
        "images": [{**one, **odd} for one in TRUTH["images"]],
        "annotations": [
            {**one, "keypoints": ["x"], "ignore": 1, "iscrowd": 0.0, "attributes": {"a": None}}
            for one in TRUTH["annotations"]
        ],
        "categories": [{**one, "supercategory": None, "keypoints": "x"} for one in TRUTH["categories"]],
    }
    del content["annotations"][0]["iscrowd"]
    found = [{**one, "id": "a", "area": "x", "iscrowd": 1, "foo": None} for one in detections()]
    assert evaluate(content, found, engine=engine).values == pytest.approx(
        evaluate(TRUTH, detections(), engine=engine).values, nan_ok=True
    )


@pytest.mark.parametrize("engine", ["hotcoco", "pycocotools"])
@pytest.mark.parametrize("change", [-10, 2**62])
def test_every_integer_is_an_id(engine: str, change: int) -> None:
    """Negative ones, and those that a float does not hold exactly."""
    content = {
        "images": [{**one, "id": one["id"] + change} for one in TRUTH["images"]],
        "annotations": [
            {
                **one,
                "id": one["id"] + max(change, 0),
                "image_id": one["image_id"] + change,
                "category_id": one["category_id"] + change,
            }
            for one in TRUTH["annotations"]
        ],
        "categories": [{**one, "id": one["id"] + change} for one in TRUTH["categories"]],
    }
    found = [
        {**one, "image_id": one["image_id"] + change, "category_id": one["category_id"] + change}
        for one in detections()
    ]
    assert evaluate(content, found, engine=engine).values == pytest.approx(
        evaluate(TRUTH, detections(), engine=engine).values, nan_ok=True
    )


def test_every_form_of_run_lengths_is_read() -> None:
    plain = evaluate(TRUTH, detections())
    for form in (bytes, list):
        found = detections()
        for one in found:
            text = one["segmentation"]["counts"]
            mask = rle.decode(one["segmentation"]).ravel(order="F")
            runs = np.diff(np.flatnonzero(np.diff(mask, prepend=0, append=2)), prepend=0).tolist()
            one["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": text.encode() if form is bytes else runs}
        assert evaluate(TRUTH, found)["segmentation", "all", "AP"] == plain["segmentation", "all", "AP"]


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_run_lengths_add_up(height: int, width: int, share: float, seed: int) -> None:
    mask = np.asfortranarray((np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8))
    text = rle.encode(mask)["counts"]
    other = rectangle_mask(FACE)["counts"]
    assert pixels([text, other, text.decode()]).tolist() == [height * width, HEIGHT * WIDTH, height * width]
    assert pixels([text + b"1", other])[0] != height * width


def test_malformed_run_lengths() -> None:
    good = rectangle_mask(FACE)["counts"]
    assert pixels(["", "P", "!", good, "0" * 3 + "O", [3, 4]]).tolist() == [0, -1, -1, HEIGHT * WIDTH, -1, 7]


def test_scores_of_masks_are_checked() -> None:
    checked = read_ground_truth(TRUTH)
    refused(
        lambda: read_detections(detections(score_mask=0.5), checked), "score_mask: missing", "other entries have it"
    )
    found = [{**one, "score_mask": 1.5} for one in detections()]
    refused(lambda: read_detections(found, checked), "score_mask: 1.5", "not between 0 and 1")


@pytest.mark.parametrize("engine", ["hotcoco", "pycocotools"])
def test_masks_have_scores_of_their_own(tmp_path: Path, engine: str) -> None:
    """Boxes are ranked by `score`, masks by `score_mask`: each task as if it were the only score."""
    where = [0, 1]
    boxes = [[20.0, 20.0, 40.0, 40.0], [5.0, 5.0, 10.0, 10.0]]  # the face, and none
    ground = truth([(1, 1, FACE)], [1])

    def results(scores: list[float], masks: list[float] | None) -> list[dict[str, Any]]:
        found = [detection(1, 1, boxes[i], scores[i]) for i in where]
        return found if masks is None else [{**found[i], "score_mask": masks[i]} for i in where]

    both = tmp_path / "both.json"
    both.write_text(json.dumps(results([0.9, 0.4], [0.2, 0.8])))
    found = evaluate(ground, both, engine=engine)
    as_boxes = evaluate(ground, results([0.9, 0.4], None), engine=engine)
    as_masks = evaluate(ground, results([0.2, 0.8], None), engine=engine)
    assert found["detection", "all", "AP"] == as_boxes["detection", "all", "AP"] == pytest.approx(1)
    assert found["segmentation", "all", "AP"] == as_masks["segmentation", "all", "AP"] == pytest.approx(0.5)
    assert found["segmentation", "all", "oLRP"] == as_masks["segmentation", "all", "oLRP"] > 0


@pytest.mark.parametrize(
    ("part", "field", "values", "told"),
    [
        ("images", "video_id", [1, None], ["images[1].video_id", "no id"]),
        ("images", "video_id", [1.5, 1], ["images[0].video_id: 1.5", "no id"]),
        ("images", "video_id", ["a"], ["images[1].video_id: missing", "other entries have it"]),
        ("annotations", "track_id", [True, 1], ["annotations[0].track_id", "no id"]),
        ("annotations", "forgery", [3, "swap"], ["annotations[0].forgery: 3", "not a text"]),
    ],
)
def test_ids_of_videos_and_tracks_and_kinds_of_forgery(
    part: str, field: str, values: list[Any], told: list[str], tmp_path: Path
) -> None:
    content = json.loads(json.dumps(TRUTH))
    for entry, value in zip(content[part], values, strict=False):
        entry[field] = value
    refused(lambda: read_ground_truth(content), *told)
    (tmp_path / "truth.json").write_text(json.dumps(content))
    refused(lambda: read_ground_truth(tmp_path / "truth.json"), *told)


def test_videos_may_be_named_by_texts(tmp_path: Path) -> None:
    content = json.loads(json.dumps(TRUTH))
    for entry, name in zip(content["images"], ("clip b", "clip a"), strict=True):
        entry["video_id"] = name
    content["annotations"][0]["forgery"] = "swap"
    (tmp_path / "truth.json").write_text(json.dumps(content))
    for source in (content, tmp_path / "truth.json"):
        read = read_ground_truth(source)
        assert read.videos is not None
        assert len(set(read.videos.tolist())) == 2
        assert read.forgeries == ("swap", "")
        assert read.tracks is None
