"""Views change pixels, never places, and follow their seed."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as transforms

from comics.data.loading.views import (
    adjust_sharpness,
    colour_jitter,
    gaussian_noise,
    grayscale,
    random_blocking,
    salt_and_pepper,
    shrink_and_back,
    view,
)
from comics.params import ViewsParams

PARAMS = ViewsParams()


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def blob(height: int = 60, width: int = 80, x: int = 50, y: int = 20) -> Tensor:
    """A bright square on a grey ground."""
    image = torch.full((3, height, width), 0.3)
    image[:, y - 8 : y + 8, x - 8 : x + 8] = 0.9
    return image


@pytest.mark.parametrize("shape", [(3, 60, 80), (3, 7, 5), (3, 1, 1), (3, 224, 160)])
def test_a_view_keeps_shape_and_range_and_follows_its_seed(shape: tuple[int, int, int]) -> None:
    image = torch.rand(shape)
    before = image.clone()
    for seed in range(20):
        result = view(image, generator(seed), PARAMS)
        assert result.shape == image.shape
        assert result.min() >= 0
        assert result.max() <= 1
        assert torch.equal(result, view(image, generator(seed), PARAMS))
    assert torch.equal(image, before)  # the original is not written to


def test_two_draws_are_two_views() -> None:
    image, draws = torch.rand(3, 40, 40), generator()
    assert not torch.equal(view(image, draws, PARAMS), view(image, draws, PARAMS))


def test_every_view_leaves_the_face_where_it_is() -> None:
    """The mean position of what is brighter than its surroundings stays within half a pixel; the families that hide pixels
    at random places, and so move the mean but nothing else, are off."""
    image = blob()
    harmless = PARAMS.model_copy(update={"blocking_probability": 0.0, "noise_probability": 0.0})
    for seed in range(40):
        result = view(image, generator(seed), harmless).mean(0)
        weight = (result - result.median()).clamp(min=0.15) - 0.15
        rows = (weight.sum(1) * torch.arange(60)).sum() / weight.sum() + 0.5
        columns = (weight.sum(0) * torch.arange(80)).sum() / weight.sum() + 0.5
        assert float(rows) == pytest.approx(20, abs=0.5), seed
        assert float(columns) == pytest.approx(50, abs=0.5), seed


def test_with_all_probabilities_zero_nothing_changes() -> None:
    image = torch.rand(3, 20, 30)
    off = {name: 0.0 for name in ViewsParams.model_fields if name.endswith("probability")}
    assert torch.equal(view(image, generator(), ViewsParams(**off)), image)


def test_jitter_happens_about_as_often_as_asked() -> None:
    image = torch.rand(3, 8, 8)
    changed = sum(not torch.equal(colour_jitter(image, generator(s), 0.5, 0.4), image) for s in range(300))
    assert changed / 300 == pytest.approx(1 - 0.5**4, abs=0.06)
    assert torch.equal(colour_jitter(image, generator(), 0.0, 0.4), image)


@pytest.mark.parametrize("shape", [(3, 20, 31), (3, 3, 3), (3, 2, 9), (3, 1, 1)])
@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4, 3.0])
def test_sharpness_is_torchvisions(shape: tuple[int, int, int], factor: float) -> None:
    image = torch.rand(shape, generator=generator(1))
    reference = transforms.adjust_sharpness(image, factor)
    torch.testing.assert_close(adjust_sharpness(image, factor), reference, atol=1e-6, rtol=0)


def test_blocking_hides_two_to_six_of_a_hundred_chunks() -> None:
    image = torch.ones(3, 50, 70)
    counts = set()
    for seed in range(200):
        hidden = random_blocking(image, generator(seed), 10, (0.02, 0.06)) == 0
        chunks = hidden[0].view(10, 5, 10, 7).permute(0, 2, 1, 3).reshape(100, -1)
        assert ((chunks.all(1)) | (~chunks.any(1))).all()  # whole chunks
        counts.add(int(chunks.any(1).sum()))
    assert counts == {2, 3, 4, 5, 6}


def test_noise_is_as_strong_as_asked() -> None:
    image = torch.full((3, 100, 100), 0.5)
    assert float((gaussian_noise(image, generator(), 0.04) - image).std()) == pytest.approx(0.04, rel=0.05)
    salted = salt_and_pepper(image, generator(), 0.02)
    assert float((salted == 0)[0].float().mean()) == pytest.approx(0.01, abs=0.004)
    assert float((salted == 1)[0].float().mean()) == pytest.approx(0.01, abs=0.004)
    assert torch.equal((salted == 0)[0], (salted == 0)[2])  # pixels, not channels


def test_shrinking_removes_what_is_finer_than_its_factor() -> None:
    checks = (torch.arange(64)[:, None] + torch.arange(64)[None]) % 2
    image = checks.float().expand(3, -1, -1)
    assert float(shrink_and_back(image, 4).std()) < 0.02
    assert torch.equal(grayscale(image)[0], grayscale(image)[2])
