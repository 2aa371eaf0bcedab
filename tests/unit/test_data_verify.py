"""Verification: counts, unreadable images, duplicates, card and figure; frames of videos; the commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from comics.cli import app
from comics.data.canonical import coco, frames
from comics.data.canonical.verify import verify
from comics.data.openforensics.dataset import PAPER_COUNTS
from comics.errors import UserError

PARAMS = (Path(__file__).parents[2] / "params.yaml").read_text()


def make_split(folder: Path, split: str, greys: list[int], first: int = 1, faces: int = 2) -> None:
    """A canonical split of flat images; faces are alternately real and fake, 10 and 40 px wide."""
    (folder / split / "images").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for i, grey in enumerate(greys):
        Image.new("L", (100, 80), grey).convert("RGB").save(folder / split / f"images/{i}.png")
        images.append({"id": first + i, "file_name": f"images/{i}.png", "width": 100, "height": 80})
        for k in range(faces):
            x, side = 5 + 45 * (k % 2), 10 + 30 * (k % 2)
            ring = [x, 5, x + side, 5, x + side, 5 + side, x, 5 + side]
            annotations.append(
                {
                    "id": len(annotations) + first,
                    "image_id": first + i,
                    "category_id": 1 + k % 2,
                    "bbox": [x, 5, side, side],
                    "area": side * side,
                    "iscrowd": 0,
                    "segmentation": [ring],
                }
            )
    coco.write(folder / split / "annotations.json", images, annotations)


def test_statistics(tmp_path: Path) -> None:
    make_split(tmp_path, "train", [1, 2, 3])
    make_split(tmp_path, "val", [4], first=50, faces=0)
    result = verify(tmp_path)
    train = result.splits["train"]
    assert (train.images, train.faces, train.mixed_images) == (3, {"Real": 3, "Fake": 3}, 3)
    assert train.faces_per_image == {2: 3}
    assert train.sizes == {"small": 3, "medium": 3, "large": 0}
    assert train.side_quantiles[2] == 25
    assert train.fill == 1.0
    assert result.splits["val"].faces_per_image == {0: 1}
    assert result.problems == []
    assert json.loads((tmp_path / "verification.json").read_text())["splits"]["train"]["images"] == 3


def test_counts_against_the_papers(tmp_path: Path) -> None:
    make_split(tmp_path, "val", [4, 5])
    result = verify(tmp_path, PAPER_COUNTS)
    assert [(d.what, d.expected, d.found) for d in result.differences] == [
        ("images", 7308, 2),
        ("Real", 4786, 2),
        ("Fake", 10566, 2),
    ]
    card = (tmp_path / "card.md").read_text()
    assert "| val | images | 2 | 7,308 | -7,306 |" in card
    assert (PAPER_COUNTS["train"]["images"], PAPER_COUNTS["train"]["Real"], PAPER_COUNTS["train"]["Fake"]) == (
        44122,
        85392,
        65972,
    )


def test_duplicates_and_leaks(tmp_path: Path) -> None:
    """By pixels, whatever the file's bytes are; within a split and between test splits it is no leak."""
    make_split(tmp_path, "train", [10, 11, 11])
    make_split(tmp_path, "test_dev", [20, 10], first=10)
    make_split(tmp_path, "test_challenge", [20], first=20)
    path = tmp_path / "test_dev/images/1.png"
    Image.open(path).save(path, compress_level=0)
    result = verify(tmp_path)
    assert sorted(result.duplicates) == [
        ["test_challenge/images/0.png", "test_dev/images/0.png"],
        ["test_dev/images/1.png", "train/images/0.png"],
        ["train/images/1.png", "train/images/2.png"],
    ]
    assert result.leaks == [["test_dev/images/1.png", "train/images/0.png"]]
    assert "test_dev/images/1.png = train/images/0.png" in result.problems[0]
    assert "(leak)" in (tmp_path / "card.md").read_text()


def test_unreadable_and_truncated_images(tmp_path: Path) -> None:
    make_split(tmp_path, "train", [1, 2, 3])
    path = tmp_path / "train/images/1.png"
    pixels = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:9000])
    result = verify(tmp_path)
    assert result.splits["train"].unreadable == ["train/images/1.png"]
    assert "1 unreadable images, train/images/1.png first" in result.problems[0]


def test_second_time_decodes_nothing_that_stayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_split(tmp_path, "train", [1, 2, 3])
    first = verify(tmp_path)
    card, figure = (tmp_path / "card.md").read_bytes(), (tmp_path / "card.png").read_bytes()
    known = json.loads((tmp_path / ".hashes.json").read_text())
    Image.new("RGB", (100, 80), (9, 9, 200)).save(tmp_path / "train/images/2.png")
    assert verify(tmp_path).splits == first.splits
    renewed = json.loads((tmp_path / ".hashes.json").read_text())
    assert [key for key in known if known[key] != renewed[key]] == ["train/images/2.png"]
    make_split(tmp_path, "train", [1, 2, 3])
    verify(tmp_path)
    assert ((tmp_path / "card.md").read_bytes(), (tmp_path / "card.png").read_bytes()) == (card, figure)


def test_interrupted_verification_keeps_its_hashes(tmp_path: Path) -> None:
    make_split(tmp_path, "train", [1, 2, 3])

    def interrupt(task: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(tmp_path, jobs=1, progress=interrupt)
    assert json.loads((tmp_path / ".hashes.json").read_text())
    assert not (tmp_path / "card.md").exists()


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no converted split"):
        verify(tmp_path)
    make_split(tmp_path, "train", [1])
    (tmp_path / "train/images/0.png").unlink()
    with pytest.raises(UserError, match=r"images\[0\]\.file_name"):
        verify(tmp_path)


# ------------------------------------------------------------------------------------------------------- frames


def test_frames_in_natural_order(tmp_path: Path) -> None:
    for clip in ("b", "a/x"):
        (tmp_path / clip).mkdir(parents=True)
        for i in range(12):
            (tmp_path / clip / f"frame_{i}.png").touch()
        (tmp_path / clip / "notes.txt").touch()
    found = [str(path.relative_to(tmp_path)) for path in frames.sample(tmp_path, 5)]
    assert found == [f"{clip}/frame_{i}.png" for clip in ("a/x", "b") for i in (0, 5, 10)]
    assert len(frames.sample(tmp_path, 1)) == 24
    with pytest.raises(UserError, match="frame_step"):
        frames.sample(tmp_path, 0)
    with pytest.raises(UserError, match="no such folder"):
        frames.sample(tmp_path / "c", 1)


# ----------------------------------------------------------------------------------------------------- commands


def run(*arguments: object):
    return CliRunner().invoke(app(), ["data", *map(str, arguments)])


def test_commands_on_a_users_own_dataset(tmp_path: Path) -> None:
    """convert, verify and perturb from params.yaml alone."""
    make_split(tmp_path / "own", "train", [1, 2])
    make_split(tmp_path / "own", "test_dev", [3, 4], first=10)
    params = tmp_path / "params.yaml"
    entry = f"""datasets:
  mine:
    kind: coco
    annotations:
      train: {tmp_path}/own/train/annotations.json
      test_dev: {tmp_path}/own/test_dev/annotations.json
    images:
      train: {tmp_path}/own/train
      test_dev: {tmp_path}/own/test_dev
"""
    params.write_text(PARAMS.replace("datasets:\n", entry, 1))
    options = ("--params", params, "--root", tmp_path / "data")
    result = run("convert", "mine", *options)
    assert result.exit_code == 0, result.exception
    assert "train" in result.stdout
    assert coco.validate(tmp_path / "data/mine/train/annotations.json").faces == {"Real": 2, "Fake": 2}

    result = run("perturb", "mine", "--jobs", 1, "--seed", 3, *options)
    assert result.exit_code == 0, result.exception
    assert "2 images, 4 faces, 0 left the picture" in result.stdout
    assert "is there already" in str(run("perturb", "mine", *options).exception)
    assert run("perturb", "mine", "--jobs", 1, "--overwrite", *options).exit_code == 0

    result = run("verify", "mine", *options)
    assert result.exit_code == 0, result.exception
    assert "test_challenge: 2 images, 2 Real, 2 Fake" in result.stdout
    assert (tmp_path / "data/mine/card.png").stat().st_size > 1000


def test_commands_refuse_by_name(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(PARAMS)
    options = ("--params", params, "--root", tmp_path / "data")
    for arguments, message in (
        (("convert", "openforensic"), "there is no dataset 'openforensic'"),
        (("convert", "openforensics", "--split", "tain"), "there is no split 'tain'"),
        (("convert", "openforensics"), "Train_poly.json: no such file"),
        (("make", "openforensics"), "is not made but fetched"),
        (("fetch", "mini"), "has no record to fetch"),
        (("verify", "mini"), "holds no converted split"),
        (("perturb", "mini", "--to", "x"), "there is no split 'x'"),
    ):
        error = run(*arguments, *options).exception
        assert isinstance(error, UserError), arguments
        assert message in error.message


def test_verify_ends_with_an_error_when_images_leak(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(PARAMS)
    make_split(tmp_path / "data/mini", "train", [1, 2])
    make_split(tmp_path / "data/mini", "test_dev", [2, 3], first=10)
    result = run("verify", "mini", "--params", params, "--root", tmp_path / "data")
    assert isinstance(result.exception, UserError)
    assert "both in training and in test" in result.exception.message
    assert "train: 2 images, 2 Real, 2 Fake" in result.stdout
    assert "train: 2 images, expected" in result.stdout
