"""``comics evaluate | compare | power``: the scores of detections, which of two are better, how many seeds that takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from comics.commands.bars import bars
from comics.errors import UserError

INTERVAL_HEADER = ("task", "class", "metric", "value", "low", "high")
DIFFERENCE_HEADER = ("task", "metric", "first", "second", "difference", "low", "high", "p")

_CHANGED = "Make it again with `comics predict`; if it was changed on purpose, remove its sidecar."

EngineOption = Annotated[str, typer.Option(help="hotcoco, or pycocotools: the slow reference.")]


def evaluate(
    ground_truth: Annotated[Path, typer.Argument(metavar="GT.json", help="COCO ground truth.")],
    detections: Annotated[Path, typer.Argument(metavar="DETECTIONS.json", help="COCO results.")],
    output: Annotated[Path | None, typer.Option(help="CSV to write as well.")] = None,
    engine: EngineOption = "hotcoco",
    resamples: Annotated[
        int | None,
        typer.Option(
            "--bootstrap", min=1, help="Resamples of images, for 95 % intervals; with --output in .intervals.csv."
        ),
    ] = None,
    intervals_file: Annotated[
        Path | None, typer.Option("--intervals", help="CSV to write the intervals to, with or without --output.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the resamples.")] = 0,
    details: Annotated[
        Path | None,
        typer.Option(
            help="Folder for scores by face size and faces in the image, curves, confusion and kinds of error."
        ),
    ] = None,
    verdicts: Annotated[bool, typer.Option(help="Judge faces, images and pixels, too.")] = True,
) -> None:
    """Average precision, oLRP, and verdicts on faces, images and pixels, of anybody's detections in COCO's format."""
    from dataclasses import astuple

    from comics.files import require_there
    from comics.provenance import made_by, made_elsewhere, require_intact, write_sidecar

    if intervals_file is not None and resamples is None:
        raise UserError("--intervals: there are none without --bootstrap.", "Add --bootstrap 1000.")
    for path in (ground_truth, detections):
        require_there(path)
    require_intact(detections, _CHANGED)
    from comics.evaluation import bootstrap, judged, match_tasks, score, write_scores
    from comics.evaluation.printing import as_text
    from comics.evaluation.scores import read_inputs, tasks_of, write_table

    fields = made_by(detections) or made_elsewhere(detections)
    truth, found = read_inputs(ground_truth, detections)
    detailed = resamples is not None or details is not None
    matched = match_tasks(truth, found, tasks_of(truth, found), engine, detailed=detailed)
    if verdicts:
        matched = judged(truth, found, matched, engine)
    scores, intervals = score(truth, matched), None
    if resamples is not None:
        with bars() as progress:
            _, intervals = bootstrap(truth, matched, resamples, seed, progress)
    print(as_text(scores, intervals))
    if output is not None:
        write_scores(output, scores)
        write_sidecar(output, fields)
        print(output)
    of_intervals = intervals_file or (output and output.with_suffix(".intervals.csv"))
    if of_intervals is not None and intervals is not None:
        write_table(of_intervals, INTERVAL_HEADER, map(astuple, intervals))
        write_sidecar(of_intervals, {**fields, "bootstrap": resamples, "bootstrap_seed": seed})
        print(of_intervals)
    if details is not None:
        from comics.evaluation.details import write_details

        for path in write_details(details, truth, found, matched):
            if path.suffix == ".csv":
                write_sidecar(path, fields)
            print(path)


def compare(
    first: Annotated[Path, typer.Argument(metavar="A.json", help="COCO results.")],
    second: Annotated[Path, typer.Argument(metavar="B.json", help="COCO results on the same images.")],
    ground_truth: Annotated[Path, typer.Option("--gt", help="COCO ground truth.")],
    output: Annotated[Path | None, typer.Option(help="CSV to write as well.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Resamples of images, and as many permutations.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of both.")] = 0,
    metrics: Annotated[
        list[str] | None, typer.Option("--metric", help="To compare; may be given again. [default: AP, oLRP]")
    ] = None,
    engine: EngineOption = "hotcoco",
) -> None:
    """Is A better than B? Paired differences with 95 % intervals, and p-values of a permutation test."""
    from dataclasses import astuple

    from rich.console import Console
    from rich.table import Table

    from comics.errors import UserError, did_you_mean
    from comics.files import require_there

    for path in (ground_truth, first, second):
        require_there(path)
    from comics.evaluation import METRICS
    from comics.evaluation import compare as paired
    from comics.evaluation.resampling import COMPARED
    from comics.evaluation.scores import write_table
    from comics.provenance import require_intact

    for detections in (first, second):
        require_intact(detections, _CHANGED)
    for metric in metrics or ():
        if metric not in METRICS or metric == "oLRP_threshold":
            raise UserError(f"--metric: there is no metric '{metric}'.", did_you_mean(metric, METRICS))
    wanted = metrics or list(COMPARED)
    with bars() as progress:
        differences = paired(
            ground_truth,
            first,
            second,
            samples=samples,
            seed=seed,
            engine=engine,
            metrics=wanted,
            progress=progress,
        )
    table = Table("task", "metric", "A", "B", "A - B", "95 % interval", "p")
    for one in differences:
        table.add_row(
            one.task,
            one.metric,
            *(f"{100 * value:.2f}" for value in (one.first, one.second)),
            f"{100 * one.difference:+.2f}",
            f"{100 * one.low:+.2f} to {100 * one.high:+.2f}",
            f"{one.p:.4f}",
        )
    Console().print(table)
    if output is not None:
        write_table(output, DIFFERENCE_HEADER, map(astuple, differences))


def power(
    metric: Annotated[str, typer.Option(help="Of all classes together.")] = "AP",
    task: Annotated[str, typer.Option(help="detection or segmentation.")] = "segmentation",
    split: Annotated[str, typer.Option(help="The test set.")] = "test_challenge",
    difference: Annotated[float, typer.Option(help="True difference to find, in points.", min=0.001)] = 1.0,
    chance: Annotated[float, typer.Option("--power", help="Chance to find it.", min=0.06, max=0.999)] = 0.8,
) -> None:
    """How many seeds does a difference need? From the noise between the seeds of the runs whose results are here."""
    from rich.console import Console
    from rich.table import Table

    from comics.errors import UserError, did_you_mean
    from comics.evaluation.intervals import MOST_SEEDS, detectable, seed_noise, seeds_needed
    from comics.params import METRICS, SPLITS, TASKS, load
    from comics.report.results import is_current, read_run

    for option, word, known in (("metric", metric, METRICS), ("task", task, TASKS), ("split", split, SPLITS)):
        if word not in known:
            raise UserError(f"--{option}: there is no {option} '{word}'.", did_you_mean(word, known))
    loaded = load()
    scores: dict[str, list[float]] = {}
    for run in dict.fromkeys(map(loaded.canonical, loaded.runs)):
        if len(loaded.seeds(run)) > 1 and is_current(loaded, run, split):
            found = read_run(loaded, run, split).scores
            scores[run] = [100 * value for one in found if (value := one.get((task, "all", metric))) is not None]
    noise = seed_noise(list(scores.values()))
    if noise is None:
        raise UserError(
            f"results/{loaded.dataset}: no run has current results of two seeds on {split}.",
            "Give runs `seeds: [0, 1, 2]` in params.yaml and make their results (`snakemake claim` has eight of each).",
        )
    table = Table("run", "seeds", "mean", "standard deviation")
    for run, values in scores.items():
        own = seed_noise([values])
        shown = f"{own.deviation:.2f}" if own else "–"
        table.add_row(run, str(len(values)), f"{sum(values) / max(len(values), 1):.1f}", shown)
    Console().print(table)
    low, high = noise.range()
    print(
        f"{metric}, {task}, {split} of {loaded.dataset}: standard deviation between seeds {noise.deviation:.2f} points "
        f"({noise.freedom} degrees of freedom, 95 % interval {low:.2f} to {high:.2f})."
    )

    def needed(deviation: float) -> str:
        seeds = seeds_needed(difference, deviation, chance)
        return f"more than {MOST_SEEDS}" if seeds is None else str(seeds)

    print(
        f"A true difference of {difference:g} points is found with a chance of {100 * chance:g} % by {needed(noise.deviation)} "
        f"seeds of each run ({needed(low)} to {needed(high)}, as the deviation's interval allows), two-sided t-test at 5 %."
    )
    smallest = ", ".join(f"{seeds} seeds {detectable(noise.deviation, seeds, chance):.1f}" for seeds in (2, 3, 5, 10))
    print(f"Found with that chance, in points: {smallest}.")


def register(root: typer.Typer) -> None:
    """Add this group to the command line."""
    for command in (evaluate, compare, power):
        root.command()(command)
