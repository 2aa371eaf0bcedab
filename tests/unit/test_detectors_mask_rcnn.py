"""What Mask R-CNN adds to torchvision's parts; the parts themselves are compared in tests/parity."""

from __future__ import annotations

import math

import pytest
import torch
from detector_scenes import confident, random_boxes, scenes, tiny

from comics.detectors.mask_rcnn import ANCHOR_SIZES, ASPECT_RATIOS


def features_of(detector, height=96, width=160, batch=2):
    torch.manual_seed(0)
    return detector.extractor(detector.normalise(torch.rand(batch, 3, height, width)))


def test_proposals_are_decoded_anchors_level_by_level():
    """Also where the image is no multiple of the coarsest stride: anchors are spaced by the stride, not by a quotient."""
    detector = confident(tiny("mask_rcnn")).eval()
    with torch.no_grad():
        outputs = detector.forward_heads(features_of(detector))
        found = detector.proposals(outputs)
    for level, (one, stride, size) in enumerate(zip(found, detector.strides, ANCHOR_SIZES, strict=True)):
        height, width = outputs.objectness[level].shape[-2:]
        assert len(one.locations) == 3 * height * width
        for number in range(0, len(one.locations), max(1, len(one.locations) // 20)):
            cell, anchor = divmod(number, 3)
            assert int(one.locations[number]) == cell
            row, column = divmod(cell, width)
            ratio = ASPECT_RATIOS[anchor]
            half_w, half_h = size / math.sqrt(ratio) / 2, size * math.sqrt(ratio) / 2
            dx, dy, dw, dh = outputs.deltas[level][1, 4 * anchor : 4 * anchor + 4, row, column].tolist()
            x, y = column * stride + 2 * half_w * dx, row * stride + 2 * half_h * dy
            limit = math.log(1000 / 16)
            w, h = 2 * half_w * math.exp(min(dw, limit)), 2 * half_h * math.exp(min(dh, limit))
            expected = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
            assert one.boxes[1, number].tolist() == pytest.approx(expected, rel=1e-3, abs=1e-2)


def test_fine_features_are_what_the_mask_logits_are_made_of():
    detector = tiny("mask_rcnn").eval()
    boxes = [torch.tensor([[8.0, 8, 60, 70]]), torch.tensor([[30.0, 10, 90, 90], [0, 0, 159, 95]])]
    with torch.no_grad():
        outputs = detector.forward_heads(features_of(detector))
        maps = detector.roi_mask_features(outputs, boxes, 28)
        logits = detector.roi_heads.mask_predictor.mask_fcn_logits(maps)
        torch.testing.assert_close(logits, detector._mask_logits(outputs, boxes)[0])
        small = detector.roi_mask_features(outputs, boxes, 14)
    torch.testing.assert_close(small, torch.nn.functional.avg_pool2d(maps, 2))  # what bilinear halving is
    assert small.shape == (3, detector.mask_channels, 14, 14)


def test_the_background_is_no_class_of_ours():
    detector = tiny("mask_rcnn", score_threshold=0.0).eval()
    images, _, sizes = scenes([random_boxes(2, 64, 64, 0)], 64, 64)
    detector.roi_heads.box_predictor.cls_score.bias.data = torch.tensor([0.0, 0.0, 9.0])
    with torch.no_grad():
        (found,) = detector.predict(detector(images), sizes)
    assert int(found["labels"][0]) == 1
    assert set(found["labels"].tolist()) <= {0, 1}


def test_targets_without_area_are_left_out():
    detector = tiny("mask_rcnn")
    images, targets, sizes = scenes([[[10, 10, 40, 40], [50, 20, 50, 44]]], 64, 64)
    kept = [{key: value[:1] for key, value in targets[0].items()}]
    outputs = detector(images)
    torch.manual_seed(0)
    found = detector.losses(outputs, targets, sizes)
    torch.manual_seed(0)
    expected = detector.losses(outputs, kept, sizes)
    assert {key: value.item() for key, value in found.items()} == {key: value.item() for key, value in expected.items()}


def test_losses_are_the_same_in_evaluation():
    """Validation computes losses without being in training mode: as many boxes, the same sampling."""
    detector = tiny("mask_rcnn").eval()
    images, targets, sizes = scenes([random_boxes(3, 64, 96, 1)], 64, 96)
    outputs = detector(images)
    values = []
    for training in (False, True):
        detector.rpn.train(training)
        detector.roi_heads.train(training)
        torch.manual_seed(0)
        values.append({key: value.item() for key, value in detector.losses(outputs, targets, sizes).items()})
    assert values[0] == values[1]
