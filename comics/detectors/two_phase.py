"""The two-phase way: a detector finds faces, then a classifier looks at each of them in a crop of its own.

This is what COMICS is proposed against (the paper's introduction), not one of its detectors. The face detector is a run of this
project, its classes taken as one, or a detector of one class that is trained along; boxes and masks are its. The classifier
is a backbone, its map averaged, and one linear layer; it sees nothing but the crop, at a size of its own.

With the component ``dual`` the classifier learns by DCL (`comics.contrast.dual`), which takes what `losses` looked at from
`Outputs.crops`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import nms

from comics.detectors.backbone import TimmBody, build_body
from comics.detectors.base import (
    Detector,
    LevelProposals,
    Prediction,
    Target,
    at_least_float32,
    build,
    crop_features,
    detector_class,
    register,
)
from comics.detectors.pixels import PIXEL_MEAN, PIXEL_STD
from comics.padding import Size, blank
from comics.params import InferenceParams, ModelParams
from comics.params.block import Name
from comics.params.detectors import DetectorSettings
from comics.ranks import as_of_all


class Settings(DetectorSettings):
    """Settings of the two-phase detector."""

    faces: Name | None = None
    """A run whose detections, whatever their class, are the faces: trained before, and never again. Without one, a detector of
    one class is trained along."""
    detector: str = "blendmask"
    """The face detector, where no run is named; of a named run, it is that run's."""
    detector_settings: dict[str, Any] = Field({})
    """Its own settings; of a named run, they are that run's."""
    classifier: str = "resnet50"
    """What looks at a crop; as `backbone`."""
    classifier_width: float = Field(1.0, gt=0, le=4)
    """As `backbone_width`."""
    classifier_weights: Literal["none", "imagenet"] = "none"
    """What the classifier starts from."""
    crop: int = Field(224, ge=64, multiple_of=32)
    """Side of a crop, px."""
    margin: float = Field(0.3, ge=0, le=4)
    """A crop is the square around the box, its side that of the box's longer one, and this share more."""
    jitter: float = Field(0.1, ge=0, lt=0.5)
    """In training, how far a crop is moved to each side, in sides, and made larger or smaller."""

    def of_checkpoint(self) -> Settings:
        return self.model_copy(update={"classifier_weights": "none"})


@dataclass
class Crops:
    """What the classifier has looked at in training.

    Attributes:
        boxes: the squares, (N, 4) xyxy px for each image.
        labels: (sum of N,) class indices.
        maps: (sum of N, C, h, w), of the classifier, with gradient.
    """

    boxes: list[Tensor]
    labels: Tensor
    maps: Tensor


@dataclass
class Outputs:
    """Raw outputs.

    Attributes:
        found: of the face detector; None where it was not needed.
        images: (B, 3, H, W) RGB in [0, 1]; None where nothing but boxes was wanted.
        crops: set by `TwoPhase.losses`; None without a face.
    """

    found: Any
    images: Tensor | None = None
    crops: Crops | None = None


def squares(boxes: Tensor, margin: float) -> Tensor:
    """The square around each box (N, 4) xyxy px: its side is the box's longer one, 1 + `margin` times."""
    centre, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    half = sides.amax(dim=1, keepdim=True) * ((1 + margin) / 2)
    return torch.cat([centre - half, centre + half], dim=1)


def jittered(boxes: Tensor, jitter: float) -> Tensor:
    """Squares (N, 4), each moved by up to `jitter` of its side and scaled by 1 - `jitter` to 1 + `jitter`, at random."""
    draws = (2 * torch.rand(len(boxes), 3, device=boxes.device, dtype=boxes.dtype) - 1) * jitter
    side = boxes[:, 2:3] - boxes[:, :1]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 + draws[:, :2] * side
    half = side * (1 + draws[:, 2:]) / 2
    return torch.cat([centre - half, centre + half], dim=1)


class Classifier(nn.Module):
    """A backbone, its coarsest map averaged, and one linear layer.

    Args:
        params: of the backbone.
        num_classes: classes.
        size: side of a crop, px.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, params: ModelParams, num_classes: int, size: int) -> None:
        super().__init__()
        self.body = build_body(params, (32,))
        self.size = size
        self.channels = self.body.out_channels[-1]
        self.head = nn.Linear(self.channels, num_classes)
        timm = isinstance(self.body, TimmBody)
        mean, std = (self.body.pixel_mean, self.body.pixel_std) if timm else (PIXEL_MEAN, PIXEL_STD)
        self.register_buffer("pixel_mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: Tensor, boxes: Sequence[Tensor], sizes: Sequence[Size]) -> Tensor:
        """The map (sum of N, C, h, w) of each square.

        Args:
            images: (B, 3, H, W) RGB in [0, 1].
            boxes: the squares of each image, (N, 4) xyxy px; what is outside of the image is the mean colour.
            sizes: (height, width) of each image before padding.
        """
        normalised = blank((images - self.pixel_mean) / self.pixel_std, sizes)
        crops = crop_features(normalised, list(boxes), self.size, 1.0, samples=0)
        return self.body(crops.contiguous(memory_format=torch.channels_last))[-1]

    def logits(self, maps: Tensor) -> Tensor:
        """Class logits (N, classes), float32, of maps (N, C, h, w)."""
        return at_least_float32(self.head(maps.mean(dim=(2, 3))))


def one_a_face(found: Prediction, iou: float) -> Prediction:
    """The detections of one image with their classes taken as one: the best of those that overlap by more than `iou`."""
    kept = nms(found["boxes"], found["scores"], iou)
    one: Any = {key: value[kept] for key, value in cast("dict[str, Tensor]", found).items()}
    return cast(Prediction, one)


@register("two_phase", Settings)
class TwoPhase(Detector):
    """A face detector and a classifier of crops.

    Args:
        faces: the face detector.
        classifier: of crops.
        settings: of crops.
        inference: `nms_threshold` also of faces of two classes; `score_threshold` of the score of a face times the probability
            of the class.

    Attributes:
        frozen: whether the face detector was trained before, so that training needs nothing of it.
    """

    def __init__(self, faces: Detector, classifier: Classifier, settings: Settings, inference: InferenceParams) -> None:
        super().__init__()
        self.faces, self.classifier = faces, classifier
        self.margin, self.jitter, self.inference = settings.margin, settings.jitter, inference
        self.kind = settings.detector
        self.frozen = settings.faces is not None
        self.learns_from_features = not self.frozen
        self.strides, self.channels, self.mask_channels = faces.strides, faces.channels, faces.mask_channels
        self.predicts_boxes = faces.predicts_boxes
        if self.frozen:
            faces.requires_grad_(False)

    @property
    def extractor(self) -> nn.Module:  # type: ignore[override]
        """The face detector's."""
        return self.faces.extractor

    @classmethod
    def from_params(
        cls, params: ModelParams, settings: Settings, num_classes: int, inference: InferenceParams
    ) -> TwoPhase:
        """The face detector of `params` with `detector_settings`; a run's has the classes of that run, one's own has one."""
        own = detector_class(settings.detector).Settings.model_validate(settings.detector_settings)
        found = params.model_copy(update={"settings": own})
        faces = build(settings.detector, found, num_classes if settings.faces is not None else 1, inference)
        classifier = Classifier(
            ModelParams(
                backbone=settings.classifier,
                backbone_width=settings.classifier_width,
                weights=settings.classifier_weights,
            ),
            num_classes,
            settings.crop,
        )
        return cls(faces, classifier, settings, inference)

    def train(self, mode: bool = True) -> TwoPhase:
        super().train(mode)
        if self.frozen:
            self.faces.eval()
        return self

    def prepare(self, folder: Path) -> None:
        if not self.frozen:  # otherwise what was prepared is among its weights
            self.faces.prepare(folder)

    def initialised(self, name: str) -> tuple[Detector, str]:
        return self.faces, self.kind

    def normalise(self, images: Tensor, sizes: Sequence[Size] | None = None) -> Tensor:
        return self.faces.normalise(images, sizes)

    def forward_heads(self, features: list[Tensor]) -> Outputs:
        return Outputs(self.faces.forward_heads(features) if features else None)

    def look(self, images: Tensor, features: list[Tensor]) -> Outputs:
        outputs = self.forward_heads(features)
        outputs.images = images
        return outputs

    # training

    def training_squares(self, targets: Sequence[Target]) -> list[Tensor]:
        """The squares of the faces of each image, (N, 4) xyxy px, jittered anew in each call."""
        return [jittered(squares(target["boxes"], self.margin), self.jitter) for target in targets]

    def losses(self, outputs: Outputs, targets: list[Target], sizes: Sequence[Size]) -> dict[str, Tensor]:
        losses = {}
        if not self.frozen:
            alike: list[Target] = [{**target, "labels": torch.zeros_like(target["labels"])} for target in targets]
            found = self.faces.losses(outputs.found, alike, sizes)
            losses = {f"faces_{name}": value for name, value in found.items()}
        assert outputs.images is not None
        boxes = self.training_squares(targets)
        labels = torch.cat([target["labels"] for target in targets])
        if not len(labels):
            nothing = 0.0 * self.classifier.head.bias.sum()
            return {**losses, "class": as_of_all(nothing, 0)}
        maps = self.classifier(outputs.images, boxes, sizes)
        outputs.crops = Crops(boxes, labels, maps)
        loss = functional.cross_entropy(self.classifier.logits(maps), labels)
        return {**losses, "class": as_of_all(loss, len(labels))}

    # inference

    @torch.no_grad()
    def predict(self, outputs: Outputs, sizes: Sequence[Size]) -> list[Prediction]:
        """Both classes of each face: the face's score times the probability that the classifier gives to the class."""
        assert outputs.images is not None
        settings = self.inference
        found = [one_a_face(one, settings.nms_threshold) for one in self.faces.predict(outputs.found, sizes)]
        counts = [len(one["scores"]) for one in found]
        if not sum(counts):
            return found
        maps = self.classifier(outputs.images, [squares(one["boxes"], self.margin) for one in found], sizes)
        probabilities = self.classifier.logits(maps).softmax(dim=1).split(counts)
        return [self._of_both(one, shares) for one, shares in zip(found, probabilities, strict=True)]

    def _of_both(self, found: Prediction, shares: Tensor) -> Prediction:
        """The faces of one image, once for each class, with their probabilities (N, classes)."""
        scores = (found["scores"][:, None] * shares).flatten()
        order = scores.argsort(descending=True, stable=True)
        order = order[scores[order] > self.inference.score_threshold][: self.inference.max_detections]
        face = order // shares.shape[1]
        both = Prediction(
            boxes=found["boxes"][face],
            scores=scores[order],
            labels=order % shares.shape[1],
            masks=found["masks"][face],
        )
        if "soft" in found:
            both["soft"] = found["soft"][face]
        if "mask_scores" in found:
            both["mask_scores"] = (found["mask_scores"][:, None] * shares).flatten()[order]
        return both

    # what plug-ins need is the face detector's

    def proposals(self, outputs: Outputs) -> list[LevelProposals]:
        return self.faces.proposals(outputs.found)

    def propose(self, features: list[Tensor]) -> list[LevelProposals]:
        return self.faces.propose(features)

    def roi_mask_features(self, outputs: Outputs, boxes: list[Tensor], size: int) -> Tensor:
        return self.faces.roi_mask_features(outputs.found, boxes, size)
