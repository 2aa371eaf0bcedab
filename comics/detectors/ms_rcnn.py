"""MS R-CNN (Huang, Huang, Gong, Huang and Wang, "Mask Scoring R-CNN", CVPR 2019): Mask R-CNN whose masks have scores of
their own, the class's probability times the IoU that a small head expects of the mask.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from comics.detectors.base import register
from comics.detectors.mask_rcnn import MaskRCNN, MaskRCNNOutputs
from comics.detectors.roi import (
    MaskIoUHead,
    class_masks,
    mask_iou_loss,
    mask_iou_targets,
    mask_loss,
    shares_inside,
)
from comics.params.detectors import DetectorSettings


class Settings(DetectorSettings):
    """Settings of MS R-CNN."""

    published_inference: ClassVar = {"nms_threshold": 0.5}

    pyramid: Literal["p2-p6", "p3-p7"] = "p2-p6"
    """The paper's levels, or those of the detectors built on FCOS, which cost a third."""
    rois: PositiveInt = 512
    """Boxes an image that train the second stage."""
    proposals: PositiveInt = 2000
    """Boxes of the first stage an image, after suppression, from which those are drawn (its authors' code)."""
    roi_samples: int = Field(2, ge=0)
    """Samples a side of each bin of RoIAlign; 0 takes as many as the bin has cells."""
    roi_aligned: bool = True
    """RoIAlign without the half-pixel shift of its first version, which the authors' code has."""
    smooth_l1_beta: float = Field(1 / 9, ge=0)
    """Where the box losses turn from squares to absolute values (its authors' code)."""


@register("ms_rcnn", Settings)
class MSRCNN(MaskRCNN):
    """See the module; the arguments are those of `MaskRCNN`."""

    def __init__(self, extractor: nn.Module, *, num_classes: int, channels: int = 256, **options: Any) -> None:
        super().__init__(extractor, num_classes=num_classes, channels=channels, **options)
        self.mask_iou_head = MaskIoUHead(channels, self.mask_channels, options.get("box_width", 1024), num_classes + 1)

    def _mask_losses(
        self, outputs: MaskRCNNOutputs, faces: list[Any], boxes: list[Tensor], matches: list[Tensor], labels: Tensor
    ) -> dict[str, Tensor]:
        logits, pooled = self._mask_logits(outputs, boxes)
        chosen = class_masks(logits, labels)
        wanted = self._mask_targets(faces, boxes, matches)
        probabilities = chosen.sigmoid()
        ious = mask_iou_targets(probabilities.detach(), wanted, shares_inside(faces, boxes, matches))
        predicted = class_masks(self.mask_iou_head(pooled, probabilities), labels)
        return {"mask": mask_loss(chosen, wanted), "mask_iou": mask_iou_loss(predicted, ious)}

    def _mask_factors(self, pooled: Tensor, probabilities: Tensor, labels: Tensor) -> Tensor:
        return class_masks(self.mask_iou_head(pooled, probabilities), labels).clamp(0, 1)
