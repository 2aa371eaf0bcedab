"""The bars below a pipeline's output."""

import io
import subprocess
import sys

import pytest
from rich.console import Console

from comics.workflow.watch import COSTS, OTHER_COST, Estimate, Watch, follow, last_step


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


STATISTICS = """Job stats:
job             count
------------  -------
make_dataset        1
train               3
evaluate            6
total              10
"""


def test_the_time_left_is_there_from_the_statistics_on_and_follows_what_is_measured(console, tmp_path):
    now = [100.0]
    watch = Watch(console, Estimate(2, lambda: now[0]))
    for line in STATISTICS.splitlines():
        watch.line(line)
    watch.look()
    whole = COSTS["make_dataset"] + 3 * COSTS["train"] + 6 * OTHER_COST
    assert watch.estimate.left() == pytest.approx(
        whole / 2
    )  # two at once, at the speed of the machine that was measured
    assert bars(watch) == {"all": (0, 10, "about 2 min 09 s left")}
    now[0] += COSTS["make_dataset"]  # at half of that speed
    watch.line("Finished jobid: 4 (Rule: make_dataset)")
    watch.line("1 of 10 steps (10%) done")
    once = watch.estimate.left()
    assert (whole - COSTS["make_dataset"]) / 2 < once < whole - COSTS["make_dataset"]
    log = tmp_path / "da" / "seed1" / "train.log"
    log.parent.mkdir(parents=True)
    watch.line(f"Job 9: Train da, seed 1 (progress: tail -f {log})")
    log.write_text("da seed 1: step 150/200, loss 2.345, 0:02:01 left\n")
    watch.look()
    assert watch.estimate.left(0.75) < once - 0.5 * COSTS["train"] / 2
    for _ in range(3):
        watch.line("Finished jobid: 9 (Rule: train)")
    for number in range(6):
        watch.line(f"Finished jobid: {number} (Rule: evaluate)")
    assert watch.estimate.left() is None  # nothing


def test_what_is_done_has_no_time_left(console):
    watch = Watch(console, Estimate(2))
    for line in STATISTICS.splitlines():
        watch.line(line)
    watch.look()
    assert "left" in bars(watch)["all"][2]
    watch.line("10 of 10 steps (100%) done")
    watch.look()
    assert bars(watch) == {"all": (10, 10, "")}


def test_without_statistics_nothing_is_said(console):
    watch = Watch(console)
    watch.line("3 of 10 steps (30%) done")
    watch.look()
    assert bars(watch) == {"all": (3, 10, "")}
