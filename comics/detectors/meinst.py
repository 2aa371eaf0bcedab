"""MEInst (Zhang et al., CVPR 2020): FCOS boxes, and masks as codes of a few numbers that are regressed like boxes.

The code is fixed before training: principal components of the training masks (`comics.detectors.mask_codec`), which a
pipeline step of its own fits. The codec is kept in the detector's buffers, so a checkpoint is complete.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from comics.detectors.backbone import Extractor
from comics.detectors.backbone.layers import DeformableConv
from comics.detectors.base import Size, Target, register
from comics.detectors.fcos import (
    Candidates,
    FCOSDetector,
    FCOSOutputs,
    Grid,
    Matches,
    PointConv,
    crop_masks,
    tower,
)
from comics.detectors.mask_codec import FILE, INSIDE_RANGE, SIDE, load
from comics.detectors.soft_masks import PastedMasks
from comics.params import ModelParams
from comics.params.detectors import DetectorSettings


class Settings(DetectorSettings):
    """Settings of MEInst."""

    prepared: ClassVar = ("mask_codec.npz",)

    mask_code: int = Field(60, ge=1, le=784)
    """Numbers that stand for a mask."""
    deformable: Literal["none", "v1", "v2"] = "none"
    """Whether the last convolution of each tower is deformable, as in the published checkpoints; v2 also weighs its samples."""


@dataclass
class MEInstOutputs(FCOSOutputs):
    """`FCOSOutputs` and the last maps (B, C, h, w) of the mask tower, one a level."""

    mask_towers: list[Tensor]


def cosine_basis(side: int, count: int) -> Tensor:
    """The `count` smoothest rows (count, side * side) of the orthonormal two-dimensional cosine transform.

    They take the place of principal components until there are some: the same at every start, and close to what smooth
    masks have.
    """
    frequency, place = torch.arange(side, dtype=torch.float64)[:, None], torch.arange(side, dtype=torch.float64) + 0.5
    rows = torch.cos(math.pi * frequency * place / side) * math.sqrt(2 / side)
    rows[0] /= math.sqrt(2)
    both = torch.einsum("iy,jx->ijyx", rows, rows).reshape(side * side, side * side)
    order = (frequency + frequency.T).flatten().argsort(stable=True)
    return both[order[:count]].float()


@register("meinst", Settings)
class MEInst(FCOSDetector):
    """See the module; the arguments are those of `FCOSDetector` and the length of a code."""

    threshold_on_product = False

    mean: Tensor
    components: Tensor
    variances: Tensor

    def __init__(self, extractor: Extractor, *, code_length: int, deformable: str = "none", **common: Any) -> None:
        super().__init__(extractor, **common)
        self.mask_channels = self.tower_channels
        self.code_length = code_length
        self.mask_tower = tower(self.channels, self.head_channels, self.head_convs)
        self.code = PointConv(self.tower_channels, code_length)
        if deformable != "none" and self.head_convs:
            for layers in (self.head.cls_tower, self.head.bbox_tower, self.mask_tower):
                plain = cast(nn.Conv2d, layers[-3])  # GroupNorm and ReLU follow
                layers[-3] = DeformableConv(plain.in_channels, plain.out_channels, modulated=deformable == "v2")
                nn.init.normal_(layers[-3].weight, std=0.01)  # type: ignore[arg-type]
        self.register_buffer("mean", torch.zeros(SIDE**2))
        self.register_buffer("components", cosine_basis(SIDE, code_length))
        self.register_buffer("variances", torch.full((code_length,), 100.0))

    @classmethod
    def own_sizes(cls, params: ModelParams, settings: Settings) -> dict[str, Any]:
        return {"code_length": settings.mask_code, "deformable": settings.deformable}

    def prepare(self, folder: Path) -> None:
        """Take the codec that `comics data encode-masks` has fitted to the training masks in `folder`."""
        codec = load(folder / FILE)
        self.mean.copy_(torch.from_numpy(codec.mean))
        self.components.copy_(torch.from_numpy(codec.components[: self.code_length]))
        self.variances.copy_(torch.from_numpy(codec.variances[: self.code_length]))

    def encode(self, masks: Tensor) -> Tensor:
        """Masks (N, 28, 28), 0 or 1, to codes (N, code_length); cells get random probabilities as in fitting."""
        low, high = INSIDE_RANGE
        outside = (high * torch.rand_like(masks)).clamp(min=low).flatten(1).logit()
        logits = torch.where(masks.flatten(1) > 0.5, -outside, outside)
        with torch.autocast(masks.device.type, enabled=False):
            return (logits - self.mean) @ self.components.T / self.variances.sqrt()

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (N, code_length) to probabilities (N, 28, 28)."""
        with torch.autocast(codes.device.type, enabled=False):
            logits = (codes.float() * self.variances.sqrt()) @ self.components + self.mean
        return logits.sigmoid().view(-1, SIDE, SIDE)

    def forward_heads(self, features: list[Tensor]) -> MEInstOutputs:
        return MEInstOutputs(**vars(self.head(features)), mask_towers=[self.mask_tower(level) for level in features])

    def mask_map(self, outputs: MEInstOutputs) -> tuple[Tensor, int]:
        """The mask tower's map at the finest level."""
        return outputs.mask_towers[0], self.strides[0]

    def losses(self, outputs: MEInstOutputs, targets: list[Target], sizes: Sequence[Size]) -> dict[str, Tensor]:
        matches = self.match(outputs, targets)
        return {**self.box_losses(outputs, matches), "mask": self._mask_loss(outputs, targets, matches)}

    def _mask_loss(self, outputs: MEInstOutputs, targets: list[Target], matches: Matches) -> Tensor:
        """Squared error of the codes, weighted by centerness."""
        predicted = self.code.at(outputs.mask_towers, matches.grid, matches.images, matches.locations).float()
        wanted = self.encode(crop_masks(targets, SIDE))[matches.faces]
        error = ((predicted - wanted).square().sum(dim=1) * matches.centerness).sum()
        return error / (matches.weight * self.code_length).clamp(min=1.0)

    def draw(
        self, outputs: MEInstOutputs, grid: Grid, candidates: Sequence[Candidates], sizes: Sequence[Size]
    ) -> list[PastedMasks]:
        found = []
        for image, (one, size) in enumerate(zip(candidates, sizes, strict=True)):
            codes = self.code.at(outputs.mask_towers, grid, torch.full_like(one.locations, image), one.locations)
            found.append(PastedMasks(self.decode(codes), one.boxes, size))
        return found
