"""The moving average of the weights against one written out number by number."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from comics.training.average import WeightAverage


def model() -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2))
    for parameter in made[2:].parameters():
        parameter.requires_grad_(False)
    return made


def learn(made: nn.Module, steps: int, after: list[WeightAverage]) -> list[dict[str, torch.Tensor]]:
    """States after each of some steps of SGD."""
    optimiser = torch.optim.SGD([p for p in made.parameters() if p.requires_grad], 0.5)
    states = []
    for _ in range(steps):
        optimiser.zero_grad()
        made(torch.randn(4, 3, 8, 8)).square().sum().backward()
        optimiser.step()
        for average in after:
            average.update()
        states.append({name: value.clone() for name, value in made.state_dict().items()})
    return states


def naive(
    start: dict[str, torch.Tensor], states: list[dict[str, torch.Tensor]], decay: float, name: str
) -> list[float]:
    values = start[name].double().flatten().tolist()
    for n, state in enumerate(states, start=1):
        d = min(decay, n / (n + 9))
        values = [d * old + (1 - d) * new for old, new in zip(values, state[name].flatten().tolist(), strict=True)]
    return values


@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_the_average_is_what_its_formula_says(decay: float) -> None:
    made = model()
    start = copy.deepcopy(made.state_dict())
    average = WeightAverage(made, decay)
    states = learn(made, 12, [average])
    assert set(average.values) == {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"}
    for name, value in average.values.items():
        assert value.flatten().tolist() == pytest.approx(naive(start, states, decay, name), rel=1e-5, abs=1e-6), name
        assert name == "0.bias" or not torch.equal(value, states[-1][name])  # BatchNorm leaves that one no gradient


def test_it_is_there_while_it_is_asked_for_and_the_weights_come_back_bit_by_bit() -> None:
    made = model()
    average = WeightAverage(made, 0.9)
    (*_, last) = learn(made, 5, [average])

    def fails() -> None:
        with average.applied():
            assert all(torch.equal(made.state_dict()[name], value) for name, value in average.values.items())
            assert torch.equal(made.state_dict()["3.running_mean"], last["3.running_mean"])  # not trained: as it is
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert all(torch.equal(made.state_dict()[name], value) for name, value in last.items())


def test_it_goes_on_from_its_state() -> None:
    made = model()
    one, other = WeightAverage(made, 0.9), WeightAverage(made, 0.9)
    learn(made, 3, [one])
    other.load(copy.deepcopy(one.state()))
    learn(made, 4, [one, other])
    assert other.updates == 7
    assert all(torch.equal(one.values[name], value) for name, value in other.values.items())
