"""``reports/paper.pdf``: all tables and figures, and the studies that were made, in one two-column document.

It is compiled by latexmk with pdflatex, and includes the files that `comics table`, `comics figure` and `comics study` wrote
beside it, so that it can also be compiled by hand. Equal inputs give equal bytes: no date, no path, no random id goes into
the PDF.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from comics import reported
from comics.errors import UserError
from comics.files import atomic_write, write_text
from comics.params import ComparisonFigure, CurvesFigure, ErrorsFigure, ExamplesFigure, Params, ScatterFigure
from comics.report.errors import ERRORS_RULE
from comics.report.gallery import run_title
from comics.report.learning import CURVES_RULE
from comics.report.samples import EXAMPLES_RULE, differences_rule
from comics.report.style import listing, sentence, templates, tex

INSTALL = (
    "Install one, on Debian and Ubuntu with: apt-get install latexmk texlive-latex-extra texlive-fonts-recommended; "
    "on macOS with MacTeX. Tables and figures are there without it."
)

_ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII")


@dataclass
class Compiled:
    """What a compilation gave."""

    pdf: Path
    complaints: list[str]
    """Overfull boxes and missing references."""


def figure_caption(params: Params, name: str) -> str:
    """The caption of a figure with what a reader must know: dataset, marks, rule of the picks."""
    figure = params.figures[name]
    parts = [sentence(figure.caption)]
    if isinstance(figure, ScatterFigure):
        parts.append(
            f"Filled: measured on {params.dataset}; hollow: reported in the paper, on {reported.DATASET}; "
            f"star: {listing([run_title(params, run) for run in figure.highlight])}."
        )
    else:
        parts.append(f"Dataset: {params.dataset}.")
    if isinstance(figure, ExamplesFigure):
        parts.append(EXAMPLES_RULE)
    if isinstance(figure, ErrorsFigure):
        parts.append(ERRORS_RULE)
    if isinstance(figure, CurvesFigure):
        parts.append(CURVES_RULE)
    if isinstance(figure, ComparisonFigure):
        parts.append(differences_rule(figure, lambda run: run_title(params, run)))
    return " ".join(parts)


def to_latex(params: Params, folder: Path) -> tuple[str, list[str]]:
    """The document over the rendered files in `folder`, and what is not rendered yet.

    Raises:
        UserError: nothing is rendered at all.
    """
    tables = [name for name in params.tables if (folder / f"{name}.tex").exists()]
    figures = [name for name in params.figures if (folder / "figures" / f"{name}.pdf").exists()]
    studies = [
        name for name in params.studies if all((folder / f"studies/{name}.{kind}").exists() for kind in ("tex", "pdf"))
    ]
    missing = [f"{folder}/{name}.tex" for name in params.tables if name not in tables]
    missing += [f"{folder}/figures/{name}.pdf" for name in params.figures if name not in figures]
    if not tables and not figures:
        raise UserError(f"{folder}: no table and no figure is rendered yet.", "Make them with: snakemake all")
    text = (
        templates()
        .get_template("paper.tex.j2")
        .render(
            dataset=tex(params.dataset),
            paper_dataset=tex(reported.DATASET),
            tables=[
                {"name": name, "caption": tex(_clause(params.tables[name].caption)), "number": number(name)}
                for name in tables
            ],
            figures=[
                {
                    "name": name,
                    "caption": tex(figure_caption(params, name)),
                    "clause": tex(_clause(params.figures[name].caption)),
                    "number": number(name),
                }
                for name in figures
            ],
            studies=[{"name": name, "caption": tex(_clause(params.studies[name].caption))} for name in studies],
        )
    )
    return text, missing


def number(name: str) -> int | None:
    """The paper's number of a table or figure called after it: 4 of ``table_iv``, 9 of ``figure_9``, None of others."""
    last = name.rsplit("_", 1)[-1]
    if name.startswith("figure_") and last.isdigit():
        return int(last)
    if name.startswith("table_") and last.upper() in _ROMAN:
        return _ROMAN.index(last.upper()) + 1
    return None


def _clause(caption: str) -> str:
    """A caption inside a sentence: no full stop, a small first letter unless it begins a name."""
    text = caption.strip().rstrip(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() and not re.match(r"[A-Z][a-z]*[A-Z]", text) else text


def complaints(log: str) -> list[str]:
    """Overfull boxes and missing references or citations in a LaTeX log."""
    joined = re.sub(r"(?<=.{79})\n", "", log)  # TeX breaks its lines at 79 characters
    pattern = r"^(?:Overfull \\[hv]box .*|LaTeX Warning: (?:Reference|Citation|There were undefined).*)"
    return re.findall(pattern, joined, re.M)


def _why(log: str) -> tuple[str, str]:
    """The first error in a log, and its remedy."""
    absent = re.search(r"File [`']([^']+\.(?:sty|cls|tfm|def))' not found", log)
    if absent:
        return f"The LaTeX that is installed lacks {absent[1]}.", INSTALL
    error = re.search(r"^(?:\S+:\d+: .*|! .*)", log, re.M)
    return (error[0] if error else "latexmk failed without saying why."), ""


def compile_paper(source: Path, output: Path) -> Compiled:
    """Compile `source` in its own folder to `output`; what LaTeX leaves behind goes to a temporary folder.

    Raises:
        UserError: no LaTeX is installed, one that lacks a package, or the document has an error.
    """
    for program in ("latexmk", "pdflatex"):
        if shutil.which(program) is None:
            raise UserError(f"{output}: not made, because {program} is not installed; {source} is there.", INSTALL)
    with tempfile.TemporaryDirectory(prefix="comics-paper-") as scratch:
        command = [
            "latexmk",
            "-norc",
            "-pdf",
            "-interaction=nonstopmode",
            "-halt-on-error",
            "-file-line-error",
            "-latexoption=-no-shell-escape",  # labels and captions are data
            f"-outdir={scratch}",
            source.name,
        ]
        environment = os.environ | {"SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1", "max_print_line": "1000"}
        done = subprocess.run(
            command, cwd=source.parent, env=environment, capture_output=True, text=True, errors="replace", check=False
        )
        log = Path(scratch) / f"{source.stem}.log"
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else done.stdout + done.stderr
        made = Path(scratch) / f"{source.stem}.pdf"
        if done.returncode or not made.exists():
            message, remedy = _why(text)
            raise UserError(f"{output}: {message}", remedy or f"Look at {source} and at what it includes.")
        with atomic_write(output) as beside:
            shutil.copyfile(made, beside)
    return Compiled(output, complaints(text))


def render(params: Params, output: Path) -> tuple[Compiled, list[str]]:
    """Write the document beside `output` as .tex and compile it; also return what is not rendered yet.

    Raises:
        UserError: nothing is rendered, or LaTeX cannot compile it; the .tex is there in the latter case.
    """
    if output.suffix != ".pdf":
        raise UserError(f"--output: {output} does not end in .pdf.")
    text, missing = to_latex(params, output.parent)
    source = output.with_suffix(".tex")
    write_text(source, text)
    return compile_paper(source, output), missing
