"""Mask R-CNN (He, Gkioxari, Dollar and Girshick, ICCV 2017) on torchvision's region proposal network and RoI heads.

The parts that the literature has settled (matching, sampling, box coding) are torchvision's; pooling, losses and masks
are as detectron2 has them. The pyramid is the FPN paper's P2 to P6, or P3 to P7 as in the detectors built on FCOS; RoIs
are taken from the levels up to P5 by equation 1 of that paper (Lin et al., CVPR 2017).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers

from comics.detectors.backbone import build_extractor, build_fine_extractor
from comics.detectors.base import Detector, LevelProposals, Prediction, Size, Target, prediction, register
from comics.detectors.roi import MASK_SIDE, PyramidRoIAlign, box_mask_targets, class_masks, mask_loss, resized
from comics.detectors.soft_masks import PastedMasks
from comics.params import InferenceParams, ModelParams
from comics.params.detectors import DetectorSettings
from comics.ranks import as_of_all

ANCHOR_SIZES = (32, 64, 128, 256, 512)  # px, one a level (FPN paper, section 4.1)
ASPECT_RATIOS = (0.5, 1.0, 2.0)  # height / width
COARSEST_ROI_STRIDE = 32  # RoIs come from the levels up to P5


class Settings(DetectorSettings):
    """Settings of Mask R-CNN."""

    published_inference: ClassVar = {"nms_threshold": 0.5}

    pyramid: Literal["p2-p6", "p3-p7"] = "p2-p6"
    """The paper's levels, or those of the detectors built on FCOS, which cost a third."""
    rois: PositiveInt = 512
    """Boxes an image that train the second stage."""
    proposals: PositiveInt = 1000
    """Boxes of the first stage an image, after suppression, from which those are drawn (torchvision: 2000)."""
    roi_samples: int = Field(0, ge=0)
    """Samples a side of each bin of RoIAlign; 0 takes as many as the bin has cells (torchvision: 2)."""
    roi_aligned: bool = True
    """RoIAlign without the half-pixel shift of its first version (torchvision: false)."""
    smooth_l1_beta: float = Field(0.0, ge=0)
    """Where the box losses turn from squares to absolute values; 0 is L1 (the papers: 1; torchvision: 1/9)."""


def cell_anchors(sizes: Sequence[float]) -> Tensor:
    """Anchors (levels, ratios, 4) around (0, 0), xyxy px, of the area size^2; not rounded, as in detectron2."""
    found = []
    for size in sizes:
        for ratio in ASPECT_RATIOS:
            width, height = size / math.sqrt(ratio), size * math.sqrt(ratio)
            found.append([-width / 2, -height / 2, width / 2, height / 2])
    return torch.tensor(found).view(len(sizes), len(ASPECT_RATIOS), 4)


@dataclass
class MaskRCNNOutputs:
    """What the first stage says; the second stage runs on chosen boxes only, in `losses` and `predict`.

    Attributes:
        features: pyramid maps (B, C, H, W).
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
        extractor: images to pyramid maps.
        num_classes: foreground classes.
        channels: width of the pyramid.
        strides: of its levels, px.
        mask_convs: 3x3 convolutions of the mask head (the paper's 4).
        mask_width: their width (256).
        box_width: width of the box head's two hidden layers (1024).
        settings: of the second stage and the losses.
        inference: thresholds and numbers kept; `pre_nms_top` boxes a level, and of all levels behind their suppression,
            reach the second stage (1000).

    RPN: 256 anchors an image, half of them positive, IoU 0.7 and 0.3; 2000 boxes a level go into its suppression at 0.7
    in training. RoIs: a quarter of them positive, IoU 0.5.

    Attributes:
        anchors: (levels, 3, 4), buffer: imported weights bring their own.
    """

    anchors: Tensor

    def __init__(
        self,
        extractor: nn.Module,
        *,
        num_classes: int,
        channels: int = 256,
        strides: Sequence[int] = (4, 8, 16, 32, 64),
        mask_convs: int = 4,
        mask_width: int = 256,
        box_width: int = 1024,
        settings: Settings | None = None,
        inference: InferenceParams | None = None,
    ) -> None:
        super().__init__()
        settings = settings or Settings()
        inference = inference or InferenceParams(**Settings.published_inference)
        self.extractor = extractor
        self.strides = tuple(strides)
        self.channels = channels
        self.mask_channels = mask_width
        self.beta = settings.smooth_l1_beta
        self.aligned = settings.roi_aligned
        self.register_buffer("anchors", cell_anchors(ANCHOR_SIZES))
        self.rpn = RegionProposalNetwork(
            AnchorGenerator(),  # not used: `_anchors` does it
            RPNHead(channels, len(ASPECT_RATIOS)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": max(2000, settings.proposals), "testing": inference.pre_nms_top},
            post_nms_top_n={"training": settings.proposals, "testing": inference.pre_nms_top},
            nms_thresh=0.7,
        )
        roi_strides = [stride for stride in self.strides if stride <= COARSEST_ROI_STRIDE]
        box_pool, mask_pool = (
            PyramidRoIAlign(size, roi_strides, settings.roi_samples, settings.roi_aligned)
            for size in (7, MASK_SIDE // 2)
        )
        self.roi_heads = RoIHeads(
            box_pool,
            TwoMLPHead(channels * 7**2, box_width),
            FastRCNNPredictor(box_width, num_classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=settings.rois,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=inference.score_threshold,
            nms_thresh=inference.nms_threshold,
            detections_per_img=inference.max_detections,
            mask_roi_pool=mask_pool,
            mask_head=MaskRCNNHeads(channels, [mask_width] * mask_convs, dilation=1),
            mask_predictor=MaskRCNNPredictor(mask_width if mask_convs else channels, mask_width, num_classes + 1),
        )
        nn.init.normal_(self.roi_heads.mask_predictor.mask_fcn_logits.weight, std=0.001)
        self._init_box_head()

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
        extractor = build_fine_extractor(params) if settings.pyramid == "p2-p6" else build_extractor(params)
        return cls(
            extractor,
            num_classes=num_classes,
            channels=params.fpn_channels,
            strides=extractor.strides,
            mask_convs=params.head_convs,
            mask_width=params.head_channels,
            box_width=4 * params.head_channels,
            settings=settings,
            inference=inference,
        )

    def implied(self, family: str) -> dict[str, Tensor]:
        """The anchors of detectron2, mmdetection and torchvision: eight strides a side, whatever the level."""
        if family not in ("detectron2", "mmdetection", "torchvision"):
            return {}
        anchors = cell_anchors([8.0 * stride for stride in self.strides])
        return {"anchors": anchors.round() if family == "torchvision" else anchors}

    def forward_heads(self, features: list[Tensor]) -> MaskRCNNOutputs:
        objectness, deltas = self.rpn.head(features)
        return MaskRCNNOutputs(features, objectness, deltas)

    # ------------------------------------------------------------------------------------------------ first stage

    def _anchors(self, maps: list[Tensor]) -> list[Tensor]:
        """Anchors (H W A, 4) of each level, float32 px, in the order of `concat_box_prediction_layers`."""
        found = []
        for level, cell, stride in zip(maps, self.anchors, self.strides, strict=True):
            height, width = level.shape[-2:]
            x = torch.arange(width, device=level.device) * stride
            y = torch.arange(height, device=level.device) * stride
            shifts = torch.stack([x.repeat(height), y.repeat_interleave(width)], dim=1).repeat(1, 2)
            found.append((shifts[:, None] + cell).flatten(0, 1))
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

    def _classify(self, outputs: MaskRCNNOutputs, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits (M, classes + 1), background first, and coded boxes (M, 4 (classes + 1)); float32."""
        hidden = self.roi_heads.box_head(self.roi_heads.box_roi_pool(outputs.features, boxes))
        logits, codes = self.roi_heads.box_predictor(hidden)
        return logits.float(), codes.float()

    def _mask_logits(self, outputs: MaskRCNNOutputs, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Mask logits (M, classes + 1, 28, 28), float32, whose channel 0 (background) is never used, and the features
        (M, C, 14, 14) they are made of."""
        pooled = self.roi_heads.mask_roi_pool(outputs.features, boxes)
        return self.roi_heads.mask_predictor(self.roi_heads.mask_head(pooled)).float(), pooled

    def roi_mask_features(self, outputs: MaskRCNNOutputs, boxes: list[Tensor], size: int) -> Tensor:
        """The mask head's last feature map (28 x 28, behind its deconvolution), resized to `size`."""
        hidden = self.roi_heads.mask_head(self.roi_heads.mask_roi_pool(outputs.features, boxes))
        return resized(functional.relu(self.roi_heads.mask_predictor.conv5_mask(hidden)), size)

    # ------------------------------------------------------------------------------------- training and inference

    def losses(self, outputs: MaskRCNNOutputs, targets: list[Target], sizes: Sequence[Size]) -> dict[str, Tensor]:
        """Class and box losses of both stages and the mask loss, each as in the Faster and Mask R-CNN papers."""
        faces: list[dict[str, Any]] = [
            _with_background(target, size) for target, size in zip(targets, sizes, strict=True)
        ]
        objectness, deltas, boxes, anchors = self._first_stage(outputs)
        found = self._first_losses(objectness, deltas, torch.cat(anchors), faces)

        candidates = self._filter(boxes, objectness, anchors, sizes, training=True)
        rois, matches, labels, codes = self.roi_heads.select_training_samples(candidates, faces)
        found |= self._box_losses(*self._classify(outputs, rois), torch.cat(labels), torch.cat(codes))
        positive = [torch.where(label > 0)[0] for label in labels]
        return found | self._mask_losses(
            outputs,
            faces,
            [roi[keep] for roi, keep in zip(rois, positive, strict=True)],
            [match[keep] for match, keep in zip(matches, positive, strict=True)],
            torch.cat([label[keep] for label, keep in zip(labels, positive, strict=True)]),
        )

    def _first_losses(self, objectness: Tensor, deltas: Tensor, anchors: Tensor, faces: list[Any]) -> dict[str, Tensor]:
        """Of the region proposal network: a random sample of anchors, the box loss of the positive ones among them
        (Faster R-CNN paper, equation 1)."""
        every_anchor = [anchors] * len(faces)
        labels, boxes = self.rpn.assign_targets_to_anchors(every_anchor, faces)
        codes = torch.cat(list(self.rpn.box_coder.encode(boxes, every_anchor)))
        positive, negative = (torch.where(torch.cat(chosen))[0] for chosen in self.rpn.fg_bg_sampler(labels))
        sampled = torch.cat((positive, negative))
        wanted = torch.cat(labels)[sampled]
        box = functional.smooth_l1_loss(deltas[positive], codes[positive], beta=self.beta, reduction="sum")
        return {
            "objectness": as_of_all(
                functional.binary_cross_entropy_with_logits(objectness.flatten()[sampled], wanted), len(sampled)
            ),
            "rpn_box": as_of_all(box / len(sampled), len(sampled)),
        }

    def _box_losses(self, logits: Tensor, codes: Tensor, labels: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """Of the second stage: cross-entropy of all boxes, and the box loss of the positive ones, for their class, divided
        by the number of all (Fast R-CNN paper, equation 1)."""
        if not len(logits):
            nothing = (logits.sum() + codes.sum()) * 0
            return {"class": as_of_all(nothing, 0), "box": as_of_all(nothing, 0)}
        positive = torch.where(labels > 0)[0]
        predicted = codes.view(len(codes), -1, 4)[positive, labels[positive]]
        box = functional.smooth_l1_loss(predicted, wanted[positive], beta=self.beta, reduction="sum")
        return {
            "class": as_of_all(functional.cross_entropy(logits, labels), len(labels)),
            "box": as_of_all(box / len(labels), len(labels)),
        }

    def _mask_losses(
        self, outputs: MaskRCNNOutputs, faces: list[Any], boxes: list[Tensor], matches: list[Tensor], labels: Tensor
    ) -> dict[str, Tensor]:
        """Of the masks of positive boxes.

        Args:
            outputs: of `forward_heads`.
            faces: targets as `_with_background` gives them.
            boxes: (N, 4) of each image.
            matches: (N,) of each image: which of its faces.
            labels: (M,) of all of them, from 1 on.
        """
        logits, _ = self._mask_logits(outputs, boxes)
        loss = mask_loss(class_masks(logits, labels), self._mask_targets(faces, boxes, matches))
        return {"mask": as_of_all(loss, len(labels))}

    def _mask_targets(self, faces: list[Any], boxes: list[Tensor], matches: list[Tensor]) -> Tensor:
        return box_mask_targets(faces, boxes, matches, MASK_SIDE, self.aligned)

    @torch.no_grad()
    def predict(self, outputs: MaskRCNNOutputs, sizes: Sequence[Size]) -> list[Prediction]:
        objectness, _, boxes, anchors = self._first_stage(outputs)
        candidates = self._filter(boxes, objectness, anchors, sizes, training=False)
        logits, codes = self._classify(outputs, candidates)
        boxes, scores, labels = self.roi_heads.postprocess_detections(logits, codes, candidates, sizes)
        logits, pooled = self._mask_logits(outputs, boxes)
        every_label = torch.cat(labels)
        probabilities = class_masks(logits, every_label).sigmoid()
        counts = [len(one) for one in scores]
        found = [
            prediction(box, score, label - 1, PastedMasks(mask, box, size))
            for box, score, label, mask, size in zip(
                boxes, scores, labels, probabilities.split(counts), sizes, strict=True
            )
        ]
        factors = self._mask_factors(pooled, probabilities, every_label)
        if factors is not None:
            for one, factor in zip(found, factors.split(counts), strict=True):
                one["mask_scores"] = one["scores"] * factor
        return found

    def _mask_factors(self, pooled: Tensor, probabilities: Tensor, labels: Tensor) -> Tensor | None:
        """Factors (M,) from scores of boxes to scores of their masks; None where both are one.

        Args:
            pooled: features (M, C, 14, 14).
            probabilities: of the masks, (M, 28, 28).
            labels: (M,) from 1 on.
        """
        return None


def _with_background(target: Target, size: Size) -> dict[str, Any]:
    """`target` as torchvision wants it: class 0 is the background, boxes have a width and a height, masks end with the image
    (what lies beside its last pixel is that pixel, not the padding)."""
    height, width = size
    sides = target["boxes"][:, 2:] - target["boxes"][:, :2]
    real = (sides > 0).all(dim=1)
    return {
        "boxes": target["boxes"][real].float(),
        "labels": target["labels"][real] + 1,
        "masks": target["masks"][real, :height, :width],
    }
