"""Which rows of a table are not significantly different from the best: computed once, by a step of its own, then marked.

For each test set, task and metric, the best measured row is compared with every other by a paired comparison over images
(`comics.evaluation.PairedTests`). The p-values of a column are corrected for their number (`holm`); rows whose difference
is not significant are written down with the digests of all runs compared. Rendering only reads that file, and only while
the digests are those of params.yaml.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from comics.files import write_json
from comics.params import Params, Split, TableParams, Task
from comics.progress import Progress, silent, told
from comics.provenance import write_sidecar
from comics.report.results import Measured, Row, detections_path, read_rows, require, runs_drawn
from comics.report.style import higher_is_better
from comics.report.tables import ALPHA, compared_metrics, table_params

Test = Callable[[Path, Path, Task], dict[str, float]]
"""Detections of one run, of another, task -> p-value of the paired difference, by metric."""

PairedTests = Callable[[Path, Sequence[Task], Sequence[str]], Test]
"""Ground truth, tasks, metrics -> the tests of detections of its images."""


@dataclass(frozen=True)
class Pair:
    """Two rows to compare by one metric: the best, and another."""

    split: Split
    task: Task
    metric: str
    best: Measured
    other: Measured

    @property
    def key(self) -> tuple[str, str, str, str]:
        """The same for all metrics, and whichever of the two is the best: one test answers all."""
        one, two = sorted((self.best.run.name, self.other.run.name))
        return self.split, self.task, one, two


def pairs_of(table: TableParams, rows: Iterable[Row]) -> Iterator[Pair]:
    """The best measured row by each split, task and metric, with each of the others that have a value."""
    for split, task, metric in product(table.splits, table.tasks, compared_metrics(table)):
        # A run may stand in several rows.
        measured = {row.measured[split].run.name: row.measured[split] for row in rows if row.measured is not None}
        values = {name: value for name, one in measured.items() if (value := one.score(task, metric).mean) is not None}
        if not values:
            continue
        best = (max if higher_is_better(metric) else min)(values, key=values.__getitem__)
        for name in values:
            if name != best:
                yield Pair(split, task, metric, measured[best], measured[name])


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of comparisons made together, adjusted so that a true difference of none is called one in any of them no more
    often than a single test would (Holm, "A simple sequentially rejective multiple test procedure", 1979). NaN stays NaN."""
    adjusted = [math.nan] * len(p_values)
    defined = [index for index, p in enumerate(p_values) if p == p]
    highest = 0.0
    for rank, index in enumerate(sorted(defined, key=lambda one: p_values[one])):
        highest = max(highest, min(1.0, (len(defined) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def compare_table(
    params: Params, name: str, paired_tests: PairedTests, root: Path = Path(), progress: Progress = silent
) -> dict[str, Any]:
    """The content of a table's comparison file (`comics.report.tables.comparison_path`).

    With several seeds the first of each run is compared: seeds are not paired between runs.

    Args:
        params: params.yaml.
        name: of the table.
        paired_tests: the tests of one split.
        root: the project's.
        progress: told of the tests.

    Raises:
        UserError: no such table, or results or detections are missing or stale.
    """
    table = table_params(params, name)
    rows = read_rows(params, table, table.splits, root)
    pairs = list(pairs_of(table, rows))
    to_test = {pair.key: pair for pair in pairs}
    compared = {(pair.split, one.run.name): one for pair in pairs for one in (pair.best, pair.other)}
    require([(detections_path(one.run, split), one.run) for (split, _), one in compared.items()], root)
    tests: dict[str, Test] = {}
    p_values: dict[tuple[str, str, str, str], dict[str, float]] = {}
    for key, pair in told(to_test.items(), len(to_test), progress, f"Compare the rows of {name}"):
        if pair.split not in tests:
            # One split after the other: its detections fill the memory.
            truth = root / "data" / params.dataset / pair.split / "annotations.json"
            tests = {pair.split: paired_tests(truth, table.tasks, compared_metrics(table))}
        first, second = (root / detections_path(compared[pair.split, run].run, pair.split) for run in key[2:])
        p_values[key] = tests[pair.split](first, second, pair.task)
    comparisons: list[dict[str, Any]] = [
        {
            "split": pair.split,
            "task": pair.task,
            "metric": pair.metric,
            "best": pair.best.run.name,
            "run": pair.other.run.name,
            "p": p_values[pair.key][pair.metric],
        }
        for pair in pairs
    ]
    columns: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for one in comparisons:
        columns.setdefault((one["split"], one["task"], one["metric"]), []).append(one)
    for column in columns.values():
        for one, p in zip(column, holm([one["p"] for one in column]), strict=True):
            one["p_holm"] = p
    return {
        "table": name,
        "alpha": ALPHA,
        "digests": runs_drawn(rows),
        "comparisons": comparisons,
        "similar": [
            {key: one[key] for key in ("run", "split", "task", "metric")}
            for one in comparisons
            if one["p_holm"] >= ALPHA
        ],
    }


def write_comparison(
    params: Params,
    name: str,
    output: Path,
    paired_tests: PairedTests,
    root: Path = Path(),
    progress: Progress = silent,
) -> int:
    """Write the comparison of table `name` to `output`; return the number of comparisons made."""
    content = compare_table(params, name, paired_tests, root, progress)
    write_json(output, content, indent=2)
    write_sidecar(output, {"table": name})
    return len(content["comparisons"])
