"""The detector contract: what every instance segmenter takes and gives, and the registry of their names.

`comics.contrast` and `comics.model` see a detector only through the classes below, so a new detector has every
component of COMICS for nothing. docs/add-a-detector.md is a worked example.

Shapes: B images a batch, padded on the right and below to H x W, a multiple of 32; N objects of one image. Boxes are (left, top,
right, bottom) in pixels. Class indices count from 0 (`comics.classes`).
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NotRequired, TypedDict, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import roi_align

from comics.detectors.pixels import PIXEL_MEAN, PIXEL_STD
from comics.detectors.soft_masks import SoftMasks
from comics.errors import UserError
from comics.padding import Size, blank
from comics.params import DetectorSettings, InferenceParams, ModelParams
from comics.params.detectors import declare, external, is_built_in


class Target(TypedDict):
    """The faces of one image."""

    boxes: Tensor
    """(N, 4) float32, xyxy px."""
    labels: Tensor
    """(N,) int64 class indices."""
    masks: Tensor
    """(N, H, W) bool, at the padded size."""


class Prediction(TypedDict):
    """The detections of one image, best first."""

    boxes: Tensor
    """(N, 4) float32, xyxy px."""
    scores: Tensor
    """(N,) float32 in [0, 1]."""
    labels: Tensor
    """(N,) int64 class indices."""
    masks: Tensor
    """(N, h, w) bool, at the valid size of the image."""
    mask_scores: NotRequired[Tensor]
    """(N,) float32 in [0, 1], where a detector scores masks in another way than boxes; the order is that of `scores`."""
    soft: NotRequired[SoftMasks]
    """What `masks` are cut from, for other sizes of the image."""


def prediction(boxes: Tensor, scores: Tensor, labels: Tensor, soft: SoftMasks) -> Prediction:
    """The detections of one image and their masks, cut at the size of the image that the network saw."""
    return Prediction(boxes=boxes, scores=scores, labels=labels, masks=soft.at(soft.size), soft=soft)


@dataclass
class LevelProposals:
    """The boxes that one pyramid level proposes, one or more a location.

    Attributes:
        boxes: (B, N, 4) xyxy px, float32, detached.
        locations: (N,) int64, the row-major index of each box's cell in the level's map.
    """

    boxes: Tensor
    locations: Tensor


class Detector(nn.Module, ABC):
    """An instance segmenter in four steps: normalise, extract, heads, then losses or predictions.

    ::

        features = detector.extractor(detector.normalise(images, sizes))   # pyramid maps, finest first
        outputs = detector.forward_heads(features)                         # raw; every detector has its own dataclass
        losses = detector.losses(outputs, targets, sizes)                  # or
        predictions = detector.predict(outputs, sizes)

    Subclasses set the attributes below and implement `from_params`, `forward_heads`, `losses`, `predict`, `proposals`, and either
    `mask_map` or `roi_mask_features`.

    Attributes:
        Settings: what it alone needs to know; the class stands in its file, see `comics.params.detectors`.
        extractor: images to pyramid maps; the part that has a momentum copy.
        strides: px between the cells of each pyramid level.
        channels: of the pyramid maps.
        mask_channels: of `roi_mask_features`.
        predicts_boxes: False when boxes are only drawn around masks (box scores are then left empty).
        learns_from_features: False when `losses` asks for neither pyramid maps nor raw outputs made of them.
    """

    Settings: ClassVar[type[DetectorSettings]] = DetectorSettings

    extractor: nn.Module
    strides: tuple[int, ...]
    channels: int
    mask_channels: int
    predicts_boxes: bool = True
    learns_from_features: bool = True

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(1, 3, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).view(1, 3, 1, 1))

    @classmethod
    @abstractmethod
    def from_params(cls, params: ModelParams, settings: Any, num_classes: int, inference: InferenceParams) -> Detector:
        """The detector as params.yaml describes it.

        Args:
            params: sizes of the network.
            settings: an instance of `Settings`.
            num_classes: foreground classes.
            inference: thresholds and numbers kept of `predict`.
        """

    def normalise(self, images: Tensor, sizes: Sequence[Size] | None = None) -> Tensor:
        """Images (B, 3, H, W) RGB in [0, 1] to what the extractor takes, channels last in memory.

        Outside of `sizes` it is 0, the mean colour, whatever the padding holds: so do detectron2, AdelaiDet and torchvision,
        which pad after normalisation. Black would be an edge beside every image.
        """
        normalised = (images - self.pixel_mean) / self.pixel_std
        return blank(normalised, sizes).contiguous(memory_format=torch.channels_last)

    def forward(self, images: Tensor, sizes: Sequence[Size] | None = None) -> Any:
        """Raw head outputs of `images` (B, 3, H, W), RGB in [0, 1], of `sizes` before they were padded to a multiple of 32."""
        return self.look(images, self.extractor(self.normalise(images, sizes)))

    @abstractmethod
    def forward_heads(self, features: list[Tensor]) -> Any:
        """Raw outputs of the heads on pyramid maps (B, C, H / stride, W / stride)."""

    def look(self, images: Tensor, features: list[Tensor]) -> Any:
        """Raw outputs on the pyramid maps of `images` (B, 3, H, W), RGB in [0, 1]: `forward_heads`, but for a detector that looks
        at the pixels a second time."""
        return self.forward_heads(features)

    def initialised(self, name: str) -> tuple[Detector, str]:
        """The part that a file of initial weights is for, and its kind: by default all of it, `name`."""
        return self, name

    @abstractmethod
    def losses(self, outputs: Any, targets: list[Target], sizes: Sequence[Size]) -> dict[str, Tensor]:
        """Scalar loss terms whose sum is the detector's loss; finite for images without faces."""

    @abstractmethod
    def predict(self, outputs: Any, sizes: Sequence[Size]) -> list[Prediction]:
        """Detections of each image, masks at its valid size."""

    @abstractmethod
    def proposals(self, outputs: Any) -> list[LevelProposals]:
        """Boxes before any suppression, one entry a pyramid level."""

    def propose(self, features: list[Tensor]) -> list[LevelProposals]:
        """`proposals` from pyramid maps alone. Override it to run only what boxes need."""
        return self.proposals(self.forward_heads(features))

    def prepare(self, folder: Path) -> None:
        """Before training: read what a pipeline step made for this detector from the training split.

        Args:
            folder: of the dataset, `data/<dataset>`.

        Raises:
            UserError: it is not there; the remedy names the command that makes it.
        """

    def implied(self, family: str) -> dict[str, Tensor]:
        """Buffers that do not stand in a file of weights but that its tensors are made for; by default none.

        Args:
            family: of the file, as `comics.weights.checkpoint` calls it.
        """
        return {}

    def mask_map(self, outputs: Any) -> tuple[Tensor, int]:
        """The feature map (B, mask_channels, h, w) that masks are made from, and its stride in px."""
        raise NotImplementedError(f"{type(self).__name__} implements neither mask_map nor roi_mask_features")

    def roi_mask_features(self, outputs: Any, boxes: list[Tensor], size: int) -> Tensor:
        """Mask features of boxes.

        Args:
            outputs: of `forward_heads`.
            boxes: one (N, 4) tensor an image, xyxy px.
            size: side of the result.

        Returns:
            (sum of N, mask_channels, size, size), in the order of `boxes`, with gradient to the features.
        """
        features, stride = self.mask_map(outputs)
        return sample_boxes(features, boxes, size, stride)


DetectorT = TypeVar("DetectorT", bound=Detector)


def at_least_float32(x: Tensor) -> Tensor:
    """`x`, in float32 where it is of half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def crop_features(features: Tensor, boxes: Tensor | list[Tensor], size: int, stride: float, samples: int = 1) -> Tensor:
    """RoIAlign (He et al., ICCV 2017) without the half-pixel misalignment of its first version.

    Args:
        features: (B, C, H, W).
        boxes: one (N, 4) tensor an image, xyxy px; or (N, 5), the image's index in front.
        size: side of the result.
        stride: px between the cells of `features`.
        samples: a side of each bin; 0 takes as many as there are cells.

    Returns:
        (sum of N, C, size, size), float32.
    """
    features = at_least_float32(features)
    rois = boxes.to(features.dtype) if isinstance(boxes, Tensor) else [box.to(features.dtype) for box in boxes]
    with torch.autocast(features.device.type, enabled=False):
        return roi_align(features, rois, size, 1.0 / stride, sampling_ratio=samples, aligned=True)


def _axis(low: Tensor, high: Tensor, size: int, length: int, stride: float) -> tuple[Tensor, Tensor]:
    """For `size` samples between `low` and `high` (N,), px: the two cells beside each, of a map of `length` cells, and
    their weights, 0 for samples outside of the map: (N, size, 2) each."""
    centres = (torch.arange(size, device=low.device, dtype=low.dtype) + 0.5) / size
    place = (low[:, None] + (high - low)[:, None] * centres) / stride - 0.5
    inside = (place >= -1) & (place <= length)
    place = place.clamp(0, length - 1)
    first = place.floor()
    share = place - first
    cells = torch.stack([first, (first + 1).clamp(max=length - 1)], dim=2)
    return cells.long(), torch.stack([1 - share, share], dim=2) * inside[:, :, None]


def _images_of(boxes: list[Tensor]) -> Tensor:
    """The index of the image of each box, (sum of N,)."""
    counts = torch.tensor([len(box) for box in boxes], device=boxes[0].device)
    return torch.arange(len(boxes), device=boxes[0].device).repeat_interleave(counts)


def sample_boxes(features: Tensor, boxes: list[Tensor], size: int, stride: float) -> Tensor:
    """`crop_features` with one sample a bin, for maps of many channels in channels-last memory.

    Each result is a weighted sum of four rows of C numbers, which is what `embedding_bag` computes: on a processor its
    backward pass takes a quarter of RoIAlign's time at 48 channels.
    """
    features = at_least_float32(features)
    channels, height, width = features.shape[1:]
    rois = torch.cat(boxes).to(features.dtype)
    rows, row_weights = _axis(rois[:, 1], rois[:, 3], size, height, stride)
    columns, column_weights = _axis(rois[:, 0], rois[:, 2], size, width, stride)
    cells = (_images_of(boxes)[:, None, None] * height + rows) * width  # (N, size, 2)
    cells = cells[:, :, None, :, None] + columns[:, None, :, None, :]
    weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
    with torch.autocast(features.device.type, enabled=False):
        sampled = functional.embedding_bag(
            cells.reshape(-1, 4),
            features.permute(0, 2, 3, 1).reshape(-1, channels),
            mode="sum",
            per_sample_weights=weights.reshape(-1, 4),
        )
    return sampled.view(len(rois), size, size, channels).permute(0, 3, 1, 2)


def sample_few(features: Tensor, boxes: list[Tensor], size: int, stride: float) -> Tensor:
    """`crop_features` with one sample a bin, for maps of few channels.

    Bilinear sampling is separable, so a crop is the map between two matrices, one an axis: on a processor the backward pass of
    four channels takes a tenth of RoIAlign's.
    """
    features = at_least_float32(features)
    height, width = features.shape[-2:]
    rois = torch.cat(boxes).to(features.dtype)
    matrices = []
    for low, high, length in ((rois[:, 1], rois[:, 3], height), (rois[:, 0], rois[:, 2], width)):
        cells, weights = _axis(low, high, size, length, stride)
        matrices.append(weights.new_zeros(len(rois), size, length).scatter_add_(2, cells, weights))
    down, across = matrices
    with torch.autocast(features.device.type, enabled=False):
        maps = features.index_select(0, _images_of(boxes))
        return down[:, None] @ maps @ across[:, None].transpose(2, 3)


# --------------------------------------------------------------------------------------------------------- registry

_CLASSES: dict[str, type[Detector]] = {}


def register(
    name: str, settings: type[DetectorSettings] = DetectorSettings
) -> Callable[[type[DetectorT]], type[DetectorT]]:
    """Decorator of a `Detector`: `detector: name` in params.yaml means the decorated class, with these settings."""

    def add(detector: type[DetectorT]) -> type[DetectorT]:
        detector.Settings = settings
        _CLASSES[name] = detector
        declare(name, settings)
        return detector

    return add


def detector_class(name: str) -> type[Detector]:
    """The class of the detector `name`: one of `names()`, ``module:Class``, or the name of an entry point.

    Raises:
        UserError: there is no such detector.
    """
    if name not in _CLASSES and is_built_in(name):
        importlib.import_module(f"comics.detectors.{name}")
    if name not in _CLASSES:
        found = external(name)
        if not issubclass(found, Detector):
            raise UserError(f"detector '{name}': {found.__name__} does not derive from comics.detectors.Detector.")
        _CLASSES[name] = found
    return _CLASSES[name]


def build(
    name: str, model_params: ModelParams, num_classes: int = 2, inference: InferenceParams | None = None
) -> Detector:
    """The detector `name`, freshly initialised, its weights channels last in memory.

    The backbone has its ImageNet weights where `model_params` asks for them. A file of weights is for the whole detector:
    `comics.model.Comics` has it read.

    Args:
        name: as for `detector_class`.
        model_params: sizes of the network and the detector's own settings.
        num_classes: foreground classes.
        inference: thresholds and numbers kept of `Detector.predict`; the defaults are the published ones.

    Raises:
        UserError: no such detector, or the backbone's ImageNet weights are not to be had.
    """
    kind = detector_class(name)
    settings = kind.Settings.model_validate(model_params.settings.model_dump())
    inference = inference or InferenceParams(**kind.Settings.published_inference)
    detector = kind.from_params(model_params, settings, num_classes, inference)
    body: Any = getattr(detector.extractor, "body", None)
    if hasattr(body, "pixel_mean"):  # of the images that a timm model's weights expect
        detector.pixel_mean.copy_(torch.tensor(body.pixel_mean).view(1, 3, 1, 1))
        detector.pixel_std.copy_(torch.tensor(body.pixel_std).view(1, 3, 1, 1))
    return detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
