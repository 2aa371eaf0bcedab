"""The numbers the paper prints.

``reported_results.csv`` (package data) holds Tables II to IX of "Contrastive Multi-FaceForensics: An End-to-end
Bi-grained Contrastive Learning Approach for Multi-face Forgery Detection" (C. Zhang, H. Qi, Y. Li, S. Lyu): one
line a table, split, row and task; eight metrics in percent, all measured on OpenForensics; empty where the paper
prints a dash. Names of rows and digits are kept as printed (``YOACT``, ``ConInst``, ``0.03``); `SLIPS` says which
of them cannot be right, and how.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

from comics.errors import UserError, did_you_mean

METRICS = ("AP", "AP_S", "AP_M", "AP_L", "oLRP", "oLRP_Loc", "oLRP_FP", "oLRP_FN")
"""The metrics the paper prints, in its order."""

DATASET = "OpenForensics"
"""What the paper's numbers were measured on."""


@dataclass(frozen=True)
class Slip:
    """A printed value that cannot be right. `task` and `metrics` empty: the whole row."""

    table: str
    row: str
    text: str
    split: str | None = None
    task: str | None = None
    metrics: tuple[str, ...] = ()

    def concerns(self, table: str, split: str, row: str) -> bool:
        """Whether the slip is in this row of this table."""
        return self.table == table and self.row == row and self.split in (None, split)


_SAME = "The paper prints the same sixteen numbers for PolarMask and YOLACT++; one of the two rows is a slip."
_AP_L = "AP_L is printed as 37.6, although AP is 52.7, AP_M 54.1, and AP_L of the boxes 51.5."

SLIPS: tuple[Slip, ...] = (
    Slip("II", "PolarMask", _SAME),
    Slip("II", "YOACT++", _SAME),
    Slip("III", "PolarMask", _SAME),
    Slip("III", "YOACT++", _SAME),
    Slip("III", "PolarMask", _AP_L, task="segmentation", metrics=("AP_L",)),
    Slip("III", "YOACT++", _AP_L, task="segmentation", metrics=("AP_L",)),
    Slip(
        "IV",
        "FEA+Bi-grained",
        "oLRP_FN is printed as 2.3; the row's other values imply about 23.",
        split="test_challenge",
        task="detection",
        metrics=("oLRP_FN",),
    ),
    *(
        Slip(
            "IV",
            "DA+FEA",
            "oLRP and oLRP_Loc look exchanged between the two tasks: in every other row of Table IV "
            "segmentation has the lower ones.",
            split="test_challenge",
            task=task,
            metrics=("oLRP", "oLRP_Loc"),
        )
        for task in ("detection", "segmentation")
    ),
)
"""Found by reading the tables, and by recomputing oLRP from its printed parts, (2 Loc TP+FP+FN) / (TP+FP+FN)."""


@cache
def _rows() -> dict[tuple[str, str, str, str], dict[str, str]]:
    text = resources.files("comics").joinpath("reported_results.csv").read_text(encoding="utf-8")
    rows = {}
    for line in csv.DictReader(text.splitlines()):
        rows[line["table"], line["split"], line["row"], line["task"]] = {metric: line[metric] for metric in METRICS}
    return rows


@cache
def tables() -> tuple[str, ...]:
    """Numbers of the paper's tables of results, ``II`` to ``IX``."""
    return tuple(dict.fromkeys(table for table, *_ in _rows()))


@cache
def rows(table: str) -> tuple[str, ...]:
    """Names of the rows of the paper's `table`, as printed, in order."""
    return tuple(dict.fromkeys(row for number, _, row, _ in _rows() if number == table))


def printed(table: str, split: str, row: str, task: str, metric: str) -> str:
    """The value as printed, in percent; empty where the paper has a dash, or does not report the metric or the split.

    Raises:
        UserError: the paper has no such table, or the table no such row; the remedy names the nearest.
    """
    if table not in tables():
        raise UserError(f"The paper has no table of results '{table}'.", did_you_mean(table, tables()))
    if row not in rows(table):
        raise UserError(f"Table {table} of the paper has no row '{row}'.", did_you_mean(row, rows(table)))
    return _rows().get((table, split, row, task), {}).get(metric, "")


def slips(table: str, split: str, row: str) -> list[Slip]:
    """The slips in one row of one of the paper's tables."""
    return [slip for slip in SLIPS if slip.concerns(table, split, row)]
