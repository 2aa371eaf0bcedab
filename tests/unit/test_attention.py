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
    module = FrequencyAttention(8, 3, AttentionParams())
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
    module = FrequencyAttention(8, 3, AttentionParams(channels=(4, 6), identity=identity))
    images = torch.rand(2, 3, 64, 96)
    levels = [torch.ones(2, 8, 8, 12), torch.ones(2, 8, 4, 6), torch.ones(2, 8, 1, 1)]
    result = module(images, levels)
    for level, weighted in zip(levels, result, strict=True):
        assert weighted.shape == level.shape
        assert weighted.min() > (1 if identity else 0)
        assert weighted.max() < (2 if identity else 1)
        torch.testing.assert_close(weighted, weighted[:, :1].expand_as(weighted))  # one map for all channels


def test_gradients_reach_branch_and_features() -> None:
    module = FrequencyAttention(6, 1, AttentionParams(channels=(4, 4))).double().eval()
    images = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    feature = torch.rand(1, 6, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda level: module(images, [level])[0], feature)
    module(images, [feature])[0].sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
