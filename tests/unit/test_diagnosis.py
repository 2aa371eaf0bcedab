"""The diagnosis of a run: separations that are planted are found, gradients are those of the terms."""

from __future__ import annotations

import itertools

import pytest
import torch
from test_model import both_classes, fake_detector, fill, model_of  # noqa: F401
from torch.nn.functional import cosine_similarity

from comics.diagnosis import auc, contrast_in_faces, pulls, separation, separations


def test_auc_is_a_count_of_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    positive, negative = (torch.randint(0, 6, (count,), generator=generator).float() for count in (13, 9))
    pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(positive.tolist(), negative.tolist())]
    assert auc(positive, negative) == pytest.approx(sum(pairs) / len(pairs))
    assert auc(positive, positive) == 0.5


@pytest.mark.parametrize("apart", [0.0, 3.0])
def test_planted_separations_are_found(apart: float) -> None:
    generator = torch.Generator().manual_seed(1)
    halves = []
    for _ in range(2):
        real, fake = (torch.randn(200, 8, generator=generator) for _ in range(2))
        fake[:, 2] += apart
        real[:, 2] -= apart
        halves.append({0: real, 1: fake})
    found = separation("planted", halves)
    assert (found.real, found.fake) == (400, 400)
    real, fake = (torch.cat([half[label] for half in halves]) for label in (0, 1))
    between = cosine_similarity(real[:, None], fake[None], dim=2).mean()
    assert found.between == pytest.approx(float(between), abs=1e-5)
    within = [
        (cosine_similarity(one[:, None], one[None], dim=2).sum() - len(one)) / (len(one) * (len(one) - 1))
        for one in (real, fake)
    ]
    assert found.within == pytest.approx(float(sum(within)) / 2, abs=1e-5)
    assert found.auc > 0.99 if apart else 0.4 < found.auc < 0.6


def test_few_or_no_features_are_told_as_such() -> None:
    halves = [{0: torch.randn(3, 4), 1: torch.randn(0, 4)} for _ in range(2)]
    found = separation("few", halves)
    assert (found.real, found.fake, found.between, found.auc) == (6, 0, None, None)


def test_pulls_are_gradients_of_the_terms_and_leave_the_model_alone() -> None:
    model = model_of(["coarse", "fine"])
    fill(model)
    queue = model.coarse.memory.queue.clone()
    weights = list(model.coarse.weights)
    found = {one.term: one for one in pulls(model, [both_classes(1), both_classes(2)])}
    assert set(found) == {"detection", "coarse", "intra", "inter", "coarse P3", "coarse P4"}
    assert torch.equal(model.coarse.memory.queue, queue)
    assert model.coarse.weights == weights
    assert found["detection"].detection == pytest.approx((1.0, 1.0), abs=1e-9)
    assert all(len(one.norm) == len(one.classes) == 2 for one in found.values())

    model.detector.extractor.zero_grad()
    model.losses(both_classes(1)).terms["loss_coarse"].backward()
    gradients = [one.grad.flatten() for one in model.detector.extractor.parameters() if one.grad is not None]
    assert found["coarse"].norm[0] == pytest.approx(torch.cat(gradients).norm().item(), rel=1e-4)


def test_levels_add_up_to_the_coarse_term() -> None:
    from comics.diagnosis import _terms

    model = model_of(["coarse"])
    fill(model)
    found = _terms(model, both_classes(1))
    total = sum(weight * found[f"coarse P{3 + level}"] for level, weight in enumerate(model.coarse.weights))
    torch.testing.assert_close(0.5 * total, found["loss_coarse"], rtol=1e-3, atol=1e-6)


def test_a_model_of_any_components_can_be_looked_at() -> None:
    for components in ([], ["attention", "coarse", "fine"]):
        model = model_of(components).eval()
        parts, faces = separations(model, [both_classes(seed) for seed in range(2)])
        found = {one.features: one for one in parts}
        assert set(found) == {"proposals P3", "proposals P4", "pixels of faces", "pixels around faces"}
        assert found["pixels of faces"].real == found["pixels of faces"].fake == 4
        assert found["proposals P3"].real > 0
        assert abs(faces.real) <= 1
        assert faces.auc is None  # of four faces


def test_contrast_in_faces_is_a_plain_mean() -> None:
    face, around = (
        {label: torch.randn(12, 3, generator=torch.Generator().manual_seed(label)) for label in (0, 1)}
        for _ in range(2)
    )
    around[1] = -face[1]
    found = contrast_in_faces(face, around)
    assert found.real == pytest.approx(float((face[0] ** 2).sum(1).mean()))
    assert found.fake == pytest.approx(-float((face[1] ** 2).sum(1).mean()))
    assert found.auc == 1.0
