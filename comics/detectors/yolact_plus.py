"""YOLACT++ (Bolya, Zhou, Xiao and Lee, TPAMI 2020): YOLACT with deformable convolutions in the backbone, three sizes of anchors
a level, and a small network that expects the IoU of each mask, by which masks are scored.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from comics.detectors.backbone import Extractor, ResNetBody
from comics.detectors.base import register
from comics.detectors.roi import class_masks
from comics.detectors.yolact import YOLACT
from comics.params.detectors import DetectorSettings

WIDTHS = (8, 16, 32, 64, 128)  # of the strided convolutions of the scoring network
LEAST_SIDE = 63  # cells that these need a side
LEAST_AREA = 25  # cells of a true mask whose IoU is worth learning
IOU_WEIGHT = 25.0


class Settings(DetectorSettings):
    """Settings of YOLACT++."""

    published_inference: ClassVar = {"nms_threshold": 0.5, "pre_nms_top": 200}
    training_code: ClassVar = 1

    prototypes: PositiveInt = 32
    """Maps that masks are combined from."""
    anchor_scale: float = Field(1.0, gt=0)
    """Factor on the sides of the anchors, which are published for images of 550 px."""
    masks: PositiveInt = 100
    """Anchors an image, at most, whose masks are trained."""
    deformable_interval: int = Field(3, ge=0)
    """Of the blocks of a ResNet's last three stages, every how many has a deformable convolution; 0 for none. Backbones of
    timm have none."""
    first_iou: float = Field(0.5, ge=0, le=1)
    """IoU that every mask is expected to have before training: the last bias of the scoring network. At the published 0, a class
    whose output starts below it is cut by the ReLU for every mask: it gets no gradient, and its masks score 0 for ever."""


class MaskScorer(nn.Module):
    """A mask at the prototypes' resolution to the IoU it is expected to have, for each class (figure 7).

    Args:
        num_classes: foreground classes.
        first_iou: what it expects before training, roughly.
    """

    def __init__(self, num_classes: int, first_iou: float = 0.5) -> None:
        super().__init__()
        inputs = (1, *WIDTHS[:-1])
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2) for a, b in zip(inputs, WIDTHS, strict=True))
        self.iou = nn.Conv2d(WIDTHS[-1], num_classes, 1)
        for layer in (*self.convs, self.iou):
            nn.init.xavier_uniform_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.iou.bias, first_iou)  # type: ignore[arg-type]

    def forward(self, masks: Tensor) -> Tensor:
        """IoUs (N, classes), float32, not negative, of masks (N, h, w), probabilities cut to their boxes."""
        short = [max(0, LEAST_SIDE - side) for side in masks.shape[-2:]]
        x = functional.pad(masks[:, None], (0, short[1], 0, short[0]))
        for layer in (*self.convs, self.iou):
            x = functional.relu(layer(x))
        return x.float().amax(dim=(2, 3))


@register("yolact_plus", Settings)
class YOLACTPlus(YOLACT):
    """See the module; the arguments are those of `YOLACT`."""

    octave: ClassVar[tuple[float, ...]] = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
    scores_masks: ClassVar[bool] = True

    def __init__(self, extractor: Extractor, *, num_classes: int, settings: Any = None, **options: Any) -> None:
        settings = settings or Settings()
        if settings.deformable_interval and isinstance(extractor.body, ResNetBody):
            extractor.body.deform(settings.deformable_interval)
        super().__init__(extractor, num_classes=num_classes, settings=settings, **options)
        self.scorer = MaskScorer(num_classes, settings.first_iou)

    def _iou_loss(self, masks: Tensor, wanted: Tensor, labels: Tensor) -> Tensor:
        """Smooth L1 of the IoUs of masks whose face has more than `LEAST_AREA` cells, with weight 25."""
        large = torch.where(wanted.sum(dim=(1, 2)) > LEAST_AREA)[0]
        if not len(large):
            return masks.sum() * 0
        found, wanted = masks[large] > 0.5, wanted[large] > 0.5
        both = (found & wanted).sum(dim=(1, 2)).float()
        iou = both / (found | wanted).sum(dim=(1, 2))
        expected = class_masks(self.scorer(masks[large]), labels[large])
        return IOU_WEIGHT * functional.smooth_l1_loss(expected, iou, reduction="sum")

    def _mask_factors(self, masks: Tensor, labels: Tensor) -> Tensor:
        return class_masks(self.scorer(masks), labels).clamp(0, 1)
