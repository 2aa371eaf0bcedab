"""Grids of cells: what SOLO and SOLOv2 share.

Sections and equations are those of SOLO (Wang, Kong, Shen, Jiang and Li, ECCV 2020).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from comics.detectors.base import LevelProposals, Prediction
from comics.detectors.soft_masks import SoftMasks

SCALE_RANGES = ((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048))  # sqrt(w h) px of the objects of each level
CENTRE = 0.2  # relative size of an object's centre region (SOLO, section 3.3)
DICE_SMOOTH = 1e-3
PROPOSAL_STRIDE = 8  # px a side of the samples from which proposals' boxes are read


def scaled_ranges(scale: float) -> tuple[tuple[float, float], ...]:
    """`SCALE_RANGES` for images that are `scale` times as large as the published ones."""
    return tuple((low * scale, high * scale) for low, high in SCALE_RANGES)


@dataclass
class CellTargets:
    """What the cells of one level of one image should say.

    Attributes:
        labels: class index of each cell, (S * S,), -1 where there is no object.
        cells: indices (P,) of the cells that draw an object; a contested one may stand there twice.
        faces: the object (index into the image's masks) of each of them, (P,).
    """

    labels: Tensor
    cells: Tensor
    faces: Tensor


def assign_cells(
    boxes: Tensor, labels: Tensor, masks: Tensor, grid: int, scale: tuple[float, float], both: bool = False
) -> CellTargets:
    """Objects of one image to the cells of one level.

    An object belongs to the levels whose scale range holds sqrt(w h), and there to the cells that its centre region
    touches: `CENTRE` times its box around its mask's centre of mass, at most 3 x 3 cells. A cell claimed by two objects
    has the class of the later one.

    Args:
        boxes: (N, 4) xyxy px.
        labels: (N,).
        masks: (N, H, W) at the padded size, which the grid divides.
        grid: cells a side.
        scale: least and largest sqrt(w h) of the level, px.
        both: a contested cell draws the masks of both objects, not of the later one alone.
    """
    device = boxes.device
    height, width = masks.shape[-2:]
    owner = torch.full((grid, grid), -1, dtype=torch.int64, device=device)
    sides = boxes[:, 2:] - boxes[:, :2]
    size = sides.prod(dim=1).clamp(min=0).sqrt()
    filled = masks.flatten(1).any(dim=1)
    claims: list[Tensor] = []
    claimants: list[Tensor] = []
    for face in torch.where((size >= scale[0]) & (size <= scale[1]) & filled)[0].tolist():
        mask = masks[face].float()
        mass = mask.sum()
        x = float((mask.sum(dim=0) * torch.arange(width, device=device)).sum() / mass)
        y = float((mask.sum(dim=1) * torch.arange(height, device=device)).sum() / mass)
        half_x, half_y = (0.5 * CENTRE * float(side) for side in sides[face])
        rows = _cells(y, half_y, height, grid)
        columns = _cells(x, half_x, width, grid)
        owner[rows, columns] = face
        claims.append((owner == face).flatten().nonzero().squeeze(1))
        claimants.append(torch.full_like(claims[-1], face))
    cells = torch.where(owner.flatten() >= 0)[0]
    faces = owner.flatten()[cells]
    cell_labels = torch.full((grid * grid,), -1, dtype=torch.int64, device=device)
    cell_labels[cells] = labels[faces]
    if both and claims:
        cells, faces = torch.cat(claims), torch.cat(claimants)
    return CellTargets(cell_labels, cells, faces)


def _cells(centre: float, half: float, length: int, grid: int) -> slice:
    """Cells along one axis that the centre region touches, at most one beside the centre's."""
    middle, low, high = (math.floor(at / length * grid) for at in (centre, centre - half, centre + half))
    return slice(max(0, low, middle - 1), min(grid - 1, high, middle + 1) + 1)


def dice_loss(probabilities: Tensor, targets: Tensor) -> Tensor:
    """1 - 2 sum(p q) / (sum(p^2) + sum(q^2)) of each mask (section 3.4).

    Args:
        probabilities: (N, ...).
        targets: the same shape.

    Returns:
        (N,), between 0 and 1.
    """
    p, q = probabilities.flatten(1), targets.flatten(1).to(probabilities.dtype)
    overlap = (p * q).sum(dim=1)
    return 1 - 2 * overlap / (p.square().sum(dim=1) + q.square().sum(dim=1) + 2 * DICE_SMOOTH)


def suppress_neighbours(scores: Tensor) -> Tensor:
    """Scores (B, K, S, S) with those set to 0 that are not the largest of their 2 x 2 window up and left."""
    largest = functional.max_pool2d(scores, 2, stride=1, padding=1)[:, :, :-1, :-1]
    return scores * (largest == scores)


def coordinates(like: Tensor) -> Tensor:
    """Normalised coordinates (B, 2, H, W) in [-1, 1], x before y, that tell a convolution where it is."""
    height, width = like.shape[-2:]
    y = torch.linspace(-1, 1, height, device=like.device, dtype=like.dtype)
    x = torch.linspace(-1, 1, width, device=like.device, dtype=like.dtype)
    grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)])
    return grid.expand(len(like), -1, -1, -1)


def block(inputs: int, outputs: int, kernel_size: int = 3) -> nn.Sequential:
    """Convolution, group normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, bias=False),
        nn.GroupNorm(math.gcd(32, outputs), outputs),
        nn.ReLU(inplace=True),
    )


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) to (B, C, *size), bilinear."""
    if maps.shape[-2:] == size:
        return maps
    return functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def gaussian_init(module: nn.Module) -> None:
    """Convolutions from N(0, 0.01), as RetinaNet and its successors start their heads."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def boxes_of_masks(masks: Tensor) -> Tensor:
    """The tight boxes (N, 4), xyxy px, float32, of masks (N, H, W); zeros for an empty mask."""
    boxes = []
    for axis in (1, 2):  # over rows: the columns of each mask, then over columns: its rows
        hit = masks.any(dim=axis)
        length = hit.shape[1]
        at = torch.arange(length, device=masks.device)
        low = torch.where(hit, at, length).amin(dim=1) if len(masks) else at.new_zeros(0)
        high = torch.where(hit, at + 1, 0).amax(dim=1) if len(masks) else at.new_zeros(0)
        boxes += [torch.minimum(low, high), high]
    return torch.stack([boxes[0], boxes[2], boxes[1], boxes[3]], dim=1).float()


def seen(soft: SoftMasks, scores: Tensor, labels: Tensor) -> Prediction:
    """The detections of one image with the boxes of their masks; those that have no pixel, for they lay in the padding, are
    dropped."""
    masks = soft.at(soft.size)
    visible = masks.flatten(1).any(dim=1)
    masks = masks[visible]
    return Prediction(
        boxes=boxes_of_masks(masks), scores=scores[visible], labels=labels[visible], masks=masks, soft=soft[visible]
    )


def draw_masks(kernels: Tensor, mask_features: Tensor) -> Tensor:
    """Mask logits (P, H, W), float32, of 1x1 kernels (D, P) on one image's mask features (D, H, W)."""
    drawn = kernels.t() @ mask_features.flatten(1)
    return drawn.float().view(-1, *mask_features.shape[1:])


@torch.no_grad()
def boxes_of_cells(
    features: Sequence[Tensor], kernels: Sequence[Tensor], mask_features: Tensor, stride: int
) -> list[LevelProposals]:
    """SOLOv2's proposals, one a cell: the box of the mask that the cell draws around its centre, or the cell's own square where
    it draws none. (A cell beside all faces may draw one of them, but the pyramid's features there are not the face's.)

    The masks are drawn on the mask features averaged to `PROPOSAL_STRIDE`, which costs a fraction of the full size.
    A cell's location is the pyramid location under its centre.

    Args:
        features: pyramid maps (B, C, h, w) a level.
        kernels: of the cells' 1x1 convolutions (B, D, S, S) a level.
        mask_features: (B, D, H, W).
        stride: px between cells of `mask_features`.
    """
    batch, _, height, width = mask_features.shape
    coarse = functional.avg_pool2d(mask_features, PROPOSAL_STRIDE // stride)
    padded = (height * stride, width * stride)
    found = []
    for maps, level in zip(features, kernels, strict=True):
        squares, locations = cell_geometry(level.shape[-1], padded, (maps.shape[-2], maps.shape[-1]), maps.device)
        centres = (squares[:, :2] + squares[:, 2:]) / 2
        boxes = []
        for image in range(batch):
            drawn = boxes_of_masks(draw_masks(level[image].flatten(1), coarse[image]) > 0) * PROPOSAL_STRIDE
            around = ((drawn[:, :2] <= centres) & (centres < drawn[:, 2:])).all(dim=1)
            boxes.append(torch.where(around[:, None], drawn, squares))
        found.append(LevelProposals(torch.stack(boxes), locations))
    return found


def shrink(masks: Tensor, stride: int) -> Tensor:
    """Masks (N, H, W) at 1/stride of the size, (N, H/stride, W/stride), float32 of 0 and 1."""
    if not len(masks):
        return masks.new_zeros(0, masks.shape[1] // stride, masks.shape[2] // stride, dtype=torch.float32)
    small = functional.interpolate(masks[None].float(), scale_factor=1 / stride, mode="bilinear", align_corners=False)
    return (small[0] >= 0.5).float()


def cell_geometry(
    grid: int, padded: tuple[int, int], level: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Squares (S * S, 4), xyxy px, of a grid over an image of `padded` size, and the level's locations under them."""
    index = torch.arange(grid, device=device)
    row, column = index.repeat_interleave(grid), index.repeat(grid)
    down, right = padded[0] / grid, padded[1] / grid
    squares = torch.stack([column * right, row * down, (column + 1) * right, (row + 1) * down], dim=1).float()
    y = ((row + 0.5) / grid * level[0]).long()
    x = ((column + 0.5) / grid * level[1]).long()
    return squares, y * level[1] + x
