"""One page with everything: ``reports/index.html``, self-contained, for file:// and without a network.

Python gathers the data and renders the tables; the page's own script (``templates/page.js``) sorts, filters and draws.
What cannot be rendered, because a result is missing or stale, says so in its place, with the command that renews it.
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jinja2

from comics import reported
from comics.classes import CLASSES
from comics.errors import UserError
from comics.files import read_json, write_text
from comics.params import (
    METRICS,
    TASKS,
    TEST_SPLITS,
    ComparisonFigure,
    CurvesFigure,
    ErrorsFigure,
    ExamplesFigure,
    Params,
    ResolvedRun,
    ScatterFigure,
)
from comics.report import breakdowns, finding, generalisation, robustness, study
from comics.report.figures import draw
from comics.report.gallery import read_photo, run_title, verdict_text
from comics.report.learning import read_curves
from comics.report.paper import figure_caption
from comics.report.reliability import reliability_svg
from comics.report.results import (
    NotCurrent,
    Row,
    is_current,
    read_rows,
    read_run,
    renewal,
    resolved_runs,
    robustness_path,
    scores_path,
    training_state,
)
from comics.report.samples import (
    EXAMPLES_RULE,
    HIT,
    Face,
    Sample,
    comparison_samples,
    differences_rule,
    example_samples,
    outlines,
)
from comics.report.style import SPLIT_NAMES, TASK_NAMES, higher_is_better, plain, task_word
from comics.report.tables import (
    CHECKS,
    ELSEWHERE,
    MEASURED,
    PAPER,
    REPORTED,
    Cell,
    Line,
    Table,
    build,
)


@dataclass
class Gathered:
    """What the page shows."""

    finding: list[str]
    """Sentences."""
    tables: list[dict[str, Any]]
    studies: list[dict[str, Any]]
    data: dict[str, Any]
    runs: list[dict[str, Any]]
    figures: list[dict[str, Any]]
    charts: list[dict[str, Any]]
    """Figures that are shown as drawn."""
    warnings: list[str]


def render(params: Params, output: Path, root: Path = Path()) -> list[str]:
    """Write the page to `output`; return what it could not show, one message each."""
    gathered = gather(params, root)
    write_text(output, to_html(params, gathered))
    return gathered.warnings


def gather(params: Params, root: Path = Path()) -> Gathered:
    """Collect tables, points, photographs, curves and runs from what is below `root`."""
    warnings: list[str] = []

    def attempt(make: Callable[[], Any], target: str) -> tuple[Any, str]:
        try:
            return make(), ""
        except UserError as error:
            lines = error.message.splitlines()
            more = f" And {len(lines) - 1} more." if len(lines) > 1 else ""
            command = renewal([target], error.outdated if isinstance(error, NotCurrent) else ())
            warnings.append(f"{lines[0]}{more} Make what is missing with: {command}")
            return None, warnings[-1]

    tables = []
    for name, entry in params.tables.items():
        made, problem = attempt(partial(build, params, name, root), f"{params.reports / name}.tex")
        if made is None:
            with suppress(UserError):  # the paper's rows, where nothing is in their place
                made = build(params, name, root, available=True)
        tables.append(
            {
                "name": name,
                "title": _title(name),
                "caption": plain(entry.caption),
                "problem": problem,
                **(_table_view(made) if made else {"remarks": "", "notes": {}, "blocks": []}),
            }
        )
    gallery = []
    for name, figure in params.figures.items():
        if isinstance(figure, ExamplesFigure | ComparisonFigure):
            made, problem = attempt(partial(_gallery, params, figure, root), f"{params.reports}/figures/{name}.pdf")
            gallery.append({"name": name, "caption": plain(figure.caption), "problem": problem, **(made or {})})
    charts = []
    for name, figure in params.figures.items():
        if isinstance(figure, ErrorsFigure | CurvesFigure):
            made, problem = attempt(partial(_drawn, params, name, root), f"{params.reports}/figures/{name}.pdf")
            caption = plain(figure_caption(params, name))
            charts.append({"name": name, "title": _title(name), "caption": caption, "problem": problem, "image": made})
            if isinstance(figure, ErrorsFigure) and breakdowns.are_there(params, figure, root):
                image, problem = attempt(
                    partial(_broken_down, params, figure, root), f"{params.reports}/figures/{name}.pdf"
                )
                caption, title = breakdowns.caption(params, figure), "Where the scores come from"
                charts.append(
                    {"name": f"{name}_groups", "title": title, "caption": caption, "problem": problem, "image": image}
                )
    charts += _robustness_charts(params, root, attempt)
    charts += _generalisation_charts(params, root, attempt)
    studies = []
    for name, of_study in params.studies.items():
        if of_study.dataset == params.dataset:
            there = (root / study.effects_path(params, name)).exists()
            made, problem = attempt(partial(_study_view, params, name, root), name) if there else (None, "")
            studies.append({"name": name, "caption": plain(of_study.caption), "problem": problem, "view": made})
    names = list(dict.fromkeys(map(params.canonical, params.runs)))
    runs = [_run_view(params, name, root) for name in names]
    return Gathered(
        finding=finding.sentences(params, root),
        tables=tables,
        studies=studies,
        data={
            "points": _points(params, root),
            "metrics": {metric: higher_is_better(metric) for metric in METRICS},
            "splits": SPLIT_NAMES,
            "tasks": TASK_NAMES,
            "gallery": gallery,
            "curves": {
                f"{run['name']} seed {seed['seed']}": seed["curves"]
                for run in runs
                for seed in run["seeds"]
                if seed["curves"]
            },
            "classes": [name.lower() for name in CLASSES],
        },
        runs=runs,
        figures=gallery,
        charts=charts,
        warnings=warnings,
    )


# ----------------------------------------------------------------------------------------------------------- tables


def _title(name: str) -> str:
    """``table_iv`` -> ``Table IV``, ``my_table`` -> ``My table``."""
    words = [word.upper() if re.fullmatch("[ivx]+", word) else word for word in name.split("_")]
    return " ".join(words)[:1].upper() + " ".join(words)[1:]


def _table_view(table: Table) -> dict[str, Any]:
    """A table for the template: one row a system, ours and the paper's number in one cell."""
    blocks = []
    for split, lines in table.blocks.items():
        rows = []
        for number, line in enumerate(lines):
            if line.kind == PAPER and number and lines[number - 1].kind in (MEASURED, ELSEWHERE):
                continue
            following = lines[number + 1] if number + 1 < len(lines) else None
            own = line.kind in (MEASURED, ELSEWHERE)
            below = following if following and own and following.kind == PAPER else None
            rows.append(_row_view(table, split, line, below))
        blocks.append({"split": split, "title": SPLIT_NAMES[split], "rows": rows})
    return {
        "remarks": plain(" ".join(table.remarks)).replace("Paper, in grey:", "Paper, small and grey:"),
        "notes": {letter: plain(text) for letter, text in table.notes.items()},
        "headings": [plain(column) for column in table.params.columns],
        "spans": [(TASK_NAMES[task], len(table.params.metrics)) for task in table.params.tasks],
        "metrics": [
            {"name": metric, "task": TASK_NAMES[task], "up": higher_is_better(metric)} for task, metric in table.columns
        ],
        "blocks": blocks,
    }


def _row_view(table: Table, split: str, line: Line, below: Line | None) -> dict[str, Any]:
    labels = [CHECKS[label][0] if label in CHECKS else plain(label) for label in line.labels]
    return {
        "labels": labels,
        "text": " ".join(_words(table.params.columns, line.labels)),
        "reported": line.kind == REPORTED,
        "elsewhere": line.file,
        "run": line.run,
        "notes": (below or line).notes,
        "cells": [_cell_view(line, cell, below.cell(cell.task, cell.metric) if below else None) for cell in line.cells],
    }


def _words(columns: Sequence[str], labels: Sequence[str]) -> list[str]:
    """What a row is found by: its labels, and the heading of every check mark."""
    pairs = zip(columns, labels, strict=True)
    return [plain(column if label == "yes" else label) for column, label in pairs if label != "no"]


def _cell_view(line: Line, cell: Cell, paper: Cell | None) -> dict[str, Any]:
    delta = None
    if paper is not None and paper.value is not None and cell.value is not None and line.kind == MEASURED:
        delta = 100 * (cell.value - paper.value)
    shown_delta = "" if delta is None else f"{delta:+.1f}".replace("-", "−")
    if shown_delta in ("+0.0", "−0.0"):
        shown_delta = "0.0"
    favour = 0 if delta is None or shown_delta == "0.0" else 1 if (delta > 0) == higher_is_better(cell.metric) else -1
    return {
        "text": cell.text or "–",
        "value": None if cell.value is None else round(100 * cell.value, 6),
        "std": "" if cell.std is None else f"{100 * cell.std:.1f}",
        "rank": cell.rank,
        "similar": cell.similar,
        "notes": cell.notes,
        "paper": paper.text if paper is not None else None,
        "paper_notes": paper.notes if paper is not None else (),
        "delta": shown_delta,
        "favour": favour,
        "run": line.run if cell.text else None,
    }


# ---------------------------------------------------------------------------------------------------------- scatter


def _points(params: Params, root: Path) -> list[dict[str, Any]]:
    """Every measured run, and every row that the paper reports, by split and task; values in percent."""
    points: list[dict[str, Any]] = []
    labels: dict[str, str] = {}
    for figure in params.figures.values():
        if not isinstance(figure, ScatterFigure):
            continue
        table = params.tables[figure.table]
        try:
            rows = read_rows(params, table, [figure.split], root)
        except UserError:
            rows = [Row(row, None) for row in table.rows]
        for row in rows:
            if row.params.run is not None:
                labels[params.canonical(row.params.run)] = plain(row.name)
            if row.params.paper is None or table.paper is None:
                continue
            for task in TASKS:
                values = {
                    metric: float(text)
                    for metric in reported.METRICS
                    if (text := reported.printed(table.paper, figure.split, row.params.paper, task, metric))
                }
                if values:
                    star = row.params.run in figure.highlight
                    points.append(_point(plain(row.name), None, figure.split, task, values, star))
    highlighted = {
        params.canonical(run) for f in params.figures.values() if isinstance(f, ScatterFigure) for run in f.highlight
    }
    for run in dict.fromkeys(map(params.canonical, params.runs)):
        if params.dataset_of(run) != params.dataset:
            continue
        for split in params.test_splits:
            try:
                if not is_current(params, run, split, root):
                    continue
                measured = read_run(params, run, split, root)
            except UserError:  # damaged: the tables that show the run say so
                continue
            for task in TASKS:
                scores = {metric: measured.score(task, metric).mean for metric in METRICS}
                values = {metric: round(100 * value, 4) for metric, value in scores.items() if value is not None}
                title = labels.get(run) or run_title(params, run)
                points.append(_point(title, run, split, task, values, run in highlighted))
    return points


def _point(label: str, run: str | None, split: str, task: str, values: dict[str, float], star: bool) -> dict[str, Any]:
    return {"label": label, "run": run, "split": split, "task": task, "values": values, "star": star}


# ----------------------------------------------------------------------------------------------------------- charts


def _robustness_charts(params: Params, root: Path, attempt: Callable[..., tuple[Any, str]]) -> list[dict[str, Any]]:
    """Curves and heat map where anything was measured: nothing is missed where it was not asked for."""
    block = params.file.robustness
    if block is None or not any(
        (root / robustness_path(one)).exists() for run in block.runs for one in resolved_runs(params, run)
    ):
        return []
    runs, problem = attempt(partial(robustness.read_all, params, root), "robustness")
    charts = []
    for name, title, render in (
        ("curves", "Robustness, by family", robustness.draw_curves),
        ("heat_map", "Robustness, by operation and severity", robustness.draw_heat_map),
    ):
        image = _embedded(partial(render, params, runs)) if runs else None
        caption = robustness.caption(params)
        charts.append(
            {"name": f"robustness_{name}", "title": title, "caption": caption, "problem": problem, "image": image}
        )
    return charts


def _generalisation_charts(params: Params, root: Path, attempt: Callable[..., tuple[Any, str]]) -> list[dict[str, Any]]:
    """The matrices of which anything was measured beyond what other sections show."""
    charts = []
    for name in params.matrices:
        beyond = [
            path
            for path, run in generalisation.sources(params, name)
            if run.dataset_name != params.dataset or path.parent != run.folder
        ]
        if not any((root / path).exists() for path in beyond):
            continue

        image, problem = attempt(partial(_matrix, params, name, root), f"{params.reports}/generalisation/{name}.tex")
        title, caption = f"Generalisation: {_title(name).lower()}", plain(generalisation.caption(params, name))
        charts.append(
            {"name": f"generalisation_{name}", "title": title, "caption": caption, "problem": problem, "image": image}
        )
    return charts


def _matrix(params: Params, name: str, root: Path) -> str:
    """A matrix of `generalisation` as an image that stands in the page itself."""
    columns, lines = generalisation.read(params, name, root)
    return _embedded(partial(generalisation.draw, params, name, columns, lines))


def _broken_down(params: Params, figure: ErrorsFigure, root: Path) -> str:
    """Scores by groups of faces as an image that stands in the page itself."""
    return _embedded(lambda path: breakdowns.draw(params, figure, path, root))


def _drawn(params: Params, name: str, root: Path) -> str:
    """Figure `name` as an image that stands in the page itself."""
    return _embedded(lambda path: draw(params, name, path, root))


def _embedded(render: Callable[[Path], list[Path]]) -> str:
    """What `render` draws to a path, as an image that stands in the page itself."""
    with tempfile.TemporaryDirectory() as folder:
        paths = render(Path(folder) / "figure.pdf")
        drawing = next(path for path in paths if path.suffix == ".svg").read_bytes()
    return "data:image/svg+xml;base64," + base64.b64encode(drawing).decode("ascii")


# ---------------------------------------------------------------------------------------------------------- gallery


def _gallery(params: Params, figure: ExamplesFigure | ComparisonFigure, root: Path) -> dict[str, Any]:
    if isinstance(figure, ComparisonFigure):
        picked = comparison_samples(params, figure, root)
        runs = list(dict.fromkeys(figure.runs))
        rule = differences_rule(figure, lambda run: run_title(params, run))
    else:
        picked, runs, rule = example_samples(params, figure, root), [], EXAMPLES_RULE
    return {
        "rule": rule,
        "runs": [{"name": run, "title": run_title(params, run)} for run in runs],
        "photos": [_photo_view(sample, runs, root) for samples in picked.values() for sample in samples],
    }


def _photo_view(sample: Sample, runs: list[str], root: Path) -> dict[str, Any]:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(read_photo(sample, root)).save(stream, "JPEG", quality=82)
    return {
        "id": sample.image_id,
        "split": sample.split,
        "width": sample.width,
        "height": sample.height,
        "source": "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii"),
        "truth": [_face_view(sample, face) for face in sample.truth],
        "found": {run: [_face_view(sample, face) for face in sample.found[run]] for run in runs},
        "missed": {run: [_face_view(sample, face) for face in sample.missed[run]] for run in runs},
    }


def _face_view(sample: Sample, face: Face) -> dict[str, Any]:
    rings = outlines(face.segmentation, sample.height, sample.width)
    path = "".join("M" + "L".join(f"{x:.4g} {y:.4g}" for x, y in ring) + "Z" for ring in rings if len(ring) > 2)
    return {
        "label": face.label,
        "box": [round(value, 1) for value in face.box],
        "mask": path,
        "text": verdict_text(face),
        "error": bool(face.verdict) and face.verdict != HIT,
        "kind": face.verdict,
    }


# ------------------------------------------------------------------------------------------------------------- runs


def duration(seconds: float) -> str:
    """``1 h 02 min``, ``3 min 20 s``, ``45 s``."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def energy(joules: float) -> str:
    """Three digits: ``0.0417 Wh``, ``12.3 Wh``, ``1.25 kWh``."""
    hours, unit = (joules / 3600, "Wh") if joules < 999.5 * 3600 else (joules / 3.6e6, "kWh")
    return f"{hours:,.0f} {unit}" if hours >= 100 else f"{hours:.3g} {unit}"


def _run_view(params: Params, name: str, root: Path) -> dict[str, Any]:
    resolved = resolved_runs(params, name)
    aliases = [run for run in params.runs if run != name and params.canonical(run) == name]
    return {
        "name": name,
        "title": run_title(params, name),
        "aliases": aliases,
        "seeds": [_seed_view(run, root) for run in resolved],
        "description": json.dumps(resolved[0].description, indent=2, sort_keys=True),
    }


def _seed_view(run: ResolvedRun, root: Path) -> dict[str, Any]:
    described = root / run.folder / "run.json"
    facts = read_json(described) if described.exists() else {}
    current = facts.get("checkpoint_digest") == run.checkpoint_digest
    hardware = facts.get("hardware") or {}
    shown: list[tuple[str, str]] = [("Digest", run.digest)]
    if facts:
        machine = [str(hardware.get("device", "")), f"{hardware['cores']} cores" if "cores" in hardware else ""]
        shown.append(("Hardware", ", ".join(filter(None, machine)) or "not recorded"))
        seconds, joules = facts.get("seconds"), facts.get("energy_joules")
        shown.append(("Training time", duration(seconds) if seconds is not None else "not recorded"))
        counted = " and ".join(facts.get("energy_sources") or ())
        shown.append(("Energy", f"{energy(joules)}, {counted}" if joules is not None else "not measured"))
        shown.append(("Precision", str(facts.get("precision", "not recorded"))))
        versions = facts.get("versions") or {}
        shown.append(("Versions", ", ".join(f"{key} {value}" for key, value in versions.items()) or "not recorded"))
    calibration = _beside(run, "calibration.json", root)
    tests = _beside(run, "reliability.json", root).get("tests", {})
    if calibration:
        errors = {f"{calibration['split']}, where it was fitted": calibration, **tests}
        told = (
            f"{one['before']['ece']:.3f} before, {one['after']['ece']:.3f} after, on {on}" for on, one in errors.items()
        )
        shown.append(("Calibration error", "; ".join(told)))
    files = [
        str(path)
        for path in (
            run.folder / "run.json",
            run.folder / "README.md",
            *(scores_path(run, split) for split in TEST_SPLITS),
        )
        if (root / path).exists()
    ]
    return {
        "seed": run.seed,
        "state": training_state(run, root),
        "facts": shown,
        "files": files,
        "reliability": reliability_svg(calibration, f"{run.name}, seed {run.seed}", tests) if calibration else "",
        "curves": read_curves(root / run.folder / "logs" / "metrics.csv") if current else {},
    }


def _beside(run: ResolvedRun, name: str, root: Path) -> dict[str, Any]:
    """A file that ``comics calibrate`` or ``comics card`` left beside the weights; empty where there is none of this
    version of the run."""
    path = root / run.folder / name
    content = read_json(path) if path.exists() else {}
    return content if isinstance(content, dict) and content.get("digest") == run.digest else {}


# ---------------------------------------------------------------------------------------------------------- studies


def _study_view(params: Params, name: str, root: Path) -> dict[str, Any]:
    """A study for the template: one row an arm; intervals in percent of a cell's width, 50 where they are 0."""
    effects = study.read_effects(params, name, root)
    known = {(effect.run, effect.task, effect.metric): effect for effect in effects}
    columns = study.columns(effects)
    widest = dict.fromkeys(columns, 1e-9)
    for one in effects:
        ends = (abs(end) for end in (one.low, one.high) if end is not None)
        widest[one.task, one.metric] = max(widest[one.task, one.metric], *ends, 0.0)
    rows = []
    for row in params.studies[name].rows:
        cells = []
        for column in columns:
            effect = known.get((row.run, *column))
            mean, difference = study.cells(effect) if effect else ("–", "")
            interval = (effect.low, effect.difference, effect.high) if effect else ()
            bar = [round(50 + 48 * value / widest[column], 2) for value in interval if value is not None]
            cells.append(
                {"mean": mean, "difference": difference, "verdict": effect.verdict if effect else "", "bar": bar}
            )
        rows.append({"label": plain(row.label), "run": params.canonical(row.run), "cells": cells})
    return {
        "remarks": study.remarks(params, params.studies[name]),
        "headings": [f"{task_word(task)}, {plain(metric)}" for task, metric in columns],
        "rows": rows,
    }


# ------------------------------------------------------------------------------------------------------------- HTML


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("comics.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def _with_code(text: str) -> str:
    """`text` as markup: what stands between backquotes as code, all else as text."""
    return re.sub("`(.+?)`", r"<code>\1</code>", html.escape(text))


def _script_json(value: Any) -> str:
    """JSON that may stand inside <script>: no ``</script>``, no ``<!--``."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def to_html(params: Params, gathered: Gathered) -> str:
    """The page as one string."""
    environment = _environment()

    def source(name: str) -> str:
        assert environment.loader is not None
        return environment.loader.get_source(environment, name)[0]

    return environment.get_template("page.html.j2").render(
        dataset=params.dataset,
        paper_dataset=reported.DATASET,
        finding=[_with_code(one) for one in gathered.finding],
        tables=gathered.tables,
        studies=gathered.studies,
        runs=gathered.runs,
        gallery=gathered.figures,
        charts=gathered.charts,
        data=_script_json(gathered.data),
        style=source("page.css"),
        script=source("page.js"),
    )
