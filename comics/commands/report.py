"""``comics table | figure | page | paper | study``: what the results look like."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from comics.commands.bars import bars

INCOMPLETE = 946684800
"""Time stamp (2000-01-01) of what was rendered without results that it should show. Snakemake makes nothing for a file
that is there and newer than its inputs, though some be missing; one that is older than the code it makes again."""


def _written(paths: Iterable[Path], complete: bool = True) -> None:
    for path in paths:
        print(path)
        if not complete:
            os.utime(path, (INCOMPLETE, INCOMPLETE))


def _tell_not_made(runs: list[str], target: Path) -> None:
    if runs:
        print(f"Not made yet: {', '.join(runs)}. Make them with: snakemake {target}", file=sys.stderr)


def table(
    name: Annotated[str, typer.Argument(help="A table of params.yaml.")],
    output: Annotated[
        Path | None, typer.Option(help="LaTeX file to write; .md and .csv go beside it. [default: reports/NAME.tex]")
    ] = None,
    delta: Annotated[bool, typer.Option("--delta", help="Ours minus the paper's, coloured.")] = False,
    available: Annotated[
        bool,
        typer.Option("--available", help="Show the paper's row for a run that has not been made; without one, none."),
    ] = False,
) -> None:
    """Render a table of params.yaml: LaTeX, Markdown and CSV."""
    from comics.params import load

    loaded = load()
    loaded.require("tables", name)
    from comics.report.results import not_made, stale_rows
    from comics.report.tables import build, table_params, write

    entry = table_params(loaded, name)
    for warning in stale_rows(loaded, entry, entry.splits):
        print(warning, file=sys.stderr)
    runs = not_made(loaded, entry, entry.splits) if available else []
    _tell_not_made(runs, loaded.reports / f"{name}.tex")
    path = output or loaded.reports / f"{name}{'_delta' if delta else ''}.tex"
    _written(write(build(loaded, name, delta=delta, available=available), path), complete=not runs)


def figure(
    name: Annotated[str, typer.Argument(help="A figure of params.yaml.")],
    output: Annotated[
        Path | None,
        typer.Option(help="PDF to write; .svg and .png go beside it. [default: reports/figures/NAME.pdf]"),
    ] = None,
    available: Annotated[
        bool,
        typer.Option(
            "--available", help="Where results have not been made, keep the figure that is there, or say so in it."
        ),
    ] = False,
) -> None:
    """Render a figure of params.yaml: PDF, SVG and PNG."""
    from comics.params import load

    loaded = load()
    loaded.require("figures", name)
    from comics.report.canvas import FORMATS
    from comics.report.figures import draw, draw_placeholder
    from comics.report.results import NotMade, not_made, renewal

    target = loaded.reports / "figures" / f"{name}.pdf"
    path = output or target
    try:
        paths = draw(loaded, name, path, available=available)
    except NotMade as missing:
        if not available:
            raise
        command = renewal([target], missing.outdated)
        problem = f"{missing.message}\nMake it with: {command}"
        print(problem, file=sys.stderr)
        if all(path.with_suffix(suffix).exists() for suffix in FORMATS):
            print("What an earlier call wrote is kept.", file=sys.stderr)
        else:
            _written(draw_placeholder(loaded, name, path, problem), complete=False)
        return
    entry = loaded.figures[name]
    runs = not_made(loaded, loaded.tables[entry.table], [entry.split]) if entry.kind == "scatter" else []
    _tell_not_made(runs, target)
    _written(paths, complete=not runs)


def page(
    output: Annotated[Path | None, typer.Option(help="The page, self-contained. [default: reports/index.html]")] = None,
) -> None:
    """Render the page: tables, scatter, gallery, loss curves and runs; what is not there yet says so in its place."""
    from comics.params import load
    from comics.report.page import render

    loaded = load()
    path = output or loaded.reports / "index.html"
    for warning in render(loaded, path):
        print(f"Not shown: {warning}", file=sys.stderr)
    print(path)


def paper(
    output: Annotated[
        Path | None, typer.Option(help="The PDF; its .tex goes beside it. [default: reports/paper.pdf]")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse overfull boxes and missing references.")] = False,
) -> None:
    """Compile all rendered tables and figures into one two-column PDF (needs latexmk and pdflatex)."""
    from comics.errors import UserError
    from comics.params import load
    from comics.report.paper import render

    loaded = load()
    path = output or loaded.reports / "paper.pdf"
    compiled, absent = render(loaded, path)
    for one in absent:
        print(f"Not in it, because it is not rendered yet: {one}", file=sys.stderr)
    for complaint in compiled.complaints:
        print(complaint, file=sys.stderr)
    if strict and compiled.complaints:
        raise UserError(f"{path}: LaTeX complains {len(compiled.complaints)} times.", "The complaints are above.")
    print(path)


def compare_table(
    name: Annotated[str, typer.Argument(help="A table of params.yaml.")],
) -> None:
    """Find the rows of a table that are not significantly different from its best, for the table to mark."""
    from comics.params import load

    loaded = load()
    loaded.require("tables", name)
    from comics.evaluation import PairedTests
    from comics.report.comparison import write_comparison
    from comics.report.tables import comparison_path

    output = comparison_path(loaded, name)
    with bars() as progress:
        count = write_comparison(loaded, name, output, PairedTests, progress=progress)
    print(f"{output}: {count} comparisons.")


def compare_study(
    name: Annotated[str, typer.Argument(help="A study of params.yaml.")],
) -> None:
    """Compare the runs of a study with its baseline, over images and seeds."""
    from comics.evaluation.seeds import compare_runs
    from comics.params import load
    from comics.report.study import compute, effects_path

    loaded = load()
    with bars() as progress:
        count = compute(loaded, name, compare_runs, progress=progress)
    print(f"{effects_path(loaded, name)}: {count} differences.")


def study(
    name: Annotated[str, typer.Argument(help="A study of params.yaml.")],
    output: Annotated[
        Path | None, typer.Option(help="Folder for its table and figure. [default: reports/studies]")
    ] = None,
) -> None:
    """Render a study of params.yaml: LaTeX, Markdown, CSV, and its figure as PDF, SVG and PNG."""
    from comics.params import load
    from comics.report.study import render

    loaded = load()
    _written(render(loaded, name, output or loaded.reports / "studies"))


def generalisation(
    name: Annotated[str, typer.Argument(help="A matrix of `generalisation:` in params.yaml.")],
    output: Annotated[
        Path | None, typer.Option(help="Folder for its table and figure. [default: reports/generalisation]")
    ] = None,
) -> None:
    """Render how runs do on what they were not trained on: LaTeX, Markdown, CSV, and a figure as PDF, SVG and PNG."""
    from comics.params import load
    from comics.report.generalisation import render

    loaded = load()
    _written(render(loaded, name, output or loaded.reports / "generalisation"))


def register(root: typer.Typer) -> None:
    """Add this group to the command line."""
    for command in (table, figure, page, paper, compare_table, study, compare_study, generalisation):
        root.command()(command)
