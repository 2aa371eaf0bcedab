"""``detector: detectron2``: a model of detectron2 or AdelaiDet behind our detector contract."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from comics.data.loading.batches import padded
from comics.detectors.base import Detector, LevelProposals, Prediction, Target
from comics.detectors.cells import boxes_of_masks
from comics.errors import UserError
from comics.integrations.detectron2.configuration import built, content_of, lazily_built
from comics.integrations.detectron2.families import Given, family_of, given, pixels_of
from comics.integrations.detectron2.package import part
from comics.padding import Size
from comics.params import InferenceParams, ModelParams
from comics.params.detectors import DetectorSettings

UNSET = -1.0
"""A running number that the model has not begun."""


class Detectron2Settings(DetectorSettings):
    """Settings of a detector of detectron2 or AdelaiDet."""

    config: str = ""
    """Its configuration file, YAML or detectron2's Python. `model:` of params.yaml decides nothing of it."""
    weights: str = ""
    """A checkpoint that detectron2's checkpointer reads; "" takes the configuration's own, `none` fresh ones."""
    project: Literal["detectron2", "adelaidet"] = "detectron2"
    """Whose keys the configuration has."""
    options: list[str] = Field([])
    """Keys and values, by turns, that are laid on the configuration."""

    def of_checkpoint(self) -> Detectron2Settings:
        return self.model_copy(update={"weights": "none"})

    def contents(self) -> dict[str, str]:
        return {"config": content_of(Path(self.config))} if self.config else {}


class NamedExtractor(nn.Module):
    """A backbone whose maps have names, as a list of them, finest first."""

    def __init__(self, backbone: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.backbone = backbone
        self.names = list(names)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.backbone(images)
        return [maps[name] for name in self.names]


@dataclass
class Outputs:
    """Pyramid maps; the heads run where they are asked for."""

    features: list[Tensor]


class Detectron2Detector(Detector):
    """A model of detectron2: its backbone is the extractor, its own losses and detections are the detector's.

    Boxes of the contrast and features of masks come from an adapter (`comics.integrations.detectron2.families`). A model that
    predicts no masks has its boxes for masks.

    Args:
        model: of detectron2's ``build_model``; its backbone is taken out of it.
        bgr: whether it takes BGR images.
    """

    Settings = Detectron2Settings

    moving: Tensor
    """Running numbers of the model's losses, which it keeps outside of its state dict: a resumed training goes on with them."""

    def __init__(self, model: Any, bgr: bool = True) -> None:
        super().__init__()
        self.family = family_of(model)
        self.strides, self.channels = self.family.strides, self.family.channels
        self.mask_channels = self.family.mask_channels(model)
        self.bgr = bgr
        for ours, theirs in zip((self.pixel_mean, self.pixel_std), pixels_of(model), strict=True):
            values = theirs / 255
            ours.copy_((values.flip(0) if bgr else values).view(1, 3, 1, 1))
        self.extractor = NamedExtractor(model.backbone, self.family.names)
        model.backbone = Given(model.backbone)
        if "normalizer" in vars(model):
            # AdelaiDet's, on the device that it was built for; the values are never looked at
            model.normalizer = _as_it_is
        self.model = model
        self.register_buffer("moving", torch.full((len(self.family.moving(model)),), UNSET))

    @classmethod
    def from_params(
        cls, params: ModelParams, settings: Detectron2Settings, num_classes: int, inference: InferenceParams
    ) -> Detectron2Detector:
        """The model of a configuration file, for `num_classes` classes and with our thresholds.

        Raises:
            UserError: detectron2 is not installed, or the configuration is not there or not usable.
        """
        if not settings.config or not Path(settings.config).is_file():
            part()  # without the package, that is said first
            raise UserError(
                f"detector: detectron2: config: {settings.config or 'none given'}: no such file.",
                "Give the configuration file: `model: {detectron2: {config: FILE}}`.",
            )
        build = lazily_built if settings.config.endswith(".py") else built
        found = build(settings.config, settings.project, settings.options, num_classes, inference)
        weights = settings.weights or found.weights
        if weights not in ("", "none"):
            part("checkpoint").DetectionCheckpointer(found.model).load(weights)
        return cls(found.model, bgr=found.image_format.upper() == "BGR")

    def normalise(self, images: Tensor, sizes: Sequence[Size] | None = None) -> Tensor:
        normalised = super().normalise(images, sizes)
        return normalised.flip(1) if self.bgr else normalised

    def forward_heads(self, features: list[Tensor]) -> Outputs:
        return Outputs(features)

    def _inputs(self, outputs: Outputs, sizes: Sequence[Size]) -> list[dict[str, Any]]:
        """What its ``forward`` takes. The images' values are never looked at: its maps are there already."""
        height, width = (length * self.strides[0] for length in outputs.features[0].shape[-2:])
        most = [padded(max(lengths)) for lengths in zip(*sizes, strict=True)]
        whole = most != [height, width]  # then its own padding would be another than ours
        device = outputs.features[0].device
        return [
            {
                "image": torch.zeros(3, *((height, width) if whole else size), device=device),
                "height": height if whole else size[0],
                "width": width if whole else size[1],
            }
            for size in sizes
        ]

    @contextmanager
    def _run(self, outputs: Outputs, training: bool) -> Iterator[Any]:
        before = self.model.training
        self.model.train(training)
        if "device" in vars(self.model):  # AdelaiDet's keep the one that they were built for
            self.model.device = outputs.features[0].device
        places = self.family.moving(self.model) if training else []
        for (owner, name), value in zip(places, self.moving.tolist(), strict=False):
            if value != UNSET:
                setattr(owner, name, value)
        try:
            with given(self.model, self.family.names, outputs.features), part("utils.events").EventStorage(0):
                yield self.model
            for index, (owner, name) in enumerate(places):
                self.moving[index] = getattr(owner, name, UNSET)
        finally:
            self.model.train(before)

    def losses(self, outputs: Outputs, targets: list[Target], sizes: Sequence[Size]) -> dict[str, Tensor]:
        """The model's own; of the images with faces where it cannot do with others, and 0 without any."""
        if self.family.needs_faces:
            kept = [index for index, target in enumerate(targets) if _whole(target).any()]
            if not kept:
                return {"none": sum((level.float().sum() * 0 for level in outputs.features), torch.zeros(()))}
            if len(kept) < len(targets):
                outputs = Outputs([level[kept] for level in outputs.features])
                targets, sizes = [targets[index] for index in kept], [sizes[index] for index in kept]
        inputs = self._inputs(outputs, sizes)
        for one, target in zip(inputs, targets, strict=True):
            one["instances"] = instances_of(target, one["image"].shape[-2:])
            one |= self.family.more_inputs(self.model, target, one["image"].shape[-2:])
        with self._run(outputs, training=True) as model:
            found = model(inputs)
        return {name.removeprefix("loss_"): value for name, value in found.items()}

    @torch.no_grad()
    def predict(self, outputs: Outputs, sizes: Sequence[Size]) -> list[Prediction]:
        with self._run(outputs, training=False) as model:
            found = model(self._inputs(outputs, sizes))
        own = self.family.boxes_of_masks
        return [prediction_of(one["instances"], size, own) for one, size in zip(found, sizes, strict=True)]

    def proposals(self, outputs: Outputs) -> list[LevelProposals]:
        return self.family.proposals(self.model, outputs.features)

    def roi_mask_features(self, outputs: Outputs, boxes: list[Tensor], size: int) -> Tensor:
        return self.family.mask_features(self.model, outputs.features, boxes, size)


def _as_it_is(image: Tensor) -> Tensor:
    return image


def _whole(target: Target) -> Tensor:
    """Which of an image's boxes have an area, (N,)."""
    return (target["boxes"][:, 2:] > target["boxes"][:, :2]).all(dim=1)


def instances_of(target: Target, size: Sequence[int]) -> Any:
    """The faces of one image, as detectron2 has them; `size` is the image's, to which masks are cut."""
    structures = part("structures")
    height, width = (int(length) for length in size)
    real = _whole(target)
    found = structures.Instances((height, width))
    found.gt_boxes = structures.Boxes(target["boxes"][real].float())
    found.gt_classes = target["labels"][real]
    found.gt_masks = structures.BitMasks(target["masks"][real, :height, :width])
    return found


def prediction_of(found: Any, size: Size, from_masks: bool = False) -> Prediction:
    """Detections of detectron2 in our terms: best first, in the image, masks at its valid size; boxes `from_masks` where the
    model has none."""
    height, width = size
    boxes = found.pred_boxes.tensor.float()
    masks = found.pred_masks.bool() if found.has("pred_masks") else None
    if masks is not None and not len(masks):  # AdelaiDet's SOLOv2 gives no size then
        masks = masks.new_zeros(0, height, width)
    if masks is not None and from_masks:
        boxes = boxes_of_masks(masks[:, :height, :width])
    limits = boxes.new_tensor([width, height, width, height])
    boxes = torch.minimum(boxes.clamp(min=0), limits)
    whole = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(dim=1)
    order = found.scores.argsort(descending=True, stable=True)
    order = order[whole[order]]
    boxes = boxes[order]
    if masks is not None:
        masks = masks[order, :height, :width]
    else:
        x = torch.arange(width, device=boxes.device) + 0.5
        y = torch.arange(height, device=boxes.device)[:, None] + 0.5
        left, top, right, bottom = boxes[:, :, None, None].unbind(1)
        masks = (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
    return Prediction(
        boxes=boxes, scores=found.scores[order].float(), labels=found.pred_classes[order].long(), masks=masks
    )
