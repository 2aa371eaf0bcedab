"""Weights that are no numbers: refused before they are written and after they are read, whatever the source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from comics.errors import UserError

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
