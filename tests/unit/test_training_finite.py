"""Numbers that go wrong, and the running mean that spikes are told by."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from comics.errors import UserError
from comics.training.finite import LossWatch, gradient_norm
from comics.weights.finite import not_finite, require_finite


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_one_bad_number_is_found_by_the_name_of_its_tensor(bad: float, dtype: torch.dtype) -> None:
    tensors = {name: torch.ones(3, 4, dtype=dtype) for name in "abc"}
    tensors |= {"empty": torch.zeros(0), "count": torch.tensor(7), "flag": torch.tensor(True)}
    assert not_finite(tensors) == []
    tensors["b"][1, 2] = bad
    assert not_finite(tensors) == ["b"]
    with pytest.raises(UserError, match=r"model: 1 of 6 tensors are not finite \(b\)"):
        require_finite(tensors, "model", "")
    assert not_finite({}) == []


def test_the_norm_of_the_gradient_is_that_of_torch() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1), nn.Linear(7, 7))
    assert gradient_norm(model.parameters()) == 0
    model[1](model[0](torch.randn(5, 3))).sum().backward()
    ours = gradient_norm(model.parameters())
    torch.testing.assert_close(ours, torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))
    model[0].weight.grad[0, 0] = math.nan
    assert not torch.isfinite(gradient_norm(model.parameters()))


def test_a_spike_is_a_loss_far_above_what_it_was_and_noise_is_none() -> None:
    watch, random = LossWatch(), torch.Generator().manual_seed(0)
    losses = (2 + 0.2 * torch.randn(400, generator=random)).tolist()
    assert not any(watch.take(loss) for loss in losses)
    spike = watch.take(9.0)
    assert spike is not None
    assert spike.usual == pytest.approx(2, abs=0.1)
    again = LossWatch()
    again.load(watch.state())
    assert again.take(9.0) == watch.take(9.0)


def test_the_first_losses_are_no_spikes() -> None:
    watch = LossWatch()
    assert not any(watch.take(loss) for loss in (1.0, 100.0, 5.0))
