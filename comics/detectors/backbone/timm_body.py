"""Any model of timm that gives feature maps, through its `features_only`.

Models whose maps halve from stage to stage go through a feature pyramid like a ResNet; plain vision transformers, whose
maps have one stride, through ViTDet's. Parameters are under timm's own names, so that its files load as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from comics.detectors.backbone.layers import is_norm
from comics.errors import UserError
from comics.params.backbones import TIMM

_ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
"""How models are told that images may have any size: the first that a model understands."""


def _create(name: str, weights: str, **options: Any) -> nn.Module:
    """timm's model with a feature getter, for images of any size.

    Raises:
        UserError: no such model, no feature maps, or no weights to be had.
    """
    import timm

    failure: Exception | None = None
    for any_size in _ANY_SIZE:
        try:
            return timm.create_model(
                name, pretrained=weights == "imagenet", features_only=True, feature_cls="getter", **any_size, **options
            )
        except TypeError as error:  # an option that this model does not know
            failure = error
        except (OSError, RuntimeError, AttributeError, AssertionError, ValueError) as error:
            failure = error
            break
    if weights == "imagenet":
        where = getattr(timm.get_pretrained_cfg(name), "hf_hub_id", None) or "none that timm knows"
        raise UserError(
            f"model.weights: imagenet weights of {TIMM}{name} could not be fetched ({failure}).",
            f"Fetch them elsewhere (on Hugging Face: {where}), copy the file here, and write its path as `weights:` under "
            "`models:` in params.yaml; or write `weights: none` to train from scratch.",
        ) from None
    raise UserError(
        f"model.backbone: {TIMM}{name} gives no feature maps ({failure}).",
        "`comics detectors --backbones` lists models that are known to work.",
    ) from None


class TimmBody(nn.Module):
    """A model of timm without its classifier: images to one map for each of `strides`, or one map alone.

    Args:
        name: of the model, with or without the tag of its weights: ``convnext_tiny.fb_in22k``.
        weights: ``imagenet`` for those that timm has under that name, ``none``.
        frozen_stages: stages without gradient: the stem, then as timm groups the model (stages, or a transformer's blocks);
            their BatchNorm keeps its statistics.
        frozen_norms: normalisation layers as constants throughout.
        strides: of the maps wanted, px.

    Attributes:
        plain: whether it is a plain transformer, which gives its last map alone.
        stride: of that map, px.
        out_channels: one a map.
        pixel_mean, pixel_std: of the images that its weights expect, RGB in [0, 1].

    Raises:
        UserError: timm has no such model, it has not the strides, fewer stages, or its weights are not to be had.
    """

    def __init__(
        self,
        name: str,
        *,
        weights: str = "none",
        frozen_stages: int = 0,
        frozen_norms: bool = False,
        strides: Sequence[int] = (8, 16, 32),
    ) -> None:
        super().__init__()
        with torch.device("meta"):  # costs nothing: asks what maps there are, and whether images may have any size
            probe = _create(name, "none").eval()
        info = probe.feature_info
        found, width = info.reduction(), info.channels()  # type: ignore[union-attr, operator]
        self.plain = len(set(found)) == 1 and len(found) > 1
        self.patch = found[-1] if self.plain else 32
        self.stride = 2 ** round(math.log2(self.patch))
        try:
            probe(torch.empty(1, 3, *(side * self.patch // self.stride for side in (64, 96)), device="meta"))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise UserError(
                f"model.backbone: {TIMM}{name} does not take images of any size ({error}).",
                "`comics detectors --backbones` lists models that are known to work.",
            ) from None
        if self.plain:
            chosen = [info.out_indices[-1]]  # type: ignore[union-attr, index]
            self.out_channels = [width[-1]]
        else:
            if missing := [stride for stride in strides if stride not in found]:
                raise UserError(
                    f"model.backbone: {TIMM}{name} has feature maps at strides {', '.join(map(str, found))}, none at "
                    f"{', '.join(map(str, missing))}.",
                    "`comics detectors --backbones` lists models that are known to work.",
                )
            last = [len(found) - 1 - found[::-1].index(stride) for stride in strides]  # the deepest map of each stride
            chosen = [info.out_indices[index] for index in last]  # type: ignore[union-attr, index]
            self.out_channels = [width[index] for index in last]
        self.model = _create(name, weights, out_indices=chosen)
        config = self.model.pretrained_cfg
        assert isinstance(config, dict)
        self.pixel_mean, self.pixel_std = tuple(config["mean"]), tuple(config["std"])
        self._freeze(name, frozen_stages, frozen_norms)

    @property
    def inner(self) -> Any:
        """timm's model itself."""
        return self.model.model

    def _groups(self, coarse: bool) -> dict[str, int]:
        """timm's grouping of the parameters, from the stem (0) on: by stage, or by block."""
        from timm.models import group_parameters

        inner = self.inner
        matcher = getattr(inner, "group_matcher", None)
        if matcher is None:
            raise UserError(
                f"model.backbone: timm does not say how {type(inner).__name__} is layered.",
                "Leave frozen_stages at 0 and layer_decay at 1.",
            )
        groups: Mapping[str, int] = group_parameters(inner, matcher(coarse=coarse), reverse=True)
        return dict(groups)

    def _freeze(self, name: str, stages: int, norms: bool) -> None:
        inner = self.inner
        if stages:
            groups = self._groups(coarse=True)
            there = len(set(groups.values()))
            if stages > there:
                raise UserError(f"model.frozen_stages: {TIMM}{name} has {there} stages, not {stages}.")
            for key, parameter in inner.named_parameters():
                if groups[key] < stages:
                    parameter.requires_grad_(False)
        if norms:
            for module in inner.modules():
                if is_norm(module):
                    module.requires_grad_(False)
        self._constant = [
            module
            for module in inner.modules()
            if is_norm(module) and not any(parameter.requires_grad for parameter in module.parameters())
        ]

    def train(self, mode: bool = True) -> TimmBody:
        super().train(mode)
        for module in self._constant:
            module.eval()
        return self

    def depths(self) -> dict[str, int]:
        """How deep each parameter stands, 0 for the stem: timm's grouping by block."""
        groups = self._groups(coarse=False)
        order = {group: depth for depth, group in enumerate(sorted(set(groups.values())))}
        return {f"model.model.{key}": order[group] for key, group in groups.items()}

    def undecayed(self) -> set[str]:
        """Parameters that timm spares from weight decay (position embeddings, say)."""
        spared: set[str] = getattr(self.inner, "no_weight_decay", set)()
        return {f"model.model.{key}" for key in spared}

    def forward(self, images: Tensor) -> list[Tensor]:
        if self.patch != self.stride:  # patches of 14 px: the image is resized, so that its map has a stride of 16
            size = [side * self.patch // self.stride for side in images.shape[-2:]]
            images = functional.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
        return list(self.model(images))
