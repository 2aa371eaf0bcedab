"""Mask R-CNN (He, Gkioxari, Dollar and Girshick, ICCV 2017) on torchvision's region proposal network and RoI heads.

The parts that the literature has settled (anchors, matching, sampling, box coding, RoIAlign, the losses) are
torchvision's; what is ours is where they meet the pyramid of the base model, P3 to P7 instead of P2 to P6, so that the
levels of the coarse contrast mean the same as with the other detectors. The anchors keep the paper's five scales,
32 to 512 px, one a level; RoIs are taken from P3 to P5 by equation 1 of the FPN paper (Lin et al., CVPR 2017).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import (
    RoIHeads,
    expand_boxes,
    expand_masks,
    fastrcnn_loss,
    maskrcnn_inference,
    maskrcnn_loss,
    paste_mask_in_image,
)
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper

from comics.detectors.backbone import build_extractor
from comics.detectors.base import Detector, LevelProposals, Prediction, Size, Target, register
from comics.params import InferenceParams, ModelParams
from comics.params.detectors import DetectorSettings

ANCHOR_SIZES = (32, 64, 128, 256, 512)  # px, one a level (FPN paper, section 4.1)
ASPECT_RATIOS = (0.5, 1.0, 2.0)  # height / width
ROI_LEVELS = 3  # RoIs come from the three finest levels, P3 to P5


class Settings(DetectorSettings):
    """Settings of Mask R-CNN."""

    published_inference: ClassVar = {"nms_threshold": 0.5}

    rois: PositiveInt = 512
    """Boxes an image that train the second stage."""


@dataclass
class MaskRCNNOutputs:
    """What the first stage says; the second stage runs on chosen boxes only, in `losses` and `predict`.

    Attributes:
        features: pyramid maps (B, C, H, W), P3 to P7.
        objectness: logits (B, A, H, W) a level, for A anchors a location.
        deltas: coded boxes (B, 4 A, H, W) a level.
    """

    features: list[Tensor]
    objectness: list[Tensor]
    deltas: list[Tensor]


@register("mask_rcnn", Settings)
class MaskRCNN(Detector):
    """Two stages: boxes that may hold a face, then class, box and mask of each.

    Args:
        extractor: images to pyramid maps P3 to P7.
        num_classes: foreground classes.
        channels: width of the pyramid.
        mask_convs: 3x3 convolutions of the mask head (the paper's 4).
        mask_width: their width (256).
        box_width: width of the box head's two hidden layers (1024).
        score_threshold: lowest class probability of a detection (0.05).
        nms_threshold: of the second stage (0.5).
        rois: boxes an image that train the second stage.
        candidates: boxes a level, and of all levels behind their suppression, that reach the second stage in inference
            (1000).
        max_detections: kept an image (100).

    RPN: 256 anchors an image, half of them positive, IoU 0.7 and 0.3; 2000 boxes in training, suppressed at 0.7. RoIs:
    a quarter of them positive, IoU 0.5.
    """

    def __init__(
        self,
        extractor: nn.Module,
        *,
        num_classes: int,
        channels: int = 256,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        mask_convs: int = 4,
        mask_width: int = 256,
        box_width: int = 1024,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        rois: int = 512,
        candidates: int = 1000,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        self.extractor = extractor
        self.strides = tuple(strides)
        self.channels = channels
        self.mask_channels = mask_width
        anchors = AnchorGenerator(tuple((size,) for size in ANCHOR_SIZES), (ASPECT_RATIOS,) * len(ANCHOR_SIZES))
        self.rpn = RegionProposalNetwork(
            anchors,
            RPNHead(channels, len(ASPECT_RATIOS)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 2000, "testing": candidates},
            post_nms_top_n={"training": 2000, "testing": candidates},
            nms_thresh=0.7,
        )
        self.roi_heads = RoIHeads(
            self._pool(7),
            TwoMLPHead(channels * 7**2, box_width),
            FastRCNNPredictor(box_width, num_classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=rois,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=score_threshold,
            nms_thresh=nms_threshold,
            detections_per_img=max_detections,
            mask_roi_pool=self._pool(14),
            mask_head=MaskRCNNHeads(channels, [mask_width] * mask_convs, dilation=1),
            mask_predictor=MaskRCNNPredictor(mask_width if mask_convs else channels, mask_width, num_classes + 1),
        )
        self._init_box_head()

    def _pool(self, size: int) -> MultiScaleRoIAlign:
        """RoIAlign whose scales are the strides, not a guess from the first batch's image sizes."""
        pool = MultiScaleRoIAlign([str(level) for level in range(ROI_LEVELS)], output_size=size, sampling_ratio=2)
        pool.scales = [1.0 / stride for stride in self.strides[:ROI_LEVELS]]
        finest, coarsest = self.strides[0].bit_length() - 1, self.strides[ROI_LEVELS - 1].bit_length() - 1
        pool.map_levels = initLevelMapper(finest, coarsest, canonical_scale=224, canonical_level=4)
        return pool

    def _init_box_head(self) -> None:
        """Gaussian predictors (Fast R-CNN paper, section 2.3); hidden layers by their fan-in."""
        predictor = self.roi_heads.box_predictor
        nn.init.normal_(predictor.cls_score.weight, std=0.01)
        nn.init.normal_(predictor.bbox_pred.weight, std=0.001)
        for layer in (self.roi_heads.box_head.fc6, self.roi_heads.box_head.fc7):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(predictor.cls_score.bias)
        nn.init.zeros_(predictor.bbox_pred.bias)

    @classmethod
    def from_params(
        cls, params: ModelParams, settings: Settings, num_classes: int, inference: InferenceParams
    ) -> MaskRCNN:
        """Mask R-CNN of the paper's sizes at `head_channels` 256 and `head_convs` 4; the box head is four times as wide."""
        extractor = build_extractor(params)
        return cls(
            extractor,
            num_classes=num_classes,
            channels=params.fpn_channels,
            strides=extractor.strides,
            mask_convs=params.head_convs,
            mask_width=params.head_channels,
            box_width=4 * params.head_channels,
            score_threshold=inference.score_threshold,
            nms_threshold=inference.nms_threshold,
            rois=settings.rois,
            candidates=inference.pre_nms_top,
            max_detections=inference.max_detections,
        )

    def forward_heads(self, features: list[Tensor]) -> MaskRCNNOutputs:
        objectness, deltas = self.rpn.head(features)
        return MaskRCNNOutputs(features, objectness, deltas)

    # ------------------------------------------------------------------------------------------------ first stage

    def _anchors(self, maps: list[Tensor]) -> list[Tensor]:
        """Anchors (H W A, 4) of each level, float32 px, in the order of `concat_box_prediction_layers`."""
        found = []
        for level, cell, stride in zip(maps, self.rpn.anchor_generator.cell_anchors, self.strides, strict=True):
            height, width = level.shape[-2:]
            x = torch.arange(width, device=level.device) * stride
            y = torch.arange(height, device=level.device) * stride
            shifts = torch.stack([x.repeat(height), y.repeat_interleave(width)], dim=1).repeat(1, 2)
            found.append((shifts[:, None] + cell.to(level.device)).flatten(0, 1))
        return found

    def _first_stage(self, outputs: MaskRCNNOutputs) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Flat logits (B N, 1) and codes (B N, 4), decoded boxes (B, N, 4) without gradient, anchors a level."""
        anchors = self._anchors(outputs.objectness)
        objectness, deltas = concat_box_prediction_layers(
            [level.float() for level in outputs.objectness], [level.float() for level in outputs.deltas]
        )
        batch = len(outputs.objectness[0])
        boxes = self.rpn.box_coder.decode(deltas.detach(), [torch.cat(anchors)] * batch)
        return objectness, deltas, boxes.view(batch, -1, 4), anchors

    def _filter(
        self, boxes: Tensor, objectness: Tensor, anchors: list[Tensor], sizes: Sequence[Size], training: bool
    ) -> list[Tensor]:
        self.rpn.training = training  # the RPN reads from it how many boxes to keep, nothing else
        kept, _ = self.rpn.filter_proposals(boxes, objectness, sizes, [len(level) for level in anchors])
        return kept

    def proposals(self, outputs: MaskRCNNOutputs) -> list[LevelProposals]:
        """The RPN's boxes before suppression, A a location."""
        _, _, boxes, anchors = self._first_stage(outputs)
        found = []
        for level, part in zip(outputs.objectness, boxes.split([len(level) for level in anchors], dim=1), strict=True):
            cells = torch.arange(level.shape[-2] * level.shape[-1], device=level.device)
            found.append(LevelProposals(part, cells.repeat_interleave(level.shape[1])))
        return found

    # ----------------------------------------------------------------------------------------------- second stage

    def _pooled(self, pool: nn.Module, outputs: MaskRCNNOutputs, boxes: list[Tensor]) -> Tensor:
        maps = OrderedDict((str(level), outputs.features[level]) for level in range(ROI_LEVELS))
        return pool(maps, boxes, [])

    def _classify(self, outputs: MaskRCNNOutputs, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits (M, classes + 1), background first, and coded boxes (M, 4 (classes + 1)); float32."""
        hidden = self.roi_heads.box_head(self._pooled(self.roi_heads.box_roi_pool, outputs, boxes))
        logits, codes = self.roi_heads.box_predictor(hidden)
        return logits.float(), codes.float()

    def _mask_logits(self, outputs: MaskRCNNOutputs, boxes: list[Tensor]) -> Tensor:
        """Mask logits (M, classes + 1, 28, 28), float32; channel 0 (background) is never used."""
        hidden = self.roi_heads.mask_head(self._pooled(self.roi_heads.mask_roi_pool, outputs, boxes))
        return self.roi_heads.mask_predictor(hidden).float()

    def roi_mask_features(self, outputs: MaskRCNNOutputs, boxes: list[Tensor], size: int) -> Tensor:
        """The mask head's last feature map (28 x 28, behind its deconvolution), resized to `size`."""
        hidden = self.roi_heads.mask_head(self._pooled(self.roi_heads.mask_roi_pool, outputs, boxes))
        predictor = self.roi_heads.mask_predictor
        fine = functional.relu(predictor.conv5_mask(hidden))
        if fine.shape[-1] == size or not len(fine):
            return fine if len(fine) else fine.new_zeros(0, self.mask_channels, size, size)
        return functional.interpolate(fine, size=(size, size), mode="bilinear", align_corners=False)

    # ------------------------------------------------------------------------------------- training and inference

    def losses(self, outputs: MaskRCNNOutputs, targets: list[Target], sizes: Sequence[Size]) -> dict[str, Tensor]:
        """Class and box losses of both stages and the mask loss, each as in the Faster and Mask R-CNN papers."""
        faces: list[dict[str, Any]] = [_with_background(target) for target in targets]
        objectness, deltas, boxes, anchors = self._first_stage(outputs)
        every_anchor = [torch.cat(anchors)] * len(targets)
        anchor_labels, anchor_boxes = self.rpn.assign_targets_to_anchors(every_anchor, faces)
        anchor_codes = self.rpn.box_coder.encode(anchor_boxes, every_anchor)
        loss_objectness, loss_rpn_box = self.rpn.compute_loss(objectness, deltas, anchor_labels, list(anchor_codes))

        candidates = self._filter(boxes, objectness, anchors, sizes, training=True)
        rois, matches, labels, codes = self.roi_heads.select_training_samples(candidates, faces)
        logits, predicted = self._classify(outputs, rois)
        if len(logits):
            loss_class, loss_box = fastrcnn_loss(logits, predicted, labels, codes)
        else:
            loss_class = loss_box = (logits.sum() + predicted.sum()) * 0
        positive = [torch.where(label > 0)[0] for label in labels]
        loss_mask = maskrcnn_loss(
            self._mask_logits(outputs, [roi[keep] for roi, keep in zip(rois, positive, strict=True)]),
            [roi[keep] for roi, keep in zip(rois, positive, strict=True)],
            # at the end of an image its last pixel counts, as in torchvision, not the padding beside it
            [face["masks"][:, :height, :width] for face, (height, width) in zip(faces, sizes, strict=True)],
            [face["labels"] for face in faces],
            [match[keep] for match, keep in zip(matches, positive, strict=True)],
        )
        return {
            "objectness": loss_objectness,
            "rpn_box": loss_rpn_box,
            "class": loss_class,
            "box": loss_box,
            "mask": loss_mask,
        }

    @torch.no_grad()
    def predict(self, outputs: MaskRCNNOutputs, sizes: Sequence[Size]) -> list[Prediction]:
        objectness, _, boxes, anchors = self._first_stage(outputs)
        candidates = self._filter(boxes, objectness, anchors, sizes, training=False)
        logits, codes = self._classify(outputs, candidates)
        found, scores, labels = self.roi_heads.postprocess_detections(logits, codes, candidates, sizes)
        probabilities = maskrcnn_inference(self._mask_logits(outputs, found), labels)
        return [
            Prediction(
                boxes=found[index],
                scores=scores[index],
                labels=labels[index] - 1,
                masks=paste_masks(probabilities[index], found[index], sizes[index]),
            )
            for index in range(len(sizes))
        ]


def paste_masks(probabilities: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5) -> Tensor:
    """Masks of boxes drawn into the image, as torchvision draws them, thresholded one at a time to save memory.

    Args:
        probabilities: (N, 1, S, S), of each box's mask.
        boxes: (N, 4) xyxy px.
        size: height and width of the image.

    Returns:
        Masks (N, height, width), bool.
    """
    height, width = size
    masks = torch.zeros(len(boxes), height, width, dtype=torch.bool, device=boxes.device)
    padded, scale = expand_masks(probabilities, padding=1)
    for index, box in enumerate(expand_boxes(boxes, scale).to(torch.int64)):
        masks[index] = paste_mask_in_image(padded[index, 0], box, height, width) > threshold
    return masks


def _with_background(target: Target) -> dict[str, Any]:
    """`target` as torchvision wants it: class 0 is the background, boxes have a width and a height."""
    sides = target["boxes"][:, 2:] - target["boxes"][:, :2]
    real = (sides > 0).all(dim=1)
    return {
        "boxes": target["boxes"][real].float(),
        "labels": target["labels"][real] + 1,
        "masks": target["masks"][real],
    }
