"""Checkpoints of other projects: every tensor accounted for, conventions kept, class layers replaced."""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional
from typer.testing import CliRunner

from comics.cli import app
from comics.detectors import build
from comics.detectors.mask_rcnn import MaskRCNN
from comics.detectors.meinst import MEInst
from comics.errors import UserError
from comics.model import Comics
from comics.params import ModelParams, load
from comics.weights.export import export_model, write_safetensors
from comics.weights.transfer import load_into, read, transfer

LAYERS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}
SMALL = ModelParams(backbone="resnet18", fpn_channels=32, head_channels=32, head_convs=2, mask_channels=32)
BATCHNORM = ("weight", "bias", "running_mean", "running_var")


class Names(OrderedDict):
    """A checkpoint under construction: names and shapes as the other project writes them, random values."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def add(self, name: str, *shape: int) -> None:
        fan = int(np.prod(shape[1:])) or 1
        self[name] = torch.randn(*shape, generator=self.generator) * (2 / fan) ** 0.5

    def layer(self, name: str, *shape: int) -> None:
        self.add(f"{name}.weight", *shape)
        self.add(f"{name}.bias", shape[0])

    def norm(self, name: str, channels: int, parts=BATCHNORM, separator: str = ".") -> None:
        for part in parts:
            self.add(f"{name}{separator}{part}", channels)
            if part in ("running_var", "riv", "weight", "gamma", "s"):
                self[f"{name}{separator}{part}"] = 0.5 + torch.rand(channels, generator=self.generator)


def detectron2_resnet(backbone: str, prefix: str, seed: int = 0) -> Names:
    """A ResNet under detectron2's names."""
    names = Names(seed)
    names.add(f"{prefix}stem.conv1.weight", 64, 3, 7, 7)
    names.norm(f"{prefix}stem.conv1.norm", 64)
    inputs = 64
    for stage, (count, width) in enumerate(zip(LAYERS[backbone], (64, 128, 256, 512), strict=True), 2):
        for block in range(count):
            here = f"{prefix}res{stage}.{block}"
            kernels = (1, 3, 1) if backbone == "resnet50" else (3, 3)
            outputs = 4 * width if backbone == "resnet50" else width
            widths = [inputs, *([width] * (len(kernels) - 1)), outputs]
            for index, kernel in enumerate(kernels):
                names.add(f"{here}.conv{index + 1}.weight", widths[index + 1], widths[index], kernel, kernel)
                names.norm(f"{here}.conv{index + 1}.norm", widths[index + 1])
            if inputs != outputs:
                names.add(f"{here}.shortcut.weight", outputs, inputs, 1, 1)
                names.norm(f"{here}.shortcut.norm", outputs)
            inputs = outputs
    return names


def detectron2_fpn(names: Names, widths: dict[int, int], channels: int) -> None:
    for level, width in widths.items():
        names.layer(f"backbone.fpn_lateral{level}", channels, width, 1, 1)
        names.layer(f"backbone.fpn_output{level}", channels, channels, 3, 3)


def mask_rcnn_names(classes: int, width: int = 32, convs: int = 2) -> Names:
    """detectron2's Mask R-CNN R18-FPN of small widths, as its model zoo writes it."""
    names = detectron2_resnet("resnet18", "backbone.bottom_up.")
    detectron2_fpn(names, {2: 64, 3: 128, 4: 256, 5: 512}, width)
    for level in range(5):
        names.add(f"proposal_generator.anchor_generator.cell_anchors.{level}", 3, 4)
    head = "proposal_generator.rpn_head"
    names.layer(f"{head}.conv", width, width, 3, 3)
    names.layer(f"{head}.objectness_logits", 3, width, 1, 1)
    names.layer(f"{head}.anchor_deltas", 12, width, 1, 1)
    names.layer("roi_heads.box_head.fc1", 4 * width, width * 49)
    names.layer("roi_heads.box_head.fc2", 4 * width, 4 * width)
    names.layer("roi_heads.box_predictor.cls_score", classes + 1, 4 * width)
    names.layer("roi_heads.box_predictor.bbox_pred", 4 * classes, 4 * width)
    for index in range(convs):
        names.layer(f"roi_heads.mask_head.mask_fcn{index + 1}", width, width, 3, 3)
    names.add("roi_heads.mask_head.deconv.weight", width, width, 2, 2)
    names.add("roi_heads.mask_head.deconv.bias", width)
    names.layer("roi_heads.mask_head.predictor", classes, width, 1, 1)
    return names


def fcos_names(names: Names, head: str, classes: int, width: int = 32, convs: int = 2, towers=("cls", "bbox")) -> None:
    detectron2_fpn(names, {3: 128, 4: 256, 5: 512}, width)
    names.layer("backbone.top_block.p6", width, width, 3, 3)
    names.layer("backbone.top_block.p7", width, width, 3, 3)
    for tower in towers:
        for index in range(convs):
            names.layer(f"{head}.{tower}_tower.{3 * index}", width, width, 3, 3)
            names.norm(f"{head}.{tower}_tower.{3 * index + 1}", width, ("weight", "bias"))
    names.layer(f"{head}.cls_logits", classes, width, 3, 3)
    names.layer(f"{head}.bbox_pred", 4, width, 3, 3)
    names.layer(f"{head}.ctrness", 1, width, 3, 3)
    for level in range(5):
        names.add(f"{head}.scales.{level}.scale", 1)


def conv_blocks(names: Names, where: str, indices, inputs: int, width: int) -> None:
    for index in indices:
        names.add(f"{where}.{index}.0.weight", width, inputs, 3, 3)
        names.norm(f"{where}.{index}.1", width)


def blendmask_names(classes: int) -> Names:
    names = detectron2_resnet("resnet18", "backbone.bottom_up.")
    fcos_names(names, "proposal_generator.fcos_head", classes)
    names.layer("top_layer", 4 * 14 * 14, 32, 3, 3)
    conv_blocks(names, "basis_module.refine", range(3), 32, 32)
    conv_blocks(names, "basis_module.tower", (0, 1, 2, 4), 32, 32)
    names.layer("basis_module.tower.5", 4, 32, 1, 1)
    for conv in (0, 3):
        names.add(f"basis_module.seg_head.{conv}.weight", 32, 32, 3, 3)
        names.norm(f"basis_module.seg_head.{conv + 1}", 32)
    names.layer("basis_module.seg_head.6", classes + 1, 32, 1, 1)
    return names


def condinst_names(classes: int) -> Names:
    names = detectron2_resnet("resnet18", "backbone.bottom_up.")
    fcos_names(names, "proposal_generator.fcos_head", classes)
    names.layer("controller", 169, 32, 3, 3)
    conv_blocks(names, "mask_branch.refine", range(3), 32, 32)
    conv_blocks(names, "mask_branch.tower", range(4), 32, 32)
    names.layer("mask_branch.tower.4", 8, 32, 1, 1)
    names["mask_head.sizes_of_interest"] = torch.tensor([64, 128, 256, 512, 1024])
    names["mask_head._iter"] = torch.zeros(1)
    return names


def meinst_names(classes: int) -> Names:
    names = detectron2_resnet("resnet18", "backbone.bottom_up.")
    head = "proposal_generator.MEInst_head"
    fcos_names(names, head, classes, towers=("cls", "bbox", "mask"))
    names.layer(f"{head}.mask_pred", 60, 32, 3, 3)
    names.add("proposal_generator.mask_encoding.components", 60, 784)
    names.add("proposal_generator.mask_encoding.explained_variances", 60)
    names.add("proposal_generator.mask_encoding.means", 784)
    return names


def solov2_names(classes: int, width: int = 64) -> Names:
    names = detectron2_resnet("resnet18", "backbone.bottom_up.")
    detectron2_fpn(names, {2: 64, 3: 128, 4: 256, 5: 512}, 32)
    for tower, extra in (("cate", 0), ("kernel", 2)):
        for index in range(2):
            names.add(f"ins_head.{tower}_tower.{3 * index}.weight", width, width if index else 32 + extra, 3, 3)
            names.norm(f"ins_head.{tower}_tower.{3 * index + 1}", width, ("weight", "bias"))
    names.layer("ins_head.cate_pred", classes, width, 3, 3)
    names.layer("ins_head.kernel_pred", 64, width, 3, 3)
    for level in range(4):
        for step in range(max(level, 1)):
            inputs = 32 if step else 32 + 2 * (level == 3)
            names.add(f"mask_head.convs_all_levels.{level}.conv{step}.0.weight", 32, inputs, 3, 3)
            names.norm(f"mask_head.convs_all_levels.{level}.conv{step}.1", 32, ("weight", "bias"))
    names.add("mask_head.conv_pred.0.weight", 64, 32, 1, 1)
    names.norm("mask_head.conv_pred.1", 64, ("weight", "bias"))
    return names


def centermask_names(classes: int) -> Names:
    names = detectron2_resnet("resnet18", "backbone.bottom_up.")
    fcos_names(names, "proposal_generator.fcos_head", classes)
    for index in range(2):
        names.layer(f"roi_heads.mask_head.mask_fcn{index + 1}", 32, 32, 3, 3)
    names.add("roi_heads.mask_head.spatialAtt.conv.weight", 1, 2, 3, 3)
    names.add("roi_heads.mask_head.deconv.weight", 32, 32, 2, 2)
    names.add("roi_heads.mask_head.deconv.bias", 32)
    names.layer("roi_heads.mask_head.predictor", classes, 32, 1, 1)
    for index in range(4):
        names.layer(f"roi_heads.maskiou_head.maskiou_fcn{index + 1}", 32, 32 if index else 33, 3, 3)
    names.layer("roi_heads.maskiou_head.maskiou_fc1", 128, 32 * 49)
    names.layer("roi_heads.maskiou_head.maskiou_fc2", 128, 128)
    names.layer("roi_heads.maskiou_head.maskiou", classes, 128)
    return names


def torchvision_resnet18(prefix: str) -> Names:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    names = Names()
    for key, value in resnet18().state_dict().items():
        if not key.startswith("fc.") and not key.endswith("num_batches_tracked"):
            names[prefix + key] = value
    return names


def mmdetection_fpn(names: Names, widths: list[int], outputs: int) -> None:
    for level, width in enumerate(widths):
        names.layer(f"neck.lateral_convs.{level}.conv", 32, width, 1, 1)
    for level in range(outputs):
        names.layer(f"neck.fpn_convs.{level}.conv", 32, 32, 3, 3)


def mmdetection_tower(names: Names, where: str, inputs: int) -> None:
    for index in range(2):
        names.add(f"bbox_head.{where}.{index}.conv.weight", 32, 32 if index else inputs, 3, 3)
        names.norm(f"bbox_head.{where}.{index}.gn", 32, ("weight", "bias"))


def solo_names(classes: int) -> Names:
    names = torchvision_resnet18("backbone.")
    mmdetection_fpn(names, [64, 128, 256, 512], 4)
    mmdetection_tower(names, "ins_convs", 34)
    mmdetection_tower(names, "cate_convs", 32)
    for level, grid in enumerate((40, 36, 24, 16, 12)):
        names.layer(f"bbox_head.solo_ins_list.{level}", grid**2, 32, 1, 1)
    names.layer("bbox_head.solo_cate", classes, 32, 3, 3)
    return names


def polarmask_names(classes: int) -> Names:
    names = torchvision_resnet18("backbone.")
    mmdetection_fpn(names, [128, 256, 512], 5)
    for tower in ("cls_convs", "reg_convs", "mask_convs"):
        mmdetection_tower(names, tower, 32)
    for kind, width in (("cls", classes), ("reg", 4), ("mask", 36), ("centerness", 1)):
        names.layer(f"bbox_head.polar_{kind}", width, 32, 3, 3)
    for level in range(5):
        names.add(f"bbox_head.scales_bbox.{level}.scale", 1)
        names.add(f"bbox_head.scales_mask.{level}.scale", 1)
    return names


def ms_rcnn_names(classes: int) -> Names:
    names = torchvision_resnet18("backbone.")
    mmdetection_fpn(names, [64, 128, 256, 512], 4)
    names.layer("rpn_head.rpn_conv", 32, 32, 3, 3)
    names.layer("rpn_head.rpn_cls", 3, 32, 1, 1)
    names.layer("rpn_head.rpn_reg", 12, 32, 1, 1)
    names.layer("roi_head.bbox_head.shared_fcs.0", 128, 32 * 49)
    names.layer("roi_head.bbox_head.shared_fcs.1", 128, 128)
    names.layer("roi_head.bbox_head.fc_cls", classes + 1, 128)
    names.layer("roi_head.bbox_head.fc_reg", 4 * classes, 128)
    for index in range(2):
        names.layer(f"roi_head.mask_head.convs.{index}.conv", 32, 32, 3, 3)
    names.add("roi_head.mask_head.upsample.weight", 32, 32, 2, 2)
    names.add("roi_head.mask_head.upsample.bias", 32)
    names.layer("roi_head.mask_head.conv_logits", classes, 32, 1, 1)
    for index in range(4):
        names.layer(f"roi_head.mask_iou_head.convs.{index}", 32, 32 if index else 33, 3, 3)
    names.layer("roi_head.mask_iou_head.fcs.0", 128, 32 * 49)
    names.layer("roi_head.mask_iou_head.fcs.1", 128, 128)
    names.layer("roi_head.mask_iou_head.fc_mask_iou", classes, 128)
    return names


def yolact_names(classes: int) -> Names:
    names = Names()
    for key, value in torchvision_resnet18("").items():
        stage = key.removeprefix("layer")
        names["backbone." + (key if stage == key else f"layers.{int(stage[0]) - 1}{stage[1:]}")] = value
    for index, width in enumerate((512, 256, 128)):
        names.layer(f"fpn.lat_layers.{index}", 32, width, 1, 1)
        names.layer(f"fpn.pred_layers.{index}", 32, 32, 3, 3)
    for index in range(2):
        names.layer(f"fpn.downsample_layers.{index}", 32, 32, 3, 3)
    for index in (0, 2, 4, 8):
        names.layer(f"proto_net.{index}", 32, 32, 3, 3)
    names.layer("proto_net.10", 32, 32, 1, 1)
    names.layer("prediction_layers.0.upfeature.0", 32, 32, 3, 3)
    for kind, width in (("bbox", 12), ("conf", 3 * (classes + 1)), ("mask", 96)):
        names.layer(f"prediction_layers.0.{kind}_layer", width, 32, 3, 3)
    names.layer("semantic_seg_conv", classes, 32, 1, 1)
    return names


PUBLISHED = {
    "centermask": centermask_names,
    "ms_rcnn": ms_rcnn_names,
    "polarmask": polarmask_names,
    "solo": solo_names,
    "yolact": yolact_names,
    "mask_rcnn": mask_rcnn_names,
    "blendmask": blendmask_names,
    "condinst": condinst_names,
    "meinst": meinst_names,
    "solov2": solov2_names,
}
CLASS_TENSORS = {
    "centermask": 6,
    "ms_rcnn": 8,
    "polarmask": 2,
    "solo": 2,
    "yolact": 4,
    "mask_rcnn": 6,
    "blendmask": 4,
    "condinst": 2,
    "meinst": 2,
    "solov2": 2,
}
UNUSED = {"mask_rcnn": 5, "condinst": 2}  # anchors; constants


def save_pickle(path: Path, content, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def arrays(names: Names) -> dict:
    return {key: value.numpy() for key, value in names.items()}


# --------------------------------------------------------------------------------------------------------- accounts


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("classes", [2, 80])
def test_every_tensor_of_a_published_detector_is_accounted_for(tmp_path, name, classes):
    names = PUBLISHED[name](classes)
    torch.save({"model": dict(names), "iteration": 269999}, tmp_path / "R_50_3x.pth")
    detector = build(name, SMALL, 2)
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    report = load_into(detector, name, tmp_path / "R_50_3x.pth")
    assert [entry.source for entry in report.entries] == list(names)
    assert len(report.of("skipped")) == UNUSED.get(name, 0)
    assert all(entry.note for entry in report.of("skipped"))
    assert not report.of("mismatched")
    replaced = report.of("replaced")
    assert len(replaced) == (CLASS_TENSORS[name] if classes == 80 else 0)
    after = detector.state_dict()
    for entry in replaced:
        assert torch.equal(after[entry.target], before[entry.target])  # fresh
        assert entry.target in report.missing
    for entry in report.of("used"):
        if not entry.note:
            assert torch.equal(after[entry.target], names[entry.source]), entry.source
    fresh = {key for key in report.missing if "fpn.p" not in key}  # torchvision's and detectron2's Mask R-CNN pool P6
    if name == "polarmask":  # its convolutions have no offsets in front of GroupNorm: ours stay 0
        fresh = {key for key in fresh if not re.search(r"tower\.\d\.bias", key)}
    assert fresh == {entry.target for entry in replaced}


def test_meinsts_deformable_layers_are_imported(tmp_path):
    names = Names()
    for key, value in meinst_names(2).items():
        last = re.match(r"(.*_tower\.3)\.(weight|bias)$", key)
        if last is None:
            names[key] = value
        elif last[2] == "weight":
            names[f"{last[1]}.conv.weight"] = value
            names.layer(f"{last[1]}.offset", 18, 32, 3, 3)
    torch.save({"model": dict(names)}, tmp_path / "MEInst_R_50_3x.pth")
    model = SMALL.model_copy(update={"settings": MEInst.Settings(deformable="v1")})
    detector = build("meinst", model, 2)
    report = load_into(detector, "meinst", tmp_path / "MEInst_R_50_3x.pth")
    assert len(report.of("used")) == len(names)
    assert report.share == 1
    with torch.no_grad():
        detector.eval().predict(detector(torch.rand(1, 3, 64, 64)), [(64, 64)])
    with pytest.raises(UserError, match="deformable"):
        load_into(build("meinst", SMALL, 2), "meinst", tmp_path / "MEInst_R_50_3x.pth")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("backbone.bottom_up.res3.0.conv2_offset.weight", "dcni3"),
        ("backbone.repeated_bifpn.0.weights_f4_4_5", "BiFPN"),
        ("backbone.top_block.p6.weight", "four levels"),
    ],
)
def test_parts_that_there_are_none_of_are_refused_by_name(tmp_path, name, told):
    names = blendmask_names(2)
    if "top_block" in name:
        names = {key: value for key, value in names.items() if ".top_block.p7." not in key}
    torch.save({"model": {**names, name: torch.zeros(1)}}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=told):
        load_into(build("blendmask", SMALL, 2), "blendmask", tmp_path / "x.pth", partial=True)


def test_a_training_of_detectron2_with_our_objective_is_imported(tmp_path):
    names = mask_rcnn_names(2)
    names.add("bi_grained.momentum.module.fpn_lateral2.weight", 32, 64, 1, 1)
    names.add("bi_grained.coarse.memory.queue", 10, 4, 32)
    torch.save({"model": dict(names)}, tmp_path / "x.pth")
    report = load_into(build("mask_rcnn", SMALL, 2), "mask_rcnn", tmp_path / "x.pth")
    notes = {entry.note for entry in report.of("skipped") if entry.source.startswith("bi_grained")}
    assert notes == {"of the objective, which only training needs"}


def test_a_part_is_imported_where_that_is_said(tmp_path):
    names = detectron2_resnet("resnet18", "backbone.bottom_up.")
    fcos_names(names, "proposal_generator.fcos_head", 2)
    torch.save({"model": dict(names)}, tmp_path / "fcos.pth")
    detector = build("condinst", SMALL, 2)
    tensors, report = transfer(detector, "condinst", read(tmp_path / "fcos.pth"))
    assert not report.complete
    write_safetensors(tmp_path / "part.safetensors", tensors, {"partial": "true"})
    assert load_into(detector, "condinst", tmp_path / "part.safetensors").partial
    write_safetensors(tmp_path / "silent.safetensors", tensors, {})
    with pytest.raises(UserError, match="% of a part of a condinst's detector"):
        load_into(detector, "condinst", tmp_path / "silent.safetensors")


def test_widths_that_differ_are_reported(tmp_path):
    torch.save({"model": dict(blendmask_names(2))}, tmp_path / "x.pth")
    wide = SMALL.model_copy(update={"head_channels": 64})
    with pytest.raises(UserError, match="% of a part of a blendmask's detector") as error:
        load_into(build("blendmask", wide, 2), "blendmask", tmp_path / "x.pth")
    assert "--partial" in error.value.remedy
    report = load_into(build("blendmask", wide, 2), "blendmask", tmp_path / "x.pth", partial=True)
    assert not report.complete
    mismatched = {entry.target: entry for entry in report.of("mismatched")}
    assert mismatched["head.bbox_pred.weight"].shape == (4, 32, 3, 3)
    assert mismatched["head.bbox_pred.weight"].expected == (4, 64, 3, 3)
    assert "head.bbox_pred.weight" in report.missing


def test_fcos_serves_every_detector_with_its_boxes(tmp_path):
    names = detectron2_resnet("resnet18", "backbone.bottom_up.")
    fcos_names(names, "proposal_generator.fcos_head", 2)
    torch.save({"model": dict(names)}, tmp_path / "FCOS_R_50_1x.pth")
    for detector in ("blendmask", "condinst", "meinst"):
        report = load_into(build(detector, SMALL, 2), detector, tmp_path / "FCOS_R_50_1x.pth", partial=True)
        assert len(report.of("used")) == len(names)
        assert report.missing
        assert not any(key.startswith(("extractor.", "head.")) for key in report.missing)


def test_the_background_comes_first_here(tmp_path):
    """detectron2 has the background's score last, and no box and no mask for it."""
    names = mask_rcnn_names(2)
    save_pickle(tmp_path / "model_final.pkl", {"model": arrays(names), "__author__": "Detectron2 Model Zoo"})
    detector = build("mask_rcnn", SMALL, 2)
    load_into(detector, "mask_rcnn", tmp_path / "model_final.pkl")
    predictor = detector.roi_heads.box_predictor
    theirs = names["roi_heads.box_predictor.cls_score.weight"]
    assert torch.equal(predictor.cls_score.weight[0], theirs[2])
    assert torch.equal(predictor.cls_score.weight[1:], theirs[:2])
    assert torch.equal(predictor.bbox_pred.weight[4:], names["roi_heads.box_predictor.bbox_pred.weight"])
    masks = detector.roi_heads.mask_predictor.mask_fcn_logits.weight
    assert torch.equal(masks[1:], names["roi_heads.mask_head.predictor.weight"])
    assert not masks[0].any()


# ------------------------------------------------------------------------------------------------------ conventions


def plain_resnet50(names: dict[str, Tensor], image: Tensor, in_1x1: bool) -> Tensor:
    """C5 of a ResNet-50 straight from a file's tensors under detectron2's names; MSRA's form strides in the 1x1."""

    def conv(x, name, stride=1, padding=0):
        x = functional.conv2d(x, names[f"{name}.weight"], None, stride, padding)
        weight, bias, mean, variance = (names[f"{name}.norm.{part}"] for part in BATCHNORM)
        return functional.batch_norm(x, mean, variance, weight, bias, eps=1e-5)

    x = functional.max_pool2d(conv(image, "stem.conv1", 2, 3).relu(), 3, 2, 1)
    for stage, count in enumerate(LAYERS["resnet50"], 2):
        for block in range(count):
            here, stride = f"res{stage}.{block}", 2 if stage > 2 and block == 0 else 1
            y = conv(x, f"{here}.conv1", stride if in_1x1 else 1).relu()
            y = conv(y, f"{here}.conv2", 1 if in_1x1 else stride, 1).relu()
            y = conv(y, f"{here}.conv3")
            x = (y + (conv(x, f"{here}.shortcut", stride) if block == 0 else x)).relu()
    return x


def caffe2(names: Names, fold: bool = False) -> dict[str, np.ndarray]:
    """Names of MSRA's pickle for those of detectron2; folded as in Detectron's older files."""
    words = {"weight": "s", "bias": "b"} if fold else {"weight": "gamma", "bias": "beta"}
    branches = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "shortcut": "branch1"}
    found = {}
    for key, value in names.items():
        parts = key.split(".")
        layer = "res_conv1" if parts[0] == "stem" else f"{parts[0]}_{parts[1]}_{branches[parts[2]]}"
        if "norm" in parts:
            if fold and parts[-1].startswith("running"):
                continue
            found[f"{layer}_bn_{words.get(parts[-1], parts[-1])}"] = value.numpy()
        else:
            found["conv1_w" if parts[0] == "stem" else f"{layer}_w"] = value.numpy()
    found["fc1000_w"] = np.zeros((1000, 8), np.float32)
    found["conv1_w_momentum"] = np.zeros(1, np.float32)
    return found


@pytest.mark.parametrize("form", ["caffe2", "folded", "torchvision"])
def test_an_imported_backbone_computes_what_the_file_means(tmp_path, form):
    """BGR or RGB, the range of pixels, the mean and deviation, BatchNorm, and where bottlenecks stride: all at once."""
    names = detectron2_resnet("resnet50", "")
    if form == "torchvision":  # detectron2's copy of torchvision's weights
        content = {"model": arrays(names), "__author__": "torchvision", "matching_heuristics": True}
    else:
        content = caffe2(names, fold=form == "folded")
        content = {"blobs": content} if form == "folded" else content
    if form == "folded":
        for key in names:
            if key.endswith(("running_mean", "running_var")):
                names[key] = torch.full_like(names[key], float(key.endswith("var")))
    file = save_pickle(tmp_path / "R-50.pkl", content)
    detector = build("blendmask", ModelParams(), 2).eval()
    load_into(detector, "blendmask", file)
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (1, 3, 64, 96), generator=generator).float()  # RGB
    if form == "torchvision":
        mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
        expected = plain_resnet50(names, (image - mean.view(3, 1, 1)) / std.view(3, 1, 1), in_1x1=False)
    else:
        mean = torch.tensor([103.53, 116.28, 123.675])
        expected = plain_resnet50(names, image.flip(1) - mean.view(3, 1, 1), in_1x1=True)
    with torch.no_grad():
        found = detector.extractor.body(detector.normalise(image / 255))[-1]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_old_detectron2_files_tell_their_pixels(tmp_path):
    names = detectron2_resnet("resnet18", "backbone.bottom_up.")
    names["pixel_mean"], names["pixel_std"] = torch.tensor([123.675, 116.28, 103.53]), torch.full((3,), 58.0)
    torch.save({"model": dict(names)}, tmp_path / "x.pth")
    checkpoint = read(tmp_path / "x.pth")
    assert checkpoint.channel_order == "rgb"
    assert checkpoint.pixel_mean == pytest.approx((0.485, 0.456, 0.406))
    assert checkpoint.pixel_std == pytest.approx((58 / 255,) * 3)
    assert read(tmp_path / "x.pth", "bgr").channel_order == "bgr"


def test_torchvision_names(tmp_path):
    from torchvision.models import resnet18

    torch.manual_seed(0)
    source = resnet18()
    torch.save(source.state_dict(), tmp_path / "resnet18.pth")
    detector = build("mask_rcnn", SMALL, 2)
    report = load_into(detector, "mask_rcnn", tmp_path / "resnet18.pth")
    assert report.channel_order == "rgb"
    assert torch.equal(detector.extractor.body.conv1.weight, source.conv1.weight)
    assert [entry.source for entry in report.of("skipped")] == ["fc.weight", "fc.bias"]


def test_torchvision_mask_rcnn(tmp_path):
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    torch.manual_seed(0)
    source = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3).state_dict()
    torch.save(source, tmp_path / "x.pth")
    detector = build("mask_rcnn", ModelParams(), 2)
    report = load_into(detector, "mask_rcnn", tmp_path / "x.pth")
    assert not report.of("skipped", "mismatched", "replaced")
    assert not report.missing
    assert torch.equal(detector.extractor.fpn.lateral[3].weight, source["backbone.fpn.inner_blocks.3.0.weight"])


def test_anchors_follow_the_import(tmp_path):
    """The published detectors have anchors of eight strides a side, also where our P3 gets what was learnt for it there."""
    detector = build("mask_rcnn", SMALL.model_copy(update={"settings": MaskRCNN.Settings(pyramid="p3-p7")}), 2)
    sides = detector.anchors[:, 1, 2] - detector.anchors[:, 1, 0]  # of the squares
    assert sides.tolist() == [32, 64, 128, 256, 512]
    torch.save({"model": dict(mask_rcnn_names(2))}, tmp_path / "x.pth")
    report = load_into(detector, "mask_rcnn", tmp_path / "x.pth", partial=True)  # P6 and P7 are ours
    sides = detector.anchors[:, 1, 2] - detector.anchors[:, 1, 0]
    assert sides.tolist() == [64, 128, 256, 512, 1024]
    assert "anchors" not in report.missing
    assert len(report.of("skipped")) == 5 + 4  # anchors; P2 is not in this pyramid
    assert all(entry.note for entry in report.of("skipped"))


# ----------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "expected a dictionary"),
        ({"model": {}}, "no arrays"),
        ({"lr": 0.1}, "no arrays"),
        ({"encoder.weight": np.zeros(3, np.float32)}, "no known family"),
    ],
)
def test_files_that_are_no_detector(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read(save_pickle(tmp_path / "x.pkl", content))


def test_a_checkpoint_of_which_nothing_fits(tmp_path):
    torch.save({"model": {"ins_head.cate_pred.weight": torch.zeros(2, 8, 3, 3)}}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="none of its 1 tensors"):
        load_into(build("blendmask", SMALL, 2), "blendmask", tmp_path / "x.pth")


# --------------------------------------------------------------------------------------------------------- commands


def run(*words: object):
    return CliRunner().invoke(app(), [str(word) for word in words])


def with_weights(file):
    """The run `blendmask` of the tests' sizes, its initial weights from `file`."""
    run = load(Path(__file__).parents[2] / "params.yaml").resolve("blendmask")
    model = SMALL.model_copy(update={"weights": str(file)})
    return run.model_copy(update={"params": run.params.model_copy(update={"model": model})})


def test_import_then_train_from_it(tmp_path):
    """The command's file goes into `weights:` of a model and sets what the first file set."""
    names = detectron2_resnet("resnet18", "")
    file = save_pickle(tmp_path / "R-18.pkl", {"model": arrays(names), "__author__": "Detectron2 Model Zoo"})
    result = run("weights", "import", file, "--backbone", "resnet18", "--detector", "blendmask")
    assert result.exit_code == 0, result.output
    assert "0 mismatched" in result.output
    output = tmp_path / "R-18.blendmask.safetensors"
    with safe_open(output, framework="pt") as opened:
        assert opened.metadata()["detector"] == "blendmask"
    assert '"channel_order": "bgr"' in Path(f"{output}.report.json").read_text()

    torch.manual_seed(3)
    direct = build("blendmask", SMALL, 2)
    load_into(direct, "blendmask", file)
    torch.manual_seed(3)
    through = Comics(with_weights(output)).detector
    assert direct.state_dict().keys() == through.state_dict().keys()
    for key, value in direct.state_dict().items():
        assert torch.equal(value, through.state_dict()[key]), key
    assert bool(through.extractor.body.stride_in_1x1)


def test_import_lists_what_was_not_used(tmp_path):
    torch.save({"model": dict(mask_rcnn_names(80))}, tmp_path / "x.pth")
    result = run(
        "weights", "import", tmp_path / "x.pth", "--backbone", "resnet18", "--detector", "mask_rcnn", "--partial"
    )
    assert result.exit_code == 0, result.output
    assert "skipped    proposal_generator.anchor_generator.cell_anchors.0" in result.output
    assert "mismatched backbone.fpn_lateral3.weight" in result.output  # the file is narrower than the default


def test_export_round_trip(tmp_path):
    detector = build("blendmask", SMALL, 2)
    state = {f"detector.{key}": value for key, value in detector.state_dict().items()}
    state["contrast.queue"] = torch.zeros(2, 3)
    torch.save({"digest": "0123", "description": {"detector": "blendmask"}, "state_dict": state}, tmp_path / "model.pt")
    result = run("weights", "export", tmp_path / "model.pt")
    assert result.exit_code == 0, result.output
    with safe_open(tmp_path / "model.safetensors", framework="pt") as opened:
        assert opened.metadata()["digest"] == "0123"
        assert set(opened.keys()) == set(state)
    count = export_model(tmp_path / "model.pt", tmp_path / "lean.safetensors", detector_only=True)
    assert count == len(state) - 1
    torch.manual_seed(9)
    other = build("blendmask", SMALL, 2)
    report = load_into(other, "blendmask", tmp_path / "lean.safetensors")
    assert not report.missing
    for key, value in detector.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])


def test_only_a_run_is_exported(tmp_path):
    torch.save({"model": {}}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="not a run's model"):
        export_model(tmp_path / "x.pt", tmp_path / "y.safetensors")


def test_nothing_is_written_into_the_detector_by_a_dry_transfer(tmp_path):
    torch.save({"model": dict(blendmask_names(2))}, tmp_path / "x.pth")
    detector = build("blendmask", SMALL, 2)
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    taken, _ = transfer(detector, "blendmask", read(tmp_path / "x.pth"))
    assert taken
    assert all(torch.equal(value, before[key]) for key, value in detector.state_dict().items())


def test_a_file_with_a_number_that_is_none_is_refused(tmp_path):
    state = build("blendmask", SMALL, 2).state_dict()
    state["head.cls_logits.weight"][0, 0, 0, 0] = float("nan")
    torch.save({"model": state}, tmp_path / "nan.pth")
    with pytest.raises(UserError, match=r"nan\.pth: 1 of \d+ tensors are not finite \(head.cls_logits.weight\)"):
        read(tmp_path / "nan.pth")
    result = run("weights", "import", tmp_path / "nan.pth", "--backbone", "resnet18")
    assert isinstance(result.exception, UserError)
    assert not list(tmp_path.glob("*.safetensors"))
