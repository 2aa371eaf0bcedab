"""Reading a scores CSV, with nothing in it believed: what a table prints passes through here."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from comics.errors import UserError
from comics.files import require_file
from comics.params import METRICS, TASKS

Key = tuple[str, str, str]
"""Task, class (``all``, ``Real``, ``Fake``) and metric."""

MEASURED = (*METRICS, "oLRP_threshold")
"""Every column of a scores file that holds a number: a fraction, or an empty cell where it is undefined."""

_REMEDY = "Make the file again with `comics evaluate`."


def read_score_file(path: str | os.PathLike[str]) -> dict[Key, float | None]:
    """The scores in `path`: fractions, None where a metric is undefined.

    Raises:
        UserError: not a whole scores file, or a cell is no number in [0, 1]; the message names file, line and column.
    """
    try:
        require_file(path)
        text = Path(path).read_bytes().decode("utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).", _REMEDY) from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a scores file: it is no text.", _REMEDY) from None
    reader = csv.reader(text.splitlines(keepends=True))
    scores: dict[Key, float | None] = {}
    classes: dict[str, set[str]] = {task: set() for task in TASKS}
    try:
        columns = next(reader, [])
        lacks = [name for name in ("task", "class", *MEASURED) if columns.count(name) != 1]
        if lacks:
            raise UserError(f"{path}: not a scores file: its columns have no {', '.join(lacks)}.", _REMEDY)
        for cells in reader:
            place = f"{path}: line {reader.line_num}"
            if len(cells) != len(columns):
                raise UserError(f"{place}: {len(cells)} cells under {len(columns)} columns: it is cut.", _REMEDY)
            line = dict(zip(columns, cells, strict=True))
            task, name = line["task"], line["class"]
            if task not in classes or not name or name in classes[task]:
                raise UserError(f"{place}: {task!r}, {name!r}: no such task, or a second line of it.", _REMEDY)
            classes[task].add(name)
            for metric in MEASURED:
                scores[task, name, metric] = _fraction(line[metric], f"{place}, column {metric}")
    except csv.Error as error:
        raise UserError(f"{path}: not a scores file ({error}).", _REMEDY) from None
    first, *others = classes.values()
    if "all" not in first or any(other != first for other in others) or not text.endswith("\n"):
        raise UserError(f"{path}: it is cut: each task and class has one line.", _REMEDY)
    return scores


def _fraction(text: str, place: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise UserError(f"{place}: {text[:40]!r} is not a number.", _REMEDY) from None
    if not 0 <= value <= 1 + 1e-9:  # NaN is neither; sums of fractions may round up
        raise UserError(f"{place}: {value} is not between 0 and 1.", _REMEDY)
    return value
