"""Where scores come from, for the page: AP and verdicts by size of the face, faces in the image, kind of forgery and overlap."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from comics.params import ErrorsFigure, Params, ResolvedRun, Task
from comics.report.lines import lines_of
from comics.report.results import details_path, require, resolved_runs
from comics.report.style import SPLIT_NAMES, listing, plain, task_word

BREAKDOWNS = {
    "by_size": ("size", "size of the face"),
    "by_faces": ("faces_in_image", "faces in the image"),
    "by_forgery": ("group", "kind of forgery"),
    "by_overlap": ("group", "share that another face covers"),
}
"""File of ``comics evaluate --details`` -> its column of groups, and what they are, for people."""
SHOWN = {"AP": "AP (%)", "face_ACC": "judged rightly (%)"}
"""Metric -> what it is called."""

Groups = Mapping[str, Mapping[str, float]]
"""Group -> metric -> value, as a fraction; NaN where undefined."""


def read_breakdown(
    run: ResolvedRun, split: str, task: Task, name: str, root: Path = Path(), metrics: Collection[str] = tuple(SHOWN)
) -> Groups:
    """`metrics` of `run` by the groups of `name` (of `BREAKDOWNS`), of all classes together.

    Raises:
        UserError: no such result, of another version of its run, or not what ``comics evaluate --details`` writes.
    """
    path = details_path(run, split, name)
    require([(path, run)], root)
    column = BREAKDOWNS[name][0]
    with lines_of(path, "breakdown", f"Renew with: snakemake --force {path}", root) as lines:
        return {
            line[column]: {metric: float(line[metric] or "nan") for metric in metrics}
            for line in lines
            if line["task"] == task and line["class"] == "all" and line[column] != "all"
        }


def are_there(params: Params, figure: ErrorsFigure, root: Path = Path()) -> bool:
    """Whether anything of them was made for the runs of `figure`."""
    runs = [resolved_runs(params, run)[0] for run in figure.runs]
    return any((root / details_path(one, figure.split, name)).exists() for one in runs for name in BREAKDOWNS)


def caption(params: Params, figure: ErrorsFigure) -> str:
    """What a reader must know of the numbers."""
    runs = listing([plain(params.resolve(run).params.title or run) for run in figure.runs])
    return (
        f"{runs}, {task_word(figure.tasks[-1]).lower()}, {SPLIT_NAMES[figure.split].lower()}, each run's first seed. Above: average "
        "precision of the faces of a group; below: how many of a hundred are found and judged rightly as real or forged."
    )


def draw(params: Params, figure: ErrorsFigure, output: Path, root: Path = Path()) -> list[Path]:
    """Bars of the runs of `figure`, a column of panels a breakdown, a row a metric; return the paths written.

    Raises:
        UserError: a result is missing, stale or damaged.
    """
    from comics.report.canvas import canvas, save

    runs = [resolved_runs(params, run)[0] for run in figure.runs]
    task = figure.tasks[-1]
    read = {name: [read_breakdown(one, figure.split, task, name, root) for one in runs] for name in BREAKDOWNS}
    shown = {name: of_runs for name, of_runs in read.items() if any(of_runs)}
    titles = [plain(params.resolve(run).params.title or run) for run in figure.runs]
    style = figure.style
    with canvas(style.width, style.height or 3.6, style.font_size) as drawing:
        axes = drawing.subplots(len(SHOWN), max(len(shown), 1), squeeze=False, sharey="row", sharex="col")
        for column, (name, of_runs) in enumerate(shown.items()):
            groups = list(dict.fromkeys(group for groups in of_runs for group in groups))
            for row, metric in enumerate(SHOWN):
                _bars(axes[row][column], groups, of_runs, metric, titles)
            axes[-1][column].set_xlabel(BREAKDOWNS[name][1])
        for row, called in enumerate(SHOWN.values()):
            axes[row][0].set_ylabel(called)
            axes[row][0].set_ylim(0, 100)
        handles, names = axes[0][0].get_legend_handles_labels()
        drawing.legend(handles, names, loc="outside lower center", ncols=max(1, min(4, len(names))), frameon=False)
        return save(drawing, output, "Breakdowns", {f"{one.name} seed {one.seed}": one.digest for one in runs})


def _bars(ax: Any, groups: Sequence[str], of_runs: Sequence[Groups], metric: str, titles: Sequence[str]) -> None:
    """Runs side by side in each group; they differ in hatching, too, because nothing rests on colour alone."""
    width = 0.8 / len(of_runs)
    for index, (values, title) in enumerate(zip(of_runs, titles, strict=True)):
        heights = [100 * values.get(group, {}).get(metric, math.nan) for group in groups]
        places = [place - 0.4 + width * (index + 0.5) for place in range(len(groups))]
        ax.bar(
            places,
            heights,
            width,
            color=f"C{index}",
            hatch=("", "///", "...", "xxx")[index % 4],
            edgecolor="white",
            linewidth=0.4,
            label=title,
        )
    ax.set_xticks(range(len(groups)), groups)
    ax.tick_params(width=0.6, length=2)
    ax.grid(True, axis="y", color="#DDDDDD", linewidth=0.4)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
