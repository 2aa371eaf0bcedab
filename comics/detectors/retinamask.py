"""RetinaMask (Fu, Shvets and Berg, "RetinaMask: Learning to predict masks improves state-of-the-art single-shot detection for
free", 2019): RetinaNet (Lin et al., ICCV 2017) with the mask head of Mask R-CNN on the boxes it finds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image, sigmoid_focal_loss

from comics.detectors.anchors import IGNORED, around_origin, decode, encode, flatten, match, place
from comics.detectors.backbone import Extractor, build_extractor
from comics.detectors.base import Detector, LevelProposals, Prediction, Size, Target, prediction, register
from comics.detectors.fcos import initialise, mean_over_ranks
from comics.detectors.roi import MASK_SIDE, PyramidRoIAlign, box_mask_targets, class_masks, mask_loss, resized
from comics.detectors.soft_masks import PastedMasks
from comics.params import InferenceParams, ModelParams
from comics.params.detectors import DetectorSettings

SIZES = (32, 64, 128, 256, 512)  # px, of the levels (RetinaNet paper, section 4)
OCTAVE = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
RATIOS = (0.5, 1.0, 2.0)
ANCHORS = len(OCTAVE) * len(RATIOS)
CODE_WEIGHTS = (10.0, 5.0)  # of the box code
PRIOR = 0.01
ROI_LEVELS = 3  # masks are pooled from P3 to P5


class Settings(DetectorSettings):
    """Settings of RetinaMask."""

    published_inference: ClassVar = {"nms_threshold": 0.5}

    proposals: PositiveInt = 100
    """Boxes an image, those found so far, among which the ones that train the mask head are."""
    roi_samples: int = Field(2, ge=0)
    """Samples a side of each bin of RoIAlign; 0 takes as many as the bin has cells."""
    best_match: float = Field(0.2, ge=0, le=1)
    """IoU above which a face's best anchor is positive whatever its IoU."""
    beta: float = Field(0.11, gt=0)
    """Largest point where the box loss turns from squares to absolute values."""


@dataclass
class RetinaMaskOutputs:
    """Raw outputs, one entry a pyramid level.

    Attributes:
        features: the pyramid.
        logits: (B, A classes, h, w), anchors first.
        codes: (B, A 4, h, w).
    """

    features: list[Tensor]
    logits: list[Tensor]
    codes: list[Tensor]


def _tower(in_channels: int, channels: int, convs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for step in range(convs):
        layers += [nn.Conv2d(channels if step else in_channels, channels, 3, padding=1), nn.ReLU(inplace=True)]
    return initialise(nn.Sequential(*layers))


class SelfAdjustingSmoothL1(nn.Module):
    """Smooth L1 whose turning point is the running mean of the errors less their running variance, between 0.001 and `beta`,
    for each of the four numbers of a box (section 3.2, equation 3).

    Args:
        beta: its largest value, and its first.
        momentum: of the running statistics: the paper's 0.9 of the old value.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, beta: float, momentum: float = 0.9) -> None:
        super().__init__()
        self.beta, self.momentum = beta, momentum
        self.register_buffer("mean", torch.full((4,), beta))
        self.register_buffer("variance", torch.zeros(4))

    def forward(self, predicted: Tensor, wanted: Tensor) -> Tensor:
        """The loss (P, 4). In training, and with two errors or more, the statistics move first."""
        error = (predicted - wanted).abs()
        if self.training and len(error) > 1:
            with torch.no_grad():
                self.mean.lerp_(mean_over_ranks(error.mean(dim=0)).to(self.mean), 1 - self.momentum)
                self.variance.lerp_(mean_over_ranks(error.var(dim=0)).to(self.mean), 1 - self.momentum)
        beta = (self.mean - self.variance).clamp(min=1e-3, max=self.beta).to(error.dtype)
        return torch.where(error < beta, 0.5 * error.square() / beta, error - 0.5 * beta)


@register("retinamask", Settings)
class RetinaMask(Detector):
    """See the module.

    Args:
        extractor: images to pyramid maps P3 to P7.
        num_classes: foreground classes.
        head_channels: width of the towers and of the mask head (256).
        head_convs: convolutions in each of them (4).
        settings: of anchors, losses and masks.
        inference: thresholds and numbers kept.
    """

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
        super().__init__()
        settings = settings or Settings()
        self.extractor, self.strides, self.channels = extractor, extractor.strides, extractor.channels
        self.mask_channels = head_channels
        self.num_classes = num_classes
        self.inference = inference or InferenceParams(**Settings.published_inference)
        self.proposed, self.best_match = settings.proposals, settings.best_match
        self.cls_tower = _tower(self.channels, head_channels, head_convs)
        self.bbox_tower = _tower(self.channels, head_channels, head_convs)
        width = head_channels if head_convs else self.channels
        self.cls_logits = initialise(nn.Conv2d(width, ANCHORS * num_classes, 3, padding=1))
        self.bbox_pred = initialise(nn.Conv2d(width, ANCHORS * 4, 3, padding=1))
        nn.init.constant_(self.cls_logits.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]
        self.box_loss = SelfAdjustingSmoothL1(settings.beta)
        self.pool = PyramidRoIAlign(MASK_SIDE // 2, self.strides[:ROI_LEVELS], settings.roi_samples)
        self.mask_head = MaskRCNNHeads(self.channels, [head_channels] * head_convs, dilation=1)
        self.mask_predictor = MaskRCNNPredictor(width, head_channels, num_classes)
        nn.init.normal_(self.mask_predictor.mask_fcn_logits.weight, std=0.001)
        self.cells = [around_origin([size * step for step in OCTAVE], RATIOS) for size in SIZES]

    @classmethod
    def from_params(
        cls, params: ModelParams, settings: Settings, num_classes: int, inference: InferenceParams
    ) -> RetinaMask:
        return cls(
            build_extractor(params),
            num_classes=num_classes,
            head_channels=params.head_channels,
            head_convs=params.head_convs,
            settings=settings,
            inference=inference,
        )

    def _codes(self, features: list[Tensor]) -> list[Tensor]:
        return [self.bbox_pred(self.bbox_tower(level)) for level in features]

    def forward_heads(self, features: list[Tensor]) -> RetinaMaskOutputs:
        logits = [self.cls_logits(self.cls_tower(level)) for level in features]
        return RetinaMaskOutputs(features, logits, self._codes(features))

    def _mask_logits(self, features: list[Tensor], boxes: list[Tensor]) -> Tensor:
        return self.mask_predictor(self.mask_head(self.pool(features, boxes))).float()

    def roi_mask_features(self, outputs: RetinaMaskOutputs, boxes: list[Tensor], size: int) -> Tensor:
        """The mask head's last feature map (28 x 28, behind its deconvolution), resized to `size`."""
        hidden = self.mask_head(self.pool(outputs.features, boxes))
        return resized(functional.relu(self.mask_predictor.conv5_mask(hidden)), size)

    # proposals

    def _level_boxes(self, codes: list[Tensor]) -> list[LevelProposals]:
        found = []
        anchors = place(self.cells, codes, self.strides, 0.0)
        for level, own in zip(codes, anchors, strict=True):
            boxes = decode(flatten([level.detach()], 4).float(), own, CODE_WEIGHTS)
            cells = torch.arange(level.shape[-2] * level.shape[-1], device=level.device)
            found.append(LevelProposals(boxes, cells.repeat_interleave(ANCHORS)))
        return found

    def proposals(self, outputs: RetinaMaskOutputs) -> list[LevelProposals]:
        """Nine boxes a location."""
        return self._level_boxes(outputs.codes)

    def propose(self, features: list[Tensor]) -> list[LevelProposals]:
        return self._level_boxes(self._codes(features))

    # training

    def losses(self, outputs: RetinaMaskOutputs, targets: list[Target], sizes: Sequence[Size]) -> dict[str, Tensor]:
        anchors = torch.cat(place(self.cells, outputs.codes, self.strides, 0.0))
        logits = flatten(outputs.logits, self.num_classes).float()
        codes = flatten(outputs.codes, 4).float()
        wanted = torch.zeros_like(logits)
        counted = torch.ones(logits.shape[:2], dtype=torch.bool, device=logits.device)
        predicted, true = [], []
        for image, target in enumerate(targets):
            boxes = target["boxes"].float()
            whole = torch.where((boxes[:, 2:] > boxes[:, :2]).all(dim=1))[0]
            face = match(anchors, boxes[whole], 0.5, 0.4, self.best_match)
            positive = torch.where(face >= 0)[0]
            wanted[image, positive, target["labels"][whole][face[positive]]] = 1
            counted[image] = face != IGNORED
            predicted.append(codes[image, positive])
            true.append(encode(boxes[whole][face[positive]], anchors[positive], CODE_WEIGHTS))
        box = self.box_loss(torch.cat(predicted), torch.cat(true))
        count = mean_over_ranks(torch.tensor(float(len(box)), device=box.device))
        focal = sigmoid_focal_loss(logits, wanted, alpha=0.25, gamma=2.0)
        return {
            "class": (focal * counted[..., None]).sum() / (count + len(targets)),
            "box": box.sum() / (4 * count.clamp(min=1)),
            "mask": self._mask_loss(outputs, targets, sizes),
        }

    def _mask_loss(self, outputs: RetinaMaskOutputs, targets: list[Target], sizes: Sequence[Size]) -> Tensor:
        """Mean cross-entropy of the masks of the boxes found so far, and of the true ones, that overlap a face by an IoU of at
        least 0.5."""
        boxes, faces, valid, labels = [], [], [], []
        settings = self.inference.model_copy(update={"max_detections": self.proposed})
        with torch.no_grad():
            found = self._select(outputs, sizes, settings)
        for (own, _, _), target, (height, width) in zip(found, targets, sizes, strict=True):
            truth = target["boxes"].float()
            whole = torch.where((truth[:, 2:] > truth[:, :2]).all(dim=1))[0]
            every = torch.cat((own, truth[whole]))
            if len(whole):
                iou, face = box_iou(every, truth[whole]).max(dim=1)
                every, face = every[iou >= 0.5], whole[face[iou >= 0.5]]
            else:
                every, face = every[:0], whole
            boxes.append(every)
            faces.append(face)
            labels.append(target["labels"][face])
            # beside the image's last pixel there is that pixel, not the padding
            valid.append(Target(boxes=truth, labels=target["labels"], masks=target["masks"][:, :height, :width]))
        logits = class_masks(self._mask_logits(outputs.features, boxes), torch.cat(labels))
        return mask_loss(logits, box_mask_targets(valid, boxes, faces, MASK_SIDE))

    # inference

    def _select(
        self, outputs: RetinaMaskOutputs, sizes: Sequence[Size], settings: InferenceParams
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Boxes, scores and labels of each image, best first: the best of each level above the threshold, suppressed by
        class."""
        anchors = place(self.cells, outputs.codes, self.strides, 0.0)
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for logits, codes, own in zip(outputs.logits, outputs.codes, anchors, strict=True):
            probability = flatten([logits], self.num_classes).float().sigmoid().flatten(1)
            best, index = probability.topk(min(settings.pre_nms_top, probability.shape[1]), dim=1)
            place_of = index // self.num_classes
            chosen = flatten([codes], 4).float().gather(1, place_of[..., None].expand(-1, -1, 4))
            parts.append((decode(chosen, own[place_of], CODE_WEIGHTS), best, index % self.num_classes))
        every_box, every_score, every_label = (torch.cat(one, dim=1) for one in zip(*parts, strict=True))
        found = []
        for boxes, scores, labels, size in zip(every_box, every_score, every_label, sizes, strict=True):
            boxes = clip_boxes_to_image(boxes, size)
            keep = (scores > settings.score_threshold) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
            boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
            best = batched_nms(boxes, scores, labels, settings.nms_threshold)[: settings.max_detections]
            found.append((boxes[best], scores[best], labels[best]))
        return found

    @torch.no_grad()
    def predict(self, outputs: RetinaMaskOutputs, sizes: Sequence[Size]) -> list[Prediction]:
        found = self._select(outputs, sizes, self.inference)
        labels = torch.cat([label for _, _, label in found])
        masks = class_masks(self._mask_logits(outputs.features, [box for box, _, _ in found]), labels).sigmoid()
        return [
            prediction(box, score, label, PastedMasks(mask, box, size))
            for (box, score, label), mask, size in zip(
                found, masks.split([len(score) for _, score, _ in found]), sizes, strict=True
            )
        ]
