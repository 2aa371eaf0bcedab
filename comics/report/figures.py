"""Figures of params.yaml: scatters of scores, examples of the dataset, runs beside the ground truth.

Every figure is written as PDF, SVG and PNG, with identical bytes from identical results: no dates, no random ids, the
fonts that come with matplotlib. The digests of the runs drawn stand in each file's metadata.
"""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from comics import reported
from comics.params import (
    ComparisonFigure,
    CurvesFigure,
    ErrorsFigure,
    ExamplesFigure,
    Params,
    ScatterFigure,
    ScatterStyle,
)
from comics.report.canvas import canvas, draw_leader, on_paper, place_texts, save
from comics.report.labels import anchor, centred
from comics.report.results import files_drawn, read_rows, runs_drawn
from comics.report.style import SPLIT_NAMES, TASK_NAMES, higher_is_better, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(params: Params, name: str, output: Path, root: Path = Path(), *, available: bool = False) -> list[Path]:
    """Draw figure `name` of params.yaml from the results below `root`; return the paths written.

    With `available`, a scatter is drawn without the runs that have not been made.

    Raises:
        UserError: no such figure; results are stale, or missing (`NotMade`).
    """
    params.require("figures", name)
    entry = params.figures[name]
    if isinstance(entry, ScatterFigure):
        return _draw_scatter(params, entry, output, root, available)
    if isinstance(entry, ErrorsFigure):
        from comics.report.errors import draw_errors

        return draw_errors(params, entry, output, root)
    if isinstance(entry, CurvesFigure):
        from comics.report.learning import draw_curves

        return draw_curves(params, entry, output, root)
    from comics.report.gallery import draw_comparison, draw_examples

    if isinstance(entry, ExamplesFigure):
        return draw_examples(params, entry, output, root)
    assert isinstance(entry, ComparisonFigure)
    return draw_comparison(params, entry, output, root)


def draw_placeholder(params: Params, name: str, output: Path, problem: str) -> list[Path]:
    """Write `problem` in place of figure `name`, as wide as that; return the paths written."""
    entry = params.figures[name]
    width, size = entry.style.width, entry.style.font_size
    columns = int(width * 72 / (0.6 * size))
    lines = [part for line in problem.splitlines() for part in textwrap.wrap(line, columns)]
    with canvas(width, (len(lines) + 4) * 1.4 * size / 72, size) as canvas_:
        text = "\n".join([f"{name} is not made yet.", *lines])
        canvas_.text(0.5, 0.5, text, ha="center", va="center", color="#444444", parse_math=False)
        return save(canvas_, output, entry.caption, {})


# ---------------------------------------------------------------------------------------------------------- scatter


@dataclass(frozen=True)
class Point:
    """A system in a scatter, in percent."""

    label: str
    x: float
    y: float
    measured: bool
    highlighted: bool
    run: str | None = None
    elsewhere: bool = False
    """Scored here from detections that were made elsewhere."""


def scatter_points(
    params: Params, figure: ScatterFigure, task: str, root: Path = Path(), *, available: bool = False
) -> list[Point]:
    """The points of one panel: measured runs, and the paper's value of every row that has one.

    A row measured here, or run elsewhere and scored here, is drawn twice, so and as reported, joined by a line, unless the paper has
    a dash for it.
    """
    table = params.tables[figure.table]
    points = []
    for row in read_rows(params, table, [figure.split], root, available=available):
        label = plain(row.name)
        star = row.params.run in figure.highlight
        if row.measured is not None:
            measured = row.measured[figure.split]
            x, y = measured.score(task, figure.x).mean, measured.score(task, figure.y).mean
            if x is not None and y is not None:
                points.append(Point(label, 100 * x, 100 * y, True, star, row.params.run))
        if row.elsewhere is not None:
            scored = row.elsewhere[figure.split]
            x, y = scored.score(task, figure.x), scored.score(task, figure.y)
            if x is not None and y is not None:
                points.append(Point(label, 100 * x, 100 * y, True, False, elsewhere=True))
        if row.params.paper is not None and table.paper is not None:
            printed = [
                reported.printed(table.paper, figure.split, row.params.paper, task, metric)
                for metric in (figure.x, figure.y)
            ]
            if all(printed):
                points.append(Point(label, float(printed[0]), float(printed[1]), False, star, row.params.run))
    return points


def axis_title(metric: str) -> str:
    """A metric as an axis says it: unit and which end is good."""
    return f"{plain(metric)} (%, {'higher' if higher_is_better(metric) else 'lower'} is better)"


def _draw_scatter(params: Params, figure: ScatterFigure, output: Path, root: Path, available: bool) -> list[Path]:
    table = params.tables[figure.table]
    rows = read_rows(params, table, [figure.split], root, available=available)
    style = figure.style
    with canvas(style.width, style.height, style.font_size) as canvas_:
        axes = canvas_.subplots(1, len(figure.tasks), squeeze=False)[0]
        points_of = partial(scatter_points, params, figure, root=root, available=available)
        panels = [(ax, points_of(task)) for ax, task in zip(axes, figure.tasks, strict=True)]
        for number, ((ax, points), task) in enumerate(zip(panels, figure.tasks, strict=True)):
            ax.set_title(f"({'abcdefgh'[number]}) {TASK_NAMES[task]}")
            ax.set_xlabel(axis_title(figure.x))
            ax.set_ylabel(axis_title(figure.y))
            ax.grid(True, color="#DDDDDD", linewidth=0.4)
            ax.set_axisbelow(True)
            ax.tick_params(width=0.6, length=2.5)
            ax.margins(0.12)
            _draw_points(ax, points, figure)
        _legend(canvas_, [point for _, points in panels for point in points], params, figure)
        canvas_.canvas.draw()  # the layout decides where the axes are, and only then is it known what overlaps
        canvas_.set_layout_engine("none")
        for ax, points in panels:
            _draw_labels(ax, points, figure)
        return save(canvas_, output, figure.caption, {**runs_drawn(rows), **files_drawn(rows)})


def _shape(point: Point) -> str:
    return "*" if point.highlighted else "s" if point.elsewhere else "o"


def _colour(point: Point, style: ScatterStyle) -> str:
    if point.highlighted:
        return style.highlight
    return style.measured if point.measured and not point.elsewhere else style.reported


def _same_system(points: list[Point]) -> list[tuple[Point, Point]]:
    """Measured points with the reported one of the same system."""
    reported_points = {point.label: point for point in points if not point.measured}
    return [(one, reported_points[one.label]) for one in points if one.measured and one.label in reported_points]


def _draw_points(ax: Axes, points: list[Point], figure: ScatterFigure) -> None:
    style = figure.style
    for point, twin in _same_system(points):
        ax.plot([point.x, twin.x], [point.y, twin.y], color="#999999", linewidth=0.6, linestyle=":", zorder=1)
    for point in points:
        colour = _colour(point, style)
        ax.plot(
            point.x,
            point.y,
            marker=_shape(point),
            markersize=style.marker_size * (1.7 if point.highlighted else 1.0),
            markerfacecolor=colour if point.measured else "white",
            markeredgecolor=colour,
            markeredgewidth=0.9,
            linestyle="none",
            zorder=3 if point.measured else 2,
        )


def _legend(canvas_: Figure, points: list[Point], params: Params, figure: ScatterFigure) -> None:
    from matplotlib.lines import Line2D

    style = figure.style
    kinds = [
        (True, False, f"measured, {params.dataset}", style.measured),
        (True, True, f"run elsewhere, scored here, {params.dataset}", style.reported),
        (False, False, f"reported in the paper, {reported.DATASET}", style.reported),
    ]
    handles = [
        Line2D(
            [],
            [],
            marker="s" if elsewhere else "o",
            linestyle="none",
            markersize=style.marker_size,
            markerfacecolor=colour if measured else "white",
            markeredgecolor=colour,
            label=f"{text}, {SPLIT_NAMES[figure.split].lower()}",
        )
        for measured, elsewhere, text, colour in kinds
        if any((point.measured, point.elsewhere) == (measured, elsewhere) for point in points)
    ]
    if _same_system(points):
        handles.append(Line2D([], [], color="#999999", linewidth=0.8, linestyle=":", label="same system"))
    if handles:
        canvas_.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


def _draw_labels(ax: Axes, points: list[Point], figure: ScatterFigure) -> None:
    """Write the labels where they overlap nothing."""
    style = figure.style
    spots = {id(point): on_paper(ax, (point.x, point.y)) for point in points}
    side = style.marker_size * 1.25 + 1
    texts = [
        ax.text(
            point.x,
            point.y,
            point.label,
            fontsize=style.font_size * 0.93,
            fontweight="bold" if point.highlighted else "normal",
            fontstyle="normal" if point.measured else "italic",
            color="black" if point.measured else "#444444",
            ha="center",
            va="center",
            zorder=4,
        )
        for point in points
    ]
    markers = [centred(spots[id(point)], side, side) for point in points]
    joined = [(spots[id(one)], spots[id(other)]) for one, other in _same_system(points)]
    boxes = place_texts(ax, texts, markers, padding=(1.0, 0.0), inset=2, lines=joined)
    for point, box in zip(points, boxes, strict=True):
        spot = spots[id(point)]
        end = anchor(box, spot)
        if math.dist(end, spot) > style.marker_size * 1.1:
            draw_leader(ax, spot, end, color="#888888", linewidth=0.4, zorder=1.5)


# ------------------------------------------------------------------------------------- texts beside what they are about
