"""SOLOv2 (Wang, Zhang, Kong, Li and Shen, NeurIPS 2020): masks without boxes.

Each level of the pyramid is resized to a grid of cells. A cell says which class of object has its centre there, and the
weights of a 1x1 convolution (its kernel) that draws the object's mask from one mask feature map, shared by all cells.
Sections, equations and numbers below are the paper's; where it refers to SOLO (Wang et al., ECCV 2020), that paper's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from comics.detectors.backbone import FINE_STRIDES as STRIDES
from comics.detectors.backbone import build_fine_extractor
from comics.detectors.base import Detector, LevelProposals, Prediction, Size, Target, register
from comics.detectors.cells import (
    SCALE_RANGES,
    assign_cells,
    block,
    boxes_of_cells,
    coordinates,
    dice_loss,
    draw_masks,
    gaussian_init,
    resize,
    seen,
    shrink,
    suppress_neighbours,
)
from comics.detectors.soft_masks import THRESHOLD, MapMasks
from comics.params import InferenceParams, ModelParams
from comics.params.detectors import DetectorSettings
from comics.ranks import as_of_all, mean_over_ranks, world

GRIDS = (40, 36, 24, 16, 12)  # cells a side of each level (section 4)
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
MASK_WEIGHT = 3.0  # of the dice loss (equation 4 of SOLO: lambda)
_CHUNK = 256  # masks drawn at once in inference


class Settings(DetectorSettings):
    """Settings of SOLOv2."""

    published_inference: ClassVar = {"score_threshold": 0.1, "pre_nms_top": 500}

    grids: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (40, 36, 24, 16, 12)
    """Cells a side, from the finest level on. The paper's are for images of 800 px and more."""


@dataclass
class SOLOv2Outputs:
    """Raw outputs.

    Attributes:
        features: pyramid maps (B, C, H, W), P2 to P6.
        categories: class logits (B, classes, S, S) a level; empty where only proposals are wanted.
        kernels: weights of the cells' 1x1 convolutions (B, D, S, S) a level.
        mask_features: the map they convolve, (B, D, H, W) at stride 4.
    """

    features: list[Tensor]
    categories: list[Tensor]
    kernels: list[Tensor]
    mask_features: Tensor


def matrix_nms(masks: Tensor, labels: Tensor, scores: Tensor, sigma: float = 2.0, kernel: str = "gaussian") -> Tensor:
    """Scores decayed by overlap, all at once (equation 5 and Matrix NMS' pseudo code, section 3.3).

    Args:
        masks: (N, ...) bool, none empty.
        labels: (N,); only masks of one class decay each other.
        scores: (N,), sorted from the highest.
        sigma: of the Gaussian decay.
        kernel: "gaussian" or "linear".

    Returns:
        The decayed scores (N,).
    """
    if not len(masks):
        return scores
    flat = masks.flatten(1).float()
    areas = flat.sum(dim=1)
    overlap = flat @ flat.t()
    iou = overlap / (areas[:, None] + areas[None, :] - overlap)
    iou = (iou * (labels[:, None] == labels[None, :])).triu(
        diagonal=1
    )  # row i is what higher-scored i does to column j
    # How much each suppressor is itself suppressed: a mask that is gone anyway should not decay others.
    compensation = iou.max(dim=0).values[:, None]
    if kernel == "gaussian":
        decay = torch.exp(-sigma * (iou.square() - compensation.square()))
    elif kernel == "linear":
        decay = (1 - iou) / (1 - compensation).clamp(min=1e-6)
    else:
        raise ValueError(f"kernel: expected 'gaussian' or 'linear', found {kernel!r}")
    return scores * decay.min(dim=0).values


class CellHead(nn.Module):
    """Classes and kernels of the cells; weights shared by the levels (figure 2).

    Args:
        channels: width of the pyramid.
        width: of both towers (512).
        convs: in each tower (4).
        num_classes: foreground classes.
        kernel_channels: weights of a cell's kernel (256: a 1x1 convolution of 256 channels).
        prior: initial probability of every class, which keeps the focal loss stable at first.
    """

    def __init__(
        self, channels: int, width: int, convs: int, num_classes: int, kernel_channels: int, prior: float = 0.01
    ) -> None:
        super().__init__()
        self.category_tower = self._tower(channels, width, convs)
        self.kernel_tower = self._tower(channels + 2, width, convs)
        self.categories = nn.Conv2d(width if convs else channels, num_classes, 3, padding=1)
        self.kernels = nn.Conv2d(width if convs else channels + 2, kernel_channels, 3, padding=1)
        gaussian_init(self)
        nn.init.constant_(self.categories.bias, -math.log((1 - prior) / prior))  # type: ignore[arg-type]

    @staticmethod
    def _tower(inputs: int, width: int, convs: int) -> nn.Sequential:
        return nn.Sequential(*(block(inputs if index == 0 else width, width) for index in range(convs)))

    def forward(
        self, features: list[Tensor], grids: Sequence[int], classify: bool = True
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Class logits (none if not `classify`) and kernels, (B, ., S, S) a level."""
        categories, kernels = [], []
        for level, grid in zip(features, grids, strict=True):
            cells = resize(torch.cat([level, coordinates(level)], dim=1), (grid, grid))
            kernels.append(self.kernels(self.kernel_tower(cells)))
            if classify:
                categories.append(self.categories(self.category_tower(cells[:, :-2])))
        return categories, kernels


class MaskBranch(nn.Module):
    """P2 to P5 brought to stride 4 by steps of convolution and doubling, summed, and mixed (section 3.2, figure 3).

    Args:
        channels: width of the pyramid.
        width: inside (128).
        outputs: of the mask feature map (256).
    """

    def __init__(self, channels: int, width: int, outputs: int, levels: int = 4) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for level in range(levels):
            first = channels + 2 if level == levels - 1 else channels  # coordinates join the coarsest level
            steps = max(level, 1)
            self.levels.append(nn.ModuleList(block(first if step == 0 else width, width) for step in range(steps)))
        self.mix = block(width, outputs, kernel_size=1)
        gaussian_init(self)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Mask feature map (B, outputs, H, W) at the size of `features[0]`."""
        total: Tensor | None = None
        for level, (steps, maps) in enumerate(zip(self.levels, features, strict=True)):
            if level == len(self.levels) - 1:
                maps = torch.cat([maps, coordinates(maps)], dim=1)
            for step in steps:  # type: ignore[attr-defined]
                maps = step(maps)
                if level:
                    maps = functional.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)
            total = maps if total is None else total + maps
        assert total is not None
        return self.mix(total)


@register("solov2", Settings)
class SOLOv2(Detector):
    """Cells with a class and a kernel, one mask feature map, matrix NMS; no boxes anywhere.

    Args:
        extractor: images to pyramid maps P2 to P6, strides 4 to 64.
        num_classes: foreground classes.
        channels: width of the pyramid.
        width: of the cell towers (512).
        convs: in each of them (4).
        mask_width: of the mask branch (128).
        kernel_channels: of the mask feature map and the kernels (256).
        grids: cells a side of each level.
        score_threshold: lowest class probability of a cell that is drawn (0.1).
        update_threshold: lowest score behind matrix NMS (0.05).
        pre_nms_top: masks that enter matrix NMS (500).
        max_detections: kept an image (100).
    """

    predicts_boxes = False

    def __init__(
        self,
        extractor: nn.Module,
        *,
        num_classes: int,
        channels: int = 256,
        strides: Sequence[int] = STRIDES,
        width: int = 512,
        convs: int = 4,
        mask_width: int = 128,
        kernel_channels: int = 256,
        grids: Sequence[int] = GRIDS,
        score_threshold: float = 0.1,
        update_threshold: float = 0.05,
        pre_nms_top: int = 500,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        self.extractor = extractor
        self.num_classes = num_classes
        self.channels = channels
        self.strides = tuple(strides)
        self.mask_channels = kernel_channels
        self.grids = tuple(grids)
        self.score_threshold = score_threshold
        self.update_threshold = update_threshold
        self.pre_nms_top = pre_nms_top
        self.max_detections = max_detections
        self.cell_head = CellHead(channels, width, convs, num_classes, kernel_channels)
        self.mask_branch = MaskBranch(channels, mask_width, kernel_channels)

    def _outputs(self, features: list[Tensor], classify: bool) -> SOLOv2Outputs:
        # The finest and the coarsest level join their neighbours' sizes (strides 8, 8, 16, 32, 32) before the grids.
        levels = list(features)
        levels[0] = functional.interpolate(levels[0], scale_factor=0.5, mode="bilinear", align_corners=False)
        levels[-1] = resize(levels[-1], (levels[-2].shape[-2], levels[-2].shape[-1]))
        categories, kernels = self.cell_head(levels, self.grids, classify)
        return SOLOv2Outputs(features, categories, kernels, self.mask_branch(features[:4]))

    @classmethod
    def from_params(
        cls, params: ModelParams, settings: Settings, num_classes: int, inference: InferenceParams
    ) -> SOLOv2:
        """SOLOv2 of the paper's sizes at `head_channels` 256, `head_convs` 4 and `mask_channels` 128.

        `nms_threshold` has no meaning here: matrix NMS decays scores instead.
        """
        return cls(
            build_fine_extractor(params),
            num_classes=num_classes,
            channels=params.fpn_channels,
            width=2 * params.head_channels,
            convs=params.head_convs,
            mask_width=params.mask_channels,
            kernel_channels=2 * params.mask_channels,
            grids=settings.grids,
            score_threshold=inference.score_threshold,
            pre_nms_top=inference.pre_nms_top,
            max_detections=inference.max_detections,
        )

    def forward_heads(self, features: list[Tensor]) -> SOLOv2Outputs:
        return self._outputs(features, classify=True)

    # --------------------------------------------------------------------------------------------------- training

    def losses(self, outputs: SOLOv2Outputs, targets: list[Target], sizes: Sequence[Size]) -> dict[str, Tensor]:
        """Focal loss of the cells' classes and dice loss of the masks (equation 1 of SOLO: L = L_cate + 3 L_mask).

        The focal loss is summed and divided by the number of cells with an object plus one; the dice loss is a mean.
        """
        stride = self.strides[0]
        small = [shrink(target["masks"], stride) for target in targets]
        logits, wanted, dice = [], [], []
        positives = 0
        for level, (grid, scale) in enumerate(zip(self.grids, SCALE_RANGES, strict=True)):
            for image, target in enumerate(targets):
                found = assign_cells(target["boxes"], target["labels"], target["masks"], grid, scale, both=True)
                logits.append(outputs.categories[level][image].flatten(1).t().float())
                wanted.append(found.labels)
                positives += int((found.labels >= 0).sum())
                if len(found.cells):
                    kernels = outputs.kernels[level][image].flatten(1)[:, found.cells]
                    drawn = draw_masks(kernels, outputs.mask_features[image]).sigmoid()
                    dice.append(dice_loss(drawn, small[image][found.faces]))
        labels = torch.cat(wanted)
        one_hot = functional.one_hot(labels + 1, self.num_classes + 1)[:, 1:].float()
        focal = sigmoid_focal_loss(torch.cat(logits), one_hot, alpha=FOCAL_ALPHA, gamma=FOCAL_GAMMA, reduction="sum")
        if dice:
            mask = torch.cat(dice).mean()
        else:  # no object: keeps the kernels and the mask branch in the graph, which distributed training wants
            mask = outputs.mask_features.float().sum() * 0 + sum(kernel.float().sum() for kernel in outputs.kernels) * 0
        mask = as_of_all(mask, positives)
        mean = mean_over_ranks(torch.tensor(float(positives), device=focal.device))
        return {"category": focal / (mean + 1 / world()), "mask": MASK_WEIGHT * mask}

    # -------------------------------------------------------------------------------------------------- inference

    @torch.no_grad()
    def predict(self, outputs: SOLOv2Outputs, sizes: Sequence[Size]) -> list[Prediction]:
        scores = [suppress_neighbours(level.float().sigmoid()).flatten(2) for level in outputs.categories]
        every_score = torch.cat(scores, dim=2).transpose(1, 2)  # (B, cells, classes)
        every_kernel = torch.cat([level.flatten(2) for level in outputs.kernels], dim=2)  # (B, D, cells)
        # Masks smaller than the stride of their level (in px of the mask map) are noise.
        steps = [max(8, min(stride, self.strides[-2])) for stride in self.strides]
        least = torch.cat([score.new_full((score.shape[2],), step) for score, step in zip(scores, steps, strict=True)])
        return [
            self._predict_image(every_score[image], every_kernel[image], least, outputs.mask_features[image], size)
            for image, size in enumerate(sizes)
        ]

    def _predict_image(
        self, scores: Tensor, kernels: Tensor, least: Tensor, mask_features: Tensor, size: Size
    ) -> Prediction:
        cells, labels = torch.where(scores > self.score_threshold)
        scores = scores[cells, labels]
        masks, quality = self._masks(kernels[:, cells], mask_features)
        scores = scores * quality
        keep = torch.where(masks.flatten(1).sum(dim=1) > least[cells])[0]
        keep = keep[scores[keep].argsort(descending=True, stable=True)[: self.pre_nms_top]]
        cells, labels, scores, masks = cells[keep], labels[keep], scores[keep], masks[keep]
        scores = matrix_nms(masks, labels, scores)
        keep = torch.where(scores >= self.update_threshold)[0]
        keep = keep[scores[keep].argsort(descending=True, stable=True)[: self.max_detections]]
        chosen = draw_masks(kernels[:, cells[keep]], mask_features).sigmoid()
        return seen(MapMasks(chosen, size, self.strides[0]), scores[keep], labels[keep])

    def _chunks(self, kernels: Tensor, mask_features: Tensor, count: int) -> Iterator[Tensor]:
        """Mask probabilities, at most `count` at once: there can be thousands of cells."""
        for part in kernels.split(count, dim=1) if kernels.shape[1] else ():
            yield draw_masks(part, mask_features).sigmoid()

    def _masks(self, kernels: Tensor, mask_features: Tensor) -> tuple[Tensor, Tensor]:
        """Masks (P, H, W), bool, and their maskness (P,): the mean probability of their pixels (section 3.3)."""
        masks = [mask_features.new_zeros(0, *mask_features.shape[1:], dtype=torch.bool)]
        quality = [mask_features.new_zeros(0, dtype=torch.float32)]
        for probabilities in self._chunks(kernels, mask_features, _CHUNK):
            inside = probabilities > THRESHOLD
            masks.append(inside)
            area = inside.flatten(1).sum(dim=1).clamp(min=1)
            quality.append((probabilities * inside).flatten(1).sum(dim=1) / area)
        return torch.cat(masks), torch.cat(quality)

    def mask_map(self, outputs: SOLOv2Outputs) -> tuple[Tensor, int]:
        return outputs.mask_features, self.strides[0]

    # -------------------------------------------------------------------------------------------------- proposals

    @torch.no_grad()
    def proposals(self, outputs: SOLOv2Outputs) -> list[LevelProposals]:
        """One a cell, of the mask that it draws (`boxes_of_cells`)."""
        return boxes_of_cells(outputs.features, outputs.kernels, outputs.mask_features, self.strides[0])

    @torch.no_grad()
    def propose(self, features: list[Tensor]) -> list[LevelProposals]:
        return self.proposals(self._outputs(features, classify=False))
