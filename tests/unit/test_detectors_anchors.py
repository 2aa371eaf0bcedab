"""Anchors, RetinaMask's box loss, YOLACT's suppression and losses, CenterMask's levels, deformable convolutions: each beside a
naive version."""

from __future__ import annotations

import math

import pytest
import torch
from detector_scenes import target_of, tiny
from torch import nn
from torch.nn import functional
from torchvision.ops import box_iou

from comics.detectors.anchors import IGNORED, NEGATIVE, around_origin, decode, encode, flatten, match, place
from comics.detectors.backbone.layers import DeformableConv
from comics.detectors.centermask import levels_by_share
from comics.detectors.retinamask import SelfAdjustingSmoothL1
from comics.detectors.yolact import fast_nms, hard_negatives, inside_boxes
from comics.detectors.yolact_plus import MaskScorer


def test_anchors_have_their_area_and_ratio_and_stand_in_order():
    cells = around_origin([16, 32], [0.5, 1.0, 2.0])
    sides = cells[:, 2:] - cells[:, :2]
    assert sides.prod(dim=1).tolist() == pytest.approx([256] * 3 + [1024] * 3)
    assert (sides[:, 1] / sides[:, 0]).tolist() == pytest.approx([0.5, 1, 2] * 2)
    maps = [torch.arange(2 * 6 * 4 * 3 * 5.0).view(2, 24, 3, 5)]
    (anchors,) = place([cells], maps, [8], 0.5)
    values = flatten(maps, 4)
    assert values.shape == (2, 90, 4)
    for number in (0, 7, 44, 89):
        cell, anchor = divmod(number, 6)
        row, column = divmod(cell, 5)
        centre = (anchors[number, :2] + anchors[number, 2:]) / 2
        assert centre.tolist() == pytest.approx([8 * (column + 0.5), 8 * (row + 0.5)])
        assert values[1, number].tolist() == maps[0][1, 4 * anchor : 4 * anchor + 4, row, column].tolist()


def test_codes_come_back():
    torch.manual_seed(0)
    corners = torch.rand(9, 2) * 50
    boxes = torch.cat((corners, corners + 1 + torch.rand(9, 2) * 40), dim=1)
    anchors = boxes.roll(1, dims=0)
    codes = encode(boxes, anchors, (10.0, 5.0))
    torch.testing.assert_close(decode(codes, anchors, (10.0, 5.0)), boxes)
    left, top, right, bottom = anchors[0].tolist()
    centre = [(boxes[0, 0] + boxes[0, 2]) / 2, (boxes[0, 1] + boxes[0, 3]) / 2]
    expected = [
        10 * (centre[0] - (left + right) / 2) / (right - left),
        10 * (centre[1] - (top + bottom) / 2) / (bottom - top),
        5 * math.log((boxes[0, 2] - boxes[0, 0]) / (right - left)),
        5 * math.log((boxes[0, 3] - boxes[0, 1]) / (bottom - top)),
    ]
    assert codes[0].tolist() == pytest.approx([float(value) for value in expected], rel=1e-4)


@pytest.mark.parametrize("lowest", [0.0, 0.2, 1.0])
def test_matches_are_those_of_plain_loops(lowest):
    torch.manual_seed(1)
    corners = torch.rand(60, 2) * 40
    anchors = torch.cat((corners, corners + 8 + torch.rand(60, 2) * 20), dim=1)
    boxes = torch.tensor([[2.0, 3, 25, 30], [20, 20, 44, 40], [30, 2, 33, 4]])
    iou = box_iou(anchors, boxes)
    expected = []
    for row in iou.tolist():
        best = max(row)
        expected.append(row.index(best) if best >= 0.5 else NEGATIVE if best < 0.4 else IGNORED)
    for box in range(3):
        column = iou[:, box].tolist()
        if max(column) > lowest:
            expected[column.index(max(column))] = box
    assert match(anchors, boxes, 0.5, 0.4, lowest).tolist() == expected
    assert set(match(anchors, boxes[:0], 0.5, 0.4, lowest).tolist()) == {NEGATIVE}


def test_smooth_l1_adjusts_itself():
    torch.manual_seed(0)
    loss = SelfAdjustingSmoothL1(0.11)
    predicted, wanted = torch.rand(6, 4) * 0.3, torch.rand(6, 4) * 0.3
    found = loss(predicted, wanted)
    for column in range(4):
        errors = (predicted - wanted).abs()[:, column].tolist()
        mean = sum(errors) / 6
        variance = sum((error - mean) ** 2 for error in errors) / 5
        beta = min(0.11, max(1e-3, 0.9 * 0.11 + 0.1 * mean - 0.1 * variance))
        expected = [0.5 * e * e / beta if e < beta else e - 0.5 * beta for e in errors]
        assert found[:, column].tolist() == pytest.approx(expected, rel=1e-4)
    before = loss.mean.clone()
    assert loss(predicted[:1], wanted[:1]).shape == (1, 4)  # one has no variance
    assert loss(predicted[:0], wanted[:0]).shape == (0, 4)
    loss.eval()(predicted, wanted)
    assert torch.equal(loss.mean, before)
    double = predicted.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, wanted.double()), double)


def test_fast_nms_lets_the_suppressed_suppress():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 3, 10, 13], [0, 6, 10, 16], [30, 30, 40, 40]]])
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6]])
    # the second overlaps the first by 0.54, the third the second by as much, though that is gone
    assert fast_nms(boxes, scores, 0.5).tolist() == [[True, False, False, True]]
    assert fast_nms(boxes, scores, 0.6).tolist() == [[True] * 4]


def test_hard_negatives_are_the_least_sure():
    torch.manual_seed(0)
    logits = torch.randn(20, 3)
    labels = torch.tensor([1, 2] + [0] * 14 + [-1] * 4)
    background = logits.softmax(dim=1)[:, 0]
    expected = sorted((float(background[index]), index) for index in range(2, 16))[:6]
    assert hard_negatives(logits, labels, 3).nonzero().flatten().tolist() == sorted(index for _, index in expected)
    assert int(hard_negatives(logits, labels, 50).sum()) == 14
    assert not hard_negatives(logits, torch.zeros(20, dtype=torch.int64), 3).any()


def test_cells_inside_boxes():
    found = inside_boxes(torch.tensor([[8.0, 8, 15, 16], [9, 9, 10, 10]]), (6, 6), 4.0)
    # from 2 to 3.75 and from 2 to 4 cells, and less than a cell on each side
    assert found[0].nonzero().tolist() == [[y, x] for y in (1, 2, 3, 4) for x in (1, 2, 3, 4)]
    assert found[1].nonzero().tolist() == [[y, x] for y in (2, 3) for x in (2, 3)]


@pytest.mark.parametrize("name", ["yolact", "yolact_plus"])
def test_losses_of_yolact_beside_plain_sums(name):
    detector = tiny(name).eval()
    target = target_of([[10, 12, 50, 70], [40, 30, 90, 60]], [0, 1], 96, 96)
    torch.manual_seed(0)
    prototypes, coefficients = torch.rand(32, 24, 24), torch.randn(3, 32) * 0.3
    faces = torch.tensor([0, 1, 1])
    mask, iou = detector._mask_losses(prototypes, coefficients, target, faces)
    expected = 0.0
    for face, own in zip(faces.tolist(), coefficients, strict=True):
        drawn = (prototypes * own[:, None, None]).sum(dim=0).sigmoid()
        small = functional.interpolate(
            target["masks"][None, face, None].float().transpose(0, 1), size=(24, 24), mode="bilinear"
        )
        wanted = (small[0, 0] > 0.5).float()
        left, top, right, bottom = target["boxes"][face].tolist()
        total = 0.0
        for y in range(max(0, math.ceil(top / 4 - 1)), min(24, math.ceil(bottom / 4 + 1))):
            for x in range(max(0, math.ceil(left / 4 - 1)), min(24, math.ceil(right / 4 + 1))):
                p = float(drawn[y, x])
                total -= math.log(p) if wanted[y, x] else math.log(1 - p)
        expected += total / ((right - left) * (bottom - top) / 16)
    assert float(mask.detach()) == pytest.approx(expected, rel=1e-3)
    assert (iou is None) == (name == "yolact")
    features = torch.randn(1, detector.channels, 12, 12)
    logits = detector.semantic(features)[0]
    total = 0.0
    for label in range(2):
        small = functional.interpolate(
            target["masks"][None, label, None].float().transpose(0, 1), size=(12, 12), mode="bilinear"
        )
        for p, t in zip(
            logits[label].sigmoid().flatten().tolist(), (small[0, 0] > 0.5).flatten().tolist(), strict=True
        ):
            total -= math.log(p) if t else math.log(1 - p)
    assert float(detector._semantic_loss(features, [target]).detach()) == pytest.approx(total / 144, rel=1e-4)


def test_levels_by_share_are_equation_2():
    image = 800.0 * 1000
    boxes = torch.tensor(
        [[0.0, 0, w, h] for w, h in ((800, 1000), (500, 700), (400, 600), (200, 300), (10, 10), (0, 5))]
    )
    expected = []
    for left, top, right, bottom in boxes.tolist():
        area = max((right - left) * (bottom - top), 1e-6)
        expected.append(min(5, max(3, math.ceil(5 - math.log2(image / area)))))
    assert levels_by_share(boxes, torch.full((6,), image)).tolist() == expected
    assert expected[:3] == [5, 4, 4]


def test_a_deformable_convolution_starts_as_half_a_plain_one_and_moves():
    torch.manual_seed(0)
    layer, x = DeformableConv(3, 5, stride=2), torch.randn(2, 3, 9, 8)
    plain = functional.conv2d(x, layer.weight, None, 2, 1)
    torch.testing.assert_close(layer(x), plain / 2, rtol=1e-4, atol=1e-5)
    nn.init.constant_(layer.offsets.bias[18:], 50.0)  # weights of 1
    nn.init.constant_(layer.offsets.bias[1:18:2], 1.0)  # each sample one cell to the right
    moved = functional.conv2d(functional.pad(x, (0, 1))[..., 1:], layer.weight, None, 2, 1)
    torch.testing.assert_close(layer(x)[..., 1:-1], moved[..., 1:-1], rtol=1e-4, atol=1e-4)
    layer.double()
    assert torch.autograd.gradcheck(layer, x[:1, :, :4, :4].double().add(0.1).requires_grad_(), atol=1e-4)


def test_the_scoring_network_takes_any_size():
    scorer = MaskScorer(2)
    for side in (4, 24, 63, 90):
        assert scorer(torch.rand(3, side, side + 3)).shape == (3, 2)
    assert scorer(torch.rand(0, 24, 24)).shape == (0, 2)
    masks = torch.zeros(1, 24, 24)
    masks[0, 3:9, 4:12] = 1
    torch.testing.assert_close(scorer(masks), scorer(functional.pad(masks, (0, 39, 0, 39))))
