"""What a params.yaml leaves to be written out: the file that it extends, and runs over a grid of settings.

Both happen to the plain values that YAML gives, before anything is validated, so that whoever reads a file sees what it
would hold if it were written in full.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from comics.errors import UserError, did_you_mean
from comics.params.block import merge

BY_NAME = (
    "datasets",
    "training",
    "models",
    "objectives",
    "views",
    "runs",
    "tables",
    "figures",
    "studies",
    "generalisation",
)
"""Sections of entries by name: `null` in a file that extends another takes an entry of that away."""


def extended(path: Path, read: Callable[[Path], Any], inside: tuple[Path, ...] = ()) -> tuple[Any, Any | None]:
    """The values of the file `path`, laid on those of the file that it `extends`, and these; None where it extends none.

    Args:
        path: a params.yaml.
        read: gives the values of a file.
        inside: the files that extend `path`, for a message about circles.

    Raises:
        UserError: `extends` names no file, or goes in a circle.
    """
    content = read(path)
    if not isinstance(content, dict) or "extends" not in content:
        return content, None
    content = dict(content)
    name = content.pop("extends")
    if not isinstance(name, str) or not name:
        raise UserError(f"{path}: extends: expected a file's path, found {name!r}.", "Write: extends: params.yaml")
    base = path.parent / name
    if base.resolve() in {one.resolve() for one in (*inside, path)}:
        raise UserError(f"{path}: extends: {base} extends this file in turn.", "Let one of them stand by itself.")
    if not base.is_file():
        raise UserError(f"{path}: extends: there is no file {base}.", "A path is relative to the file that extends.")
    below, _ = extended(base, read, (*inside, path))
    if not isinstance(below, dict):
        return content, below
    merged = merge(below, content)
    for section in BY_NAME:
        if isinstance(merged.get(section), dict):
            merged[section] = {key: value for key, value in merged[section].items() if value is not None}
    return merged, below


# ------------------------------------------------------------------------------------------------------------ grids


def expand(content: Any, path: Path) -> Any:
    """`content` with every run that has a `grid` replaced by a run for each of its points, and rows of tables by theirs.

    Raises:
        UserError: a grid that is no grid, two points of one name, or rows of a grid that is not there.
    """
    if not isinstance(content, dict) or not isinstance(content.get("runs"), dict):
        return content
    content = dict(content)
    runs: dict[Any, Any] = {}
    grids: dict[str, list[_Point]] = {}
    for name, entry in content["runs"].items():
        if not isinstance(entry, dict) or entry.get("grid") is None:
            points = [(name, entry)]
        else:
            grids[name] = _points(name, entry, f"{path}: runs.{name}.grid")
            points = [(point.run, point.entry) for point in grids[name]]
        for run, values in points:
            if run in runs:
                raise UserError(f"{path}: runs.{name}.grid: two runs come out as '{run}'.", "Rename one of them.")
            runs[run] = values
    content["runs"] = runs
    tables = content.get("tables")
    if isinstance(tables, dict):
        content["tables"] = {
            name: {**table, "rows": _rows(table["rows"], grids, f"{path}: tables.{name}.rows")}
            if isinstance(table, dict) and "rows" in table
            else table
            for name, table in tables.items()
        }
    return content


class _Point:
    """One run of a grid: its name, its entry, and the values of its settings by key."""

    def __init__(self, grid: str, settings: Mapping[str, Any], entry: Mapping[str, Any]) -> None:
        self.settings = settings
        self.run = "_".join([grid, *(_word(value) for value in settings.values())])
        own: dict[str, Any] = {key: value for key, value in entry.items() if key != "grid"}
        if isinstance(own.get("title"), str):
            own["title"] = self.fill(own["title"])
        for key, value in settings.items():
            nested: Any = value
            for part in reversed(key.split(".")):
                nested = {part: nested}
            own = merge(own, nested)
        self.entry = own

    def fill(self, template: str) -> str:
        """`template` with ``{key}`` of each setting replaced by its value."""
        for key, value in self.settings.items():
            template = template.replace("{" + key + "}", str(value))
        return template


def _word(value: Any) -> str:
    """A value as a part of a name: 0.07 is 007, 1.0 is 1, anything else its letters and digits."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^a-z0-9]+", "_", text.replace(".", "").replace("-", "m", text.startswith("-")).lower()).strip("_")


def _points(name: str, entry: Mapping[str, Any], place: str) -> list[_Point]:
    """The points of a grid: the product over its keys, in the order of the file. Settings under one key, separated by
    commas, change together."""
    grid = entry["grid"]
    if not isinstance(grid, dict) or not grid:
        raise UserError(
            f"{place}: expected settings with lists of values.", "Write: grid: {objective.temperature: [0.07, 0.7]}"
        )
    axes = []
    for keys, values in grid.items():
        names = [key.strip() for key in str(keys).split(",")]
        if not isinstance(values, list) or not values:
            raise UserError(f"{place}.{keys}: expected a list of values, found {values!r}.")
        axis = []
        for value in values:
            together = value if len(names) > 1 else [value]
            if not isinstance(together, list) or len(together) != len(names):
                raise UserError(
                    f"{place}.{keys}: {value!r} is not a list of {len(names)} values, one for each setting."
                )
            axis.append(dict(zip(names, together, strict=True)))
        axes.append(axis)
    return [
        _Point(name, {key: value for part in parts for key, value in part.items()}, entry)
        for parts in itertools.product(*axes)
    ]


def _rows(rows: Any, grids: Mapping[str, list[_Point]], place: str) -> Any:
    """The rows of a table, each entry with a `grid` replaced by a row for each of its points."""
    found: list[Any] = []
    entries = rows if isinstance(rows, list) else [rows]
    for entry in entries:
        if not isinstance(entry, dict) or "grid" not in entry:
            found.append(entry)
            continue
        own = {key: value for key, value in entry.items() if key != "grid"}
        if entry["grid"] not in grids:
            raise UserError(f"{place}: there is no grid '{entry['grid']}'.", did_you_mean(str(entry["grid"]), grids))
        for point in grids[entry["grid"]]:
            label = own.get("label", [str(value) for value in point.settings.values()])
            filled = {key: point.fill(value) if isinstance(value, str) else value for key, value in own.items()}
            filled["label"] = [point.fill(str(one)) for one in ([label] if isinstance(label, str) else label)]
            found.append({"run": point.run, **filled})
    return found
