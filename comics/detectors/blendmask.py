"""BlendMask (Chen et al., CVPR 2020): FCOS boxes, and masks blended from a few image-wide bases.

A bottom module draws K bases for the whole image. Each location of the FCOS head predicts K coarse attention maps. The
mask of a box is the sum of the bases cropped to it, weighted by the attention maps, which a softmax over the bases
normalises at every pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from comics.detectors.backbone import ConvNormReLU, Extractor
from comics.detectors.base import Size, Target, crop_features, register, sample_few
from comics.detectors.fcos import (
    Candidates,
    FCOSDetector,
    FCOSOutputs,
    Grid,
    Matches,
    PointConv,
    crop_masks,
)
from comics.detectors.soft_masks import PastedMasks
from comics.params import ModelParams
from comics.params.detectors import DetectorSettings
from comics.ranks import as_of_all

BASES = 4  # K
ATTENTION = 14  # side of an attention map (M)
MASK = 56  # side of a blended mask (R)
TOWER_CONVS = 3  # of the bottom module
SEMANTIC_WEIGHT = 0.3
SEMANTIC_STRIDE = 8
POSITIVES_AT_ONCE = 8
"""Whose masks are blended at a time on a processor: their maps of 4 x 56 x 56 numbers fit its cache."""


class Settings(DetectorSettings):
    """BlendMask has no settings of its own."""


@dataclass
class BlendMaskOutputs(FCOSOutputs):
    """`FCOSOutputs` and, from the bottom module:

    Attributes:
        bases: (B, K, H / 4, W / 4).
        mask_features: (B, mask_channels, H / 4, W / 4), what the bases are drawn from.
    """

    bases: Tensor
    mask_features: Tensor


class BottomModule(nn.Module):
    """Bases from P3, P4 and P5, and the auxiliary semantic segmentation that helps to learn them.

    Args:
        in_channels: of the pyramid maps.
        channels: width.
        num_classes: foreground classes of the semantic segmentation.
    """

    def __init__(self, in_channels: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.refine = nn.ModuleList(ConvNormReLU(in_channels, channels) for _ in range(3))
        self.tower = nn.Sequential(*(ConvNormReLU(channels, channels) for _ in range(TOWER_CONVS)))
        self.fine = ConvNormReLU(channels, channels)
        self.bases = nn.Conv2d(channels, BASES, 1)
        self.semantic = nn.Sequential(
            ConvNormReLU(in_channels, channels),
            ConvNormReLU(channels, channels),
            nn.Conv2d(channels, num_classes + 1, 1),
        )

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Bases (B, K, h, w) and mask features (B, channels, h, w) at half the stride of P3."""
        x = self.refine[0](features[0])
        for refine, level in zip(self.refine[1:], features[1:3], strict=True):
            x = x + _resize(refine(level), x.shape[-2:])
        x = self.tower(x)
        x = self.fine(_resize(x, (2 * x.shape[-2], 2 * x.shape[-1])))
        return self.bases(x), x

    def semantic_loss(self, features: Sequence[Tensor], targets: Sequence[Target]) -> Tensor:
        """Cross-entropy of the class of every eighth pixel, background included."""
        logits = self.semantic(features[0]).float()
        wanted = semantic_targets(targets, SEMANTIC_STRIDE)
        return as_of_all(functional.cross_entropy(logits, wanted), wanted.numel())


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    return functional.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def semantic_targets(targets: Sequence[Target], stride: int) -> Tensor:
    """Class maps (B, H / stride, W / stride) drawn from instance masks: 0 background, class index + 1 elsewhere.

    Where masks overlap the later face wins. Pixels are picked at multiples of `stride`.
    """
    maps = []
    for target in targets:
        masks = target["masks"][:, ::stride, ::stride]
        count = len(masks)
        order = torch.arange(1, count + 1, device=masks.device)
        last = (
            (masks * order[:, None, None]).amax(dim=0) if count else masks.new_zeros(masks.shape[1:], dtype=torch.int64)
        )
        classes = functional.pad(target["labels"] + 1, (1, 0))
        maps.append(classes[last])
    return torch.stack(maps)


def blend(bases: Tensor, attention: Tensor) -> Tensor:
    """Mask logits (N, R, R) from cropped bases (N, K, R, R) and attention maps (N, K * M * M)."""
    count, kinds, side, _ = bases.shape
    maps = attention.to(bases.dtype).view(count, kinds, ATTENTION, ATTENTION)
    weights = functional.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False).softmax(dim=1)
    return (bases * weights).sum(dim=1)


class _BlendedLoss(torch.autograd.Function):
    """``sum_p weight_p * mean over pixels of BCE(blend(crops[face_p], attention_p), wanted[face_p])``, and its gradient.

    The same as the operations one by one, of which each would write P x K x R x R numbers to memory and keep them: here the
    gradient is taken in the forward pass, some positives at a time, so that on a processor they stay in its cache.
    """

    @staticmethod
    def forward(ctx: Any, crops: Tensor, attention: Tensor, faces: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
        count, kinds, side = len(faces), crops.shape[1], crops.shape[-1]
        needs = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        to_crops, to_attention = torch.zeros_like(crops), torch.zeros_like(attention)
        total = crops.new_zeros(())
        eye = torch.eye(ATTENTION, dtype=crops.dtype, device=crops.device)
        resize = functional.interpolate(eye[None], size=side, mode="linear", align_corners=False)[0].T  # (R, M)
        chunk = POSITIVES_AT_ONCE if crops.device.type == "cpu" else max(count, 1)
        with torch.autocast(crops.device.type, enabled=False):
            for start in range(0, count, chunk):
                part = slice(start, start + chunk)
                face = faces[part]
                maps = attention[part].to(crops.dtype).view(-1, kinds, ATTENTION, ATTENTION)
                shares = (resize @ maps @ resize.T).softmax(dim=1)
                bases, truth = crops[face], wanted[face]
                logits = (bases * shares).sum(dim=1)
                weight = weights[part, None, None] / side**2
                losses = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
                total = total + (losses * weight).sum()
                if needs:
                    slope = ((logits.sigmoid() - truth) * weight)[:, None] * shares  # of each base
                    to_crops.index_add_(0, face, slope)
                    slope = slope * (bases - logits[:, None])  # through the softmax
                    to_attention[part] = (resize.T @ slope @ resize).flatten(1).to(attention.dtype)
        ctx.save_for_backward(to_crops, to_attention)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:  # type: ignore[override]
        to_crops, to_attention = ctx.saved_tensors
        return gradient * to_crops, gradient.to(to_attention.dtype) * to_attention, None, None, None


def blended_loss(crops: Tensor, attention: Tensor, faces: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of the mask losses of P positive locations.

    Args:
        crops: bases cropped to each of F faces, (F, K, R, R).
        attention: maps (P, K * M * M).
        faces: (P,) index of the face of each positive.
        wanted: (F, R, R) float, 0 or 1.
        weights: (P,) of the positives.

    Returns:
        A scalar: the sum over positives of weight times mean binary cross-entropy.
    """
    return _BlendedLoss.apply(crops, attention, faces, wanted, weights)


@register("blendmask", Settings)
class BlendMask(FCOSDetector):
    """See the module; the arguments are those of `FCOSDetector` and the bottom module's width."""

    def __init__(self, extractor: Extractor, *, mask_channels: int, **common: Any) -> None:
        super().__init__(extractor, **common)
        self.mask_channels = mask_channels
        self.attention = PointConv(self.tower_channels, BASES * ATTENTION**2)
        self.bottom = BottomModule(self.channels, mask_channels, self.num_classes)
        self.bases_stride = self.strides[0] // 2

    @classmethod
    def own_sizes(cls, params: ModelParams, settings: Settings) -> dict[str, Any]:
        return {"mask_channels": params.mask_channels}

    def forward_heads(self, features: list[Tensor]) -> BlendMaskOutputs:
        bases, mask_features = self.bottom(features)
        return BlendMaskOutputs(**vars(self.head(features)), bases=bases, mask_features=mask_features)

    def mask_map(self, outputs: BlendMaskOutputs) -> tuple[Tensor, int]:
        return outputs.mask_features, self.bases_stride

    def losses(self, outputs: BlendMaskOutputs, targets: list[Target], sizes: Sequence[Size]) -> dict[str, Tensor]:
        matches = self.match(outputs, targets)
        return {
            **self.box_losses(outputs, matches),
            "mask": self._mask_loss(outputs, targets, matches),
            "semantic": SEMANTIC_WEIGHT * self.bottom.semantic_loss(outputs.features, targets),
        }

    def _mask_loss(self, outputs: BlendMaskOutputs, targets: list[Target], matches: Matches) -> Tensor:
        """Binary cross-entropy of the mask that each positive location makes for its face's true box, weighted by
        centerness."""
        attention = self.attention.at(outputs.towers, matches.grid, matches.images, matches.locations)
        crops = sample_few(outputs.bases, [target["boxes"] for target in targets], MASK, self.bases_stride)
        wanted = crop_masks(targets, MASK)
        return blended_loss(crops, attention, matches.faces, wanted, matches.centerness) / matches.weight

    def draw(
        self, outputs: BlendMaskOutputs, grid: Grid, candidates: Sequence[Candidates], sizes: Sequence[Size]
    ) -> list[PastedMasks]:
        counts = [len(one.scores) for one in candidates]
        images = torch.arange(len(counts), device=grid.points.device).repeat_interleave(
            torch.tensor(counts, device=grid.points.device)
        )
        locations = torch.cat([one.locations for one in candidates])
        attention = self.attention.at(outputs.towers, grid, images, locations)
        crops = crop_features(outputs.bases, [one.boxes for one in candidates], MASK, self.bases_stride)
        masks = blend(crops, attention).sigmoid().split(counts)
        return [PastedMasks(mask, one.boxes, size) for mask, one, size in zip(masks, candidates, sizes, strict=True)]
