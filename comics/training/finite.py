"""Numbers that go wrong: found before they reach weights, checkpoints or queues."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from comics.data.loading.batches import Batch
from comics.errors import UserError
from comics.model import LossTerms
from comics.training.tensors import write_tensors

SPIKE = 6.0
"""A loss is a spike where it is farther above its running mean than so many mean deviations."""
_FACTOR = 0.98  # of the running mean and deviation
_SETTLED = 50  # steps until a running mean says something
_SHOWN = 5


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the floating-point tensors that hold a NaN or an infinity; one wait for the device."""
    floats = {name: t.detach() for name, t in tensors.items() if t.is_floating_point() and t.numel()}
    if not floats:
        return []
    largest = torch._foreach_norm(list(floats.values()), torch.inf)
    finite = torch.isfinite(torch.stack([one.float() for one in largest])).tolist()
    return [name for name, good in zip(floats, finite, strict=True) if not good]


def require_finite(tensors: Mapping[str, Tensor], what: str, remedy: str) -> None:
    """Refuse tensors that hold a NaN or an infinity.

    Args:
        tensors: by name.
        what: they are, for the message: ``results/.../model.pt``.
        remedy: what to do about it.

    Raises:
        UserError: names the first of them.
    """
    if bad := not_finite(tensors):
        raise UserError(f"{what}: {len(bad)} of {len(tensors)} tensors are not finite ({some(bad)}).", remedy)


def some(names: Iterable[str]) -> str:
    """The first few of `names`, and how many more there are."""
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


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
