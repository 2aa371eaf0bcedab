"""CondInst: the dynamic head as a grouped convolution, its targets and its enlargement, against plain formulas."""

from __future__ import annotations

import math

import pytest
import torch
from detector_scenes import confident, random_boxes, scenes, target_of, tiny
from torch.nn import functional

from comics.detectors import condinst
from comics.detectors.condinst import (
    COORDINATE_SCALES,
    PARAMETERS,
    dice_loss,
    dynamic_masks,
    enlarge,
    mass_centres,
)
from comics.detectors.fcos import flatten
from comics.detectors.soft_masks import MapMasks


def grouped(maps, stride, parameters, image, point, scale):
    """One instance: coordinates written out, three convolutions."""
    height, width = maps.shape[-2:]
    y = torch.arange(height).view(-1, 1).expand(height, width) * stride + stride // 2
    x = torch.arange(width).view(1, -1).expand(height, width) * stride + stride // 2
    relative = torch.stack((point[0] - x, point[1] - y)).to(maps.dtype) / scale
    value = torch.cat((relative, maps[image]))[None]
    w1, w2, w3, b1, b2, b3 = parameters.split([80, 64, 8, 8, 8, 1])
    value = functional.conv2d(value, w1.view(8, 10, 1, 1), b1).relu()
    value = functional.conv2d(value, w2.view(8, 8, 1, 1), b2).relu()
    return functional.conv2d(value, w3.view(1, 8, 1, 1), b3)[0, 0]


def test_the_dynamic_head_is_three_convolutions_of_each_instance():
    torch.manual_seed(0)
    maps, images = torch.randn(3, 8, 5, 7), torch.tensor([0, 0, 2, 2, 2])  # none in the second image
    parameters, points = torch.randn(5, PARAMETERS), torch.rand(5, 2) * 50
    scales = torch.tensor(COORDINATE_SCALES)
    masks = dynamic_masks(maps, 8, parameters, images, points, scales)
    for index in range(5):
        expected = grouped(maps, 8, parameters[index], images[index], points[index], scales[index])
        torch.testing.assert_close(masks[index], expected, rtol=1e-4, atol=1e-4)


def test_the_dynamic_head_has_169_parameters():
    assert PARAMETERS == 169


def test_dynamic_head_gradient():
    torch.manual_seed(0)
    maps = torch.randn(2, 8, 2, 3).double().requires_grad_()
    parameters = torch.randn(2, PARAMETERS).double().requires_grad_()
    images, points, scales = torch.tensor([0, 1]), torch.rand(2, 2).double() * 9, torch.tensor([64.0, 128.0]).double()
    assert torch.autograd.gradcheck(lambda m, p: dynamic_masks(m, 8, p, images, points, scales), (maps, parameters))


def test_dice():
    one, other = torch.tensor([[[0.5, 1.0]]]), torch.tensor([[[1.0, 0.0]]])
    assert dice_loss(one, other).item() == pytest.approx(1 - 2 * 0.5 / (1.25 + 1), abs=1e-4)
    assert dice_loss(other, other).item() == pytest.approx(0, abs=1e-4)
    assert dice_loss(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)).item() == 1
    x, target = torch.rand(2, 3, 3).double().requires_grad_(), (torch.rand(2, 3, 3) > 0.5).double()
    assert torch.autograd.gradcheck(lambda probabilities: dice_loss(probabilities, target), x)


@pytest.mark.parametrize("factor", [2, 4])
def test_enlarging_puts_cells_at_their_pixels(factor):
    x = torch.rand(2, 5, 6)
    large = enlarge(x, factor)
    assert large.shape == (2, 5 * factor, 6 * factor)
    start = factor // 2
    torch.testing.assert_close(large[:, start::factor, start::factor], x)
    middle = (x[:, :, 1:] + x[:, :, :-1]) / 2
    torch.testing.assert_close(large[:, start::factor, factor::factor], middle)
    torch.testing.assert_close(large[:, 0, 0], x[:, 0, 0])


def test_masks_are_enlarged_as_a_whole_would_be():
    torch.manual_seed(0)
    probabilities = torch.rand(6, 12, 16) ** 3
    probabilities[1] = 0
    probabilities[2] = 1
    probabilities[3] = 0
    probabilities[3, 11, 0] = 0.9
    masks = MapMasks(probabilities, (45, 60), 4, aligned=True).at((45, 60))
    whole = enlarge(probabilities, 4)[:, :45, :60]
    assert masks.shape == (6, 45, 60)
    assert torch.equal(masks[(whole - 0.5).abs() > 1e-5], (whole > 0.5)[(whole - 0.5).abs() > 1e-5])
    assert not masks[1].any()
    assert masks[2].all()


def test_mass_centres():
    targets = [target_of([[10, 20, 30, 60], [0, 0, 8, 8]], [0, 1], 64, 64), target_of([], [], 64, 64)]
    targets[0]["masks"][1] = False
    targets[0]["masks"][0, :40] = False  # the upper half is hidden
    centres = mass_centres(targets)
    assert centres.shape == (2, 2, 2)
    y, x = targets[0]["masks"][0].nonzero().float().mean(dim=0).tolist()
    assert centres[0, 0].tolist() == pytest.approx([x, y])
    assert centres[0, 1].tolist() == [4, 4]


@pytest.mark.parametrize("most", [500, 3])
def test_mask_loss_is_that_of_plain_loops(most, monkeypatch):
    monkeypatch.setattr(condinst, "MAX_POSITIVES", most)
    detector = confident(tiny("condinst"))
    images, targets, sizes = scenes(
        [random_boxes(count, 96, 128, seed) for seed, count in enumerate((2, 0, 3))], 96, 128
    )
    outputs = detector(images)
    torch.manual_seed(4)
    loss = detector.losses(outputs, targets, sizes)["mask"].item()

    matches = detector.match(outputs, targets, mass_centres(targets))
    assert len(matches.images) > 5
    torch.manual_seed(4)
    chosen = range(len(matches.images)) if most == 500 else torch.randperm(len(matches.images))[:most].tolist()
    controller = flatten(
        [
            functional.conv2d(one, detector.controller.weight, detector.controller.bias, padding=1)
            for one in outputs.towers
        ]
    )
    faces = torch.cat([target["masks"] for target in targets])
    total = 0.0
    for index in chosen:
        image, location = matches.images[index].item(), matches.locations[index].item()
        logits = grouped(
            outputs.mask_maps,
            8,
            controller[image, location],
            image,
            matches.grid.points[location].tolist(),
            COORDINATE_SCALES[matches.grid.levels[location]],
        )
        probability = enlarge(logits, 2).sigmoid()
        wanted = faces[matches.faces[index]][2::4, 2::4].float()
        overlap = (probability * wanted).sum() * 2 / ((probability**2).sum() + (wanted**2).sum() + 1e-5)
        total += 1 - overlap.item()
    assert loss == pytest.approx(total / len(chosen), rel=1e-4)


def test_centres_of_mass_choose_the_positives():
    detector = tiny("condinst")
    images, targets, _ = scenes([[[8, 8, 88, 88]]], 96, 96)
    targets[0]["masks"][0, :, 40:] = False
    outputs = detector(images)
    matches = detector.match(outputs, targets, mass_centres(targets))
    assert matches.grid.points[matches.locations][:, 0].mean() < 40
    assert math.isfinite(sum(detector.losses(outputs, targets, [(96, 96)]).values()).item())
