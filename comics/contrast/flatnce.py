"""FlatNCE, the objective of equation 4 (Chen et al., "Simpler, Faster, Stronger", arXiv:2107.01152).

With positive similarity s+ and negative similarities s_h, all divided by the temperature, let
``L = log sum_h exp(s_h - s+)``. FlatNCE is ``exp(L) / detach(exp(L))``: its value is 1 wherever it is defined, its
gradient is that of L. Written as ``exp(L - detach(L))`` it cannot overflow.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _contrast(positive: Tensor, negatives: Tensor, valid: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """``L`` of each row and which rows have a negative at all; rows without one get 0."""
    some = valid.any(dim=-1)
    differences = (negatives - positive[:, None]) / temperature
    differences = differences.masked_fill(~valid, float("-inf"))
    # a row of -inf alone has a gradient of NaN: such rows are computed on zeros and left out
    differences = torch.where(some[:, None], differences, torch.zeros_like(differences))
    return torch.logsumexp(differences, dim=-1), some


def flatnce(positive: Tensor, negatives: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """FlatNCE of each query.

    Args:
        positive: (N,) similarity of each query with its positive key.
        negatives: (N, K) similarities with the negatives.
        valid: (N, K) or (K,) bool, False for slots that hold no negative.
        temperature: tau.

    Returns:
        (N,) losses: 1 in value, with the gradient of the log-sum-exp; 0 without gradient for a query with no negative.
    """
    valid = valid.expand(negatives.shape)
    contrast, some = _contrast(positive, negatives, valid, temperature)
    return torch.where(some, torch.exp(contrast - contrast.detach()), torch.zeros_like(contrast))


def infonce(positive: Tensor, negatives: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """InfoNCE of each query, ``log(1 + exp(L))``: the value that FlatNCE hides, for people to read.

    Arguments and shapes as of `flatnce`; 0 for a query with no negative.
    """
    valid = valid.expand(negatives.shape)
    contrast, some = _contrast(positive, negatives, valid, temperature)
    return torch.where(some, torch.nn.functional.softplus(contrast), torch.zeros_like(contrast))
