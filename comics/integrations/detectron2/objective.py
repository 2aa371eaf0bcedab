"""The other way: detectron2's and AdelaiDet's own trainings with our objective."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from comics.bigrained import BiGrained
from comics.integrations.detectron2.families import family_of, given, prepared
from comics.integrations.detectron2.package import part
from comics.params import ObjectiveParams


def add_bi_grained(
    name: str, params: ObjectiveParams | None = None, components: Collection[str] = ("coarse", "fine")
) -> str:
    """Register meta-architecture `name` once more, with the bi-grained objective in its training.

    Its weights keep their names, `bi_grained.` holds what is new. The key view is ``key_image`` of each input, of the size of
    ``image``, where a mapper gives one, and ``image`` otherwise. Detections are those of `name`.

    Args:
        name: in detectron2's registry: ``GeneralizedRCNN``, ``RetinaNet``, ``BlendMask``, ...
        params: weights, temperatures, queues; the paper's by default.
        components: of ``coarse`` and ``fine``.

    Returns:
        The new name, for ``MODEL.META_ARCHITECTURE``: ``BiGrained<name>``.

    Raises:
        UserError: detectron2 is not installed.
    """
    registry = part("modeling").META_ARCH_REGISTRY
    ours = f"BiGrained{name}"
    if ours in registry:
        return ours
    base = registry.get(name)

    class WithObjective(base):  # type: ignore[valid-type, misc]
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            family = family_of(self)
            self._family = (family,)
            self.bi_grained = BiGrained(
                self.backbone,
                len(family.names),
                family.channels,
                family.mask_channels(self),
                params,
                components,
            )

        def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
            if not self.training:
                return super().forward(batched_inputs)
            (family,) = self._family
            images = prepared(self, batched_inputs)
            maps = self.backbone(images)
            features = [maps[one] for one in family.names]
            with given(self, list(maps), list(maps.values())):
                losses = dict(super().forward(batched_inputs))
            faces, labels, masks = _truth(batched_inputs, images)
            objective = self.bi_grained
            if objective.coarse is not None:
                keyed = [{**one, "image": one.get("key_image", one["image"])} for one in batched_inputs]
                found: Any = objective.keys(prepared(self, keyed))
                keys = [found[one] for one in family.names]
                losses |= objective.coarse_terms(
                    features, keys, self._boxes(features), self._boxes(keys), faces, labels
                )
            if objective.fine:
                crops = family.mask_features(self, features, faces, objective.params.fine.size)
                losses |= objective.fine_terms(crops, masks, faces, labels)
            return losses

        def _boxes(self, features: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
            found = self._family[0].proposals(self, features)
            return [(level.boxes, level.locations) for level in found]

    WithObjective.__name__ = WithObjective.__qualname__ = ours
    registry.register(WithObjective)
    return ours


def _truth(inputs: list[dict[str, Any]], images: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Boxes, labels and masks (N, H, W) at the padded size of each image."""
    structures = part("structures")
    faces, labels, masks = [], [], []
    height, width = images.shape[-2:]
    for one in inputs:
        found = one["instances"]
        faces.append(found.gt_boxes.tensor.to(images.device))
        labels.append(found.gt_classes.to(images.device))
        mask = torch.zeros(len(labels[-1]), height, width, dtype=torch.bool, device=images.device)
        if found.has("gt_masks"):
            own = found.gt_masks
            if not hasattr(own, "tensor"):  # polygons
                own = structures.BitMasks.from_polygon_masks(own, *found.image_size)
            mask[:, : own.tensor.shape[1], : own.tensor.shape[2]] = own.tensor.to(images.device)
        masks.append(mask)
    return faces, labels, masks


def after_step_hook() -> Any:
    """A hook for ``trainer.register_hooks``: moves queues, prototypes and the momentum extractor after every step, and tells the
    objective how much of the training is done.

    Raises:
        UserError: detectron2 is not installed.
    """

    class AfterStep(part("engine").HookBase):  # type: ignore[misc]
        def _objective(self) -> BiGrained:
            model = self.trainer.model
            return getattr(model, "module", model).bi_grained

        def before_step(self) -> None:
            self._objective().done = self.trainer.iter / max(self.trainer.max_iter, 1)

        def after_step(self) -> None:
            self._objective().after_step()

    return AfterStep()
