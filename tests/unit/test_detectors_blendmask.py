"""BlendMask: bases, attention and blending, and the targets of its two mask losses, against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from detector_scenes import confident, random_boxes, scenes, target_of, tiny
from torch.nn import functional
from torchvision.ops import roi_align

from comics.detectors.blendmask import (
    ATTENTION,
    BASES,
    MASK,
    POSITIVES_AT_ONCE,
    blend,
    blended_loss,
    crop_masks,
    semantic_targets,
)
from comics.detectors.fcos import flatten


def naive_upsample(grid, side):
    """Bilinear, half-pixel centres, edges repeated."""
    size = len(grid)
    rows = []
    for row in range(side):
        y = min(max((row + 0.5) * size / side - 0.5, 0), size - 1)
        top, down = int(y), min(int(y) + 1, size - 1)
        line = []
        for column in range(side):
            x = min(max((column + 0.5) * size / side - 0.5, 0), size - 1)
            left, right = int(x), min(int(x) + 1, size - 1)
            upper = grid[top][left] * (1 - (x - left)) + grid[top][right] * (x - left)
            lower = grid[down][left] * (1 - (x - left)) + grid[down][right] * (x - left)
            line.append(upper * (1 - (y - top)) + lower * (y - top))
        rows.append(line)
    return rows


def test_blending_is_a_softmax_over_the_bases_at_every_pixel():
    torch.manual_seed(0)
    bases = torch.randn(2, BASES, 20, 20)
    attention = torch.randn(2, BASES * ATTENTION**2)
    blended = blend(bases, attention)
    for face in range(2):
        maps = attention[face].view(BASES, ATTENTION, ATTENTION).tolist()
        maps = [naive_upsample(one, 20) for one in maps]
        for row, column in ((0, 0), (7, 13), (19, 19), (4, 0)):
            weights = [math.exp(one[row][column]) for one in maps]
            values = [bases[face, kind, row, column].item() for kind in range(BASES)]
            expected = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
            assert blended[face, row, column].item() == pytest.approx(expected, abs=1e-5)


def test_blending_gradient():
    torch.manual_seed(0)
    bases = torch.randn(1, BASES, 4, 4).double().requires_grad_()
    attention = torch.randn(1, BASES * ATTENTION**2).double().requires_grad_()
    assert torch.autograd.gradcheck(blend, (bases, attention), fast_mode=True)


def losses_one_by_one(crops, attention, faces, wanted, weights):
    logits = blend(crops[faces], attention)
    losses = functional.binary_cross_entropy_with_logits(logits, wanted[faces], reduction="none")
    return (losses.mean(dim=(1, 2)) * weights).sum()


@pytest.mark.parametrize("count", [0, 1, 3, POSITIVES_AT_ONCE, 2 * POSITIVES_AT_ONCE + 3])
def test_the_blended_loss_is_that_of_its_operations(count):
    generator = torch.Generator().manual_seed(count)
    crops = torch.randn(4, BASES, 20, 20, generator=generator).requires_grad_()
    attention = (3 * torch.randn(count, BASES * ATTENTION**2, generator=generator)).requires_grad_()
    faces = torch.randint(4, (count,), generator=generator)
    rest = (faces, (torch.rand(4, 20, 20, generator=generator) > 0.5).float(), torch.rand(count, generator=generator))
    ours, theirs = blended_loss(crops, attention, *rest), losses_one_by_one(crops, attention, *rest)
    torch.testing.assert_close(ours, theirs)
    for one, other in zip(
        torch.autograd.grad(2 * ours, (crops, attention)),
        torch.autograd.grad(2 * theirs, (crops, attention)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_blended_loss_has_the_gradient_of_its_value():
    torch.manual_seed(0)
    crops = torch.randn(2, BASES, 6, 6).double().requires_grad_()
    attention = torch.randn(3, BASES * ATTENTION**2).double().requires_grad_()
    rest = (torch.tensor([0, 1, 1]), (torch.rand(2, 6, 6) > 0.5).double(), torch.rand(3).double())
    assert torch.autograd.gradcheck(lambda *inputs: blended_loss(*inputs, *rest), (crops, attention), fast_mode=True)


def test_semantic_targets_are_painted_in_order():
    targets = [
        target_of([[0, 0, 40, 40], [20, 20, 60, 60]], [0, 1], 64, 64),
        target_of([], [], 64, 64),
        target_of([[8, 8, 56, 56]], [1], 64, 64),
    ]
    maps = semantic_targets(targets, 8)
    assert maps.shape == (3, 8, 8)
    for image, target in enumerate(targets):
        for row in range(8):
            for column in range(8):
                expected = 0
                for mask, label in zip(target["masks"], target["labels"].tolist(), strict=True):
                    if mask[row * 8, column * 8]:
                        expected = label + 1
                assert maps[image, row, column] == expected
    assert set(maps[0].flatten().tolist()) == {0, 1, 2}


def test_crop_masks_are_the_masks_cropped_and_resized():
    masks = torch.zeros(1, 64, 64, dtype=torch.bool)
    masks[0, 10:38, 20:34] = True
    box = torch.tensor([[20.0, 10.0, 48.0, 38.0]])  # 28 px wide: its left half is inside
    crop = crop_masks([{"boxes": box, "labels": torch.zeros(1, dtype=torch.int64), "masks": masks}], MASK)
    assert crop.shape == (1, MASK, MASK)
    assert (crop[0, :, :28] == 1).all()
    assert (crop[0, :, 29:] == 0).all()


def test_mask_and_semantic_losses_are_those_of_plain_loops():
    detector = confident(tiny("blendmask"))
    images, targets, sizes = scenes(
        [random_boxes(count, 96, 128, seed) for seed, count in enumerate((2, 0, 3))], 96, 128
    )
    outputs = detector(images)
    losses = detector.losses(outputs, targets, sizes)

    matches = detector.match(outputs, targets)
    dense = flatten(
        [
            functional.conv2d(one, detector.attention.weight, detector.attention.bias, padding=1)
            for one in outputs.towers
        ]
    )
    boxes = []
    for image, target in enumerate(targets):
        boxes += [(image, index) for index in range(len(target["boxes"]))]
    total = weight = 0.0
    crops = crop_masks(targets, MASK)
    for image, location, face, centre in zip(
        matches.images.tolist(),
        matches.locations.tolist(),
        matches.faces.tolist(),
        matches.centerness.tolist(),
        strict=True,
    ):
        owner, index = boxes[face]
        assert owner == image
        box = targets[image]["boxes"][index : index + 1]
        region = torch.cat((torch.tensor([[float(image)]]), box), dim=1)
        bases = roi_align(outputs.bases, region, MASK, 0.25, 1, True)
        maps = functional.interpolate(
            dense[image, location].view(1, BASES, ATTENTION, ATTENTION), size=MASK, mode="bilinear"
        )
        probability = ((maps.softmax(1) * bases).sum(1)).sigmoid()[0]
        wanted = crops[face]
        entropy = -(wanted * probability.log() + (1 - wanted) * (1 - probability).log()).mean()
        total += centre * entropy.item()
        weight += centre
    assert len(matches.images) > 5
    assert losses["mask"].item() == pytest.approx(total / weight, rel=1e-4)

    logits = detector.bottom.semantic(outputs.features[0]).log_softmax(1)
    classes = semantic_targets(targets, 8)
    entropy = -sum(
        logits[image, classes[image, row, column], row, column].item()
        for image in range(3)
        for row in range(12)
        for column in range(16)
    )
    assert losses["semantic"].item() == pytest.approx(0.3 * entropy / (3 * 12 * 16), rel=1e-4)


def test_bases_and_mask_features_have_stride_four():
    detector = tiny("blendmask")
    outputs = detector(torch.rand(2, 3, 64, 96))
    assert outputs.bases.shape == (2, BASES, 16, 24)
    assert outputs.mask_features.shape == (2, detector.mask_channels, 16, 24)
    crops = detector.roi_mask_features(outputs, [torch.tensor([[0.0, 0, 96, 64]]), torch.zeros(0, 4)], 12)
    assert crops.shape == (1, detector.mask_channels, 12, 12)
    crops.sum().backward()
    assert detector.bottom.tower[0][0].weight.grad.abs().sum() > 0
