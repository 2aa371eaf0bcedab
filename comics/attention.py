"""Frequency enhanced attention (section VI, figure 7): high frequencies tell where the features matter.

SRM filters (Fridrich and Kodovsky, "Rich Models for Steganalysis", TIFS 2012) on the image and on the features, two
convolutions with BatchNorm and ReLU, and a spatial attention (Woo et al., CBAM, ECCV 2018) whose map is multiplied into
the output of the extractor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, batch_norm, conv2d, interpolate, pad
from torch.utils.checkpoint import checkpoint

from comics.padding import Size, blank, extend
from comics.params import AttentionParams

_FIRST = [[0, 0, 0, 0, 0], [0, -1, 2, -1, 0], [0, 2, -4, 2, 0], [0, -1, 2, -1, 0], [0, 0, 0, 0, 0]]
_SECOND = [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]]
_THIRD = [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 1, -2, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]

RESIDUAL_LIMIT = 3.0
"""Residuals are truncated to +-3 grey levels, as in the rich models."""


def srm_filters() -> Tensor:
    """The three residual filters of size 5, each divided by its largest absolute value: (3, 5, 5).

    Each sums to 0, so that flat regions give nothing.
    """
    kernels = [torch.tensor(kernel, dtype=torch.float32) for kernel in (_FIRST, _SECOND, _THIRD)]
    return torch.stack([kernel / kernel.abs().max() for kernel in kernels])


def _filtered(x: Tensor, kernel: Tensor, groups: int = 1) -> Tensor:
    """Correlation of the same size; edges are repeated, so that they give no residuals of their own."""
    margin = kernel.shape[-1] // 2
    return conv2d(pad(x, [margin] * 4, mode="replicate"), kernel.to(x.dtype), groups=groups)


class ImageResiduals(nn.Module):
    """SRM residuals of an image: (B, 3, H, W) in [0, 1] to (B, 3, H, W), in grey levels, truncated, divided by the limit.

    One map a filter, the mean over the colours; an image's last row and column are repeated and its padding is 0, so that its
    end is no residual. Always in float32: bfloat16 rounds grey levels above 128 to whole ones, and
    residuals are of that size.
    """

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        filters = srm_filters()
        self.register_buffer("kernel", filters[:, None], persistent=False)

    def forward(self, images: Tensor, sizes: Sequence[Size] | None = None) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            # filters are linear: the mean over the colours may come first
            grey = extend(images.mean(dim=1, keepdim=True), sizes)
            return blank((_filtered(grey, self.kernel) * (255 / RESIDUAL_LIMIT)).clamp(-1, 1), sizes)


class FeatureResiduals(nn.Module):
    """SRM residuals of features, depthwise: channel c gets filter c modulo 3; (B, C, H, W) to (B, C, H, W).

    Inside of the images alone, as `ImageResiduals`.
    """

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        filters = srm_filters()
        self.register_buffer("kernel", filters[torch.arange(channels) % len(filters)][:, None], persistent=False)

    def forward(self, features: Tensor, sizes: Sequence[Size] | None = None, stride: int = 1) -> Tensor:
        found = _filtered(extend(features, sizes, stride), self.kernel, groups=features.shape[1])
        return blank(found, sizes, stride)


class SpatialAttention(nn.Module):
    """CBAM's spatial attention: mean and maximum over channels, a 7 x 7 convolution, a sigmoid; (B, C, H, W) to (B, 1, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, features: Tensor) -> Tensor:
        pooled = torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], dim=1)
        return torch.sigmoid(self.conv(pooled))


class _BatchNorm(nn.BatchNorm2d):
    """BatchNorm that falls back on its running statistics for a map of one cell in a batch of one image, and that can
    be told not to update them."""

    updates = True

    def forward(self, x: Tensor) -> Tensor:
        batch_statistics = self.training and x.numel() > x.shape[1]
        momentum = self.momentum if self.updates and self.momentum is not None else 0.0
        return batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, batch_statistics, momentum, self.eps
        )


@contextmanager
def _recomputing(module: nn.Module) -> Iterator[None]:
    """While a forward pass is repeated for the backward pass: running statistics have seen the batch already."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    for norm in norms:
        norm.updates = False
    try:
        yield
    finally:
        for norm in norms:
            norm.updates = True


class _Block(nn.Module):
    """Convolution, BatchNorm and ReLU; the convolution is shared by `levels` kinds of input, which differ in statistics and
    have a BatchNorm each: one for all would learn a mixture that fits none of them in evaluation."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, levels: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norms = nn.ModuleList(_BatchNorm(outputs) for _ in range(levels))

    def forward(self, x: Tensor, level: int = 0) -> Tensor:
        return torch.relu_(self.norms[level](self.conv(x)))


def pooled_to(x: Tensor, height: int, width: int) -> Tensor:
    """Adaptive average pooling of (B, C, H, W) to (B, C, height, width)."""
    if not torch.compiler.is_exporting():
        return adaptive_avg_pool2d(x, (height, width))
    # ONNX has no such operator of dynamic size: the same sums as two products of matrices
    return _averaging(x.shape[2], height, x.device) @ x @ _averaging(x.shape[3], width, x.device).T


def _averaging(cells: int, pooled: int, device: torch.device) -> Tensor:
    """(pooled, cells): row i averages the cells from floor(i cells / pooled) to below ceil((i + 1) cells / pooled)."""
    row = torch.arange(pooled, device=device)
    first, end = (row * cells) // pooled, ((row + 1) * cells + pooled - 1) // pooled
    place = torch.arange(cells, device=device)
    inside = ((place >= first[:, None]) & (place < end[:, None])).float()
    return inside / inside.sum(dim=1, keepdim=True)


class FrequencyAttention(nn.Module):
    """The attention branch, for all levels of a pyramid.

    The image's residuals go through the two convolutions once, each of stride 2, with average pooling between them down to
    the finest level's stride. From level to level they are pooled to its size, joined with the residuals of its features, mixed,
    and turned into one attention map.

    Args:
        channels: of the pyramid maps.
        strides: theirs, px, finest first.
        params: widths of the two convolutions, what the filters look at, and whether the identity is added to the product.

    Attributes:
        of_normalised: whether `forward` takes images as the extractor does, instead of in [0, 1].
    """

    of_normalised = False

    def __init__(self, channels: int, strides: Sequence[int], params: AttentionParams) -> None:
        super().__init__()
        first, second = params.channels
        levels = len(strides)
        self.identity = params.identity
        self.strides = tuple(strides)
        self.image_residuals = ImageResiduals()
        self.looks_at_features = params.inputs == "image_and_features"
        self.image_branch = nn.Sequential(
            _Block(3, first, stride=2), nn.AvgPool2d(max(1, strides[0] // 4)), _Block(first, second, stride=2)
        )
        if self.looks_at_features:
            self.feature_residuals = FeatureResiduals(channels)
            self.feature_branch = nn.ModuleList(
                [_Block(channels, first, levels=levels), _Block(first, second, levels=levels)]
            )
        self.attention = SpatialAttention()
        # maps start near 1 - multiplication then leaves the extractor's output nearly as it is
        assert self.attention.conv.bias is not None
        nn.init.constant_(self.attention.conv.bias, 3.0)

    def forward(self, images: Tensor, features: list[Tensor], sizes: Sequence[Size] | None = None) -> list[Tensor]:
        """Pyramid maps with the attention multiplied in.

        Args:
            images: (B, 3, H, W) RGB in [0, 1], before normalisation.
            features: pyramid maps (B, C, h, w).
            sizes: (height, width) of the images before padding.

        Returns:
            Maps of the same shapes.
        """
        residuals = self.image_residuals(images, sizes)
        if torch.is_grad_enabled():
            # its maps are larger than any level's: they are made again in the backward pass, which is cheaper than to keep them
            frequencies = checkpoint(
                self.image_branch,
                residuals,
                use_reentrant=False,
                preserve_rng_state=False,
                context_fn=lambda: (nullcontext(), _recomputing(self.image_branch)),
            )
        else:
            frequencies = self.image_branch(residuals)
        result = []
        for index, (level, stride) in enumerate(zip(features, self.strides, strict=True)):
            frequencies = pooled_to(frequencies, level.shape[2], level.shape[3])  # from the finer level's
            seen = frequencies
            if self.looks_at_features:
                found = self.feature_residuals(level, sizes, stride)
                for block in self.feature_branch:
                    found = block(found, index)
                seen = frequencies + found
            attention = self.attention(seen)
            result.append(level * (1 + attention) if self.identity else level * attention)
        return result


class CodeAttention(nn.Module):
    """The attention of the COMICS authors' code (docs/fidelity.md), for weights that were trained with it.

    One map for all levels, of the image alone: SRM residuals summed over the colours, truncated; two convolutions without
    padding, the first of stride 2; a 7 x 7 convolution without offset. Features become ``features * (1 + map)``, and the three
    finest levels go through BatchNorm and ReLU afterwards.

    Args:
        channels: of the pyramid maps.
        levels: of the pyramid.
        params: widths of the two convolutions.
    """

    of_normalised = True
    NORMALISED_LEVELS = 3

    kernel: Tensor

    def __init__(self, channels: int, levels: int, params: AttentionParams) -> None:
        super().__init__()
        first, second = params.channels
        self.register_buffer("kernel", srm_filters()[:, None], persistent=False)
        self.branch = nn.Sequential(
            nn.Conv2d(3, first, 3, stride=2, bias=False),
            _BatchNorm(first),
            nn.ReLU(inplace=True),
            nn.Conv2d(first, second, 3, bias=False),
            _BatchNorm(second),
            nn.ReLU(inplace=True),
        )
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.post = nn.ModuleList(_BatchNorm(channels) for _ in range(min(levels, self.NORMALISED_LEVELS)))

    def forward(self, normalised: Tensor, features: list[Tensor], sizes: Sequence[Size] | None = None) -> list[Tensor]:
        """Pyramid maps with the attention in.

        Args:
            normalised: images (B, 3, H, W) as the extractor takes them, 0 outside of their size.
            features: pyramid maps (B, C, h, w).
            sizes: not needed.

        Returns:
            Maps of the same shapes.
        """
        with torch.autocast(normalised.device.type, enabled=False):
            colours = normalised.sum(dim=1, keepdim=True)
            kernel = self.kernel.to(colours.dtype)
            residuals = conv2d(colours, kernel, padding=2).clamp(-RESIDUAL_LIMIT, RESIDUAL_LIMIT)
        seen = self.branch(residuals)
        attention = torch.sigmoid(
            self.spatial(torch.cat([seen.mean(1, keepdim=True), seen.amax(1, keepdim=True)], dim=1))
        )
        result = []
        for index, level in enumerate(features):
            map_ = interpolate(attention, size=level.shape[-2:], mode="bilinear", align_corners=True)
            attended = level * (1 + map_)
            result.append(torch.relu(self.post[index](attended)) if index < len(self.post) else attended)
        return result


def build_attention(
    channels: int, strides: Sequence[int], params: AttentionParams
) -> FrequencyAttention | CodeAttention:
    """The attention that `params` ask for, for pyramid maps of `channels` at `strides` px."""
    if params.design == "code":
        return CodeAttention(channels, len(strides), params)
    return FrequencyAttention(channels, strides, params)
