"""``logs/metrics.csv``: every logged value by step, one file however often a training was interrupted."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger, rank_zero_experiment
from pytorch_lightning.utilities import rank_zero_only

from comics.files import atomic_write

FIRST = ("epoch", "step")


class CurveLogger(Logger):
    """Appends rows to a CSV file; a value that was never logged before adds a column.

    Args:
        path: of the file.
        step: rows of this step and later ones, which an interrupted training logged after its last checkpoint, are removed.
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if step and path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                before = -1
                for row in csv.DictReader(file):
                    if not before <= _step(row) < step or None in row.values():
                        break  # of the steps that are made again, or a line that a kill cut in two
                    self.rows.append(row)
                    before = _step(row)
        self.columns = list(dict.fromkeys([*FIRST, *(name for row in self.rows for name in row)]))
        self._begun = False

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> CurveLogger:
        return self

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: they are in run.json."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {"step": step, **metrics}
        new = [name for name in row if name not in self.columns]
        self.columns += new
        self.rows.append(row)
        if new or not self._begun:
            self._begun = True
            with atomic_write(self.path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.columns, restval="")
                writer.writeheader()
                writer.writerows(self.rows)
        else:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.columns, restval="").writerow(row)


def _step(row: Mapping[str, Any]) -> int:
    try:
        return int(row["step"])
    except (KeyError, TypeError, ValueError):
        return -2
