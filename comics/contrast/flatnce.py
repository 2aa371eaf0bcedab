"""FlatNCE, the objective of equation 4 (Chen et al., "Simpler, Faster, Stronger", arXiv:2107.01152).

With the similarity s+ of a query and its positive and the similarities s_h of the query and its negatives, let

    L = log sum_h exp((s_h - s+) / tau).

FlatNCE is ``exp(L) / detach(exp(L))``: its value is 1 wherever it is defined, its gradient is that of L. Computed as
``exp(L - detach(L))`` it cannot overflow. InfoNCE is ``log(1 + exp(L))``: a value that falls as the network learns.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

BLOCK = 1 << 22
"""Similarities held at a time."""


def _log_ratio(positive: Tensor, negatives: Tensor, valid: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """L of each row and which rows have a negative at all; rows without one get a constant."""
    valid = valid.expand(negatives.shape)
    some = valid.any(dim=-1)
    differences = (negatives - positive[:, None]) / temperature
    differences = differences.masked_fill(~valid, float("-inf"))
    # a row of -inf alone has a gradient of NaN: such rows are computed on zeros and left out
    differences = torch.where(some[:, None], differences, torch.zeros_like(differences))
    return torch.logsumexp(differences, dim=-1), some


def _flat(ratio: Tensor, some: Tensor) -> Tensor:
    return torch.where(some, torch.exp(ratio - ratio.detach()), torch.zeros_like(ratio))


def _info(ratio: Tensor, some: Tensor) -> Tensor:
    return torch.where(some, softplus(ratio), torch.zeros_like(ratio))


def flatnce(positive: Tensor, negatives: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """FlatNCE of each query.

    Args:
        positive: (N,) similarity of each query with its positive key.
        negatives: (N, K) similarities with the negatives, K >= 1.
        valid: (N, K) or (K,) bool, False for slots that hold no negative.
        temperature: tau.

    Returns:
        (N,) losses: 1 in value, with the gradient of L; 0 without gradient for a query with no negative.
    """
    return _flat(*_log_ratio(positive, negatives, valid, temperature))


def infonce(positive: Tensor, negatives: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """InfoNCE of each query: the value that FlatNCE hides, for people to read.

    Arguments and shapes as of `flatnce`; 0 for a query with no negative.
    """
    return _info(*_log_ratio(positive, negatives, valid, temperature))


class _LogSumExpQueue(torch.autograd.Function):
    """``log sum_h exp(q . b_h / tau)`` of queries (N, C) over the valid rows of a queue (K, C): (N,), -inf without any.

    The gradient of a query is the mean of the queue's rows, weighted by their softmax, over tau. It is taken in the forward pass, block
    by block, so that neither the similarities nor the queue are kept for the backward pass: a long queue costs no memory
    beside its own, and may be written to before the backward pass. The queue gets no gradient.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, queue: Tensor, valid: Tensor, temperature: float) -> Tensor:
        values, means = [], []
        for block in queries.split(max(1, BLOCK // len(queue))):
            similarities = (block @ queue.T).div_(temperature).masked_fill_(~valid, float("-inf"))
            highest = similarities.amax(dim=1, keepdim=True)
            weights = similarities.sub_(highest.clamp(min=-1 / temperature)).exp_()  # no cosine is below -1
            total = weights.sum(dim=1, keepdim=True)
            values.append((total.log() + highest).squeeze(1))
            means.append((weights @ queue).div_(total.clamp(min=1e-12)))
        ctx.save_for_backward(torch.cat(means))
        ctx.temperature = temperature
        return torch.cat(values)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        (means,) = ctx.saved_tensors
        return gradient[:, None] * means / ctx.temperature, None, None, None


def against_queue(
    queries: Tensor, positives: Tensor, queue: Tensor, valid: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """`flatnce` and `infonce` of cosine similarities (equation 3), all queries against one queue.

    Args:
        queries: (N, C) unit vectors.
        positives: (N, C) unit vectors, the positive key of each query.
        queue: (K, C) unit vectors, without gradient; it may change before the backward pass.
        valid: (K,) bool, False for slots that hold no negative.
        temperature: tau.

    Returns:
        (N,) FlatNCE and (N,) InfoNCE, both with gradient; 0 where no slot is valid.
    """
    some = valid.any()
    total = _LogSumExpQueue.apply(queries, queue, valid, temperature)
    ratio = torch.where(some, total, torch.zeros_like(total)) - (queries * positives).sum(dim=1) / temperature
    return _flat(ratio, some), _info(ratio, some)
