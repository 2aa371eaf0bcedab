"""Convolutions with BatchNorm.

BatchNorm that does not learn, because it is frozen or the model is in evaluation, is folded into the convolution in
front of it where the map has more elements than the weights: one multiplication of the weights instead of a pass over the
activations, exact but for rounding.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import FrozenBatchNorm2d, deform_conv2d


def is_norm(module: nn.Module) -> bool:
    """A normalisation layer: PyTorch's, or one of timm's own (RmsNorm, BatchNormAct2d, ...), which have its word in their
    name."""
    return "norm" in type(module).__name__.lower() and bool(list(module.parameters(recurse=False)))


class DeformableConv(nn.Conv2d):
    """A 3x3 convolution whose nine samples lie where the map itself says, and count as much (Zhu et al., "Deformable ConvNets
    v2", CVPR 2019). It starts as the plain convolution with half of its output.

    Args:
        in_channels: of the map.
        channels: of the result.
        stride: of the result.
        modulated: without, samples count alike (Dai et al., "Deformable convolutional networks", ICCV 2017).

    Attributes:
        offsets: 27 numbers a place: y and x of each sample's shift, in cells, then the logits of their weights; 18 without.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1, modulated: bool = True) -> None:
        super().__init__(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.offsets = nn.Conv2d(in_channels, 27 if modulated else 18, 3, stride=stride, padding=1)
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.offsets.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w), in the type of `x`; computed in float32."""
        with torch.autocast(x.device.type, enabled=False):
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            # with its own stride, which may be changed after construction
            said = functional.conv2d(wide, self.offsets.weight, self.offsets.bias, self.stride, self.padding)
            shifts = said[:, :18]
            weights = said[:, 18:].sigmoid() if said.shape[1] > 18 else None
            found = deform_conv2d(
                wide, shifts, self.weight, self.bias, self.stride, self.padding, self.dilation, mask=weights
            )
        return found.to(x.dtype)


def conv_norm(conv: nn.Conv2d, norm: nn.Module, x: Tensor) -> Tensor:
    """`norm(conv(x))`, in one convolution when the statistics of `norm` are fixed and that is cheaper. Differentiable."""
    if isinstance(conv, DeformableConv) or not isinstance(norm, (nn.BatchNorm2d, FrozenBatchNorm2d)):
        return norm(conv(x))
    if isinstance(norm, nn.BatchNorm2d) and (norm.training or norm.running_var is None):
        return norm(conv(x))
    cells = x.shape[0] * x.shape[2] * x.shape[3] // (conv.stride[0] * conv.stride[1])
    if torch.compiler.is_exporting() or cells * conv.out_channels < conv.weight.numel():
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
