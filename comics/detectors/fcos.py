"""FCOS (Tian et al., TPAMI 2022, "A simple and strong anchor-free object detector"): the box half of three detectors.

One location a pyramid cell, at its centre. A location is positive for the smallest face in whose central region it
lies and whose extent suits the level. It predicts classes, the distances to the box's sides, and how central it is.

Everything is laid out image first: B images, L locations over all levels, finest level first, row by row.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import batched_nms, clip_boxes_to_image, sigmoid_focal_loss

from comics.detectors.backbone import Extractor, build_extractor
from comics.detectors.base import Detector, LevelProposals, Prediction, Size, Target, crop_features, prediction
from comics.detectors.soft_masks import SoftMasks
from comics.params import InferenceParams, ModelParams
from comics.ranks import mean_over_ranks, world

LEVEL_RANGES = ((-1.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, 512.0), (512.0, math.inf))
"""Of the largest distance to a side, px, for each level (FCOS paper)."""
RADIUS = 1.5  # half a side of the central region, in strides (FCOS paper, centre sampling)
PRIOR = 0.01  # probability of a face at initialisation (focal loss paper)
BACKGROUND = -1

Module = TypeVar("Module", bound=nn.Module)


@dataclass
class FCOSOutputs:
    """Raw outputs, one entry a pyramid level.

    Attributes:
        logits: (B, classes, h, w).
        distances: (B, 4, h, w) to left, top, right and bottom, in strides, not negative.
        centerness: logits (B, 1, h, w).
        towers: last maps (B, C, h, w) of the box tower, from which `PointConv` predicts at chosen locations.
        features: the pyramid.
    """

    logits: list[Tensor]
    distances: list[Tensor]
    centerness: list[Tensor]
    towers: list[Tensor]
    features: list[Tensor]


class Scale(nn.Module):
    """A learnt factor."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def tower(in_channels: int, channels: int, convs: int) -> nn.Sequential:
    """`convs` times a 3x3 convolution, GroupNorm and ReLU.

    The paper's 32 groups; fewer in narrow towers, because a group of one channel is empty on a map of one cell.
    """
    layers: list[nn.Module] = []
    for index in range(convs):
        conv = nn.Conv2d(in_channels if index == 0 else channels, channels, 3, padding=1)
        layers += [conv, nn.GroupNorm(math.gcd(32, channels // 2), channels), nn.ReLU(inplace=True)]
    return initialise(nn.Sequential(*layers))


def initialise(module: Module, std: float = 0.01) -> Module:
    """Convolutions: Gaussian weights, zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


class FCOSHead(nn.Module):
    """Class and box towers and their predictors, shared by the levels.

    Args:
        in_channels: of the pyramid maps.
        channels: width of the towers.
        convs: convolutions a tower.
        num_classes: foreground classes.
        levels: of the pyramid.
    """

    def __init__(self, in_channels: int, channels: int, convs: int, num_classes: int, levels: int) -> None:
        super().__init__()
        self.cls_tower = tower(in_channels, channels, convs)
        self.bbox_tower = tower(in_channels, channels, convs)
        width = channels if convs else in_channels
        self.cls_logits = initialise(nn.Conv2d(width, num_classes, 3, padding=1))
        self.bbox_pred = initialise(nn.Conv2d(width, 4, 3, padding=1))
        self.ctrness = initialise(nn.Conv2d(width, 1, 3, padding=1))
        self.scales = nn.ModuleList(Scale() for _ in range(levels))
        nn.init.constant_(self.cls_logits.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]

    def boxes(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Distances (as `FCOSOutputs.distances`) and box towers."""
        towers = [self.bbox_tower(level) for level in features]
        distances = [
            functional.relu(scale(self.bbox_pred(level))) for scale, level in zip(self.scales, towers, strict=True)
        ]
        return distances, towers

    def forward(self, features: list[Tensor]) -> FCOSOutputs:
        distances, towers = self.boxes(features)
        logits = [self.cls_logits(self.cls_tower(level)) for level in features]
        return FCOSOutputs(logits, distances, [self.ctrness(level) for level in towers], towers, features)


# ---------------------------------------------------------------------------------------------------------- locations


class Grid(NamedTuple):
    """The locations of a pyramid.

    Attributes:
        points: (L, 2), x and y in px.
        strides: (L,) px.
        levels: (L,) int64.
        shapes: (height, width) of each level's map.
    """

    points: Tensor
    strides: Tensor
    levels: Tensor
    shapes: list[Size]

    @property
    def counts(self) -> list[int]:
        return [height * width for height, width in self.shapes]


def grid_of(maps: Sequence[Tensor], strides: Sequence[int]) -> Grid:
    """The locations of `maps`: cell centres, so half a stride from the map's edge."""
    points, steps, levels = [], [], []
    device = maps[0].device
    for level, (one, stride) in enumerate(zip(maps, strides, strict=True)):
        height, width = one.shape[-2:]
        x = (torch.arange(width, device=device) + 0.5) * stride
        y = (torch.arange(height, device=device) + 0.5) * stride
        points.append(torch.stack((x.repeat(height), y.repeat_interleave(width)), dim=1))
        steps.append(torch.full((height * width,), float(stride), device=device))
        levels.append(torch.full((height * width,), level, device=device))
    shapes = [(one.shape[-2], one.shape[-1]) for one in maps]
    return Grid(torch.cat(points), torch.cat(steps), torch.cat(levels), shapes)


def flatten(maps: Sequence[Tensor]) -> Tensor:
    """Maps (B, C, h, w) of all levels to (B, L, C)."""
    return torch.cat([one.permute(0, 2, 3, 1).flatten(1, 2) for one in maps], dim=1)


def decode(points: Tensor, distances: Tensor) -> Tensor:
    """Boxes (..., 4) xyxy from points (..., 2) and distances (..., 4) in px."""
    return torch.cat((points - distances[..., :2], points + distances[..., 2:]), dim=-1)


class PointConv(nn.Conv2d):
    """A 3x3 convolution that can be evaluated at chosen locations only.

    Attention maps, dynamic filters and the like have hundreds of channels, but are used at the few positive locations
    and the detections: there the result of the dense convolution is computed, and nowhere else.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)
        initialise(self)

    def at(self, maps: Sequence[Tensor], grid: Grid, images: Tensor, locations: Tensor) -> Tensor:
        """Values (P, out_channels) at `locations` (P,) of L in `images` (P,) of B."""
        batch, channels = maps[0].shape[:2]
        rows = [one.permute(0, 2, 3, 1).reshape(-1, channels) for one in maps]
        table = torch.cat([*rows, rows[0].new_zeros(1, channels)])  # the last row is the padding
        device = table.device
        heights, widths = torch.tensor(grid.shapes, device=device).unbind(1)
        counts = heights * widths
        starts = counts.cumsum(0) - counts
        level = grid.levels[locations]
        height, width = heights[level], widths[level]
        cell = locations - starts[level]
        first = batch * starts[level] + images * counts[level]
        step = torch.arange(-1, 2, device=device)
        y = (cell // width)[:, None, None] + step[None, :, None]
        x = (cell % width)[:, None, None] + step[None, None, :]
        inside = (y >= 0) & (y < height[:, None, None]) & (x >= 0) & (x < width[:, None, None])
        index = torch.where(inside, first[:, None, None] + y * width[:, None, None] + x, len(table) - 1)
        patches = table.index_select(0, index.flatten()).view(len(locations), 9 * channels)
        return functional.linear(patches, self.weight.permute(0, 2, 3, 1).flatten(1), self.bias)


# ------------------------------------------------------------------------------------------------- targets and losses


class Matches(NamedTuple):
    """What the locations of a batch are to predict; P of them are positive.

    Attributes:
        labels: (B, L) class indices, `BACKGROUND` where negative.
        images, locations: (P,) where the positive ones are.
        faces: (P,) index of the matched face in the concatenation of the images' targets.
        distances: (P, 4) to its sides, in strides.
        centerness: (P,) how central they are to it (`centerness_targets`).
        positives: their number, the mean over ranks, at least 1.
        weight: sum of `centerness`, the mean over ranks, not zero.
        grid: the locations.
    """

    labels: Tensor
    images: Tensor
    locations: Tensor
    faces: Tensor
    distances: Tensor
    centerness: Tensor
    positives: Tensor
    weight: Tensor
    grid: Grid


def assign(
    grid: Grid, boxes: Tensor, labels: Tensor, valid: Tensor, centres: Tensor | None = None, radius: float = RADIUS
) -> tuple[Tensor, Tensor]:
    """The face of each location.

    Args:
        grid: the locations.
        boxes: (B, N, 4), padded to the largest number of faces.
        labels: (B, N).
        valid: (B, N) bool, False for padding.
        centres: (B, N, 2) of the central regions; the middles of the boxes by default.
        radius: half a side of the central region, in strides.

    Returns:
        Class indices (B, L), `BACKGROUND` where negative, and indices of faces (B, L), 0 where negative.
    """
    batch, count = labels.shape
    if count == 0:
        nothing = labels.new_zeros(batch, len(grid.points))
        return nothing + BACKGROUND, nothing
    if centres is None:
        centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    points = grid.points[None, :, None]
    reach = (grid.strides * radius)[None, :, None, None]
    low = torch.maximum(centres[:, None] - reach, boxes[:, None, :, :2])
    high = torch.minimum(centres[:, None] + reach, boxes[:, None, :, 2:])
    inside = ((points > low) & (points < high)).all(dim=-1)
    extent = torch.maximum(points - boxes[:, None, :, :2], boxes[:, None, :, 2:] - points).amax(dim=-1)
    smallest, largest = boxes.new_tensor(LEVEL_RANGES).unbind(1)
    suits = (extent >= smallest[grid.levels][None, :, None]) & (extent <= largest[grid.levels][None, :, None])
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    cost = torch.where(inside & suits & valid[:, None], area[:, None], math.inf)
    least, faces = cost.min(dim=2)
    positive = least < math.inf
    chosen = labels.gather(1, faces)
    return torch.where(positive, chosen, BACKGROUND), torch.where(positive, faces, 0)


def centerness_targets(distances: Tensor) -> Tensor:
    """sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)) of distances (P, 4)."""
    near = torch.minimum(distances[:, :2], distances[:, 2:])
    far = torch.maximum(distances[:, :2], distances[:, 2:])
    return (near / far).prod(dim=1).sqrt()


def giou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - GIoU (Rezatofighi et al., CVPR 2019) of two boxes around one point.

    As in the published FCOS implementation, intersection and union are raised by 1 in the IoU (in the unit of the
    distances, square strides), which bounds the gradient of small boxes.

    Args:
        predicted, target: (P, 4) distances to left, top, right and bottom.

    Returns:
        (P,)
    """
    shared = torch.minimum(predicted, target)
    hull = torch.maximum(predicted, target)
    intersection = (shared[:, 0] + shared[:, 2]) * (shared[:, 1] + shared[:, 3])
    area = (predicted[:, 0] + predicted[:, 2]) * (predicted[:, 1] + predicted[:, 3])
    union = (target[:, 0] + target[:, 2]) * (target[:, 1] + target[:, 3]) + area - intersection
    enclosing = (hull[:, 0] + hull[:, 2]) * (hull[:, 1] + hull[:, 3])
    return 1 - (intersection + 1) / (union + 1) + (enclosing - union) / enclosing


def pad_targets(targets: Sequence[Target], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (B, N, 4), labels (B, N) and which of them are real (B, N), N the largest number of faces."""
    counts = [len(target["labels"]) for target in targets]
    most = max(counts, default=0)
    boxes = torch.zeros(len(targets), most, 4, device=device)
    labels = torch.zeros(len(targets), most, dtype=torch.int64, device=device)
    for index, (target, count) in enumerate(zip(targets, counts, strict=True)):
        boxes[index, :count] = target["boxes"]
        labels[index, :count] = target["labels"]
    valid = torch.arange(most, device=device) < torch.tensor(counts, device=device)[:, None]
    return boxes, labels, valid


# ---------------------------------------------------------------------------------------------------------- detectors


@dataclass
class Candidates:
    """The detections of one image before they get masks, best first.

    Attributes:
        boxes: (N, 4) xyxy px, clipped to the image.
        scores: (N,)
        labels: (N,)
        locations: (N,) of L: where each was predicted.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    locations: Tensor


class FCOSDetector(Detector):
    """What BlendMask, CondInst and MEInst share: extractor, FCOS head, its targets, losses and selection.

    Args:
        extractor: images to pyramid maps.
        num_classes: foreground classes.
        head_channels: width of the towers.
        head_convs: convolutions a tower.
        inference: thresholds and numbers kept.

    A subclass adds its mask branch, `losses`, `draw` and, where it has sizes of its own, `own_sizes`.

    Attributes:
        threshold_on_product: whether the score threshold is for class probability times centerness, or for the class
            probability alone.
        score_is_root: whether scores are the root of what detections are ranked by, or that itself.
    """

    threshold_on_product = True
    score_is_root = True

    def __init__(
        self,
        extractor: Extractor,
        *,
        num_classes: int,
        head_channels: int = 256,
        head_convs: int = 4,
        inference: InferenceParams | None = None,
    ) -> None:
        super().__init__()
        self.extractor = extractor
        self.strides = extractor.strides
        self.channels = extractor.channels
        self.num_classes = num_classes
        self.inference = inference or InferenceParams()
        self.head_channels, self.head_convs = head_channels, head_convs
        self.head = FCOSHead(extractor.channels, head_channels, head_convs, num_classes, len(self.strides))
        self.tower_channels = head_channels if head_convs else extractor.channels

    @classmethod
    def from_params(cls, params: ModelParams, settings: Any, num_classes: int, inference: InferenceParams) -> Detector:
        return cls(
            build_extractor(params),
            num_classes=num_classes,
            head_channels=params.head_channels,
            head_convs=params.head_convs,
            inference=inference,
            **cls.own_sizes(params, settings),
        )

    @classmethod
    def own_sizes(cls, params: ModelParams, settings: Any) -> dict[str, Any]:
        """Arguments of the constructor beyond those of `FCOSDetector`."""
        return {}

    # proposals

    def _level_boxes(self, distances: list[Tensor]) -> list[LevelProposals]:
        grid = grid_of(distances, self.strides)
        found = []
        for one, points, stride in zip(distances, grid.points.split(grid.counts), self.strides, strict=True):
            sides = one.detach().float().permute(0, 2, 3, 1).flatten(1, 2) * stride
            found.append(LevelProposals(decode(points, sides), torch.arange(len(points), device=points.device)))
        return found

    def proposals(self, outputs: FCOSOutputs) -> list[LevelProposals]:
        """One box a location."""
        return self._level_boxes(outputs.distances)

    def propose(self, features: list[Tensor]) -> list[LevelProposals]:
        return self._level_boxes(self.head.boxes(features)[0])

    # training

    def match(self, outputs: FCOSOutputs, targets: Sequence[Target], centres: Tensor | None = None) -> Matches:
        """Targets of all locations; `centres` as for `assign`."""
        grid = grid_of(outputs.logits, self.strides)
        boxes, labels, valid = pad_targets(targets, grid.points.device)
        classes, faces = assign(grid, boxes, labels, valid, centres)
        images, locations = (classes != BACKGROUND).nonzero(as_tuple=True)
        faces = faces[images, locations]
        matched, points = boxes[images, faces], grid.points[locations]
        distances = torch.cat((points - matched[:, :2], matched[:, 2:] - points), dim=1)
        centerness = centerness_targets(distances)
        counts = valid.sum(dim=1)
        return Matches(
            labels=classes,
            images=images,
            locations=locations,
            faces=faces + (counts.cumsum(0) - counts)[images],
            distances=distances / grid.strides[locations][:, None],
            centerness=centerness,
            positives=mean_over_ranks(torch.tensor(float(len(images)), device=grid.points.device)).clamp(
                min=1.0 / world()
            ),
            weight=mean_over_ranks(centerness.sum()).clamp(min=1e-6),
            grid=grid,
        )

    def box_losses(self, outputs: FCOSOutputs, matches: Matches) -> dict[str, Tensor]:
        """Focal class loss, GIoU box loss weighted by centerness, and centerness loss; all in float32."""
        logits = flatten(outputs.logits).float()
        onehot = functional.one_hot(matches.labels + 1, self.num_classes + 1)[..., 1:].to(logits.dtype)
        at = (matches.images, matches.locations)
        predicted = flatten(outputs.distances)[at].float()
        centerness = flatten(outputs.centerness)[at].squeeze(1).float()
        box = (giou_loss(predicted, matches.distances) * matches.centerness).sum()
        central = functional.binary_cross_entropy_with_logits(centerness, matches.centerness, reduction="sum")
        return {
            "class": sigmoid_focal_loss(logits, onehot, alpha=0.25, gamma=2.0, reduction="sum") / matches.positives,
            "box": box / matches.weight,
            "centerness": central / matches.positives,
        }

    # inference

    @torch.no_grad()
    def predict(self, outputs: Any, sizes: Sequence[Size]) -> list[Prediction]:
        candidates, grid = self.select(outputs, sizes)
        masks = self.draw(outputs, grid, candidates, sizes)
        return [
            prediction(one.boxes, one.scores, one.labels, mask) for one, mask in zip(candidates, masks, strict=True)
        ]

    @abstractmethod
    def draw(
        self, outputs: Any, grid: Grid, candidates: Sequence[Candidates], sizes: Sequence[Size]
    ) -> Sequence[SoftMasks]:
        """The masks of the detections of each image, before they are cut."""

    def ranking(self, probability: Tensor, centerness: Tensor) -> Tensor:
        """What detections are ranked by, of class probabilities (B, classes, h, w) and centerness logits (B, 1, h, w)."""
        return probability * centerness.sigmoid()

    def select(
        self, outputs: FCOSOutputs, sizes: Sequence[Size], settings: InferenceParams | None = None
    ) -> tuple[list[Candidates], Grid]:
        """Threshold, the best of each level, non-maximum suppression by class, the best of the image.

        Ranked by the product of class probability and centerness (`ranking`); the score is its square root, as in the
        published implementation, or itself.
        """
        grid = grid_of(outputs.logits, self.strides)
        settings = settings or self.inference
        scores, classes, locations = [], [], []
        start = 0
        for logits, centerness in zip(outputs.logits, outputs.centerness, strict=True):
            probability = logits.float().sigmoid()
            product = self.ranking(probability, centerness.float())
            judged = product if self.threshold_on_product else probability
            level = torch.where(judged > settings.score_threshold, product, 0).permute(0, 2, 3, 1).flatten(1)
            best, index = level.topk(min(settings.pre_nms_top, level.shape[1]), dim=1)
            scores.append(best)
            classes.append(index % self.num_classes)
            locations.append(index // self.num_classes + start)
            start += logits.shape[-2] * logits.shape[-1]
        score, label, location = torch.cat(scores, 1), torch.cat(classes, 1), torch.cat(locations, 1)
        distances = flatten(outputs.distances).float()
        found = []
        for image, size in enumerate(sizes):
            keep = score[image] > 0
            chosen = location[image][keep]
            sides = distances[image, chosen] * grid.strides[chosen][:, None]
            boxes = decode(grid.points[chosen], sides)
            values, kinds = score[image][keep], label[image][keep]
            values = values.sqrt() if self.score_is_root else values
            best = batched_nms(boxes, values, kinds, settings.nms_threshold)[: settings.max_detections]
            clipped = clip_boxes_to_image(boxes[best], size)
            whole = (clipped[:, 2:] > clipped[:, :2]).all(dim=1)
            best = best[whole]
            found.append(Candidates(clipped[whole], values[best], kinds[best], chosen[best]))
        return found, grid


def crop_masks(targets: Sequence[Target], size: int) -> Tensor:
    """The masks of all faces, cropped to their boxes: (faces, size, size) float32, 0 or 1."""
    crops = []
    for target in targets:
        masks, boxes = target["masks"], target["boxes"]
        rois = torch.cat((torch.arange(len(boxes), device=boxes.device, dtype=boxes.dtype)[:, None], boxes), dim=1)
        crops.append(crop_features(masks[:, None], rois, size, stride=1, samples=0).squeeze(1))
    return (torch.cat(crops) >= 0.5).float()
