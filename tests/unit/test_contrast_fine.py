"""The fine losses against loops over pixels, and the distance transform against scipy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn.functional import normalize

from comics.contrast.fine import boundary_distance, crop_masks, fine_losses, split_regions


def disc(size: int, radius: float) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    middle = (size - 1) / 2
    return (rows - middle) ** 2 + (columns - middle) ** 2 <= radius**2


def test_the_distance_transform_is_exact() -> None:
    torch.manual_seed(0)
    masks = torch.rand(6, 17, 17) < torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9, 0.99])[:, None, None]
    expected = np.stack([np.where(m, distance_transform_edt(m), distance_transform_edt(~m)) for m in masks.numpy()])
    np.testing.assert_allclose(boundary_distance(masks).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("value", [True, False])
def test_a_mask_without_outline_is_infinitely_far_from_it(value: bool) -> None:
    assert torch.isinf(boundary_distance(torch.full((1, 5, 5), value))).all()


def test_far_and_close_pixels_make_up_all_of_them() -> None:
    mask = disc(16, 5)[None]
    regions = {name: split_regions(mask, name, 2.0) for name in ("far", "close", "all")}
    for side in (0, 1):
        assert torch.equal(regions["far"][side] | regions["close"][side], regions["all"][side])
        assert not (regions["far"][side] & regions["close"][side]).any()
    distance = boundary_distance(mask)
    assert distance[regions["far"][0]].min() > 2 >= distance[regions["close"][0]].max()


def test_masks_are_cut_out_with_their_boxes() -> None:
    mask = torch.zeros(1, 32, 32, dtype=torch.bool)
    mask[0, 8:16, 8:24] = True
    crop = crop_masks([mask, mask[:0]], [torch.tensor([[8.0, 8.0, 24.0, 24.0]]), torch.zeros(0, 4)], 8)
    assert crop.shape == (1, 8, 8)
    assert crop[0, :4].all()
    assert not crop[0, 4:].any()


def naive(features: Tensor, masks: Tensor, labels: list[int], tau: float, samples: str, margin: float, kind: str):
    """Equations 6 to 8 pixel by pixel."""
    inside, outside = split_regions(masks, samples, margin)
    units = normalize(features, dim=1)

    def exponential(a: int, region_a: Tensor, b: int, region_b: Tensor) -> float:
        cosines = [
            float(units[a, :, i, j] @ units[b, :, k, m])
            for i, j in region_a[a].nonzero().tolist()
            for k, m in region_b[b].nonzero().tolist()
        ]
        if kind == "region_mean":
            return math.exp(sum(cosines) / len(cosines) / tau)
        return sum(math.exp(cosine / tau) for cosine in cosines)

    real = [i for i, label in enumerate(labels) if label == 0]
    fake = [i for i, label in enumerate(labels) if label == 1]
    own = sum(exponential(i, inside, i, outside) for i in real)
    other = sum(exponential(i, inside, i, outside) for i in fake)
    intra = -math.log(own / (own + other))
    terms = []
    for group, others in ((real, fake), (fake, real)):
        for j in group:
            alike = sum(exponential(j, outside, k, outside) for k in others)
            apart = sum(exponential(j, inside, k, inside) for k in others)
            terms.append(-math.log(alike / (alike + apart)))
    return intra, sum(terms) / len(terms)


@pytest.mark.parametrize("kind", ["region_mean", "pixel_pairs"])
@pytest.mark.parametrize("samples", ["far", "close", "all"])
def test_the_losses_are_equations_6_and_8(kind: str, samples: str) -> None:
    torch.manual_seed(1)
    features = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    masks = torch.stack([disc(8, radius) for radius in (2.5, 3.0, 2.8, 3.3)])
    labels = [0, 1, 1, 0]
    losses = fine_losses(features, masks, torch.tensor(labels), 0.7, samples, 1.0, kind)
    expected = naive(features, masks, labels, 0.7, samples, 1.0, kind)
    assert [float(loss) for loss in losses] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", ["region_mean", "pixel_pairs"])
def test_the_gradients_are_right(kind: str) -> None:
    torch.manual_seed(2)
    features = torch.randn(3, 2, 6, 6, dtype=torch.float64, requires_grad=True)
    masks = torch.stack([disc(6, radius) for radius in (1.5, 2.0, 2.3)])
    labels = torch.tensor([0, 1, 0])
    for which in (0, 1):
        assert torch.autograd.gradcheck(
            lambda value, which=which: fine_losses(value, masks, labels, 0.5, "far", 1.0, kind)[which], features
        )


def test_dropped_pixels_have_no_say() -> None:
    features = torch.randn(2, 4, 12, 12, requires_grad=True)
    masks = torch.stack([disc(12, 4), disc(12, 5)])
    intra, inter = fine_losses(features, masks, torch.tensor([0, 1]), 0.7)
    gradient = torch.autograd.grad(intra + inter, features)[0]
    close = boundary_distance(masks) <= 2
    assert torch.equal(gradient.transpose(0, 1)[:, close], torch.zeros(4, int(close.sum())))
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("labels", [[], [0], [1], [0, 0], [1, 1]])
@pytest.mark.parametrize("kind", ["region_mean", "pixel_pairs"])
def test_one_class_or_no_face_gives_zero(labels: list[int], kind: str) -> None:
    features = torch.randn(len(labels), 4, 12, 12, requires_grad=True)
    masks = disc(12, 4).expand(len(labels), -1, -1)
    losses = fine_losses(features, masks, torch.tensor(labels, dtype=torch.long), 0.7, similarity=kind)
    assert [float(loss) for loss in losses] == [0.0, 0.0]
    assert torch.equal(torch.autograd.grad(sum(losses), features)[0], torch.zeros_like(features))


def test_faces_too_small_for_a_region_are_left_out() -> None:
    features = torch.randn(3, 4, 12, 12, requires_grad=True)
    masks = torch.stack([disc(12, 4), disc(12, 4), disc(12, 0.8)])  # nothing of the last is far from its outline
    both = fine_losses(features, masks, torch.tensor([0, 1, 1]), 0.7)
    without = fine_losses(features[:2], masks[:2], torch.tensor([0, 1]), 0.7)
    torch.testing.assert_close(both, without)
    assert all(torch.isfinite(value).all() for value in torch.autograd.grad(sum(both), features))


def test_very_small_temperatures_stay_finite() -> None:
    features = torch.randn(2, 4, 12, 12, requires_grad=True)
    masks = disc(12, 4).expand(2, -1, -1)
    for kind in ("region_mean", "pixel_pairs"):
        losses = fine_losses(features, masks, torch.tensor([0, 1]), 0.001, similarity=kind)
        assert all(torch.isfinite(loss) for loss in losses)
        assert torch.isfinite(torch.autograd.grad(sum(losses), features)[0]).all()
