"""Studies of params.yaml: does it help? Differences from a baseline over several seeds, with intervals, as table and figure.

`compute` resamples once and keeps what it found in ``results/``; rendering only reads that, and only while the digests in
it are those of params.yaml.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from comics.errors import UserError, did_you_mean
from comics.files import read_json, write_json, write_text
from comics.params import Params, StudyParams
from comics.progress import Progress, silent
from comics.provenance import require_intact, write_sidecar
from comics.report.results import detections_path, require, resolved_runs
from comics.report.style import (
    BETTER,
    SPLIT_NAMES,
    WORSE,
    higher_is_better,
    listing,
    plain,
    sentence,
    task_word,
    templates,
    tex,
)

CompareRuns = Callable[..., Sequence[Any]]
"""`comics.evaluation.seeds.compare_runs`, which rendering does not import."""


@dataclass(frozen=True)
class Effect:
    """What one arm changes, in percent; `low` and `high` are None for the baseline.

    Attributes:
        mean, deviation: of the arm over its seeds; no deviation with one seed.
        difference: from the baseline's mean.
    """

    label: str
    run: str
    task: str
    metric: str
    mean: float
    deviation: float | None
    difference: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` where the interval leaves out 0, else nothing."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return ""
        return "better" if (self.low > 0) == higher_is_better(self.metric) else "worse"


def study_params(params: Params, name: str) -> StudyParams:
    """Study `name` of params.yaml.

    Raises:
        UserError: there is none, or it is about another dataset.
    """
    params.require_split(f"studies.{name}")
    if name not in params.studies:
        raise UserError(f"{params.path}: studies: there is no study '{name}'.", did_you_mean(name, params.studies))
    study = params.studies[name]
    if study.dataset != params.dataset:
        raise UserError(
            f"{params.path}: studies.{name}: is about the dataset '{study.dataset}', not '{params.dataset}'.",
            f"Write `dataset: {study.dataset}` there, or give the study's runs another training and change its `dataset`.",
        )
    return study


def effects_path(params: Params, name: str) -> Path:
    """Where the pipeline keeps what study `name` found."""
    return params.compared("studies") / f"{name}.json"


def study_files(params: Params, name: str) -> list[Path]:
    """The detections that study `name` compares, of all arms and seeds, from the project's root."""
    study = params.studies[name]
    return [detections_path(one, study.split) for row in study.rows for one in resolved_runs(params, row.run)]


def digests(params: Params, study: StudyParams) -> dict[str, str]:
    """``run seed k`` -> digest, of everything compared."""
    return {f"{one.name} seed {one.seed}": one.digest for row in study.rows for one in resolved_runs(params, row.run)}


def compute(
    params: Params, name: str, compare_runs: CompareRuns, root: Path = Path(), progress: Progress = silent
) -> int:
    """Compare the arms of study `name` with its baseline, write `effects_path`, and return the number of differences.

    Raises:
        UserError: no such study, or detections are missing or stale.
    """
    study = study_params(params, name)
    runs = {row.run: resolved_runs(params, row.run) for row in study.rows}
    require([(detections_path(one, study.split), one) for arm in runs.values() for one in arm], root)
    files = {run: [root / detections_path(one, study.split) for one in arm] for run, arm in runs.items()}
    baseline = study.rows[0].run
    gains = compare_runs(
        root / "data" / params.dataset / study.split / "annotations.json",
        files[baseline],
        {run: paths for run, paths in files.items() if run != baseline},
        samples=study.samples,
        metrics=list(study.metrics),
        progress=progress,
    )
    gains = [gain for gain in gains if gain.difference == gain.difference]  # a metric may be of masks alone
    content = {
        "study": name,
        "digests": digests(params, study),
        "samples": study.samples,
        "split": study.split,
        "metrics": list(study.metrics),
        "gains": [asdict(gain) for gain in gains],
    }
    write_json(root / effects_path(params, name), content, indent=2)
    write_sidecar(root / effects_path(params, name), {"study": name})
    return len(gains)


def read_effects(params: Params, name: str, root: Path = Path()) -> list[Effect]:
    """What study `name` found, arm by arm in the order of params.yaml, the baseline first.

    Raises:
        UserError: nothing was computed yet, or of other versions of the runs.
    """
    study = study_params(params, name)
    path = effects_path(params, name)
    content = {}
    if (root / path).exists():
        require_intact(root / path, f"Renew with: snakemake --force {path}")
        content = read_json(root / path)
    wanted = {
        "digests": digests(params, study),
        "samples": study.samples,
        "split": study.split,
        "metrics": list(study.metrics),
    }
    if any(content.get(key) != value for key, value in wanted.items()):
        problem = "made of other versions of its runs" if content else "no such result"
        raise UserError(f"{path}: {problem}.", f"Renew with: snakemake {'--force ' if content else ''}{path}")
    gains = content["gains"]
    effects = []
    for number, row in enumerate(study.rows):
        # the baseline stands in the gains of every other arm
        mine = {(gain["task"], gain["metric"]): gain for gain in gains if number == 0 or gain["run"] == row.run}
        for gain in mine.values():
            values = [100 * value for value in gain["baseline" if number == 0 else "values"]]
            differences = {} if number == 0 else {key: 100 * gain[key] for key in ("difference", "low", "high")}
            effects.append(
                Effect(
                    label=row.label,
                    run=row.run,
                    task=gain["task"],
                    metric=gain["metric"],
                    mean=fmean(values),
                    deviation=stdev(values) if len(values) > 1 else None,
                    **differences,
                )
            )
    return effects


def remarks(params: Params, study: StudyParams) -> str:
    """What a reader must know of the numbers."""
    seeds = {row.run: [one.seed for one in resolved_runs(params, row.run)] for row in study.rows}
    same = len({tuple(of_run) for of_run in seeds.values()}) == 1
    numbers = listing([str(seed) for seed in next(iter(seeds.values()))])
    return (
        f"{SPLIT_NAMES[study.split]} of {params.dataset}"
        + (f", seeds {numbers}" if same else "")
        + "; percent, mean and sample standard deviation over seeds. In brackets the 95% interval of the difference from the"
        f" first row, over images (paired) and seeds, {study.samples} resamples; ▲ better, ▼ worse, where it leaves out 0."
    )


_MARKS = {"better": ("▲", r"$\blacktriangle$"), "worse": ("▼", r"$\blacktriangledown$"), "": ("", "")}


def cells(effect: Effect, latex: bool = False) -> tuple[str, str]:
    """Mean with deviation, and difference with interval, as text."""
    plus_minus, minus = (r"$\pm$", "$-$") if latex else ("±", "−")
    mean = f"{effect.mean:.1f}" + (f" {plus_minus} {effect.deviation:.1f}" if effect.deviation is not None else "")
    if effect.difference is None or effect.low is None or effect.high is None:
        return mean, ""
    difference = f"{effect.difference:+.1f} [{effect.low:+.1f}, {effect.high:+.1f}]".replace("-", minus)
    return mean, f"{difference} {_MARKS[effect.verdict][latex]}".strip()


def columns(effects: Sequence[Effect]) -> list[tuple[str, str]]:
    """(task, metric) of what was compared."""
    return list(dict.fromkeys((effect.task, effect.metric) for effect in effects))


def _lines(study: StudyParams, effects: Sequence[Effect], latex: bool) -> list[list[str]]:
    known = {(effect.run, effect.task, effect.metric): effect for effect in effects}
    lines = []
    for row in study.rows:
        line = [tex(row.label) if latex else plain(row.label)]
        for column in columns(effects):
            effect = known.get((row.run, *column))
            line += cells(effect, latex) if effect else ("–", "")
        lines.append(line)
    return lines


def to_latex(params: Params, name: str, effects: Sequence[Effect]) -> str:
    """The study's table, in booktabs."""
    study = study_params(params, name)
    compared = columns(effects)
    return (
        templates()
        .get_template("study.tex.j2")
        .render(
            name=name,
            caption=tex(sentence(study.caption)),
            remarks=tex(remarks(params, study)).replace("▲", _MARKS["better"][1]).replace("▼", _MARKS["worse"][1]),
            runs=digests(params, study),
            headings=[f"{task_word(task)}, {tex(metric)}" for task, metric in compared],
            lines=_lines(study, effects, latex=True),
        )
    )


def to_markdown(params: Params, name: str, effects: Sequence[Effect]) -> str:
    """The study's table in GitHub's Markdown."""
    study = study_params(params, name)
    headings = ["Run"]
    for task, metric in columns(effects):
        headings += [f"{task_word(task)} {metric}", "difference"]
    out = [f"# {plain(sentence(study.caption))}", "", remarks(params, study), ""]
    out += ["| " + " | ".join(headings) + " |", "|---" + "|---:" * (len(headings) - 1) + "|"]
    out += ["| " + " | ".join(line) + " |" for line in _lines(study, effects, latex=False)]
    return "\n".join(out) + "\n"


CSV_HEADER = ("run", "task", "metric", "mean", "deviation", "difference", "low", "high", "verdict")


def to_csv(effects: Sequence[Effect]) -> str:
    """One line an arm, task and metric, in percent, full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for effect in effects:
        values: Mapping[str, Any] = asdict(effect)
        writer.writerow(
            [effect.run, effect.task, effect.metric]
            + [values[key] for key in ("mean", "deviation", "difference", "low", "high")]
            + [effect.verdict]
        )
    return text.getvalue()


def draw(params: Params, name: str, effects: Sequence[Effect], output: Path) -> list[Path]:
    """The differences and their intervals, one panel a task and metric, arms below each other."""
    # Not above: the workflow imports this module each time it is read, and drawing imports numpy.
    from comics.report.canvas import canvas, save

    study = study_params(params, name)
    arms = study.rows[1:]
    compared = columns(effects)
    known = {(effect.run, effect.task, effect.metric): effect for effect in effects}
    with canvas(7.16, 0.75 + 0.26 * len(arms), 7.0) as figure:
        axes = figure.subplots(1, len(compared), squeeze=False, sharey=True)[0]
        for ax, (task, metric) in zip(axes, compared, strict=True):
            ax.axvline(0, color="#666666", linewidth=0.8)
            ax.grid(True, axis="x", color="#DDDDDD", linewidth=0.4)
            ax.set_axisbelow(True)
            for place, row in enumerate(arms):
                effect = known.get((row.run, task, metric))
                if effect is None or effect.low is None or effect.high is None:
                    continue
                colour = {"better": BETTER, "worse": WORSE, "": "#444444"}[effect.verdict]
                ax.plot([effect.low, effect.high], [place, place], color=colour, linewidth=1.4, solid_capstyle="butt")
                ax.plot(
                    effect.difference,
                    place,
                    marker={"better": "^", "worse": "v", "": "o"}[effect.verdict],
                    color=colour,
                    markersize=4.5,
                    linestyle="none",
                )
            ax.set_title(f"{task_word(task)}, {plain(metric)}")
            ax.set_xlabel("points, " + ("right" if higher_is_better(metric) else "left") + " is better")
            ax.set_ylim(len(arms) - 0.5, -0.5)
            ax.tick_params(width=0.6, length=2.5)
        axes[0].set_yticks(range(len(arms)), [plain(row.label) for row in arms])
        figure.suptitle(f"Difference from {plain(study.rows[0].label)}, 95% intervals", fontsize=7.5)
        return save(figure, output, sentence(study.caption), digests(params, study))


def render(params: Params, name: str, folder: Path, root: Path = Path()) -> list[Path]:
    """Write the study's table (.tex, .md, .csv) and figure (.pdf, .svg, .png) into `folder`; return the paths.

    Raises:
        UserError: no such study, or what it found is missing or stale.
    """
    effects = read_effects(params, name, root)
    texts = {
        ".tex": to_latex(params, name, effects),
        ".md": to_markdown(params, name, effects),
        ".csv": to_csv(effects),
    }
    written = []
    for suffix, text in texts.items():
        write_text(folder / f"{name}{suffix}", text)
        written.append(folder / f"{name}{suffix}")
    return [*written, *draw(params, name, effects, folder / f"{name}.pdf")]
