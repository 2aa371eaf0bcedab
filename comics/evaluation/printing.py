"""Scores as a table for the terminal: percent, one decimal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from comics.evaluation.classification import METRICS as VERDICTS
from comics.evaluation.precision import AP_METRICS
from comics.evaluation.resampling import Interval
from comics.evaluation.scores import ALL, LRP_METRICS, TASKS, Scores

_KINDS = {
    "face": "face",
    "image": "image",
    "pixel": "pixel",
    "pixel_core": "pixel, outline left out",
    "video": "video",
    "track": "track",
}


def as_text(scores: Scores, intervals: Iterable[Interval] | None = None) -> str:
    """The scores that are defined, a block of aligned columns for each kind; below them the 95 % intervals, if given.

    Args:
        scores: of one result.
        intervals: of the same.
    """
    blocks = [_precision(scores), *_verdicts(scores)]
    if intervals is not None:
        blocks.append(_intervals(intervals))
    blocks = [block for block in blocks if len(block) > 1]
    return (
        "\n\n".join(map(_aligned, blocks)) + "\n\nPercent, but for the threshold; – where undefined."
        if blocks
        else ("Nothing is defined: the ground truth and the detections have neither boxes nor masks in common.")
    )


def _shown(value: float, scale: float = 100) -> str:
    return "–" if value != value else f"{scale * value:.1f}" if scale == 100 else f"{value:.3f}"


def _precision(scores: Scores) -> list[list[str]]:
    metrics = (*AP_METRICS, *LRP_METRICS)
    rows = [["task", "class", *(metric.removeprefix("oLRP_") for metric in metrics)]]
    for task in TASKS:
        for cls in scores.classes:
            values = {metric: scores[task, cls, metric] for metric in metrics}
            if any(value == value for value in values.values()):
                cells = [_shown(value, 1 if name == "oLRP_threshold" else 100) for name, value in values.items()]
                rows.append([task, cls, *cells])
    return rows


def _verdicts(scores: Scores) -> list[list[list[str]]]:
    """A block for each set of kinds that have the same metrics."""
    columns: dict[str, list[str]] = {}
    for name, (kind, _) in VERDICTS.items():
        columns.setdefault(kind, []).append(name.removeprefix(f"{kind}_"))
    blocks: dict[tuple[str, ...], list[list[str]]] = {}
    for kind, names in columns.items():
        block = blocks.setdefault(tuple(names), [["verdicts on", "found by", *names]])
        rows: Mapping[str, Sequence[float]] = {
            task: [scores[task, ALL, f"{kind}_{name}"] for name in names] for task in TASKS
        }
        for task, values in rows.items():
            if any(value == value for value in values):
                block.append([_KINDS[kind], task, *map(_shown, values)])
    return list(blocks.values())


def _intervals(intervals: Iterable[Interval]) -> list[list[str]]:
    rows = [["task", "class", "metric", "value", "low", "high"]]
    for one in intervals:
        scale = 1 if one.metric == "oLRP_threshold" else 100
        rows.append(
            [one.task, one.cls, one.metric, *(_shown(value, scale) for value in (one.value, one.low, one.high))]
        )
    return rows


def _aligned(rows: list[list[str]]) -> str:
    """Columns of words to the left, of numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    words = [
        not any(character.isdigit() for row in rows[1:] for character in row[index]) for index in range(len(widths))
    ]
    words[:2] = [True, True]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if word else cell.rjust(width)
            for cell, width, word in zip(row, widths, words, strict=True)
        ).rstrip()
        for row in rows
    )
