"""Masks that are cut at the size of the original image."""

import numpy as np
import pytest
import torch
from pycocotools import mask as rle
from torch.nn.functional import interpolate

from comics.detectors.base import prediction
from comics.detectors.results import batch_results
from comics.detectors.soft_masks import MapMasks, OutlinedMasks, PastedMasks

SIZE = (45, 60)


def blobs(count: int, height: int, width: int) -> torch.Tensor:
    """Probabilities of round faces, (count, height, width)."""
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    centres = torch.rand(count, 2, 1, 1) * torch.tensor([height, width]).view(2, 1, 1)
    distance = ((y - centres[:, 0]) ** 2 + (x - centres[:, 1]) ** 2).sqrt()
    return torch.sigmoid(3 - 1.3 * distance + torch.rand(count, 1, 1))


def alike(found: torch.Tensor, whole: torch.Tensor, threshold: float = 0.5) -> None:
    sure = (whole - threshold).abs() > 1e-5
    assert found.shape == whole.shape
    assert torch.equal(found[sure], (whole > threshold)[sure])
    assert found.any()


@pytest.mark.parametrize("original", [SIZE, (90, 120), (101, 77), (30, 40)])
@pytest.mark.parametrize("stride", [2, 4])
def test_a_map_is_enlarged_as_a_whole_would_be(original, stride):
    maps = blobs(6, 48 // stride, 64 // stride)
    maps[1], maps[2] = 0, 1
    maps[3] = 0
    maps[3, -1, -1] = 0.9  # in the padding
    network = interpolate(maps[None], size=(48, 64), mode="bilinear")[..., :45, :60]
    whole = interpolate(network, size=original, mode="bilinear")[0]
    alike(MapMasks(maps, SIZE, stride).at(original), whole)


def test_a_map_is_enlarged_at_once():
    maps = blobs(5, 12, 16)
    alike(
        MapMasks(maps, (48, 64), 4, direct=True).at((131, 90)),
        interpolate(maps[None], size=(131, 90), mode="bilinear")[0],
    )


def test_a_mask_is_pasted_at_the_original_size():
    masks = blobs(3, 28, 28)
    boxes = torch.tensor([[3.3, 4.1, 40.2, 44.0], [0.0, 0.0, 60.0, 45.0], [50.5, 2.0, 51.0, 3.0]])
    small = PastedMasks(masks, boxes, SIZE)
    assert torch.equal(
        small.at((90, 180)), PastedMasks(masks, boxes * torch.tensor([3, 2, 3, 2]), (90, 180)).at((90, 180))
    )


def test_a_circle_keeps_its_outline():
    """Cut at 30 px and enlarged six times, a circle has steps; drawn there, it has none."""
    y, x = torch.meshgrid(torch.arange(28) + 0.5, torch.arange(28) + 0.5, indexing="ij")
    soft = torch.sigmoid(12 - ((y - 14) ** 2 + (x - 14) ** 2).sqrt())[None]
    masks = PastedMasks(soft, torch.tensor([[1.0, 1.0, 29.0, 29.0]]), (30, 30))
    y, x = torch.meshgrid(torch.arange(180) + 0.5, torch.arange(180) + 0.5, indexing="ij")
    circle = (((y - 90) ** 2 + (x - 90) ** 2).sqrt() <= 72)[None]
    steps = interpolate(masks.at((30, 30))[None].float(), size=(180, 180), mode="bilinear")[0] >= 0.5
    ious = [float((one & circle).sum() / (one | circle).sum()) for one in (masks.at((180, 180)), steps)]
    assert ious[0] > 0.995
    assert ious[0] > ious[1]


@pytest.mark.parametrize("kind", ["pasted", "map", "outlined"])
def test_results_hold_the_masks_of_the_original_size(kind):
    boxes = torch.tensor([[3.0, 4.0, 40.0, 44.0], [20.0, 10.0, 60.0, 45.0]])
    if kind == "pasted":
        soft = PastedMasks(blobs(2, 14, 14), boxes, SIZE)
    elif kind == "map":
        soft = MapMasks(blobs(2, 12, 15), SIZE, 4)
    else:
        angle = torch.arange(36) * (torch.pi / 18)
        ends = torch.stack([angle.sin(), angle.cos()], dim=1) * torch.tensor([10.0, 14.0]).view(2, 1, 1)
        soft = OutlinedMasks(boxes.view(2, 2, 2).mean(dim=1), ends, SIZE)
    found = prediction(boxes, torch.tensor([0.9, 0.8]), torch.tensor([0, 1]), soft)
    assert torch.equal(found["masks"], soft.at(SIZE))
    entries = batch_results([found], [SIZE], [(135, 120)], [7])
    masks = np.stack([rle.decode({**entry["segmentation"]}) for entry in entries]).astype(bool)
    assert torch.equal(torch.from_numpy(masks), soft.at((135, 120)))
    assert entries[0]["bbox"] == [6.0, 12.0, 74.0, 120.0]
    chosen = torch.tensor([1])
    assert torch.equal(soft[chosen].at((50, 50)), soft.at((50, 50))[chosen])
    assert len(soft[chosen[:0]].at((50, 50))) == 0


def test_many_faces_of_a_large_image_are_drawn_one_by_one():
    """Of a hundred faces in 24 million pixels no two are in memory at once, and none as numbers of the image's size."""
    boxes = torch.tensor([[10.0, 10.0, 42.0, 50.0]]).repeat(100, 1)
    for soft in (
        PastedMasks(blobs(1, 28, 28).repeat(100, 1, 1), boxes, (800, 1200)),
        MapMasks(blobs(1, 200, 300).repeat(100, 1, 1), (800, 1200), 4),
    ):
        sizes = [part.mask.numel() for part in soft.parts((4000, 6000))]
        assert len(sizes) == 100
        assert max(sizes) < 400_000
