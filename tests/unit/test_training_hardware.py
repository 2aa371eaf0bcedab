"""What run.json says of the code."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from comics.training.hardware import git_state


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package in a repository of its own, all of it committed but for an environment."""
    folder = tmp_path / "package"
    (folder / "training").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "training/fit.py").write_text("")
    (tmp_path / "params.yaml").write_text("")
    (tmp_path / ".gitignore").write_text(".venv\n")
    settings = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for words in (["init", "-q"], ["add", "."], [*settings, "commit", "-q", "-m", "all"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return folder


@pytest.mark.parametrize("changed", ["training/fit.py", "__init__.py", "new.py", "../params.yaml"])
def test_changes_anywhere_in_the_project_are_told(package: Path, changed: str) -> None:
    before = git_state(package)
    assert before["uncommitted_changes"] is False
    assert len(before["commit"]) == 40
    (package / "../notes.txt").write_text("beside the package, a file that git does not know is nobody's business")
    assert git_state(package) == before
    (package / changed).write_text("changed = True\n")
    assert git_state(package) == {**before, "uncommitted_changes": True}


def test_a_package_that_git_does_not_have_has_no_commit(package: Path, tmp_path: Path) -> None:
    installed = tmp_path / ".venv/site-packages/package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert git_state(installed) == {"commit": None, "uncommitted_changes": None}
