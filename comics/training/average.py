"""An exponential moving average of the weights: what is evaluated and kept in their place (Polyak and Juditsky, 1992)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from comics.detectors.backbone.layers import is_norm


class WeightAverage:
    """Follows what a model learns.

    After the n-th optimiser step, from n = 1, ``average = d * average + (1 - d) * weight`` with ``d = min(decay, n / (n + 9))``:
    the first steps count more, lest the average stay near the random start (as TensorFlow's ``ExponentialMovingAverage`` does
    with ``num_updates``). It begins with the weights before the first step.

    Averaged are the parameters that are trained, and the running statistics of their normalisation layers, which belong to
    them. All else of the model (queues, prototypes, the momentum extractor, which is an average already) stays as it is.

    Args:
        model: whose weights; its tensors may move to another device.
        decay: the largest d, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = [model]  # in a list: not a submodule of anything
        self.decay, self.updates = decay, 0
        self.values = {name: value.detach().clone() for name, value in self._followed().items()}

    def _followed(self) -> dict[str, Tensor]:
        """The tensors of the model that are averaged, by their names in its state."""
        found: dict[str, Tensor] = {}
        for prefix, module in self._model[0].named_modules():
            dot = f"{prefix}." if prefix else ""
            own = {name: p for name, p in module.named_parameters(recurse=False) if p.requires_grad}
            if is_norm(module) and own:
                own |= {name: b for name, b in module.named_buffers(recurse=False) if b.is_floating_point()}
            found |= {f"{dot}{name}": value for name, value in own.items()}
        return found

    def _pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        """The averages, where the model is, and the model's own tensors."""
        followed = self._followed()
        for name, value in followed.items():
            if self.values[name].device != value.device:
                self.values[name] = self.values[name].to(value.device)
        return [self.values[name] for name in followed], [value.detach() for value in followed.values()]

    @torch.no_grad()
    def update(self) -> None:
        """To be called once after every optimiser step."""
        self.updates += 1
        averages, weights = self._pairs()
        torch._foreach_lerp_(averages, weights, 1 - min(self.decay, self.updates / (self.updates + 9)))

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """While the block runs, the model has the averages for its weights; then its own again, bit by bit."""
        averages, weights = self._pairs()
        own = [weight.clone() for weight in weights]
        torch._foreach_copy_(weights, averages)
        try:
            yield
        finally:
            torch._foreach_copy_(weights, own)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"updates": self.updates, "values": dict(self.values)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.updates, self.values = int(state["updates"]), dict(state["values"])
