"""Losses of a batch that several processes share: each rank holds some of its images, and the sum is the whole batch's.

Distributed training takes the mean of the ranks' gradients. So a sum over items, divided by the mean of their number over ranks,
has the gradient that one process with all items has (`as_of_all`); and rows that every rank compares with all others' have it
where the gradient of one's own is multiplied by the number of ranks (`gather_rows`). With one process nothing changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of `value` over the processes, without gradient; itself when there is one."""
    if world() == 1:
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value / world()


def as_of_all(loss: Tensor, count: float) -> Tensor:
    """`loss`, a mean over `count` items of this rank, as its share of the mean over all ranks' items.

    Every rank must call it, also one without items, whose loss is 0.
    """
    if world() == 1:
        return loss
    mean = mean_over_ranks(torch.tensor(float(count), device=loss.device))
    return loss * (count / mean.clamp(min=1.0 / world()))


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        counts = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(world())]
        dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
        lengths = [int(count) for count in counts]
        padded = rows.new_zeros(max(lengths), *rows.shape[1:])
        padded[: len(rows)] = rows.detach()
        everyones = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(everyones, padded)
        ctx.start, ctx.length = sum(lengths[: dist.get_rank()]), len(rows)
        return torch.cat([one[:length] for one, length in zip(everyones, lengths, strict=True)])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient[ctx.start : ctx.start + ctx.length] * world()


def gather_rows(rows: Tensor) -> Tensor:
    """The rows (n, ...) of all ranks, in the order of the ranks, with the gradient of one's own."""
    return rows if world() == 1 else _GatherRows.apply(rows)


def gather_lists(lists: Sequence[Tensor]) -> list[Tensor]:
    """`gather_rows` of L lists of rows (n, C) at once, without gradient: the l-th of all ranks, in their order."""
    if world() == 1:
        return [one.detach() for one in lists]
    lengths = torch.tensor([[len(one) for one in lists]], device=lists[0].device)
    everyones = gather_rows(lengths)
    rows = gather_rows(torch.cat([one.detach() for one in lists]))
    parts = rows.split(everyones.flatten().tolist())
    return [torch.cat(parts[index :: len(lists)]) for index in range(len(lists))]


def gather_objects(value: Any) -> list[Any]:
    """What each rank gives, in their order."""
    if world() == 1:
        return [value]
    everyones: list[Any] = [None] * world()
    dist.all_gather_object(everyones, value)
    return everyones


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum of `value` over the ranks, with gradient: what enters every rank's loss."""
    return value if world() == 1 else _SumOverRanks.apply(value)
