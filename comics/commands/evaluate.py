"""``comics evaluate``: the scores of detections."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    ground_truth: Annotated[Path, typer.Argument(metavar="GT.json", help="COCO ground truth.")],
    detections: Annotated[Path, typer.Argument(metavar="DETECTIONS.json", help="COCO results.")],
    output: Annotated[Path, typer.Option(help="CSV to write.")],
    engine: Annotated[str, typer.Option(help="hotcoco, or pycocotools: the slow reference.")] = "hotcoco",
) -> None:
    """Average precision and oLRP of boxes and masks, by class."""
    from comics.evaluation import evaluate as score
    from comics.evaluation import write_scores
    from comics.provenance import read_sidecar, write_sidecar

    fields = read_sidecar(detections)
    write_scores(output, score(ground_truth, detections, engine=engine))
    write_sidecar(output, fields)
    print(output)


def register(root: typer.Typer) -> None:
    """Add this group to the command line."""
    root.command()(evaluate)
