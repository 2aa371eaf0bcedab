"""Regions of interest of a pyramid: what Mask R-CNN, MS R-CNN, RetinaMask and CenterMask share.

Boxes are (left, top, right, bottom) in px; M regions of all images of a batch, in the order of the images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import roi_align

from comics.detectors.base import Target, at_least_float32
from comics.ranks import mean_over_ranks, world

MASK_SIDE = 28  # of a predicted mask


def levels_by_area(boxes: Tensor, finest: int, coarsest: int) -> Tensor:
    """floor(4 + log2(sqrt(w h) / 224)), between `finest` and `coarsest` (FPN paper, equation 1): (M,) int64."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    level = (4 + (sides.prod(dim=1).sqrt() / 224 + 1e-8).log2()).floor()
    return level.clamp(min=finest, max=coarsest).long()


class PyramidRoIAlign(nn.Module):
    """RoIAlign (He et al., ICCV 2017) of each region on the pyramid level that suits it.

    Args:
        size: side of the result.
        strides: of the levels that regions come from, px, powers of two.
        samples: a side of each bin; 0 takes as many as the bin has cells (detectron2).
        aligned: without the half-pixel shift of RoIAlign's first version.
    """

    def __init__(self, size: int, strides: Sequence[int], samples: int = 0, aligned: bool = True) -> None:
        super().__init__()
        self.size, self.strides, self.samples, self.aligned = size, tuple(strides), samples, aligned

    @property
    def finest(self) -> int:
        """The number of the first level: 3 for P3."""
        return self.strides[0].bit_length() - 1

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor], levels: Tensor | None = None) -> Tensor:
        """Pooled features (M, C, size, size), float32.

        Args:
            features: maps (B, C, h, w); those beyond the levels of `strides` are not read.
            boxes: (N, 4) of each image.
            levels: (M,) of the regions; by `levels_by_area` without.
        """
        rois = with_images(boxes)
        if levels is None:
            levels = levels_by_area(rois[:, 1:], self.finest, self.finest + len(self.strides) - 1)
        maps = [at_least_float32(one) for one in features[: len(self.strides)]]
        pooled = maps[0].new_zeros(len(rois), maps[0].shape[1], self.size, self.size)
        with torch.autocast(maps[0].device.type, enabled=False):
            for number, (one, stride) in enumerate(zip(maps, self.strides, strict=True), self.finest):
                chosen = torch.where(levels == number)[0]
                found = roi_align(one, rois[chosen], self.size, 1 / stride, self.samples, self.aligned)
                pooled = pooled.index_put((chosen,), found)
        return pooled


def with_images(boxes: Sequence[Tensor]) -> Tensor:
    """Boxes (N, 4) of each image as (M, 5), the image's index in front."""
    numbers = [one.new_full((len(one), 1), float(image)) for image, one in enumerate(boxes)]
    return torch.cat([torch.cat((number, one), dim=1) for number, one in zip(numbers, boxes, strict=True)])


def box_mask_targets(
    targets: Sequence[Target], boxes: Sequence[Tensor], faces: Sequence[Tensor], size: int, aligned: bool = True
) -> Tensor:
    """The true masks in the frames of regions: (M, size, size) float32, 0 or 1.

    Args:
        targets: of each image; `masks` is read.
        boxes: (N, 4) of each image.
        faces: (N,) index into the image's masks of each region.
        size: side of the result.
        aligned: as for `PyramidRoIAlign`.
    """
    crops = []
    for target, one, face in zip(targets, boxes, faces, strict=True):
        rois = torch.cat((face[:, None].to(one.dtype), one), dim=1)
        with torch.autocast(one.device.type, enabled=False):
            crops.append(roi_align(target["masks"][:, None].to(one.dtype), rois, size, 1.0, 0, aligned).squeeze(1))
    return (torch.cat(crops) >= 0.5).float()


def class_masks(logits: Tensor, labels: Tensor) -> Tensor:
    """The map of its own class of each region, (M, S, S), of maps for all classes (M, classes, S, S)."""
    return logits[torch.arange(len(labels), device=labels.device), labels]


def mask_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Mean binary cross-entropy of masks (M, S, S); 0 when there are none."""
    if not len(wanted):
        return logits.sum() * 0
    return functional.binary_cross_entropy_with_logits(logits.float(), wanted)


def resized(maps: Tensor, size: int) -> Tensor:
    """Maps (M, C, S, S), bilinearly to (M, C, size, size); there may be none."""
    if not len(maps):
        return maps.new_zeros(0, maps.shape[1], size, size)
    if maps.shape[-1] == size:
        return maps
    return functional.interpolate(maps, size=(size, size), mode="bilinear", align_corners=False)


class MaskIoUHead(nn.Module):
    """How well a predicted mask covers its face, class by class (MS R-CNN, Huang et al., CVPR 2019, section 3.3).

    Args:
        in_channels: of the pooled features.
        width: of the convolutions (256).
        hidden: of the two linear layers (1024).
        classes: outputs.
        size: side of the pooled features, half of the masks'.
    """

    def __init__(self, in_channels: int, width: int, hidden: int, classes: int, size: int = MASK_SIDE // 2) -> None:
        super().__init__()
        widths = [in_channels + 1, width, width, width]
        self.convs = nn.ModuleList(
            nn.Conv2d(inputs, width, 3, stride=1 + (number == 3), padding=1) for number, inputs in enumerate(widths)
        )
        self.linears = nn.ModuleList([nn.Linear(width * math.ceil(size / 2) ** 2, hidden), nn.Linear(hidden, hidden)])
        self.iou = nn.Linear(hidden, classes)
        for layer in self.convs:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        for layer in self.linears:
            nn.init.kaiming_uniform_(layer.weight, a=1)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.iou.weight, std=0.01)
        nn.init.zeros_(self.iou.bias)

    def forward(self, features: Tensor, masks: Tensor) -> Tensor:
        """IoUs (M, classes), float32, from features (M, C, s, s) and mask probabilities (M, 2 s, 2 s)."""
        x = torch.cat((features, functional.max_pool2d(masks[:, None], 2).to(features.dtype)), dim=1)
        for conv in self.convs:
            x = functional.relu(conv(x))
        x = x.flatten(1)
        for linear in self.linears:
            x = functional.relu(linear(x))
        return self.iou(x).float()


def shares_inside(targets: Sequence[Target], boxes: Sequence[Tensor], faces: Sequence[Tensor]) -> Tensor:
    """How much of its face's mask lies in each region: (M,) between 0 and 1. Arguments as for `box_mask_targets`."""
    shares = []
    for target, one, face in zip(targets, boxes, faces, strict=True):
        masks = target["masks"]
        count, height, width = masks.shape
        table = functional.pad(masks.to(torch.float32).cumsum(1).cumsum(2), (1, 0, 1, 0))  # sums over corners
        left, top, right, bottom = (one - 0.5).ceil().long().unbind(1)  # pixels whose centres are inside
        left, right = left.clamp(0, width), right.clamp(0, width)
        top, bottom = top.clamp(0, height), bottom.clamp(0, height)
        inside = (
            table[face, bottom, right] - table[face, top, right] - table[face, bottom, left] + table[face, top, left]
        )
        shares.append(inside / table[face, -1, -1].clamp(min=1) if count else one.new_zeros(len(one)))
    return torch.cat(shares)


def mask_iou_targets(probabilities: Tensor, wanted: Tensor, shares: Tensor) -> Tensor:
    """IoU of predicted masks with their whole faces, also with what lies outside of the regions (MS R-CNN, section 3.3).

    Args:
        probabilities: (M, S, S); a cell above 0.5 belongs to the prediction.
        wanted: (M, S, S) of 0 and 1, the part of the face inside of the region.
        shares: (M,) of the face that lies in the region.
    """
    predicted = (probabilities > 0.5).float()
    overlap = (predicted * wanted).sum(dim=(1, 2))
    whole = wanted.sum(dim=(1, 2)) / shares.clamp(min=1e-10)
    return overlap / (predicted.sum(dim=(1, 2)) + whole - overlap).clamp(min=1)


def mask_iou_loss(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Half the mean squared error of IoUs (M,), over those whose target is not 0; 0 when there are none."""
    some = wanted > 0
    count = mean_over_ranks(some.sum().float()).clamp(min=1 / world())
    return 0.5 * (some * (at_least_float32(predicted) - wanted).square()).sum() / count
