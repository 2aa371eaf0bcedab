"""`make demo` after an interruption, a second time, and beside another pipeline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fabricate import Run

from comics import machine
from comics.params import load
from comics.workflow import demo
from comics.workflow.demo import DEMO_TARGETS, side_by_side, wait_for_others, working_here


def test_a_second_demo_does_nothing_and_says_so_even_after_a_kill(made_project: Path, run: Run) -> None:
    siblings = {".tex": (".tex", ".csv", ".md"), ".html": (".html",)}
    for target in DEMO_TARGETS:
        for suffix in siblings.get(Path(target).suffix, (".pdf", ".svg", ".png")):
            path = (made_project / target).with_suffix(suffix)
            path.parent.mkdir(exist_ok=True)
            path.write_text("made")
    # What a killed Snakemake leaves behind.
    locks = made_project / ".snakemake/locks"
    locks.mkdir(parents=True)
    (locks / "0.output.lock").write_text("results/mini/da/seed0/model.pt\n")
    (locks / "0.input.lock").write_text("")
    done = run("comics", "demo", cwd=made_project)
    assert "Nothing to do" in done.stdout
    assert "Running" not in done.stdout
    assert "reports/table_*.md" in done.stdout  # where to look
    assert "da_fea" in done.stdout


def test_the_demo_waits_for_a_pipeline_at_work_in_the_folder(project: Path) -> None:
    pretended = project / "snakemake"
    pretended.write_text("import time\ntime.sleep(1.5)\n")
    with subprocess.Popen([sys.executable, str(pretended)], cwd=project) as other:
        time.sleep(0.3)
        wait_for_others(interval=0.1)
        assert other.poll() is not None
    with subprocess.Popen([sys.executable, str(pretended)], cwd="/") as elsewhere:
        time.sleep(0.3)
        wait_for_others(interval=0.1)
        assert elsewhere.poll() is None


def test_an_interrupted_demo_leaves_neither_lock_nor_process(project: Path) -> None:
    command = [sys.executable, "-m", "comics", "demo"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}

    # A test run started in the background of a script ignores SIGINT, and so do its children.
    def interruptible() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        command, cwd=project, env=environment, stdout=-1, stderr=-2, text=True, preexec_fn=interruptible
    ) as demo:
        for line in demo.stdout:
            if "Make the dataset" in line:
                break
        time.sleep(0.5)
        demo.send_signal(signal.SIGINT)
        rest = demo.stdout.read()
    assert demo.returncode == 130
    assert "Interrupted" in rest
    assert not list((project / ".snakemake/locks").glob("*"))
    assert working_here(lambda words: "comics" in " ".join(words)) == []


@pytest.mark.parametrize(
    ("gpu", "cores", "gigabytes", "expected"),
    [
        (None, 2, 16, 2),
        (None, 1, 16, 1),
        (None, 32, 64, 8),
        (None, 4, 7, 2),
        (None, 4, 1, 1),
        ("/bin/nvidia-smi", 16, 64, 1),
    ],
)
def test_trainings_stand_side_by_side_where_cores_and_memory_allow(
    monkeypatch, gpu, cores, gigabytes, expected
) -> None:
    class Memory:
        available = gigabytes * 2**30

    monkeypatch.setattr(machine.shutil, "which", lambda _: gpu)
    monkeypatch.setattr(demo, "cores", lambda: cores)
    monkeypatch.setattr(demo.psutil, "virtual_memory", Memory)
    assert side_by_side() == expected


def test_the_demo_gives_each_training_its_share_of_the_cores(monkeypatch, project: Path) -> None:
    called = []
    monkeypatch.chdir(project)
    monkeypatch.setattr(demo, "side_by_side", lambda: 2)
    monkeypatch.setattr(demo, "cores", lambda: 5)
    monkeypatch.setattr(
        demo, "_snakemake", lambda *words, environment=None, at_once=1: called.append((words, environment)) or 1
    )
    assert demo.demo(load(project / "params.yaml")) == 1
    words, environment = called[-1]
    assert words[: len(DEMO_TARGETS)] == DEMO_TARGETS
    assert words[words.index("--resources") :][:2] == ("--resources", "gpu=2")
    assert {"train=2", "predict=2"} <= set(words)
    assert environment == {"OMP_NUM_THREADS": "2", "COMICS_START_THREADS": "5"}
