"""SOLO (Wang, Kong, Shen, Jiang and Li, ECCV 2020): masks without boxes, drawn by the cell in which an object's centre lies.

Each level of the pyramid is resized to a grid of S x S cells that say which class of object has its centre there. Beside it
stands a map of S^2 channels at the level's resolution: channel k is the mask that cell k draws. The decoupled head has 2 S
channels instead, one for each row and one for each column; a cell's mask is the product of its row's and its column's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from comics.detectors.backbone import build_fine_extractor
from comics.detectors.base import Detector, LevelProposals, Prediction, Size, Target, register
from comics.detectors.cells import (
    PROPOSAL_STRIDE,
    assign_cells,
    block,
    boxes_of_masks,
    cell_geometry,
    coordinates,
    dice_loss,
    gaussian_init,
    resize,
    scaled_ranges,
    seen,
    shrink,
    suppress_neighbours,
)
from comics.detectors.fcos import mean_over_ranks
from comics.detectors.soft_masks import THRESHOLD, MapMasks
from comics.params import InferenceParams, ModelParams
from comics.params.detectors import DetectorSettings

MASK_STRIDES = (4, 4, 8, 16, 16)  # px between the pixels of each level's masks
MASK_WEIGHT = 3.0  # lambda of equation 1
PRIOR = 0.01  # probability of a class at initialisation
_CHUNK = 256  # masks drawn at once in inference


class Settings(DetectorSettings):
    """Settings of SOLO."""

    published_inference: ClassVar = {"score_threshold": 0.1, "nms_threshold": 0.5, "pre_nms_top": 500}

    head: Literal["vanilla", "decoupled"] = "vanilla"
    """A mask for each cell, or one for each row and column whose product it is (section 3.5)."""
    grids: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (40, 36, 24, 16, 12)
    """Cells a side, from the finest level on. The paper's are for images of 800 px and more."""
    object_scale: PositiveFloat = 1.0
    """The sizes of the objects of each level, in the published ones, which are for images of 800 px and more."""
    mask_prior: float = Field(0.01, gt=0, lt=1)
    """Probability of a mask's pixel before training; of a row's or a column's where the head is decoupled."""

    later: ClassVar = ("object_scale", "mask_prior")


@dataclass
class SOLOOutputs:
    """Raw outputs.

    Attributes:
        features: pyramid maps (B, C, H, W), P2 to P6.
        categories: class logits (B, classes, S, S) a level; empty where only proposals are wanted.
        mask_features: maps (B, C, h, w) a level, at `MASK_STRIDES`, from which a 1x1 convolution draws the masks.
    """

    features: list[Tensor]
    categories: list[Tensor]
    mask_features: list[Tensor]


def mask_nms(masks: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """Indices of the masks (N, ...), bool, best first, that overlap no better one of their class by more than
    `threshold` (IoU)."""
    flat = masks.flatten(1).float()
    areas = flat.sum(dim=1)
    overlap = flat @ flat.T
    iou = overlap / (areas[:, None] + areas[None] - overlap).clamp(min=1)
    near = ((iou > threshold) & (labels[:, None] == labels[None])).triu(diagonal=1).cpu()
    alive = torch.ones(len(masks), dtype=torch.bool)
    for index in range(len(masks)):
        if alive[index]:
            alive &= ~near[index]
    return alive.nonzero().squeeze(1).to(masks.device)


@register("solo", Settings)
class SOLO(Detector):
    """See the module.

    Args:
        extractor: images to pyramid maps P2 to P6, strides 4 to 64.
        num_classes: foreground classes.
        channels: width of the pyramid.
        width: of both towers (256).
        convs: in each of them, at least one (the paper's 7; its authors' code has 4, and so does this).
        settings: head and grids.
        inference: thresholds and numbers kept.
    """

    predicts_boxes = False

    def __init__(
        self,
        extractor: nn.Module,
        *,
        num_classes: int,
        channels: int = 256,
        strides: Sequence[int] = (4, 8, 16, 32, 64),
        width: int = 256,
        convs: int = 4,
        settings: Settings | None = None,
        inference: InferenceParams | None = None,
    ) -> None:
        super().__init__()
        settings = settings or Settings()
        self.extractor = extractor
        self.num_classes = num_classes
        self.channels = channels
        self.strides = tuple(strides)
        self.mask_channels = width
        self.grids = settings.grids
        self.scale_ranges = scaled_ranges(settings.object_scale)
        self.decoupled = settings.head == "decoupled"
        self.inference = inference or InferenceParams(**Settings.published_inference)
        depth = range(max(convs, 1))
        self.category_tower = nn.Sequential(*(block(width if step else channels, width) for step in depth))
        self.mask_tower = nn.Sequential(*(block(width if step else channels + 2, width) for step in depth))
        self.categories = nn.Conv2d(width, num_classes, 3, padding=1)
        self.masks = nn.ModuleList(nn.Conv2d(width, 2 * grid if self.decoupled else grid**2, 1) for grid in self.grids)
        gaussian_init(self.category_tower)
        gaussian_init(self.mask_tower)
        for layer in (self.categories, *self.masks):
            prior = PRIOR if layer is self.categories else settings.mask_prior
            nn.init.normal_(layer.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.constant_(layer.bias, -math.log((1 - prior) / prior))  # type: ignore[arg-type]

    @classmethod
    def from_params(cls, params: ModelParams, settings: Settings, num_classes: int, inference: InferenceParams) -> SOLO:
        """SOLO of its authors' sizes at `head_channels` 256 and `head_convs` 4."""
        return cls(
            build_fine_extractor(params),
            num_classes=num_classes,
            channels=params.fpn_channels,
            width=params.head_channels,
            convs=params.head_convs,
            settings=settings,
            inference=inference,
        )

    def _outputs(self, features: list[Tensor], classify: bool) -> SOLOOutputs:
        # The finest and the coarsest level join their neighbours' sizes (strides 8, 8, 16, 32, 32).
        levels = list(features)
        levels[0] = functional.interpolate(levels[0], scale_factor=0.5, mode="bilinear", align_corners=False)
        levels[-1] = resize(levels[-1], (levels[-2].shape[-2], levels[-2].shape[-1]))
        categories, maps = [], []
        for level, grid in zip(levels, self.grids, strict=True):
            drawn = self.mask_tower(torch.cat([level, coordinates(level)], dim=1))
            maps.append(functional.interpolate(drawn, scale_factor=2, mode="bilinear", align_corners=False))
            if classify:
                categories.append(self.categories(self.category_tower(resize(level, (grid, grid)))))
        return SOLOOutputs(features, categories, maps)

    def forward_heads(self, features: list[Tensor]) -> SOLOOutputs:
        return self._outputs(features, classify=True)

    def _draw(self, level: int, maps: Tensor, cells: Tensor) -> Tensor:
        """Mask probabilities (P, h, w), float32, of some cells (P,) from one image's mask features (C, h, w).

        Only the channels of those cells are computed: the same numbers as the whole convolution gives, of S^2 channels.
        """
        layer, grid = self.masks[level], self.grids[level]
        flat = maps.flatten(1)

        def channels(chosen: Tensor) -> Tensor:
            weight, bias = layer.weight.flatten(1)[chosen], layer.bias[chosen]  # type: ignore[operator, index]
            return ((weight.to(flat.dtype) @ flat).float() + bias[:, None].float()).sigmoid()

        if not self.decoupled:
            return channels(cells).view(-1, *maps.shape[1:])
        columns = channels(torch.arange(grid, device=maps.device))
        rows = channels(torch.arange(grid, 2 * grid, device=maps.device))
        return (columns[cells % grid] * rows[cells // grid]).view(-1, *maps.shape[1:])

    # --------------------------------------------------------------------------------------------------- training

    def losses(self, outputs: SOLOOutputs, targets: list[Target], sizes: Sequence[Size]) -> dict[str, Tensor]:
        """L = L_category + 3 L_mask (equation 1): the focal loss of all cells divided by the number of those with an object
        plus one, and the mean Dice loss of their masks."""
        logits, wanted, dice = [], [], []
        positives = 0
        for level, (grid, scale, stride) in enumerate(zip(self.grids, self.scale_ranges, MASK_STRIDES, strict=True)):
            for image, target in enumerate(targets):
                found = assign_cells(target["boxes"], target["labels"], target["masks"], grid, scale)
                logits.append(outputs.categories[level][image].flatten(1).t().float())
                wanted.append(found.labels)
                positives += len(found.cells)
                if len(found.cells):
                    drawn = self._draw(level, outputs.mask_features[level][image], found.cells)
                    dice.append(dice_loss(drawn, shrink(target["masks"], stride)[found.faces]))
        labels = torch.cat(wanted)
        one_hot = functional.one_hot(labels + 1, self.num_classes + 1)[:, 1:].float()
        focal = sigmoid_focal_loss(torch.cat(logits), one_hot, alpha=0.25, gamma=2.0, reduction="sum")
        # levels without an object: keeps their masks in the graph, which distributed training wants
        unused = sum(maps.float().sum() for maps in outputs.mask_features) * 0
        unused = unused + sum(parameter.sum() for parameter in self.masks.parameters()) * 0
        mask = torch.cat(dice).mean() + unused if dice else unused
        count = mean_over_ranks(torch.tensor(float(positives), device=labels.device))
        return {"category": focal / (count + 1), "mask": MASK_WEIGHT * mask}

    # -------------------------------------------------------------------------------------------------- inference

    @torch.no_grad()
    def predict(self, outputs: SOLOOutputs, sizes: Sequence[Size]) -> list[Prediction]:
        scores = [suppress_neighbours(level.float().sigmoid()) for level in outputs.categories]
        return [
            self._predict_image([level[image] for level in scores], outputs, image, size)
            for image, size in enumerate(sizes)
        ]

    def _predict_image(self, scores: list[Tensor], outputs: SOLOOutputs, image: int, size: Size) -> Prediction:
        """Of cells above the score threshold: masks larger than their level's stride (in px of the mask map), ranked by the
        class's probability times the mean probability inside of the mask, less those that better ones suppress."""
        shape = outputs.mask_features[0].shape[-2:]
        nothing = outputs.mask_features[0]
        every_mask = [nothing.new_zeros(0, *shape, dtype=torch.float32)]
        every_score = [nothing.new_zeros(0, dtype=torch.float32)]
        every_label = [nothing.new_zeros(0, dtype=torch.int64)]
        for level, found in enumerate(scores):
            labels, cells = torch.where(found.flatten(1) > self.inference.score_threshold)
            value = found.flatten(1)[labels, cells]
            best = value.argsort(descending=True, stable=True)[: self.inference.pre_nms_top]
            least = max(8, min(self.strides[level], self.strides[-2]))
            for part in best.split(_CHUNK) if len(best) else ():
                drawn = self._draw(level, outputs.mask_features[level][image], cells[part])
                drawn = resize(drawn[None], (shape[0], shape[1]))[0]
                inside = drawn > THRESHOLD
                area = inside.flatten(1).sum(dim=1)
                keep = area > least
                quality = (drawn * inside).flatten(1).sum(dim=1)[keep] / area[keep]
                every_mask.append(drawn[keep])
                every_score.append(value[part][keep] * quality)
                every_label.append(labels[part][keep])
        masks, found_scores, found_labels = torch.cat(every_mask), torch.cat(every_score), torch.cat(every_label)
        order = found_scores.argsort(descending=True, stable=True)[: self.inference.pre_nms_top]
        alive = mask_nms(masks[order] > THRESHOLD, found_labels[order], self.inference.nms_threshold)
        order = order[alive][: self.inference.max_detections]
        return seen(MapMasks(masks[order], size, self.strides[0]), found_scores[order], found_labels[order])

    def mask_map(self, outputs: SOLOOutputs) -> tuple[Tensor, int]:
        """The finest level's mask features."""
        return outputs.mask_features[0], MASK_STRIDES[0]

    # -------------------------------------------------------------------------------------------------- proposals

    @torch.no_grad()
    def proposals(self, outputs: SOLOOutputs) -> list[LevelProposals]:
        """One a cell: the box of the mask that the cell draws around its centre, or the cell's own square where it draws
        none, as for SOLOv2. Its location is the pyramid location under its centre."""
        padded = tuple(side * self.strides[0] for side in outputs.features[0].shape[-2:])
        found = []
        for level, (maps, drawing) in enumerate(zip(outputs.features, outputs.mask_features, strict=True)):
            step = max(1, PROPOSAL_STRIDE // MASK_STRIDES[level])
            coarse = functional.avg_pool2d(drawing, step)
            grid = self.grids[level]
            squares, locations = cell_geometry(
                grid, (padded[0], padded[1]), (maps.shape[-2], maps.shape[-1]), maps.device
            )
            centres = (squares[:, :2] + squares[:, 2:]) / 2
            cells = torch.arange(grid**2, device=maps.device)
            boxes = []
            for one in coarse:
                drawn = boxes_of_masks(self._draw(level, one, cells) > THRESHOLD) * (step * MASK_STRIDES[level])
                around = ((drawn[:, :2] <= centres) & (centres < drawn[:, 2:])).all(dim=1)
                boxes.append(torch.where(around[:, None], drawn, squares))
            found.append(LevelProposals(torch.stack(boxes), locations))
        return found

    @torch.no_grad()
    def propose(self, features: list[Tensor]) -> list[LevelProposals]:
        return self.proposals(self._outputs(features, classify=False))
