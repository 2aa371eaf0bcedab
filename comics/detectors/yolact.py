"""YOLACT (Bolya, Zhou, Xiao and Lee, ICCV 2019): a single-shot detector whose masks are combinations of prototypes.

A small network draws k prototype maps for the whole image. Each anchor predicts, beside its class and its box, k coefficients;
the sum of the prototypes times these, cut to the box, is the mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import box_iou, clip_boxes_to_image

from comics.detectors.anchors import IGNORED, around_origin, decode, encode, flatten, match, place
from comics.detectors.backbone import Extractor, build_extractor
from comics.detectors.base import Detector, LevelProposals, Prediction, Size, Target, prediction, register
from comics.detectors.fcos import mean_over_ranks
from comics.detectors.soft_masks import MapMasks
from comics.params import InferenceParams, ModelParams
from comics.params.detectors import DetectorSettings

SIZES = (24, 48, 96, 192, 384)  # px, of the anchors of the levels
RATIOS = (1.0, 2.0, 0.5)  # height / width, in the order of the authors' weights
CODE_WEIGHTS = (10.0, 5.0)  # SSD's variances of 0.1 and 0.2
BOX_WEIGHT, MASK_WEIGHT, SEMANTIC_WEIGHT = 1.5, 6.125, 1.0
NEGATIVES = 3  # a positive anchor, of those that are taken for a face most


class Settings(DetectorSettings):
    """Settings of YOLACT."""

    published_inference: ClassVar = {"nms_threshold": 0.5, "pre_nms_top": 200}
    training_code: ClassVar = 1

    prototypes: PositiveInt = 32
    """Maps that masks are combined from."""
    anchor_scale: float = Field(1.0, gt=0)
    """Factor on the sides of the anchors, which are published for images of 550 px."""
    masks: PositiveInt = 100
    """Anchors an image, at most, whose masks are trained."""


@dataclass
class YOLACTOutputs:
    """Raw outputs.

    Attributes:
        features: pyramid maps.
        logits: (B, A (classes + 1), h, w) a level, the background first.
        codes: (B, A 4, h, w) a level.
        coefficients: (B, A k, h, w) a level, between -1 and 1.
        prototypes: (B, k, H / 4, W / 4), not negative.
        prototype_features: (B, C, H / 4, W / 4), what they are drawn from.
    """

    features: list[Tensor]
    logits: list[Tensor]
    codes: list[Tensor]
    coefficients: list[Tensor]
    prototypes: Tensor
    prototype_features: Tensor


def _conv(inputs: int, outputs: int, kernel_size: int = 3) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


class ProtoNet(nn.Module):
    """P3 to prototypes at twice its resolution (figure 3).

    Args:
        in_channels: of P3.
        channels: width.
        count: of prototypes.
    """

    def __init__(self, in_channels: int, channels: int, count: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_conv(channels if step else in_channels, channels) for step in range(3))
        self.fine = _conv(channels, channels)
        self.prototypes = _conv(channels, count, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Prototypes (B, k, 2 h, 2 w) and the features (B, channels, 2 h, 2 w) behind them."""
        for conv in self.convs:
            x = functional.relu(conv(x))
        x = functional.relu(functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))
        x = functional.relu(self.fine(x))
        return functional.relu(self.prototypes(x)), x


def fast_nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Which of the boxes (classes, N, 4), each class by falling scores (classes, N), no better one of their class overlaps by
    more than `threshold`, be that one suppressed itself or not (section 5): (classes, N) bool."""
    iou = torch.stack([box_iou(one, one) for one in boxes]).triu(diagonal=1)
    return iou.amax(dim=1) <= threshold


def inside_boxes(boxes: Tensor, shape: tuple[int, int], stride: float) -> Tensor:
    """Cells (N, h, w), bool, of maps with `stride` whose corners lie in boxes (N, 4) or by less than a cell outside, as its
    authors' code cuts masks."""
    left, top, right, bottom = (boxes / stride)[:, :, None, None].unbind(1)
    y = torch.arange(shape[0], device=boxes.device).view(-1, 1)
    x = torch.arange(shape[1], device=boxes.device).view(1, -1)
    return (x >= left - 1) & (x < right + 1) & (y >= top - 1) & (y < bottom + 1)


def hard_negatives(logits: Tensor, labels: Tensor, ratio: int) -> Tensor:
    """The negative anchors of an image that train the classes: those least sure to be background, `ratio` times as many as there
    are positive ones (SSD, Liu et al., ECCV 2016, section 2.2).

    Args:
        logits: (L, classes + 1), the background first.
        labels: (L,), 0 for background, above for a face, below for neither.

    Returns:
        (L,) bool.
    """
    unsure = logits.logsumexp(dim=1) - logits[:, 0]
    unsure = torch.where(labels == 0, unsure, -torch.inf)
    count = min(ratio * int((labels > 0).sum()), int((labels == 0).sum()))
    chosen = torch.zeros_like(labels, dtype=torch.bool)
    chosen[unsure.topk(count).indices] = True
    return chosen


@register("yolact", Settings)
class YOLACT(Detector):
    """See the module.

    Args:
        extractor: images to pyramid maps P3 to P7.
        num_classes: foreground classes.
        head_channels: width of the shared head and of the prototypes' network (256).
        settings: of prototypes and anchors.
        inference: thresholds and numbers kept; `pre_nms_top` is the number a class that goes into suppression.
    """

    octave: ClassVar[tuple[float, ...]] = (1.0,)
    scores_masks: ClassVar[bool] = False

    def __init__(
        self,
        extractor: Extractor,
        *,
        num_classes: int,
        head_channels: int = 256,
        settings: Settings | None = None,
        inference: InferenceParams | None = None,
    ) -> None:
        super().__init__()
        settings = settings or Settings()
        self.extractor, self.strides, self.channels = extractor, extractor.strides, extractor.channels
        self.mask_channels = head_channels
        self.num_classes, self.prototypes, self.most_masks = num_classes, settings.prototypes, settings.masks
        self.inference = inference or InferenceParams(**Settings.published_inference)
        self.anchors = len(self.octave) * len(RATIOS)
        self.cells = [
            around_origin([size * step * settings.anchor_scale for step in self.octave], RATIOS) for size in SIZES
        ]
        self.protonet = ProtoNet(self.channels, head_channels, settings.prototypes)
        self.shared = _conv(self.channels, head_channels)
        self.cls_logits = _conv(head_channels, self.anchors * (num_classes + 1))
        self.bbox_pred = _conv(head_channels, self.anchors * 4)
        self.coefficients = _conv(head_channels, self.anchors * settings.prototypes)
        self.semantic = _conv(self.channels, num_classes, 1)
        self.mask_stride = self.strides[0] // 2

    @classmethod
    def from_params(
        cls, params: ModelParams, settings: Settings, num_classes: int, inference: InferenceParams
    ) -> YOLACT:
        """YOLACT of the published sizes at `head_channels` 256; `head_convs` has no meaning here."""
        return cls(
            build_extractor(params),
            num_classes=num_classes,
            head_channels=params.head_channels,
            settings=settings,
            inference=inference,
        )

    def forward_heads(self, features: list[Tensor]) -> YOLACTOutputs:
        shared = [functional.relu(self.shared(level)) for level in features]
        prototypes, behind = self.protonet(features[0])
        return YOLACTOutputs(
            features=features,
            logits=[self.cls_logits(level) for level in shared],
            codes=[self.bbox_pred(level) for level in shared],
            coefficients=[self.coefficients(level).tanh() for level in shared],
            prototypes=prototypes,
            prototype_features=behind,
        )

    def mask_map(self, outputs: YOLACTOutputs) -> tuple[Tensor, int]:
        """The map behind the prototypes."""
        return outputs.prototype_features, self.mask_stride

    # proposals

    def _level_boxes(self, codes: list[Tensor]) -> list[LevelProposals]:
        found = []
        for level, own in zip(codes, place(self.cells, codes, self.strides, 0.5), strict=True):
            boxes = decode(flatten([level.detach()], 4).float(), own, CODE_WEIGHTS)
            cells = torch.arange(level.shape[-2] * level.shape[-1], device=level.device)
            found.append(LevelProposals(boxes, cells.repeat_interleave(self.anchors)))
        return found

    def proposals(self, outputs: YOLACTOutputs) -> list[LevelProposals]:
        """The anchors' boxes, three a location."""
        return self._level_boxes(outputs.codes)

    def propose(self, features: list[Tensor]) -> list[LevelProposals]:
        return self._level_boxes([self.bbox_pred(functional.relu(self.shared(level))) for level in features])

    # training

    def losses(self, outputs: YOLACTOutputs, targets: list[Target], sizes: Sequence[Size]) -> dict[str, Tensor]:
        """As SSD: cross-entropy of positive and hard negative anchors, smooth L1 of the positive ones' boxes; and the masks of
        those, and a semantic segmentation from P3."""
        anchors = torch.cat(place(self.cells, outputs.codes, self.strides, 0.5))
        logits = flatten(outputs.logits, self.num_classes + 1).float()
        codes = flatten(outputs.codes, 4).float()
        coefficients = flatten(outputs.coefficients, self.prototypes).float()
        nothing = logits.sum() * 0 + codes.sum() * 0 + coefficients.sum() * 0 + outputs.prototypes.float().sum() * 0
        kinds, box, mask, scoring = [nothing], [nothing], [nothing], [nothing]
        positives = 0
        for image, target in enumerate(targets):
            boxes = target["boxes"].float()
            whole = torch.where((boxes[:, 2:] > boxes[:, :2]).all(dim=1))[0]
            face = match(anchors, boxes[whole], 0.5, 0.4, 0.0)
            positive = torch.where(face >= 0)[0]
            own = whole[face[positive]]
            labels = torch.where(face == IGNORED, -1, 0)
            labels[positive] = target["labels"][own] + 1
            counted = hard_negatives(logits[image].detach(), labels, NEGATIVES) | (labels > 0)
            kinds.append(functional.cross_entropy(logits[image, counted], labels[counted], reduction="sum"))
            wanted = encode(boxes[own], anchors[positive], CODE_WEIGHTS)
            box.append(functional.smooth_l1_loss(codes[image, positive], wanted, reduction="sum"))
            if len(own):
                drawn, iou = self._mask_losses(outputs.prototypes[image], coefficients[image, positive], target, own)
                mask.append(drawn)
                if iou is not None:
                    scoring.append(iou)
            positives += len(positive)
        count = mean_over_ranks(torch.tensor(float(positives), device=logits.device)).clamp(min=1)
        found = {
            "class": torch.stack(kinds).sum() / count,
            "box": BOX_WEIGHT * torch.stack(box).sum() / count,
            "mask": MASK_WEIGHT * torch.stack(mask).sum() / count,
            "semantic": SEMANTIC_WEIGHT * self._semantic_loss(outputs.features[0], targets),
        }
        if self.scores_masks:
            found["mask_iou"] = torch.stack(scoring).sum() / count
        return found

    def _combine(self, prototypes: Tensor, coefficients: Tensor) -> Tensor:
        """Mask logits (P, h, w), float32, of coefficients (P, k) on one image's prototypes (k, h, w)."""
        with torch.autocast(prototypes.device.type, enabled=False):
            drawn = coefficients.float() @ prototypes.float().flatten(1)
        return drawn.view(-1, *prototypes.shape[1:])

    def _mask_losses(
        self, prototypes: Tensor, coefficients: Tensor, target: Target, faces: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Cross-entropy inside of the true boxes, divided by their area, summed over anchors, or over a random choice of
        `most_masks` of them, for which it is scaled up; and the sum of `_iou_loss` over the same, which is not."""
        total = len(faces)
        if total > self.most_masks:
            chosen = torch.randperm(total, device=faces.device)[: self.most_masks]
            coefficients, faces = coefficients[chosen], faces[chosen]
        shape = (prototypes.shape[1], prototypes.shape[2])
        small = functional.interpolate(target["masks"][None].float(), size=shape, mode="bilinear", align_corners=False)
        wanted = (small[0] > 0.5).float()[faces]
        drawn = self._combine(prototypes, coefficients)
        error = functional.binary_cross_entropy_with_logits(drawn, wanted, reduction="none")
        boxes = target["boxes"][faces].float()
        inside = inside_boxes(boxes, shape, self.mask_stride)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1) / self.mask_stride**2
        each = (error * inside).sum(dim=(1, 2)) / area.clamp(min=1)
        iou = self._iou_loss((drawn.sigmoid() * inside).detach(), wanted, target["labels"][faces])
        return each.sum() * (total / len(faces)), iou

    def _iou_loss(self, masks: Tensor, wanted: Tensor, labels: Tensor) -> Tensor | None:
        """Of what expects the IoU of masks (P, h, w), probabilities cut to their boxes, with `wanted` (P, h, w): a sum; None
        where nothing does."""
        return None

    def _semantic_loss(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        """Mean over pixels and images of the summed cross-entropy of each class, which overlapping classes may share."""
        logits = self.semantic(features).float()
        shape = (logits.shape[2], logits.shape[3])
        wanted = torch.zeros_like(logits)
        for image, target in enumerate(targets):
            masks, labels = target["masks"], target["labels"]
            if len(masks):
                small = functional.interpolate(masks[None].float(), size=shape, mode="bilinear", align_corners=False)
                for label, mask in zip(labels.tolist(), small[0] > 0.5, strict=True):
                    wanted[image, label][mask] = 1
        error = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
        return error / (len(targets) * shape[0] * shape[1])

    # inference

    def _detect(self, outputs: YOLACTOutputs, sizes: Sequence[Size]) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Boxes, scores, labels and coefficients of each image, best first."""
        settings = self.inference
        anchors = torch.cat(place(self.cells, outputs.codes, self.strides, 0.5))
        probability = flatten(outputs.logits, self.num_classes + 1).float().softmax(dim=2)[..., 1:]
        codes = flatten(outputs.codes, 4).float()
        coefficients = flatten(outputs.coefficients, self.prototypes).float()
        found = []
        for image, size in enumerate(sizes):
            kept = torch.where(probability[image].amax(dim=1) > settings.score_threshold)[0]
            boxes = clip_boxes_to_image(decode(codes[image, kept], anchors[kept], CODE_WEIGHTS), size)
            whole = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
            kept, boxes = kept[whole], boxes[whole]
            count = min(settings.pre_nms_top, len(kept))
            scores, index = probability[image, kept].T.sort(dim=1, descending=True, stable=True)
            scores, index = scores[:, :count], index[:, :count]
            alive = scores > settings.score_threshold
            if count:
                alive = alive & fast_nms(boxes[index], scores, settings.nms_threshold)
            labels, place_of = torch.where(alive)
            best = scores[labels, place_of].argsort(descending=True, stable=True)[: settings.max_detections]
            labels, place_of = labels[best], place_of[best]
            chosen = index[labels, place_of]
            found.append((boxes[chosen], scores[labels, place_of], labels, coefficients[image, kept[chosen]]))
        return found

    @torch.no_grad()
    def predict(self, outputs: YOLACTOutputs, sizes: Sequence[Size]) -> list[Prediction]:
        predictions = []
        for image, (boxes, scores, labels, coefficients) in enumerate(self._detect(outputs, sizes)):
            drawn = self._combine(outputs.prototypes[image], coefficients).sigmoid()
            shape = (drawn.shape[1], drawn.shape[2])
            drawn = drawn * inside_boxes(boxes, shape, self.mask_stride)
            one = prediction(boxes, scores, labels, MapMasks(drawn, sizes[image], self.mask_stride, direct=True))
            factors = self._mask_factors(drawn, labels)
            if factors is not None:
                one["mask_scores"] = scores * factors
            predictions.append(one)
        return predictions

    def _mask_factors(self, masks: Tensor, labels: Tensor) -> Tensor | None:
        """Factors (N,) from scores of boxes to scores of masks (N, h, w), probabilities cut to their boxes; None where both are
        one."""
        return None
