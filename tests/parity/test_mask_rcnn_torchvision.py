"""Mask R-CNN beside torchvision's: the same weights give the same losses, boxes, scores and masks.

Ours has torchvision's settings here. Two things it has not are put into torchvision's: true masks are cut at half of their
cells, and masks are pasted into boxes that are not rounded (tests/unit/test_detectors_roi.py looks at both).
"""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torchvision.models.detection import MaskRCNN as Reference
from torchvision.models.detection import roi_heads, transform
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

from comics.detectors import build
from comics.detectors.mask_rcnn import Settings
from comics.detectors.roi import box_mask_targets
from comics.detectors.soft_masks import PastedMasks
from comics.params import InferenceParams, ModelParams

SIDE = 128  # a multiple of every stride: elsewhere torchvision spaces the anchors of P6 and P7 by a rounded stride
SETTINGS = Settings(pyramid="p3-p7", proposals=2000, roi_samples=2, roi_aligned=False, smooth_l1_beta=1 / 9)
MODEL = ModelParams(backbone="resnet18", fpn_channels=16, head_channels=16, head_convs=2, settings=SETTINGS)

NAMES = {
    "objectness": "loss_objectness",
    "rpn_box": "loss_rpn_box_reg",
    "class": "loss_classifier",
    "box": "loss_box_reg",
    "mask": "loss_mask",
}
"""Our names of the losses, and torchvision's."""


class _Named(nn.Module):
    """Our extractor, with the names of maps that torchvision wants."""

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor
        self.out_channels = MODEL.fpn_channels

    def forward(self, images):
        return OrderedDict((str(level), maps) for level, maps in enumerate(self.extractor(images)))


def reference_of(detector, longest=SIDE):
    reference = Reference(
        _Named(detector.extractor),
        min_size=longest,
        max_size=longest,
        image_mean=detector.pixel_mean.flatten().tolist(),
        image_std=detector.pixel_std.flatten().tolist(),
        rpn_anchor_generator=AnchorGenerator(
            tuple((size,) for size in (32, 64, 128, 256, 512)), ((0.5, 1.0, 2.0),) * 5
        ),
        rpn_head=RPNHead(16, 3),
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], 7, 2),
        box_head=detector.roi_heads.box_head,
        box_predictor=detector.roi_heads.box_predictor,
        mask_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], 14, 2),
        mask_head=detector.roi_heads.mask_head,
        mask_predictor=detector.roi_heads.mask_predictor,
    )
    reference.rpn.head = detector.rpn.head
    return reference


def scene(seed: int, count: int):
    """An image of bright rectangles, and their target."""
    generator = torch.Generator().manual_seed(seed)
    image = 0.3 * torch.rand(3, SIDE, SIDE, generator=generator)
    corners = torch.randint(0, 80, (count, 2), generator=generator)
    sides = torch.randint(20, 48, (count, 2), generator=generator)
    boxes = torch.cat([corners, corners + sides], dim=1)
    masks = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    labels = torch.arange(count) % 2
    for mask, (left, top, right, bottom), label in zip(masks, boxes.tolist(), labels.tolist(), strict=True):
        mask[top:bottom, left:right] = True
        image[label * 2, top:bottom, left:right] = 1
    return image, {"boxes": boxes.float(), "labels": labels, "masks": masks}


@pytest.fixture(autouse=True)
def masks_of_ours(monkeypatch):
    """torchvision with the two things that it has not, see above."""
    monkeypatch.setattr(
        roi_heads,
        "project_masks_on_boxes",
        lambda masks, boxes, matches, size: box_mask_targets([{"masks": masks}], [boxes], [matches], size, False),
    )
    monkeypatch.setattr(
        transform,
        "paste_masks_in_image",
        lambda masks, boxes, size: PastedMasks(masks[:, 0], boxes, size).at(size)[:, None].float(),
    )


@pytest.fixture(scope="module", params=["random", "trained"])
def detector(request):
    torch.manual_seed(0)
    detector = build("mask_rcnn", MODEL, 2, InferenceParams(nms_threshold=0.5))
    detector.anchors.round_()
    if request.param == "trained":
        optimizer = torch.optim.Adam(detector.parameters(), 2e-3)
        images, targets = zip(*(scene(seed, 2) for seed in range(4)), strict=True)
        for _ in range(25):
            optimizer.zero_grad()
            losses = detector.losses(detector(torch.stack(images)), list(targets), [(SIDE, SIDE)] * 4)
            sum(losses.values()).backward()
            optimizer.step()
    return detector.eval()


@pytest.mark.parametrize("counts", [(3, 1), (0, 2)])
def test_losses(detector, counts):
    images, targets = zip(*(scene(seed, count) for seed, count in enumerate(counts, 10)), strict=True)
    reference = reference_of(detector)
    reference.rpn.train()
    reference.roi_heads.train()
    reference.transform.eval()  # in training it draws a size, which would shift the samplers' random numbers
    reference.training = True  # but the backbone's BatchNorm is in evaluation on both sides
    torch.manual_seed(3)
    expected = reference(list(images), [{**target, "labels": target["labels"] + 1} for target in targets])
    torch.manual_seed(3)
    found = detector.losses(detector(torch.stack(images)), list(targets), [(SIDE, SIDE)] * 2)
    for ours, theirs in NAMES.items():
        assert float(found[ours].detach()) == pytest.approx(float(expected[theirs].detach()), rel=1e-4, abs=1e-6), ours


def test_detections(detector):
    images = torch.stack([scene(seed, 2)[0] for seed in (20, 0)])
    with torch.no_grad():
        expected = reference_of(detector).eval()(list(images))
        found = detector.predict(detector(images), [(SIDE, SIDE)] * 2)
    assert sum(len(one["scores"]) for one in found) > 0
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours["scores"], theirs["scores"], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours["boxes"], theirs["boxes"], rtol=1e-4, atol=1e-2)
        assert torch.equal(ours["labels"], theirs["labels"] - 1)
        differing = ours["masks"] != (theirs["masks"][:, 0] > 0.5)
        assert float(differing.float().mean()) <= 1e-4


ODD = [(117, 101), (90, 117)]  # no multiples of 32; the longest sides are alike, so that torchvision scales nothing


def padded_scenes():
    """Our batch, padded with white, and torchvision's list of images, which it pads itself after normalising them."""
    batch, images, targets, theirs = torch.ones(2, 3, SIDE, SIDE), [], [], []
    for slot, (height, width), seed in zip(batch, ODD, (10, 11), strict=True):
        image, target = scene(seed, 2)
        image = image[:, :height, :width]
        slot[:, :height, :width] = image
        limits = torch.tensor([width, height, width, height])
        boxes = torch.minimum(target["boxes"], limits)
        masks = torch.zeros_like(target["masks"])
        masks[:, :height, :width] = target["masks"][:, :height, :width]
        images.append(image)
        targets.append({**target, "boxes": boxes, "masks": masks})
        theirs.append({"boxes": boxes, "labels": target["labels"] + 1, "masks": masks[:, :height, :width]})
    return batch, images, targets, theirs


def test_losses_of_padded_images(detector):
    batch, images, targets, theirs = padded_scenes()
    reference = reference_of(detector, longest=117)
    reference.rpn.train()
    reference.roi_heads.train()
    reference.transform.eval()
    reference.training = True
    torch.manual_seed(3)
    expected = reference(images, theirs)
    torch.manual_seed(3)
    found = detector.losses(detector(batch, ODD), targets, ODD)
    assert set(expected) == set(NAMES.values())
    for ours, theirs_name in NAMES.items():
        assert found[ours].item() == pytest.approx(expected[theirs_name].item(), rel=1e-4, abs=1e-6), ours


def test_detections_of_padded_images(detector):
    batch, images, _, _ = padded_scenes()
    with torch.no_grad():
        expected = reference_of(detector, longest=117).eval()(images)
        found = detector.predict(detector(batch, ODD), ODD)
        black = detector.predict(detector(torch.where(batch == 1, 0.0, batch)), ODD)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours["scores"], theirs["scores"], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours["boxes"], theirs["boxes"], rtol=1e-4, atol=1e-2)
        assert torch.equal(ours["labels"], theirs["labels"] - 1)
        assert float((ours["masks"] != (theirs["masks"][:, 0] > 0.5)).float().mean()) <= 1e-4
    assert any(
        one["scores"].shape != other["scores"].shape or not torch.allclose(one["scores"], other["scores"], rtol=1e-3)
        for one, other in zip(found, black, strict=True)
    )
