"""Sampling a map in boxes, beside torchvision's RoIAlign."""

from __future__ import annotations

import pytest
import torch

from comics.detectors.base import crop_features, sample_boxes, sample_few

samplers = pytest.mark.parametrize("sample", [sample_boxes, sample_few])


@samplers
@pytest.mark.parametrize("shape", [(2, 6, 12, 17), (2, 6, 1, 5), (2, 6, 7, 1)])
def test_sampling_is_roi_align_with_one_sample(shape: tuple[int, ...], sample) -> None:
    torch.manual_seed(0)
    features = torch.randn(shape, dtype=torch.float64)
    first = torch.tensor(
        [[3.0, 4.0, 30.0, 31.0], [-20.0, -9.0, 90.0, 70.0], [5.0, 5.0, 5.0, 5.0], [60.0, 40.0, 70.0, 48.0]]
    )
    boxes = [first, 60 * torch.rand(3, 2).repeat(1, 2).add(torch.tensor([0.0, 0.0, 0.3, 0.2]))]
    for own in (boxes, [first[:0], boxes[1]], [first[:0], first[:0]]):
        torch.testing.assert_close(sample(features, own, 5, 4), crop_features(features, own, 5, 4).double())


@samplers
def test_its_gradient(sample) -> None:
    torch.manual_seed(1)
    features = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    boxes = [torch.tensor([[1.0, 2.0, 14.0, 17.0]]), torch.tensor([[-6.0, 0.0, 9.0, 9.0], [3.0, 3.0, 8.0, 19.0]])]
    assert torch.autograd.gradcheck(lambda maps: sample(maps, boxes, 3, 4), features)


@samplers
def test_half_precision_is_sampled_in_float32(sample) -> None:
    features = torch.randn(1, 3, 8, 8).bfloat16()
    boxes = [torch.tensor([[4.0, 4.0, 24.0, 28.0]])]
    result = sample(features, boxes, 4, 4)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, sample(features.float(), boxes, 4, 4))
