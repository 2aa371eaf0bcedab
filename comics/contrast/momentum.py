"""The momentum extractor F_k: an exponential moving average of F_q (equation 1; He et al., MoCo, CVPR 2020)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


class MomentumCopy(nn.Module):
    """A copy of a module that follows it slowly and is never trained.

    ``theta_k = beta * theta_k + (1 - beta) * theta_q`` for parameters and floating-point buffers (BatchNorm's running
    statistics, say); other buffers are copied. The copy runs in evaluation mode, so that its BatchNorm neither depends
    on the batch nor moves its own statistics.

    Args:
        source: the module to follow; it is not registered here, its parameters stay its owner's.
        momentum: beta.
    """

    def __init__(self, source: nn.Module, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self._source = [source]  # in a list: not a submodule
        self.module = copy.deepcopy(source).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> MomentumCopy:
        self.training = mode
        return self  # the copy itself stays in evaluation mode

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        source = self._source[0]
        yield from zip(self.module.parameters(), source.parameters(), strict=True)
        yield from zip(self.module.buffers(), source.buffers(), strict=True)

    @torch.no_grad()
    def update(self) -> None:
        """One step of equation 1. To be called once an optimiser step, and never in evaluation."""
        ours, theirs = [], []
        for mine, other in self._pairs():
            if mine.is_floating_point():
                ours.append(mine)
                theirs.append(other.detach())
            else:
                mine.copy_(other)
        torch._foreach_lerp_(ours, theirs, 1 - self.momentum)

    @torch.no_grad()
    def forward(self, *inputs: Any) -> list[Tensor]:
        return self.module(*inputs)
