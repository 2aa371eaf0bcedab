"""``comics evaluate`` and ``comics compare``: the scores of detections, and which of two are better."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from comics.commands.bars import bars

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

    from comics.evaluation import bootstrap, judged, match_tasks, score, write_scores
    from comics.evaluation.printing import as_text
    from comics.evaluation.scores import read_inputs, tasks_of, write_table
    from comics.provenance import made_by, require_intact, write_sidecar

    require_intact(detections, _CHANGED)
    fields = made_by(detections)
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
    if output is not None and intervals is not None:
        path = output.with_suffix(".intervals.csv")
        write_table(path, ["task", "class", "metric", "value", "low", "high"], map(astuple, intervals))
        write_sidecar(path, {**fields, "bootstrap": resamples, "bootstrap_seed": seed})
        print(path)
    if details is not None:
        from comics.evaluation.details import write_details

        for path in write_details(details, truth, found, matched):
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
        header = ["task", "metric", "first", "second", "difference", "low", "high", "p"]
        write_table(output, header, map(astuple, differences))


def register(root: typer.Typer) -> None:
    """Add this group to the command line."""
    for command in (evaluate, compare):
        root.command()(command)
