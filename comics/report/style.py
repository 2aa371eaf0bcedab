"""Names and typography that tables, figures, page and paper share."""

from __future__ import annotations

import re
from functools import cache

import jinja2

SPLIT_NAMES = {
    "train": "Training set",
    "val": "Validation set",
    "test_dev": "Test-development set",
    "test_challenge": "Test-challenge set",
}
TASK_NAMES = {"detection": "Multi-Face Forgery Detection", "segmentation": "Multi-Face Forgery Segmentation"}

BETTER = "#0072B2"
"""Colour of a difference in our favour (blue and vermilion stay apart for the colour-blind; the sign says it too)."""
WORSE = "#D55E00"
GREY = "#666666"
"""Numbers of the paper: 5.7 to 1 against white."""

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
_METRIC = re.compile(
    r"\b(?:(AP|oLRP)(?:_(\w+)|(50|75))"
    r"|(face|image|pixel_core|pixel|video|track)_(AUC|EER|ACC|BACC|TPR[15]|ECE|Brier|F1|IoU|found)(_best)?)\b"
)
_MATH = re.compile(r"(\$[^$]+\$)")
_GREEK = {"lambda": "λ", "tau": "τ", "alpha": "α", "beta": "β", "omega": "ω"}


def higher_is_better(metric: str) -> bool:
    """oLRP and its parts, EER, ECE and Brier score are errors; all others rise."""
    return not (metric.startswith("oLRP") or metric.endswith(("_EER", "_ECE", "_Brier")))


def _metric_tex(match: re.Match[str]) -> str:
    name, index = (match[1], match[2] or match[3]) if match[1] else (match[5], match[4] + (match[6] or ""))
    return f"{name}$_{{\\mathrm{{{index.replace('_', chr(92) + ' ')}}}}}$"


def tex(text: str) -> str:
    """`text` for LaTeX: escaped, but for ``$mathematics$``; metrics such as ``oLRP_FN`` get their index."""
    parts = []
    for part in _MATH.split(text):
        if _MATH.fullmatch(part):
            parts.append(part)
            continue
        last = 0
        for match in _METRIC.finditer(part):
            parts.append("".join(_ESCAPES.get(character, character) for character in part[last : match.start()]))
            parts.append(_metric_tex(match))
            last = match.end()
        parts.append("".join(_ESCAPES.get(character, character) for character in part[last:]))
    return "".join(parts)


def plain(text: str) -> str:
    """`text` for Markdown, HTML, CSV and figures: ``$\\lambda_1$`` becomes λ1."""

    def simple(match: re.Match[str]) -> str:
        inner = re.sub(r"\\([a-zA-Z]+)", lambda command: _GREEK.get(command[1], command[1]), match[1][1:-1])
        return re.sub(r"[{}\\_]", "", inner)

    return _MATH.sub(simple, text)


def sentence(text: str) -> str:
    """`text` ending in a full stop."""
    text = text.strip()
    return text if not text or text[-1] in ".!?" else f"{text}."


def task_word(task: str) -> str:
    """A task in a word: ``Detection``, ``Segmentation``."""
    return TASK_NAMES[task].rsplit(" ", 1)[-1]


def listing(words: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1] if words else "")))


@cache
def templates() -> jinja2.Environment:
    """The package's templates: ``<% block %>`` and ``<< value >>``, which neither LaTeX nor HTML uses."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("comics.report", "templates"),
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,
    )
