"""Shell: names, folders and variables that look like commands"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from injection import HANGS, ROOT, environment
from PIL import Image

from comics.errors import UserError
from comics.params import load

sys.path.insert(0, str(ROOT / "tests" / "workflow"))
from fabricate import copy_project

ODD = [
    "$(touch X)",
    "`touch X`",
    "a;touch X",
    "a & b",
    "a'b",
    'a"b',
    "a b",
    "a\nb",
    "名前",
    "-x",
    "~",
    "*",
    "%s",
    "a|b",
    "a\\b",
]
UNUSABLE = ["a{b}c", "{wildcards.run}", "<x>", "a\rb", " "]


def own_dataset(project: Path, folder: str) -> None:
    """A dataset `own` of one image whose files lie in `folder`, named in params.yaml."""
    where = project / folder
    where.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64)).save(where / "a.png")
    face = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [5, 5, 30, 30],
        "area": 900,
        "iscrowd": 0,
        "segmentation": [[5, 5, 35, 5, 35, 35, 5, 35]],
    }
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 64}],
        "annotations": [face],
        "categories": [{"id": 1, "name": "Real"}, {"id": 2, "name": "Fake"}],
    }
    (where / "faces.json").write_text(json.dumps(content))
    block = {"kind": "coco", "annotations": {"train": f"{folder}/faces.json"}, "images": {"train": folder}}
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("datasets:\n", f"datasets:\n  own: {json.dumps(block)}\n", 1))


def snakemake(project: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", *words],
        cwd=project,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=HANGS,
    )


@pytest.mark.injects(
    "a checkout in a folder named `$(touch X) {b} ; & '`, OMP_NUM_THREADS='1; touch X', one's own files in such a folder",
    "the workflow converts the dataset; nothing is run",
)
def test_a_folder_and_variables_are_only_text(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "$(touch X) {b} ; & ' <x>")
    own_dataset(project, "$(touch X); `touch X` '\"名前")
    # The environment's programs lie in such a folder as well.
    programs = project / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(sys.executable)
    (programs / "comics").write_text(
        f'#!/bin/sh\nprintf %s "$OMP_NUM_THREADS" > threads\nexec "{sys.executable}" -m comics "$@"\n'
    )
    (programs / "comics").chmod(0o755)
    code = (
        f"import sys; sys.executable = {str(programs / 'python')!r}\n"
        "from snakemake.cli import main\nmain(['--cores', '1', 'convert_own'])"
    )
    threads = "1; touch X"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project,
        env=environment(OMP_NUM_THREADS=threads),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=HANGS,
    )
    assert (project / "data/own/train/annotations.json").exists(), done.stdout
    assert (project / "threads").read_text() == threads  # what the user exported reaches the step as it is
    assert not list(tmp_path.rglob("X"))


@pytest.mark.injects("dataset paths with quotes, `$`, `;`, `&`, newlines, globs, non-Latin letters", "they work")
@pytest.mark.faults
@pytest.mark.parametrize("folder", ODD)
def test_paths_of_datasets_are_only_text(tmp_path: Path, folder: str) -> None:
    project = copy_project(tmp_path / "project")
    own_dataset(project, folder)
    done = snakemake(project, "convert_own")
    assert done.returncode == 0, done.stdout
    assert (project / "data/own/train/annotations.json").exists()
    assert not list(tmp_path.rglob("X"))


@pytest.mark.injects(
    "dataset paths with braces or angle brackets, which Snakemake cannot take", "refused by name, code 2"
)
@pytest.mark.parametrize("folder", UNUSABLE)
def test_paths_that_cannot_work_are_refused(tmp_path: Path, folder: str) -> None:
    params = tmp_path / "params.yaml"
    block = {"kind": "coco", "annotations": {"train": folder}, "images": {"train": "images"}}
    params.write_text(
        (ROOT / "params.yaml").read_text().replace("datasets:\n", f"datasets:\n  own: {json.dumps(block)}\n", 1)
    )
    with pytest.raises(UserError, match=r"datasets\.own\.annotations\.train"):
        load(params)


@pytest.mark.injects("names of runs, tables and datasets with `/`, `..`, `$`, `;`, spaces", "refused by name, code 2")
@pytest.mark.parametrize("name", ["../x", "a/b", "$(touch X)", "a;b", "a b", "", ".", "-x", "A", "é", "a\nb"])
def test_names_are_words(tmp_path: Path, name: str) -> None:
    text = (ROOT / "params.yaml").read_text()
    for part in ("runs", "tables", "datasets"):
        params = tmp_path / "params.yaml"
        params.write_text(text.replace(f"\n{part}:\n", f"\n{part}:\n  {json.dumps(name)}: {{}}\n", 1))
        with pytest.raises(UserError, match=part):
            load(params)
    assert not os.path.exists("X")
