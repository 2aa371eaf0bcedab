"""The embedded dataset: the same bytes for the same seed, OpenForensics' own form, forgeries inside of faces."""

from __future__ import annotations

import hashlib
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from comics.data.mini.dataset import make, outline, render_image, simplify
from comics.params import MiniDataset

SPEC = MiniDataset(seed=5, width=128, height=96, train=5, val=1, test_dev=2, test_challenge=2)


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mini") / "raw"
    make(SPEC, folder, processes=1)
    return folder


def test_the_number_of_processes_and_an_interruption_change_nothing(raw: Path, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(task: str, done: int, total: int) -> None:
        if task == "rendering test_dev":
            raise StopError

    with pytest.raises(StopError):
        make(SPEC, tmp_path, processes=2, progress=stop)
    assert not (tmp_path / "Test-Dev_poly.json").exists()
    make(SPEC, tmp_path, processes=2)
    assert contents(tmp_path) == contents(raw)


def test_what_is_there_is_not_rendered_again_unless_the_seed_changed(raw: Path, tmp_path: Path) -> None:
    told: list[str] = []
    make(SPEC, raw, processes=1, progress=lambda task, done, total: told.append(task))
    assert told == []
    before = (raw / "Val_poly.json").read_bytes()
    make(SPEC.model_copy(update={"seed": 6}), tmp_path, processes=1)
    assert (tmp_path / "Val_poly.json").read_bytes() != before


def test_another_size_of_a_test_split_renders_that_one_alone(raw: Path, tmp_path: Path) -> None:
    copy = tmp_path / "raw"
    shutil.copytree(raw, copy)
    before = {path: path.stat().st_mtime_ns for path in copy.glob("*_poly.json")}
    make(SPEC.model_copy(update={"test_dev": 3}), copy, processes=1)
    changed = [path.name for path, moment in before.items() if path.stat().st_mtime_ns != moment]
    assert changed == ["Test-Dev_poly.json"]


def test_a_forgery_changes_the_inner_face_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    from comics.data.mini import scenes

    for index in range(6):
        rng = np.random.default_rng(index)
        forged, faces, _ = scenes.render_scene(rng, 96, 128, 1.0)
        with monkeypatch.context() as patch:
            patch.setattr(scenes, "_swap", lambda rng, picture, *rest: picture)
            original, *_ = scenes.render_scene(np.random.default_rng(index), 96, 128, 1.0)
        changed = (forged != original).any(-1)
        covered = np.max([face.coverage for face in faces], axis=0) > 0 if faces else np.zeros_like(changed)
        assert not (changed & ~covered).any()
        if faces:
            assert changed.any()


def test_the_challenge_is_harder_to_read_than_the_scene_it_was_made_of() -> None:
    data, faces = render_image(SPEC, "test_challenge", 0)
    again, _ = render_image(SPEC, "test_challenge", 0)
    assert data == again
    assert Image.open(io.BytesIO(data)).size == (SPEC.width, SPEC.height)
    assert all(face["category_id"] in (0, 1) for face in faces)


def test_outlines_keep_within_their_tolerance() -> None:
    rows, columns = np.mgrid[:60, :80]
    radius = np.sqrt((rows - 30) ** 2 / 400 + (columns - 40) ** 2 / 900)
    coverage = np.clip((1 - radius) * 20 + 0.5, 0, 1).astype(np.float32)
    polygons = outline(coverage)
    mask = rle.decode(rle.merge(rle.frPyObjects(polygons, 60, 80)))
    assert (mask != (coverage >= 0.5)).sum() < 0.03 * coverage.sum()
    assert len(polygons[0]) < 100
    assert outline(np.zeros((20, 20), np.float32)) == []
    ring = np.array([[0, 0], [4, 0], [8, 0.01], [8, 4], [8, 8], [4, 8.01], [0, 8], [0, 4]], float)
    assert len(simplify(ring, 0.1)) == 4
