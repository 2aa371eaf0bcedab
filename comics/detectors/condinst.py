"""CondInst (Tian, Shen and Chen, ECCV 2020): FCOS boxes, and for each of them a small mask network of its own.

A controller predicts, at each location, the 169 weights of three 1x1 convolutions. They run on one image-wide map of
8 channels and on the coordinates relative to the location, and draw the mask of that face alone: no boxes are cropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from comics.detectors.backbone import ConvNormReLU, Extractor
from comics.detectors.base import Size, Target, at_least_float32, register
from comics.detectors.fcos import Candidates, FCOSDetector, FCOSOutputs, Grid, Matches, PointConv
from comics.detectors.soft_masks import MapMasks
from comics.params import ModelParams
from comics.params.detectors import DetectorSettings
from comics.ranks import as_of_all

MASK_MAPS = 8  # channels of the image-wide map
HIDDEN = 8  # channels of the dynamic head
TOWER_CONVS = 4  # of the mask branch
MASK_STRIDE = 4  # px between the cells of a mask, in training and before the last enlargement
COORDINATE_SCALES = (64.0, 128.0, 256.0, 512.0, 1024.0)  # px, by which relative coordinates are divided at each level
MAX_POSITIVES = 500  # locations of a batch whose masks are trained

LAYERS = ((HIDDEN, MASK_MAPS + 2), (HIDDEN, HIDDEN), (1, HIDDEN))  # outputs and inputs
PARAMETERS = sum(rows * columns + rows for rows, columns in LAYERS)  # 169


class Settings(DetectorSettings):
    """CondInst has no settings of its own."""


@dataclass
class CondInstOutputs(FCOSOutputs):
    """`FCOSOutputs` and, from the mask branch:

    Attributes:
        mask_maps: (B, 8, H / 8, W / 8).
        mask_features: (B, mask_channels, H / 8, W / 8), what they are drawn from.
    """

    mask_maps: Tensor
    mask_features: Tensor


def enlargement(cells: int, factor: int, device: torch.device) -> Tensor:
    """Matrix (factor * cells, cells) of linear interpolation along one axis.

    Cell j stands for pixel j * factor + factor // 2, the published implementation's convention, so that masks are the
    image's pixels from factor // 2 on, every factor-th.
    """
    place = (torch.arange(factor * cells, device=device) - factor // 2) / factor
    place = place.clamp(min=0, max=cells - 1)
    return (1 - (place[:, None] - torch.arange(cells, device=device)).abs()).clamp(min=0)


def enlarge(x: Tensor, factor: int) -> Tensor:
    """(..., h, w) to (..., factor * h, factor * w), bilinearly."""
    down = enlargement(x.shape[-2], factor, x.device).to(x.dtype)
    across = enlargement(x.shape[-1], factor, x.device).to(x.dtype)
    return down @ x @ across.T


class MaskBranch(nn.Module):
    """P3, P4 and P5, summed at P3's resolution, to the image-wide map.

    Args:
        in_channels: of the pyramid maps.
        channels: width.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.refine = nn.ModuleList(ConvNormReLU(in_channels, channels) for _ in range(3))
        self.tower = nn.Sequential(*(ConvNormReLU(channels, channels) for _ in range(TOWER_CONVS)))
        self.maps = nn.Conv2d(channels, MASK_MAPS, 1)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The map (B, 8, h, w) and the features (B, channels, h, w) behind it."""
        x = self.refine[0](features[0])
        for power, (refine, level) in enumerate(zip(self.refine[1:], features[1:3], strict=True), 1):
            x = x + enlarge(refine(level), 2**power)
        x = self.tower(x)
        return self.maps(x), x


def dynamic_masks(
    maps: Tensor, stride: int, parameters: Tensor, images: Tensor, points: Tensor, scales: Tensor
) -> Tensor:
    """The dynamic head.

    The relative coordinates enter the first convolution only, which is linear: their constant part, the location of the
    instance, goes into its bias, and the rest is shared by all instances of an image.

    Args:
        maps: (B, 8, h, w).
        stride: px between their cells.
        parameters: (P, 169): the weights of the three layers, then their biases.
        images: (P,) image of each instance, ascending.
        points: (P, 2) location of each, px.
        scales: (P,) that its relative coordinates are divided by.

    Returns:
        Logits (P, h, w), float32.
    """
    height, width = maps.shape[-2:]
    parts = at_least_float32(parameters).split(
        [*(rows * columns for rows, columns in LAYERS), *(rows for rows, _ in LAYERS)], dim=1
    )
    weights = [part.view(-1, rows, columns) for part, (rows, columns) in zip(parts[:3], LAYERS, strict=True)]
    biases = [part.unsqueeze(2) for part in parts[3:]]

    y = (torch.arange(height, device=maps.device) + 0.5) * stride
    x = (torch.arange(width, device=maps.device) + 0.5) * stride
    places = torch.stack((x.repeat(height), y.repeat_interleave(width))).to(weights[0].dtype)  # (2, h w)
    toward = weights[0][:, :, :2] / scales[:, None, None]  # relative coordinates are location - place
    first = torch.cat((-toward, weights[0][:, :, 2:]), dim=2)
    shift = biases[0] + toward @ points[:, :, None].to(toward.dtype)
    hidden = []
    for one, filters in zip(
        at_least_float32(maps).flatten(2),
        first.split(torch.bincount(images, minlength=len(maps)).tolist()),
        strict=True,
    ):
        inputs = torch.cat((places, one))
        hidden.append((filters.flatten(0, 1) @ inputs).view(len(filters), HIDDEN, height * width))
    value = functional.relu(torch.cat(hidden) + shift)
    value = functional.relu(weights[1] @ value + biases[1])
    return (weights[2] @ value + biases[2]).view(-1, height, width)


def dice_loss(probabilities: Tensor, targets: Tensor) -> Tensor:
    """1 - 2 |p t| / (|p|^2 + |t|^2) of each instance (Milletari et al., 3DV 2016): (P, h, w) twice to (P,)."""
    probabilities, targets = probabilities.flatten(1), targets.flatten(1)
    overlap = (probabilities * targets).sum(dim=1)
    return 1 - 2 * overlap / (probabilities.square().sum(dim=1) + targets.square().sum(dim=1) + 1e-5)


def mass_centres(targets: Sequence[Target]) -> Tensor:
    """Mean pixel of each mask, x and y, padded: (B, N, 2). A mask without a pixel has the middle of its box."""
    most = max((len(target["labels"]) for target in targets), default=0)
    centres = targets[0]["boxes"].new_zeros(len(targets), most, 2)
    for row, target in zip(centres, targets, strict=True):
        masks, boxes = target["masks"], target["boxes"]
        columns, lines = masks.sum(dim=1).float(), masks.sum(dim=2).float()
        area = columns.sum(dim=1)
        x = (columns * torch.arange(masks.shape[2], device=masks.device)).sum(dim=1) / area.clamp(min=1)
        y = (lines * torch.arange(masks.shape[1], device=masks.device)).sum(dim=1) / area.clamp(min=1)
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        row[: len(masks)] = torch.where((area > 0)[:, None], torch.stack((x, y), dim=1), middle)
    return centres


@register("condinst", Settings)
class CondInst(FCOSDetector):
    """See the module; the arguments are those of `FCOSDetector` and the mask branch's width."""

    def __init__(self, extractor: Extractor, *, mask_channels: int, **common: Any) -> None:
        super().__init__(extractor, **common)
        self.mask_channels = mask_channels
        self.controller = PointConv(self.tower_channels, PARAMETERS)
        self.branch = MaskBranch(self.channels, mask_channels)
        self.maps_stride = self.strides[0]

    @classmethod
    def own_sizes(cls, params: ModelParams, settings: Settings) -> dict[str, Any]:
        return {"mask_channels": params.mask_channels}

    def forward_heads(self, features: list[Tensor]) -> CondInstOutputs:
        maps, mask_features = self.branch(features)
        return CondInstOutputs(**vars(self.head(features)), mask_maps=maps, mask_features=mask_features)

    def mask_map(self, outputs: CondInstOutputs) -> tuple[Tensor, int]:
        return outputs.mask_features, self.maps_stride

    def _masks(self, outputs: CondInstOutputs, grid: Grid, images: Tensor, locations: Tensor) -> Tensor:
        """Mask probabilities (P, H / 4, W / 4) of the instances at `locations`."""
        parameters = self.controller.at(outputs.towers, grid, images, locations)
        scales = grid.points.new_tensor(COORDINATE_SCALES)[grid.levels[locations]]
        with torch.autocast(parameters.device.type, enabled=False):
            logits = dynamic_masks(
                outputs.mask_maps, self.maps_stride, parameters, images, grid.points[locations], scales
            )
            return enlarge(logits, self.maps_stride // MASK_STRIDE).sigmoid()

    def losses(self, outputs: CondInstOutputs, targets: list[Target], sizes: Sequence[Size]) -> dict[str, Tensor]:
        matches = self.match(outputs, targets, mass_centres(targets))
        return {**self.box_losses(outputs, matches), "mask": self._mask_loss(outputs, targets, matches)}

    def _mask_loss(self, outputs: CondInstOutputs, targets: list[Target], matches: Matches) -> Tensor:
        """Mean Dice loss of the masks of the positive locations, or of a random choice of them."""
        images, locations, faces = matches.images, matches.locations, matches.faces
        if len(images) > MAX_POSITIVES:
            chosen = torch.randperm(len(images), device=images.device)[:MAX_POSITIVES].sort().values
            images, locations, faces = images[chosen], locations[chosen], faces[chosen]
        start = MASK_STRIDE // 2
        wanted = torch.cat([target["masks"][:, start::MASK_STRIDE, start::MASK_STRIDE] for target in targets])
        masks = self._masks(outputs, matches.grid, images, locations)
        return as_of_all(dice_loss(masks, wanted[faces].float()).sum() / max(len(images), 1), len(images))

    def draw(
        self, outputs: CondInstOutputs, grid: Grid, candidates: Sequence[Candidates], sizes: Sequence[Size]
    ) -> list[MapMasks]:
        # image by image: these masks are as large as the image
        found = []
        for image, (one, size) in enumerate(zip(candidates, sizes, strict=True)):
            images = torch.full_like(one.locations, image)
            drawn = self._masks(outputs, grid, images, one.locations)
            found.append(MapMasks(drawn, size, MASK_STRIDE, aligned=True))
        return found
