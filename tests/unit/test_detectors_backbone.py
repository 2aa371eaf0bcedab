"""The extractor: torchvision's numbers under torchvision's names, folding, freezing, and weights that cannot be had."""

from __future__ import annotations

from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision import models

from comics.detectors import build
from comics.detectors.backbone import STRIDES, ResNetBody, build_extractor, conv_norm, level_shapes
from comics.errors import UserError
from comics.params import ModelParams
from comics.weights.transfer import load_into


def stir(module: nn.Module, seed: int = 0) -> nn.Module:
    """Statistics and affine parameters as after some training."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return module


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_the_body_is_torchvisions(name, frozen):
    theirs = stir(getattr(models, name)(weights=None)).eval()
    ours = ResNetBody(name, frozen_batchnorm=frozen).eval()
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert set(missing) <= {"stride_in_1x1"}
    assert all(key.startswith("fc.") or key.endswith("num_batches_tracked") for key in unexpected)
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
        c3 = theirs.layer2(theirs.layer1(x))
        c4 = theirs.layer3(c3)
        for one, other in zip(ours(images), (c3, c4, theirs.layer4(c4)), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * other.abs().max().item())


def test_folding_keeps_values_and_gradients():
    conv, norm = nn.Conv2d(3, 5, 3, padding=1).double(), stir(nn.BatchNorm2d(5)).double().eval()
    x = torch.randn(2, 3, 6, 7).double()
    folded, plain = conv_norm(conv, norm, x), norm(conv(x))
    torch.testing.assert_close(folded, plain)
    weight = torch.randn_like(plain)
    parameters = [*conv.parameters(), *norm.parameters()]
    ours = torch.autograd.grad((folded * weight).sum(), parameters)
    theirs = torch.autograd.grad((plain * weight).sum(), parameters)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_training_batchnorm_is_not_folded():
    conv, norm = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)
    before = norm.running_mean.clone()
    conv_norm(conv, norm, torch.randn(2, 3, 6, 7))
    assert not torch.equal(before, norm.running_mean)


@pytest.mark.parametrize("stages", [0, 1, 2, 5])
def test_frozen_stages_keep_weights_and_statistics(stages):
    extractor = build_extractor(ModelParams(backbone="resnet18", fpn_channels=16, frozen_stages=stages)).train()
    body = extractor.body
    parts = [[body.conv1, body.bn1], [body.layer1], [body.layer2], [body.layer3], [body.layer4]]
    before = {key: value.clone() for key, value in body.state_dict().items()}
    sum(level.mean() for level in extractor(torch.randn(2, 3, 64, 64))).backward()
    for number, part in enumerate(parts):
        for module in part:
            for parameter in module.parameters():
                assert (parameter.grad is None) == (number < stages)
    moved = {key for key, value in body.state_dict().items() if not torch.equal(value, before[key])}
    assert ("bn1.running_mean" in moved) == (stages < 1)
    assert ("layer1.0.bn1.running_mean" in moved) == (stages < 2)
    assert ("layer4.0.bn1.running_mean" in moved) == (stages < 5)


def test_frozen_batchnorm_has_no_parameters():
    body = ResNetBody("resnet18", frozen_batchnorm=True)
    assert not [name for name, _ in body.named_parameters() if "bn" in name or "downsample.1" in name]


@pytest.mark.parametrize("size", [(64, 96), (160, 224)])
def test_pyramid_shapes(size):
    extractor = build_extractor(ModelParams(backbone="resnet18", fpn_channels=16))
    pyramid = extractor(torch.rand(1, 3, *size))
    assert extractor.strides == STRIDES
    assert [tuple(level.shape) for level in pyramid] == [(1, 16, *shape) for shape in level_shapes(*size)]


def test_images_must_be_padded():
    with pytest.raises(ValueError, match="multiple of 32"):
        build_extractor(ModelParams(backbone="resnet18", fpn_channels=16))(torch.rand(1, 3, 60, 64))


def test_weights_from_a_file(tmp_path):
    state = models.resnet18(weights=None).state_dict()
    torch.save(state, tmp_path / "r18.pth")
    detector = build("blendmask", ModelParams(backbone="resnet18"))
    load_into(detector, "blendmask", tmp_path / "r18.pth")
    assert torch.equal(detector.extractor.body.layer3[0].conv1.weight, state["layer3.0.conv1.weight"])


def test_a_file_that_is_no_weights(tmp_path):
    (tmp_path / "text.pth").write_text("hello")
    for path in (tmp_path / "text.pth", tmp_path / "absent.pth"):
        with pytest.raises(UserError, match=path.name):
            load_into(build("blendmask", ModelParams(backbone="resnet18")), "blendmask", path)


def test_imagenet_weights_are_torchvisions(monkeypatch):
    state = models.resnet18(weights=None).state_dict()
    monkeypatch.setattr(models.ResNet18_Weights, "get_state_dict", lambda *_, **__: state)
    body = build_extractor(ModelParams(backbone="resnet18", fpn_channels=16, weights="imagenet")).body
    assert torch.equal(body.layer4[1].bn2.weight, state["layer4.1.bn2.weight"])
    assert torch.equal(body.conv1.weight, state["conv1.weight"])


def test_offline_says_how_to_supply_the_file(monkeypatch):
    def offline(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr(models.ResNet18_Weights, "get_state_dict", offline)
    with pytest.raises(UserError) as error:
        build_extractor(ModelParams(backbone="resnet18", weights="imagenet"))
    assert "no route to host" in error.value.message
    assert "resnet18" in error.value.remedy
    assert "weights:" in error.value.remedy
