"""Images with masks and videos with mask videos, as canonical COCO."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from typer.testing import CliRunner

from comics.cli import app
from comics.data.canonical import coco
from comics.data.canonical.masks import MaskSource, convert_masks
from comics.data.canonical.videos import VideoSource, chosen_names, convert_videos
from comics.errors import UserError
from comics.evaluation import evaluate

WIDTH, HEIGHT = 96, 64


def squares(*corners: tuple[int, int], value: int = 255, side: int = 16) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for number, (x, y) in enumerate(corners, 1):
        mask[y : y + side, x : x + side] = value or number
    return mask


def photo(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def save(mask: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def canonical(folder: Path, split: str = "test_dev") -> dict:
    path = folder / split / "annotations.json"
    coco.validate(path)
    return json.loads(path.read_text())


@pytest.fixture
def manipulated(tmp_path: Path) -> MaskSource:
    """Two forged faces in one image, touching by a corner in another, none in the third, which has no mask."""
    for seed, name in enumerate(("a/1.png", "a/2.png", "b/1.png")):
        photo(tmp_path / "images" / name, seed)
    save(squares((4, 4), (60, 30)), tmp_path / "masks/a/1_gt.png")
    save(squares((4, 4), (20, 20)), tmp_path / "masks/a/2_gt.png")
    return MaskSource(tmp_path / "images", tmp_path / "masks", suffix="_gt")


def test_components_become_fake_faces(manipulated: MaskSource, tmp_path: Path) -> None:
    report = convert_masks({"test_dev": manipulated}, tmp_path / "out", strict=True)
    assert report.splits["test_dev"].faces == {"Real": 0, "Fake": 3}
    result = canonical(tmp_path / "out")
    assert [image["file_name"] for image in result["images"]] == ["images/a__1.png", "images/2.png", "images/b__1.png"]
    first, second, diagonal = result["annotations"]
    assert first["bbox"] == [4, 4, 16, 16]
    assert second["bbox"] == [60, 30, 16, 16]
    assert diagonal["area"] == 512  # 8-connected: one face
    assert (coco_mask.decode(first["segmentation"]) == (squares((4, 4)) > 0)).all()


def test_values_of_indexed_masks_are_faces(manipulated: MaskSource, tmp_path: Path) -> None:
    mask = squares((4, 4), (20, 20), value=0)
    mask[50:, 80:] = 255  # to be ignored
    palette = Image.fromarray(mask).convert("P")
    palette.putdata(mask.ravel().tolist())
    palette.save(tmp_path / "masks/a/2_gt.png")
    save(squares(), tmp_path / "masks/a/1_gt.png")
    indexed = MaskSource(manipulated.images, manipulated.masks, suffix="_gt", indexed=True)
    convert_masks({"val": indexed}, tmp_path / "out")
    assert [face["bbox"] for face in canonical(tmp_path / "out", "val")["annotations"]] == [
        [4, 4, 16, 16],
        [20, 20, 16, 16],
    ]


def test_a_detectors_boxes_are_real_faces_where_nothing_is_forged(manipulated: MaskSource, tmp_path: Path) -> None:
    boxes = {
        "images": [{"id": 5, "file_name": "a/1.png"}, {"id": 6, "file_name": "b/1.png"}],
        "annotations": [
            {"image_id": 5, "bbox": [3, 3, 17, 18]},  # the forged one
            {"image_id": 5, "bbox": [62, 32, 6, 6]},  # within a forged one
            {"image_id": 5, "bbox": [30, 2, 16, 20]},
            {"image_id": 6, "bbox": [90, 60, 20, 20]},  # leaves the image
            {"image_id": 6, "bbox": [200, 60, 20, 20]},  # outside
        ],
    }
    (tmp_path / "faces.json").write_text(json.dumps(boxes))
    source = MaskSource(manipulated.images, manipulated.masks, tmp_path / "faces.json", "_gt")
    report = convert_masks({"test_dev": source}, tmp_path / "out")
    assert report.splits["test_dev"].faces == {"Real": 2, "Fake": 3}
    real = [face for face in canonical(tmp_path / "out")["annotations"] if face["category_id"] == 1]
    assert real[0]["bbox"] == [30, 2, 16, 20]
    assert real[0]["area"] == pytest.approx(np.pi / 4 * 16 * 20, rel=0.02)


def test_masks_that_fit_no_image_are_refused(manipulated: MaskSource, tmp_path: Path) -> None:
    def refused(source: MaskSource, match: str) -> None:
        with pytest.raises(UserError, match=match):
            convert_masks({"test_dev": source}, tmp_path / "out")
        assert not (tmp_path / "out/test_dev").exists()

    refused(MaskSource(manipulated.images, manipulated.masks), "2 of 2 masks belong to no image, 1_gt.png first")
    refused(MaskSource(manipulated.images, tmp_path / "absent"), "absent: no such folder")
    Image.new("L", (5, 5)).save(tmp_path / "masks/a/1_gt.png")
    refused(manipulated, r"1_gt\.png is 5 x 5 px, its image 96 x 64")
    (tmp_path / "masks/a/1_gt.png").write_bytes(b"no image")
    refused(manipulated, r"mask of a/1\.png: .* is no readable image")


# --------------------------------------------------------------------------------------------------------- videos


def film(path: Path, frames: list[np.ndarray]) -> None:
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", 4_000_000
        for pixels in frames:
            pixels = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                sink.mux(packet)
        for packet in stream.encode(None):
            sink.mux(packet)


@pytest.fixture
def forged(tmp_path: Path) -> VideoSource:
    """FaceForensics++-like: the target 001_002 of the source 001, and one of another split."""
    grey = [np.full((HEIGHT, WIDTH, 3), 40 + 10 * i, np.uint8) for i in range(7)]
    for name in ("001_002", "003_004"):
        film(tmp_path / f"target/{name}.mp4", grey)
        film(tmp_path / f"mask/{name}.mp4", [squares((16 + 8 * (i // 3), 16), side=24) for i in range(7)])
    film(tmp_path / "source/001.mp4", grey)
    (tmp_path / "test.json").write_text('[["001", "002"]]')
    folders = [tmp_path / name for name in ("target", "mask", "source", "test.json")]
    return VideoSource(*folders, forgery="swap", frame_step=3, real_by_mask=True)


def test_every_nth_frame_of_videos(forged: VideoSource, tmp_path: Path) -> None:
    report = convert_videos({"test_dev": forged}, tmp_path / "out")
    assert report.splits["test_dev"].faces == {"Real": 3, "Fake": 3}
    result = canonical(tmp_path / "out")
    assert [image["video_id"] for image in result["images"]] == ["target/001_002"] * 3 + ["source/001"] * 3
    fakes, reals = result["annotations"][:3], result["annotations"][3:]
    for i, face in enumerate(fakes):  # the mask is compressed: its border may move by a pixel
        assert face["bbox"] == pytest.approx([16 + 8 * i, 16, 24, 24], abs=2)
        assert face["forgery"] == "swap"
    assert all("forgery" not in face for face in reals)
    assert [face["track_id"] for face in result["annotations"]] == [1] * 6  # one face in each of two videos
    with Image.open(tmp_path / "out/test_dev" / result["images"][1]["file_name"]) as frame:
        assert np.asarray(frame).mean() == pytest.approx(70, abs=4)  # the fourth frame
    assert not convert_videos({"test_dev": forged}, tmp_path / "out").splits["test_dev"].fresh


def test_a_face_is_followed_through_its_video(tmp_path: Path) -> None:
    """Two forged faces, of which one jumps; then nothing for a while; a real one, told by boxes, lies between them."""
    film(tmp_path / "target/a.mp4", [np.full((HEIGHT, WIDTH, 3), 90, np.uint8)] * 9)
    places = [[(0, 0), (60, 30)], [(60, 34), (4, 0)], [(60, 0), (8, 0)], *[[]] * 3, [(8, 0), (60, 0)], [], [(60, 4)]]
    film(tmp_path / "mask/a.mp4", [squares(*corners, side=24) for corners in places])
    frames = [f"target/a/{number:06d}.png" for number in range(9)]
    boxes = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(frames)],
        "annotations": [{"image_id": number, "bbox": [32 + number, 36, 20, 20]} for number in range(9)],
    }
    (tmp_path / "faces.json").write_text(json.dumps(boxes))
    source = VideoSource(tmp_path / "target", tmp_path / "mask", faces=tmp_path / "faces.json", frame_step=1)
    convert_videos({"test_dev": source}, tmp_path / "out")
    content = canonical(tmp_path / "out")
    tracks: dict[int, set[tuple[int, bool]]] = {}
    for face in content["annotations"]:
        x, y, *_ = face["bbox"]
        place = 0 if x < 20 else 1 if x < 50 else 2 if y > 20 else 3
        tracks.setdefault(place, set()).add((face["track_id"], face["category_id"] == 2))
    first, real, second, jumped = (tracks[place] for place in range(4))
    assert len(real) == len(second) == 1
    assert {forged for _, forged in real} == {False}
    assert len(first) == len(jumped) == 2  # three frames without it end a track
    assert not first & jumped
    assert not (first | jumped) & (real | second)
    found = [{**face, "score": 0.9} for face in content["annotations"]]
    scores = evaluate(content, found)
    assert scores["segmentation", "all", "track_ACC"] == scores["segmentation", "all", "track_AUC"] == 1


def test_sources_without_known_faces(forged: VideoSource, tmp_path: Path) -> None:
    plain = VideoSource(forged.target, forged.mask, forged.source, forged.names)
    assert convert_videos({"val": plain}, tmp_path / "out").splits["val"].faces == {"Real": 0, "Fake": 1}
    boxes = {
        "images": [
            {"id": 1, "file_name": "source/001/000000.png"},
            {"id": 2, "file_name": "target/001_002/000000.png"},
        ],
        "annotations": [{"image_id": 1, "bbox": [16, 16, 24, 24]}, {"image_id": 2, "bbox": [16, 16, 24, 24]}],
    }
    (tmp_path / "faces.json").write_text(json.dumps(boxes))
    found = VideoSource(forged.target, forged.mask, forged.source, forged.names, tmp_path / "faces.json")
    assert convert_videos({"val": found}, tmp_path / "out").splits["val"].faces == {"Real": 1, "Fake": 1}


def test_what_videos_lack_is_said(forged: VideoSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mask/001_002.mp4").unlink()
    with pytest.raises(UserError, match="has no mask video '001_002'"):
        convert_videos({"test_dev": forged}, tmp_path / "out")
    (tmp_path / "mask/001_002.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=r"001_002\.mp4: not a video that can be read"):
        convert_videos({"test_dev": forged}, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.png"))
    (tmp_path / "bad.json").write_text('["001"]')
    with pytest.raises(UserError, match=r"bad\.json: \[0\]: expected a pair"):
        chosen_names(tmp_path / "bad.json")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match="Videos need PyAV") as error:
        convert_videos({"test_dev": forged}, tmp_path / "out")
    assert "[video]" in error.value.remedy


def test_scores_of_real_faces_are_empty_where_they_are_unknown(manipulated: MaskSource, tmp_path: Path) -> None:
    """Fake faces found exactly, and one real one found that the ground truth does not know."""
    convert_masks({"test_dev": manipulated}, tmp_path / "out")
    truth = canonical(tmp_path / "out")
    found = [
        {key: face[key] for key in ("image_id", "category_id", "bbox", "segmentation")} for face in truth["annotations"]
    ]
    found.append({**found[0], "category_id": 1, "bbox": [40, 40, 10, 10]})
    (tmp_path / "found.json").write_text(json.dumps([{**face, "score": 0.9} for face in found]))
    command = ["evaluate", str(tmp_path / "out/test_dev/annotations.json"), str(tmp_path / "found.json")]
    result = CliRunner().invoke(app(), [*command, "--output", str(tmp_path / "scores.csv")])
    assert result.exit_code == 0, result.output
    with (tmp_path / "scores.csv").open() as file:
        rows = {(row["task"], row["class"]): row for row in csv.DictReader(file)}
    for task in ("detection", "segmentation"):
        assert rows[task, "Real"]["AP"] == rows[task, "Real"]["oLRP"] == rows[task, "all"]["face_AUC"] == ""
        assert float(rows[task, "Fake"]["AP"]) == float(rows[task, "all"]["AP"]) == 1
