"""Robustness of params.yaml: curves by family, a heat map of operations and severities, and a table of mean degradation.

The table's errors are those of Hendrycks and Dietterich ("Benchmarking neural network robustness to common corruptions and
perturbations", ICLR 2019): the corruption error of an operation is the run's error summed over severities, over the
baseline's; mCE is its mean over the operations, in percent. The relative one takes the increase over clean images instead, and
the quotient of means, because the increase of a single operation may be nought. The error is 1 minus the metric, or
the metric itself where lower is better. Families count by their operations; flips and the like too.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from comics.errors import UserError
from comics.files import write_text
from comics.params import Params, RobustnessParams
from comics.provenance import read_sidecar
from comics.report.lines import lines_of
from comics.report.results import require, resolved_runs, robustness_path
from comics.report.style import SPLIT_NAMES, higher_is_better, listing, plain, task_word, templates, tex

PSNR = {1: 34, 2: 30, 3: 26, 4: 22, 5: 18}
"""dB that the severities mean (`comics.data.perturb.severity`)."""

Condition = tuple[str, int]
"""Operation and severity; ``none`` and 0 for images as they are."""


def block_of(params: Params) -> RobustnessParams:
    """What params.yaml says of robustness.

    Raises:
        UserError: nothing.
    """
    params.require_split("robustness")
    if params.file.robustness is None:
        raise UserError(f"{params.path}: robustness: missing.", "Write `robustness: {runs: [blendmask, comics]}`.")
    return params.file.robustness


def severities_path(params: Params) -> Path:
    """Where the severities are kept, from the project's root."""
    return params.compared("robustness") / "severities.json"


def conditions(block: RobustnessParams) -> dict[str, Any]:
    """What of `block` decides what is measured: stands in the sidecar of every measurement."""
    return block.model_dump(mode="json", include={"split", "images", "severities", "families"})


@dataclass(frozen=True)
class Measured:
    """The metric of one run, mean over its seeds.

    Attributes:
        title: for people.
        values: condition -> value, as a fraction; conditions where no seed defines it are left out.
        families: operation -> family, in the order measured.
        psnr: operation -> mean PSNR reached at each severity; empty where pixels move.
    """

    title: str
    values: Mapping[Condition, float]
    families: Mapping[str, str]
    psnr: Mapping[str, Mapping[int, float]]

    def error(self, condition: Condition, metric: str) -> float:
        """1 minus the metric, or the metric where lower is better; NaN where it is undefined."""
        value = self.values.get(condition, math.nan)
        return 1 - value if higher_is_better(metric) else value


def read_measured(params: Params, run: str, root: Path = Path()) -> Measured:
    """The measurements of `run`, all seeds.

    Raises:
        UserError: missing, of another version of the run or of other conditions, or damaged.
    """
    block = block_of(params)
    resolved = resolved_runs(params, run)
    paths = [robustness_path(one) for one in resolved]
    require(list(zip(paths, resolved, strict=True)), root)
    found: dict[Condition, list[float]] = {}
    families: dict[str, str] = {}
    reached: dict[str, dict[int, float]] = {}
    for path in paths:
        renew = f"Renew with: snakemake {path} --forcerun measure_robustness"
        if read_sidecar(root / path).get("conditions") != conditions(block):
            raise UserError(f"{path}: measured under other conditions than params.yaml has now.", renew)
        with lines_of(path, "measurement of robustness", renew, root) as lines:
            for line in lines:
                if line["task"] != block.task:
                    continue
                condition = line["operation"], int(line["severity"])
                if line[block.metric]:
                    found.setdefault(condition, []).append(float(line[block.metric]))
                if condition[1]:
                    families[condition[0]] = line["family"]
                    if line["psnr"]:
                        reached.setdefault(condition[0], {})[condition[1]] = float(line["psnr"])
    title = plain(params.resolve(run).params.title or run)
    return Measured(title, {key: fmean(values) for key, values in found.items()}, families, reached)


@dataclass(frozen=True)
class Degradation:
    """One run in the table, as fractions; NaN where undefined.

    Attributes:
        clean, perturbed: the metric on images as they are, and its mean over operations and severities.
        mce, relative: mean corruption error and its relative form, 1 for the baseline.
        families: family -> mean of the metric minus that of clean images.
    """

    title: str
    clean: float
    perturbed: float
    mce: float
    relative: float
    families: Mapping[str, float]


def degradations(block: RobustnessParams, runs: Mapping[str, Measured]) -> list[Degradation]:
    """The rows of the table, in the order of `runs`; the first is the baseline."""
    baseline = next(iter(runs.values()))
    return [_degradation(block, one, baseline) for one in runs.values()]


def _mean(values: Iterable[float]) -> float:
    defined = [value for value in values if value == value]
    return fmean(defined) if defined else math.nan


def _degradation(block: RobustnessParams, run: Measured, baseline: Measured) -> Degradation:
    clean = run.values.get(("none", 0), math.nan)
    quotients, increases = [], []
    for name in run.families:
        own, other = (
            sum(one.error((name, level), block.metric) for level in block.severities) for one in (run, baseline)
        )
        quotients.append(own / other if other > 0 else math.nan)
        count = len(block.severities)
        increases.append(
            tuple(
                total - count * one.error(("none", 0), block.metric) for total, one in ((own, run), (other, baseline))
            )
        )
    ours, theirs = (_mean(pair[index] for pair in increases) for index in (0, 1))

    def fall(family: str | None) -> float:
        names = [name for name, of in run.families.items() if family in (None, of)]
        return _mean(run.values.get((name, level), math.nan) for name in names for level in block.severities)

    return Degradation(
        title=run.title,
        clean=clean,
        perturbed=fall(None),
        mce=_mean(quotients),
        relative=ours / theirs if theirs > 0 else math.nan,
        families={family: fall(family) - clean for family in block.families},
    )


def _headings(block: RobustnessParams) -> list[str]:
    return ["Run", "clean", "perturbed", "mCE", "relative mCE", *block.families]


def _lines(block: RobustnessParams, rows: Iterable[Degradation]) -> list[list[str]]:
    def shown(value: float, sign: bool = False) -> str:
        return "–" if value != value else f"{100 * value:{'+' if sign else ''}.1f}".replace("-", "−")

    return [
        [row.title, *map(shown, (row.clean, row.perturbed, row.mce, row.relative))]
        + [shown(row.families[family], sign=True) for family in block.families]
        for row in rows
    ]


def caption(params: Params) -> str:
    """What a reader must know of the numbers."""
    block = block_of(params)
    levels = ", ".join(f"{level}: {PSNR[level]} dB" for level in block.severities)
    seeds = listing(sorted({str(one.seed) for run in block.runs for one in resolved_runs(params, run)}))
    where = f"{block.images} images of the {SPLIT_NAMES[block.split].lower()} of {params.dataset}"
    baseline = plain(params.resolve(block.runs[0]).params.title or block.runs[0])
    return (
        f"{plain(block.metric)}, {task_word(block.task).lower()}, on {where}, perturbed by every operation at severities that "
        f"mean a PSNR ({levels}; where pixels move, equal steps of strength). Percent; mean over seeds {seeds}. mCE: error "
        f"relative to {baseline}; families: change from clean images."
    )


def to_markdown(params: Params, rows: list[Degradation]) -> str:
    """The table in GitHub's Markdown."""
    block = block_of(params)
    headings = _headings(block)
    out = ["# Robustness", "", caption(params), "", "| " + " | ".join(headings) + " |"]
    out.append("|---" + "|---:" * (len(headings) - 1) + "|")
    out += ["| " + " | ".join(line) + " |" for line in _lines(block, rows)]
    return "\n".join(out) + "\n"


def to_latex(params: Params, rows: list[Degradation]) -> str:
    """The table in booktabs."""
    block = block_of(params)
    return (
        templates()
        .get_template("runs.tex.j2")
        .render(
            command="robustness report",
            label="robustness",
            caption=tex(caption(params)),
            runs=_digests(params),
            headings=[tex(heading) for heading in _headings(block)],
            lines=[[tex(cell).replace("−", "$-$").replace("–", "--") for cell in line] for line in _lines(block, rows)],
        )
    )


CSV_HEADER = ("run", "clean", "perturbed", "mce", "relative_mce")


def to_csv(params: Params, rows: list[Degradation]) -> str:
    """The table in percent and full precision."""
    block = block_of(params)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*CSV_HEADER, *block.families])
    for run, row in zip(block.runs, rows, strict=True):
        values = (row.clean, row.perturbed, row.mce, row.relative, *(row.families[one] for one in block.families))
        writer.writerow([run, *("" if value != value else f"{100 * value:.10g}" for value in values)])
    return text.getvalue()


def _digests(params: Params) -> dict[str, str]:
    runs = [one for run in block_of(params).runs for one in resolved_runs(params, run)]
    return {f"{one.name} seed {one.seed}": one.digest for one in runs}


def draw_curves(params: Params, runs: Mapping[str, Measured], output: Path) -> list[Path]:
    """The metric over severity, a panel a family, a line a run: mean over the family's operations."""
    from comics.report.figures import canvas, save

    block = block_of(params)
    style = block.style
    columns = min(4, len(block.families))
    rows = -(-len(block.families) // columns)
    levels = [0, *block.severities]
    with canvas(style.width, style.height or 0.7 + 1.55 * rows, style.font_size) as drawing:
        axes = drawing.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for ax in axes.flat[len(block.families) :]:
            ax.set_axis_off()
        for ax, family in zip(axes.flat, block.families, strict=False):
            for index, run in enumerate(runs.values()):
                names = [name for name, of in run.families.items() if of == family]
                clean = run.values.get(("none", 0), math.nan)
                points = [clean] + [
                    _mean(run.values.get((name, level), math.nan) for name in names) for level in block.severities
                ]
                ax.plot(
                    levels,
                    [100 * point for point in points],
                    color=f"C{index}",
                    marker="osD^vP*X"[index % 8],
                    linestyle=("-", "--", "-.", ":")[index % 4],
                    markersize=3.2,
                    linewidth=1.2,
                    label=run.title,
                )
            ax.set_title(family)
            ax.grid(True, color="#DDDDDD", linewidth=0.4)
            ax.set_axisbelow(True)
            ax.set_xticks(levels, ["clean", *map(str, block.severities)])
            ax.tick_params(width=0.6, length=2.5)
        for line in axes:
            line[0].set_ylabel(f"{plain(block.metric)} (%)")
        for ax in axes[-1]:
            ax.set_xlabel("severity")
        handles, names = axes.flat[0].get_legend_handles_labels()
        drawing.legend(handles, names, loc="outside lower center", ncols=max(1, min(4, len(names))), frameon=False)
        return save(drawing, output, "Robustness by family", _digests(params))


def draw_heat_map(params: Params, runs: Mapping[str, Measured], output: Path) -> list[Path]:
    """Change of the metric from clean images, in points: operations by severities, a panel a run."""
    from comics.report.figures import canvas, save

    block = block_of(params)
    style = block.style
    names = list(next(iter(runs.values())).families)
    with canvas(style.width, style.height or 0.9 + 0.145 * len(names), style.font_size) as drawing:
        axes = drawing.subplots(1, len(runs), squeeze=False, sharey=True)[0]
        changes = {
            key: [
                [
                    100 * (run.values.get((name, level), math.nan) - run.values.get(("none", 0), math.nan))
                    for level in block.severities
                ]
                for name in names
            ]
            for key, run in runs.items()
        }
        largest = max(
            [abs(value) for rows in changes.values() for row in rows for value in row if value == value] or [1.0]
        )
        colours = "RdBu" if higher_is_better(block.metric) else "RdBu_r"
        for ax, (key, run) in zip(axes, runs.items(), strict=True):
            image = ax.imshow(changes[key], cmap=colours, vmin=-largest, vmax=largest, aspect="auto")
            for row, values in enumerate(changes[key]):
                for column, value in enumerate(values):
                    if value == value:
                        dark = abs(value) > 0.6 * largest
                        text = f"{value:+.0f}".replace("-", "−").replace("+0", "0").replace("−0", "0")
                        ax.text(
                            column,
                            row,
                            text,
                            ha="center",
                            va="center",
                            fontsize=0.75 * style.font_size,
                            color="white" if dark else "black",
                        )
            ax.set_title(run.title)
            ax.set_xticks(range(len(block.severities)), list(map(str, block.severities)))
            ax.set_xlabel("severity")
            ax.tick_params(width=0.6, length=2)
            family = None
            for row, name in enumerate(names):
                if run.families[name] != family and row:
                    ax.axhline(row - 0.5, color="black", linewidth=0.7)
                family = run.families[name]
        axes[0].set_yticks(
            range(len(names)), [name.replace("_", " ") for name in names], fontsize=0.85 * style.font_size
        )
        drawing.colorbar(
            image, ax=list(axes), label=f"{plain(block.metric)}, change from clean images, points", shrink=0.5
        )
        return save(drawing, output, "Robustness by operation and severity", _digests(params))


def read_all(params: Params, root: Path = Path()) -> dict[str, Measured]:
    """The measurements of all runs of the block.

    Raises:
        UserError: the first that is missing, stale or damaged.
    """
    block = block_of(params)
    require([(robustness_path(one), one) for run in block.runs for one in resolved_runs(params, run)], root)
    return {run: read_measured(params, run, root) for run in block.runs}


def render(params: Params, folder: Path, root: Path = Path()) -> list[Path]:
    """Write table (.tex, .md, .csv), curves and heat map (.pdf, .svg, .png) into `folder`; return the paths.

    Raises:
        UserError: a measurement is missing, stale or damaged.
    """
    runs = read_all(params, root)
    rows = degradations(block_of(params), runs)
    written = []
    for suffix, text in (
        (".tex", to_latex(params, rows)),
        (".md", to_markdown(params, rows)),
        (".csv", to_csv(params, rows)),
    ):
        write_text(folder / f"table{suffix}", text)
        written.append(folder / f"table{suffix}")
    return [
        *written,
        *draw_curves(params, runs, folder / "curves.pdf"),
        *draw_heat_map(params, runs, folder / "heat_map.pdf"),
    ]
