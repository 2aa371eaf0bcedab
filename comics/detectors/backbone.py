"""ResNet with a feature pyramid, P3 to P7: the extractor that all detectors share.

BatchNorm that does not learn, because it is frozen or the model is in evaluation, is folded into the convolution in
front of it where the map has more elements than the weights: one multiplication of the weights instead of a pass over the
activations, exact but for rounding.
Module names under `body` are torchvision's, so that its ImageNet weights load as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops import FrozenBatchNorm2d

from comics.detectors.base import at_least_float32
from comics.errors import UserError
from comics.params import ModelParams

STRIDES = (8, 16, 32, 64, 128)  # of P3 to P7, px


def conv_norm(conv: nn.Conv2d, norm: nn.Module, x: Tensor) -> Tensor:
    """`norm(conv(x))`, in one convolution when the statistics of `norm` are fixed and that is cheaper. Differentiable."""
    if not isinstance(norm, (nn.BatchNorm2d, FrozenBatchNorm2d)):
        return norm(conv(x))
    if isinstance(norm, nn.BatchNorm2d) and (norm.training or norm.running_var is None):
        return norm(conv(x))
    cells = x.shape[0] * x.shape[2] * x.shape[3] // (conv.stride[0] * conv.stride[1])
    if cells * conv.out_channels < conv.weight.numel():
        return norm(conv(x))
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = norm.weight * (variance + norm.eps).rsqrt()
    shift = norm.bias - mean * scale
    if conv.bias is not None:
        shift = shift + conv.bias * scale
    weight = conv.weight * scale.view(-1, 1, 1, 1)
    return functional.conv2d(x, weight, shift, conv.stride, conv.padding, conv.dilation, conv.groups)


class ConvNormReLU(nn.Sequential):
    """A 3x3 convolution without bias, BatchNorm and ReLU; children 0, 1 and 2."""

    def __init__(self, in_channels: int, channels: int) -> None:
        conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        nn.init.kaiming_uniform_(conv.weight, a=1)
        super().__init__(conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu_(conv_norm(self[0], self[1], x))  # type: ignore[arg-type]


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


class ResNetBody(ResNet):
    """ResNet (He et al., CVPR 2016) without its classifier: images to C3, C4 and C5 (strides 8, 16, 32).

    Args:
        name: resnet18, resnet34, resnet50 or resnet101.
        frozen_stages: stages without gradient, counted from the stem (1) over layer1 (2) to layer4 (5); their BatchNorm
            keeps its statistics.
        frozen_batchnorm: BatchNorm as constants throughout.
    """

    def __init__(self, name: str, *, frozen_stages: int = 0, frozen_batchnorm: bool = False) -> None:
        block, layers, _ = _BODIES[name]
        norm: Callable[..., nn.Module] = FrozenBatchNorm2d if frozen_batchnorm else nn.BatchNorm2d
        super().__init__(block, layers, norm_layer=partial(norm, eps=1e-5))
        del self.avgpool, self.fc
        stages = [[self.conv1, self.bn1], [self.layer1], [self.layer2], [self.layer3], [self.layer4]]
        self._frozen = [module for stage in stages[:frozen_stages] for module in stage]
        for module in self._frozen:
            module.requires_grad_(False)
        self.out_channels = [width * block.expansion for width in (128, 256, 512)]
        # A buffer, so that a checkpoint says how its weights are to be run.
        self.register_buffer("stride_in_1x1", torch.tensor(False))

    def place_strides(self, in_1x1: bool) -> None:
        """Let bottlenecks halve the resolution in their first 1x1 convolution (MSRA's ResNet, and all detectron2
        weights that started from it) or in the 3x3 one (torchvision's)."""
        self.stride_in_1x1.fill_(in_1x1)
        for stage in (self.layer2, self.layer3, self.layer4):
            if isinstance(stage[0], Bottleneck):
                first, second = stage[0].conv1, stage[0].conv2
                first.stride, second.stride = ((2, 2), (1, 1)) if in_1x1 else ((1, 1), (2, 2))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)  # type: ignore[arg-type]
        self.place_strides(bool(self.stride_in_1x1))

    def train(self, mode: bool = True) -> ResNetBody:
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def forward(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        x = functional.relu_(conv_norm(self.conv1, self.bn1, x))
        c2 = self.layer1(self.maxpool(x))
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return [c3, c4, self.layer4(c4)]


class FeaturePyramid(nn.Module):
    """FPN (Lin et al., CVPR 2017) with P6 and P7 by strided convolutions from P5, as FCOS has it.

    Args:
        in_channels: of C3, C4 and C5.
        channels: of every pyramid map.
    """

    def __init__(self, in_channels: list[int], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        self.p6 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.kaiming_uniform_(conv.weight, a=1)
                nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        inner = [lateral(level) for lateral, level in zip(self.lateral, maps, strict=True)]
        for fine in range(len(inner) - 2, -1, -1):
            inner[fine] = inner[fine] + functional.interpolate(inner[fine + 1], scale_factor=2.0, mode="nearest")
        pyramid = [output(level) for output, level in zip(self.output, inner, strict=True)]
        # on maps of one cell the processor's bf16 weight gradient of these is now and then NaN: float32, they are tiny
        with torch.autocast(pyramid[-1].device.type, enabled=False):
            p6 = self.p6(at_least_float32(pyramid[-1]))
            p7 = self.p7(functional.relu(p6))
        dtype = pyramid[-1].dtype
        return [*pyramid, p6.to(dtype), p7.to(dtype)]


class ResNetFPN(nn.Module):
    """Normalised images (B, 3, H, W), H and W multiples of 32, to P3, P4, P5, P6, P7, each (B, channels, ., .)."""

    def __init__(self, body: ResNetBody, channels: int) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramid(body.out_channels, channels)
        self.channels = channels
        self.strides = STRIDES

    def forward(self, images: Tensor) -> list[Tensor]:
        height, width = images.shape[-2:]
        if height % 32 or width % 32:
            raise ValueError(f"images must be padded to a multiple of 32, not {height} x {width}")
        return self.fpn(self.body(images))


def level_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """Height and width of P3 to P7 for a padded image."""
    return [(math.ceil(height / stride), math.ceil(width / stride)) for stride in STRIDES]


def build_extractor(params: ModelParams) -> ResNetFPN:
    """The extractor that `params` describes, with torchvision's ImageNet weights where it says `weights: imagenet`.

    A file of weights is loaded into the whole detector, by `comics.detectors.build`.

    Raises:
        UserError: the ImageNet weights cannot be had.
    """
    body = ResNetBody(params.backbone, frozen_stages=params.frozen_stages, frozen_batchnorm=params.frozen_batchnorm)
    if params.weights == "imagenet":
        body.load_state_dict(imagenet_weights(params.backbone), strict=False)  # without its classifier
    return ResNetFPN(body, params.fpn_channels)


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
