"""COMICS: a detector, frequency enhanced attention and the bi-grained objective. The one place where they meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from comics.attention import CodeAttention, FrequencyAttention, build_attention
from comics.classes import CLASSES
from comics.contrast import CoarseContrast, DualContrast, MomentumCopy, fine_losses
from comics.contrast.fine import crop_masks
from comics.data.loading.batches import Batch, padded
from comics.detectors import build
from comics.detectors.base import LevelProposals, Prediction, Target, crop_features
from comics.detectors.two_phase import TwoPhase
from comics.padding import Size
from comics.params import ResolvedRun
from comics.weights.checkpoint import Checkpoint
from comics.weights.pickles import read_checkpoint
from comics.weights.run import load_run
from comics.weights.transfer import load_checkpoint, read


@dataclass
class LossTerms:
    """What one batch gives.

    Attributes:
        terms: weighted summands of the loss, by name.
        logged: further values for people, without gradient.
    """

    terms: dict[str, Tensor]
    logged: dict[str, Tensor] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        """The scalar to back-propagate: L_detect + L_Bi (equation 9)."""
        return torch.stack([term.float() for term in self.terms.values()]).sum()


class PyramidExtractor(nn.Module):
    """Images to pyramid maps: the feature extractor F of the paper, with its attention when there is one."""

    def __init__(self, extractor: nn.Module, attention: FrequencyAttention | CodeAttention | None) -> None:
        super().__init__()
        self.extractor = extractor
        self.attention = attention

    def forward(self, images: Tensor, normalised: Tensor, sizes: Sequence[Size] | None = None) -> list[Tensor]:
        """Maps of `images` (B, 3, H, W) in [0, 1], given also as the extractor takes them, of `sizes` before padding."""
        features = self.extractor(normalised)
        if self.attention is None:
            return features
        return self.attention(normalised if self.attention.of_normalised else images, features, sizes)


def _boxes(proposals: Sequence[LevelProposals]) -> list[tuple[Tensor, Tensor]]:
    return [(level.boxes, level.locations) for level in proposals]


class Comics(nn.Module):
    """The model of a run.

    Args:
        run: its detector and the components that are on: ``attention``, ``coarse``, ``fine``, ``dual`` (``views`` is the loader's).

    Attributes:
        done: the share of the training that is done, in [0, 1]; the trainer keeps it, and `objective.ramp` asks for it.
    """

    done: float = 0.0

    def __init__(self, run: ResolvedRun) -> None:
        super().__init__()
        objective = run.objective
        self.objective = objective
        self.detector = build(run.detector, run.model, len(CLASSES), run.inference)
        start: Checkpoint | None = None
        if run.model.weights not in ("none", "imagenet"):
            # another run's weights may be another detector's: what both have is what a start is for; those of a run that finds
            # the faces as it is must be whole
            partial = run.start is not None and self.detector.learns_from_features
            part, kind = self.detector.initialised(run.detector)
            start = read(run.model.weights, detector=part)
            if not start.whole:
                load_checkpoint(part, kind, start, partial)
        self.attention: FrequencyAttention | CodeAttention | None = None
        if "attention" in run.components:
            self.attention = build_attention(self.detector.channels, self.detector.strides, run.attention)
            if not self.detector.learns_from_features:
                self._keep_attention(run.model.weights)
        # not a submodule: its parts are, and parameters have one name
        self._extractor = (PyramidExtractor(self.detector.extractor, self.attention),)
        self.momentum: MomentumCopy | None = None
        self.coarse: CoarseContrast | None = None
        if "coarse" in run.components:
            self.momentum = MomentumCopy(self._extractor[0], objective.coarse.momentum)
            self.coarse = CoarseContrast(
                objective.coarse,
                len(self.detector.strides),
                self.detector.channels,
                objective.coarse.temperature or objective.temperature,
            )
        self.fine = "fine" in run.components
        self.fine_projection: nn.Module = nn.Identity()
        if self.fine and objective.fine.projection:
            self.fine_projection = nn.Conv2d(self.detector.mask_channels, self.detector.mask_channels, 1)
        self.dual: DualContrast | None = None
        if "dual" in run.components:
            assert isinstance(self.detector, TwoPhase)
            self.dual = DualContrast(objective.dual, self.detector.classifier, self.detector.classifier.channels)
        if start is not None and start.whole:
            load_run(self, run.detector, start)

    def _keep_attention(self, weights: str) -> None:
        """Attention that was trained with the face detector stays as it is in the file `weights`."""
        assert self.attention is not None
        self.attention.requires_grad_(False)
        if weights != "none":
            state: Any = read_checkpoint(weights)
            self.attention.load_state_dict(
                {
                    name.removeprefix("attention."): value
                    for name, value in state["state_dict"].items()
                    if name.startswith("attention.")
                }
            )

    @property
    def contrasts(self) -> bool:
        """Whether the loss has contrastive terms."""
        return self.coarse is not None or self.fine

    def features(self, images: Tensor, sizes: Sequence[Size] | None = None) -> list[Tensor]:
        """Pyramid maps of `images` (B, 3, H, W), RGB in [0, 1], of `sizes` before padding."""
        return self._extractor[0](images, self.detector.normalise(images, sizes), sizes)

    def losses(self, batch: Batch) -> LossTerms:
        """Every term of the loss of one batch, weighted."""
        # the key view first: the temporaries of its extractor are gone before the query's activations pile up
        keys, key_boxes = self._key_view(batch) if self.coarse is not None else ([], [])
        features = self.features(batch.images, batch.sizes) if self.detector.learns_from_features else []
        outputs = self.detector.look(batch.images, features)
        result = LossTerms(dict(self.detector.losses(outputs, batch.targets, batch.sizes)))
        faces = [target["boxes"] for target in batch.targets]
        labels = [target["labels"] for target in batch.targets]
        strength = self.objective.strength(self.done)

        if self.coarse is not None:
            query_boxes = _boxes(self.detector.proposals(outputs))
            with torch.autocast(batch.images.device.type, enabled=False):
                loss, logged = self.coarse(features, keys, query_boxes, key_boxes, faces, labels)
            result.terms["loss_coarse"] = strength * self.objective.coarse.weight * loss
            result.logged.update(logged)

        if self.fine:
            fine = self.objective.fine
            compared = batch.targets if fine.faces == "truth" else self._detected(outputs, batch)
            faces = [target["boxes"] for target in compared]
            maps = self.detector.roi_mask_features(outputs, faces, fine.size)
            masks = crop_masks([target["masks"] for target in compared], faces, fine.size)
            with torch.autocast(maps.device.type, enabled=False):
                intra, inter = fine_losses(
                    self.fine_projection(maps),
                    masks,
                    torch.cat([target["labels"] for target in compared]),
                    fine.temperature or self.objective.temperature,
                    fine.samples,
                    fine.margin,
                    fine.similarity,
                )
            result.terms["loss_intra"] = strength * fine.intra_weight * intra
            result.terms["loss_inter"] = strength * fine.inter_weight * inter

        if self.dual is not None:
            dual = self.objective.dual
            inter, intra, logged = self._dual(self.dual, outputs, batch)
            result.terms["loss_dual_inter"] = strength * dual.weight * inter
            result.terms["loss_dual_intra"] = strength * dual.weight * dual.intra_weight * intra
            result.logged.update(logged)
        return result

    def _dual(self, dual: DualContrast, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """DCL on the crops that the detector's losses looked at."""
        assert isinstance(self.detector, TwoPhase)
        crops = outputs.crops
        if crops is None:
            return dual.nothing()
        images = batch.images if batch.keys is None else batch.keys
        keys: Any = dual.keys(images, self.detector.training_squares(batch.targets), batch.sizes)
        masks = torch.cat([target["masks"] for target in batch.targets])[:, None].float()
        boxes = torch.cat(crops.boxes)
        places = torch.arange(len(boxes), device=boxes.device, dtype=boxes.dtype)[:, None]
        side = crops.maps.shape[-1]
        faces = crop_features(masks, torch.cat([places, boxes], dim=1), side, 1.0, samples=0)[:, 0]
        with torch.autocast(batch.images.device.type, enabled=False):
            return dual(crops.maps, keys, faces, crops.labels)

    @torch.no_grad()
    def _detected(self, outputs: Any, batch: Batch) -> list[Target]:
        """The best detection of each face that overlaps it enough: its box and mask, with the face's true class."""
        result = []
        for found, target in zip(self.detector.predict(outputs, batch.sizes), batch.targets, strict=True):
            if not (len(found["boxes"]) and len(target["boxes"])):
                kept = labels = target["labels"].new_zeros(0)
            else:
                overlap, nearest = box_iou(found["boxes"], target["boxes"].to(found["boxes"].dtype)).max(dim=1)
                of_face = (nearest == torch.arange(len(target["boxes"]), device=nearest.device)[:, None]) & (
                    overlap > self.objective.coarse.iou_threshold
                )
                detected = of_face.any(dim=1)
                kept = of_face[detected].to(torch.uint8).argmax(dim=1)  # the first is the best: they come ranked
                labels = target["labels"][detected]
            result.append(Target(boxes=found["boxes"][kept], labels=labels, masks=found["masks"][kept]))
        return result

    @torch.no_grad()
    def _key_view(self, batch: Batch) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
        """Pyramid maps of the key view by the momentum extractor, and the proposals that the heads find on them."""
        assert self.momentum is not None
        images = batch.images if batch.keys is None else batch.keys
        keys = self.momentum(images, self.detector.normalise(images, batch.sizes), batch.sizes)
        return keys, _boxes(self.detector.propose(keys))

    def after_step(self) -> None:
        """Move queues and prototypes by the batch's keys, and the momentum extractor by equation 1. To be called once after
        every optimiser step, however many batches its gradient was accumulated over; without effect in evaluation."""
        if self.momentum is not None and self.coarse is not None and self.training:
            self.coarse.remember()
            self.momentum.update()
        if self.dual is not None and self.training:
            self.dual.remember()

    def predict(self, images: Tensor, sizes: Sequence[Size]) -> list[Prediction]:
        """Detections of `images` (B, 3, H, W), whose valid parts are `sizes`.

        Images are seen together with those of their own padded size: behind the first layer padding is no longer 0, so that
        what one detects in an image would change a little with its neighbours in the batch.
        """
        found: dict[int, Prediction] = {}
        for (height, width), members in _by_padded_size(sizes, images.shape[-2:]).items():
            # a part that is all of the batch is the batch itself
            part = (images if len(members) == len(images) else images[members])[..., :height, :width]
            own = [sizes[index] for index in members]
            features = self.features(part, own)
            found |= zip(members, self.detector.predict(self.detector.look(part, features), own), strict=True)
        return [found[index] for index in range(len(images))]


def _by_padded_size(sizes: Sequence[Size], most: Sequence[int]) -> dict[Size, list[int]]:
    """Indices of the images of each padded size, which is at most that of the batch."""
    groups: dict[Size, list[int]] = {}
    for index, (height, width) in enumerate(sizes):
        groups.setdefault((min(padded(height), most[0]), min(padded(width), most[1])), []).append(index)
    return groups
