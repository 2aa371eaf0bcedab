"""Where images of a batch end: batches are padded on the right and below, and nothing may depend on what the padding holds.

Shapes: B images a batch; `sizes` are their (height, width) in px before padding; a map of stride s has ceil(height / s) valid
rows. `sizes` of None means that images fill their batch; as a tensor (B, 2) they are an input of an exported network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Size = tuple[int, int]
"""(height, width) in px."""


def valid_cells(sizes: Sequence[Size] | None, height: int, width: int, stride: int = 1) -> list[Size] | None:
    """Valid rows and columns of each image's map of height x width cells; None where no image ends before its map."""
    if sizes is None:
        return None
    cells = [(min(-(-h // stride), height), min(-(-w // stride), width)) for h, w in sizes]
    return None if all(cell == (height, width) for cell in cells) else cells


def _cells(maps: Tensor, sizes: Sequence[Size] | Tensor | None, stride: int) -> Tensor | None:
    """Valid rows and columns (B, 2) of each map; None where no image ends before its map."""
    if isinstance(sizes, Tensor):
        return (sizes + (stride - 1)) // stride
    cells = valid_cells(sizes, maps.shape[-2], maps.shape[-1], stride)
    return None if cells is None else torch.tensor(cells, device=maps.device)


def blank(maps: Tensor, sizes: Sequence[Size] | Tensor | None, stride: int = 1) -> Tensor:
    """`maps` (B, C, H, W) with zeros outside of the images."""
    cells = _cells(maps, sizes, stride)
    if cells is None:
        return maps
    rows, columns = cells.unbind(1)
    below = torch.arange(maps.shape[-2], device=maps.device) >= rows[:, None]
    beside = torch.arange(maps.shape[-1], device=maps.device) >= columns[:, None]
    return maps.masked_fill((below[:, :, None] | beside[:, None, :])[:, None], 0.0)


def extend(maps: Tensor, sizes: Sequence[Size] | Tensor | None, stride: int = 1) -> Tensor:
    """`maps` (B, C, H, W) whose padding repeats the last valid row and column of each image."""
    cells = _cells(maps, sizes, stride)
    if cells is None:
        return maps
    last = cells - 1
    rows = torch.minimum(torch.arange(maps.shape[-2], device=maps.device), last[:, :1])
    columns = torch.minimum(torch.arange(maps.shape[-1], device=maps.device), last[:, 1:])
    images = torch.arange(maps.shape[0], device=maps.device)[:, None, None]
    picked = maps.permute(0, 2, 3, 1)[images, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)
