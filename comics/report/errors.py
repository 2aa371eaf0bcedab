"""What each kind of error costs, as a stacked bar a run: the errors figure of params.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comics.params import ErrorsFigure, Params, ResolvedRun
from comics.report.figures import canvas, save
from comics.report.lines import lines_of
from comics.report.results import details_path, require, resolved_runs
from comics.report.style import plain, task_word

KINDS = {
    "Cls": ("wrong class", "#D55E00", ""),
    "Loc": ("badly placed", "#56B4E9", "///"),
    "Both": ("both", "#CC79A7", "xxx"),
    "Dupe": ("found again", "#F0E442", "..."),
    "Bkg": ("no face there", "#999999", "\\\\\\"),
    "Miss": ("missed", "#0072B2", "--"),
}
"""TIDE's kinds of error: what they are called for people, colour and hatching (nothing rests on colour alone)."""

ERRORS_RULE = "AP50 points that each kind of error costs (TIDE), of each run's first seed; kinds do not add up to all that is lost."


def read_errors(run: ResolvedRun, split: str, root: Path = Path()) -> dict[tuple[str, str], float]:
    """(task, kind of error) -> AP50 that it costs, as a fraction.

    Raises:
        UserError: no such result, of another version of its run, or not what ``comics evaluate --details`` writes.
    """
    path = details_path(run, split, "errors")
    require([(path, run)], root)
    with lines_of(path, "table of errors", f"Renew with: snakemake --force {path}", root) as lines:
        return {(line["task"], line["error"]): float(line["AP50_lost"]) for line in lines}


def draw_errors(params: Params, figure: ErrorsFigure, output: Path, root: Path = Path()) -> list[Path]:
    """Draw the figure; return the paths written.

    Raises:
        UserError: a result is missing or stale.
    """
    runs = [resolved_runs(params, run)[0] for run in figure.runs]
    require([(details_path(one, figure.split, "errors"), one) for one in runs], root)
    costs = [read_errors(one, figure.split, root) for one in runs]
    titles = [plain(params.resolve(run).params.title or run) for run in figure.runs]
    style = figure.style
    height = style.height or 0.95 + 0.28 * len(runs)
    with canvas(style.width, height, style.font_size) as drawing:
        axes = drawing.subplots(1, len(figure.tasks), squeeze=False, sharex=True, sharey=True)[0]
        for ax, task in zip(axes, figure.tasks, strict=True):
            _draw_bars(ax, [[100 * one.get((task, kind), 0.0) for kind in KINDS] for one in costs])
            ax.set_title(task_word(task))
            ax.set_xlabel("AP50 lost, points")
        axes[0].set_yticks(range(len(runs)), titles)
        axes[0].invert_yaxis()
        handles, names = axes[0].get_legend_handles_labels()
        drawing.legend(handles, names, loc="outside lower center", ncols=len(KINDS), frameon=False, handlelength=1.6)
        return save(drawing, output, figure.caption, {f"{one.name} seed {one.seed}": one.digest for one in runs})


def _draw_bars(ax: Any, rows: list[list[float]]) -> None:
    """One bar a row, its parts side by side; a kind whose correction lowers AP counts as nothing."""
    left = [0.0] * len(rows)
    for index, (name, colour, hatch) in enumerate(KINDS.values()):
        widths = [max(row[index], 0.0) for row in rows]
        ax.barh(
            range(len(rows)),
            widths,
            0.62,
            left,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0.5,
            label=name,
        )
        for place, width in enumerate(widths):
            if width >= 3:
                box = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
                ax.text(left[place] + width / 2, place, f"{width:.0f}", ha="center", va="center", bbox=box)
            left[place] += width
    ax.set_xlim(0, max([*left, 1.0]) * 1.02)
    ax.tick_params(width=0.6, length=2.5)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
