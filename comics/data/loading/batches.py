"""Samples of any sizes, padded and put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from comics.data.loading.samples import Sample

PAD_TO = 32
"""Sides of a batch are multiples of it, in px: the coarsest stride of the backbones."""


def padded(side: int) -> int:
    """A side of an image in px, padded."""
    return -(-side // PAD_TO) * PAD_TO


@dataclass
class Batch:
    """A batch of images, padded on the right and below. What the padding holds counts nowhere (`comics.padding`).

    Attributes:
        images: (B, 3, H, W) float32 RGB in [0, 1].
        keys: the second view of the same images, or None.
        targets: for each image `boxes` (N, 4) xyxy px, `labels` (N,) class indices and `masks` (N, H, W) bool.
        sizes: (height, width) of each image before padding.
        image_ids: ids in the COCO file.
        original_sizes: (height, width) of each image on disk.
    """

    images: Tensor
    keys: Tensor | None
    targets: list[Any]
    sizes: list[tuple[int, int]]
    image_ids: list[int]
    original_sizes: list[tuple[int, int]]

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`, its images channels last."""

        def move(images: Tensor) -> Tensor:
            return images.to(device, non_blocking=True, memory_format=torch.channels_last)

        return replace(
            self,
            images=move(self.images),
            keys=None if self.keys is None else move(self.keys),
            targets=[{k: v.to(device, non_blocking=True) for k, v in target.items()} for target in self.targets],
        )

    def pin_memory(self) -> Batch:
        return replace(
            self,
            images=self.images.pin_memory(),
            keys=None if self.keys is None else self.keys.pin_memory(),
            targets=[{k: v.pin_memory() for k, v in target.items()} for target in self.targets],
        )


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples of any sizes as one batch, padded to a common multiple of `PAD_TO`."""
    sizes = [(int(sample.image.shape[-2]), int(sample.image.shape[-1])) for sample in samples]
    height, width = (padded(max(sides)) for sides in zip(*sizes, strict=True))

    def pad(images: Sequence[Tensor]) -> Tensor:
        batch = torch.zeros(len(images), 3, height, width)
        for slot, image in zip(batch, images, strict=True):
            slot[:, : image.shape[-2], : image.shape[-1]] = image
        return batch

    targets = []
    for sample, (h, w) in zip(samples, sizes, strict=True):
        masks = torch.zeros(len(sample.masks), height, width, dtype=torch.bool)
        masks[:, :h, :w] = sample.masks
        targets.append({"boxes": sample.boxes, "labels": sample.labels, "masks": masks})
    keys = [sample.key for sample in samples if sample.key is not None]
    return Batch(
        pad([sample.image for sample in samples]),
        pad(keys) if keys else None,
        targets,
        sizes,
        [sample.image_id for sample in samples],
        [sample.original_size for sample in samples],
    )
