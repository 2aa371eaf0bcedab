"""Backbones with a feature pyramid: the extractor that all detectors share.

``backbone:`` of params.yaml names the body: a ResNet of torchvision, or ``timm/<model>``. A body gives one map for each stride
that is asked for, and goes through an FPN; a plain vision transformer gives one map, and goes through ViTDet's pyramid.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from comics.detectors.backbone.layers import ConvNormReLU, conv_norm
from comics.detectors.backbone.pyramid import FeaturePyramid, SimpleFeaturePyramid
from comics.detectors.backbone.resnet import ResNetBody, imagenet_weights
from comics.detectors.backbone.timm_body import TimmBody
from comics.params import ModelParams
from comics.params.backbones import TIMM

STRIDES = (8, 16, 32, 64, 128)  # of P3 to P7, px
FINE_STRIDES = (4, 8, 16, 32, 64)  # of P2 to P6, px

Body = ResNetBody | TimmBody

__all__ = [
    "FINE_STRIDES",
    "STRIDES",
    "Body",
    "ConvNormReLU",
    "Extractor",
    "FeaturePyramid",
    "FineExtractor",
    "ResNetBody",
    "SimpleFeaturePyramid",
    "TimmBody",
    "build_body",
    "build_extractor",
    "build_fine_extractor",
    "build_pyramid",
    "conv_norm",
    "level_shapes",
]


class Extractor(nn.Module):
    """Normalised images (B, 3, H, W), H and W multiples of 32, to P3, P4, P5, P6, P7, each (B, channels, ., .)."""

    def __init__(self, body: Body, channels: int) -> None:
        super().__init__()
        self.body = body
        self.fpn = build_pyramid(body, channels, STRIDES[:3])
        self.channels = channels
        self.strides = STRIDES

    def forward(self, images: Tensor) -> list[Tensor]:
        height, width = images.shape[-2:]
        if height % 32 or width % 32:
            raise ValueError(f"images must be padded to a multiple of 32, not {height} x {width}")
        return self.fpn(self.body(images))


class FineExtractor(nn.Module):
    """Normalised images (B, 3, H, W), H and W multiples of 32, to P2 ... P6, each (B, channels, ., .).

    P6 is P5 at every second position, as in the FPN paper.
    """

    def __init__(self, body: Body, channels: int) -> None:
        super().__init__()
        self.body = body
        self.fpn = build_pyramid(body, channels, FINE_STRIDES[:4])
        self.fpn.p6, self.fpn.p7 = nn.MaxPool2d(1, 2), nn.Identity()  # type: ignore[assignment]
        self.channels = channels
        self.strides = FINE_STRIDES

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.fpn(self.body(images))[: len(FINE_STRIDES)]


def level_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """Height and width of P3 to P7 for a padded image."""
    return [(math.ceil(height / stride), math.ceil(width / stride)) for stride in STRIDES]


def build_body(params: ModelParams, strides: tuple[int, ...] = STRIDES[:3]) -> Body:
    """The body that `params` describes, giving maps at `strides` (px), with its ImageNet weights where `weights: imagenet`.

    A file of weights is loaded into the whole detector, by `comics.detectors.build`.

    Raises:
        UserError: the weights cannot be had, or timm's model is none that can serve.
    """
    if params.backbone.startswith(TIMM):
        return TimmBody(
            params.backbone.removeprefix(TIMM),
            weights="imagenet" if params.weights == "imagenet" else "none",
            frozen_stages=params.frozen_stages,
            frozen_norms=params.frozen_batchnorm,
            strides=strides,
        )
    body = ResNetBody(
        params.backbone,
        frozen_stages=params.frozen_stages,
        frozen_batchnorm=params.frozen_batchnorm,
        width=params.backbone_width,
        strides=strides,
    )
    if params.weights == "imagenet":
        body.load_state_dict(imagenet_weights(params.backbone), strict=False)  # without its classifier
    return body


def build_pyramid(body: Body, channels: int, strides: tuple[int, ...]) -> FeaturePyramid | SimpleFeaturePyramid:
    """The pyramid above `body` with its finest levels at `strides`, px: an FPN, or ViTDet's for a plain transformer."""
    if isinstance(body, TimmBody) and body.plain:
        return SimpleFeaturePyramid(body.out_channels[0], channels, body.stride, strides)
    return FeaturePyramid(body.out_channels, channels)


def build_extractor(params: ModelParams) -> Extractor:
    """The extractor that `params` describes (`build_body`), P3 to P7."""
    return Extractor(build_body(params), params.fpn_channels)


def build_fine_extractor(params: ModelParams) -> FineExtractor:
    """The extractor that `params` describes (`build_body`), P2 to P6."""
    return FineExtractor(build_body(params, FINE_STRIDES[:4]), params.fpn_channels)
