"""Clusters: the workflow on a real SLURM of one machine"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from shrunk import shrink

from comics.files import read_json

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800), pytest.mark.xdist_group("slurm")]


def copy(folder: Path) -> Path:
    """What the workflow reads of the project, nothing made yet."""
    for name in ("params.yaml", "Snakefile", "workflow", "profiles", "comics"):
        source, target = ROOT / name, folder / name
        folder.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Variables of a process that submits to a SLURM started for this module."""
    if not all(map(shutil.which, ("slurmctld", "slurmd", "munged", "sbatch"))):
        pytest.skip("needs slurm-wlm and munge")
    if os.geteuid() != 0:
        pytest.skip("a SLURM of one's own needs root")
    folder = tmp_path_factory.mktemp("slurm")
    script = Path(__file__).with_name("cluster.sh")
    started = subprocess.run(["sh", script, "start", folder], capture_output=True, text=True, timeout=60)
    if started.returncode != 0:
        pytest.skip(f"SLURM does not start here: {started.stderr[-300:]}")
    path = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    python = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    yield {**os.environ, "PATH": path, "PYTHONPATH": python, "OMP_NUM_THREADS": "1"}
    subprocess.run(["sh", script, "stop", folder], check=True)


def snakemake(project: Path, environment: dict[str, str], *words: str) -> subprocess.Popen[str]:
    """The workflow with profiles/slurm; looked at more often than a cluster would like."""
    quick = ["--latency-wait", "10", "--seconds-between-status-checks", "3"]
    quick += ["--slurm-init-seconds-before-status-checks", "3", "--slurm-status-command", "squeue"]
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/slurm", *quick, *words],
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def jobs(environment: dict[str, str]) -> dict[int, str]:
    """State of every job that there was."""
    command = ["squeue", "--states=all", "--noheader", "--format=%i %T"]
    listed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    return {int(number): state for number, state in map(str.split, listed.splitlines())}


@pytest.mark.injects("Table IV, shrunk, on a SLURM of one machine", "every step a job; the table is written")
def test_the_table_goes_through_slurm(environment: dict[str, str], tmp_path: Path) -> None:
    project = copy(tmp_path / "project")
    shrink(project / "params.yaml", rows=2)
    text, _ = (process := snakemake(project, environment, "--", "reports/table_iv.tex")).communicate(timeout=1500)
    assert process.returncode == 0, text[-3000:]
    assert (project / "reports/table_iv.tex").exists()
    states = jobs(environment)
    assert len(states) >= 9  # the dataset, two trainings, two predictions, four evaluations, their comparison
    assert set(states.values()) == {"COMPLETED"}


def running(environment: dict[str, str], earlier: set[int]) -> int | None:
    """The job that runs and is none of `earlier`; None while there is none."""
    found = [number for number, state in jobs(environment).items() if number not in earlier and state == "RUNNING"]
    return found[0] if found else None


def trainings(project: Path) -> list[psutil.Process]:
    """Processes of ``comics train`` that work in `project`."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        here = process.info["cwd"] == str(project)
        if here and any(Path(one).name == "comics" and other == "train" for one, other in pairwise(words)):
            found.append(process)
    return found


def steps_kept(folder: Path) -> int:
    """The last step whose checkpoint is whole."""
    return max((int(path.name[5:13]) for path in folder.glob("checkpoints/*.ckpt.meta.json")), default=0)


@pytest.mark.injects(
    "a training's job cancelled, and the next one out of time",
    "submitted again, it goes on from its checkpoint and ends",
)
def test_a_job_that_was_cancelled_or_ran_out_of_time_goes_on(environment: dict[str, str], tmp_path: Path) -> None:
    project = copy(tmp_path / "project")
    epochs = 60
    shrink(project / "params.yaml", rows=1, epochs=epochs, milestones=[epochs - 1])
    earlier = set(jobs(environment))
    run = next(iter(read_json(project / "params.yaml")["tables"]["table_iv"]["rows"]))["run"]
    folder = project / "results/mini" / run / "seed0"
    process = snakemake(project, environment, "--", f"{folder.relative_to(project)}/model.pt")

    def control(*command: str) -> None:
        subprocess.run(command, env=environment, check=True, timeout=60)

    def at_work(beyond: int) -> int:
        """The job of a training, which has kept a step after `beyond`; however long a busy machine takes for it."""
        deadline = time.monotonic() + 700
        while steps_kept(folder) <= beyond or (number := running(environment, earlier)) is None:
            assert process.poll() is None, process.communicate()[0][-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.2)
        earlier.add(number)
        return number

    try:
        first = at_work(0)
        control("scancel", str(first))
        while jobs(environment)[first] in ("RUNNING", "COMPLETING"):
            time.sleep(0.2)
        second = at_work(steps_kept(folder))
        # Its time is cut once it has got on, not before: a start takes longer than a minute on a busy machine. Until the minute
        # is over it stands still, lest a fast machine be done by then.
        trainings(project)[0].suspend()
        control("scontrol", "update", f"JobId={second}", "TimeLimit=1")
        text, _ = process.communicate(timeout=1000)
    finally:
        process.kill()
    assert process.returncode == 0, text[-3000:]
    ended = jobs(environment)
    assert (ended[first], ended[second]) == ("CANCELLED", "TIMEOUT")
    facts = read_json(folder / "run.json")
    assert facts["resumed"]
    assert facts["steps"] == epochs * 4
