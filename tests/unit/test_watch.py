"""The bars below a pipeline's output."""

import io
import subprocess
import sys

import pytest
from rich.console import Console

from comics.workflow.watch import Watch, follow, last_step


@pytest.fixture
def console():
    return Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)


def bars(watch):
    return {task.description: (task.completed, task.total, task.fields["remark"]) for task in watch.progress.tasks}


def test_a_training_has_a_bar_from_its_announcement_to_its_end(console, tmp_path):
    log = tmp_path / "da" / "seed1" / "train.log"
    log.parent.mkdir(parents=True)
    watch = Watch(console)
    watch.line(f"Job 9: Train da, seed 1 (progress: tail -f {log})")
    watch.look()  # no log yet
    assert bars(watch) == {"da seed1": (0, 1, "starting")}
    log.write_text("da seed 1: step 12/200, loss 2.345, 0:02:01 left\nda seed 1: step 40/200, loss 1.5, 0:01:10 left\n")
    watch.look()
    assert bars(watch) == {"da seed1": (40, 200, "0:01:10 left, loss 1.5")}
    watch.line("Finished jobid: 9 (Rule: train)")
    watch.line("12 of 44 steps (27%) done")
    assert bars(watch) == {"all": (12, 44, "")}
    watch.line("13 of 44 steps (30%) done")
    assert bars(watch) == {"all": (13, 44, "")}


def test_a_retry_does_not_leave_two_bars_and_other_jobs_have_none(console, tmp_path):
    watch = Watch(console)
    for _ in range(2):
        watch.line(f"Job 9: Train da, seed 1 (progress: tail -f {tmp_path}/da/seed1/train.log)")
    watch.line("Job 3: Evaluate da, seed 1, on test_dev")
    watch.line("Finished jobid: 3 (Rule: evaluate)")
    assert list(bars(watch)) == ["da seed1"]


def test_the_last_line_of_a_long_log_counts(tmp_path):
    log = tmp_path / "train.log"
    assert last_step(log) is None
    log.write_text("starting\n")
    assert last_step(log) is None
    log.write_text("".join(f"da seed 1: step {step}/900, loss 1.0, 0:00:10 left\n" for step in range(1, 800)))
    assert last_step(log)["step"] == "799"


def test_every_line_of_the_process_is_shown(console):
    script = "print('Job 1: [bold]Make[/bold]'); print('3 of 4 steps (75%) done')"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        follow(process, console).join()
    shown = console.file.getvalue()
    assert "Job 1: [bold]Make[/bold]" in shown
    assert "3/4 jobs" in shown
