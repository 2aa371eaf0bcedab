"""The workflow seen from the command line: the demo, a summary of what is there, scores for DVC's metrics and plots."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import psutil

from comics.errors import UserError
from comics.files import atomic_write, exclusive, write_json
from comics.machine import cores, has_gpu
from comics.params import TASKS, TEST_SPLITS, Params
from comics.report.results import Measured, is_current, read_run

TRAINING_MEMORY = 3 * 2**30
"""Bytes that a training on the embedded dataset may take."""

MOST_SIDE_BY_SIDE = 8

DEMO_TARGETS = (
    "reports/table_iv.tex",
    "reports/figures/figure_9.pdf",
    "reports/figures/figure_9.png",
    "reports/index.html",
)


def current_results(params: Params) -> Iterator[Measured]:
    """The scores of every run that is trained, on both test splits, without those of a run that has since changed."""
    for run in dict.fromkeys(map(params.canonical, params.runs)):
        if params.dataset_of(run) != params.dataset:
            continue
        for split in TEST_SPLITS:
            if is_current(params, run, split):
                yield read_run(params, run, split)


def mean_scores(params: Params, metrics: tuple[str, ...]) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Mean over seeds as ``[run][split][task][metric]``; undefined values are left out."""
    means: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for measured in current_results(params):
        means.setdefault(measured.run.name, {})[measured.split] = {
            task: {metric: mean for metric in metrics if (mean := measured.score(task, metric).mean) is not None}
            for task in TASKS
        }
    return means


SCORES_HEADER = ("run", "seed", "split", "task", "AP", "oLRP")


def write_metrics(params: Params, folder: Path, scores: Path) -> int:
    """Write ``<folder>/<run>.json`` with AP and oLRP (for ``dvc metrics``), and `scores` with one line a run, seed,
    split and task (CSV, for ``dvc plots``); return the number of runs."""
    means = mean_scores(params, ("AP", "oLRP"))
    for run, mean in means.items():
        write_json(folder / f"{run}.json", mean, indent=2)
    for path in folder.glob("*.json"):
        if path.stem not in means:
            path.unlink()
    with atomic_write(scores) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(SCORES_HEADER)
        for measured in current_results(params):
            for seed, values in zip(measured.seeds, measured.scores, strict=True):
                for task in TASKS:
                    cells = (values.get((task, "all", metric)) for metric in ("AP", "oLRP"))
                    writer.writerow([measured.run.name, seed, measured.split, task, *cells])
    return len(means)


def print_summary(params: Params, table: str | None = None) -> None:
    """Print the scores of `table`'s runs (of all runs that have some, without one) and where to look."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    means = mean_scores(params, ("AP",))
    names = list(means)
    if table in params.tables:
        wanted = dict.fromkeys(params.canonical(row.run) for row in params.tables[table].rows if row.run)
        names = [name for name in wanted if name in means]
    if not names:
        console.print("No results yet. Make some with: make demo, or snakemake reports/table_iv.tex")
        return
    shown = Table(title=f"AP on {params.dataset}, percent: boxes / masks")
    for column in ("run", *TEST_SPLITS):
        shown.add_column(column)
    for name in names:
        cells = []
        for split in TEST_SPLITS:
            values = [means[name].get(split, {}).get(task, {}).get("AP") for task in TASKS]
            cells.append(" / ".join("-" if value is None else f"{100 * value:.1f}" for value in values))
        shown.add_row(name, *cells)
    console.print(shown)
    places = [
        ("tables", "reports/table_*.md (to read), .tex (to paste), .csv (to compute)"),
        ("figures", "reports/figures/*.png, .pdf, .svg"),
        ("page", "reports/index.html"),
        ("runs", f"comics runs; results/{params.dataset}/<run>/seed<k>/ holds logs, weights and detections"),
    ]
    patterns = {"tables": "table_*.tex", "figures": "figures/*.png", "page": "index.html"}
    for name, text in places:
        if name not in patterns or any(Path("reports").glob(patterns[name])):
            console.print(f"{name:>8}  {text}")


def working_here(matches: Callable[[list[str]], bool]) -> list[psutil.Process]:
    """Processes other than this one that run in this folder and whose command line `matches`."""
    here, own = Path.cwd(), {process.pid for process in (psutil.Process(), *psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid not in own and matches(process.cmdline()) and Path(process.cwd()) == here:
                found.append(process)
        except (psutil.Error, OSError):
            continue  # gone meanwhile, or somebody else's
    return found


def _is_snakemake(words: list[str]) -> bool:
    return any(Path(word).name == "snakemake" for word in words[:3])


def _is_step(words: list[str]) -> bool:
    return any(Path(first).name == "comics" and second in ("train", "predict") for first, second in pairwise(words))


def wait_for_others(interval: float = 2.0) -> None:
    """Let a pipeline that is alive in this folder end (looked for every `interval` seconds); lift a killed one's lock.

    Snakemake's lock does not say who holds it, and a killed Snakemake leaves it, and its running step, behind.
    """
    announced = False
    while others := working_here(lambda words: _is_snakemake(words) or _is_step(words)):
        if not announced:
            numbers = ", ".join(str(process.pid) for process in others)
            print(f"The pipeline is already at work in this folder (process {numbers}); waiting for it to end.")
            announced = True
        time.sleep(interval)
    if any(Path(".snakemake/locks").glob("*")):
        _snakemake("--unlock", "--quiet", "all")


def side_by_side() -> int:
    """How many trainings of the demo run at a time.

    Without a GPU as many as there are cores, each on one: steps as small as theirs gain little from a second core, and
    start-up nothing. Fewer where memory is short; one where there is a GPU, of which it takes all.
    """
    if has_gpu():
        return 1
    return max(1, min(cores(), MOST_SIDE_BY_SIDE, psutil.virtual_memory().available // TRAINING_MEMORY))


def _snakemake(*arguments: str, environment: Mapping[str, str] | None = None, at_once: int = 1) -> int:
    """Run Snakemake of this environment, with `environment` added to this process's own and so many trainings `at_once`;
    return its exit code.

    On a terminal, bars below its output tell how far it is. An interruption is passed on to it and its steps, once, and
    waited for: it then lifts its lock.
    """
    from rich.console import Console

    from comics.workflow.watch import follow

    console = Console(stderr=True)
    watched = console.is_terminal
    with subprocess.Popen(
        [sys.executable, "-m", "snakemake", *arguments],
        start_new_session=True,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE if watched else None,
        stderr=subprocess.STDOUT if watched else None,
        text=True,
        bufsize=1,
    ) as process:
        shown = follow(process, console, at_once) if watched else None
        try:
            process.wait()
        except KeyboardInterrupt:
            os.killpg(process.pid, signal.SIGINT)
            process.wait()
            raise
        finally:
            if shown is not None:
                shown.join()
        return process.returncode


def demo(params: Params) -> int:
    """Make Table IV and Figure 9 on the embedded dataset and print a summary; return Snakemake's exit code.

    Raises:
        UserError: params.yaml has another dataset, on which this would take days.
    """
    if params.file.datasets[params.dataset].kind != "mini":
        raise UserError(
            f"{params.path}: dataset: the demo shows the embedded dataset, not '{params.dataset}'.",
            "Write `dataset: mini` there, or make the table with: snakemake reports/table_iv.tex",
        )
    Path(".snakemake").mkdir(exist_ok=True)
    with exclusive(".snakemake/demo.lock", "The demo is being made in this folder", wait=True):
        return _demo(params)


def _demo(params: Params) -> int:
    wait_for_others()
    before = {path: Path(path).stat().st_mtime_ns for path in DEMO_TARGETS if Path(path).exists()}
    at_once = side_by_side()
    threads = str(cores() // at_once)
    code = _snakemake(
        *DEMO_TARGETS,
        *("--cores", str(cores()), "--resources", f"gpu={at_once}"),
        *("--set-threads", f"train={threads}", f"predict={threads}"),
        environment={"OMP_NUM_THREADS": threads, "COMICS_START_THREADS": str(cores())},
        at_once=at_once,
    )
    if code:
        print(
            "The demo did not finish. The log named above says why; `make demo` goes on where it stopped.",
            file=sys.stderr,
        )
        return code
    print()
    if before == {path: Path(path).stat().st_mtime_ns for path in DEMO_TARGETS}:
        print("Nothing to do: everything had been made already.")
    print_summary(params, "table_iv")
    return 0
