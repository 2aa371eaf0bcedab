"""Conversion to canonical COCO: repairs, refusals, resuming."""

from __future__ import annotations

import copy
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from comics.data.canonical import coco, convert
from comics.data.canonical.repair import NORMALISATIONS, REPAIRS, Notes, clip_ring, repair_face
from comics.data.openforensics import dataset as openforensics
from comics.errors import UserError

WIDTH, HEIGHT = 60, 40
SQUARE = [[5, 5, 15, 5, 15, 15, 5, 15]]
FACE = {"id": 0, "image_id": 0, "category_id": 0, "iscrowd": 0, "area": 100, "bbox": [5, 5, 10, 10]}


def face(**fields) -> dict:
    return {**FACE, "segmentation": copy.deepcopy(SQUARE), **fields}


def make(folder: Path, faces: list[dict], split: str = "val", names: tuple[str, ...] = ("0.jpg",), **fields) -> Path:
    """A raw folder of one split; every image has its own grey."""
    own = openforensics.SPLIT_NAMES[split]
    (folder / "Images" / own).mkdir(parents=True, exist_ok=True)
    images = []
    for i, name in enumerate(names):
        Image.new("RGB", (WIDTH, HEIGHT), (40 * i, 0, 0)).save(folder / "Images" / own / name)
        images.append({"id": i, "file_name": f"Images/{own}/{name}", "width": WIDTH, "height": HEIGHT})
    document = {"images": images, "categories": openforensics.CATEGORIES, "annotations": faces, **fields}
    (folder / f"{own}_poly.json").write_text(json.dumps(document))
    return folder


def converted(folder: Path, **options) -> tuple[convert.SplitReport, dict]:
    report = openforensics.convert(folder, folder / "out", splits=["val"], **options).splits["val"]
    path = folder / "out/val/annotations.json"
    coco.validate(path)
    return report, coco.read(path)


def test_ids_categories_and_names(tmp_path: Path) -> None:
    make(tmp_path, [face(), face(id=1, category_id=1)])
    report, document = converted(tmp_path)
    assert report.faces == {"Real": 1, "Fake": 1}
    assert report.repairs == {}
    assert [item["category_id"] for item in document["annotations"]] == [1, 2]
    assert [item["source_id"] for item in document["annotations"]] == [0, 1]
    assert all(item["id"] >= 1 for item in document["annotations"])
    assert document["images"][0]["file_name"] == "images/0.jpg"
    assert (tmp_path / "out/val/images/0.jpg").samefile(tmp_path / "Images/Val/0.jpg")
    assert document["annotations"][0]["segmentation"] == SQUARE
    assert document["annotations"][0]["bbox"] == [5, 5, 10, 10]


def test_the_kind_of_forgery_is_kept_and_must_be_a_name(tmp_path: Path) -> None:
    make(tmp_path, [face(), face(id=1, category_id=1, forgery="swap")])
    _, document = converted(tmp_path)
    assert [item.get("forgery") for item in document["annotations"]] == [None, "swap"]
    make(tmp_path, [face(id=1, category_id=1, forgery=3)])
    with pytest.raises(UserError, match=r"annotations\[0\].forgery: expected the name of a kind of forgery, found 3"):
        converted(tmp_path)


def test_ids_do_not_depend_on_which_splits_are_converted(tmp_path: Path) -> None:
    make(tmp_path, [face()], "train")
    make(tmp_path, [face()], "val")
    _, alone = converted(tmp_path)
    openforensics.convert(tmp_path, tmp_path / "both", splits=["train", "val"])
    both = coco.read(tmp_path / "both/val/annotations.json")
    assert both == alone
    assert coco.read(tmp_path / "both/train/annotations.json")["images"][0]["id"] != both["images"][0]["id"]


def test_copies_where_links_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, [face()])

    def no_link(*args, **options):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_link)
    converted(tmp_path)
    assert (tmp_path / "out/val/images/0.jpg").read_bytes() == (tmp_path / "Images/Val/0.jpg").read_bytes()


# (face, kind of repair, expected fields); None: the face is dropped.
REPAIRED = {
    "repeated points": (
        face(segmentation=[[5, 5, 15, 5, 15, 5, 15, 15, 5, 15, 5, 5]]),
        "ring_points_repeated",
        {"segmentation": SQUARE},
    ),
    "nested": (face(segmentation=[[[5, 5], [15, 5], [15, 15], [5, 15]]]), "polygon_nested", {"segmentation": SQUARE}),
    "flat": (face(segmentation=SQUARE[0]), "polygon_nested", {"segmentation": SQUARE}),
    "odd": (face(segmentation=[[*SQUARE[0], 7]]), "polygon_odd", {"segmentation": SQUARE}),
    "outside": (
        face(segmentation=[[-5, 5, 15, 5, 15, 15, -5, 15]], bbox=[-5, 5, 20, 10], area=200),
        "polygon_clipped",
        {"bbox": [0, 5, 15, 10]},
    ),
    "line": (face(segmentation=[*SQUARE, [1, 1, 9, 1]]), "polygon_dropped", {"segmentation": SQUARE}),
    "box outside": (
        face(segmentation=[[50, 5, 60, 5, 60, 15, 50, 15]], bbox=[50, 5, 12, 10]),
        "box_clipped",
        {"bbox": [50, 5, 10, 10]},
    ),
    "box missing": (face(bbox=None), "box_recomputed", {"bbox": [5, 5, 10, 10]}),
    "box empty": (face(bbox=[5, 5, 0, 10]), "box_recomputed", {"bbox": [5, 5, 10, 10]}),
    "box elsewhere": (face(bbox=[30, 20, 10, 10]), "box_recomputed", {"bbox": [5, 5, 10, 10]}),
    "area missing": (face(area=None), "area_recomputed", {"area": 100}),
    "area negative": (face(area=-1), "area_recomputed", {"area": 100}),
    "area wrong": (face(area=400), "area_recomputed", {"area": 100}),
    "crowd missing": (face(iscrowd=None), "crowd_flag_set", {"iscrowd": 0}),
    "run lengths": (
        face(segmentation={"size": [HEIGHT, WIDTH], "counts": [205, *[10, 30] * 9, 10, 2400 - 205 - 9 * 40 - 10]}),
        "rle_compressed",
        {"bbox": [5, 5, 10, 10], "area": 100},
    ),
    "no mask": (face(segmentation=[]), "face_without_mask", None),
    "degenerate": (face(segmentation=[[1, 1, 9, 1, 5, 1]]), "face_degenerate", None),
    "all outside": (face(segmentation=[[90, 90, 99, 90, 99, 99]]), "face_degenerate", None),
}


@pytest.mark.parametrize("name", REPAIRED)
def test_repairs(name: str, tmp_path: Path) -> None:
    broken, kind, expected = REPAIRED[name]
    make(tmp_path, [broken, face(id=1, category_id=1)])
    report, document = converted(tmp_path)
    assert report.changes[kind]["count"] >= 1
    assert "annotations[0]" in report.changes[kind]["examples"][0]
    assert json.loads((tmp_path / "out/val/conversion.json").read_text())["changes"] == report.changes
    if expected is None:
        assert [item["source_id"] for item in document["annotations"]] == [1]
    else:
        found = {field: document["annotations"][0][field] for field in expected}
        assert found == expected
    assert (kind in report.repairs) == (kind in REPAIRS) == (kind not in NORMALISATIONS)


@pytest.mark.parametrize("name", REPAIRED)
def test_strict_refuses_defects_only(name: str, tmp_path: Path) -> None:
    broken, kind, _ = REPAIRED[name]
    make(tmp_path, [broken])
    if kind in NORMALISATIONS:
        converted(tmp_path, strict=True)
    else:
        with pytest.raises(UserError, match=r"Val_poly\.json: annotations\[0\].*refused, because"):
            converted(tmp_path, strict=True)
        assert not (tmp_path / "out/val").exists()


def test_published_values_stay_when_they_can_be_right(tmp_path: Path) -> None:
    """Areas measured from the polygon, and boxes a little off the mask, are the publisher's business."""
    make(tmp_path, [face(area=104.5, bbox=[4, 4, 12, 12])])
    report, document = converted(tmp_path)
    assert (document["annotations"][0]["area"], document["annotations"][0]["bbox"]) == (104.5, [4, 4, 12, 12])
    assert report.repairs == {}


MALFORMED = {
    "no object": (7, r"annotations\[0\]: expected a JSON object, found 7"),
    "no id": ({**face(), "id": None}, r"annotations\[0\]\.id: expected a number, found nothing"),
    "no image": (face(image_id=5), r"annotations\[0\]\.image_id: the file has no image 5"),
    "no category": (face(category_id=9), r"annotations\[0\]\.category_id: the file has no category 9"),
    "text in polygon": (face(segmentation=[[1, 2, 3, "4", 5, 6]]), r"segmentation\[0\]\[3\]: expected a number"),
    "true in polygon": (face(segmentation=[[1, 2, 3, True, 5, 6]]), r"segmentation\[0\]\[3\]: expected a number"),
    "huge number": (face(segmentation=[[1, 2, 3, 10**400, 5, 6]]), r"segmentation\[0\]: a coordinate is no finite"),
    "text as polygon": (face(segmentation=["abc"]), r"segmentation\[0\]: expected a polygon"),
    "text as mask": (face(segmentation="abc"), r"segmentation: expected polygons or an RLE"),
    "box of three": (face(bbox=[1, 2, 3]), r"bbox: expected \[x, y, width, height\]"),
    "text in box": (face(bbox=[1, 2, 3, "4"]), r"bbox\[3\]: expected a number"),
    "text as area": (face(area="1"), r"area: expected a number"),
    "rle size": (face(segmentation={"size": [1, 1], "counts": [1]}), r"segmentation\.size: expected \[40, 60\]"),
    "rle short": (face(segmentation={"size": [HEIGHT, WIDTH], "counts": [5, 5]}), r"counts: the runs do not add up"),
    "rle text": (face(segmentation={"size": [HEIGHT, WIDTH], "counts": "~~~~"}), r"counts: the runs do not add up"),
    "rle beyond": (face(segmentation={"size": [HEIGHT, WIDTH], "counts": "oooo1oooo1"}), r"the runs do not add up"),
    "rle none": (face(segmentation={"size": [HEIGHT, WIDTH]}), r"counts: expected runs, found nothing"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_faces_are_refused_by_name(name: str, tmp_path: Path) -> None:
    broken, message = MALFORMED[name]
    make(tmp_path, [broken, face(id=1)])
    with pytest.raises(UserError, match=message) as error:
        converted(tmp_path)
    assert "Val_poly.json" in error.value.message
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"images": 5}, r"images: expected an array, found 5"),
        ({"annotations": {"a": 1}}, r"annotations: expected an array"),
        ({"images": [3]}, r"images\[0\]: expected a JSON object"),
        ({"images": [{"id": 0, "file_name": "../../x.jpg"}]}, r"images\[0\]\.file_name: '\.\./\.\./x\.jpg' leads out"),
        ({"images": [{"id": 0, "file_name": None}]}, r"images\[0\]\.file_name: expected a file name"),
        ({"categories": [{"id": 0, "name": "Cat"}]}, r"categories\[0\]\.name: expected Real or Fake, found 'Cat'"),
        ({"annotations": [face(), face()]}, r"annotations\[1\]\.id: 0 stands twice"),
    ],
)
def test_malformed_files_are_refused_by_name(fields: dict, message: str, tmp_path: Path) -> None:
    make(tmp_path, [face()], **fields)
    with pytest.raises(UserError, match=message):
        converted(tmp_path)


def test_annotations_before_images(tmp_path: Path) -> None:
    """The order of the sections does not matter."""
    make(tmp_path, [face()])
    path = tmp_path / "Val_poly.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(document.items()))))
    assert next(iter(json.loads(path.read_text()))) == "annotations"
    assert converted(tmp_path)[0].images == 1


def test_missing_image(tmp_path: Path) -> None:
    make(tmp_path, [face(), face(id=1, image_id=1)], names=("0.jpg", "1.jpg"))
    (tmp_path / "Images/Val/1.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of 2 images are not there, Images/Val/1\.jpg first"):
        converted(tmp_path)
    report, document = converted(tmp_path, allow_missing=True)
    assert report.repairs == {"image_missing": 1}
    assert len(document["images"]) == len(document["annotations"]) == 1
    with pytest.raises(UserError, match="not there"):
        converted(tmp_path)


def test_unreadable_image(tmp_path: Path) -> None:
    make(tmp_path, [face()])
    (tmp_path / "Images/Val/0.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"images\[0\]\.file_name: .*0\.jpg is no readable image"):
        converted(tmp_path)


def test_image_size_comes_from_the_header(tmp_path: Path) -> None:
    make(tmp_path, [face()])
    Image.new("RGB", (30, 12)).save(tmp_path / "Images/Val/0.jpg")
    report, document = converted(tmp_path)
    assert (document["images"][0]["width"], document["images"][0]["height"]) == (30, 12)
    assert set(report.repairs) == {"image_size_corrected", "polygon_clipped", "box_clipped", "area_recomputed"}


def test_doubled_folders(tmp_path: Path) -> None:
    """Images are found in a doubled folder, and a namesake in another split's folder does not confuse."""
    make(tmp_path, [face()], "val")
    make(tmp_path, [face()], "test_dev")
    Image.new("RGB", (WIDTH, HEIGHT), (0, 250, 0)).save(tmp_path / "Images/Test-Dev/0.jpg")
    doubled = tmp_path / "Images/Test-Dev/Test-Dev"
    doubled.mkdir()
    (tmp_path / "Images/Test-Dev/0.jpg").rename(doubled / "0.jpg")
    report = openforensics.convert(tmp_path, tmp_path / "out", splits=["test_dev"]).splits["test_dev"]
    assert report.changes["file_found_elsewhere"]["count"] == 1
    assert (tmp_path / "out/test_dev/images/0.jpg").samefile(doubled / "0.jpg")


def test_ambiguous_image(tmp_path: Path) -> None:
    make(tmp_path, [face()])
    for i, folder in enumerate(("a/Val", "b/Val")):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("RGB", (WIDTH, HEIGHT + 99 * i)).save(tmp_path / folder / "0.jpg")
    (tmp_path / "Images/Val/0.jpg").unlink()
    with pytest.raises(UserError, match=r"may be any of"):
        converted(tmp_path)


def test_unchanged_splits_are_kept_and_changed_ones_are_not(tmp_path: Path) -> None:
    make(tmp_path, [face()])
    assert converted(tmp_path)[0].fresh
    before = (tmp_path / "out/val/annotations.json").stat().st_mtime_ns
    os.utime(tmp_path / "Val_poly.json")  # a checkout changes times
    assert not converted(tmp_path)[0].fresh
    assert (tmp_path / "out/val/annotations.json").stat().st_mtime_ns == before

    (tmp_path / "out/val/images/0.jpg").unlink()
    assert converted(tmp_path)[0].fresh
    (tmp_path / "out/val/annotations.json").unlink()
    assert converted(tmp_path)[0].fresh
    make(tmp_path, [face(), face(id=1)])
    report, document = converted(tmp_path)
    assert report.fresh
    assert len(document["annotations"]) == 2
    (tmp_path / "Images/Val/0.jpg").unlink()
    Image.new("RGB", (WIDTH, HEIGHT), "white").save(tmp_path / "Images/Val/0.jpg")
    assert converted(tmp_path)[0].fresh


def test_refused_conversion_keeps_the_earlier_one(tmp_path: Path) -> None:
    make(tmp_path, [face()])
    converted(tmp_path)
    before = (tmp_path / "out/val/annotations.json").read_bytes()
    make(tmp_path, [face(bbox="x")])
    with pytest.raises(UserError):
        converted(tmp_path)
    assert (tmp_path / "out/val/annotations.json").read_bytes() == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["val"]


@pytest.mark.parametrize("number", [28, 122])
def test_full_disk(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, [face()])

    def full(*args, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(UserError, match="disk is full; the conversion of 'val' was undone"):
        converted(tmp_path)
    assert list((tmp_path / "out").iterdir()) == []


def test_interruption_leaves_whole_splits_only(tmp_path: Path) -> None:
    make(tmp_path, [face()], "train")
    make(tmp_path, [face()], "val")

    def interrupt(task: str, done: int, total: int) -> None:
        if task == "val: converting faces":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        openforensics.convert(tmp_path, tmp_path / "out", splits=["train", "val"], progress=interrupt)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["train"]
    report = openforensics.convert(tmp_path, tmp_path / "out", splits=["train", "val"])
    assert [part.fresh for part in report.splits.values()] == [False, True]


def test_report_does_not_depend_on_the_place(tmp_path: Path) -> None:
    """Equal input gives equal bytes, wherever and whenever."""
    for folder in (tmp_path / "a", tmp_path / "b"):
        make(folder, [face(area=9)])
        converted(folder)
        time.sleep(0.01)
    for name in ("annotations.json", "conversion.json"):
        assert (tmp_path / "a/out/val" / name).read_bytes() == (tmp_path / "b/out/val" / name).read_bytes()


def test_unknown_split(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'tset_dev' is no split") as error:
        openforensics.convert(tmp_path, tmp_path, splits=["tset_dev"])
    assert "test_dev" in error.value.remedy
    with pytest.raises(UserError, match=r"Val_poly\.json: no such file"):
        openforensics.convert(tmp_path, tmp_path, splits=["val"])


def test_a_users_own_files_with_frame_step(tmp_path: Path) -> None:
    """Names count, not ids or their case; every third frame of each folder in natural order."""
    images, faces = [], []
    for clip in ("a", "b"):
        (tmp_path / "frames" / clip).mkdir(parents=True)
        for i in range(11):
            Image.new("RGB", (WIDTH, HEIGHT), (i, 0, 0)).save(tmp_path / f"frames/{clip}/f{i}.png")
            identity = len(images) + 100
            images.append({"id": identity, "file_name": f"{clip}/f{i}.png", "width": WIDTH, "height": HEIGHT})
            faces.append(face(id=len(faces) + 7, image_id=identity, category_id=30 + i % 2))
    document = {
        "annotations": faces,
        "images": images,
        "categories": [{"id": 31, "name": "real"}, {"id": 30, "name": "FAKE"}],
    }
    path = tmp_path / "own.json"
    path.write_text(json.dumps(document))
    report = convert.convert_coco({"val": path}, {"val": tmp_path / "frames"}, tmp_path / "out", frame_step=3)
    result = coco.read(tmp_path / "out/val/annotations.json")
    coco.validate(tmp_path / "out/val/annotations.json")
    names = [image["file_name"] for image in result["images"]]
    assert names == [f"images/{clip}__f{i}.png" for clip in "ab" for i in (0, 3, 6, 9)]
    assert report.splits["val"].faces == {"Real": 4, "Fake": 4}
    with pytest.raises(UserError, match="no image folder for the split 'val'"):
        convert.convert_coco({"val": path}, {}, tmp_path / "out")


def test_videos_and_tracks_are_kept(tmp_path: Path) -> None:
    """Of all images and faces, or of none."""
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.png")
    Image.new("RGB", (WIDTH, HEIGHT), "red").save(tmp_path / "b.png")
    images = [{"id": i, "file_name": f"{name}.png", "video_id": "clip"} for i, name in enumerate("ab", 1)]
    faces = [face(id=i, image_id=i, track_id=i + 6) for i in (1, 2)]

    def converted() -> dict:
        (tmp_path / "own.json").write_text(json.dumps({"images": images, "annotations": faces}))
        convert.convert_coco({"val": tmp_path / "own.json"}, {"val": tmp_path}, tmp_path / "out")
        coco.validate(tmp_path / "out/val/annotations.json")
        return coco.read(tmp_path / "out/val/annotations.json")

    result = converted()
    assert [image["video_id"] for image in result["images"]] == ["clip", "clip"]
    assert [one["track_id"] for one in result["annotations"]] == [7, 8]
    del result["images"][0]["video_id"]
    (tmp_path / "out/val/partly.json").write_text(json.dumps(result))
    with pytest.raises(UserError, match="video_id: some have one, others none"):
        coco.validate(tmp_path / "out/val/partly.json")
    faces[1]["track_id"] = None
    with pytest.raises(UserError, match=r"annotations\[1\]\.track_id: of some faces only"):
        converted()
    images[1]["video_id"] = 1.5
    with pytest.raises(UserError, match=r"images\[1\]\.video_id: expected an integer or a text"):
        converted()
    del images[1]["video_id"]
    with pytest.raises(UserError, match="some have a video_id, others none"):
        converted()


# ------------------------------------------------------------------------------------------------------- geometry

coordinate = st.integers(-15, 45)


@settings(max_examples=200, deadline=None)
@given(points=st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=8))
def test_clipping_is_intersection_with_the_image(points: list[tuple[int, int]]) -> None:
    """Against a raster: fill the polygon on a large canvas and cut the image out (8-fold)."""
    width, height, scale, margin = 30, 20, 8, 20
    clipped = clip_ring(np.array(points, dtype=np.float64), width, height)

    def raster(ring: np.ndarray) -> np.ndarray:
        canvas = Image.new("1", ((width + 2 * margin) * scale, (height + 2 * margin + 10) * scale))
        if len(ring) >= 3:
            ImageDraw.Draw(canvas).polygon([((x + margin) * scale, (y + margin) * scale) for x, y in ring], fill=1)
        return np.asarray(canvas)[margin * scale : (margin + height) * scale, margin * scale : (margin + width) * scale]

    # Even-odd and non-zero filling agree for simple polygons only, so compare where one filling rule is used for both;
    # the border of the raster may differ by its width.
    different = raster(np.array(points)) != raster(clipped)
    assert different[2:-2, 2:-2].mean() < 0.03
    if len(clipped):
        assert clipped.min() >= 0
        assert (clipped <= (width, height)).all()


@settings(max_examples=100, deadline=None)
@given(
    points=st.lists(st.tuples(st.floats(-10, 70), st.floats(-10, 50)), min_size=1, max_size=9),
    box=st.none() | st.tuples(*[st.floats(-20, 80)] * 4).map(list),
    area=st.none() | st.floats(-10, 5000),
)
def test_whatever_comes_out_is_canonical(points, box, area) -> None:
    notes = Notes()
    given_face = {"segmentation": [[value for point in points for value in point]], "bbox": box, "area": area}
    result = repair_face(given_face, WIDTH, HEIGHT, "face", notes)
    if result is None:
        assert {"face_without_mask", "face_degenerate"} & set(notes.counts)
        return
    coco._validate_face({"id": 1, "image_id": 1, "category_id": 1, **result}, {1: (WIDTH, HEIGHT)}, "face")
    pixels = float(coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(result["segmentation"], HEIGHT, WIDTH))))
    assert pixels >= 1
    again = repair_face(result, WIDTH, HEIGHT, "face", repeated := Notes())
    assert not set(repeated.counts) & set(REPAIRS)
    assert again == result


@settings(max_examples=60, deadline=None)
@given(bits=st.lists(st.booleans(), min_size=12, max_size=12))
def test_run_lengths_survive(bits: list[bool]) -> None:
    mask = np.array(bits, dtype=np.uint8).reshape(3, 4)
    rle = coco_mask.encode(np.asfortranarray(mask))
    given_face = {"segmentation": {"size": [3, 4], "counts": rle["counts"].decode()}}
    result = repair_face(given_face, 4, 3, "face", Notes())
    if not mask.any():
        assert result is None
    else:
        assert (coco_mask.decode(result["segmentation"]) == mask).all()
        assert result["area"] == mask.sum()
