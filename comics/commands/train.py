"""``comics train | predict | runs | doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from comics.commands.bars import bars
from comics.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from rich.table import Table

    from comics.params import ResolvedRun

RunArgument = Annotated[str, typer.Argument(help="A run of params.yaml.")]
SeedOption = Annotated[int | None, typer.Option(help="Seed of the run; its first one by default.", min=0)]
DatasetOption = Annotated[
    str | None, typer.Option(help="Dataset it is trained on; by default the run's own, or that of params.yaml.")
]


def train(run: RunArgument, seed: SeedOption = None, dataset: DatasetOption = None) -> None:
    """Train RUN on the dataset of params.yaml; an interrupted training goes on where it was."""
    from comics.params import load

    resolved = load().resolve(run, seed, dataset)
    from comics.training.fit import train as fit
    from comics.training.launch import RankFailed
    from comics.training.signals import Interrupted, say

    try:
        path = fit(resolved)
    except Interrupted as interrupted:
        say(str(interrupted))
        raise typer.Exit(interrupted.exit_code) from None
    except RankFailed as failed:  # it has said why
        raise typer.Exit(failed.exit_code) from None
    print(f"{path}: the weights of '{run}', seed {resolved.seed} (digest {resolved.digest}).")


def predict(
    run: RunArgument,
    split: Annotated[list[str], typer.Option(help="train, val, test_dev or test_challenge; may be given again.")],
    seed: SeedOption = None,
    output: Annotated[Path | None, typer.Option(help="Of a single split. Default: beside the checkpoint.")] = None,
    dataset: DatasetOption = None,
    on: Annotated[str | None, typer.Option(help="Another dataset, whose splits are predicted instead.")] = None,
) -> None:
    """Write RUN's detections on each split as a COCO results file."""
    from comics.params import SPLITS, load

    for one in split:
        if one not in SPLITS:
            raise UserError(f"--split: there is no split '{one}'.", did_you_mean(one, SPLITS))
    if output is not None and len(split) > 1:
        raise UserError("--output: is for one --split, not for several.", "Call the command once for each.")
    params = load()
    resolved = params.resolve(run, seed, dataset)
    if on is not None and on not in params.file.datasets:
        raise UserError(f"--on: there is no dataset '{on}'.", did_you_mean(on, params.file.datasets))
    from comics.detect.predictor import Predictor, predict_split
    from comics.report.results import detections_path

    predictor = Predictor(resolved)
    for one in split:
        path = output or detections_path(resolved, one, on)
        with bars() as progress:
            count = predict_split(predictor, one, path, progress=progress, test=on)
        print(f"{path}: {count} detections.")


def _score(run: ResolvedRun, split: str) -> str:
    """Box and mask AP in percent, as far as results of this very run exist."""
    from comics.params import TASKS
    from comics.report.results import read_scores, scores_path, state

    path = scores_path(run, split)
    found = state(path, run.digest, Path())
    if found != "current":
        return "damaged" if found == "damaged" else ""
    try:
        scores = read_scores(path)
    except UserError:
        return "damaged"
    values = [scores[task, "all", "AP"] for task in TASKS]
    return " / ".join("-" if value is None else f"{100 * value:.1f}" for value in values)


def _at_work(run: ResolvedRun) -> str | None:
    """How far a training that is at work is; None where none is."""
    from comics.files import is_held
    from comics.training.status import describe_status, read_status

    if not is_held(run.folder / ".lock"):
        return None
    status = read_status(run.folder)
    return "starting" if status is None else describe_status(status)


def _runs_table(width: int, live: bool) -> Table:
    from rich.table import Table

    from comics.params import load
    from comics.report.results import training_state

    params = load()
    columns = ["run", "seed", "made of", "state", *params.test_splits]
    if width < 110:
        columns.remove("made of")
    working: list[list[str]] = []
    lines: list[list[str]] = []
    trained = 0
    for name in params.runs:
        canonical = params.canonical(name)
        for seed in params.seeds(name):
            run = params.resolve(canonical, seed)
            same = f"same as {canonical}" if canonical != name else ""
            if live and same:
                continue
            at_work = None if same else _at_work(run)
            state = same or at_work or training_state(run)
            trained += state == "trained"
            cells = {
                "run": name,
                "seed": str(seed),
                "made of": " + ".join([run.detector, *run.params.components])
                + (f" on {run.dataset_name}" if run.dataset_name != params.dataset else ""),
                "state": state,
                **{split: _score(run, split) for split in params.test_splits},
            }
            # what moves stands where a low terminal shows it
            (working if live and at_work else lines).append([cells[column] for column in columns])
    lines = working + lines
    title = f"Runs on {params.dataset} (AP of boxes / masks, percent)"
    if live:
        title += f"\n{len(working)} at work, {trained} of {len(lines)} trained"
    table = Table(*columns, title=title)
    widths = [max(map(len, column)) for column in zip(columns, *lines, strict=True)]
    if sum(widths) + 3 * len(widths) + 1 <= width:
        # Nothing is to be wrapped: one row of long cells looks the same, and a thousand runs are drawn in a fifth of the time.
        lines = [["\n".join(column) for column in zip(*lines, strict=True)]] if lines else []
    for line in lines:
        table.add_row(*line)
    return table


def _plan_table() -> Table:
    from rich.table import Table

    from comics.params import load
    from comics.workflow.estimate import clock, plan

    params = load()
    planned = plan(params)
    known = [one.seconds for one in planned if one.seconds is not None]
    table = Table(title=f"To be trained on {params.dataset}: {len(planned)} runs", show_footer=bool(planned))
    table.add_column("run", footer="all, one after the other")
    table.add_column("seed", justify="right")
    table.add_column("steps", justify="right", footer=f"{sum(one.steps or 0 for one in planned):,}")
    table.add_column("time", justify="right", footer=clock(sum(known)) if len(known) == len(planned) else "-")
    table.add_column("from a step of", footer="no training is done yet" if planned and not known else "")
    for one in planned:
        source = "-" if one.like is None else f"{one.like.run}, {one.like.seconds:.2f} s"
        steps = "-" if one.steps is None else f"{one.steps:,}"
        table.add_row(one.run.name, str(one.run.seed), steps, clock(one.seconds), source)
    return table


def runs(
    watch: Annotated[bool, typer.Option("--watch", help="Show them anew every two seconds, until Ctrl-C.")] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="What would be trained, with an estimate of its time from measured steps.")
    ] = False,
) -> None:
    """All runs of params.yaml, their state and scores; of trainings at work, how far they are."""
    from rich.console import Console

    console = Console()
    if plan:
        console.print(_plan_table())
        return
    if not watch:
        console.print(_runs_table(console.width, live=False))
        return
    import time

    from rich.live import Live

    from comics.training.status import STATUS_SECONDS

    try:
        with Live(_runs_table(console.width, live=True), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(STATUS_SECONDS)
                live.update(_runs_table(console.width, live=True), refresh=True)
    except KeyboardInterrupt:
        return


def doctor() -> None:
    """Versions, devices, disk space and what is missing."""
    import shutil

    from rich.console import Console
    from rich.table import Table

    from comics.params import SPLITS, load
    from comics.training.devices import device
    from comics.training.hardware import autocast_dtype, hardware, precision_measured, versions

    console = Console()
    table = Table(show_header=False)
    for name, version in versions().items():
        table.add_row(name, version)
    on = device()
    for name, value in hardware(on).items():
        table.add_row(name, f"{int(value) / 2**30:.0f} GiB" if name == "device_memory" else str(value))
    found = precision_measured(on)
    seconds = f", {found.float32_seconds:.3f} s in float32, {found.bfloat16_seconds:.3f} s in bf16" if found else ""
    table.add_row("training precision", str(autocast_dtype("auto", on)).removeprefix("torch.") + seconds)
    disk = shutil.disk_usage(".")
    table.add_row("free disk", f"{disk.free / 2**30:.0f} GiB")
    for tool, purpose in (
        ("git", "commits in run.json"),
        ("latexmk", "reports/paper.pdf"),
        ("pdflatex", "reports/paper.pdf"),
    ):
        table.add_row(tool, shutil.which(tool) or f"missing (only needed for {purpose})")
    console.print(table)
    params = load()
    missing = [split for split in SPLITS if not Path(f"data/{params.dataset}/{split}/annotations.json").exists()]
    if missing:
        console.print(f"Dataset {params.dataset}: {', '.join(missing)} not there yet; the workflow makes them.")
    else:
        console.print(f"Dataset {params.dataset}: all splits are there.")


def register(root: typer.Typer) -> None:
    """Add this group to the command line."""
    for command in (train, predict, runs, doctor):
        root.command()(command)
