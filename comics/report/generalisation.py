"""Generalisation of params.yaml: how runs do on what they were not trained on, as table and heat map.

`datasets`: a row a run, a column a test dataset; its own is marked. `forgeries`: a column a kind of forgery; kinds that training
lacked are marked, and stand apart from those that it had: their means are the last two columns.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from comics.errors import UserError
from comics.files import write_text
from comics.params import DatasetsMatrix, ForgeriesMatrix, Params, ResolvedRun
from comics.report.breakdowns import read_breakdown
from comics.report.lines import lines_of
from comics.report.results import details_path, intervals_path, read_scores, require, resolved_runs, scores_path
from comics.report.style import (
    SPLIT_NAMES,
    higher_is_better,
    listing,
    plain,
    sentence,
    task_word,
    templates,
    tex,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OWN, OTHER, HAD, LACKED = "its own", "another", "in training", "held out"
"""What a column is to the run of a row."""


@dataclass(frozen=True)
class Cell:
    """A metric of one run on one thing.

    Attributes:
        values: one a seed that defines it, as fractions.
        relation: what it is to the run: `OWN`, `OTHER`, `HAD` or `LACKED`.
        interval: 95 % over images of the one seed's value, where the matrix has them.
    """

    values: tuple[float, ...]
    relation: str
    interval: tuple[float, float] | None = None

    @property
    def marked(self) -> bool:
        """Whether it stands out: of the run's own dataset, or what training lacked."""
        return self.relation in (OWN, LACKED)

    def text(self, latex: bool = False) -> str:
        """Percent, with the standard deviation over seeds where there are several, or else the interval."""
        if not self.values:
            return "--" if latex else "–"
        mean = f"{100 * fmean(self.values):.1f}"
        if self.interval is not None:
            low, high = self.interval
            return f"{mean} [{100 * low:.1f}, {100 * high:.1f}]"
        if len(self.values) == 1:
            return mean
        plus_minus = r"$\pm$" if latex else "±"
        return f"{mean} {plus_minus} {100 * stdev(self.values):.1f}"


@dataclass(frozen=True)
class Line:
    """A row of a matrix.

    Attributes:
        title: of the run, for people.
        runs: the run, one a seed.
        cells: column -> what was measured there.
    """

    title: str
    runs: tuple[ResolvedRun, ...]
    cells: Mapping[str, Cell]


def matrix_of(params: Params, name: str) -> DatasetsMatrix | ForgeriesMatrix:
    """Matrix `name` of params.yaml.

    Raises:
        UserError: there is none, or a dataset lacks its split.
    """
    params.require("generalisation", name)
    return params.matrices[name]


def sources(params: Params, name: str) -> list[tuple[Path, ResolvedRun]]:
    """What matrix `name` is made from, and the run that makes each."""
    matrix = matrix_of(params, name)
    return [
        (path, one)
        for run in matrix.runs
        for one in resolved_runs(params, run)
        for path in (
            [
                path_of(one, matrix.split, test)
                for test in _tests(params, run)
                for path_of in (
                    (scores_path, intervals_path) if _has_intervals(params, matrix, run) else (scores_path,)
                )
            ]
            if isinstance(matrix, DatasetsMatrix)
            else [details_path(one, matrix.split, "by_forgery")]
        )
    ]


def _has_intervals(params: Params, matrix: DatasetsMatrix, run: str) -> bool:
    """Whether cells of `run` have intervals over images: several seeds tell more, and stand in their place."""
    return matrix.intervals and len(params.seeds(run)) == 1


def _tests(params: Params, run: str) -> list[str]:
    """The datasets that `run` is tested on, its own first."""
    return list(dict.fromkeys([params.dataset_of(run), *params.resolve(run).params.tests]))


def read(params: Params, name: str, root: Path = Path()) -> tuple[list[str], list[Line]]:
    """The columns and the rows of matrix `name`.

    Raises:
        UserError: no such matrix, or a result is missing, stale, damaged, or of no kind of forgery.
    """
    matrix = matrix_of(params, name)
    require(sources(params, name), root)
    if isinstance(matrix, DatasetsMatrix):
        columns = params.tested_on(matrix)
        return columns, [_tested(params, matrix, run, root) for run in matrix.runs]
    rows = {run: [_by_kind(one, matrix, root) for one in resolved_runs(params, run)] for run in matrix.runs}
    kinds = list(dict.fromkeys(kind for of_seeds in rows.values() for of_seed in of_seeds for kind in of_seed))
    if not kinds:
        raise UserError(
            f"{params.path}: generalisation.{name}: the images of its runs have no kinds of forgery.",
            "Annotations name theirs as `forgery`; the embedded dataset of kind crowd has them.",
        )
    return [*kinds, HAD, LACKED], [_forged(params, run, rows[run], kinds) for run in matrix.runs]


def _title(params: Params, run: str) -> str:
    return plain(params.resolve(run).params.title or run)


def _tested(params: Params, matrix: DatasetsMatrix, run: str, root: Path) -> Line:
    resolved = tuple(resolved_runs(params, run))
    cells = {}
    for test in _tests(params, run):
        found = (read_scores(root / scores_path(one, matrix.split, test)) for one in resolved)
        values = [of_seed.get((matrix.task, "all", matrix.metric)) for of_seed in found]
        relation = OWN if test == resolved[0].dataset_name else OTHER
        interval = _interval(resolved[0], matrix, test, root) if _has_intervals(params, matrix, run) else None
        cells[test] = Cell(tuple(value for value in values if value is not None), relation, interval)
    return Line(f"{_title(params, run)}, {resolved[0].dataset_name}", resolved, cells)


def _interval(run: ResolvedRun, matrix: DatasetsMatrix, test: str, root: Path) -> tuple[float, float] | None:
    """The 95 % interval of the matrix's metric; None where it is undefined."""
    path = intervals_path(run, matrix.split, test)
    with lines_of(path, "intervals", f"Renew with: snakemake --force {path}", root) as lines:
        for line in lines:
            if (line["task"], line["class"], line["metric"]) == (matrix.task, "all", matrix.metric):
                return float(line["low"]), float(line["high"])
    return None


def _by_kind(run: ResolvedRun, matrix: ForgeriesMatrix, root: Path) -> dict[str, float | None]:
    """Kind of forgery -> the metric of its faces."""
    found = read_breakdown(run, matrix.split, matrix.task, "by_forgery", root, [matrix.metric])
    return {kind: None if isnan(values[matrix.metric]) else values[matrix.metric] for kind, values in found.items()}


def _forged(params: Params, run: str, of_seeds: Sequence[Mapping[str, float | None]], kinds: Sequence[str]) -> Line:
    resolved = tuple(resolved_runs(params, run))
    lacked = getattr(resolved[0].dataset, "held_out", ())
    relation = {kind: LACKED if kind in lacked else HAD for kind in kinds}
    cells = {
        kind: Cell(tuple(value for of_seed in of_seeds if (value := of_seed.get(kind)) is not None), relation[kind])
        for kind in kinds
    }
    for group in (HAD, LACKED):
        means = []
        for of_seed in of_seeds:
            values = [value for kind in kinds if relation[kind] == group and (value := of_seed.get(kind)) is not None]
            means += [fmean(values)] if values else []
        cells[group] = Cell(tuple(means), group)
    return Line(_title(params, run), resolved, cells)


def caption(params: Params, name: str) -> str:
    """What a reader must know of the numbers."""
    matrix = matrix_of(params, name)
    seeds = sorted({one.seed for run in matrix.runs for one in resolved_runs(params, run)})
    told = f"seed{'s' if len(seeds) > 1 else ''} {listing(list(map(str, seeds)))}"
    what = f"{matrix.metric}, {task_word(matrix.task).lower()}, {SPLIT_NAMES[matrix.split].lower()}, percent, {told}"
    if isinstance(matrix, DatasetsMatrix):
        rule = "Rows: a run and the dataset it was trained on; columns: what it was tested on, its own framed."
        if any(_has_intervals(params, matrix, run) for run in matrix.runs):
            rule += " In brackets: 95 % intervals over images of the test."
    else:
        rule = (
            "Columns: the faces of a kind of forgery; framed: kinds that training lacked. The last two are means over the kinds "
            "that training had, and over those that it lacked."
        )
    return f"{sentence(matrix.caption)} {what}. {rule}"


def to_markdown(params: Params, name: str, columns: Sequence[str], lines: Sequence[Line]) -> str:
    """The matrix in GitHub's Markdown; what is framed in the figure is bold."""
    out = [f"# {plain(sentence(matrix_of(params, name).caption))}", "", plain(caption(params, name)), ""]
    out += ["| " + " | ".join(["Run", *columns]) + " |", "|---" + "|---:" * len(columns) + "|"]
    for line in lines:
        texts = []
        for column in columns:
            cell = line.cells.get(column)
            texts.append("" if cell is None else f"**{cell.text()}**" if cell.marked and cell.values else cell.text())
        out.append("| " + " | ".join([line.title, *texts]) + " |")
    return "\n".join(out) + "\n"


def to_latex(params: Params, name: str, columns: Sequence[str], lines: Sequence[Line]) -> str:
    """The matrix in booktabs; what is framed in the figure is bold."""

    def shown(cell: Cell | None) -> str:
        if cell is None:
            return ""
        return rf"\textbf{{{cell.text(latex=True)}}}" if cell.marked and cell.values else cell.text(latex=True)

    return (
        templates()
        .get_template("runs.tex.j2")
        .render(
            command=f"generalisation {name}",
            label=f"generalisation_{name}",
            caption=tex(caption(params, name).replace("framed", "bold")),
            runs=_digests(lines),
            headings=["Run", *(tex(column) for column in columns)],
            lines=[[tex(line.title), *(shown(line.cells.get(column)) for column in columns)] for line in lines],
        )
    )


def to_csv(params: Params, name: str, columns: Sequence[str], lines: Sequence[Line]) -> str:
    """One line a cell: percent, full precision."""
    matrix = matrix_of(params, name)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    tested = "tested_on" if isinstance(matrix, DatasetsMatrix) else "forgery"
    writer.writerow(
        [
            "run",
            "trained_on",
            tested,
            "relation",
            "split",
            "task",
            "metric",
            "seeds",
            "mean",
            "deviation",
            "low",
            "high",
        ]
    )
    for run, line in zip(matrix.runs, lines, strict=True):
        for column in columns:
            cell = line.cells.get(column)
            if cell is None or not cell.values:
                continue
            deviation = f"{100 * stdev(cell.values):.10g}" if len(cell.values) > 1 else ""
            thing = "" if column in (HAD, LACKED) else column
            shown = (
                matrix.split,
                matrix.task,
                matrix.metric,
                len(cell.values),
                f"{100 * fmean(cell.values):.10g}",
                deviation,
                *("" if cell.interval is None else f"{100 * cell.interval[bound]:.10g}" for bound in (0, 1)),
            )
            writer.writerow([run, line.runs[0].dataset_name, thing, cell.relation, *shown])
    return text.getvalue()


def _digests(lines: Sequence[Line]) -> dict[str, str]:
    return {f"{one.name} seed {one.seed}": one.digest for line in lines for one in line.runs}


def draw(params: Params, name: str, columns: Sequence[str], lines: Sequence[Line], output: Path) -> list[Path]:
    """The matrix as a heat map with its numbers; return the paths written."""
    # Not above: the workflow imports this module each time it is read, and drawing imports numpy.
    from comics.report.canvas import canvas, save

    matrix = matrix_of(params, name)
    style = matrix.style
    intervals = any(cell.interval is not None for _, _, cell in _places(columns, lines))
    width = min(style.width, 2.2 + (1.3 if intervals else 0.85) * len(columns))
    with canvas(width, style.height or 0.75 + 0.3 * len(lines), style.font_size) as drawing:
        _heat_map(drawing, matrix, columns, lines, style.font_size)
        return save(drawing, output, sentence(matrix.caption), _digests(lines))


def _heat_map(
    drawing: Figure,
    matrix: DatasetsMatrix | ForgeriesMatrix,
    columns: Sequence[str],
    lines: Sequence[Line],
    font_size: float,
) -> None:
    from matplotlib.patches import Rectangle

    ax = drawing.subplots()
    values = [[float("nan")] * len(columns) for _ in lines]
    for row, column, cell in _places(columns, lines):
        values[row][column] = 100 * fmean(cell.values)
    low, high = _range(values)
    colours = "Blues" if higher_is_better(matrix.metric) else "Blues_r"
    image = ax.imshow(values, cmap=colours, vmin=low, vmax=high, aspect="auto")
    for row, column, cell in _places(columns, lines):
        share = (values[row][column] - low) / max(high - low, 1e-9)
        dark = share > 0.6 if higher_is_better(matrix.metric) else share < 0.4
        colour = "white" if dark else "black"
        ax.text(column, row, cell.text(), ha="center", va="center", fontsize=0.95 * font_size, color=colour)
        if cell.marked:
            frame = Rectangle((column - 0.46, row - 0.44), 0.92, 0.88, fill=False, edgecolor="#D55E00", linewidth=1.2)
            ax.add_patch(frame)
    ax.set_xticks(range(len(columns)), [column.replace("_", " ") for column in columns])
    ax.set_yticks(range(len(lines)), [line.title for line in lines])
    if HAD in columns:
        ax.axvline(columns.index(HAD) - 0.5, color="black", linewidth=0.7)
    ax.xaxis.tick_top()
    ax.tick_params(width=0.6, length=2)
    drawing.colorbar(image, ax=ax, label=f"{plain(matrix.metric)} (%)", shrink=0.9)


def _places(columns: Sequence[str], lines: Sequence[Line]) -> Iterator[tuple[int, int, Cell]]:
    """Row, column and cell of everything that has a value."""
    for row, line in enumerate(lines):
        for place, column in enumerate(columns):
            cell = line.cells.get(column)
            if cell is not None and cell.values:
                yield row, place, cell


def _range(values: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Of the colours: all numbers, and at least 10 points, lest noise look like a difference."""
    known = [value for row in values for value in row if value == value] or [0.0, 100.0]
    low, high = min(known), max(known)
    missing = max(0.0, 10.0 - (high - low)) / 2
    return low - missing, high + missing


def render(params: Params, name: str, folder: Path, root: Path = Path()) -> list[Path]:
    """Write the matrix (.tex, .md, .csv) and its figure (.pdf, .svg, .png) into `folder`; return the paths.

    Raises:
        UserError: no such matrix, or a result is missing, stale or damaged.
    """
    columns, lines = read(params, name, root)
    written = []
    for suffix, render_text in ((".tex", to_latex), (".md", to_markdown), (".csv", to_csv)):
        write_text(folder / f"{name}{suffix}", render_text(params, name, columns, lines))
        written.append(folder / f"{name}{suffix}")
    return [*written, *draw(params, name, columns, lines, folder / f"{name}.pdf")]
