"""SOLOv2's parts against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from detector_scenes import random_boxes, scenes, target_of, tiny

from comics.detectors.cells import SCALE_RANGES, assign_cells, boxes_of_masks, dice_loss, suppress_neighbours
from comics.detectors.solov2 import GRIDS, SOLOv2Outputs, matrix_nms

# ------------------------------------------------------------------------------------------------ plain references


def plain_cells(target, grid, scale):
    """{cell: object} by the paper's words: centre region, at most one cell around the centre's, later objects win."""
    height, width = target["masks"].shape[1:]
    owner = {}
    for index, ((left, top, right, bottom), mask) in enumerate(
        zip(target["boxes"].tolist(), target["masks"], strict=True)
    ):
        size = math.sqrt((right - left) * (bottom - top))
        points = mask.nonzero().double()
        if not scale[0] <= size <= scale[1] or not len(points):
            continue
        y, x = points.mean(dim=0).tolist()
        for row in range(grid):
            for column in range(grid):
                cell = (
                    row * height / grid,
                    (row + 1) * height / grid,
                    column * width / grid,
                    (column + 1) * width / grid,
                )
                half_y, half_x = 0.1 * (bottom - top), 0.1 * (right - left)
                touches = (
                    y + half_y >= cell[0] and y - half_y < cell[1] and x + half_x >= cell[2] and x - half_x < cell[3]
                )
                near = abs(row - int(y / height * grid)) <= 1 and abs(column - int(x / width * grid)) <= 1
                if touches and near:
                    owner[row * grid + column] = index
    return owner


def plain_dice(p, q):
    return 1 - 2 * float((p * q).sum()) / (float((p * p).sum()) + 0.001 + float((q * q).sum()) + 0.001)


def plain_focal(logit, wanted):
    p = 1 / (1 + math.exp(-logit))
    return -0.25 * (1 - p) ** 2 * math.log(p) if wanted else -0.75 * p**2 * math.log(1 - p)


def plain_iou(a, b):
    return float((a & b).sum()) / float((a | b).sum())


# ---------------------------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize("count", [0, 1, 3, 12])
@pytest.mark.parametrize("level", range(5))
def test_cells_are_those_of_plain_loops(count, level):
    target = target_of(random_boxes(count, 192, 256, seed=count), [index % 2 for index in range(count)], 192, 256)
    found = assign_cells(target["boxes"], target["labels"], target["masks"], GRIDS[level], SCALE_RANGES[level])
    expected = plain_cells(target, GRIDS[level], SCALE_RANGES[level])
    assert dict(zip(found.cells.tolist(), found.faces.tolist(), strict=True)) == expected
    labels = [-1] * GRIDS[level] ** 2
    for cell, face in expected.items():
        labels[cell] = int(target["labels"][face])
    assert found.labels.tolist() == labels


def test_a_large_face_takes_nine_cells_and_a_pixel_one():
    target = target_of([[8, 8, 120, 120], [30, 40, 31, 41]], [0, 1], 128, 128)
    large = assign_cells(target["boxes"][:1], target["labels"][:1], target["masks"][:1], 36, (48, 192))
    assert len(large.cells) == 9
    assert int(target["masks"][1].sum()) == 1
    pixel = assign_cells(target["boxes"][1:], target["labels"][1:], target["masks"][1:], 40, (1, 96))
    assert pixel.cells.tolist() == [40 // (128 / 40) * 40 + 30 // (128 / 40)]


def test_a_mask_without_pixels_has_no_cell():
    masks = torch.zeros(1, 64, 64, dtype=torch.bool)
    found = assign_cells(torch.tensor([[3.0, 3, 40, 40]]), torch.tensor([1]), masks, 12, (1, 96))
    assert len(found.cells) == 0
    assert bool((found.labels == -1).all())


# ----------------------------------------------------------------------------------------------------------- losses


def test_dice_is_its_formula_with_its_gradient():
    torch.manual_seed(0)
    p, q = torch.rand(3, 4, 5, dtype=torch.float64, requires_grad=True), torch.rand(3, 4, 5) > 0.5
    found = dice_loss(p, q)
    assert found.tolist() == pytest.approx([plain_dice(a, b.double()) for a, b in zip(p, q, strict=True)], abs=1e-12)
    assert torch.autograd.gradcheck(lambda p: dice_loss(p, q), (p,))


def test_dice_of_nothing_is_finite():
    p = torch.zeros(1, 4, 4, requires_grad=True)
    loss = dice_loss(p, torch.zeros(1, 4, 4)).sum()
    loss.backward()
    assert float(loss) == 1
    assert bool(torch.isfinite(p.grad).all())


@pytest.mark.parametrize("counts", [[0], [1], [3, 0, 2]])
def test_losses_are_those_of_plain_loops(counts):
    detector = tiny("solov2")
    images, targets, sizes = scenes([random_boxes(count, 128, 160, seed=count) for count in counts], 128, 160)
    with torch.no_grad():
        outputs = detector(images)
        found = detector.losses(outputs, targets, sizes)
    focal, dice, positives = 0.0, [], 0
    for level, (grid, scale) in enumerate(zip(GRIDS, SCALE_RANGES, strict=True)):
        for image, target in enumerate(targets):
            owner = plain_cells(target, grid, scale)
            positives += len(owner)
            for cell in range(grid * grid):
                for label in range(2):
                    wanted = cell in owner and int(target["labels"][owner[cell]]) == label
                    focal += plain_focal(float(outputs.categories[level][image, label].flatten()[cell]), wanted)
            for cell, face in owner.items():
                kernel = outputs.kernels[level][image].flatten(1)[:, cell]
                drawn = torch.einsum("d,dhw->hw", kernel, outputs.mask_features[image]).sigmoid()
                mask = target["masks"][face].float()
                # Halving four times over pixels 1 and 2 of each four is what a bilinear sample at 1/4 reads.
                inner = (mask[1::4, 1::4] + mask[2::4, 1::4] + mask[1::4, 2::4] + mask[2::4, 2::4]) / 4
                dice.append(plain_dice(drawn, (inner >= 0.5).float()))
    assert float(found["category"]) == pytest.approx(focal / (positives + 1), rel=1e-4)
    assert float(found["mask"]) == pytest.approx(3 * sum(dice) / len(dice) if dice else 0, abs=1e-4)


# -------------------------------------------------------------------------------------------------------- inference


def test_neighbours_are_suppressed_up_and_left():
    torch.manual_seed(0)
    scores = torch.rand(2, 3, 6, 7)
    found = suppress_neighbours(scores)
    for y in range(6):
        for x in range(7):
            window = scores[:, :, max(0, y - 1) : y + 1, max(0, x - 1) : x + 1].amax(dim=(2, 3))
            expected = torch.where(window == scores[:, :, y, x], scores[:, :, y, x], 0)
            assert torch.equal(found[:, :, y, x], expected)


def plain_matrix_nms(masks, labels, scores, sigma, kernel):
    """The paper's equation 5, mask by mask."""
    decay = (lambda iou: math.exp(-sigma * iou * iou)) if kernel == "gaussian" else (lambda iou: 1 - iou)
    found = []
    for j in range(len(masks)):
        factors = [1.0]
        for i in range(j):
            if labels[i] == labels[j]:
                worst = max((plain_iou(masks[k], masks[i]) for k in range(i) if labels[k] == labels[i]), default=0.0)
                factors.append(decay(plain_iou(masks[i], masks[j])) / max(decay(worst), 1e-6))
        # Masks of other classes, and those behind, count as suppressors without overlap.
        found.append(float(scores[j]) * min(factors))
    return found


@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
@pytest.mark.parametrize("count", [0, 1, 12])
def test_matrix_nms_is_equation_5(kernel, count):
    torch.manual_seed(count)
    target = target_of(random_boxes(count, 32, 32, seed=3, smallest=10), [index % 2 for index in range(count)], 32, 32)
    scores = torch.rand(count).sort(descending=True).values
    found = matrix_nms(target["masks"], target["labels"], scores, kernel=kernel)
    assert found.tolist() == pytest.approx(
        plain_matrix_nms(target["masks"], target["labels"], scores, 2.0, kernel), abs=1e-5
    )
    assert bool((found <= scores + 1e-6).all())


def test_matrix_nms_keeps_the_best_and_decays_its_copy():
    mask = torch.zeros(2, 8, 8, dtype=torch.bool)
    mask[:, 2:6, 2:6] = True
    same = matrix_nms(mask, torch.tensor([0, 0]), torch.tensor([0.9, 0.8]))
    assert same.tolist() == pytest.approx([0.9, 0.8 * math.exp(-2)])
    other = matrix_nms(mask, torch.tensor([0, 1]), torch.tensor([0.9, 0.8]))
    assert other.tolist() == pytest.approx([0.9, 0.8])


def test_unknown_decay():
    with pytest.raises(ValueError, match="kernel"):
        matrix_nms(torch.ones(1, 2, 2, dtype=torch.bool), torch.zeros(1), torch.ones(1), kernel="cubic")


def test_boxes_of_masks():
    target = target_of(random_boxes(5, 40, 50, seed=0), [0] * 5, 40, 50)
    masks = torch.cat([target["masks"], torch.zeros(1, 40, 50, dtype=torch.bool)])
    for box, mask in zip(boxes_of_masks(masks), masks, strict=True):
        y, x = mask.nonzero(as_tuple=True)
        expected = [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1] if len(x) else [0] * 4
        assert box.tolist() == expected
    assert boxes_of_masks(masks[:0]).shape == (0, 4)


def crafted(detector, cells):
    """Outputs whose mask features are one-hot blobs: channel c covers cell block c; kernels choose a channel."""
    features = [torch.zeros(1, 32, 128 // stride, 128 // stride) for stride in detector.strides]
    channels = detector.mask_channels
    mask_features = torch.full((1, channels, 32, 32), -8.0)
    mask_features[0, 0, 4:20, 4:20] = 8
    mask_features[0, 1, 5:21, 4:20] = 8
    mask_features[0, 2, 0:1, 0:2] = 8  # two pixels: below the least area
    categories = [torch.full((1, 2, grid, grid), -9.0) for grid in GRIDS]
    kernels = [torch.zeros(1, channels, grid, grid) for grid in GRIDS]
    for level, row, column, label, logit, channel in cells:
        categories[level][0, label, row, column] = logit
        kernels[level][0, channel, row, column] = 1
    return SOLOv2Outputs(features, categories, kernels, mask_features)


def test_prediction_of_known_outputs():
    """A face, a near copy whose score decays, and a mask too small to count."""
    detector = tiny("solov2", score_threshold=0.1)
    outputs = crafted(detector, [(1, 5, 5, 1, 3.0, 0), (2, 9, 9, 1, 2.0, 1), (0, 0, 0, 0, 4.0, 2)])
    (found,) = detector.predict(outputs, [(128, 120)])
    quality = 1 / (1 + math.exp(-8))
    first, second = (quality / (1 + math.exp(-logit)) for logit in (3, 2))
    iou = 15 / 17
    assert found["labels"].tolist() == [1, 1]
    assert found["scores"].tolist() == pytest.approx([first, second * math.exp(-2 * iou**2)], abs=1e-4)
    assert found["masks"].shape == (2, 128, 120)
    assert found["boxes"].tolist() == [[16, 16, 80, 80], [16, 20, 80, 84]]


def test_masks_in_the_padding_are_dropped():
    detector = tiny("solov2", score_threshold=0.1)
    (found,) = detector.predict(crafted(detector, [(1, 5, 5, 0, 3.0, 0)]), [(10, 10)])
    assert found["masks"].shape == (0, 10, 10)
    assert found["boxes"].shape == (0, 4)


# -------------------------------------------------------------------------------------------------------- proposals


def test_proposals_are_the_cells():
    detector = tiny("solov2", score_threshold=0.1)
    outputs = crafted(detector, [(1, 5, 7, 1, 3.0, 0), (1, 30, 31, 1, 3.0, 0)])
    found = detector.proposals(outputs)
    assert [level.boxes.shape for level in found] == [(1, grid * grid, 4) for grid in GRIDS]
    cell = 5 * GRIDS[1] + 7
    assert found[1].boxes[0, cell].tolist() == [16, 16, 80, 80]  # the box of the mask it draws
    square = 128 / GRIDS[1]
    beside = found[1].boxes[0, 30 * GRIDS[1] + 31].tolist()  # a cell that draws a face somewhere else
    assert beside == pytest.approx([31 * square, 30 * square, 32 * square, 31 * square], abs=1e-4)
    empty = found[1].boxes[0, 2 * GRIDS[1] + 3].tolist()  # a cell that draws none: its own square
    assert empty == pytest.approx([3 * square, 2 * square, 4 * square, 3 * square], abs=1e-4)
    assert not found[0].boxes.requires_grad
    for level, stride, grid in zip(found, detector.strides, GRIDS, strict=True):
        width = 128 // stride
        expected = [
            int((row + 0.5) / grid * width) * width + int((column + 0.5) / grid * width)
            for row in range(grid)
            for column in range(grid)
        ]
        assert level.locations.tolist() == expected


def test_proposing_skips_the_classes():
    detector = tiny("solov2").eval()
    images, _, _ = scenes([random_boxes(2, 64, 96, seed=0)], 64, 96)
    features = detector.extractor(detector.normalise(images))
    expected = detector.proposals(detector.forward_heads(features))
    detector.cell_head.categories = None  # not needed
    for one, two in zip(detector.propose(features), expected, strict=True):
        assert torch.equal(one.boxes, two.boxes)
        assert torch.equal(one.locations, two.locations)


def test_it_has_no_boxes_of_its_own():
    assert tiny("solov2").predicts_boxes is False
