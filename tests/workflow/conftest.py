"""Copies of the project to run the workflow's tools in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fabricate import Run, copy_project, fabricate

from comics.params import load


@pytest.fixture
def run() -> Run:
    """Run a module of this environment (``run("snakemake", "-n", cwd=...)``), its output in one text."""

    def run_module(
        module: str, *arguments: str, cwd: Path, code: int | None = 0, **environment: str
    ) -> subprocess.CompletedProcess:
        # An activated environment: DVC's stages find `comics` on the PATH.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        inherited = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=cwd,
            env={**inherited, "PATH": path, "NO_COLOR": "1", "DVC_NO_ANALYTICS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
        )
        assert code is None or done.returncode == code, done.stdout
        return done

    return run_module


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh clone, so to speak: params.yaml, workflow, profile, DVC's files; nothing made yet."""
    folder = copy_project(tmp_path / "project")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def made_project(project: Path) -> Path:
    """A project in which every run has (made-up) results."""
    fabricate(load("params.yaml"), project)
    return project
