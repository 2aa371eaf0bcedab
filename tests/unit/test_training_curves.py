"""The CSV log over interruptions."""

from __future__ import annotations

import csv
from pathlib import Path

from comics.training.curves import CurveLogger


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_resumed_log_goes_on_after_the_last_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "logs/metrics.csv"
    first = CurveLogger(path)
    for step in (9, 19, 29):
        first.log_metrics({"epoch": 0, "train/loss": step / 10}, step)
    with path.open("a") as file:
        file.write("0,3")  # a kill cut the line
    second = CurveLogger(path, step=20)
    second.log_metrics({"epoch": 1, "train/loss": 7.0}, 29)
    assert [(row["step"], row["train/loss"]) for row in rows(path)] == [("9", "0.9"), ("19", "1.9"), ("29", "7.0")]


def test_a_new_training_begins_a_new_log(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    CurveLogger(path).log_metrics({"a": 1}, 5)
    CurveLogger(path).log_metrics({"a": 2}, 7)
    assert [row["a"] for row in rows(path)] == ["2"]


def test_a_value_that_comes_later_adds_a_column(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    logger = CurveLogger(path)
    logger.log_metrics({"a": 1}, 1)
    logger.log_metrics({"b": 2}, 2)
    logger.log_metrics({"a": 3}, 3)
    assert [(row["a"], row["b"]) for row in rows(path)] == [("1", ""), ("", "2"), ("3", "")]
