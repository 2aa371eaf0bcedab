"""``comics init | demo | summary | metrics | inputs | params-schema``: the workflow seen from the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write into; made where it is not there.")],
) -> None:
    """Write the workflow into a folder: Snakefile, rules, params.yaml, profiles and dvc.yaml of this version."""
    from comics.workflow.project import init as write

    written = write(folder)
    print(f"{folder}: {len(written)} files written." if written else f"{folder} has all files already.")
    print(f"Next: cd {folder}, look at params.yaml, and snakemake -n reports/table_iv.tex tells what would run.")
    print("`dvc` needs git: git init, once.")


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


def results(
    to_csv: Annotated[Path | None, typer.Option("--csv", help="CSV file to write.")] = None,
    to_parquet: Annotated[Path | None, typer.Option("--parquet", help="Parquet file to write (needs pyarrow).")] = None,
) -> None:
    """All scores as one table, a row a number; on the terminal the size of it, without a file."""
    from comics.errors import UserError
    from comics.files import atomic_write
    from comics.results import load

    scores = load()
    if to_csv is not None:
        with atomic_write(to_csv) as beside:
            scores.to_csv(beside, index=False, lineterminator="\n")
    if to_parquet is not None:
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise UserError(
                f"{to_parquet}: writing Parquet needs pyarrow.", "pip install comics-forensics[parquet], or use --csv."
            ) from None
        with atomic_write(to_parquet) as beside:
            scores.to_parquet(beside, index=False)
    runs, stale = scores.run.nunique(), int((scores.state == "stale").sum())
    told = f", {stale:,} of them of runs that have changed since" if stale else ""
    written = [str(path) for path in (to_csv, to_parquet) if path is not None]
    print(f"{': '.join([', '.join(written), '']) if written else ''}{len(scores):,} scores of {runs} runs{told}.")


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
    for command in (init, demo, summary, metrics, results, inputs, params_schema):
        root.command()(command)
