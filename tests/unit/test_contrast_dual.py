"""DCL's two losses against loops over cells and crops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from comics.contrast.dual import DualContrast, intra_losses
from comics.params import DualParams

TAU = 0.5


def naive_intra(maps: Tensor, faces: Tensor, label: int) -> float | None:
    """Of one crop, cell by cell."""
    cells = normalize(maps.flatten(1), dim=0).T.tolist()
    share = faces.flatten().tolist()

    def exponential(one: list[float], other: list[float]) -> float:
        return math.exp(sum(a * b for a, b in zip(one, other, strict=True)) / TAU)

    if label == 0:
        mean = sum(exponential(a, b) for a in cells for b in cells) / len(cells) ** 2
        return 1 / TAU - math.log(mean)
    genuine = [cell for cell, of in zip(cells, share, strict=True) if of == 0]
    forged = [cell for cell, of in zip(cells, share, strict=True) if of >= 0.01]
    if not genuine or not forged:
        return None
    alike = sum(exponential(a, b) for a in genuine for b in genuine)
    apart = sum(exponential(a, b) for a in genuine for b in forged)
    return -math.log(alike / (alike + apart))


def some_crops() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    faces = torch.rand(5, 2, 3) * (torch.rand(5, 2, 3) < 0.6)
    faces[3], faces[4] = 0.7, 0.0  # a fake face all over the crop, and one of which nothing is seen
    return torch.randn(5, 4, 2, 3), faces, torch.tensor([0, 1, 1, 1, 1])


def test_the_parts_of_a_crop_are_compared_cell_by_cell() -> None:
    maps, faces, labels = some_crops()
    losses, has = intra_losses(maps, faces, labels, TAU)
    for crop in range(5):
        expected = naive_intra(maps[crop], faces[crop], int(labels[crop]))
        assert bool(has[crop]) == (expected is not None)
        assert losses[crop].item() == pytest.approx(expected or 0.0, abs=1e-5)
    assert has.tolist() == [True, True, True, False, False]


def test_the_gradient_of_the_parts() -> None:
    maps, faces, labels = some_crops()
    maps.requires_grad_()
    intra_losses(maps, faces, labels, TAU)[0].sum().backward()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()
    assert (maps.grad[3:] == 0).all()
    step = 1e-2
    for place in ((0, 1, 0, 2), (1, 2, 1, 1), (2, 0, 0, 0)):
        values = []
        for sign in (1, -1):
            moved = maps.detach().clone()
            moved[place] += sign * step
            values.append(naive_intra(moved[place[0]], faces[place[0]], int(labels[place[0]])))
        assert maps.grad[place].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=0.02, abs=1e-4)


def test_a_crop_of_equal_cells_has_nothing_to_lose() -> None:
    losses, _ = intra_losses(torch.ones(1, 3, 2, 2), torch.zeros(1, 2, 2), torch.tensor([0]), TAU)
    assert losses.item() == pytest.approx(0.0, abs=1e-5)


class Flat(nn.Module):
    """A classifier whose map is its input."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps


def contrast(**settings: object) -> DualContrast:
    torch.manual_seed(1)
    params = DualParams(dim=3, queue_size=4, temperature=TAU, momentum=0.5, **settings)
    return DualContrast(params, Flat(), 4)


def test_a_crop_is_pulled_to_its_other_view_and_pushed_from_the_other_class() -> None:
    dual = contrast(pushed=2)
    maps, faces, labels = some_crops()
    keys = torch.randn(5, 3)
    inter, _, _ = dual(maps, keys, faces, labels)
    assert inter.item() == 0.0  # nothing is in the queues
    dual.remember()
    assert dual.memory.filled.tolist() == [1, 2]
    units = normalize(keys, dim=1)
    real = units[0]
    hardest = sorted(range(1, 5), key=lambda crop: -float(units[crop] @ real))[:2]  # the most like the real prototype
    queued = dual.memory.queue[1][:2]
    assert all(any(torch.allclose(one, units[crop]) for one in queued) for crop in hardest)

    maps.requires_grad_()
    inter, intra, logged = dual(maps, keys, faces, labels)
    queries = normalize(dual.embed(maps.mean(dim=(2, 3))), dim=1).tolist()
    expected = 0.0
    for crop, label in enumerate(labels.tolist()):
        count = [1, 2][1 - label]
        others = dual.memory.queue[1 - label][:count].tolist()
        dot = [math.exp(sum(a * b for a, b in zip(queries[crop], key, strict=True)) / TAU) for key in others]
        own = math.exp(sum(a * b for a, b in zip(queries[crop], units[crop].tolist(), strict=True)) / TAU)
        expected -= math.log(own / (own + sum(dot))) / 5
    assert inter.item() == pytest.approx(expected, rel=1e-4)
    naive = [naive_intra(maps[crop].detach(), faces[crop], int(labels[crop])) for crop in range(3)]
    assert intra.item() == pytest.approx((naive[1] + naive[2]) / 2 + 0.01 * naive[0], rel=1e-4)
    assert logged["dual_inter"].item() == inter.item()
    (inter + intra).backward()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()
    assert maps.grad[0].abs().sum() > 0


@pytest.mark.parametrize("labels", [[], [0], [1], [1, 1]], ids=["none", "real", "fake", "fakes"])
def test_few_crops(labels: list[int]) -> None:
    dual = contrast()
    for _ in range(2):
        maps = torch.randn(len(labels), 4, 2, 2, requires_grad=True)
        given = maps, torch.randn(len(labels), 3), torch.rand(len(labels), 2, 2).round(), torch.tensor(labels).long()
        inter, intra, _ = dual(*given) if labels else dual.nothing()
        (inter + intra).backward()
        assert inter.item() == 0.0  # without the other class there is nothing to push from
        assert intra.isfinite()
        dual.remember()
    assert int(dual.memory.filled.sum()) == 2 * len(labels)


def test_the_momentum_encoder_follows() -> None:
    dual = contrast()
    before = dual.keys.module.embed.weight.clone()
    with torch.no_grad():
        dual.embed.weight.add_(1.0)
    dual.remember()
    torch.testing.assert_close(dual.keys.module.embed.weight, before + 0.5)
