"""Queues and prototypes of proposal features: the memory of coarse-grained contrastive learning (section IV-B)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from comics.ranks import gather_lists


class Memory(nn.Module):
    """One ring buffer and one prototype for each group (a level and class).

    All state is in buffers, so that it travels with the checkpoint. The queues hold unit vectors, since nothing but their
    cosines is ever taken (equation 3); prototypes are averages of the features as they are.

    Args:
        groups: number of groups.
        size: slots of each queue.
        channels: of a feature.
        momentum: alpha of equation 2.
        pushed: features pushed a call.
        update: ``sequential``: equation 2 key by key; ``batch_mean``: once a call, with the mean of the keys.
    """

    queue: Tensor
    filled: Tensor
    head: Tensor
    prototype: Tensor
    has_prototype: Tensor

    def __init__(
        self,
        groups: int,
        size: int,
        channels: int,
        momentum: float,
        pushed: int,
        update: Literal["sequential", "batch_mean"] = "sequential",
    ) -> None:
        super().__init__()
        self.size, self.momentum, self.pushed, self.sequential = size, momentum, pushed, update == "sequential"
        self.register_buffer("queue", torch.zeros(groups, size, channels))
        self.register_buffer("filled", torch.zeros(groups, dtype=torch.long))
        self.register_buffer("head", torch.zeros(groups, dtype=torch.long))
        self.register_buffer("prototype", torch.zeros(groups, channels))
        self.register_buffer("has_prototype", torch.zeros(groups, dtype=torch.bool))

    def negatives(self, group: int) -> tuple[Tensor, Tensor]:
        """The queue of `group`, (size, channels) unit vectors, and which slots were ever filled, (size,) bool.

        The queue is a view: a later push changes it.
        """
        valid = torch.arange(self.size, device=self.queue.device) < self.filled[group]
        return self.queue[group], valid

    @torch.no_grad()
    def update(self, group: int, keys: Tensor, unlike: int | None = None) -> None:
        """Move the prototype of `group` by equation 2 and push the keys least similar to it.

        Equation 2 is applied key by key; n applications have the closed form
        ``alpha^n p + (1 - alpha) sum_j alpha^(n-1-j) k_j``. The first key ever seen starts the prototype.

        Args:
            group: index of the group.
            keys: (n, channels) features, n >= 0.
            unlike: a group whose prototype decides instead: the keys most similar to it are pushed, once it has one.
        """
        keys = keys.detach().to(self.queue.dtype)
        count = len(keys)
        if not count:
            return
        if self.sequential:
            first, kept = keys[0], self.momentum**count
            exponents = torch.arange(count - 1, -1, -1, device=keys.device, dtype=keys.dtype)
            moved = ((1 - self.momentum) * self.momentum**exponents) @ keys
        else:
            first, kept = keys.mean(dim=0), self.momentum
            moved = (1 - self.momentum) * first
        before = torch.where(self.has_prototype[group], self.prototype[group], first)
        self.prototype[group] = kept * before + moved
        self.has_prototype[group] = True

        keys = normalize(keys, dim=1)
        similarity = keys @ normalize(self.prototype[group], dim=0)
        if unlike is not None:
            other = -(keys @ normalize(self.prototype[unlike], dim=0))
            similarity = torch.where(self.has_prototype[unlike], other, similarity)
        chosen = similarity.topk(min(self.pushed, count, self.size), largest=False).indices
        self._push(group, keys[chosen])

    def _push(self, group: int, keys: Tensor) -> None:
        """Write keys at the head of the ring; the oldest are overwritten."""
        count = len(keys)
        slots = (self.head[group] + torch.arange(count, device=keys.device)) % self.size
        self.queue[group, slots] = keys
        self.head[group] = (self.head[group] + count) % self.size
        self.filled[group] = (self.filled[group] + count).clamp(max=self.size)


def of_all_ranks(seen: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """The keys (n, C) of each group, of every batch in `seen` and of all ranks in the ranks' order, so that all ranks hold the
    same queues and prototypes. To be called on all ranks."""
    batches = [gather_lists(keys) for keys in seen]
    return [torch.cat(parts) for parts in zip(*batches, strict=True)]
