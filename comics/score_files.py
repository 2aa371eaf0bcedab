"""Reading a scores CSV, with nothing in it believed: what a table prints passes through here."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Sequence
from functools import cache
from operator import itemgetter
from pathlib import Path

from comics.errors import UserError
from comics.files import require_file
from comics.params import METRICS, TASKS

Key = tuple[str, str, str]
"""Task, class (``all``, ``Real``, ``Fake``) and metric."""

MEASURED = (*METRICS, "oLRP_threshold")
"""Every column of a scores file that holds a number: a fraction, or an empty cell where it is undefined."""

_MOST = 1 + 1e-9
"""Sums of fractions may round up."""
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
        columns = tuple(next(reader, ()))
        lacks, named, measured = _header(columns)
        if lacks:
            raise UserError(f"{path}: not a scores file: its columns have no {', '.join(lacks)}.", _REMEDY)
        for cells in reader:
            place = f"{path}: line {reader.line_num}"
            if len(cells) != len(columns):
                raise UserError(f"{place}: {len(cells)} cells under {len(columns)} columns: it is cut.", _REMEDY)
            task, name = named(cells)
            if task not in classes or not name or name in classes[task]:
                raise UserError(f"{place}: {task!r}, {name!r}: no such task, or a second line of it.", _REMEDY)
            classes[task].add(name)
            scores.update(zip(_keys(task, name), _fractions(measured(cells), place), strict=True))
    except csv.Error as error:
        raise UserError(f"{path}: not a scores file ({error}).", _REMEDY) from None
    first, *others = classes.values()
    if "all" not in first or any(other != first for other in others) or not text.endswith("\n"):
        raise UserError(f"{path}: it is cut: each task and class has one line.", _REMEDY)
    return scores


_Cells = Callable[[Sequence[str]], tuple[str, ...]]


@cache
def _header(columns: tuple[str, ...]) -> tuple[list[str], _Cells, _Cells]:
    """Of the first line of a file, and so of every file: the columns that are not there once, and what takes task and
    class, and what is under `MEASURED`, from a line."""
    lacks = [name for name in ("task", "class", *MEASURED) if columns.count(name) != 1]
    if lacks:
        return lacks, tuple, tuple
    places = {name: index for index, name in enumerate(columns)}
    return [], itemgetter(places["task"], places["class"]), itemgetter(*(places[metric] for metric in MEASURED))


@cache
def _keys(task: str, name: str) -> list[Key]:
    return [(task, name, metric) for metric in MEASURED]


def _fractions(cells: Sequence[str], place: str) -> list[float | None]:
    """The cells of a line under `MEASURED`, all at once; one by one where something is wrong, to say which."""
    try:
        values = [float(cell) if cell else None for cell in cells]
        known = [value for value in values if value is not None]
        if not known or (min(known) >= 0 and max(known) <= _MOST and not math.isnan(sum(known))):
            return values
    except ValueError:
        pass
    return [_fraction(cell, f"{place}, column {metric}") for cell, metric in zip(cells, MEASURED, strict=True)]


def _fraction(text: str, place: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise UserError(f"{place}: {text[:40]!r} is not a number.", _REMEDY) from None
    if not 0 <= value <= _MOST:  # NaN is neither
        raise UserError(f"{place}: {value} is not between 0 and 1.", _REMEDY)
    return value
