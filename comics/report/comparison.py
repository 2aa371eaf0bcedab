"""Which rows of a table are not significantly different from the best: computed once, by a step of its own, then marked.

For each test set, task and metric, the best measured row is compared with every other by a paired comparison over images
(`comics.evaluation.compare`); rows whose difference is not significant are written down with the digests of all runs
compared. Rendering only reads that file, and only while the digests are those of params.yaml.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from comics.files import write_json
from comics.params import Params, Task
from comics.report.results import Measured, detections_path, read_rows, require, runs_drawn
from comics.report.style import higher_is_better
from comics.report.tables import table_params

METRICS = ("AP", "oLRP")
"""The metrics that are compared."""

ALPHA = 0.05
"""Differences with a p-value from this on are not significant."""

PValues = Callable[[Path, Path, Path, Task], dict[str, float]]
"""(ground truth, detections of one run, of another, task) -> p-value of the paired difference, by metric."""


def best_and_others(rows: Iterable[Measured], task: str, metric: str) -> tuple[Measured, list[Measured]] | None:
    """The row with the best mean and the others, of those that have one; None of fewer than two."""
    scored = [(row.score(task, metric).mean, row) for row in rows]
    defined = [(value, row) for value, row in scored if value is not None]
    if len(defined) < 2:
        return None
    sign = 1 if higher_is_better(metric) else -1
    best = max(defined, key=lambda one: sign * one[0])[1]
    return best, [row for _, row in defined if row is not best]


def compare_table(params: Params, name: str, p_values: PValues, root: Path = Path()) -> dict[str, Any]:
    """The content of a table's comparison file (`comics.report.tables.comparison_path`).

    With several seeds the first of each run is compared: seeds are not paired between runs.

    Raises:
        UserError: no such table, or results or detections are missing or stale.
    """
    table = table_params(params, name)
    rows = read_rows(params, table, table.splits, root)
    known: dict[tuple[str, str, str, str], dict[str, float]] = {}
    comparisons: list[dict[str, Any]] = []
    for split in table.splits:
        by_run = {row.measured[split].run.name: row.measured[split] for row in rows if row.measured is not None}
        measured = list(by_run.values())
        if len(measured) > 1:
            require([(detections_path(one.run, split), one.run) for one in measured], root)
        truth = root / "data" / params.dataset / split / "annotations.json"
        for task in table.tasks:
            for metric in METRICS:
                found = best_and_others(measured, task, metric) if metric in table.metrics else None
                if found is None:
                    continue
                best, others = found
                for other in others:
                    one, two = sorted((best.run.name, other.run.name))
                    if (split, task, one, two) not in known:
                        known[split, task, one, two] = p_values(
                            truth,
                            root / detections_path(by_run[one].run, split),
                            root / detections_path(by_run[two].run, split),
                            task,
                        )
                    comparisons.append(
                        {
                            "split": split,
                            "task": task,
                            "metric": metric,
                            "best": best.run.name,
                            "run": other.run.name,
                            "p": known[split, task, one, two][metric],
                        }
                    )
    return {
        "table": name,
        "alpha": ALPHA,
        "digests": runs_drawn(rows),
        "comparisons": comparisons,
        "similar": [
            {key: one[key] for key in ("run", "split", "task", "metric")} for one in comparisons if one["p"] >= ALPHA
        ],
    }


def write_comparison(params: Params, name: str, output: Path, p_values: PValues, root: Path = Path()) -> int:
    """Write the comparison of table `name` to `output`; return the number of comparisons made."""
    content = compare_table(params, name, p_values, root)
    write_json(output, content, indent=2)
    return len(content["comparisons"])
