"""The bi-grained objective as one module, for models that are not of this package: `comics.integrations` hangs it onto
detectron2's. It sees tensors alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from comics.contrast import CoarseContrast, MomentumCopy, fine_losses
from comics.contrast.coarse import Proposals
from comics.contrast.fine import crop_masks
from comics.params import ObjectiveParams


class BiGrained(nn.Module):
    """L_Bi of equation 9, with its momentum extractor, queues and prototypes.

    ::

        keys = objective.keys(images)                       # by the momentum extractor, no gradient
        terms = objective.coarse_terms(features, keys, boxes, key_boxes, faces, labels)
        terms |= objective.fine_terms(mask_features, masks, faces, labels)
        (detection + sum(terms.values())).backward(); optimiser.step()
        objective.after_step()

    Args:
        extractor: images to pyramid maps, or to a dictionary of them; followed, not owned.
        levels: pyramid maps.
        channels: of the pyramid maps.
        mask_channels: of the mask features; needed where `params.fine.projection` is on.
        params: weights, temperatures, queues.
        components: of ``coarse`` and ``fine``.

    Attributes:
        done: the share of the training that is done, in [0, 1]; `params.ramp` asks for it.
    """

    done: float = 0.0

    def __init__(
        self,
        extractor: nn.Module,
        levels: int,
        channels: int,
        mask_channels: int = 0,
        params: ObjectiveParams | None = None,
        components: Collection[str] = ("coarse", "fine"),
    ) -> None:
        super().__init__()
        self.params = params or ObjectiveParams()
        self.momentum: MomentumCopy | None = None
        self.coarse: CoarseContrast | None = None
        self.fine = "fine" in components
        if "coarse" in components:
            coarse = self.params.coarse
            self.momentum = MomentumCopy(extractor, coarse.momentum)
            self.coarse = CoarseContrast(coarse, levels, channels, coarse.temperature or self.params.temperature)
        self.projection: nn.Module = nn.Identity()
        if self.fine and self.params.fine.projection:
            self.projection = nn.Conv2d(mask_channels, mask_channels, 1)

    @property
    def strength(self) -> float:
        """The share of the weights that is active now."""
        return self.params.strength(self.done)

    def keys(self, images: Tensor) -> list[Tensor]:
        """What the momentum extractor makes of images (B, 3, H, W), in the extractor's own form."""
        assert self.momentum is not None
        return self.momentum(images)

    def coarse_terms(
        self,
        features: Sequence[Tensor],
        keys: Sequence[Tensor],
        boxes: Proposals,
        key_boxes: Proposals,
        faces: Sequence[Tensor],
        labels: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """``loss_coarse``, weighted; nothing without the component. Arguments as of `CoarseContrast.forward`."""
        if self.coarse is None:
            return {}
        with torch.autocast(features[0].device.type, enabled=False):
            loss, _ = self.coarse(features, keys, boxes, key_boxes, faces, labels)
        return {"loss_coarse": self.strength * self.params.coarse.weight * loss}

    def fine_terms(
        self, features: Tensor, masks: Sequence[Tensor], faces: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """``loss_intra`` and ``loss_inter``, weighted; nothing without the component.

        Args:
            features: mask features of all faces, (sum of n, C, S, S), S as `params.fine.size`.
            masks: B tensors (n, H, W) bool.
            faces: B tensors (n, 4), xyxy px.
            labels: B tensors (n,) of class indices.
        """
        if not self.fine:
            return {}
        fine = self.params.fine
        with torch.autocast(features.device.type, enabled=False):
            intra, inter = fine_losses(
                self.projection(features.to(torch.promote_types(features.dtype, torch.float32))),
                crop_masks(masks, faces, fine.size),
                torch.cat(list(labels)),
                fine.temperature or self.params.temperature,
                fine.samples,
                fine.margin,
                fine.similarity,
            )
        return {
            "loss_intra": self.strength * fine.intra_weight * intra,
            "loss_inter": self.strength * fine.inter_weight * inter,
        }

    def after_step(self) -> None:
        """Move queues, prototypes and the momentum extractor; once after every optimiser step. Without effect in evaluation."""
        if self.momentum is not None and self.coarse is not None and self.training:
            self.coarse.remember()
            self.momentum.update()
