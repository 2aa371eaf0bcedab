"""``comics robustness``: how scores fall as images get worse."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from comics.commands.bars import bars

robustness = typer.Typer(
    help="How scores fall as images get worse: severities, measurements, table and figures.", no_args_is_help=True
)


@robustness.command()
def calibrate() -> None:
    """Find how strongly each operation is applied at each severity, on images of the dataset."""
    from comics.data.perturb.severity import as_json
    from comics.detect.robustness import calibrate_severities, read_photos
    from comics.files import write_json
    from comics.params import load
    from comics.provenance import write_sidecar
    from comics.report.robustness import block_of, severities_path
    from comics.report.samples import annotations_path

    params = load()
    block = block_of(params)
    with bars() as progress:
        photos = read_photos(annotations_path(params, block.split), block.images)
        severities = calibrate_severities(photos, block, progress)
    path = severities_path(params)
    write_json(path, as_json(severities), indent=1)
    write_sidecar(path, {"dataset": params.dataset, "split": block.split, "images": block.images})
    print(f"{path}: {len(severities)} operations.")


@robustness.command()
def measure(
    run: Annotated[str, typer.Argument(help="A trained run of params.yaml.")],
    seed: Annotated[int | None, typer.Option(help="Seed of the run; its first one by default.", min=0)] = None,
) -> None:
    """Score RUN on every operation and severity."""
    from comics.data.perturb.severity import from_json
    from comics.detect.robustness import HEADER
    from comics.detect.robustness import measure as measured
    from comics.evaluation.scores import write_table
    from comics.files import file_digest, read_json
    from comics.params import load
    from comics.provenance import require_intact, write_sidecar
    from comics.report.results import robustness_path
    from comics.report.robustness import block_of, conditions, severities_path

    params = load()
    block = block_of(params)
    resolved = params.resolve(run, seed)
    severities = severities_path(params)
    require_intact(severities, f"Renew with: snakemake --force {severities}")
    with bars() as progress:
        rows = measured(resolved, block, from_json(read_json(severities)), progress=progress)
    path = robustness_path(resolved)
    write_table(path, HEADER, rows)
    made_by = {"digest": resolved.digest, "run": resolved.name, "dataset": resolved.dataset_name, "seed": resolved.seed}
    write_sidecar(path, {**made_by, "conditions": conditions(block), "severities": file_digest(severities)})
    print(f"{path}: {len(rows)} rows.")


@robustness.command()
def report(
    output: Annotated[
        Path | None, typer.Option(help="Folder for the table and the figures. [default: reports/robustness]")
    ] = None,
) -> None:
    """Render curves, heat map and table of what was measured."""
    from comics.params import load
    from comics.report.robustness import render

    params = load()
    for path in render(params, output or params.reports / "robustness"):
        print(path)


def register(root: typer.Typer) -> None:
    """Add this group to the command line."""
    root.add_typer(robustness, name="robustness")
