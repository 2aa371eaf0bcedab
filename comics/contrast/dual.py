"""Dual contrastive learning (Sun et al., "Dual Contrastive Learning for General Face Forgery Detection", AAAI 2022): crops of one
class against hard ones of the other, and the parts of one crop against each other.

The paper's formulas leave details open; where they do, this follows the configuration of its authors' code, as read, and
docs/detectors.md says where it does not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from comics.classes import CLASSES
from comics.contrast.flatnce import against_queue
from comics.contrast.memory import Memory, of_all_ranks
from comics.contrast.momentum import MomentumCopy
from comics.params import DualParams
from comics.ranks import as_of_all

REAL, FAKE = range(len(CLASSES))

FORGED = 0.01
"""A cell of which at least this share is of a forged face is forged; a cell without any of it is genuine."""


def intra_losses(maps: Tensor, faces: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Of each crop, how unlike its parts are.

    With the cosines s of pairs of cells of one crop, over the temperature, and the sums E of their exponentials:

    - a fake face: ``log(1 + E_gf / E_gg)``, of pairs of a genuine and a forged cell, and of pairs of genuine ones;
    - a real face: ``1 / tau - log(E / pairs)``, of all pairs: 0 where all cells are alike.

    Args:
        maps: (N, C, h, w) of the classifier.
        faces: (N, h, w), the share of each cell that is of the face.
        labels: (N,) class indices.
        temperature: tau.

    Returns:
        (N,) losses, float32, and (N,) bool, which crops have one: all real ones, and fake ones with genuine and forged cells.
    """
    cells = normalize(maps.flatten(2).float(), dim=1)
    similarity = cells.transpose(1, 2) @ cells / temperature  # (N, P, P)
    forged, genuine = faces.flatten(1) >= FORGED, faces.flatten(1) == 0
    fake = labels == FAKE
    has = ~fake | (forged.any(dim=1) & genuine.any(dim=1))

    def total(pairs: Tensor) -> Tensor:
        """log E of the pairs (N, P, P) of each crop; of all pairs where there are none, whose result is then not used."""
        usable = pairs.any(dim=2).any(dim=1)[:, None, None]
        return similarity.masked_fill(~pairs & usable, float("-inf")).flatten(1).logsumexp(dim=1)

    apart = total(genuine[:, :, None] & forged[:, None, :])
    alike = total(genuine[:, :, None] & genuine[:, None, :])
    whole = similarity.flatten(1).logsumexp(dim=1)
    pairs = torch.tensor(float(similarity.shape[1] ** 2), device=maps.device).log()
    losses = torch.where(fake, softplus(apart - alike), 1 / temperature - whole + pairs)
    return torch.where(has, losses, torch.zeros_like(losses)), has


class _Encoder(nn.Module):
    """Crops to embeddings (N, dim)."""

    def __init__(self, classifier: nn.Module, embed: nn.Linear) -> None:
        super().__init__()
        self.classifier, self.embed = classifier, embed

    def forward(self, *crops: Any) -> Tensor:
        return self.embed(self.classifier(*crops).float().mean(dim=(2, 3)))


class DualContrast(nn.Module):
    """Both losses, with the memory of the first.

    Inter-instance: a crop's embedding is pulled to that of its other view by the momentum encoder, and pushed from a queue of hard
    crops of the other class: InfoNCE. Of each batch's keys, those most similar to the other class's prototype are hard, and
    enter the queue. Intra-instance: `intra_losses`.

    Args:
        params: DCL's settings.
        classifier: crops to maps (N, channels, h, w).
        channels: of its maps.

    Attributes:
        embed: pooled maps (N, channels) to embeddings (N, dim).
        keys: the momentum encoder, which takes what the classifier takes and gives embeddings.
    """

    def __init__(self, params: DualParams, classifier: nn.Module, channels: int) -> None:
        super().__init__()
        self.params = params
        self.embed = nn.Linear(channels, params.dim)
        self.keys = MomentumCopy(_Encoder(classifier, self.embed), params.momentum)
        self.memory = Memory(
            len(CLASSES), params.queue_size, params.dim, params.prototype_momentum, params.pushed, "batch_mean"
        )
        self._seen: list[list[Tensor]] = []  # of each batch since the last step, the keys of each class

    def forward(
        self, maps: Tensor, keys: Tensor, faces: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The inter- and the intra-instance loss, before their weights. In training, the keys are kept for `remember`.

        Args:
            maps: (N, C, h, w), the classifier's, of the query view of N crops.
            keys: (N, dim) embeddings of the same crops' other view, by `keys`.
            faces: (N, h, w), the share of each cell of the query view that is of the face.
            labels: (N,) class indices.

        Returns:
            Two scalars, connected to `maps` also where they are 0, and values to log.
        """
        maps, keys = maps.float(), normalize(keys.detach().float(), dim=1)
        queries = normalize(self.embed(maps.mean(dim=(2, 3))), dim=1)
        losses, counts = [queries.sum() * 0.0], 0.0
        for label in range(len(CLASSES)):
            own = labels == label
            queue, valid = self.memory.negatives(len(CLASSES) - 1 - label)
            if own.any() and valid.any():
                _, info = against_queue(queries[own], keys[own], queue, valid, self.params.temperature)
                losses.append(info.sum())
                counts += float(own.sum())
        inter = as_of_all(torch.stack(losses).sum() / max(counts, 1.0), counts)

        values, has = intra_losses(maps, faces, labels, self.params.temperature)
        intra = maps.sum() * 0.0
        for label, weight in ((FAKE, 1.0), (REAL, self.params.real_weight)):
            own = has & (labels == label)
            count = float(own.sum())
            intra = intra + weight * as_of_all((values * own).sum() / max(count, 1.0), count)
        if self.training:
            self._seen.append([keys[labels == label] for label in range(len(CLASSES))])
        return inter, intra, {"dual_inter": inter.detach(), "dual_intra": intra.detach()}

    def nothing(self) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """`forward` of a batch without a face."""
        maps, channels = self.embed.weight, self.embed.in_features
        return self(
            maps.new_zeros(0, channels, 1, 1),
            maps.new_zeros(0, self.params.dim),
            maps.new_zeros(0, 1, 1),
            torch.zeros(0, dtype=torch.long, device=maps.device),
        )

    def remember(self) -> None:
        """Move prototypes and queues by the keys since the last call, and the momentum encoder; to be called after the optimiser's
        step, on all ranks."""
        if self._seen:
            for label, keys in enumerate(of_all_ranks(self._seen)):
                self.memory.update(label, keys, len(CLASSES) - 1 - label)
            self._seen.clear()
        self.keys.update()
