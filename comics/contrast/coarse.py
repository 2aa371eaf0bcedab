"""Coarse-grained contrastive learning (section IV, equations 1-5): proposals of one class are pulled together, those of
the other are pushed away, level by level."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchvision.ops import box_iou

from comics.classes import CLASSES
from comics.contrast.flatnce import against_queue
from comics.contrast.memory import Memory, of_all_ranks
from comics.contrast.momentum import MomentumCopy
from comics.params import CoarseParams
from comics.ranks import mean_over_ranks, world

FINEST = 3
"""The finest level is P3, of stride 8."""

IGNORED = -1
"""Label of a proposal that overlaps no face enough."""

Proposals = Sequence[tuple[Tensor, Tensor]]
"""For each level, boxes (B, N, 4) xyxy px and the cell (N,) of each in the level's map, row-major."""


def label_proposals(boxes: Tensor, faces: Sequence[Tensor], labels: Sequence[Tensor], threshold: float) -> Tensor:
    """The class of each proposal: that of the face it overlaps most, when the IoU is greater than `threshold`.

    Args:
        boxes: (B, N, 4) xyxy px.
        faces: B tensors (n, 4) xyxy px.
        labels: B tensors (n,) of class indices.
        threshold: 0.6 in the paper.

    Returns:
        (B, N) int64: class index, or `IGNORED`.
    """
    result = boxes.new_full(boxes.shape[:2], IGNORED, dtype=torch.long)
    for image, (face, label) in enumerate(zip(faces, labels, strict=True)):
        if len(face):
            overlap, nearest = box_iou(boxes[image], face.to(boxes.dtype)).max(dim=1)
            result[image] = torch.where(overlap > threshold, label[nearest], IGNORED)
    return result


Places = Sequence[tuple[Tensor, Tensor]]
"""For each class, the image (n,) and the cell (n,) of every proposal."""


def locate(labels: Tensor, cells: Tensor) -> Places:
    """Where the labelled proposals of one level are.

    Args:
        labels: (B, N) of `label_proposals`.
        cells: (N,) cell of each proposal.
    """
    found = [(labels == label).nonzero(as_tuple=True) for label in range(len(CLASSES))]
    return [(images, cells[proposals]) for images, proposals in found]


def gather(level: Tensor, places: Places) -> Sequence[Tensor]:
    """For each class, the features (n, C), at least float32, of a pyramid map (B, C, H, W) at `places`.

    All classes in one step: its backward pass writes a map of zeros, and each further step would write another.
    """
    images, cells = (torch.cat(parts) for parts in zip(*places, strict=True))
    width = level.shape[-1]
    features = level.permute(0, 2, 3, 1)[images, cells // width, cells % width]
    return features.to(torch.promote_types(features.dtype, torch.float32)).split([len(image) for image, _ in places])


Found = tuple[Tensor, ...]
"""Of one level and class: query features, their positives, and key features, each (n, C)."""


class CoarseContrast(nn.Module):
    """The coarse loss with its memory.

    Every labelled query proposal p^q at a level is compared with the key feature p^k at its own position (its positive)
    and with the queue of the other class (its negatives). Afterwards the key proposals move their class's prototype, and
    the least similar of them are pushed. The paper compares the extractor's features as they are; `params.projection` puts a
    1x1 projection of each level between, and its momentum copy on the side of the keys.

    Args:
        params: section IV's settings.
        levels: pyramid levels of the detector.
        channels: of its pyramid maps.
        temperature: tau.
    """

    def __init__(self, params: CoarseParams, levels: int, channels: int, temperature: float) -> None:
        super().__init__()
        self.params, self.temperature = params, temperature
        self.weights = _level_weights(params.level_weights, levels) if params.multi_scale else [1.0]
        self._seen: list[list[Tensor]] = []  # of each batch since the last step, the keys of each level and class
        self.memory = Memory(
            len(self.weights) * len(CLASSES),
            params.queue_size,
            channels,
            params.prototype_momentum,
            params.pushed,
            params.prototype_update,
        )
        self.projection = nn.ModuleList(
            nn.Linear(channels, channels) for _ in range(levels if params.projection else 0)
        )
        self.key_projection = MomentumCopy(self.projection, params.momentum)

    def forward(
        self,
        queries: Sequence[Tensor],
        keys: Sequence[Tensor],
        query_boxes: Proposals,
        key_boxes: Proposals,
        faces: Sequence[Tensor],
        labels: Sequence[Tensor],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of equation 5, before its weight lambda 1. In training, the keys are kept for `remember`.

        Args:
            queries: pyramid maps (B, C, H, W) of F_q, with gradient.
            keys: the same of F_k, without.
            query_boxes: proposals of the query view.
            key_boxes: the same of the key view.
            faces: B tensors (n, 4), the boxes of the faces.
            labels: B tensors (n,), their class indices.

        Returns:
            The scalar loss, connected to `queries` also where it is 0, and values to log: InfoNCE and the number of compared
            proposals, of each level and of all. InfoNCE is a mean over proposals, over levels by their weights.
        """
        query_labels, key_labels = self._labels([query_boxes, key_boxes], faces, labels)
        levels: list[list[Found]] = []
        for index, (level, key_level, own, its, (_, cells), (_, key_cells)) in enumerate(
            zip(queries, keys, query_labels, key_labels, query_boxes, key_boxes, strict=True)
        ):
            places = locate(own, cells)
            found = (
                self._projected(self.projection, index, gather(level, places)),
                self._projected(self.key_projection.module, index, gather(key_level, places)),
                self._projected(self.key_projection.module, index, gather(key_level, locate(its, key_cells))),
            )
            levels.append(list(zip(*found, strict=True)))  # for each class: queries, positives, keys
        scales = levels if self.params.multi_scale else [_fuse(levels)]

        sums = [self._compare(scale, classes) for scale, classes in enumerate(scales)]
        losses, values, counts = (torch.stack(column) for column in zip(*sums, strict=True))
        counts = mean_over_ranks(counts)
        if self.training:
            self._seen.append([key.detach() for classes in levels for _, _, key in classes])
        return self._reduce(losses, counts), self._logged(values.detach(), counts)

    @staticmethod
    def _projected(projections: nn.Module, index: int, features: Sequence[Tensor]) -> Sequence[Tensor]:
        """Features (n, C) of one level, of each class, through the level's projection if there is one."""
        if not len(projections):  # type: ignore[arg-type]
            return features
        return [projections[index](part) for part in features]  # type: ignore[index]

    def _reduce(self, losses: Tensor, counts: Tensor) -> Tensor:
        """The sums (levels,) over the proposals of each level, and their numbers, the mean over ranks, to the loss."""
        weights = torch.tensor(self.weights, device=losses.device, dtype=losses.dtype)
        if self.params.reduction == "level_mean":
            return (weights * losses / counts.clamp(min=1 / world())).sum()
        total = (weights * losses).sum()
        if self.params.reduction == "sum":
            return total * world()
        share = (weights * counts).sum()
        return total / torch.where(share > 0, share, torch.ones_like(share))

    def _logged(self, values: Tensor, counts: Tensor) -> dict[str, Tensor]:
        """InfoNCE and number of proposals of each level and of all, from sums (levels,) of InfoNCE."""
        weights = torch.tensor(self.weights, device=values.device, dtype=values.dtype)
        means = values / counts.clamp(min=1 / world())
        active = (weights * (counts > 0)).sum()
        infonce = (weights * means).sum() / torch.where(active > 0, active, torch.ones_like(active))
        logged = {"coarse_infonce": infonce, "coarse_proposals": counts.sum() * world()}
        if len(means) > 1:
            for index, (mean, count) in enumerate(zip(means, counts, strict=True)):
                logged[f"coarse_infonce_p{FINEST + index}"] = mean
                logged[f"coarse_proposals_p{FINEST + index}"] = count * world()
        return logged

    def remember(self) -> None:
        """Move prototypes and queues by the keys since the last call, and the keys' projections by equation 1.

        To be called after the optimiser's step, so that a step that is refused leaves no trace; batches whose gradients are
        accumulated are compared with the same queues. The keys of all ranks are taken in the ranks' order, so that all hold
        the same queues and prototypes.
        """
        if self._seen:
            keys = of_all_ranks(self._seen)  # of each level and class
            if not self.params.multi_scale:
                keys = [torch.cat(keys[label :: len(CLASSES)]) for label in range(len(CLASSES))]
            for group, one in enumerate(keys):
                self.memory.update(group, one, self._unlike(*divmod(group, len(CLASSES))))
            self._seen.clear()
        if self.params.projection:
            self.key_projection.update()

    def _compare(self, scale: int, classes: Sequence[Found]) -> tuple[Tensor, Tensor, Tensor]:
        """Sums of the loss and of InfoNCE over the queries of one scale that have negatives, and their number."""
        losses, values, counts = [], [], []
        for label, (query, positive, _) in enumerate(classes):
            if not len(query):
                losses.append(query.sum())  # 0, and connected to the map
                continue
            queue, valid = self.memory.negatives(self._group(scale, self._negative_class(label)))
            flat, nce = against_queue(normalize(query), normalize(positive), queue, valid, self.temperature)
            losses.append((flat if self.params.loss == "flatnce" else nce).sum())
            values.append(nce.detach().sum())
            counts.append(len(query) * valid.any())
        total = torch.stack(losses).sum()
        if not counts:
            return total, torch.zeros_like(total), torch.zeros_like(total)
        return total, torch.stack(values).sum(), torch.stack(counts).sum().to(total.dtype)

    def _group(self, scale: int, label: int) -> int:
        return scale * len(CLASSES) + label

    def _unlike(self, scale: int, label: int) -> int | None:
        """The group whose prototype chooses the keys to push, where that is not their own."""
        return self._group(scale, len(CLASSES) - 1 - label) if self.params.pushed_by == "most_other" else None

    def _negative_class(self, label: int) -> int:
        return len(CLASSES) - 1 - label if self.params.negatives == "other_class" else label

    def _labels(
        self, views: Sequence[Proposals], faces: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> list[list[Tensor]]:
        """For each view, the labels (B, N) of every level's proposals; all boxes of an image in one comparison."""
        boxes = [level[0] for view in views for level in view]
        lengths = [level.shape[1] for level in boxes]
        split = label_proposals(torch.cat(boxes, dim=1), faces, labels, self.params.iou_threshold).split(lengths, dim=1)
        return [list(split[: len(views[0])]), list(split[len(views[0]) :])]


def _fuse(levels: Sequence[Sequence[Found]]) -> list[Found]:
    """The proposals of all levels as of one."""
    return [tuple(torch.cat(parts) for parts in zip(*of_class, strict=True)) for of_class in zip(*levels, strict=True)]


def _level_weights(weights: Sequence[float], levels: int) -> list[float]:
    """One weight a level; a detector with fewer levels takes the finest ones' weights, one with more repeats the last."""
    return [*weights, *[weights[-1]] * levels][:levels]
