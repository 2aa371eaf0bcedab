"""The demo, killed: Table IV comes out as if nothing had been"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from injection import ROOT, environment

sys.path.insert(0, str(ROOT / "tests" / "workflow"))
sys.path.insert(0, str(ROOT / "tests" / "slurm"))
from fabricate import copy_project
from shrunk import shrink

KILLS = 10


def shrunk_project(folder: Path) -> Path:
    """The project with a tiny dataset, Table IV's first two runs, and a Figure 9 of these."""
    project = copy_project(folder)
    figure = {"kind": "scatter", "caption": "AP against oLRP.", "split": "test_dev", "table": "table_iv"}
    shrink(project / "params.yaml", rows=2, figures={"figure_9": figure})
    return project


def start(project: Path, log: Path) -> subprocess.Popen[bytes]:
    """`comics demo`, what `make demo` runs, as a session of its own."""
    with log.open("ab") as sink:
        return subprocess.Popen(
            [sys.executable, "-m", "comics", "demo"],
            cwd=project,
            env=environment(OMP_NUM_THREADS="1"),
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def made(project: Path, log: Path) -> None:
    process = start(project, log)
    assert process.wait(timeout=1500) == 0, log.read_text()[-3000:]


def all_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The demo, Snakemake and its steps, in this order."""
    try:
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill(processes: list[psutil.Process]) -> None:
    for one in processes:
        try:
            os.kill(one.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def rendered(project: Path) -> dict[str, bytes]:
    """Table IV and the scores that it is made of."""
    paths = [*project.glob("reports/table_iv.*"), *project.glob("results/mini/*/seed*/*.csv")]
    return {str(path.relative_to(project)): path.read_bytes() for path in paths}


def killed(project: Path, log: Path, rng: random.Random, longest: float) -> None:
    """Start the demo `KILLS` times and kill it at a random moment of the next `longest` seconds; then let it end."""
    kills = 0
    while kills < KILLS:
        process = start(project, log)
        try:
            process.wait(timeout=rng.uniform(0, longest))
        except subprocess.TimeoutExpired:
            processes = all_of(process)
            kill(processes if rng.random() < 0.7 else [rng.choice(processes)])
            kills += 1
            process.wait(timeout=1500)  # where a step was killed, the demo ends by itself
        else:  # it was done before the next kill: from nothing once more
            for name in ("results/mini", "data", ".snakemake"):
                shutil.rmtree(project / name, ignore_errors=True)
    made(project, log)


def require_as_if_nothing_had_been(project: Path, whole: Path) -> None:
    assert rendered(project) == rendered(whole)
    assert len(rendered(project)) >= 3 + 2 * 2
    rows = json.loads((project / "params.yaml").read_text())["tables"]["table_iv"]["rows"]
    assert all((project / f"results/mini/{row['run']}/seed0/model.pt").exists() for row in rows)
    assert not [path for path in project.glob("results/**/.*") if path.is_file() and path.name != ".lock"]


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.injects(
    "SIGKILL of `make demo`, shrunk, at ten random moments: of all its processes, or of one of them",
    "the same command ends with the same Table IV and scores, byte for byte",
)
def test_killed_at_ten_random_moments_the_demo_makes_the_same_table(tmp_path: Path, rng: random.Random) -> None:
    whole, project = shrunk_project(tmp_path / "whole"), shrunk_project(tmp_path / "killed")
    began = time.monotonic()
    made(whole, tmp_path / "whole.log")
    killed(project, tmp_path / "killed.log", rng, (time.monotonic() - began) / 3)
    require_as_if_nothing_had_been(project, whole)
