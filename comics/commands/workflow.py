"""``comics demo | summary | metrics | inputs | params-schema``: the workflow seen from the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def demo() -> None:
    """Make Table IV and Figure 9 on the embedded dataset, from nothing; go on where an earlier call stopped."""
    from comics.params import load
    from comics.workflow.demo import demo as run

    try:
        code = run(load())
    except KeyboardInterrupt:
        print("Interrupted: `make demo` goes on where it stopped.", file=sys.stderr)
        code = 130
    raise typer.Exit(code)


def summary(
    table: Annotated[str | None, typer.Option(help="Only the runs of this table of params.yaml.")] = None,
) -> None:
    """The scores that are there, in short, and where to look for more."""
    from comics.errors import UserError, did_you_mean
    from comics.params import load
    from comics.workflow.demo import print_summary

    params = load()
    if table is not None and table not in params.tables:
        raise UserError(f"--table: there is no table '{table}'.", did_you_mean(table, params.tables))
    print_summary(params, table)


def metrics(
    folder: Annotated[Path, typer.Option(help="Mean AP and oLRP, one JSON file a run.")] = Path("reports/metrics"),
    scores: Annotated[Path, typer.Option(help="AP and oLRP of each run and seed (CSV).")] = Path("reports/scores.csv"),
) -> None:
    """Write the current scores of all runs for `dvc metrics` and `dvc plots`."""
    from comics.params import load
    from comics.workflow.demo import write_metrics

    folder.mkdir(parents=True, exist_ok=True)  # DVC expects it, also while there are no runs
    print(f"{folder} and {scores}: {write_metrics(load(), folder, scores)} runs.")


def inputs(
    folder: Annotated[Path, typer.Option(help="One JSON file a table and figure.")] = Path("reports/inputs"),
) -> None:
    """Write what each table and figure is made from, so that `dvc repro` renders exactly what changed."""
    from comics.params import load
    from comics.workflow.plan import write_inputs

    print(f"{folder}: {write_inputs(load(), folder)} tables and figures.")


def params_schema(
    output: Annotated[Path | None, typer.Option(help="File to write; the terminal without it.")] = None,
) -> None:
    """The JSON schema of params.yaml, generated from its classes."""
    import json

    from comics.files import write_text
    from comics.params import json_schema

    text = json.dumps(json_schema(), indent=2) + "\n"
    if output is None:
        print(text, end="")
    else:
        write_text(output, text)


def register(root: typer.Typer) -> None:
    """Add this group to the command line."""
    for command in (demo, summary, metrics, inputs, params_schema):
        root.command()(command)
