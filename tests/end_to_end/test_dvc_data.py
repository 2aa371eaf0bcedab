"""A dataset under DVC: added, pushed to a local remote, pulled into a clone; time stamps alone cause no work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from loopback import make_raw

from comics.data.canonical import coco
from comics.data.openforensics import dataset as openforensics

ROOT = Path(__file__).parents[2]
SNAKEFILE = """
rule train:
    input: "data/openforensics/train/annotations.json"
    output: "model.txt"
    shell: "echo trained >> {output}"
"""


@pytest.fixture
def tools(tmp_path: Path):
    bin_folder = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(tmp_path / "site"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }

    def call(folder: Path, *command: str) -> str:
        result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
        return result.stdout + result.stderr

    return call


def test_dataset_travels_by_dvc_and_causes_no_work(tmp_path: Path, tools) -> None:
    """As docs/data.md tells it, with this repository's own .gitignore, .dvcignore, dvc.yaml and profile."""
    project, clone, store = tmp_path / "project", tmp_path / "clone", tmp_path / "store"
    project.mkdir()
    for name in (".gitignore", ".dvcignore", "dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, project / name)
    shutil.copytree(ROOT / "profiles/default", project / "profiles/default")
    (project / "Snakefile").write_text(SNAKEFILE)
    tools(project, "git", "init", "-q")
    tools(project, "dvc", "init", "-q")
    folder = Path("data/openforensics")
    make_raw(project / folder / "raw", {"train": 2, "val": 1, "test_dev": 1, "test_challenge": 1})
    openforensics.convert(project / folder / "raw", project / folder)

    tools(project, "dvc", "remote", "add", "--default", "--local", "store", str(store))
    tools(project, "dvc", "add", *(str(folder / split) for split in coco.SPLITS))
    tools(project, "git", "add", ".")
    tracked = tools(project, "git", "ls-files", "data").split()
    assert tracked == sorted(str(folder / f"{split}.dvc") for split in coco.SPLITS)
    tools(project, "git", "commit", "-qm", "Dataset")
    tools(project, "dvc", "push", "-R", "data")

    tools(tmp_path, "git", "clone", "-q", str(project), str(clone))
    tools(clone, "dvc", "remote", "add", "--default", "--local", "store", str(store))
    tools(clone, "dvc", "pull", "-R", "data")
    for split in coco.SPLITS:
        coco.validate(clone / folder / split / "annotations.json")
        path = folder / split / "annotations.json"
        assert (clone / path).read_bytes() == (project / path).read_bytes()

    tools(clone, "snakemake", "--cores", "1", "model.txt")
    annotations = clone / folder / "train/annotations.json"
    shutil.rmtree(annotations.parent)
    tools(clone, "dvc", "checkout", "-R", "data")
    os.utime(annotations)  # whatever DVC's kind of link makes of the time
    assert annotations.stat().st_mtime > (clone / "model.txt").stat().st_mtime
    assert "Nothing to be done" in tools(clone, "snakemake", "--cores", "1", "model.txt")
    assert (clone / "model.txt").read_text() == "trained\n"
    annotations.write_bytes(annotations.read_bytes() + b"\n")
    assert "Nothing to be done" not in tools(clone, "snakemake", "--cores", "1", "model.txt")
