"""Frequency enhanced attention: filters, shapes, gradients."""

from __future__ import annotations

import pytest
import torch

from comics.attention import FeatureResiduals, FrequencyAttention, ImageResiduals, srm_filters
from comics.params import AttentionParams


def test_filters_ignore_flat_regions_and_are_not_trained() -> None:
    filters = srm_filters()
    assert filters.shape == (3, 5, 5)
    torch.testing.assert_close(filters.sum((1, 2)), torch.zeros(3), atol=1e-6, rtol=0)
    assert filters.abs().amax((1, 2)).tolist() == [1, 1, 1]
    module = FrequencyAttention(8, (8, 16, 32), AttentionParams())
    assert not any("kernel" in name for name, _ in module.named_parameters())


def test_image_residuals_are_a_plain_correlation_truncated_to_three_grey_levels() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 3, 9, 9)
    result = ImageResiduals()(image)
    filters = srm_filters()
    for index in range(3):
        patch = image[0, :, 2:7, 3:8].mean(0) * 255
        expected = (patch * filters[index]).sum().clamp(-3, 3) / 3
        torch.testing.assert_close(result[0, index, 4, 5], expected, atol=1e-4, rtol=1e-4)
    assert result.abs().max() <= 1


def test_feature_residuals_keep_channels_apart() -> None:
    features = torch.zeros(1, 7, 9, 9)
    features[0, 4] = torch.rand(9, 9)
    result = FeatureResiduals(7)(features)
    assert result.shape == features.shape
    assert result[0, 4].abs().sum() > 0
    assert result[0, [0, 1, 2, 3, 5, 6]].abs().sum() == 0


@pytest.mark.parametrize("identity", [False, True])
def test_attention_multiplies_every_level(identity: bool) -> None:
    torch.manual_seed(1)
    module = FrequencyAttention(8, (8, 16, 32), AttentionParams(channels=(4, 6), identity=identity))
    images = torch.rand(2, 3, 64, 96)
    levels = [torch.ones(2, 8, 8, 12), torch.ones(2, 8, 4, 6), torch.ones(2, 8, 1, 1)]
    result = module(images, levels)
    for level, weighted in zip(levels, result, strict=True):
        assert weighted.shape == level.shape
        assert weighted.min() > (1 if identity else 0)
        assert weighted.max() < (2 if identity else 1)
        torch.testing.assert_close(weighted, weighted[:, :1].expand_as(weighted))  # one map for all channels


def test_gradients_reach_branch_and_features() -> None:
    module = FrequencyAttention(6, (4,), AttentionParams(channels=(4, 4))).double().eval()
    images = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    feature = torch.rand(1, 6, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda level: module(images, [level])[0], feature)
    module(images, [feature])[0].sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name


def test_the_frame_of_a_flat_image_has_no_residual() -> None:
    flat = torch.full((1, 3, 12, 12), 0.7)
    torch.testing.assert_close(ImageResiduals()(flat), torch.zeros_like(flat), atol=1e-4, rtol=0)
    level = torch.full((1, 4, 3, 1), 5.0)
    torch.testing.assert_close(FeatureResiduals(4)(level), torch.zeros_like(level), atol=1e-5, rtol=0)


def test_image_residuals_stay_in_float32_under_autocast() -> None:
    image = 0.8 + torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) / 255  # within a grey level
    expected = ImageResiduals()(image)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ImageResiduals()(image), expected)
    assert expected.abs().max() > 0.05


def test_each_level_has_its_own_statistics_and_a_batch_counts_once() -> None:
    torch.manual_seed(2)
    module = FrequencyAttention(8, (8, 16), AttentionParams(channels=(4, 6)))
    images = torch.rand(2, 3, 64, 64)
    levels = [torch.randn(2, 8, 8, 8, requires_grad=True), 100 * torch.randn(2, 8, 4, 4)]
    result = module(images, levels)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    first, second = module.feature_branch[0].norms
    assert second.running_var.mean() > 100 * first.running_var.mean()
    image_norm = module.image_branch[0].norms[0]
    with torch.no_grad():
        response = module.image_branch[0].conv(module.image_residuals(images))
    torch.testing.assert_close(image_norm.running_mean, 0.1 * response.mean((0, 2, 3)), atol=1e-6, rtol=1e-4)
    sum(level.sum() for level in result).backward()  # makes the image branch's maps again
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_made_again_maps_give_the_gradients_of_kept_ones() -> None:
    torch.manual_seed(3)
    module = FrequencyAttention(8, (8,), AttentionParams(channels=(4, 6))).double()
    images, level = torch.rand(2, 3, 32, 32).double(), torch.randn(2, 8, 4, 4).double()
    module(images, [level])[0].square().sum().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in module.named_parameters()}
    module.zero_grad()
    found = level
    found = module.feature_residuals(found)
    for block in module.feature_branch:
        found = block(found, 0)
    kept = module.image_branch(module.image_residuals(images))
    (level * module.attention(kept + found)).square().sum().backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], msg=name)


def test_one_cell_of_one_image() -> None:
    module = FrequencyAttention(8, (8, 16, 32, 64), AttentionParams(channels=(4, 6)))
    levels = [torch.randn(1, 8, size, size, requires_grad=True) for size in (4, 2, 1, 1)]
    result = module(torch.rand(1, 3, 32, 32), levels)
    sum(level.sum() for level in result).backward()
    for name, parameter in module.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
