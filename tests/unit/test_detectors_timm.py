"""Backbones of timm: every family gives a pyramid, freezes, decays by layer, and serves every detector and all of COMICS."""

from __future__ import annotations

import pytest
import torch
from detector_scenes import random_boxes, scenes
from pydantic import ValidationError

from comics.data.loading.batches import Batch
from comics.detectors import NAMES, build
from comics.detectors.backbone import STRIDES, Extractor, SimpleFeaturePyramid, TimmBody, build_extractor, level_shapes
from comics.detectors.backbone.layers import is_norm
from comics.detectors.zoo import measure_backbone
from comics.errors import UserError
from comics.model import Comics
from comics.params import ModelParams, TrainingParams, load
from comics.params.backbones import timm_models
from comics.training.module import parameter_groups
from comics.weights.transfer import load_into

FAMILIES = ["test_resnet", "test_convnext", "test_efficientnet", "test_mambaout", "test_nfnet", "test_vit"]
every_family = pytest.mark.parametrize("name", FAMILIES)
SMALL = {"fpn_channels": 16, "head_channels": 16, "head_convs": 1, "mask_channels": 16}


def extractor(name: str, seed: int = 0, **settings) -> Extractor:
    torch.manual_seed(seed)
    return build_extractor(ModelParams(backbone=f"timm/{name}", **{**SMALL, **settings}))


def test_the_names_are_timms():
    import timm

    assert timm_models() == set(timm.list_models())


@pytest.mark.parametrize("name", [*FAMILIES, "swin_s3_tiny_224", "swinv2_cr_tiny_ns_224"])
def test_pyramid_shapes_and_gradients(name):
    built = extractor(name).train()
    pyramid = built(torch.rand(2, 3, 64, 96))
    assert built.strides == STRIDES
    assert [tuple(level.shape) for level in pyramid] == [(2, 16, *shape) for shape in level_shapes(64, 96)]
    sum(level.square().mean() for level in pyramid).backward()
    gradients = {key: parameter.grad for key, parameter in built.named_parameters()}
    assert not [key for key, gradient in gradients.items() if gradient is None or not gradient.isfinite().all()]


@every_family
def test_a_batch_equals_its_images(name):
    built = extractor(name).eval()
    images = torch.rand(3, 3, 64, 96)
    with torch.no_grad():
        together = built(images)
        single = [built(image[None]) for image in images]
    for level, parts in zip(together, zip(*single, strict=True), strict=True):
        torch.testing.assert_close(level, torch.cat(parts), rtol=1e-3, atol=1e-5)


def test_patches_of_14_pixels_give_the_same_strides():
    built = extractor("eva02_tiny_patch14_224").eval()
    with torch.no_grad():
        pyramid = built(torch.rand(1, 3, 64, 96))
    assert [tuple(level.shape[2:]) for level in pyramid] == level_shapes(64, 96)


def test_the_simple_pyramid_moves_with_the_image():
    """Each level answers where the map does: a bright cell of the last map brightens the cells below it alone."""
    torch.manual_seed(0)
    pyramid = SimpleFeaturePyramid(8, 4, 16, (4, 8, 16, 32)).eval()
    base = torch.rand(1, 8, 4, 6)
    other = base.clone()
    other[:, :, 1, 2] += 1.0
    with torch.no_grad():
        for stride, one, two in zip((4, 8, 16, 32), pyramid([base]), pyramid([other]), strict=False):
            rows, columns = torch.nonzero((one - two).abs().amax(dim=(0, 1)) > 1e-6, as_tuple=True)
            # the cell spans rows 16-32 and columns 32-48 px; a 3x3 convolution reaches one cell further
            assert rows.min() >= 16 // stride - 1
            assert rows.max() <= -(-32 // stride)
            assert columns.min() >= 32 // stride - 1
            assert columns.max() <= -(-48 // stride)


@pytest.mark.parametrize("name", ["test_convnext", "test_vit"])
@pytest.mark.parametrize("detector_name", NAMES)
def test_every_detector_takes_it(detector_name, name):
    torch.manual_seed(0)
    detector = build(detector_name, ModelParams(backbone=f"timm/{name}", **SMALL))
    images, targets, sizes = scenes([random_boxes(2, 64, 96, seed) for seed in range(2)], 64, 96)
    losses = detector.losses(detector(images), targets, sizes)
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    first = next(detector.extractor.body.parameters())
    assert first.grad is not None
    assert first.grad.isfinite().all()


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_momentum_copy_attention_and_both_grains(name):
    run = load("params.yaml").resolve("comics")
    model = ModelParams(backbone=f"timm/{name}", **SMALL)
    run = run.model_copy(update={"params": run.params.model_copy(update={"model": model})})
    torch.manual_seed(0)
    comics = Comics(run).train()
    images, targets, sizes = scenes([random_boxes(2, 64, 96, seed) for seed in range(2)], 64, 96)
    batch = Batch(images, images.clone(), targets, sizes, [1, 2], sizes)
    copy = {key: value.clone() for key, value in comics.momentum.module.state_dict().items()}
    losses = comics.losses(batch)
    assert losses.total.isfinite()
    losses.total.backward()
    with torch.no_grad():
        for parameter in comics.detector.parameters():
            parameter -= 0.01 * (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    comics.after_step()
    momentum = run.objective.coarse.momentum
    source = dict(comics.detector.extractor.body.named_parameters())
    for key, value in comics.momentum.module.extractor.body.named_parameters():
        expected = momentum * copy[f"extractor.body.{key}"] + (1 - momentum) * source[key]
        torch.testing.assert_close(value, expected)


@every_family
def test_frozen_stages_and_norms(name):
    built = extractor(name, frozen_stages=2, frozen_batchnorm=True).train()
    inner = built.body.model.model
    before = {key: value.clone() for key, value in built.body.state_dict().items()}
    sum(level.square().mean() for level in built(torch.rand(2, 3, 64, 96))).backward()
    frozen = {key for key, parameter in inner.named_parameters() if parameter.grad is None}
    norms = {id(p) for module in inner.modules() if is_norm(module) for p in module.parameters()}
    groups = built.body._groups(coarse=True)
    for key, parameter in inner.named_parameters():
        assert (key in frozen) == (groups[key] < 2 or id(parameter) in norms), key
    assert 0 < len(frozen) < len(groups)
    for key, value in built.body.state_dict().items():  # no running statistics moved
        assert torch.equal(value, before[key]), key


def test_too_many_stages():
    with pytest.raises(UserError, match="frozen_stages"):
        extractor("test_resnet", frozen_stages=9)


@pytest.mark.parametrize("backbone", ["resnet18", "timm/test_vit", "timm/test_convnext"])
def test_learning_rates_fall_towards_the_stem(backbone):
    detector = build("blendmask", ModelParams(backbone=backbone, **SMALL))
    training = TrainingParams(lr=0.1, backbone_lr=0.5, layer_decay=0.8, weight_decay=0.01)
    body = detector.extractor.body
    groups = parameter_groups(detector, training, body)
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert set(rate) == {id(p) for p in detector.parameters()}
    depths = body.depths()
    top = max(depths.values())
    assert min(depths.values()) == 0
    for name, parameter in body.named_parameters():
        assert rate[id(parameter)] == pytest.approx(0.1 * 0.5 * 0.8 ** (top - depths[name]))
    assert {rate[id(p)] for p in detector.head.parameters()} == {0.1}
    assert groups[0]["lr"] == 0.1  # the one that is logged
    first, *_, last = body.parameters()
    assert rate[id(first)] < rate[id(last)]
    for module in detector.modules():
        if is_norm(module):
            assert all(decay[id(p)] == 0 for p in module.parameters(recurse=False))


def test_a_file_of_timm(tmp_path):
    import timm

    state = timm.create_model("test_vit", num_classes=3).state_dict()
    torch.save(state, tmp_path / "vit.pth")
    detector = build("blendmask", ModelParams(backbone="timm/test_vit", weights=str(tmp_path / "vit.pth"), **SMALL))
    report = load_into(detector, "blendmask", tmp_path / "vit.pth")
    assert torch.equal(detector.extractor.body.model.model.blocks[2].attn.qkv.weight, state["blocks.2.attn.qkv.weight"])
    assert report.family == "timm"
    assert {entry.source.split(".")[0] for entry in report.of("skipped")} <= {"head", "norm", "fc_norm"}


def test_pixels_are_those_that_the_weights_expect():
    import timm

    detector = build("blendmask", ModelParams(backbone="timm/vit_tiny_patch16_224.augreg_in21k", **SMALL))
    assert detector.pixel_mean.flatten().tolist() == pytest.approx(
        list(timm.get_pretrained_cfg("vit_tiny_patch16_224.augreg_in21k").mean)
    )
    assert detector.pixel_mean.flatten().tolist() == pytest.approx([0.5, 0.5, 0.5])


def test_weights_that_cannot_be_had(monkeypatch):
    import timm

    def unreachable(*args, pretrained=False, **options):
        if pretrained:
            raise OSError("no route")
        return create(*args, **options)

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(UserError, match="no route") as caught:
        extractor("resnet10t", weights="imagenet")
    assert "timm/resnet10t" in caught.value.remedy  # where its file is


def test_models_that_cannot_serve():
    with pytest.raises(UserError, match="any size"):
        extractor("levit_128")
    with pytest.raises(UserError, match="none at 64"):
        TimmBody("vgg11", strides=(4, 8, 64))
    with pytest.raises(ValidationError, match="resnet18'"):
        ModelParams(backbone="resnet17")
    with pytest.raises(ValidationError, match="timm/convnext_tiny'"):
        ModelParams(backbone="timm/convnext_tny")
    with pytest.raises(ValidationError, match="backbone_width"):
        ModelParams(backbone="timm/resnet18", backbone_width=0.5)


def test_width():
    half, whole = (build_extractor(ModelParams(backbone="resnet18", backbone_width=width)).body for width in (0.5, 1))
    assert half.out_channels == [channels // 2 for channels in whole.out_channels]
    shapes = dict(whole.named_parameters())
    for name, parameter in half.named_parameters():
        expected = [n if (n == 3 and axis == 1) or axis > 1 else n // 2 for axis, n in enumerate(shapes[name].shape)]
        assert list(parameter.shape) == expected, name


def test_facts_of_a_backbone():
    facts = measure_backbone("resnet18", 64)
    assert facts.parameters == sum(
        p.numel() for p in build_extractor(ModelParams(backbone="resnet18")).body.parameters()
    )
    assert facts.gigaflops > 2 * 32 * 32 * 64 * 147 / 1e9  # the stem alone
    assert (facts.pyramid, measure_backbone("timm/test_vit", 64).pyramid) == ("FPN", "ViTDet")
