"""The precision that is faster here is measured once a machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from comics.training import hardware, precision
from comics.training.hardware import autocast_dtype
from comics.training.precision import Measured, measured

CPU = torch.device("cpu")


def test_bf16_is_taken_where_it_is_clearly_faster() -> None:
    assert Measured(1.0, 0.5).dtype is torch.bfloat16
    assert Measured(1.0, 0.97).dtype is torch.float32
    assert Measured(0.6, 0.89).dtype is torch.float32  # AVX512_BF16 without AMX


def test_it_is_measured_once_and_kept_by_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([Measured(2.0, 1.0), Measured(1.0, 2.0)])
    monkeypatch.setattr(precision, "measure", lambda on: next(answers))
    path = tmp_path / "cache/precision.json"
    assert measured(CPU, "one processor", path) == measured(CPU, "one processor", path) == Measured(2.0, 1.0)
    assert measured(CPU, "another", path) == Measured(1.0, 2.0)
    assert measured(CPU, "one processor", path) == Measured(2.0, 1.0)


def test_measuring_leaves_the_draws_of_the_training_as_they_were() -> None:
    """Otherwise the one of several runs that measures begins with other heads than its seed says."""
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    precision.measure(CPU)
    assert torch.equal(torch.rand(3), expected)


def test_a_damaged_or_forbidden_cache_only_costs_a_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "measure", lambda on: Measured(2.0, 1.0))
    path = tmp_path / "precision.json"
    path.write_text('{"x')
    assert measured(CPU, "one", path) == Measured(2.0, 1.0)
    assert measured(CPU, "one", Path("/proc/nowhere/precision.json")) == Measured(2.0, 1.0)


def test_auto_asks_the_measurement_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "computes_bf16", lambda on: True)
    monkeypatch.setattr(hardware, "measured", lambda on, name: Measured(0.6, 0.89))
    assert autocast_dtype("auto", CPU) is torch.float32
    assert autocast_dtype("bf16", CPU) is torch.bfloat16
    monkeypatch.setattr(hardware, "measured", lambda on, name: Measured(0.6, 0.3))
    assert autocast_dtype("auto", CPU) is torch.bfloat16
    assert autocast_dtype("fp32", CPU) is torch.float32
    monkeypatch.setattr(hardware, "computes_bf16", lambda on: False)
    assert autocast_dtype("auto", CPU) is torch.float32


def test_both_are_really_timed() -> None:
    found = precision.measure(CPU)
    assert found.float32_seconds > 0
    assert found.bfloat16_seconds > 0
