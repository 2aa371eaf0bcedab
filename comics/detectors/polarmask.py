"""PolarMask (Xie et al., CVPR 2020): FCOS whose locations predict the outline of a mask, as distances along 36 rays.

A location is positive near a face's centre of mass. It predicts classes, the lengths of 36 rays to the outline, ten degrees
apart, how central it is to them, and, as its authors' code has it, the box.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from comics.detectors.backbone import Extractor
from comics.detectors.base import Size, Target, register
from comics.detectors.condinst import mass_centres
from comics.detectors.fcos import (
    BACKGROUND,
    Candidates,
    FCOSDetector,
    FCOSOutputs,
    Grid,
    Scale,
    flatten,
    initialise,
    mean_over_ranks,
    tower,
)
from comics.detectors.soft_masks import OutlinedMasks
from comics.params import InferenceParams
from comics.params.detectors import DetectorSettings

RAYS = 36
SHORTEST = 1e-6  # px, of a ray that meets no mask (authors' code)
CENTERNESS_SHIFT = 0.5  # added to polar centerness in scores, which is low even at the centre (authors' code)
_RAYS_AT_ONCE = 1 << 22  # samples


class Settings(DetectorSettings):
    """Settings of PolarMask: none of its own."""

    published_inference: ClassVar = {"nms_threshold": 0.5}


@dataclass
class PolarMaskOutputs(FCOSOutputs):
    """`FCOSOutputs`, its distances and centerness being polar where the paper's are, and:

    Attributes:
        rays: (B, 36, h, w) a level, px, positive.
    """

    rays: list[Tensor]


def directions(device: torch.device | None = None) -> Tensor:
    """Unit vectors (36, 2), x and y, of the rays: ray k at 10 k degrees from the downward axis towards the right, as in the
    authors' code."""
    angle = torch.arange(RAYS, device=device) * (2 * math.pi / RAYS)
    return torch.stack((angle.sin(), angle.cos()), dim=1)


def largest_parts(masks: Tensor) -> Tensor:
    """Each mask's largest connected part (8 neighbours): (N, H, W) bool.

    A pixel takes the largest number of its row's run, then of its column's, until nothing changes: two or three rounds
    for a face, whatever its size.
    """
    if not masks.any():
        return masks
    count, height, width = masks.shape
    number = torch.arange(1, masks.numel() + 1, device=masks.device).view_as(masks)
    label = torch.where(masks, number, 0)

    def runs(mask: Tensor) -> Tensor:
        """For each pixel the run along the last axis that it is in, numbered through; 0 outside."""
        starts = mask & ~functional.pad(mask, (1, 0))[..., :-1]
        return torch.where(mask, starts.flatten().cumsum(0).view_as(mask), 0)

    along, down = runs(masks), runs(masks.mT.contiguous())
    while True:
        before = label
        for run, turned in ((along, False), (down, True)):
            flat = (label.mT.contiguous() if turned else label).flatten()
            best = torch.zeros(int(run.max()) + 1, dtype=flat.dtype, device=flat.device)
            best = best.scatter_reduce(0, run.flatten(), flat, "amax")
            spread = best[run.flatten()].view_as(run)
            label = torch.where(masks, spread.mT if turned else spread, 0)
        # across corners: the largest of the eight neighbours
        padded = functional.pad(label, (1, 1, 1, 1))
        near = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
        label = torch.where(masks, torch.stack(near).amax(dim=0), 0)
        if torch.equal(label, before):
            break
    # parts are numbered by their largest pixel number: the one that most pixels of a mask share
    kinds, inverse, sizes = label.flatten().unique(return_inverse=True, return_counts=True)
    sizes = torch.where(kinds == 0, 0, sizes)[inverse].view(count, -1)
    best_of = torch.where(label.flatten(1) > 0, sizes * (masks.numel() + 1) + label.flatten(1), 0).amax(dim=1)
    return masks & (sizes * (masks.numel() + 1) + label.flatten(1) == best_of[:, None]).view_as(masks)


def ray_lengths(masks: Tensor, faces: Tensor, points: Tensor) -> Tensor:
    """Lengths of the rays from points to where each leaves its mask for the last time: holes and bays are within.

    Sampled every half pixel; the published ones are read from the outline's pixels within three degrees of the ray.

    Args:
        masks: (N, H, W) bool.
        faces: (P,) index of each point's mask.
        points: (P, 2) px.

    Returns:
        (P, 36) px, at least `SHORTEST`.
    """
    height, width = masks.shape[-2:]
    lengths = points.new_full((len(points), RAYS), SHORTEST)
    if not len(points):
        return lengths
    # a mask's farthest corner bounds the rays
    rows, columns = masks.any(dim=2), masks.any(dim=1)
    y, x = torch.arange(height, device=masks.device), torch.arange(width, device=masks.device)
    low = torch.stack((torch.where(columns, x, width).amin(dim=1), torch.where(rows, y, height).amin(dim=1)), dim=1)
    high = torch.stack((torch.where(columns, x + 1, 0).amax(dim=1), torch.where(rows, y + 1, 0).amax(dim=1)), dim=1)
    reach = torch.maximum(points - low[faces], high[faces] - points).clamp(min=0).norm(dim=1).max()
    steps = torch.arange(0.5, float(reach.clamp(max=height + width)) + 1, 0.5, device=masks.device)
    ways = directions(masks.device)
    for part in torch.arange(len(points), device=masks.device).split(max(1, _RAYS_AT_ONCE // (RAYS * len(steps)))):
        places = points[part, None, None] + ways[:, None] * steps[:, None]  # (p, 36, steps, 2)
        column, row = places.floor().long().unbind(-1)
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        hit = masks[faces[part, None, None], row.clamp(0, height - 1), column.clamp(0, width - 1)] & inside
        lengths[part] = (hit * steps).amax(dim=2).clamp(min=SHORTEST)
    return lengths


def polar_centerness(lengths: Tensor) -> Tensor:
    """sqrt(shortest / longest ray) of rays (P, 36) (equation 3)."""
    return (lengths.amin(dim=1) / lengths.amax(dim=1)).sqrt()


def polar_iou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """log(sum of the longer / sum of the shorter of both) of rays (P, 36), positive (equation 7): (P,)."""
    return (torch.maximum(predicted, target).sum(dim=1) / torch.minimum(predicted, target).sum(dim=1)).log()


def iou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """-log IoU of boxes around one point, distances (P, 4) to left, top, right and bottom: (P,)."""
    shared = torch.minimum(predicted, target)
    intersection = (shared[:, 0] + shared[:, 2]) * (shared[:, 1] + shared[:, 3])
    areas = [(one[:, 0] + one[:, 2]) * (one[:, 1] + one[:, 3]) for one in (predicted, target)]
    return -(intersection / (areas[0] + areas[1] - intersection).clamp(min=1e-6)).clamp(min=1e-6).log()


@register("polarmask", Settings)
class PolarMask(FCOSDetector):
    """See the module; the arguments are those of `FCOSDetector`."""

    threshold_on_product = False
    score_is_root = False

    def __init__(
        self,
        extractor: Extractor,
        *,
        num_classes: int,
        head_channels: int = 256,
        head_convs: int = 4,
        inference: InferenceParams | None = None,
    ) -> None:
        super().__init__(
            extractor,
            num_classes=num_classes,
            head_channels=head_channels,
            head_convs=head_convs,
            inference=inference,
        )
        self.mask_channels = self.tower_channels
        self.mask_tower = tower(self.channels, head_channels, head_convs)
        self.rays = initialise(nn.Conv2d(self.tower_channels, RAYS, 3, padding=1))
        self.ray_scales = nn.ModuleList(Scale() for _ in self.strides)

    def _distances(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Distances in strides to the box's sides, and box towers: exponentials, where FCOS's are rectified."""
        towers = [self.head.bbox_tower(level) for level in features]
        sides = [
            scale(self.head.bbox_pred(level)).float().exp() / stride
            for scale, level, stride in zip(self.head.scales, towers, self.strides, strict=True)
        ]
        return sides, towers

    def forward_heads(self, features: list[Tensor]) -> PolarMaskOutputs:
        distances, _ = self._distances(features)
        class_towers = [self.head.cls_tower(level) for level in features]
        mask_towers = [self.mask_tower(level) for level in features]
        return PolarMaskOutputs(
            logits=[self.head.cls_logits(level) for level in class_towers],
            distances=distances,
            centerness=[self.head.ctrness(level) for level in class_towers],
            towers=mask_towers,
            features=features,
            rays=[
                scale(self.rays(level)).float().exp() for scale, level in zip(self.ray_scales, mask_towers, strict=True)
            ],
        )

    def propose(self, features: list[Tensor]) -> Any:
        return self._level_boxes(self._distances(features)[0])

    def mask_map(self, outputs: PolarMaskOutputs) -> tuple[Tensor, int]:
        """The mask tower's map at the finest level."""
        return outputs.towers[0], self.strides[0]

    # training

    def losses(self, outputs: PolarMaskOutputs, targets: list[Target], sizes: Sequence[Size]) -> dict[str, Tensor]:
        parts = [largest_parts(target["masks"]) for target in targets]
        matches = self.match(
            outputs, targets, mass_centres([{**t, "masks": p} for t, p in zip(targets, parts, strict=True)])
        )
        at = (matches.images, matches.locations)
        wanted = ray_lengths(torch.cat(parts), matches.faces, matches.grid.points[matches.locations])
        central = polar_centerness(wanted)
        weight = mean_over_ranks(central.sum()).clamp(min=1e-6)
        logits = flatten(outputs.logits).float()
        onehot = functional.one_hot(matches.labels + 1, self.num_classes + 1)[..., 1:].to(logits.dtype)
        count = mean_over_ranks((matches.labels != BACKGROUND).sum().float())
        sides = flatten(outputs.distances)[at].float()
        centerness = flatten(outputs.centerness)[at].squeeze(1).float()
        lengths = flatten(outputs.rays)[at].float()
        return {
            "class": sigmoid_focal_loss(logits, onehot, reduction="sum") / (count + len(targets)),
            "box": (iou_loss(sides, matches.distances) * central).sum() / weight,
            "centerness": functional.binary_cross_entropy_with_logits(centerness, central, reduction="sum")
            / count.clamp(min=1),
            "mask": (polar_iou_loss(lengths, wanted) * central).sum() / weight,
        }

    # inference

    def ranking(self, probability: Tensor, centerness: Tensor) -> Tensor:
        """The published product of probability and shifted centerness, divided by its largest value, so that it is at most
        1."""
        return probability * (centerness.sigmoid() + CENTERNESS_SHIFT) / (1 + CENTERNESS_SHIFT)

    def draw(
        self, outputs: PolarMaskOutputs, grid: Grid, candidates: Sequence[Candidates], sizes: Sequence[Size]
    ) -> list[OutlinedMasks]:
        lengths = flatten(outputs.rays).float()
        ways = directions(lengths.device)
        return [
            OutlinedMasks(grid.points[one.locations], lengths[image, one.locations, :, None] * ways, size)
            for image, (one, size) in enumerate(zip(candidates, sizes, strict=True))
        ]
