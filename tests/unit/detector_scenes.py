"""Scenes of bright ellipses for the tests of the detectors, and small models to look at them."""

from __future__ import annotations

import torch
from torch import Tensor

from comics.detectors import Detector, Target, build, detector_class
from comics.params import InferenceParams, ModelParams

COLOURS = torch.tensor([[0.9, 0.2, 0.1], [0.1, 0.3, 0.9]])  # of Real and Fake

TINY = ModelParams(backbone="resnet18", fpn_channels=32, head_channels=32, head_convs=1, mask_channels=16)
ROIS: dict[str, object] = {"rois": 48, "proposals": 200, "roi_samples": 2}
SETTINGS: dict[str, dict[str, object]] = {
    "centermask": {"roi_samples": 2},
    "mask_rcnn": ROIS,
    "ms_rcnn": {**ROIS, "pyramid": "p3-p7"},
    "solo": {"grids": (12, 10, 8, 6, 4)},
    "two_phase": {"classifier": "resnet18", "classifier_width": 0.25, "crop": 64},
}
"""Of detectors whose published numbers are for images five times as large."""


def tiny(name: str, seed: int = 0, **inference) -> Detector:
    torch.manual_seed(seed)
    settings = detector_class(name).Settings(**SETTINGS.get(name, {}))
    return build(name, TINY.model_copy(update={"settings": settings}), 2, InferenceParams(**inference))


def confident(detector: Detector) -> Detector:
    """`detector` with biases that make it detect a lot before any training."""
    torch.manual_seed(1)
    for name, parameter in detector.named_parameters():
        if any(
            layer in name
            for layer in ("cls_logits", "bbox_pred", "ctrness", "categories", "cell_head.kernels", "masks.")
        ):
            torch.nn.init.normal_(parameter, std=0.3)
            if name.endswith("bias"):
                parameter.data += 1.0
    return detector


def target_of(boxes: list[list[float]], labels: list[int], height: int, width: int) -> Target:
    """Elliptic masks in `boxes`."""
    corners = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    y, x = torch.arange(height).view(-1, 1) + 0.5, torch.arange(width).view(1, -1) + 0.5
    left, top, right, bottom = corners[:, :, None, None].unbind(1)
    across = (x - (left + right) / 2) / (right - left).clamp(min=1e-6)
    down = (y - (top + bottom) / 2) / (bottom - top).clamp(min=1e-6)
    return Target(boxes=corners, labels=torch.tensor(labels, dtype=torch.int64), masks=across**2 + down**2 <= 0.25)


def draw(target: Target, seed: int) -> Tensor:
    """The image (3, H, W) that shows `target`."""
    generator = torch.Generator().manual_seed(seed)
    image = 0.4 + 0.1 * torch.rand(3, *target["masks"].shape[1:], generator=generator)
    for mask, label in zip(target["masks"], target["labels"], strict=True):
        image = torch.where(mask, COLOURS[label].view(3, 1, 1), image)
    return image


def scenes(
    boxes: list[list[list[float]]], height: int, width: int
) -> tuple[Tensor, list[Target], list[tuple[int, int]]]:
    """Images, targets and sizes; the labels alternate."""
    targets = [target_of(one, [index % 2 for index in range(len(one))], height, width) for one in boxes]
    images = torch.stack([draw(target, seed) for seed, target in enumerate(targets)])
    return images, targets, [(height, width)] * len(boxes)


def random_boxes(count: int, height: int, width: int, seed: int, smallest: float = 6) -> list[list[float]]:
    generator = torch.Generator().manual_seed(seed)
    side = smallest + torch.rand(count, 2, generator=generator) * (min(height, width) / 2 - smallest)
    corner = torch.rand(count, 2, generator=generator) * (torch.tensor([width, height]) - side)
    return torch.cat((corner, corner + side), dim=1).tolist()
