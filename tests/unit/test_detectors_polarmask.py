"""PolarMask's rays beside naive versions: parts of masks, lengths, losses, and outlines filled again."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from detector_scenes import target_of
from scipy import ndimage

from comics.detectors.polarmask import (
    SHORTEST,
    directions,
    iou_loss,
    largest_parts,
    polar_centerness,
    polar_iou_loss,
    ray_lengths,
)
from comics.detectors.soft_masks import OutlinedMasks


def largest_by_scipy(mask):
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if not count:
        return mask, 0
    sizes = ndimage.sum_labels(mask, labels, range(1, count + 1))
    return labels == 1 + int(np.argmax(sizes)), int(sizes.max())


@pytest.mark.parametrize("density", [0.0, 0.3, 0.45, 0.6, 1.0])
def test_largest_parts_are_those_of_scipy(density):
    torch.manual_seed(0)
    masks = torch.rand(6, 23, 31) < density
    for mask, found in zip(masks, largest_parts(masks), strict=True):
        expected, size = largest_by_scipy(mask.numpy())
        assert int(found.sum()) == size  # of equal parts either is right
        if np.unique(ndimage.label(found.numpy(), np.ones((3, 3)))[0]).size > 1:
            assert ndimage.label(found.numpy(), np.ones((3, 3)))[1] == 1
        assert not (found & ~mask).any()
        second = largest_by_scipy((mask & ~torch.from_numpy(np.asarray(expected, bool))).numpy())[1]
        if second < size:
            assert np.array_equal(found.numpy(), expected)
    assert largest_parts(masks[:0]).shape == (0, 23, 31)


def test_a_snake_is_one_part():
    """What takes many rounds."""
    mask = torch.zeros(1, 21, 21, dtype=torch.bool)
    mask[0, ::2] = True
    mask[0, 1::4, -1] = True
    mask[0, 3::4, 0] = True
    assert torch.equal(largest_parts(mask), mask)


def test_rays_of_a_disc_and_of_a_ring():
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    radius = ((x - 32) ** 2 + (y - 30) ** 2).sqrt()
    masks = torch.stack((radius < 20, (radius < 20) & (radius > 8)))  # a hole does not count
    points = torch.tensor([[32.0, 30.0], [32.0, 30.0]])
    found = ray_lengths(masks, torch.tensor([0, 1]), points)
    assert found.shape == (2, 36)
    assert (found - 20).abs().max() <= 1.0
    assert polar_centerness(found).min() > 0.95
    assert ray_lengths(masks, torch.zeros(0, dtype=torch.int64), points[:0]).shape == (0, 36)


def test_rays_are_those_of_plain_loops():
    target = target_of([[5, 8, 40, 50], [20, 20, 60, 30]], [0, 1], 64, 64)
    points = torch.tensor([[20.2, 20.3], [12.1, 36.4], [44.2, 28.4], [4.3, 60.1]])
    faces = torch.tensor([0, 0, 1, 1])
    found = ray_lengths(target["masks"], faces, points)
    for point, face, lengths in zip(points.tolist(), faces.tolist(), found, strict=True):
        for ray in range(36):
            angle = math.radians(10 * ray)
            longest = SHORTEST
            for step in range(1, 200):
                x, y = point[0] + math.sin(angle) * step / 2, point[1] + math.cos(angle) * step / 2
                if 0 <= x < 64 and 0 <= y < 64 and target["masks"][face, int(y), int(x)]:
                    longest = step / 2
            assert float(lengths[ray]) == pytest.approx(longest, abs=0.51), ray


def inside_polygon(x, y, corners):
    """The even-odd rule."""
    inside = False
    for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
        if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
            inside = not inside
    return inside


def test_filling_is_that_of_the_polygon():
    torch.manual_seed(0)
    points = torch.tensor([[20.3, 18.2], [3.0, 4.0], [30.0, 25.0]])
    lengths = torch.rand(3, 36) * 12 + 1
    lengths[2] = SHORTEST
    outlines = OutlinedMasks(points, lengths[..., None] * directions(), (40, 44))
    for height, width in ((40, 44), (61, 57)):  # at the network's size, and at another
        found = outlines.at((height, width))
        wrong = 0
        for point, length, mask in zip(points, lengths, found, strict=True):
            corners = (point + length[:, None] * directions()).tolist()
            for y in range(height):
                for x in range(width):
                    place = ((x + 0.5) * 44 / width, (y + 0.5) * 40 / height)
                    wrong += bool(mask[y, x]) != inside_polygon(*place, corners)
        assert wrong == 0
        assert found[0].any()
    assert outlines[torch.tensor([], dtype=torch.int64)].at((4, 5)).shape == (0, 4, 5)


def test_a_face_survives_its_rays():
    target = target_of([[10, 8, 50, 60]], [0], 64, 64)
    point = torch.tensor([[30.0, 34.0]])
    rays = ray_lengths(target["masks"], torch.tensor([0]), point)[..., None] * directions()
    mask = OutlinedMasks(point, rays, (64, 64)).at((64, 64))[0]
    both, either = (mask & target["masks"][0]).sum(), (mask | target["masks"][0]).sum()
    assert float(both / either) > 0.96


def test_losses_beside_plain_sums():
    torch.manual_seed(0)
    predicted, wanted = torch.rand(4, 36).double() + 0.1, torch.rand(4, 36).double() + 0.1
    for p, w, value in zip(
        predicted.tolist(), wanted.tolist(), polar_iou_loss(predicted, wanted).tolist(), strict=True
    ):
        pairs = list(zip(p, w, strict=True))
        assert value == pytest.approx(math.log(sum(map(max, pairs)) / sum(map(min, pairs))))
    for p, w, value in zip(
        predicted[:, :4].tolist(),
        wanted[:, :4].tolist(),
        iou_loss(predicted[:, :4], wanted[:, :4]).tolist(),
        strict=True,
    ):
        a, b = [(one[0] + one[2]) * (one[1] + one[3]) for one in (p, w)]
        shared = (min(p[0], w[0]) + min(p[2], w[2])) * (min(p[1], w[1]) + min(p[3], w[3]))
        assert value == pytest.approx(-math.log(shared / (a + b - shared)))
    assert polar_iou_loss(predicted[:0], wanted[:0]).shape == (0,)
    assert torch.autograd.gradcheck(lambda x: polar_iou_loss(x, wanted), predicted.requires_grad_())
    assert torch.autograd.gradcheck(lambda x: iou_loss(x, wanted[:, :4]), predicted[:, :4].detach().requires_grad_())
