"""Tables of scores, ours beside the paper's: LaTeX (booktabs), Markdown and CSV from one model.

A measured row stands over the paper's row of the same name. Where nothing was measured, the paper's row alone is
typeset as reported: grey, italic, with a dagger, so that nobody takes one for the other. Detections of systems that were run
elsewhere are scored here and have a double dagger. Best and second are found among measured rows only, at the precision
shown, since the paper's numbers may come from another dataset, and others' from another training.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_lowercase

from comics import reported
from comics.errors import UserError
from comics.files import read_json, write_text
from comics.params import METRICS, Params, TableParams
from comics.provenance import require_intact
from comics.report.results import Measured, Row, files_drawn, read_rows, runs_drawn
from comics.report.style import (
    BETTER,
    GREY,
    SPLIT_NAMES,
    TASK_NAMES,
    WORSE,
    higher_is_better,
    listing,
    plain,
    sentence,
    templates,
    tex,
)

MEASURED, ELSEWHERE, PAPER, REPORTED, DELTA = "ours", "elsewhere", "paper", "reported", "delta"
"""Kinds of line: measured here; of detections made elsewhere, scored here; the paper's beside one of these; the paper's alone;
ours minus the paper's."""

CHECKS = {"yes": ("✓", r"\checkmark"), "no": ("–", "--")}


@dataclass
class Cell:
    """One number. `text` is what is shown, in percent; empty where there is none."""

    task: str
    metric: str
    text: str = ""
    value: float | None = None
    std: float | None = None
    rank: int = 0
    """1 the best of the measured, 2 the second, 0 neither."""
    similar: bool = False
    """Not significantly different from the best."""
    notes: tuple[str, ...] = ()
    """Letters of footnotes."""

    @property
    def better(self) -> bool | None:
        """Of a difference: whether it is in our favour; None where it shows as zero."""
        if self.value is None or float(self.text) == 0:
            return None
        return (self.value > 0) == higher_is_better(self.metric)


@dataclass
class Line:
    """One line of one test set."""

    kind: str
    labels: tuple[str, ...]
    cells: list[Cell]
    run: str | None = None
    seeds: tuple[int, ...] = ()
    paper: str | None = None
    notes: tuple[str, ...] = ()
    file: str = ""
    """The detections of a system that was run elsewhere."""

    def cell(self, task: str, metric: str) -> Cell:
        """The cell of one column."""
        return next(cell for cell in self.cells if (cell.task, cell.metric) == (task, metric))


@dataclass
class Table:
    """A table ready to be typeset."""

    name: str
    params: TableParams
    caption: str
    remarks: list[str]
    notes: dict[str, str]
    """Letter -> footnote."""
    blocks: dict[str, list[Line]]
    """Lines by split."""
    runs: dict[str, str] = field(default_factory=dict)
    """``run seed k`` -> digest; of detections made elsewhere, their file -> digest."""
    delta: bool = False

    @property
    def columns(self) -> list[tuple[str, str]]:
        """(task, metric) of each column of numbers."""
        return [(task, metric) for task in self.params.tasks for metric in self.params.metrics]


COMPARED: tuple[str, ...] = tuple(
    metric for metric in METRICS if metric in ("AP", "oLRP") or not metric.startswith(("AP", "oLRP"))
)
"""The metrics by which rows are compared: not the parts of AP and oLRP."""

ALPHA = 0.05
"""Differences with a p-value from this on are not significant."""

Similar = frozenset[tuple[str, str, str, str]]
"""(run, split, task, metric) of results that are not significantly different from the best of their column."""


def compared_metrics(table: TableParams) -> list[str]:
    """The metrics of `table` by which its rows are compared; none where that is switched off."""
    return [metric for metric in COMPARED if table.compare and metric in table.metrics]


def comparison_path(params: Params, name: str) -> Path:
    """Where the pipeline keeps the paired comparison of the runs of table `name`."""
    return params.compared("comparisons") / f"{name}.json"


def read_similar(path: Path, runs: Mapping[str, str]) -> Similar | None:
    """The marks of a comparison file; None where there is none, or it compared other versions of the runs.

    Raises:
        UserError: the file is not what ``comics compare-table`` writes.
    """
    if not path.exists():
        return None
    require_intact(path, f"Renew with: snakemake --force {path}")
    content = read_json(path)
    try:
        compared = content["digests"]
        if any(compared.get(run) != digest for run, digest in runs.items()):
            return None
        return frozenset((one["run"], one["split"], one["task"], one["metric"]) for one in content["similar"])
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: not a comparison ({error!r}).", f"Renew with: snakemake --force {path}") from None


def table_params(params: Params, name: str) -> TableParams:
    """The entry of params.yaml called `name`.

    Raises:
        UserError: there is none, and the remedy is the nearest name; or the dataset lacks its splits.
    """
    params.require("tables", name)
    return params.tables[name]


def shown(value: float | None) -> str:
    """A fraction in percent with one decimal; minus zero is zero."""
    return "" if value is None else f"{100 * value:.1f}".replace("-0.0", "0.0")


class _Notes:
    """Footnotes in order of appearance; equal texts share a letter."""

    def __init__(self) -> None:
        self.letters: dict[str, str] = {}

    def letter(self, text: str) -> str:
        return self.letters.setdefault(text, ascii_lowercase[len(self.letters) % 26])


def _paper_line(kind: str, row: Row, table: str, split: str, columns: Sequence[tuple[str, str]], notes: _Notes) -> Line:
    name = row.params.paper or ""
    slips = reported.slips(table, split, name)
    whole = tuple(notes.letter(slip.text) for slip in slips if slip.task is None)
    cells = []
    for task, metric in columns:
        text = reported.printed(table, split, name, task, metric)
        here = [slip for slip in slips if slip.task == task and metric in slip.metrics]
        cells.append(
            Cell(
                task=task,
                metric=metric,
                text=text,
                value=float(text) / 100 if text else None,
                notes=tuple(notes.letter(slip.text) for slip in here) if text else (),
            )
        )
    return Line(kind=kind, labels=row.labels, cells=cells, paper=name, notes=whole)


def _measured_line(row: Row, split: str, columns: Sequence[tuple[str, str]]) -> Line:
    assert row.measured is not None
    measured = row.measured[split]
    cells = []
    for task, metric in columns:
        score = measured.score(task, metric)
        cells.append(Cell(task=task, metric=metric, text=shown(score.mean), value=score.mean, std=score.std))
    return Line(
        kind=MEASURED,
        labels=row.labels,
        cells=cells,
        run=measured.run.name,
        seeds=measured.seeds,
        paper=row.params.paper,
    )


def _elsewhere_line(row: Row, split: str, columns: Sequence[tuple[str, str]]) -> Line:
    assert row.elsewhere is not None
    scored = row.elsewhere[split]
    cells = []
    for task, metric in columns:
        value = scored.score(task, metric)
        cells.append(Cell(task=task, metric=metric, text=shown(value), value=value))
    return Line(kind=ELSEWHERE, labels=row.labels, cells=cells, paper=row.params.paper, file=scored.file)


def _difference(ours: Line, paper: Line) -> Line:
    cells = []
    for one, other in zip(ours.cells, paper.cells, strict=True):
        value = None if one.value is None or other.value is None else one.value - other.value
        text = shown(value)
        cells.append(
            Cell(
                task=one.task,
                metric=one.metric,
                value=value,
                text=f"+{text}" if value is not None and float(text) > 0 else text,
                notes=other.notes if value is not None else (),
            )
        )
    return Line(
        kind=DELTA,
        labels=ours.labels,
        cells=cells,
        run=ours.run,
        seeds=ours.seeds,
        paper=paper.paper,
        notes=paper.notes,
    )


def _mark(lines: list[Line], split: str, similar: Similar) -> None:
    """Set rank and similarity of measured cells; a single measured run has no best."""
    measured = [line for line in lines if line.kind == MEASURED]
    if len(measured) < 2:
        return
    for column in range(len(measured[0].cells)):
        cells = [line.cells[column] for line in measured]
        values = sorted({float(cell.text) for cell in cells if cell.text}, reverse=higher_is_better(cells[0].metric))
        for line, cell in zip(measured, cells, strict=True):
            if cell.text and float(cell.text) in values[:2]:
                cell.rank = values.index(float(cell.text)) + 1
            cell.similar = cell.rank != 1 and (line.run or "", split, cell.task, cell.metric) in similar


def _starts(measured: Sequence[Measured]) -> list[str]:
    """What the measured runs had learnt before they were trained, if anything."""
    starts = {one.run.name: one.run.start for one in measured}
    remarks = []
    for start in {start.name: start for start in starts.values() if start is not None}.values():
        those = [name for name, other in starts.items() if other is not None and other.name == start.name]
        who = "All of ours" if len(those) == len(starts) else listing(those)
        verb = "start" if len(those) > 1 else "starts"
        epochs = f"{start.training.epochs} epoch{'s' if start.training.epochs > 1 else ''}"
        remarks.append(
            f"{who} {verb} from the weights of {start.params.title or start.name} ({epochs} of the same images)."
        )
    return remarks


def _remarks(params: Params, rows: list[Row], delta: bool, compared: Sequence[str], marked: bool) -> list[str]:
    """What a reader must know of the numbers: dataset, seeds, marks by the `compared` metrics, if there are any."""
    measured = [one for row in rows for one in list((row.measured or {}).values())[:1]]
    seeds = sorted({seed for one in measured for seed in one.seeds})
    counts = {len(one.seeds) for one in measured}
    remarks = []
    if measured:
        noun = "seed" if len(seeds) == 1 else "seeds"
        where = f"measured on {params.dataset}, {noun} {listing([str(seed) for seed in seeds])}"
        spread = " (mean and sample standard deviation)" if max(counts) > 1 and not delta else ""
        if delta:
            remarks.append(
                f"Ours, {where}, minus the paper's on {reported.DATASET}; blue: in our favour, vermilion: not."
            )
        else:
            remarks.append(f"Ours: {where}{spread}.")
        remarks += _starts(measured)
    if not delta:
        if any(row.elsewhere for row in rows):
            remarks.append(
                f"‡: run elsewhere, its detections scored here on {params.dataset}; what it was trained on is not known here, and "
                "it is not compared with ours."
            )
        if any(row.params.paper and (row.measured or row.elsewhere) for row in rows):
            remarks.append(f"Paper, in grey: as printed, on {reported.DATASET}.")
        if any(row.params.paper and row.measured is None and row.elsewhere is None for row in rows):
            remarks.append(f"†, in italics: the paper's row as reported, on {reported.DATASET}; not measured here.")
        if len(measured) > 1:
            remarks.append("Best of ours in bold, second underlined.")
        if len(measured) > 1 and compared:
            test = "paired permutation test over images, Holm-corrected in each column, p"
            remarks.append(
                f"≈: {' or '.join(compared)} not significantly different from the best of ours ({test} ≥ {ALPHA})."
                if marked
                else f"{' and '.join(compared)} of all others differ significantly from the best of ours ({test} < {ALPHA})."
            )
    left_out = [row.name for row in rows if not (row.params.paper or row.measured or row.elsewhere)]
    if left_out:
        remarks.append(f"Not made yet: {listing(left_out)}.")
    remarks.append("Percent; AP: higher is better, oLRP: lower is better.")
    return remarks


def build(params: Params, name: str, root: Path = Path(), *, delta: bool = False, available: bool = False) -> Table:
    """Table `name` of params.yaml with the results below `root`.

    With `available`, the paper's row stands in for a run that has not been made; without one, the row is left out.

    Raises:
        UserError: no such table; a row names no row of the paper's table; results are missing or stale.
    """
    table = table_params(params, name)
    for number, entry in enumerate(table.rows):
        if entry.paper is not None:
            if table.paper is None:
                raise UserError(
                    f"{params.path}: tables.{name}.rows[{number}].paper: the table has no `paper`.",
                    f"Say which of the paper's tables: {', '.join(reported.tables())}.",
                )
            try:
                reported.printed(table.paper, table.splits[0], entry.paper, table.tasks[0], table.metrics[0])
            except UserError as error:
                raise UserError(f"{params.path}: tables.{name}.rows[{number}]: {error.message}", error.remedy) from None
    rows = read_rows(params, table, table.splits, root, available=available)
    runs = runs_drawn(rows)
    compared = [] if delta else compared_metrics(table)
    similar = read_similar(root / comparison_path(params, name), runs) if compared else None
    columns = [(task, metric) for task in table.tasks for metric in table.metrics]
    notes = _Notes()
    blocks: dict[str, list[Line]] = {}
    for split in table.splits:
        lines = blocks[split] = []
        for row in rows:
            ours = _measured_line(row, split, columns) if row.measured is not None else None
            if row.elsewhere is not None and not delta:
                ours = _elsewhere_line(row, split, columns)
            kind = PAPER if ours else REPORTED
            has_paper = row.params.paper is not None and not (delta and ours is None)
            paper = _paper_line(kind, row, table.paper or "", split, columns, notes) if has_paper else None
            if delta:
                lines += [_difference(ours, paper)] if ours and paper else []
            else:
                lines += [line for line in (ours, paper) if line]
        _mark(lines, split, similar or frozenset())
    if delta and not any(blocks.values()):
        raise UserError(
            f"{params.path}: tables.{name}: no row has both a result of ours and one of the paper.",
            f"Give rows both `run:` and `paper:`, and make their results: snakemake {params.reports / name}.tex",
        )
    marked = any(cell.similar for lines in blocks.values() for line in lines for cell in line.cells)
    return Table(
        name=name,
        params=table,
        caption=sentence(table.caption),
        remarks=_remarks(params, rows, delta, [] if similar is None else compared, marked)
        + [sentence(note) for note in table.notes],
        notes={letter: text for text, letter in notes.letters.items()},
        blocks=blocks,
        runs={**runs, **({} if delta else files_drawn(rows))},
        delta=delta,
    )


# ------------------------------------------------------------------------------------------------------------ LaTeX


def _tex_label(text: str) -> str:
    return CHECKS[text][1] if text in CHECKS else tex(text)


def _tex_symbols(text: str) -> str:
    for symbol, command in {"†": r"\dagger", "‡": r"\ddagger", "≈": r"\approx", "≥": r"\geq"}.items():
        text = text.replace(symbol, f"${command}$")
    return text


def _tex_notes(letters: tuple[str, ...]) -> str:
    return rf"\rlap{{\textsuperscript{{{','.join(letters)}}}}}" if letters else ""


def _tex_cell(line: Line, cell: Cell) -> str:
    if not cell.text:
        body = "--"
    elif line.kind == DELTA:
        number = cell.text.replace("-", "$-$")
        colour = {True: "comicsbetter", False: "comicsworse", None: None}[cell.better]
        body = rf"\textcolor{{{colour}}}{{{number}}}" if colour else number
    else:
        body = cell.text
        if cell.rank:
            body = rf"\textbf{{{body}}}" if cell.rank == 1 else rf"\underline{{{body}}}"
        if cell.std is not None:
            body += rf"{{\tiny$\pm${shown(cell.std)}}}"
    if line.kind == REPORTED:
        body = rf"\textit{{{body}}}"
    if line.kind in (PAPER, REPORTED):
        body = rf"\textcolor{{comicspaper}}{{{body}}}"
    return body + (r"\rlap{$^{\approx}$}" if cell.similar else "") + _tex_notes(cell.notes)


def _tex_labels(line: Line) -> list[str]:
    """Label columns and the source column; the paper's line under a measured one repeats no label."""
    labels = ["" if line.kind == PAPER else _tex_label(label) for label in line.labels]
    if line.kind == REPORTED:
        labels = [rf"\textcolor{{comicspaper}}{{\textit{{{label}}}}}" for label in labels]
        labels[0] += r"$^\dagger$"
    if line.kind == ELSEWHERE:
        labels[0] += r"$^\ddagger$"
    source = {MEASURED: "ours", ELSEWHERE: "elsewhere", PAPER: "paper", REPORTED: "paper", DELTA: r"$\Delta$"}[
        line.kind
    ]
    if line.kind in (PAPER, REPORTED):
        source = rf"\textcolor{{comicspaper}}{{{source}}}"
    return [*labels, source + _tex_notes(line.notes)]


def to_latex(table: Table) -> str:
    """`table` as a floating environment; the packages it needs are named in its first comment."""
    columns = table.columns
    blocks = []
    for split, lines in table.blocks.items():
        body = []
        for number, line in enumerate(lines):
            cells = " & ".join([*_tex_labels(line), *(_tex_cell(line, cell) for cell in line.cells)])
            paired = line.kind == PAPER and number + 1 < len(lines)
            body.append(cells + (r" \\[1.5pt]" if paired else r" \\"))
        blocks.append({"name": SPLIT_NAMES[split], "lines": body})
    first = len(table.params.columns) + 2
    width = len(table.params.metrics)
    spans = [
        {"name": TASK_NAMES[task], "first": first + width * i, "last": first + width * (i + 1) - 1}
        for i, task in enumerate(table.params.tasks)
    ]
    marks = {letter: tex(text) for letter, text in table.notes.items()}
    return (
        templates()
        .get_template("table.tex.j2")
        .render(
            name=table.name,
            delta=table.delta,
            environment="table*" if len(columns) > 6 else "table",
            caption=tex(table.caption),
            remarks=" ".join(_tex_symbols(tex(text)) for text in table.remarks),
            notes=" ".join(rf"\textsuperscript{{{letter}}}~{text}" for letter, text in marks.items()),
            alignment="".join("c" if _is_checks(table, i) else "l" for i in range(len(table.params.columns)))
            + "l"
            + "c" * len(columns),
            headings=[tex(column) for column in table.params.columns],
            metrics=[tex(metric) for _, metric in columns],
            spans=spans,
            span_width=width,
            blocks=blocks,
            runs=table.runs,
            colours={"comicspaper": GREY, "comicsbetter": BETTER, "comicsworse": WORSE},
            total=first - 1 + len(columns),
        )
    )


def _is_checks(table: Table, column: int) -> bool:
    """Whether a label column holds check marks only."""
    return all(line.labels[column] in CHECKS for lines in table.blocks.values() for line in lines)


# --------------------------------------------------------------------------------------------------- Markdown, CSV


def _plain_label(text: str) -> str:
    return CHECKS[text][0] if text in CHECKS else plain(text)


def _md(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def _md_number(line: Line, cell: Cell) -> str:
    if not cell.text:
        return "–"
    text = cell.text + (f" ± {shown(cell.std)}" if cell.std is not None else "")
    if line.kind == DELTA:
        text = text.replace("-", "−") + {True: " ▲", False: " ▼", None: ""}[cell.better]
    elif cell.rank:
        text = f"**{text}**" if cell.rank == 1 else f"<u>{text}</u>"
    elif line.kind == REPORTED:
        text = f"*{text}*"
    return text + (" ≈" if cell.similar else "") + "".join(f"<sup>{letter}</sup>" for letter in cell.notes)


def to_markdown(table: Table) -> str:
    """`table` in GitHub's Markdown, one table a test set and task; the paper's number in brackets after ours."""
    out = [
        f"# {_md(plain(table.caption))}",
        "",
        _md(" ".join(map(plain, table.remarks)).replace("Paper, in grey:", "Paper, in brackets:")),
    ]
    if table.delta:
        out[-1] += " ▲: in our favour, ▼: not."
    for split, lines in table.blocks.items():
        for task in table.params.tasks:
            headings = [_md(plain(column)) for column in table.params.columns]
            out += ["", f"## {SPLIT_NAMES[split]}: {TASK_NAMES[task]}", ""]
            out.append("| " + " | ".join([*headings, *map(_md, table.params.metrics)]) + " |")
            out.append("|" + "---|" * len(headings) + "---:|" * len(table.params.metrics))
            for number, line in enumerate(lines):
                if line.kind == PAPER:
                    continue
                below = lines[number + 1] if number + 1 < len(lines) and lines[number + 1].kind == PAPER else None
                labels = [_md(_plain_label(label)) for label in line.labels]
                if line.kind == REPORTED:
                    labels = [f"*{labels[0]}* †", *labels[1:]]
                if line.kind == ELSEWHERE:
                    labels[0] += " ‡"
                labels[-1] += "".join(f"<sup>{letter}</sup>" for letter in (below or line).notes)
                cells = []
                for metric in table.params.metrics:
                    text = _md_number(line, line.cell(task, metric))
                    if below and below.cell(task, metric).text:
                        text += f" ({_md_number(below, below.cell(task, metric))})"
                    cells.append(text)
                out.append("| " + " | ".join([*labels, *cells]) + " |")
    if table.notes:
        out += ["", *(f"<sup>{letter}</sup> {_md(plain(text))}  " for letter, text in table.notes.items())]
    if table.runs:
        out += ["", "Runs: " + ", ".join(f"{run} `{digest}`" for run, digest in table.runs.items()) + "."]
    return "\n".join(out) + "\n"


def to_csv(table: Table) -> str:
    """`table` as CSV, one line a test set, row, source and task; percent. `ours` in full precision with the deviation
    over seeds in ``<metric>_std``, `elsewhere` likewise with the file of detections for a run, `paper` as printed, `delta` the
    difference of ours and the paper's."""
    headings = [plain(column) for column in table.params.columns]
    metrics = table.params.metrics
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["split", *headings, "source", "run", "seeds", "task", *metrics, *(f"{metric}_std" for metric in metrics)]
    )
    for split, line in table_lines(table):
        source = {REPORTED: PAPER}.get(line.kind, line.kind)
        printed = line.kind in (PAPER, REPORTED)
        for task in table.params.tasks:
            cells = [line.cell(task, metric) for metric in metrics]
            numbers = [cell.text if printed else _full(cell.value) for cell in cells]
            seeds = " ".join(map(str, line.seeds))
            run = "" if printed else line.run or line.file
            labels = [plain(label) for label in line.labels]
            writer.writerow([split, *labels, source, run, seeds, task, *numbers, *(_full(c.std) for c in cells)])
    return stream.getvalue()


def _full(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.10g}"


def table_lines(table: Table) -> Iterator[tuple[str, Line]]:
    """(split, line) of the whole table."""
    for split, lines in table.blocks.items():
        for line in lines:
            yield split, line


WRITERS = {".tex": to_latex, ".md": to_markdown, ".csv": to_csv}


def write(table: Table, output: Path) -> list[Path]:
    """Write `table` as LaTeX to `output`, as Markdown and CSV beside it; return the paths.

    Raises:
        UserError: `output` does not end in .tex.
    """
    if output.suffix != ".tex":
        raise UserError(f"--output: {output} does not end in .tex.", "The .md and the .csv go beside the .tex.")
    paths = []
    for suffix, render in WRITERS.items():
        write_text(output.with_suffix(suffix), render(table))
        paths.append(output.with_suffix(suffix))
    return paths
