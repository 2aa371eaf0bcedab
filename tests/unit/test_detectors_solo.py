"""SOLO beside naive versions of what is its own: masks of cells, suppression of masks, losses."""

from __future__ import annotations

import pytest
import torch
from detector_scenes import confident, random_boxes, scenes, target_of
from test_detectors_solov2 import plain_cells, plain_dice, plain_focal, plain_iou

from comics.detectors import build
from comics.detectors.cells import SCALE_RANGES, assign_cells
from comics.detectors.solo import MASK_STRIDES, SOLO, mask_nms
from comics.params import ModelParams

GRIDS = (6, 5, 4, 3, 2)


def small(head: str, **more: float) -> SOLO:
    torch.manual_seed(0)
    settings = SOLO.Settings(head=head, grids=GRIDS, **more)
    model = ModelParams(backbone="resnet18", fpn_channels=16, head_channels=16, head_convs=1, settings=settings)
    return build("solo", model, 2)


@pytest.mark.parametrize("head", ["vanilla", "decoupled"])
def test_a_cell_draws_its_own_channel(head):
    """Computing some channels gives what the whole convolution gives; the decoupled head multiplies two of them."""
    detector = small(head).eval()
    maps = torch.randn(16, 12, 10)
    for level, grid in enumerate(GRIDS):
        every = detector.masks[level](maps[None])[0].sigmoid()
        cells = torch.tensor([0, 1, grid, grid**2 - 1])
        found = detector._draw(level, maps, cells)
        for cell, mask in zip(cells.tolist(), found, strict=True):
            row, column = divmod(cell, grid)
            expected = every[cell] if head == "vanilla" else every[column] * every[grid + row]
            torch.testing.assert_close(mask, expected)


@pytest.mark.parametrize("head", ["vanilla", "decoupled"])
@pytest.mark.parametrize("counts", [(0, 0), (1, 0), (4, 2)])
def test_losses_are_those_of_plain_loops(head, counts):
    detector = confident(small(head))
    images, targets, sizes = scenes([random_boxes(n, 96, 128, seed, 12) for seed, n in enumerate(counts)], 96, 128)
    outputs = detector(images)
    found = detector.losses(outputs, targets, sizes)
    focal, dice, positives = 0.0, [], 0
    for level, grid in enumerate(GRIDS):
        for image, target in enumerate(targets):
            owner = plain_cells(target, grid, SCALE_RANGES[level])
            positives += len(owner)
            logits = outputs.categories[level][image].flatten(1)
            for cell in range(grid**2):
                for label in range(2):
                    wanted = cell in owner and int(target["labels"][owner[cell]]) == label
                    focal += plain_focal(float(logits[label, cell].detach()), wanted)
            for cell, face in owner.items():
                drawn = detector._draw(level, outputs.mask_features[level][image], torch.tensor([cell]))[0]
                stride = MASK_STRIDES[level]
                blocks = target["masks"][face].float().unfold(0, stride, stride).unfold(1, stride, stride)
                middle = slice(stride // 2 - 1, stride // 2 + 1)  # what bilinear shrinking looks at
                small_mask = (blocks[..., middle, middle].mean(dim=(2, 3)) >= 0.5).float()
                dice.append(plain_dice(drawn.detach(), small_mask))
    assert float(found["category"]) == pytest.approx(focal / (positives + 1), rel=1e-4)
    assert float(found["mask"]) == pytest.approx(3 * sum(dice) / max(len(dice), 1), rel=1e-4)


def test_sizes_and_prior_are_settings():
    """Sizes by level follow the scale, and so do the losses; masks start at the prior."""
    half, whole = small("vanilla", object_scale=0.5, mask_prior=0.3), small("vanilla")
    assert half.scale_ranges[1] == (24, 96)
    assert whole.scale_ranges == SCALE_RANGES
    maps = torch.zeros(16, 4, 4)
    for one, prior in ((half, 0.3), (whole, 0.01)):
        torch.testing.assert_close(one._draw(0, maps, torch.tensor([3])), torch.full((1, 4, 4), prior))
    images, targets, sizes = scenes(
        [[[10, 10, 70, 70]]], 96, 128
    )  # 60 px: of levels 0 and 1, at half the sizes of 1 and 2
    for one, levels in ((half, (1, 2)), (whole, (0, 1))):
        gradients = torch.autograd.grad(
            one.losses(one(images), targets, sizes)["mask"], [layer.weight for layer in one.masks]
        )
        assert tuple(level for level, gradient in enumerate(gradients) if gradient.any()) == levels


def test_suppression_of_masks_is_greedy_by_class():
    torch.manual_seed(0)
    masks = torch.zeros(12, 16, 16, dtype=torch.bool)
    for mask in masks:
        top, left = torch.randint(0, 8, (2,)).tolist()
        mask[top : top + 7, left : left + 7] = True
    labels = torch.arange(12) % 2
    kept: list[int] = []
    for index in range(12):
        if all(labels[index] != labels[one] or plain_iou(masks[index], masks[one]) <= 0.3 for one in kept):
            kept.append(index)
    assert 2 < len(kept) < 12
    assert mask_nms(masks, labels, 0.3).tolist() == kept
    assert mask_nms(masks[:0], labels[:0], 0.3).tolist() == []


def test_a_contested_cell_may_train_both_masks():
    """SOLOv2's authors train both, SOLO's the later one alone; the class is the later one's."""
    target = target_of([[20, 20, 60, 60], [22, 22, 58, 62]], [0, 1], 96, 96)
    arguments = (target["boxes"], target["labels"], target["masks"], 4, (1, 96))
    later, both = assign_cells(*arguments), assign_cells(*arguments, both=True)
    assert later.faces.unique().tolist() == [1]
    pairs = set(zip(both.cells.tolist(), both.faces.tolist(), strict=True))
    assert {face for _, face in pairs} == {0, 1}
    assert pairs >= set(zip(later.cells.tolist(), later.faces.tolist(), strict=True))
    assert len(pairs) == len(both.cells)
    assert torch.equal(later.labels, both.labels)
