"""Disks: full ones, and two processes on one"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from injection import HANGS, ROOT, comics, environment, refused

from comics.params import load

sys.path.insert(0, str(ROOT / "tests" / "workflow"))
from fabricate import copy_project, fabricate

PARAMS = """
dataset: mini
datasets:
  mini: {kind: mini, width: 96, height: 64, train: 12, val: 2, test_dev: 2, test_challenge: 2}
training: {mini: {}}
models: {mini: {}}
runs:
  plain: {}
"""


def mounted(folder: Path, kilobytes: int) -> bool:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "comics-test", str(folder)]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB of its own."""
    folder = tmp_path / "disk"
    if not mounted(folder, 2048):
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, leave: int = 0) -> None:
    """Leave `leave` bytes free on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    (folder / "filler").write_bytes(bytes(max(0, free - leave)))


def litter(folder: Path) -> list[Path]:
    return [
        path for path in folder.rglob(".*") if path.is_file() and path.name != ".lock" and path.suffix not in (".lock",)
    ]


@pytest.mark.injects(
    "the disk is full in the middle of `comics data make`",
    "one message, code 2; made when there is room",
)
def test_data_make_on_a_full_disk(small_disk: Path) -> None:
    (small_disk / "params.yaml").write_text(PARAMS)
    fill(small_disk, 24 * 1024)
    refused(comics("data", "make", cwd=small_disk), "No space left on device", "are needed", "Make room")
    assert not litter(small_disk)
    (small_disk / "filler").unlink()
    done = comics("data", "make", cwd=small_disk)
    assert done.returncode == 0, done.stdout
    assert (small_disk / "data/mini/train/annotations.json").exists()


@pytest.mark.injects(
    "the disk is full while scores, a table, a figure and the page are written",
    "one message with file and room, what was there before is whole, code 2",
)
def test_evaluate_and_render_on_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    fabricate(load(project / "params.yaml"), project)
    truth = {"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "Real"}]}
    (project / "gt.json").write_text(json.dumps(truth))
    (project / "found.json").write_text("[]")
    kept = small_disk / "table_iv.tex"
    kept.write_text("as it was")
    fill(small_disk)
    for words in (
        ("evaluate", "gt.json", "found.json", "--output", small_disk / "scores.csv"),
        ("table", "table_iv", "--output", kept),
        ("figure", "figure_9", "--output", small_disk / "figure.pdf"),
        ("page", "--output", small_disk / "index.html"),
    ):
        refused(comics(*words, cwd=project), str(small_disk), "No space left on device", "are needed")
    assert kept.read_text() == "as it was"
    assert {path.name for path in small_disk.iterdir()} == {"filler", "table_iv.tex"}


@pytest.mark.injects("a folder that may not be written, a file in the place of a folder", "named, code 2")
def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "data").write_text("a file")
    refused(comics("data", "make", cwd=tmp_path), "data")


@pytest.mark.faults
@pytest.mark.injects(
    "two `comics data make` of one dataset at one instant", "one waits for the other; both end with code 0"
)
def test_two_makes_of_one_dataset(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS)
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "comics", "data", "make"],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    texts = [process.communicate(timeout=HANGS)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    assert (tmp_path / "data/mini/train/annotations.json").exists()
    assert not litter(tmp_path / "data")


@pytest.mark.faults
@pytest.mark.injects("two `comics demo` in one folder at one instant", "one waits for the other; both end with code 0")
def test_two_demos(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    fabricate(load(project / "params.yaml"), project)
    for path in sorted(project.glob("results/**/*"), key=os.path.getmtime):
        path.touch()  # newer than the copied code: there is nothing to do but render
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "comics", "demo"],
            cwd=project,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    texts = [process.communicate(timeout=HANGS)[0] for process in both]
    assert not any("LockException" in text for text in texts), texts
    assert any("waiting for it to end" in text for text in texts), texts
