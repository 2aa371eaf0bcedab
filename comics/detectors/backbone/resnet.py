"""Torchvision's ResNets under torchvision's names, so that its ImageNet weights load as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops import FrozenBatchNorm2d

from comics.detectors.backbone.layers import DeformableConv, conv_norm
from comics.errors import UserError


def _shortcut(downsample: nn.Module | None, x: Tensor) -> Tensor:
    return x if downsample is None else conv_norm(downsample[0], downsample[1], x)  # type: ignore[index]


class _BasicBlock(BasicBlock):
    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu_(conv_norm(self.conv1, self.bn1, x))
        y = conv_norm(self.conv2, self.bn2, y)
        return functional.relu_(y + _shortcut(self.downsample, x))


class _Bottleneck(Bottleneck):
    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu_(conv_norm(self.conv1, self.bn1, x))
        y = functional.relu_(conv_norm(self.conv2, self.bn2, y))
        y = conv_norm(self.conv3, self.bn3, y)
        return functional.relu_(y + _shortcut(self.downsample, x))


_BODIES: dict[str, tuple[type[BasicBlock | Bottleneck], list[int], Any]] = {
    "resnet18": (_BasicBlock, [2, 2, 2, 2], models.ResNet18_Weights.IMAGENET1K_V1),
    "resnet34": (_BasicBlock, [3, 4, 6, 3], models.ResNet34_Weights.IMAGENET1K_V1),
    "resnet50": (_Bottleneck, [3, 4, 6, 3], models.ResNet50_Weights.IMAGENET1K_V1),
    "resnet101": (_Bottleneck, [3, 4, 23, 3], models.ResNet101_Weights.IMAGENET1K_V1),
}
NAMES = tuple(_BODIES)


class ResNetBody(ResNet):
    """ResNet (He et al., CVPR 2016) without its classifier: images to one map for each of `strides`.

    Args:
        name: resnet18, resnet34, resnet50 or resnet101.
        frozen_stages: stages without gradient, counted from the stem (1) over layer1 (2) to layer4 (5); their BatchNorm
            keeps its statistics.
        frozen_batchnorm: BatchNorm as constants throughout.
        width: factor on the channels of every layer, for small networks trained from scratch.
        strides: of the maps that are given out, px: some of 4, 8, 16, 32, in this order.
    """

    def __init__(
        self,
        name: str,
        *,
        frozen_stages: int = 0,
        frozen_batchnorm: bool = False,
        width: float = 1.0,
        strides: Sequence[int] = (8, 16, 32),
    ) -> None:
        block, layers, _ = _BODIES[name]
        norm: Callable[..., nn.Module] = FrozenBatchNorm2d if frozen_batchnorm else nn.BatchNorm2d
        self._width = width
        super().__init__(block, layers, norm_layer=partial(norm, eps=1e-5))
        del self.avgpool, self.fc
        stages = [[self.conv1, self.bn1], [self.layer1], [self.layer2], [self.layer3], [self.layer4]]
        self._frozen = [module for stage in stages[:frozen_stages] for module in stage]
        for module in self._frozen:
            module.requires_grad_(False)
        self.strides = tuple(strides)
        channels = dict(zip((4, 8, 16, 32), (64, 128, 256, 512), strict=True))
        self.out_channels = [self._scaled(channels[stride]) * block.expansion for stride in self.strides]
        # A buffer, so that a checkpoint says how its weights are to be run.
        self.register_buffer("stride_in_1x1", torch.tensor(False))

    def _scaled(self, channels: int) -> int:
        return round(channels * self._width)

    def _make_layer(self, block: Any, planes: int, *args: Any, **kwargs: Any) -> nn.Sequential:
        if self._width != 1 and planes == 64:  # the first stage: torchvision has just made its stem, 64 channels wide
            self.inplanes = self._scaled(64)
            self.conv1 = nn.Conv2d(3, self.inplanes, 7, stride=2, padding=3, bias=False)
            self.bn1 = self._norm_layer(self.inplanes)
        return super()._make_layer(block, self._scaled(planes), *args, **kwargs)

    def place_strides(self, in_1x1: bool) -> None:
        """Let bottlenecks halve the resolution in their first 1x1 convolution (MSRA's ResNet, and all detectron2
        weights that started from it) or in the 3x3 one (torchvision's)."""
        self.stride_in_1x1.fill_(in_1x1)
        for stage in (self.layer2, self.layer3, self.layer4):
            if isinstance(stage[0], Bottleneck):
                first, second = stage[0].conv1, stage[0].conv2
                first.stride, second.stride = ((2, 2), (1, 1)) if in_1x1 else ((1, 1), (2, 2))

    def deform(self, interval: int) -> None:
        """Make the last 3x3 convolution of every `interval`-th block of C3 to C5 deformable, from the first on (YOLACT++, section
        6.2), with the weights it has."""
        for stage in (self.layer2, self.layer3, self.layer4):
            for block in list(stage)[::interval]:
                plain = block.conv2
                deformable = DeformableConv(plain.in_channels, plain.out_channels, plain.stride[0])
                deformable.weight = plain.weight
                block.conv2 = deformable

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)  # type: ignore[arg-type]
        self.place_strides(bool(self.stride_in_1x1))

    def train(self, mode: bool = True) -> ResNetBody:
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def depths(self) -> dict[str, int]:
        """How deep each parameter stands: 0 for the stem, then one more a block."""
        found = {}
        blocks = [block for stage in (self.layer1, self.layer2, self.layer3, self.layer4) for block in stage]
        depth = {id(parameter): number for number, block in enumerate(blocks, 1) for parameter in block.parameters()}
        for name, parameter in self.named_parameters():
            found[name] = depth.get(id(parameter), 0)
        return found

    def undecayed(self) -> set[str]:
        """Parameters that are spared from weight decay beside those of normalisation layers: none."""
        return set()

    def forward(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        x = self.maxpool(functional.relu_(conv_norm(self.conv1, self.bn1, x)))
        maps = []
        for stride, stage in zip((4, 8, 16, 32), (self.layer1, self.layer2, self.layer3, self.layer4), strict=True):
            x = stage(x)
            if stride in self.strides:
                maps.append(x)
        return maps


def imagenet_weights(name: str) -> Mapping[str, Tensor]:
    """Torchvision's ImageNet weights of a backbone, from its cache or the network.

    Raises:
        UserError: they cannot be had.
    """
    weights = _BODIES[name][2]
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"model.weights: imagenet weights of {name} could not be fetched ({error}).",
            f"Fetch {weights.url} elsewhere, copy it here, and write its path as `weights:` under `models:` in "
            "params.yaml; or write `weights: none` to train from scratch.",
        ) from None
