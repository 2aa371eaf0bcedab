"""Feature pyramids: the maps of a body to maps of equal width, and coarser ones on top of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.convnext import LayerNorm2d

from comics.detectors.base import at_least_float32


def _init(module: nn.Module) -> None:
    """Uniform by fan-in, zero biases (detectron2's and Caffe2's XavierFill)."""
    for conv in module.modules():
        if isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_uniform_(conv.weight, a=1)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)


class _Coarser(nn.Module):
    """Two levels above the last, by strided convolutions, as FCOS has them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.p6 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def _with_coarser(self, pyramid: list[Tensor]) -> list[Tensor]:
        # on maps of one cell the processor's bf16 weight gradient of these is now and then NaN: float32, they are tiny
        with torch.autocast(pyramid[-1].device.type, enabled=False):
            p6 = self.p6(at_least_float32(pyramid[-1]))
            p7 = self.p7(functional.relu(p6))
        dtype = pyramid[-1].dtype
        return [*pyramid, p6.to(dtype), p7.to(dtype)]


class FeaturePyramid(_Coarser):
    """FPN (Lin et al., CVPR 2017) with P6 and P7 by strided convolutions from P5, as FCOS has it.

    Args:
        in_channels: of C3, C4 and C5.
        channels: of every pyramid map.
    """

    def __init__(self, in_channels: list[int], channels: int) -> None:
        super().__init__(channels)
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        _init(self)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        inner = [lateral(level) for lateral, level in zip(self.lateral, maps, strict=True)]
        for fine in range(len(inner) - 2, -1, -1):
            inner[fine] = inner[fine] + functional.interpolate(inner[fine + 1], scale_factor=2.0, mode="nearest")
        return self._with_coarser([output(level) for output, level in zip(self.output, inner, strict=True)])


class SimpleFeaturePyramid(_Coarser):
    """ViTDet's pyramid (Li et al., "Exploring plain vision transformer backbones for object detection", ECCV 2022, section 3):
    every level from the transformer's last map alone, by transposed convolutions or by pooling; then a 1x1 and a 3x3
    convolution with LayerNorm. P6 and P7 as in `FeaturePyramid`.

    Args:
        in_channels: of the map.
        channels: of every pyramid map.
        stride: of the map, px, a power of two.
        strides: of the levels made from it, px, powers of two.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, strides: Sequence[int]) -> None:
        super().__init__(channels)
        self.levels = nn.ModuleList()
        for wanted in strides:
            layers: list[nn.Module] = []
            width = in_channels
            doublings = int(math.log2(stride / wanted)) if stride > wanted else 0
            for number in range(doublings):
                if number:
                    layers += [LayerNorm2d(width, eps=1e-6), nn.GELU()]
                layers.append(nn.ConvTranspose2d(width, width // 2, 2, stride=2))
                width //= 2
            if wanted > stride:
                layers.append(nn.MaxPool2d(wanted // stride))
            layers += [nn.Conv2d(width, channels, 1, bias=False), LayerNorm2d(channels, eps=1e-6)]
            layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), LayerNorm2d(channels, eps=1e-6)]
            self.levels.append(nn.Sequential(*layers))
        _init(self)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        (last,) = maps
        return self._with_coarser([level(last) for level in self.levels])
