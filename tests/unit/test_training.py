"""The schedule, the parameter groups, and the checkpoint file."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from comics.errors import UserError
from comics.params import TrainingParams, load
from comics.provenance import write_sidecar
from comics.training.checkpoint import load_weights, save_weights
from comics.training.hardware import autocast_dtype, hardware, versions
from comics.training.module import learning_rate_factor, parameter_groups

ROOT = Path(__file__).parents[2]


def naive_factor(step: int, steps_per_epoch: int, training: TrainingParams) -> float:
    factor = 1.0
    for milestone in training.milestones:
        if step >= milestone * steps_per_epoch:
            factor *= training.gamma
    if step < training.warmup_iterations:
        start, end = training.warmup_factor, 1.0
        factor *= start + (end - start) * step / training.warmup_iterations
    return factor


@pytest.mark.parametrize("milestones", [[8, 10], [0.5, 1.5], []])
@pytest.mark.parametrize("warmup", [0, 1, 30])
def test_the_learning_rate_warms_up_and_drops(milestones: list[float], warmup: int) -> None:
    training = TrainingParams(milestones=milestones, warmup_iterations=warmup)
    for step in range(130):
        expected = naive_factor(step, 10, training)
        assert math.isclose(learning_rate_factor(step, 10, training), expected, rel_tol=1e-12)


def test_the_papers_schedule() -> None:
    training = TrainingParams()
    steps = 44122 // 8
    rates = [training.lr * learning_rate_factor(epoch * steps, steps, training) for epoch in (1, 7, 8, 9, 10, 11)]
    assert rates == pytest.approx([0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001])
    assert learning_rate_factor(0, steps, training) == pytest.approx(0.001)


def test_normalisation_layers_are_not_decayed_and_frozen_parameters_not_optimised() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GroupNorm(2, 8), nn.Conv2d(8, 4, 1))
    model[0].bias.requires_grad_(False)
    decayed, spared = parameter_groups(model, TrainingParams(weight_decay=1e-4))
    assert (decayed["weight_decay"], spared["weight_decay"]) == (1e-4, 0.0)
    assert {id(p) for p in decayed["params"]} == {id(model[0].weight), id(model[3].weight), id(model[3].bias)}
    assert {id(p) for p in spared["params"]} == {id(p) for index in (1, 2) for p in model[index].parameters()}


def test_weights_travel_with_their_digest(tmp_path: Path) -> None:
    params = load(ROOT / "params.yaml")
    run, other = params.resolve("blendmask"), params.resolve("da")
    model = nn.Conv2d(3, 4, 3)
    path = tmp_path / "model.pt"
    save_weights(path, model, run)
    assert torch.load(path, weights_only=True)["description"] == run.description
    assert torch.equal(load_weights(path, run)["weight"], model.weight)
    with pytest.raises(UserError, match="has changed since"):
        load_weights(path, other)
    whole = path.read_bytes()
    path.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    with pytest.raises(UserError, match=r"model\.pt: its bytes have changed"):
        load_weights(path, run)
    path.write_bytes(whole[:100])
    write_sidecar(path, {})
    with pytest.raises(UserError, match=r"model\.pt: not a checkpoint"):
        load_weights(path, run)
    with pytest.raises(UserError, match="no such checkpoint") as caught:
        load_weights(tmp_path / "absent.pt", run)
    assert "snakemake" in caught.value.remedy


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_neither_written_nor_read(tmp_path: Path, bad: float) -> None:
    run = load(ROOT / "params.yaml").resolve("blendmask")
    model, path = nn.Conv2d(3, 4, 3), tmp_path / "model.pt"
    save_weights(path, model, run)
    kept = path.read_bytes()
    with torch.no_grad():
        model.weight[1, 2, 0, 1] = bad
    with pytest.raises(UserError, match=r"1 of 2 tensors are not finite \(weight\)"):
        save_weights(path, model, run)
    assert path.read_bytes() == kept
    content = torch.load(path, weights_only=True)
    torch.save({**content, "state_dict": model.state_dict()}, path)
    write_sidecar(path, {})
    with pytest.raises(UserError, match="not finite"):
        load_weights(path, run)


def test_precision_is_what_was_asked_for() -> None:
    cpu = torch.device("cpu")
    assert autocast_dtype("fp32", cpu) is torch.float32
    assert autocast_dtype("bf16", cpu) is torch.bfloat16
    assert autocast_dtype("auto", cpu) in (torch.float32, torch.bfloat16)


def test_the_machine_can_be_told() -> None:
    assert int(hardware(torch.device("cpu"))["cores"]) >= 1
    assert versions()["torch"] == torch.__version__.split("+")[0]
