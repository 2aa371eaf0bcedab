"""Regions of interest: pooling, targets and the expected IoU of masks, beside naive versions."""

from __future__ import annotations

import math

import pytest
import torch
from detector_scenes import target_of

from comics.detectors.roi import (
    PyramidRoIAlign,
    box_mask_targets,
    levels_by_area,
    mask_iou_loss,
    mask_iou_targets,
    mask_loss,
    shares_inside,
)
from comics.detectors.soft_masks import PastedMasks


def test_levels_are_equation_1():
    sides = [1, 100, 111, 113, 223, 225, 447, 449, 5000]
    boxes = torch.tensor([[0.0, 0, side, side] for side in sides])
    expected = [min(max(math.floor(4 + math.log2(side / 224)), 2), 5) for side in sides]
    assert levels_by_area(boxes, 2, 5).tolist() == expected
    assert levels_by_area(torch.zeros(0, 4), 2, 5).tolist() == []


def test_pooling_takes_each_region_from_its_level_and_image():
    """Maps that are constant say where a region was pooled."""
    maps = [torch.full((2, 1, 64 >> level, 64 >> level), float(level)) for level in range(4)]
    for level in maps:
        level[1] += 10
    boxes = [torch.tensor([[0.0, 0, 30, 30], [0, 0, 230, 230]]), torch.tensor([[0.0, 0, 120, 120]])]
    pooled = PyramidRoIAlign(7, (4, 8, 16, 32))(maps, boxes)
    assert pooled.shape == (3, 1, 7, 7)
    assert pooled.amax(dim=(1, 2, 3)).tolist() == [0, 2, 11]
    assert PyramidRoIAlign(7, (4, 8))(maps, [torch.zeros(0, 4)] * 2).shape == (0, 1, 7, 7)
    chosen = PyramidRoIAlign(7, (4, 8, 16, 32))(maps, boxes, torch.tensor([5, 3, 2]))
    assert chosen.amax(dim=(1, 2, 3)).tolist() == [3, 1, 10]


def test_pooling_is_aligned_and_passes_gradients():
    ramp = torch.arange(32.0).repeat(32, 1)[None, None] * 4 + 2  # each cell has its centre's x
    box = torch.tensor([[10.0, 10, 66, 66]])
    pooled = PyramidRoIAlign(7, (4,))([ramp], [box])[0, 0, 3]
    assert pooled.tolist() == pytest.approx([14, 22, 30, 38, 46, 54, 62])
    features = torch.rand(1, 2, 8, 8, dtype=torch.float64, requires_grad=True)
    roi = torch.tensor([[3.0, 2, 25, 30]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: PyramidRoIAlign(3, (4,))([x], [roi]), features)


def test_true_masks_in_regions():
    target = target_of([[8, 8, 24, 24], [30, 10, 60, 50]], [0, 1], 64, 64)
    target["masks"][0] = False
    target["masks"][0, 8:24, 8:16] = True  # the left half of its box
    boxes = torch.tensor([[8.0, 8, 24, 24], [0, 0, 8, 8], [30, 10, 60, 50]])
    found = box_mask_targets([target], [boxes], [torch.tensor([0, 0, 1])], 4)
    assert found[0].tolist() == [[1, 1, 0, 0]] * 4
    assert not found[1].any()
    assert found[2].sum() == 12  # an ellipse lacks the corners
    assert box_mask_targets([target], [boxes[:0]], [torch.zeros(0, dtype=torch.int64)], 4).shape == (0, 4, 4)


@pytest.mark.parametrize("side", [8, 16, 32, 100])
def test_exact_pasting_keeps_a_mask(side):
    """What is cut out of a mask by its box and pasted back is the mask."""
    ious = []
    for shift in (0.0, 0.25, 0.4, 0.7):
        target = target_of([[20 + shift, 22 + shift, 20 + shift + side, 22 + shift + 1.2 * side]], [0], 160, 160)
        crop = box_mask_targets([target], [target["boxes"]], [torch.tensor([0])], 28)
        (mask,) = PastedMasks(crop, target["boxes"], (160, 160)).at((160, 160))
        both, either = (mask & target["masks"][0]).sum(), (mask | target["masks"][0]).sum()
        ious.append(float(both / either))
    assert min(ious) > {8: 0.8, 16: 0.9, 32: 0.95, 100: 0.97}[side]


def naive_share(mask, box):
    height, width = mask.shape
    inside = 0
    for row in range(height):
        for column in range(width):
            x, y = column + 0.5, row + 0.5
            inside += bool(mask[row, column]) and box[0] <= x < box[2] and box[1] <= y < box[3]
    return inside / max(int(mask.sum()), 1)


def test_shares_inside():
    target = target_of([[4, 4, 20, 28], [10, 2, 30, 12]], [0, 1], 32, 32)
    boxes = torch.tensor(
        [[0.0, 0, 32, 32], [4.3, 6.7, 15.2, 20.9], [-5, -5, 12, 12], [31, 31, 40, 40], [12.5, 2, 20, 9]]
    )
    faces = torch.tensor([0, 0, 0, 1, 1])
    found = shares_inside([target], [boxes], [faces])
    expected = [naive_share(target["masks"][face], box.tolist()) for face, box in zip(faces, boxes, strict=True)]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    nobody = target_of([], [], 32, 32)
    assert shares_inside([nobody], [boxes[:0]], [faces[:0]]).shape == (0,)


def test_mask_iou_targets_count_what_lies_outside():
    wanted = torch.zeros(3, 4, 4)
    wanted[:2, :2] = 1
    probabilities = torch.full((3, 4, 4), 0.2)
    probabilities[:2, 1:3] = 0.9
    found = mask_iou_targets(probabilities, wanted, torch.tensor([1.0, 0.5, 0.0]))
    assert found.tolist() == pytest.approx([4 / 12, 4 / 20, 0])
    assert mask_iou_targets(probabilities[:0], wanted[:0], torch.zeros(0)).shape == (0,)


def test_losses_of_masks_and_their_ious():
    torch.manual_seed(0)
    predicted, wanted = torch.rand(5), torch.tensor([0.0, 0.3, 0.9, 0.0, 0.5])
    expected = sum(0.5 * (predicted[i] - wanted[i]) ** 2 for i in (1, 2, 4)) / 3
    assert float(mask_iou_loss(predicted, wanted)) == pytest.approx(float(expected))
    assert float(mask_iou_loss(predicted, torch.zeros(5))) == 0
    assert float(mask_iou_loss(predicted[:0], wanted[:0])) == 0
    logits = torch.randn(2, 3, 3)
    truth = (torch.rand(2, 3, 3) > 0.5).float()
    each = [
        -math.log(p) if t else -math.log(1 - p)
        for p, t in zip(logits.sigmoid().flatten().tolist(), truth.flatten().tolist(), strict=True)
    ]
    assert float(mask_loss(logits, truth)) == pytest.approx(sum(each) / len(each), rel=1e-5)
    assert float(mask_loss(logits[:0], truth[:0])) == 0
    double = predicted.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: mask_iou_loss(x, wanted.double()), double)
