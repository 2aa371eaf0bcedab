"""What the objective needs of detectron2's and AdelaiDet's models, a small adapter a family.

Losses and detections are the model's own: its ``forward`` is called with a backbone that hands out maps which were made
before (`Given`), so that the attention and the momentum copy stand between backbone and heads, whatever the heads are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from comics.detectors.base import LevelProposals, Target, crop_features
from comics.detectors.cells import boxes_of_cells
from comics.errors import UserError
from comics.integrations.detectron2.package import part


class Given(nn.Module):
    """Stands where a model's backbone was, and gives the maps that it was given."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.size_divisibility = int(getattr(backbone, "size_divisibility", 0) or 32)
        self.padding_constraints = dict(getattr(backbone, "padding_constraints", {}))
        self._shapes = backbone.output_shape()
        self.maps: dict[str, Tensor] = {}

    def output_shape(self) -> Any:
        return self._shapes

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.maps


class Family:
    """A kind of meta-architecture: where its boxes and the features of its masks come from.

    Args:
        model: of detectron2's ``build_model``.

    Attributes:
        names: of the backbone's maps, finest first.
        strides: of these, px; `channels` likewise.
    """

    def __init__(self, model: Any) -> None:
        shapes = model.backbone.output_shape()
        self.names = sorted(self.in_features(model), key=lambda name: shapes[name].stride)
        self.strides = tuple(int(shapes[name].stride) for name in self.names)
        widths = {int(shapes[name].channels) for name in self.names}
        if len(widths) != 1 or not len(self.names):
            raise UserError(
                f"{type(model).__name__}: its maps {', '.join(self.names)} have {sorted(widths)} channels; a pyramid has "
                "one number.",
                "Take a configuration with an FPN.",
            )
        self.channels = widths.pop()

    @staticmethod
    def in_features(model: Any) -> Sequence[str]:
        raise NotImplementedError

    def distances_or_deltas(self, model: Any, features: list[Tensor]) -> list[Tensor]:
        """The box predictions (B, A * 4, h, w) of each level."""
        raise NotImplementedError

    def proposals(self, model: Any, features: list[Tensor]) -> list[LevelProposals]:
        """Every box before suppression, by level. Without gradient: the objective takes places from it, no values."""
        raise NotImplementedError

    def mask_features(self, model: Any, features: list[Tensor], boxes: list[Tensor], size: int) -> Tensor:
        """Of boxes (N, 4), xyxy px, of each image: (sum of N, C, size, size). By default crops of the finest map."""
        return crop_features(features[0], boxes, size, self.strides[0])

    def mask_channels(self, model: Any) -> int:
        return self.channels

    def moving(self, model: Any) -> list[tuple[Any, str]]:
        """Numbers that training moves and no state dict has: whose, and their names."""
        return []

    boxes_of_masks = False
    """Whether detections have no boxes of their own."""
    needs_faces = False
    """Whether its losses cannot do with an image without faces."""

    def more_inputs(self, model: Any, target: Target, size: Sequence[int]) -> dict[str, Any]:
        """What its losses want of an image of `size` beside its faces."""
        return {}


class Anchored(Family):
    """RetinaNet and detectron2's FCOS: a dense head, anchors (points are anchors to it), a box transform."""

    @staticmethod
    def in_features(model: Any) -> Sequence[str]:
        return list(model.head_in_features)

    def _parts(self, model: Any) -> tuple[Any, Any]:
        return model.anchor_generator, model.box2box_transform

    def moving(self, model: Any) -> list[tuple[Any, str]]:
        return [(model, "loss_normalizer")]

    def distances_or_deltas(self, model: Any, features: list[Tensor]) -> list[Tensor]:
        return list(model.head(features)[1])

    @torch.no_grad()
    def proposals(self, model: Any, features: list[Tensor]) -> list[LevelProposals]:
        generator, transform = self._parts(model)
        found = []
        predictions = self.distances_or_deltas(model, features)
        for anchors, deltas in zip(generator(features), predictions, strict=True):
            batch, _, height, width = deltas.shape
            count = deltas.shape[1] // 4
            rows = deltas.view(batch, count, 4, height, width).permute(0, 3, 4, 1, 2).reshape(batch, -1, 4).float()
            boxes = torch.stack([transform.apply_deltas(one, anchors.tensor) for one in rows])
            cells = torch.arange(height * width, device=deltas.device).repeat_interleave(count)
            found.append(LevelProposals(boxes.detach(), cells))
        return found


class TwoStage(Anchored):
    """Faster and Mask R-CNN: the region proposal network's boxes; the mask head's features before its predictor."""

    @staticmethod
    def in_features(model: Any) -> Sequence[str]:
        return list(model.proposal_generator.in_features)

    def _parts(self, model: Any) -> tuple[Any, Any]:
        return model.proposal_generator.anchor_generator, model.proposal_generator.box2box_transform

    def moving(self, model: Any) -> list[tuple[Any, str]]:
        return []

    def distances_or_deltas(self, model: Any, features: list[Tensor]) -> list[Tensor]:
        return list(model.proposal_generator.rpn_head(features)[1])

    def mask_features(self, model: Any, features: list[Tensor], boxes: list[Tensor], size: int) -> Tensor:
        heads = model.roi_heads
        if getattr(heads, "mask_head", None) is None:
            return super().mask_features(model, features, boxes, size)
        named = dict(zip(self.names, features, strict=True))
        kind = part("structures").Boxes
        pooled = heads.mask_pooler([named[name] for name in heads.mask_in_features], [kind(box) for box in boxes])
        layers = [layer for name, layer in heads.mask_head.named_children() if name not in ("predictor", "deconv")]
        for layer in layers:
            pooled = layer(pooled)
        if not len(pooled):
            return pooled.new_zeros(0, pooled.shape[1], size, size)
        return functional.interpolate(pooled, size=(size, size), mode="bilinear", align_corners=False)

    def mask_channels(self, model: Any) -> int:
        head = getattr(model.roi_heads, "mask_head", None)
        return self.channels if head is None else int(head.predictor.in_channels)


class AdelaiFCOS(Family):
    """AdelaiDet's detectors on FCOS. Points are at cells' centres, distances count in strides."""

    @staticmethod
    def in_features(model: Any) -> Sequence[str]:
        return list(model.proposal_generator.in_features)

    def moving(self, model: Any) -> list[tuple[Any, str]]:
        outputs = getattr(model.proposal_generator, "fcos_outputs", None)
        return [(outputs, "moving_num_fg")] if hasattr(outputs, "moving_num_fg") else []

    def distances_or_deltas(self, model: Any, features: list[Tensor]) -> list[Tensor]:
        generator = model.proposal_generator
        head = getattr(generator, "fcos_head", None)
        return list((generator.MEInst_head if head is None else head)(features)[1])

    @torch.no_grad()
    def proposals(self, model: Any, features: list[Tensor]) -> list[LevelProposals]:
        found = []
        for distances, stride in zip(self.distances_or_deltas(model, features), self.strides, strict=True):
            height, width = distances.shape[-2:]
            x = torch.arange(width, device=distances.device) * stride + stride // 2
            y = torch.arange(height, device=distances.device) * stride + stride // 2
            points = torch.stack([x.repeat(height), y.repeat_interleave(width)], dim=1)
            sides = distances.flatten(2).transpose(1, 2).float() * stride
            boxes = torch.cat([points - sides[..., :2], points + sides[..., 2:]], dim=2)
            found.append(LevelProposals(boxes.detach(), torch.arange(height * width, device=distances.device)))
        return found

    def more_inputs(self, model: Any, target: Target, size: Sequence[int]) -> dict[str, Any]:
        """BlendMask's auxiliary segmentation: 0 behind the faces, and one more than the class on them."""
        if not getattr(getattr(model, "basis_module", None), "loss_on", False):
            return {}
        height, width = (int(length) for length in size)
        kinds = target["masks"][:, :height, :width].long() * (target["labels"][:, None, None] + 1)
        found = kinds.amax(dim=0) if len(kinds) else kinds.new_zeros(height, width)
        return {"basis_sem": found}

    @staticmethod
    def _branch(model: Any) -> Any:
        """BlendMask's and CondInst's module of the map that masks are made from; MEInst has none."""
        return getattr(model, "basis_module", None) or getattr(model, "mask_branch", None)

    def mask_features(self, model: Any, features: list[Tensor], boxes: list[Tensor], size: int) -> Tensor:
        branch = self._branch(model)
        if branch is None:
            return super().mask_features(model, features, boxes, size)
        found = _before_last(branch, dict(zip(self.names, features, strict=True)))
        stride = self.strides[0] * features[0].shape[-1] / found.shape[-1]
        return crop_features(found, boxes, size, stride)

    def mask_channels(self, model: Any) -> int:
        branch = self._branch(model)
        return self.channels if branch is None else int(branch.tower[-1].in_channels)


class Cells(Family):
    """AdelaiDet's SOLOv2: cells with kernels, and one map that they are convolved with."""

    boxes_of_masks = True
    needs_faces = True

    @staticmethod
    def in_features(model: Any) -> Sequence[str]:
        return list(model.instance_in_features)

    def _map(self, model: Any, features: list[Tensor]) -> Tensor:
        named = dict(zip(self.names, features, strict=True))
        return model.mask_head([named[name] for name in model.mask_in_features])

    @torch.no_grad()
    def proposals(self, model: Any, features: list[Tensor]) -> list[LevelProposals]:
        kernels = list(model.ins_head(model.split_feats(features))[1])
        return boxes_of_cells(features, kernels, self._map(model, features), self.strides[0])

    def mask_features(self, model: Any, features: list[Tensor], boxes: list[Tensor], size: int) -> Tensor:
        return crop_features(self._map(model, features), boxes, size, self.strides[0])

    def mask_channels(self, model: Any) -> int:
        return int(model.num_masks)


def _before_last(branch: Any, named: dict[str, Tensor]) -> Tensor:
    """What the last convolution of a mask branch's tower takes, without the branch's auxiliary loss."""
    seen: list[Tensor] = []
    handle = branch.tower[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    training, branch.training = branch.training, False  # its own flag alone: normalisation goes on as it was
    try:
        branch(named)
    finally:
        branch.training = training
        handle.remove()
    return seen[-1]


def family_of(model: Any) -> Family:
    """The adapter of a model.

    Raises:
        UserError: it is of no family that is known.
    """
    generator = getattr(model, "proposal_generator", None)
    if hasattr(generator, "fcos_head") or hasattr(generator, "MEInst_head"):
        return AdelaiFCOS(model)
    if hasattr(model, "ins_head") and hasattr(model, "split_feats"):
        return Cells(model)
    if hasattr(generator, "rpn_head"):
        return TwoStage(model)
    if hasattr(model, "head") and hasattr(model, "box2box_transform"):
        return Anchored(model)
    raise UserError(
        f"{type(model).__name__}: no adapter knows where its boxes are.",
        "Known are Faster and Mask R-CNN, RetinaNet, FCOS, BlendMask, CondInst, MEInst and SOLOv2.",
    )


def pixels_of(model: Any) -> tuple[Tensor, Tensor]:
    """Mean and deviation (3,) that a model normalises its images by. AdelaiDet's keep them inside of a function."""
    if hasattr(model, "pixel_mean"):
        return tuple(one.detach().float().flatten().cpu() for one in (model.pixel_mean, model.pixel_std))  # type: ignore[return-value]
    device = getattr(model, "device", "cpu")
    black, white = (model.normalizer(torch.full((3, 1, 1), value, device=device)) for value in (0.0, 255.0))
    deviation = 255 / (white - black).double()
    return (-black.double() * deviation).float().flatten().cpu(), deviation.float().flatten().cpu()


def prepared(model: Any, inputs: Sequence[dict[str, Any]]) -> Tensor:
    """The images of `inputs` as the model's backbone takes them, (B, 3, H, W)."""
    if hasattr(model, "preprocess_image"):
        return model.preprocess_image(inputs).tensor
    if hasattr(model, "normalizer"):
        images = [model.normalizer(one["image"].to(model.device)) for one in inputs]
    else:  # AdelaiDet's FCOS and MEInst, on detectron2's ProposalNetwork
        mean, deviation = model.pixel_mean, model.pixel_std
        images = [(one["image"].to(mean.device) - mean) / deviation for one in inputs]
    return part("structures").ImageList.from_tensors(images, model.backbone.size_divisibility).tensor


@contextmanager
def given(model: Any, names: Sequence[str], features: Sequence[Tensor]) -> Iterator[None]:
    """`model` with maps in the place of its backbone."""
    backbone = model.backbone
    stand_in = backbone if isinstance(backbone, Given) else Given(backbone)
    stand_in.maps = dict(zip(names, features, strict=True))
    model.backbone = stand_in
    try:
        yield
    finally:
        stand_in.maps = {}
        model.backbone = backbone
