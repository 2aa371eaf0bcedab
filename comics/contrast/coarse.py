"""Coarse-grained contrastive learning (section IV, equations 1-5): proposals of one class are pulled together, those of
the other are pushed away, level by level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchvision.ops import box_iou

from comics.classes import CLASSES
from comics.contrast.flatnce import flatnce, infonce
from comics.contrast.memory import Memory
from comics.params import CoarseParams

IGNORED = -1
"""Label of a proposal that overlaps no face enough."""


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


@dataclass
class LevelFeatures:
    """Proposals of one level that have a class.

    Attributes:
        features: (n, C).
        labels: (n,) class indices.
    """

    features: Tensor
    labels: Tensor


def gather(level: Tensor, locations: Tensor, labels: Tensor) -> LevelFeatures:
    """The features of labelled proposals.

    Args:
        level: pyramid map (B, C, H, W).
        locations: (N,) cell of each proposal, row-major in H x W.
        labels: (B, N) of `label_proposals`.
    """
    images, proposals = (labels != IGNORED).nonzero(as_tuple=True)
    cells = locations[proposals]
    width = level.shape[-1]
    features = level[images, :, cells // width, cells % width]
    return LevelFeatures(features, labels[images, proposals])


class CoarseContrast(nn.Module):
    """The coarse loss with its memory.

    Every labelled query proposal p^q at a level is compared with the key feature p^k at its own position (its positive)
    and with the queue of the other class (its negatives). Afterwards the key proposals move their class's prototype, and
    the least similar of them are pushed. Projections are not used: the paper compares the extractor's features.

    Args:
        params: section IV's settings.
        levels: pyramid levels of the detector.
        channels: of its pyramid maps.
        temperature: tau.
    """

    level_weights: Tensor

    def __init__(self, params: CoarseParams, levels: int, channels: int, temperature: float) -> None:
        super().__init__()
        self.params, self.temperature = params, temperature
        weights = torch.tensor(_level_weights(params.level_weights, levels))
        self.register_buffer("level_weights", weights, persistent=False)
        self.scales = levels if params.multi_scale else 1
        self.memory = Memory(
            self.scales * len(CLASSES), params.queue_size, channels, params.prototype_momentum, params.pushed
        )

    def forward(
        self,
        queries: Sequence[Tensor],
        keys: Sequence[Tensor],
        query_boxes: Sequence[tuple[Tensor, Tensor]],
        key_boxes: Sequence[tuple[Tensor, Tensor]],
        faces: Sequence[Tensor],
        labels: Sequence[Tensor],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of equation 5, before its weight lambda 1.

        Args:
            queries: pyramid maps (B, C, H, W) of F_q, with gradient.
            keys: the same of F_k, without.
            query_boxes: boxes (B, N, 4) and their cells (N,) for each level of the query view.
            key_boxes: the same for the key view.
            faces: B tensors (n, 4), the boxes of the faces.
            labels: B tensors (n,), their class indices.

        Returns:
            The scalar loss, and values to log: the weighted InfoNCE and the number of compared proposals.
        """
        threshold = self.params.iou_threshold
        found_queries, found_keys, positives = [], [], []
        for query, key, (boxes, cells), (boxes_k, cells_k) in zip(queries, keys, query_boxes, key_boxes, strict=True):
            own = label_proposals(boxes, faces, labels, threshold)
            found = gather(query.float(), cells, own)
            found_queries.append(found)
            positives.append(gather(key.float(), cells, own).features)
            found_keys.append(gather(key.float(), cells_k, label_proposals(boxes_k, faces, labels, threshold)))
        if not self.params.multi_scale:
            found_queries, found_keys = [_fuse(found_queries)], [_fuse(found_keys)]
            positives = [torch.cat(positives)]

        total = sum((level.sum() * 0 for level in queries), start=queries[0].new_zeros((), dtype=torch.float32))
        value = torch.zeros_like(total)
        compared = 0
        for scale, (found, positive) in enumerate(zip(found_queries, positives, strict=True)):
            weight = self.level_weights[scale] if self.params.multi_scale else 1.0
            loss, nce, count = self._compare(scale, found, positive)
            total, value, compared = total + weight * loss, value + weight * nce, compared + count
        if self.training:
            for scale, found in enumerate(found_keys):
                for label in range(len(CLASSES)):
                    self.memory.update(scale * len(CLASSES) + label, found.features[found.labels == label])
        return total, {"coarse_infonce": value.detach(), "coarse_proposals": total.new_tensor(float(compared))}

    def _compare(self, scale: int, found: LevelFeatures, positive: Tensor) -> tuple[Tensor, Tensor, int]:
        """Mean FlatNCE and InfoNCE over the queries of one scale that have negatives, and their number."""
        losses, values = [found.features.new_zeros(0)], [found.features.new_zeros(0)]
        for label in range(len(CLASSES)):
            mine = found.labels == label
            other = len(CLASSES) - 1 - label if self.params.negatives == "other_class" else label
            bank, valid = self.memory.negatives(scale * len(CLASSES) + other)
            query = normalize(found.features[mine], dim=-1)
            similar = (query * normalize(positive[mine], dim=-1)).sum(-1)
            if valid.any():
                losses.append(flatnce(similar, query @ bank.T, valid, self.temperature))
                values.append(infonce(similar.detach(), query.detach() @ bank.T, valid, self.temperature))
        loss, value = torch.cat(losses), torch.cat(values)
        count = len(loss)
        return loss.sum() / max(1, count), value.sum() / max(1, count), count


def _fuse(levels: list[LevelFeatures]) -> LevelFeatures:
    """The proposals of all levels as of one."""
    return LevelFeatures(
        torch.cat([level.features for level in levels]),
        torch.cat([level.labels for level in levels]),
    )


def _level_weights(weights: Sequence[float], levels: int) -> list[float]:
    """One weight a level; a detector with fewer levels takes the finest ones' weights, one with more repeats the last."""
    return [*weights, *[weights[-1]] * levels][:levels]
