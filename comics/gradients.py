"""What each term of a loss asks of the extractor: its gradient, beside those of the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

CONTRASTIVE = ("loss_coarse", "loss_intra", "loss_inter")
"""Terms of the bi-grained objective; all others are the detector's."""


def grouped(terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The contrastive terms, and the sum of all others as ``detection``."""
    detection = [term.float() for name, term in terms.items() if name not in CONTRASTIVE]
    return {"detection": torch.stack(detection).sum(), **{name: terms[name] for name in CONTRASTIVE if name in terms}}


def term_gradients(terms: Mapping[str, Tensor], extractor: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Name and gradient (P,), float32, of each scalar term to the trainable parameters of `extractor`, one after the other.

    The graph is kept; no `.grad` is touched. A term that does not depend on the extractor has a gradient of zeros.
    """
    parameters = [parameter for parameter in extractor.parameters() if parameter.requires_grad]
    for name, term in terms.items():
        found: Sequence[Tensor | None] = [None] * len(parameters)
        if term.requires_grad and parameters:
            with torch.autocast(term.device.type, enabled=False):
                found = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
        parts = [
            (torch.zeros_like(parameter) if one is None else one).flatten().float()
            for parameter, one in zip(parameters, found, strict=True)
        ]
        yield name, torch.cat(parts) if parts else torch.zeros(0, device=term.device)


def gradient_norms(terms: Mapping[str, Tensor], extractor: nn.Module) -> dict[str, Tensor]:
    """The norm of the gradient that each contrastive term and the detector's loss, all as weighted, give the extractor."""
    return {f"gradient_{name}": gradient.norm() for name, gradient in term_gradients(grouped(terms), extractor)}
