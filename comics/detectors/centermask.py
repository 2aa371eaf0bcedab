"""CenterMask (Lee and Park, CVPR 2020): FCOS boxes, and a mask head on the features of each box that looks where it matters.

The boxes of FCOS are what a region proposal network's are to Mask R-CNN: features are pooled in them, from the level that
suits their share of the image, and a few convolutions with spatial attention draw the mask. A second head expects the
mask's IoU, as in MS R-CNN, and the mask's score is the box's times that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import box_iou

from comics.detectors.backbone import Extractor
from comics.detectors.base import Prediction, Size, Target, prediction, register
from comics.detectors.fcos import FCOSDetector, FCOSOutputs
from comics.detectors.roi import (
    MASK_SIDE,
    MaskIoUHead,
    PyramidRoIAlign,
    box_mask_targets,
    class_masks,
    mask_iou_loss,
    mask_iou_targets,
    mask_loss,
    resized,
    shares_inside,
)
from comics.detectors.soft_masks import PastedMasks, SoftMasks
from comics.params import InferenceParams, ModelParams
from comics.params.detectors import DetectorSettings

ROI_LEVELS = 3  # boxes are pooled from P3 to P5
COARSEST = 5  # k_max of equation 2


class Settings(DetectorSettings):
    """Settings of CenterMask."""

    published_inference: ClassVar = {"max_detections": 50}

    proposals: PositiveInt = 100
    """Boxes an image, those found so far, among which the ones that train the mask head are."""
    rois: PositiveInt = 128
    """Boxes an image, at most, that train the mask head."""
    roi_samples: int = Field(0, ge=0)
    """Samples a side of each bin of RoIAlign; 0 takes as many as the bin has cells."""
    mask_scoring: bool = True
    """Whether a head expects the IoU of each mask, by which masks are scored."""


def levels_by_share(boxes: Tensor, areas: Tensor) -> Tensor:
    """ceil(5 - log2(image area / box area)), between 3 and 5 (equation 2): (M,) int64.

    Args:
        boxes: (M, 4) xyxy px.
        areas: (M,) of their images, px^2.
    """
    own = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)
    level = (COARSEST - (areas / own.clamp(min=1e-6)).log2()).ceil()
    return level.clamp(min=COARSEST - ROI_LEVELS + 1, max=COARSEST).long()


class SpatialAttention(nn.Module):
    """Features times a map in [0, 1] made of their mean and their maximum over the channels (equation 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat((x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)), dim=1)
        return x * self.conv(pooled).sigmoid()


@register("centermask", Settings)
class CenterMask(FCOSDetector):
    """See the module; the arguments are those of `FCOSDetector` and the settings."""

    threshold_on_product = False

    def __init__(
        self,
        extractor: Extractor,
        *,
        num_classes: int,
        head_channels: int = 256,
        head_convs: int = 4,
        settings: Settings | None = None,
        inference: InferenceParams | None = None,
    ) -> None:
        super().__init__(
            extractor,
            num_classes=num_classes,
            head_channels=head_channels,
            head_convs=head_convs,
            inference=inference,
        )
        settings = settings or Settings()
        self.mask_channels = head_channels
        self.training_inference = self.inference.model_copy(update={"max_detections": settings.proposals})
        self.rois = settings.rois
        self.pool = PyramidRoIAlign(MASK_SIDE // 2, self.strides[:ROI_LEVELS], settings.roi_samples)
        self.mask_head = MaskRCNNHeads(self.channels, [head_channels] * head_convs, dilation=1)
        self.attention = SpatialAttention()
        self.mask_predictor = MaskRCNNPredictor(
            head_channels if head_convs else self.channels, head_channels, num_classes
        )
        nn.init.normal_(self.mask_predictor.mask_fcn_logits.weight, std=0.001)
        self.mask_iou_head: MaskIoUHead | None = None
        if settings.mask_scoring:
            self.mask_iou_head = MaskIoUHead(self.channels, head_channels, 4 * head_channels, num_classes)

    @classmethod
    def own_sizes(cls, params: ModelParams, settings: Any) -> dict[str, Any]:
        return {"settings": settings}

    def forward_heads(self, features: list[Tensor]) -> FCOSOutputs:
        return self.head(features)

    def _pooled(self, features: Sequence[Tensor], boxes: Sequence[Tensor], sizes: Sequence[Size]) -> Tensor:
        areas = [
            box.new_full((len(box),), float(height * width)) for box, (height, width) in zip(boxes, sizes, strict=True)
        ]
        return self.pool(features, boxes, levels_by_share(torch.cat(list(boxes)), torch.cat(areas)))

    def _attended(self, pooled: Tensor) -> Tensor:
        """Features (M, width, 14, 14) behind the convolutions and the attention."""
        return self.attention(self.mask_head(pooled))

    def roi_mask_features(self, outputs: FCOSOutputs, boxes: list[Tensor], size: int) -> Tensor:
        """The mask head's last feature map (28 x 28, behind its deconvolution), resized to `size`; boxes are pooled as if
        the padded image were all image."""
        height, width = (side * self.strides[0] for side in outputs.features[0].shape[-2:])
        hidden = self._attended(self._pooled(outputs.features, boxes, [(height, width)] * len(boxes)))
        return resized(functional.relu(self.mask_predictor.conv5_mask(hidden)), size)

    # training

    def losses(self, outputs: FCOSOutputs, targets: list[Target], sizes: Sequence[Size]) -> dict[str, Tensor]:
        matches = self.match(outputs, targets)
        return {**self.box_losses(outputs, matches), **self._mask_losses(outputs, targets, sizes)}

    @torch.no_grad()
    def _regions(
        self, outputs: FCOSOutputs, targets: list[Target], sizes: Sequence[Size]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Boxes (N, 4) of each image that train the mask head, and their faces (N,): of those found so far, and of the true
        ones, those that overlap a face by an IoU of at least 0.5."""
        candidates, _ = self.select(outputs, sizes, self.training_inference)
        boxes, faces = [], []
        for one, target in zip(candidates, targets, strict=True):
            truth = target["boxes"].float()
            whole = torch.where((truth[:, 2:] > truth[:, :2]).all(dim=1))[0]
            every = torch.cat((one.boxes, truth[whole]))
            if not len(whole):
                boxes.append(every[:0])
                faces.append(whole)
                continue
            iou, face = box_iou(every, truth[whole]).max(dim=1)
            positive = torch.where(iou >= 0.5)[0]
            if len(positive) > self.rois:
                chosen = torch.randperm(len(positive), device=positive.device)[: self.rois]
                positive = positive[chosen.sort().values]
            boxes.append(every[positive])
            faces.append(whole[face[positive]])
        return boxes, faces

    def _mask_losses(self, outputs: FCOSOutputs, targets: list[Target], sizes: Sequence[Size]) -> dict[str, Tensor]:
        boxes, faces = self._regions(outputs, targets, sizes)
        valid = [
            Target(boxes=target["boxes"], labels=target["labels"], masks=target["masks"][:, :height, :width])
            for target, (height, width) in zip(targets, sizes, strict=True)
        ]  # beside the image's last pixel there is that pixel, not the padding
        labels = torch.cat([target["labels"][face] for target, face in zip(targets, faces, strict=True)])
        pooled = self._pooled(outputs.features, boxes, sizes)
        logits = class_masks(self.mask_predictor(self._attended(pooled)).float(), labels)
        wanted = box_mask_targets(valid, boxes, faces, MASK_SIDE)
        found = {"mask": mask_loss(logits, wanted)}
        if self.mask_iou_head is not None:
            probabilities = logits.sigmoid()
            ious = mask_iou_targets(probabilities.detach(), wanted, shares_inside(valid, boxes, faces))
            found["mask_iou"] = mask_iou_loss(class_masks(self.mask_iou_head(pooled, probabilities), labels), ious)
        return found

    # inference

    @torch.no_grad()
    def predict(self, outputs: FCOSOutputs, sizes: Sequence[Size]) -> list[Prediction]:
        candidates, _ = self.select(outputs, sizes)
        pooled = self._pooled(outputs.features, [one.boxes for one in candidates], sizes)
        labels = torch.cat([one.labels for one in candidates])
        probabilities = class_masks(self.mask_predictor(self._attended(pooled)).float(), labels).sigmoid()
        counts = [len(one.scores) for one in candidates]
        found = [
            prediction(one.boxes, one.scores, one.labels, PastedMasks(mask, one.boxes, size))
            for one, mask, size in zip(candidates, probabilities.split(counts), sizes, strict=True)
        ]
        if self.mask_iou_head is not None:
            ious = class_masks(self.mask_iou_head(pooled, probabilities), labels).clamp(0, 1)
            for one, iou in zip(found, ious.split(counts), strict=True):
                one["mask_scores"] = one["scores"] * iou
        return found

    def draw(self, outputs: Any, grid: Any, candidates: Any, sizes: Any) -> list[SoftMasks]:
        """Not used: boxes, masks and their scores come together."""
        raise NotImplementedError
