"""FCOS: locations, target assignment, losses, selection and pasting against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from detector_scenes import confident, random_boxes, scenes, tiny
from torch import Tensor, nn

from comics.detectors.fcos import (
    BACKGROUND,
    LEVEL_RANGES,
    PointConv,
    assign,
    centerness_targets,
    decode,
    flatten,
    giou_loss,
    grid_of,
    pad_targets,
)
from comics.detectors.soft_masks import PastedMasks

STRIDES = (8, 16, 32, 64, 128)


def empty_maps(height: int, width: int, channels: int = 1, batch: int = 1) -> list[Tensor]:
    return [torch.zeros(batch, channels, math.ceil(height / step), math.ceil(width / step)) for step in STRIDES]


def test_locations_are_cell_centres():
    grid = grid_of(empty_maps(64, 96), STRIDES)
    assert grid.points[0].tolist() == [4, 4]
    assert grid.points[1].tolist() == [12, 4]
    assert grid.points[12].tolist() == [4, 12]
    assert grid.points[-1].tolist() == [64, 64]
    assert grid.counts == [96, 24, 6, 2, 1]


def naive_assign(grid, boxes, labels, radius=1.5):
    """One image, three loops."""
    classes, faces = [], []
    for (x, y), stride, level in zip(grid.points.tolist(), grid.strides.tolist(), grid.levels.tolist(), strict=True):
        best, best_area = None, math.inf
        for index, (left, top, right, bottom) in enumerate(boxes):
            middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
            reach = stride * radius
            in_centre = max(left, middle_x - reach) < x < min(right, middle_x + reach)
            in_centre = in_centre and max(top, middle_y - reach) < y < min(bottom, middle_y + reach)
            low, high = LEVEL_RANGES[level]
            if in_centre and low <= max(x - left, y - top, right - x, bottom - y) <= high:
                area = (right - left) * (bottom - top)
                if area < best_area:
                    best, best_area = index, area
        classes.append(BACKGROUND if best is None else labels[best])
        faces.append(0 if best is None else best)
    return classes, faces


@pytest.mark.parametrize("counts", [[0], [1], [3, 0, 1], [50, 7]])
def test_assignment_is_that_of_plain_loops(counts):
    height, width = 192, 256
    boxes = [random_boxes(count, height, width, seed, smallest=1) for seed, count in enumerate(counts)]
    _, targets, _ = scenes(boxes, height, width)
    grid = grid_of(empty_maps(height, width), STRIDES)
    classes, faces = assign(grid, *pad_targets(targets, torch.device("cpu")))
    for image, one in enumerate(boxes):
        expected = naive_assign(grid, targets[image]["boxes"].tolist(), targets[image]["labels"].tolist())
        assert classes[image].tolist() == expected[0]
        assert faces[image].tolist() == expected[1]
        assert (classes[image] >= 0).any() == bool(one)


def test_every_level_receives_the_faces_of_its_size():
    grid = grid_of(empty_maps(1024, 1024), STRIDES)
    for level, side in enumerate((40, 160, 320, 640, 1000)):
        corner = (1024 - side) / 2
        boxes = torch.tensor([[[corner, corner, corner + side, corner + side]]])
        classes, _ = assign(grid, boxes, torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool))
        assert set(grid.levels[classes[0] >= 0].tolist()) == {level}


def test_centres_move_the_central_region():
    grid = grid_of(empty_maps(128, 128), STRIDES)
    boxes = torch.tensor([[[0.0, 0.0, 60.0, 60.0]]])
    label, valid = torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool)
    classes, _ = assign(grid, boxes, label, valid, centres=torch.tensor([[[15.0, 15.0]]]))
    assert (grid.points[classes[0] >= 0] - 15).abs().max() < 1.5 * 16


def naive_giou(predicted, target):
    """From corner coordinates; 1 added to intersection and union as the published code does."""
    (pl, pt, pr, pb), (tl, tt, tr, tb) = predicted, target
    width, height = min(pr, tr) + min(pl, tl), min(pb, tb) + min(pt, tt)
    union = (pl + pr) * (pt + pb) + (tl + tr) * (tt + tb) - width * height
    hull = (max(pr, tr) + max(pl, tl)) * (max(pb, tb) + max(pt, tt))
    return (width * height + 1) / (union + 1) - (hull - union) / hull


def test_giou_and_centerness_are_their_formulas():
    generator = torch.Generator().manual_seed(3)
    predicted, target = torch.rand(2, 20, 4, generator=generator).double() * 5
    expected = [1 - naive_giou(one, other) for one, other in zip(predicted.tolist(), target.tolist(), strict=True)]
    torch.testing.assert_close(giou_loss(predicted, target), torch.tensor(expected).double())
    sides = [math.sqrt(min(a, c) / max(a, c) * min(b, d) / max(b, d)) for a, b, c, d in target.tolist()]
    torch.testing.assert_close(centerness_targets(target), torch.tensor(sides).double())


def test_giou_gradient():
    torch.manual_seed(0)
    predicted = (torch.rand(6, 4).double() * 3 + 0.1).requires_grad_()
    target = torch.rand(6, 4).double() * 3 + 0.1
    assert torch.autograd.gradcheck(lambda x: giou_loss(x, target), predicted)


def test_an_empty_prediction_has_finite_loss_and_gradient():
    predicted = torch.zeros(1, 4, requires_grad=True)
    loss = giou_loss(predicted, torch.full((1, 4), 2.0)).sum()
    loss.backward()
    assert loss.isfinite()
    assert predicted.grad.isfinite().all()


def naive_losses(outputs, targets, detector):
    """Every location of every image on its own, in Python floats."""
    grid = grid_of(outputs.logits, detector.strides)
    logits, sides, central = (
        flatten(maps).double() for maps in (outputs.logits, outputs.distances, outputs.centerness)
    )
    focal = box = centre = weight = positives = 0.0
    for image, target in enumerate(targets):
        boxes = target["boxes"].tolist()
        classes, faces = naive_assign(grid, boxes, target["labels"].tolist())
        for location, (label, face) in enumerate(zip(classes, faces, strict=True)):
            for kind, logit in enumerate(logits[image, location].tolist()):
                probability = 1 / (1 + math.exp(-logit))
                if kind == label:
                    focal -= 0.25 * (1 - probability) ** 2 * math.log(probability)
                else:
                    focal -= 0.75 * probability**2 * math.log(1 - probability)
            if label == BACKGROUND:
                continue
            x, y = grid.points[location].tolist()
            left, top, right, bottom = boxes[face]
            wanted = [side / grid.strides[location].item() for side in (x - left, y - top, right - x, bottom - y)]
            middle = math.sqrt(
                min(wanted[0], wanted[2])
                / max(wanted[0], wanted[2])
                * min(wanted[1], wanted[3])
                / max(wanted[1], wanted[3])
            )
            box += middle * (1 - naive_giou(sides[image, location].tolist(), wanted))
            probability = 1 / (1 + math.exp(-central[image, location].item()))
            centre -= middle * math.log(probability) + (1 - middle) * math.log(1 - probability)
            weight += middle
            positives += 1
    return {
        "class": focal / max(positives, 1),
        "box": box / max(weight, 1e-6),
        "centerness": centre / max(positives, 1),
    }


@pytest.mark.parametrize("counts", [[2, 0, 5], [0], [1]])
def test_losses_are_those_of_plain_loops(counts):
    detector = confident(tiny("blendmask"))
    images, targets, _ = scenes([random_boxes(count, 96, 128, seed) for seed, count in enumerate(counts)], 96, 128)
    outputs = detector(images)
    losses = detector.box_losses(outputs, detector.match(outputs, targets))
    for name, expected in naive_losses(outputs, targets, detector).items():
        assert losses[name].item() == pytest.approx(expected, rel=1e-4), name


def test_point_convolution_is_the_dense_one_with_its_gradient():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 7, 3, padding=1).double()
    points = PointConv(3, 7).double()
    points.load_state_dict(conv.state_dict())
    maps = [torch.randn(2, 3, math.ceil(40 / step), math.ceil(56 / step)).double().requires_grad_() for step in STRIDES]
    grid = grid_of(maps, STRIDES)
    every = torch.arange(len(grid.points)).repeat(2)
    images = torch.arange(2).repeat_interleave(len(grid.points))
    sparse = points.at(maps, grid, images, every)
    dense = flatten([conv(one) for one in maps]).flatten(0, 1)
    torch.testing.assert_close(sparse, dense)
    weight = torch.randn_like(dense)
    ours = torch.autograd.grad((sparse * weight).sum(), [*maps, points.weight, points.bias])
    theirs = torch.autograd.grad((dense * weight).sum(), [*maps, conv.weight, conv.bias])
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_point_convolution_nowhere():
    conv = PointConv(3, 7)
    maps = empty_maps(32, 32, channels=3, batch=2)
    nowhere = torch.zeros(0, dtype=torch.int64)
    values = conv.at(maps, grid_of(maps, STRIDES), nowhere, nowhere)
    assert values.shape == (0, 7)
    values.sum().backward()
    assert (conv.weight.grad == 0).all()


def overlap(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / (area - width * height)


def naive_select(outputs, image, size, detector):
    settings = detector.inference
    found = []
    for logits, distances, centerness, stride in zip(
        outputs.logits, outputs.distances, outputs.centerness, detector.strides, strict=True
    ):
        level = []
        for row in range(logits.shape[2]):
            for column in range(logits.shape[3]):
                quality = torch.sigmoid(centerness[image, 0, row, column])
                left, top, right, bottom = (distances[image, :, row, column] * stride).tolist()
                x, y = (column + 0.5) * stride, (row + 0.5) * stride
                for kind in range(logits.shape[1]):
                    product = (torch.sigmoid(logits[image, kind, row, column]) * quality).item()
                    if product > settings.score_threshold:
                        level.append((math.sqrt(product), kind, (x - left, y - top, x + right, y + bottom)))
        found += sorted(level, reverse=True)[: settings.pre_nms_top]
    kept = []
    for score, kind, box in sorted(found, reverse=True):
        if all(kind != other or overlap(box, rival) <= settings.nms_threshold for _, other, rival in kept):
            kept.append((score, kind, box))
    height, width = size
    clipped = []
    for score, kind, (left, top, right, bottom) in kept[: settings.max_detections]:
        box = (max(left, 0), max(top, 0), min(right, width), min(bottom, height))
        if box[2] > box[0] and box[3] > box[1]:
            clipped.append((score, kind, box))
    return clipped


@pytest.mark.parametrize("settings", [{}, {"pre_nms_top": 9, "max_detections": 5, "nms_threshold": 0.3}])
def test_selection_is_that_of_plain_loops(settings):
    detector = confident(tiny("blendmask", **settings)).eval()
    images, _, _ = scenes([random_boxes(3, 64, 96, seed) for seed in (0, 1)], 64, 96)
    sizes = [(64, 96), (50, 70)]
    with torch.no_grad():
        outputs = detector(images)
        found, _ = detector.select(outputs, sizes)
    for image, size in enumerate(sizes):
        expected = naive_select(outputs, image, size, detector)
        assert expected
        torch.testing.assert_close(found[image].scores, torch.tensor([score for score, _, _ in expected]))
        assert found[image].labels.tolist() == [kind for _, kind, _ in expected]
        torch.testing.assert_close(
            found[image].boxes, torch.tensor([box for _, _, box in expected]), rtol=1e-4, atol=1e-3
        )


def test_pasted_masks_are_bilinear_samples():
    torch.manual_seed(0)
    height, width = 50, 70
    boxes = torch.tensor([[3.2, 4.1, 40.7, 30.3], [0.0, 0.0, 70.0, 50.0], [10.0, 10.0, 11.0, 10.5], [69.2, 0, 70, 50]])
    probabilities = torch.rand(4, 14, 14)
    masks = PastedMasks(probabilities, boxes, (height, width)).at((height, width))
    assert masks.shape == (4, height, width)
    y, x = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    for mask, probability, (left, top, right, bottom) in zip(masks, probabilities, boxes.tolist(), strict=True):
        down, across = (y - top) / (bottom - top) * 2 - 1, (x - left) / (right - left) * 2 - 1
        samples = torch.stack(torch.meshgrid(down, across, indexing="ij")[::-1], dim=-1)
        sampled = nn.functional.grid_sample(probability[None, None], samples[None], align_corners=False)[0, 0]
        assert ((sampled >= 0.5) == mask)[(sampled - 0.5).abs() > 1e-4].all()


def test_proposals_need_the_box_branch_alone():
    detector = confident(tiny("blendmask"))
    images, _, _ = scenes([random_boxes(2, 64, 96, 0)], 64, 96)
    features = detector.extractor(detector.normalise(images))
    full = detector.proposals(detector.forward_heads(features))

    def fail(*_):
        raise AssertionError("the class tower ran")

    detector.head.cls_tower.register_forward_hook(fail)
    alone = detector.propose(features)
    for level, (one, other) in enumerate(zip(full, alone, strict=True)):
        torch.testing.assert_close(one.boxes, other.boxes)
        assert one.boxes.dtype == torch.float32
        assert not one.boxes.requires_grad
        assert one.locations.tolist() == list(range(features[level].shape[2] * features[level].shape[3]))
        assert one.boxes.shape == (1, len(one.locations), 4)


def test_decoding():
    box = decode(torch.tensor([[10.0, 20.0]]), torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    assert box.tolist() == [[9, 18, 13, 24]]
