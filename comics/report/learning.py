"""What runs logged while they were trained: the curves of the page, and the curves figure of params.yaml."""

from __future__ import annotations

import csv
import math
from itertools import cycle, islice
from pathlib import Path

from comics.errors import UserError
from comics.params import CurvesFigure, Params, ResolvedRun
from comics.report.canvas import canvas, save
from comics.report.results import NotCurrent, NotMade, outdated_file, renewal, resolved_runs, training_state
from comics.report.style import plain

CURVE_POINTS = 240
"""A curve is thinned to about this many points."""
CURVES_RULE = "Terms of the loss, weighted, and scores on the validation set, by optimiser step; each run's first seed."
COLUMNS = 3
"""Panels beside each other, at most."""

_LOOKS = (
    ("#0072B2", "-"),
    ("#D55E00", "--"),
    ("#009E73", "-."),
    ("#CC79A7", ":"),
    ("#666666", (0, (5, 1, 1, 1, 1, 1))),
)
"""Colour and dashes of one run after the other: nothing rests on colour alone."""
_FOUND = {"detection": "boxes", "segmentation": "masks"}


def read_curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    """What a ``logs/metrics.csv`` tells: name -> (step, value), thinned by averaging; empty without a file.

    Names are those of the file's columns, without ``train/``; validation's begin with ``val/``.
    """
    if not path.exists():
        return {}
    curves: dict[str, list[tuple[int, float]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            for key, text in line.items():
                if key and key.startswith(("train/", "val/")) and text and line.get("step"):
                    value = float(text)
                    if math.isfinite(value):
                        curves.setdefault(key.removeprefix("train/"), []).append((int(float(line["step"])), value))
    return {name: _thinned(points) for name, points in curves.items()}


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    stride = math.ceil(len(points) / CURVE_POINTS)
    groups = [points[start : start + stride] for start in range(0, len(points), stride)] if stride > 1 else []
    means = [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups] or points
    return [(step, float(f"{value:.5g}")) for step, value in means]


def curves_of(run: ResolvedRun, root: Path = Path()) -> dict[str, list[tuple[int, float]]]:
    """`read_curves` of a run that is trained.

    Raises:
        NotCurrent: it is of another version; `NotMade` where it is not trained, or its log is gone.
    """
    model, log = run.folder / "model.pt", run.folder / "logs" / "metrics.csv"
    told = training_state(run, root)
    if told in ("not trained", "interrupted"):
        raise NotMade(f"{model}: {told}.", f"Train it with: {renewal([model], [])}", [])
    if told != "trained":
        outdated = outdated_file(model, run, root)
        files = [] if outdated is None else [outdated]
        raise NotCurrent(f"{model}: {told}.", f"Renew with: {renewal([model], files)}", files)
    try:
        found = read_curves(root / log)
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise UserError(f"{log}: no log of a training ({error!r}).", f"Renew with: snakemake --force {model}") from None
    if not found:
        raise NotMade(f"{log}: no such log.", f"Renew with: snakemake --force {model}", [model])
    return found


def title_of(term: str) -> str:
    """A term as a panel says it: ``val/segmentation_AP`` -> ``AP of masks, val``."""
    if term.startswith("val/"):
        task, _, metric = term.removeprefix("val/").partition("_")
        return f"{metric} of {_FOUND.get(task, task)}, val"
    return term.replace("_", " ")


def draw_curves(params: Params, figure: CurvesFigure, output: Path, root: Path = Path()) -> list[Path]:
    """Draw the figure; return the paths written.

    Raises:
        UserError: a run is not trained, or of another version, or none has logged any of the terms.
    """
    runs = [resolved_runs(params, run)[0] for run in figure.runs]
    curves = [curves_of(run, root) for run in runs]
    terms = [term for term in figure.terms if any(term in one for one in curves)]
    if not terms:
        known = ", ".join(dict.fromkeys(name for one in curves for name in one))
        raise UserError(f"figures: none of {', '.join(figure.terms)} was logged.", f"Choose among: {known}.")
    titles = [plain(params.resolve(run).params.title or run) for run in figure.runs]
    style = figure.style
    across = min(COLUMNS, len(terms))
    down = math.ceil(len(terms) / across)
    with canvas(style.width, style.height or 0.4 + 1.5 * down, style.font_size) as drawing:
        axes = drawing.subplots(down, across, squeeze=False).ravel()
        for ax, term in zip(axes, terms, strict=False):
            for one, title, (colour, dashes) in zip(curves, titles, islice(cycle(_LOOKS), len(runs)), strict=True):
                points = one.get(term, [])
                marker = "o" if term.startswith("val/") else None
                ax.plot(
                    *_columns(points), color=colour, linestyle=dashes, linewidth=1, label=title, marker=marker, ms=2.5
                )
            ax.set_title(title_of(term))
            ax.set_ylim(bottom=0)
            ax.grid(True, color="#DDDDDD", linewidth=0.4)
            ax.tick_params(width=0.6, length=2.5)
            for side in ("top", "right"):
                ax.spines[side].set_visible(False)
        for ax in axes[len(terms) :]:
            ax.set_visible(False)
        for ax in axes[max(0, len(terms) - across) : len(terms)]:
            ax.set_xlabel("step")
        handles, names = axes[0].get_legend_handles_labels()
        drawing.legend(handles, names, loc="outside lower center", ncols=min(4, len(names)), frameon=False)
        return save(drawing, output, figure.caption, {f"{one.name} seed {one.seed}": one.digest for one in runs})


def _columns(points: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [value for _, value in points]
