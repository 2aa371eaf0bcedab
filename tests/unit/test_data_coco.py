"""Reading, writing and validating canonical COCO files."""

from __future__ import annotations

import copy
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comics.data.canonical import coco
from comics.errors import UserError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def collect(path: Path) -> dict:
    """The streamed file put together again."""
    document: dict = {}
    for key, index, value in coco.stream(path):
        if index >= 0:
            assert index == len(document.setdefault(key, []))
            document[key].append(value)
        else:
            document[key] = value
    return document


@settings(max_examples=150, deadline=None)
@given(
    document=st.dictionaries(st.text(max_size=5), values, max_size=4), indent=st.sampled_from([None, 1]), data=st.data()
)
def test_stream_reads_what_json_reads(document, indent, data, tmp_path_factory) -> None:
    """Whatever the size of the window, down to one character."""
    path = tmp_path_factory.mktemp("stream") / "x.json"
    path.write_text(json.dumps(document, indent=indent, ensure_ascii=data.draw(st.booleans())), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco, "_CHUNK", data.draw(st.integers(1, 40)))
        assert collect(path) == json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"top level: expected '\{'"),
        ("[]", r"top level: expected '\{'"),
        ('{"images": [', r"images\[0\]: Expecting value at the end of the file"),
        ('{"images": [{"id": 1}, {"id": ', r"images\[1\]: Expecting value at the end of the file"),
        ('{"images": [{"id": "abc', r"images\[0\]: Unterminated string"),
        ('{"annotations": [{"id": 1}, {"id" 2}' + " " * 99 + "]}", r"annotations\[1\]: Expecting ':' delimiter"),
        ('{"annotations": [1 2]}', r"annotations\[0\]: expected ',' or '\]'"),
        ('{"annotations": [NaN]}', r"annotations\[0\]: NaN is not a JSON number"),
        ('{"a": 1} x', r"something follows"),
        ('{"a": 1, "a": 2}', r"a: the key stands twice"),
        ('{"a": [' + "[" * 200_000, r"a\[0\]: nested too deeply"),
        ('{"a" 1}', r"expected ':'"),
        ('{"a": [' + "1" * 9999 + "]}", r"a\[0\]: Exceeds the limit"),
        ("{1: 2}", r"expected '\"'"),
    ],
)
def test_malformed_files_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        collect(path)
    assert str(path) in error.value.message


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b'{"images": ["\xff\xfe"]}')
    with pytest.raises(UserError, match="not UTF-8"):
        collect(path)
    with pytest.raises(UserError, match="no such file"):
        collect(tmp_path / "y.json")


def test_truncated_everywhere(tmp_path: Path) -> None:
    """No prefix of a file passes for the file."""
    text = json.dumps({"info": {"n": 12}, "images": [{"id": 1}], "annotations": [{"a": [1.5, -2e3]}, True]})
    path = tmp_path / "x.json"
    for end in range(len(text)):
        path.write_text(text[:end])
        with pytest.raises(UserError):
            collect(path)


def test_stream_needs_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    face = {"id": 1, "segmentation": [[i + 0.25 for i in range(200)]]}
    with path.open("w") as file:
        file.write('{"images": [], "annotations": [')
        file.write(",".join([json.dumps(face)] * 8000))
        file.write("]}")
    size = path.stat().st_size
    assert size > 10e6
    tracemalloc.start()
    count = sum(index >= 0 for _, index, _ in coco.stream(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 8000
    assert peak < 6e6 < size


def test_malformed_element_does_not_read_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"annotations": [{"id": 1, oops}' + ", {}" * 2_000_000 + "]}")
    read = []
    with pytest.raises(UserError, match=r"annotations\[0\]"):
        list(coco.stream(path, read.append))
    assert sum(read) <= 2 * coco._CHUNK


GOOD = {
    "images": [{"id": 1, "file_name": "images/a.jpg", "width": 20, "height": 10}],
    "annotations": [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 2,
            "bbox": [1, 1, 5, 5],
            "area": 25,
            "iscrowd": 0,
            "segmentation": [[1, 1, 6, 1, 6, 6, 1, 6]],
        }
    ],
}


def write(folder: Path, document: dict) -> Path:
    path = folder / "annotations.json"
    coco.write(path, document["images"], document["annotations"])
    (folder / "images").mkdir(exist_ok=True)
    (folder / "images/a.jpg").touch()
    return path


def test_write_then_read(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    document = coco.read(path)
    assert document["images"] == GOOD["images"]
    assert document["annotations"] == GOOD["annotations"]
    assert json.loads(path.read_text()) == document
    summary = coco.validate(path)
    assert (summary.images, summary.faces, summary.empty) == (1, {"Real": 0, "Fake": 1}, 0)


def test_pycocotools_reads_it(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    loaded = COCO(str(write(tmp_path, GOOD)))
    assert loaded.annToMask(loaded.anns[1]).sum() == 25
    assert [category["name"] for category in loaded.loadCats([1, 2])] == ["Real", "Fake"]


def test_nothing_at_all_is_a_valid_file(tmp_path: Path) -> None:
    path = tmp_path / "annotations.json"
    coco.write(path, [], [])
    assert json.loads(path.read_text())["annotations"] == []
    assert coco.validate(path).images == 0


def test_writer_leaves_nothing_behind_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "annotations.json"
    with pytest.raises(ValueError, match="JSON"):
        coco.write(path, [{"id": float("nan")}], [])

    def interrupted():
        writer.image({"id": 1})
        raise RuntimeError

    with pytest.raises(RuntimeError), coco.Writer(path) as writer:
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_images_come_before_annotations(tmp_path: Path) -> None:
    with coco.Writer(tmp_path / "x.json") as writer:
        writer.annotation({"id": 1})
        with pytest.raises(ValueError, match="before"):
            writer.image({"id": 1})


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("images", 0, "id"), 0, r"images\[0\]\.id"),
        (("images", 0, "width"), 0, r"images\[0\]"),
        (("images", 0, "height"), "10", r"images\[0\]\.height: expected a number"),
        (("images", 0, "file_name"), "../a.jpg", r"images\[0\]\.file_name: .* leads out"),
        (("images", 0, "file_name"), "/etc/passwd", r"leads out"),
        (("images", 0, "file_name"), "images/b.jpg", r"is not beside the file"),
        (("annotations", 0, "id"), 0, r"annotations\[0\]\.id"),
        (("annotations", 0, "id"), True, r"annotations\[0\]\.id: expected a number, found True"),
        (("annotations", 0, "image_id"), 9, r"there is no image 9"),
        (("annotations", 0, "category_id"), 0, r"category_id: expected 1 or 2"),
        (("annotations", 0, "iscrowd"), None, r"iscrowd: expected 0 or 1, found nothing"),
        (("annotations", 0, "area"), 0, r"area: 0 is not positive"),
        (("annotations", 0, "bbox"), [1, 1, 5], r"bbox: expected \[x, y, width, height\]"),
        (("annotations", 0, "bbox"), [18, 1, 5, 5], r"bbox: .* leaves its image"),
        (("annotations", 0, "bbox"), [1, 1, 0, 5], r"bbox: .* is empty"),
        (("annotations", 0, "segmentation"), [], r"segmentation: expected polygons or an RLE"),
        (("annotations", 0, "segmentation"), [[1, 1, 2, 2]], r"at least three points"),
        (("annotations", 0, "segmentation"), [[1, 1, 2, 2, None, 3]], r"segmentation\[0\]: expected a number"),
        (("annotations", 0, "segmentation"), {"size": [20, 10], "counts": "x"}, r"size \[10, 20\]"),
    ],
)
def test_validate_names_what_is_wrong(where: tuple, value: object, message: str, tmp_path: Path) -> None:
    document = copy.deepcopy(GOOD)
    section, index, field = where
    document[section][index][field] = value
    with pytest.raises(UserError, match=message):
        coco.validate(write(tmp_path, document))


def test_validate_finds_what_stands_twice_or_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"images\[1\]\.id"):
        coco.validate(write(tmp_path, {**GOOD, "images": GOOD["images"] * 2}))
    with pytest.raises(UserError, match=r"annotations\[1\]\.id: 1 stands twice"):
        coco.validate(write(tmp_path, {**GOOD, "annotations": GOOD["annotations"] * 2}))
    path = tmp_path / "x.json"
    path.write_text('{"images": []}')
    with pytest.raises(UserError, match="'categories' is missing"):
        coco.validate(path)
    path.write_text('{"images": [], "annotations": [], "categories": [{"id": 0, "name": "Real"}]}')
    with pytest.raises(UserError, match="expected 1 = Real and 2 = Fake"):
        coco.validate(path)
