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

ParamsOption = Annotated[Path, typer.Option("--params", help="The file that says what there is to render.")]


def _written(paths: Iterable[Path], complete: bool = True) -> None:
    for path in paths:
        print(path)
        if not complete:
            os.utime(path, (INCOMPLETE, INCOMPLETE))


def _tell_not_made(runs: list[str], target: str) -> None:
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
    params: ParamsOption = Path("params.yaml"),
) -> None:
    """Render a table of params.yaml: LaTeX, Markdown and CSV."""
    from comics.params import load
    from comics.report.results import not_made, stale_rows
    from comics.report.tables import build, table_params, write

    loaded = load(params)
    entry = table_params(loaded, name)
    for warning in stale_rows(loaded, entry, entry.splits):
        print(warning, file=sys.stderr)
    runs = not_made(loaded, entry, entry.splits) if available else []
    _tell_not_made(runs, f"reports/{name}.tex")
    path = output or Path("reports") / f"{name}{'_delta' if delta else ''}.tex"
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
    params: ParamsOption = Path("params.yaml"),
) -> None:
    """Render a figure of params.yaml: PDF, SVG and PNG."""
    from comics.params import load
    from comics.report.canvas import FORMATS
    from comics.report.figures import draw, draw_placeholder
    from comics.report.results import NotMade, not_made, renewal

    loaded = load(params)
    path = output or Path("reports/figures") / f"{name}.pdf"
    try:
        paths = draw(loaded, name, path, available=available)
    except NotMade as missing:
        if not available:
            raise
        command = renewal([f"reports/figures/{name}.pdf"], missing.outdated)
        problem = f"{missing.message}\nMake it with: {command}"
        print(problem, file=sys.stderr)
        if all(path.with_suffix(suffix).exists() for suffix in FORMATS):
            print("What an earlier call wrote is kept.", file=sys.stderr)
        else:
            _written(draw_placeholder(loaded, name, path, problem), complete=False)
        return
    entry = loaded.figures[name]
    runs = not_made(loaded, loaded.tables[entry.table], [entry.split]) if entry.kind == "scatter" else []
    _tell_not_made(runs, f"reports/figures/{name}.pdf")
    _written(paths, complete=not runs)


def page(
    output: Annotated[Path, typer.Option(help="The page, self-contained.")] = Path("reports/index.html"),
    params: ParamsOption = Path("params.yaml"),
) -> None:
    """Render the page: tables, scatter, gallery, loss curves and runs; what is not there yet says so in its place."""
    from comics.params import load
    from comics.report.page import render

    for warning in render(load(params), output):
        print(f"Not shown: {warning}", file=sys.stderr)
    print(output)


def paper(
    output: Annotated[Path, typer.Option(help="The PDF; its .tex goes beside it.")] = Path("reports/paper.pdf"),
    strict: Annotated[bool, typer.Option("--strict", help="Refuse overfull boxes and missing references.")] = False,
    params: ParamsOption = Path("params.yaml"),
) -> None:
    """Compile all rendered tables and figures into one two-column PDF (needs latexmk and pdflatex)."""
    from comics.errors import UserError
    from comics.params import load
    from comics.report.paper import render

    compiled, missing = render(load(params), output)
    for path in missing:
        print(f"Not in it, because it is not rendered yet: {path}", file=sys.stderr)
    for complaint in compiled.complaints:
        print(complaint, file=sys.stderr)
    if strict and compiled.complaints:
        raise UserError(f"{output}: LaTeX complains {len(compiled.complaints)} times.", "The complaints are above.")
    print(output)


def compare_table(
    name: Annotated[str, typer.Argument(help="A table of params.yaml.")],
    params: ParamsOption = Path("params.yaml"),
) -> None:
    """Find the rows of a table that are not significantly different from its best, for the table to mark."""
    from comics.evaluation import PairedTests
    from comics.params import load
    from comics.report.comparison import write_comparison
    from comics.report.tables import comparison_path

    loaded = load(params)
    output = comparison_path(loaded, name)
    with bars() as progress:
        count = write_comparison(loaded, name, output, PairedTests, progress=progress)
    print(f"{output}: {count} comparisons.")


def compare_study(
    name: Annotated[str, typer.Argument(help="A study of params.yaml.")],
    params: ParamsOption = Path("params.yaml"),
) -> None:
    """Compare the runs of a study with its baseline, over images and seeds."""
    from comics.evaluation.seeds import compare_runs
    from comics.params import load
    from comics.report.study import compute, effects_path

    loaded = load(params)
    with bars() as progress:
        count = compute(loaded, name, compare_runs, progress=progress)
    print(f"{effects_path(loaded, name)}: {count} differences.")


def study(
    name: Annotated[str, typer.Argument(help="A study of params.yaml.")],
    output: Annotated[Path, typer.Option(help="Folder for its table and figure.")] = Path("reports/studies"),
    params: ParamsOption = Path("params.yaml"),
) -> None:
    """Render a study of params.yaml: LaTeX, Markdown, CSV, and its figure as PDF, SVG and PNG."""
    from comics.params import load
    from comics.report.study import render

    _written(render(load(params), name, output))


def register(root: typer.Typer) -> None:
    """Add this group to the command line."""
    for command in (table, figure, page, paper, compare_table, study, compare_study):
        root.command()(command)
