"""The embedded datasets alike: OpenForensics' own form, boxes and areas of the outlines, the normal conversion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from comics.data.crowd import dataset as crowd
from comics.data.mini import dataset as mini
from comics.data.openforensics.dataset import convert
from comics.params import CrowdDataset, MiniDataset

SIZES: dict[str, Any] = {
    "seed": 5,
    "width": 128,
    "height": 96,
    "train": 5,
    "val": 1,
    "test_dev": 2,
    "test_challenge": 2,
}


@pytest.fixture(scope="module", params=["mini", "crowd"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def raw(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(kind) / "raw"
    if kind == "mini":
        mini.make(MiniDataset(**SIZES), folder, processes=1)
    else:
        crowd.make(CrowdDataset(**SIZES), folder, processes=1)
    return folder


def test_files_have_openforensics_own_form(kind: str, raw: Path) -> None:
    content = json.loads((raw / "Train_poly.json").read_text())
    assert [(c["id"], c["name"]) for c in content["categories"]] == [(0, "Real"), (1, "Fake")]
    assert content["images"][0]["file_name"].startswith("Images/Train/")
    for image in content["images"]:
        with Image.open(raw / image["file_name"]) as file:
            assert (file.format, file.size) == ("JPEG", (image["width"], image["height"]))
    for face in content["annotations"]:
        forgery = {"forgery"} if kind == "crowd" and face["category_id"] == 1 else set()
        assert set(face) == {"id", "image_id", "iscrowd", "area", "category_id", "bbox", "segmentation"} | forgery
    assert [face["id"] for face in content["annotations"]] == list(range(len(content["annotations"])))


def test_boxes_and_areas_are_those_of_the_outlines(kind: str, raw: Path) -> None:
    content = json.loads((raw / "Train_poly.json").read_text())
    assert content["annotations"]
    for face in content["annotations"]:
        mask = rle.decode(rle.merge(rle.frPyObjects(face["segmentation"], SIZES["height"], SIZES["width"])))
        x, y, width, height = face["bbox"]
        rows, columns = np.nonzero(mask)
        assert columns.min() == pytest.approx(x, abs=1.1)
        assert rows.max() + 1 == pytest.approx(y + height, abs=1.1)
        if kind == "crowd":
            assert mask.sum() == face["area"]
        else:  # the outlines' own, by the shoelace formula
            assert mask.sum() == pytest.approx(face["area"], rel=0.15, abs=12)
        assert width > 0


def test_the_normal_conversion_takes_it(raw: Path, tmp_path: Path) -> None:
    report = convert(raw, tmp_path)
    assert [report.splits[split].images for split in ("train", "val", "test_dev", "test_challenge")] == [5, 1, 2, 2]
