"""Trainings that are killed, interrupted, starved of disk and given damaged checkpoints: they end as if nothing had been."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import pty
import random
import re
import resource
import shutil
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import trainings
from injection import ROOT
from trainings import RUNS, STEPS, code_of, comics, require_equal, slowly, steps_of, train, training, wait_for, weights

from comics.files import read_json
from comics.params import load
from comics.report.results import state, training_state

SEED = int(os.environ.get("FAULT_SEED", random.randrange(2**31)))
"""Of the random moments; printed by a test that fails."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny dataset; every run is there under a second name, to be disturbed."""
    folder = tmp_path_factory.mktemp("kills")
    again = {f"{name}_again": block for name, block in RUNS.items()}
    trainings.write_params(folder, {**RUNS, **again})
    comics(folder, "data", "make", "mini")
    comics(folder, "data", "encode-masks", "mini")
    return folder


@pytest.fixture
def alone(project: Path, tmp_path: Path) -> Path:
    """A copy of the project for one test."""
    shutil.copytree(project / "data", tmp_path / "data")
    shutil.copy(project / "params.yaml", tmp_path)
    return tmp_path


def folder_of(project: Path, run: str) -> Path:
    return project / f"results/mini/{run}/seed0"


def expected(project: Path, run: str) -> dict[str, torch.Tensor]:
    """The weights of `run`, trained without disturbance."""
    if not (folder_of(project, run) / "model.pt").exists():
        code, text = train(project, run)
        assert code == 0, text
    return weights(project, run)


def killed_and_done(project: Path, run: str, kills: int) -> None:
    """Train `run`, killed at `kills` random moments, and compare it with what was not."""
    choose = random.Random(f"{SEED} {run}")
    expected(project, "plain")  # the first of two phases
    theirs = expected(project, run)
    print(f"FAULT_SEED={SEED}")

    def known() -> int:
        """The last step that was kept: all of them once the weights are written, and the checkpoints gone."""
        done = (folder_of(project, f"{run}_again") / "model.pt").exists()
        return STEPS if done else max(steps_of(project, f"{run}_again"), default=0)

    seen = [known()]
    while kills and seen[-1] < STEPS:  # a fast machine may be done before the last kill
        kills -= 1
        with training(project, f"{run}_again") as process:
            if choose.random() < 0.7:  # at work; otherwise at any moment, its start among them
                wait_for(lambda: known() > seen[-1], process)
            time.sleep(choose.uniform(0, 0.5))
            process.kill()
        seen.append(known())
    code, text = train(project, f"{run}_again")
    assert code == 0, text
    assert len(seen) > 1
    assert seen == sorted(seen)
    require_equal(weights(project, f"{run}_again"), theirs)
    assert not (folder_of(project, f"{run}_again") / "checkpoints").exists()


@pytest.mark.parametrize("run", ["comics", "mask_rcnn", "two_phase"])
@pytest.mark.injects("SIGKILL at random moments of a training", "the same command ends with bitwise equal weights")
def test_killed_at_random_moments_it_ends_with_the_same_weights(project: Path, run: str) -> None:
    killed_and_done(project, run, 3)


@pytest.mark.faults
@pytest.mark.parametrize("run", list(RUNS))
@pytest.mark.injects("SIGKILL many times, every detector", "the same command ends with bitwise equal weights")
def test_killed_many_times_it_ends_with_the_same_weights(project: Path, run: str) -> None:
    shutil.rmtree(folder_of(project, f"{run}_again"), ignore_errors=True)
    killed_and_done(project, run, 8)


@pytest.mark.parametrize(
    ("signums", "code"),
    [([signal.SIGINT], 130), ([signal.SIGTERM, signal.SIGTERM, signal.SIGHUP], 143), ([signal.SIGHUP], 129)],
)
@pytest.mark.injects("SIGINT, SIGTERM twice, SIGHUP", "the step is saved and said; codes 130, 143 and 129")
def test_a_signal_saves_the_step_and_the_exit_code_tells_it(project: Path, signums: list[int], code: int) -> None:
    run = "meinst_again"
    folder = folder_of(project, run)
    shutil.rmtree(folder, ignore_errors=True)
    log = project / f"{run}.log"
    log.unlink(missing_ok=True)
    with training(project, run, slowly) as process:
        wait_for(lambda: max(steps_of(project, run), default=0) >= 10, process)  # when the first values are logged
        first, *others = signums
        os.killpg(process.pid, first)
        # It is said before the others come: of signals that wait together the lowest number is told first.
        wait_for(lambda: "saved first" in log.read_text(), process)
        for signum in others:
            os.killpg(process.pid, signum)
    assert code_of(process) == code
    text = log.read_text()
    assert text.count("the step is ended and saved first") == 1
    assert f"step {max(steps_of(project, run))} is saved, the same command goes on from it" in text
    assert "Traceback" not in text
    rows = list(csv.DictReader((folder / "logs/metrics.csv").open()))
    assert train(project, run)[0] == 0
    require_equal(weights(project, run), expected(project, "meinst"))
    after = list(csv.DictReader((folder / "logs/metrics.csv").open()))
    assert [row["step"] for row in after[: len(rows)]] == [row["step"] for row in rows]
    steps = [int(row["step"]) for row in after]
    assert steps == sorted(set(steps))
    described = read_json(folder / "run.json")
    assert described["resumed"]
    assert described["images_per_second"] > 0
    assert described["peak_memory"]["host"] > 10**7


def slow_saving() -> None:
    """A checkpoint takes a minute: time for a second signal."""
    slowly()
    from comics.training.checkpoints import Checkpoints

    original = Checkpoints._save

    def slow(self, trainer):
        if self.interruption.signum is not None:
            time.sleep(60)
        original(self, trainer)

    Checkpoints._save = slow


@pytest.mark.injects("SIGINT twice", "it ends at once with code 130, and goes on from the checkpoint before")
def test_a_second_interrupt_ends_at_once(project: Path) -> None:
    run = "plain_again"
    shutil.rmtree(folder_of(project, run), ignore_errors=True)
    log = project / f"{run}.log"
    log.unlink(missing_ok=True)
    with training(project, run, slow_saving) as process:
        wait_for(lambda: bool(steps_of(project, run)), process)
        os.kill(process.pid, signal.SIGINT)
        wait_for(lambda: "the step is ended" in log.read_text(), process)
        os.kill(process.pid, signal.SIGINT)
        process.join(30)
        assert process.exitcode == 130
    assert "Interrupted again: ends at once" in log.read_text()
    assert train(project, run)[0] == 0
    require_equal(weights(project, run), expected(project, "plain"))


def on_a_terminal(project: Path, *words: str, columns: int = 80) -> tuple[int, int]:
    """Start ``comics`` on a terminal of its own, its trainings `slowly`: the process, and the terminal's other end."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(project)
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("4H", 40, columns, 0, 0))
        kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
        started = "import trainings; trainings.slowly(); from comics.cli import main; main()"
        os.execve(
            sys.executable, [sys.executable, "-c", started, *words], {**kept, "TERM": "xterm", "PYTHONPATH": path}
        )
    return process, terminal


@pytest.mark.injects("the terminal is closed", "the step is saved, code 129, and the training goes on from it")
def test_a_closed_terminal_saves_the_step(project: Path) -> None:
    run = "plain_again"
    folder = folder_of(project, run)
    shutil.rmtree(folder, ignore_errors=True)
    process, terminal = on_a_terminal(project, "train", run)
    whole = r"plain_again seed 0: step \d+/12, loss [\d.]+ \(class .*?\), [\d.]+ images/s, \d:\d\d:\d\d left"
    shown, text = b"", ""
    while not (steps_of(project, run) and re.search(whole, text)):
        shown += os.read(terminal, 65536)
        text = re.sub(r"\s+", " ", re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown.decode(errors="ignore")))
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 129, text
    assert steps_of(project, run)
    assert train(project, run)[0] == 0
    require_equal(weights(project, run), expected(project, "plain"))


def stopped_at(step: int) -> None:
    """Ask the training to stop as a signal does, at the end of `step`."""
    from comics.training.checkpoints import Checkpoints

    original = Checkpoints.on_train_batch_end

    def asked(self, trainer, *arguments):
        if trainer.global_step == step:
            self.interruption.signum = signal.SIGTERM
        return original(self, trainer, *arguments)

    Checkpoints.on_train_batch_end = asked


@pytest.mark.parametrize("steps", [(3, 4), (3, 6), (6, 8), (12,)])
@pytest.mark.injects("stopped at the last step of an epoch, and once more in the next", "bitwise equal weights")
def test_an_epoch_whose_last_step_was_interrupted_is_counted_once(project: Path, steps: tuple[int, ...]) -> None:
    reference = expected(project, "plain")
    folder = folder_of(project, "plain")
    shutil.rmtree(folder, ignore_errors=True)
    for step in steps:
        code, output = train(project, "plain", partial(stopped_at, step))
        assert code == 143, output
        assert steps_of(project, "plain")[-1] == step
    code, output = train(project, "plain")
    assert code == 0, output
    assert json.loads((folder / "run.json").read_text())["steps"] == STEPS
    require_equal(weights(project, "plain"), reference)


def interrupted(project: Path, run: str, after: int = 3) -> None:
    """Leave `run` with two whole checkpoints."""
    with training(project, run, slowly) as process:
        wait_for(lambda: max(steps_of(project, run), default=0) >= after, process)
        process.kill()


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _foreign(path: Path) -> None:
    path.write_bytes(b"of somebody else")


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "flipped": (_flip, "its bytes are not those that were written"),
    "truncated": (lambda path: os.truncate(path, path.stat().st_size // 2), "its bytes are not those"),
    "foreign": (_foreign, "its bytes are not those"),
    "no sidecar": (lambda path: Path(f"{path}.meta.json").unlink(), "has no checksum"),
    "empty sidecar": (lambda path: Path(f"{path}.meta.json").write_text(""), "not valid JSON"),
}


@pytest.mark.parametrize(
    "damage", [*list(DAMAGES)[:1], *(pytest.param(d, marks=pytest.mark.faults) for d in list(DAMAGES)[1:])]
)
@pytest.mark.injects("the last checkpoint cut, flipped, foreign", "named; the one before it is taken")
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(project: Path, damage: str) -> None:
    run = "plain_again"
    shutil.rmtree(folder_of(project, run), ignore_errors=True)
    interrupted(project, run)
    *_, before, last = steps_of(project, run)
    harm, said = DAMAGES[damage]
    harm(folder_of(project, run) / f"checkpoints/step-{last:08}.ckpt")
    code, text = train(project, run)
    assert code == 0, text
    assert f"checkpoints/step-{last:08}.ckpt: {said}" in text or said in text
    assert f"goes on from step {before}" in text
    require_equal(weights(project, run), expected(project, "plain"))


@pytest.mark.injects("no whole checkpoint left", "it says that it begins anew")
def test_without_a_whole_checkpoint_the_start_is_not_silent(project: Path) -> None:
    run = "plain_again"
    shutil.rmtree(folder_of(project, run), ignore_errors=True)
    interrupted(project, run)
    for path in folder_of(project, run).glob("checkpoints/*.ckpt"):
        _flip(path)
    code, text = train(project, run)
    assert code == 0
    assert text.count("not taken") >= 2
    assert "the training begins with step 0" in text
    require_equal(weights(project, run), expected(project, "plain"))


@pytest.mark.injects("litter of kills, a checkpoint of Lightning's in the project", "removed; not taken")
def test_what_kills_leave_is_removed_and_a_clusters_checkpoint_is_not_taken(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = "plain_again"
    folder = folder_of(project, run)
    shutil.rmtree(folder, ignore_errors=True)
    interrupted(project, run)
    litter = [
        folder / "checkpoints/.step-00000009.x1.ckpt",
        folder / "checkpoints/hpc_ckpt_1.ckpt",
        folder / ".model.x.pt",
    ]
    for path in [*litter, project / "hpc_ckpt_1.ckpt"]:
        path.write_bytes(b"half")
    with training(project, run, in_slurm) as process:
        pass
    assert process.exitcode == 0
    assert not any(path.exists() for path in litter)
    (project / "hpc_ckpt_1.ckpt").unlink()
    require_equal(weights(project, run), expected(project, "plain"))


def in_slurm() -> None:
    os.environ.update(SLURM_JOB_ID="7", SLURM_JOB_NAME="batch job", SLURM_NTASKS="1", SLURM_NODELIST="node1")


@pytest.mark.injects("SIGUSR1 in a SLURM job", "no checkpoint in the project")
def test_a_clusters_warning_signal_leaves_no_checkpoint_in_the_project(alone: Path) -> None:
    with training(alone, "plain", in_slurm_ignoring_usr1) as process:
        wait_for(lambda: bool(steps_of(alone, "plain")), process)
        os.kill(process.pid, signal.SIGUSR1)
    assert process.exitcode == 0
    assert not list(alone.rglob("hpc_ckpt*"))


def in_slurm_ignoring_usr1() -> None:
    slowly()
    in_slurm()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def small_files() -> None:
    """Files of more than 400 KB cannot be written: what a quota or a full disk does, at a moment of our choosing."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))


@pytest.mark.injects("no room while a checkpoint is written", "one message, the checkpoint before is kept, code 2")
def test_a_full_disk_is_told_in_one_message(project: Path) -> None:
    run = "plain_again"
    shutil.rmtree(folder_of(project, run), ignore_errors=True)
    interrupted(project, run)
    last = max(steps_of(project, run))
    code, text = train(project, run, small_files)
    assert code == 2, text
    assert "Traceback" not in text
    assert f"checkpoint of step {last} is kept" in text
    assert "Free some" in text
    assert train(project, run)[0] == 0
    require_equal(weights(project, run), expected(project, "plain"))


@pytest.mark.injects("a temporary folder without room", "the training ends well")
def test_a_temporary_folder_without_room_does_not_matter(alone: Path) -> None:
    code, text = train(alone, "plain", temporary_folder_gone)
    assert code == 0, text


def temporary_folder_gone() -> None:
    import tempfile

    tempfile.tempdir = "/nowhere/at/all"
    os.environ["TMPDIR"] = "/nowhere/at/all"


@pytest.mark.injects(
    "training data changed between two halves, and after training", "refused by what goes on and what follows, code 2"
)
def test_changed_training_data_is_refused_by_what_goes_on_and_what_follows(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(alone, "plain")
    image = next((alone / "data/mini/train").rglob("*.jpg"))
    whole = image.read_bytes()
    image.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])  # of the same size
    code, text = train(alone, "plain")
    assert code == 2
    assert "the training data of 'plain' has changed since: images" in text
    image.write_bytes(whole)
    assert train(alone, "plain")[0] == 0
    comics(alone, "predict", "plain", "--split", "test_dev")
    detections = folder_of(alone, "plain") / "test_dev.detections.json"
    params = load(alone / "params.yaml")
    run = params.resolve("plain")
    assert training_state(run, alone) == "trained"
    assert state(detections.relative_to(alone), run.digest, alone) == "current"
    image.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    monkeypatch.setattr("comics.report.results._CONTENT_SECONDS", 1e-6)  # do not wait until it is looked at again
    assert training_state(run, alone) == "data changed"
    assert state(detections.relative_to(alone), run.digest, alone) == "stale"
    assert "its training data has changed since: images" in comics(alone, "predict", "plain", "--split", "val", code=2)


def one_gradient_goes_wrong() -> None:
    from comics.model import Comics

    losses = Comics.losses
    steps = iter(range(100))

    def wrong(self, batch):
        result = losses(self, batch)
        if next(steps) == 4:
            name = next(iter(result.terms))
            result.terms[name] = result.terms[name] * torch.nan
        return result

    Comics.losses = wrong


@pytest.mark.injects("a loss or gradient that is not finite", "ends before weights, queues and checkpoints, code 2")
def test_a_loss_that_is_not_finite_ends_the_run_before_its_weights(alone: Path) -> None:
    code, text = train(alone, "comics", one_gradient_goes_wrong)
    folder = folder_of(alone, "comics")
    assert code == 2
    assert "Traceback" not in text
    assert "the loss is not finite at step 4: class" in text
    assert not (folder / "model.pt").exists()
    assert max(steps_of(alone, "comics")) == 4
    batch = torch.load(folder / "not_finite/step-00000004.pt", weights_only=True)
    assert ", ".join(map(str, batch["image_ids"])) in text
    saved = torch.load(folder / "checkpoints/step-00000004.ckpt", weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in saved.values())
    assert train(alone, "comics")[0] == 0
    assert json.loads((folder / "run.json").read_text())["steps"] == STEPS


def test_two_processes_on_a_processor_train_as_one_and_stop_together(project: Path) -> None:
    run = "plain_again"
    folder = folder_of(project, run)
    shutil.rmtree(folder, ignore_errors=True)
    text = (project / "params.yaml").read_text()
    shared = text.replace("batch_size: 3", "batch_size: 4\n    ema: 0.5\n    validation: {every: 4}")
    try:
        (project / "params.yaml").write_text(shared.replace("batch_size: 4", "batch_size: 4\n    devices: 2"))
        log = project / f"{run}.log"
        log.unlink(missing_ok=True)
        with training(project, run, slowly) as process:
            wait_for(lambda: bool(steps_of(project, run)), process, 120)
            os.kill(process.pid, signal.SIGTERM)
        assert code_of(process) == 143, log.read_text()
        assert "Traceback" not in log.read_text()
        code, said = train(project, run)
        assert code == 0, said
        assert "Warning" not in said
        assert "Initializing" not in said
        ours = weights(project, run)
        described = read_json(folder / "run.json")
        assert described["devices"] == 2
        assert described["resumed"]
        shutil.rmtree(folder)
        (project / "params.yaml").write_text(shared)
        assert train(project, run)[0] == 0
        alone, told = weights(project, run), read_json(folder / "run.json")
        assert told["digest"] == described["digest"]
        assert [one["epochs"] for one in described["validation"]["history"]] == [4]
        for one, other in zip(described["validation"]["history"], told["validation"]["history"], strict=True):
            assert one["scores"] == pytest.approx(other["scores"], abs=1e-3)
        for name, value in alone.items():
            if value.is_floating_point():  # rounding alone differs
                torch.testing.assert_close(ours[name], value, rtol=1e-2, atol=1e-3, msg=name)
    finally:
        (project / "params.yaml").write_text(text)


@pytest.mark.injects("SIGKILL and SIGTERM of a training of two processes", "bitwise equal weights")
def test_two_processes_that_were_stopped_end_with_the_same_weights(alone: Path) -> None:
    text = (alone / "params.yaml").read_text()
    (alone / "params.yaml").write_text(text.replace("batch_size: 3", "batch_size: 4\n    devices: 2"))
    for code, signum in ((137, signal.SIGKILL), (143, signal.SIGTERM)):
        with training(alone, "comics_again", slowly) as process:
            known = steps_of(alone, "comics_again")
            wait_for(lambda known=known: steps_of(alone, "comics_again") > known, process, 120)
            os.killpg(process.pid, signum)
        assert code_of(process) == code, (alone / "comics_again.log").read_text()
    require_equal(weights_after(alone, "comics_again"), weights_after(alone, "comics"))


def weights_after(project: Path, run: str) -> dict[str, torch.Tensor]:
    code, said = train(project, run)
    assert code == 0, said
    return weights(project, run)
