"""Numbers that go wrong: found before they reach weights, checkpoints or queues."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from comics.data.loading.batches import Batch
from comics.model import LossTerms
from comics.training.tensors import write_tensors
from comics.weights.finite import not_finite

SPIKE = 6.0
"""A loss is a spike where it is farther above its running mean than so many mean deviations."""
_FACTOR = 0.98  # of the running mean and deviation
_SETTLED = 50  # steps until a running mean says something


@dataclass
class Spike:
    """A loss that is far above what it was.

    Attributes:
        loss, usual: its value, and the running mean before it.
    """

    loss: float
    usual: float


class LossWatch:
    """The running mean and mean deviation of a loss; `state` and `load` carry them over an interruption."""

    def __init__(self) -> None:
        self.steps, self.mean, self.deviation = 0, 0.0, 0.0

    def take(self, loss: float) -> Spike | None:
        """Take in one finite loss; a `Spike` where it is one."""
        away = loss - self.mean
        spike = Spike(loss, self.mean) if self.steps >= _SETTLED and away > SPIKE * self.deviation > 0 else None
        keep = _FACTOR if self.steps >= 1 / (1 - _FACTOR) else self.steps / (self.steps + 1)
        self.mean += (1 - keep) * away
        self.deviation = keep * self.deviation + (1 - keep) * abs(away) if self.steps else 0.0
        self.steps += 1
        return spike

    def state(self) -> dict[str, float]:
        return {"steps": self.steps, "mean": self.mean, "deviation": self.deviation}

    def load(self, state: Mapping[str, Any]) -> None:
        self.steps, self.mean, self.deviation = int(state["steps"]), state["mean"], state["deviation"]


def broken_terms(losses: LossTerms) -> list[str]:
    """Names of the terms of a loss that is not finite; ``the sum`` where each of them is."""
    return not_finite(losses.terms) or ["the sum"]


def broken_gradients(model: nn.Module) -> list[str]:
    """Names of the parameters whose gradient is not finite."""
    return not_finite({name: p.grad for name, p in model.named_parameters() if p.grad is not None})


def save_for_inspection(path: Path, batch: Batch, losses: LossTerms) -> None:
    """Write a batch and its loss terms, readable by ``torch.load(path, weights_only=True)``."""
    content = {
        "image_ids": list(batch.image_ids),
        "images": batch.images.detach().cpu(),
        "keys": None if batch.keys is None else batch.keys.detach().cpu(),
        "targets": [{name: value.cpu() for name, value in target.items()} for target in batch.targets],
        "sizes": [tuple(size) for size in batch.sizes],
        "terms": {name: float(value) for name, value in losses.terms.items()},
    }
    write_tensors(path, content)


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The 2-norm of all gradients together, a scalar; NaN or infinite where one of them is."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
