"""Anchors: what RetinaMask and YOLACT share. Boxes are xyxy px; A anchors a location, L of a whole pyramid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

NEGATIVE, IGNORED = -1, -2
LARGEST_STEP = math.log(1000 / 16)  # of a side's logarithm in decoding (Detectron)


def around_origin(sizes: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """Anchors (sizes x ratios, 4) around (0, 0): of area size^2, height / width being the ratio; sizes first."""
    found = []
    for size in sizes:
        for ratio in ratios:
            width, height = size / math.sqrt(ratio), size * math.sqrt(ratio)
            found.append([-width / 2, -height / 2, width / 2, height / 2])
    return torch.tensor(found)


def place(cells: Sequence[Tensor], maps: Sequence[Tensor], strides: Sequence[int], offset: float) -> list[Tensor]:
    """Anchors (h w A, 4) of each level, row by row.

    Args:
        cells: (A, 4) of each level, around (0, 0).
        maps: (..., h, w) of each level.
        strides: px.
        offset: of the first anchor's centre from the corner, in strides: 0.5 is the middle of its cell.
    """
    found = []
    for cell, level, stride in zip(cells, maps, strides, strict=True):
        height, width = level.shape[-2:]
        x = (torch.arange(width, device=level.device) + offset) * stride
        y = (torch.arange(height, device=level.device) + offset) * stride
        shifts = torch.stack((x.repeat(height), y.repeat_interleave(width)), dim=1).repeat(1, 2)
        found.append((shifts[:, None] + cell.to(level.device)).flatten(0, 1))
    return found


def flatten(maps: Sequence[Tensor], values: int) -> Tensor:
    """Maps (B, A values, h, w) of all levels to (B, L, values), in the order of `place`."""
    return torch.cat([one.permute(0, 2, 3, 1).reshape(len(one), -1, values) for one in maps], dim=1)


def _centres(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]


def encode(boxes: Tensor, anchors: Tensor, weights: tuple[float, float]) -> Tensor:
    """Boxes (..., 4) relative to anchors (..., 4): shifts of the centre in sides, and logarithms of the sides' ratios, each
    times its weight (Faster R-CNN paper, equation 2)."""
    (centre, side), (own, length) = _centres(boxes), _centres(anchors)
    return torch.cat((weights[0] * (centre - own) / length, weights[1] * (side / length).log()), dim=-1)


def decode(codes: Tensor, anchors: Tensor, weights: tuple[float, float]) -> Tensor:
    """What `encode` has encoded."""
    own, length = _centres(anchors)
    centre = own + codes[..., :2] / weights[0] * length
    side = length * (codes[..., 2:] / weights[1]).clamp(max=LARGEST_STEP).exp()
    return torch.cat((centre - side / 2, centre + side / 2), dim=-1)


def match(anchors: Tensor, boxes: Tensor, positive: float, negative: float, lowest: float) -> Tensor:
    """The box of each anchor.

    An anchor has the box that it overlaps best if that is by at least `positive` (IoU); it has none below `negative`, and
    between the two it does not count. Each box also has the anchor that overlaps it best, if by more than `lowest`.

    Args:
        anchors: (L, 4).
        boxes: (N, 4); those without area match nothing.

    Returns:
        (L,) index of the box, `NEGATIVE` or `IGNORED`.
    """
    if not len(boxes):
        return torch.full((len(anchors),), NEGATIVE, device=anchors.device)
    iou = box_iou(anchors, boxes)
    best, found = iou.max(dim=1)
    found = torch.where(best >= positive, found, torch.where(best < negative, NEGATIVE, IGNORED))
    own = iou.argmax(dim=0)
    reached = iou[own, torch.arange(len(boxes), device=boxes.device)] > lowest
    for box in reached.nonzero().flatten().tolist():  # one by one: of two boxes with one best anchor the later has it
        found[own[box]] = box
    return found
