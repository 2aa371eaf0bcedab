"""``comics table | figure | page | paper | study``: what the results look like."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

ParamsOption = Annotated[Path, typer.Option("--params", help="The file that says what there is to render.")]


def table(
    name: Annotated[str, typer.Argument(help="A table of params.yaml.")],
    output: Annotated[
        Path | None, typer.Option(help="LaTeX file to write; .md and .csv go beside it. [default: reports/NAME.tex]")
    ] = None,
    delta: Annotated[bool, typer.Option("--delta", help="Ours minus the paper's, coloured.")] = False,
    available: Annotated[
        bool, typer.Option("--available", help="Show the paper's row for a run that has not been made.")
    ] = False,
    params: ParamsOption = Path("params.yaml"),
) -> None:
    """Render a table of params.yaml: LaTeX, Markdown and CSV."""
    from comics.params import load
    from comics.report.results import stale_rows
    from comics.report.tables import build, table_params, write

    loaded = load(params)
    entry = table_params(loaded, name)
    for warning in stale_rows(loaded, entry, entry.splits):
        print(warning, file=sys.stderr)
    path = output or Path("reports") / f"{name}{'_delta' if delta else ''}.tex"
    for written in write(build(loaded, name, delta=delta, available=available), path):
        print(written)


def figure(
    name: Annotated[str, typer.Argument(help="A figure of params.yaml.")],
    output: Annotated[
        Path | None,
        typer.Option(help="PDF to write; .svg and .png go beside it. [default: reports/figures/NAME.pdf]"),
    ] = None,
    params: ParamsOption = Path("params.yaml"),
) -> None:
    """Render a figure of params.yaml: PDF, SVG and PNG."""
    from comics.params import load
    from comics.report.figures import draw

    for written in draw(load(params), name, output or Path("reports/figures") / f"{name}.pdf"):
        print(written)


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
    from comics.evaluation.resampling import p_values
    from comics.params import load
    from comics.report.comparison import write_comparison
    from comics.report.tables import comparison_path

    loaded = load(params)
    output = comparison_path(loaded, name)
    print(f"{output}: {write_comparison(loaded, name, output, p_values)} comparisons.")


def compare_study(
    name: Annotated[str, typer.Argument(help="A study of params.yaml.")],
    params: ParamsOption = Path("params.yaml"),
) -> None:
    """Compare the runs of a study with its baseline, over images and seeds."""
    from comics.evaluation.seeds import compare_runs
    from comics.params import load
    from comics.report.study import compute, effects_path

    loaded = load(params)
    print(f"{effects_path(loaded, name)}: {compute(loaded, name, compare_runs)} differences.")


def study(
    name: Annotated[str, typer.Argument(help="A study of params.yaml.")],
    output: Annotated[Path, typer.Option(help="Folder for its table and figure.")] = Path("reports/studies"),
    params: ParamsOption = Path("params.yaml"),
) -> None:
    """Render a study of params.yaml: LaTeX, Markdown, CSV, and its figure as PDF, SVG and PNG."""
    from comics.params import load
    from comics.report.study import render

    for written in render(load(params), name, output):
        print(written)


def register(root: typer.Typer) -> None:
    """Add this group to the command line."""
    for command in (table, figure, page, paper, compare_table, study, compare_study):
        root.command()(command)
