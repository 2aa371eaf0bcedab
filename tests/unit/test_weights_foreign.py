"""Weights under other projects' names: there and back, bit for bit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from test_weights_transfer import PUBLISHED
from typer.testing import CliRunner

from comics.cli import app
from comics.detectors import build
from comics.detectors.meinst import MEInst
from comics.errors import UserError
from comics.params import ModelParams, load
from comics.weights.foreign import DETECTORS, translate, write_foreign
from comics.weights.names import rename
from comics.weights.transfer import load_into

SMALL = ModelParams(backbone="resnet18", fpn_channels=32, head_channels=32, head_convs=2, mask_channels=32)
PAIRS = [(form, name) for form, detectors in DETECTORS.items() for name in detectors]
UNREAD = re.compile(r"roi_heads\.(box_predictor\.bbox_pred|mask_predictor\.mask_fcn_logits)\.|mask_iou_head\.iou\.")


def shaken(name, seed=0, params=SMALL):
    """A detector every number of which, statistics and normalisation too, is other than a fresh one's."""
    torch.manual_seed(seed)
    detector = build(name, params, 2)
    for key, tensor in detector.state_dict().items():
        if tensor.is_floating_point() and key != "anchors":
            tensor.copy_(torch.rand_like(tensor))
    detector.pixel_mean.copy_(torch.tensor([0.7, 0.5, 0.3]).view(1, 3, 1, 1) + torch.rand(1, 3, 1, 1) / 10)
    return detector


@pytest.mark.parametrize(
    ("form", "name", "early"),
    [*((*pair, False) for pair in PAIRS), ("detectron2", "mask_rcnn", True), ("mmdetection", "mask_rcnn", True)],
)
def test_there_and_back_bit_for_bit(tmp_path, form, name, early):
    ours = shaken(name, params=SMALL.model_copy(update={"backbone": "resnet50"}) if early else SMALL)
    if early:  # as weights of Detectron have it
        ours.extractor.body.stride_in_1x1.fill_(True)
    write_foreign(tmp_path / "theirs.pth", translate(ours, name, form))
    back = shaken(name, 1, SMALL.model_copy(update={"backbone": "resnet50"}) if early else SMALL)
    report = load_into(back, name, tmp_path / "theirs.pth")
    assert {entry.source for entry in report.entries if entry.status != "used"} == {"pixel_mean", "pixel_std"}
    after = back.state_dict()
    for key, tensor in ours.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        if UNREAD.match(key) and name != "centermask":  # the background has no box and no mask there
            rows = 4 if "bbox" in key else 1
            assert not after[key][:rows].any()
            assert torch.equal(after[key][rows:], tensor[rows:]), key
        else:
            assert torch.equal(after[key], tensor), key


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_deformable_layers_there_and_back(tmp_path, kind):
    params = SMALL.model_copy(update={"settings": MEInst.Settings(deformable=kind)})
    ours = shaken("meinst", params=params)
    theirs = translate(ours, "meinst", "adelaidet")
    head = "proposal_generator.MEInst_head"
    assert {f"{head}.mask_tower.3.conv.weight", f"{head}.cls_tower.3.offset.bias", f"{head}.cls_tower.0.weight"} <= set(
        theirs.tensors
    )
    write_foreign(tmp_path / "theirs.pth", theirs)
    back = shaken("meinst", 1, params)
    load_into(back, "meinst", tmp_path / "theirs.pth")
    after = back.state_dict()
    for key, tensor in ours.state_dict().items():
        assert key.endswith("num_batches_tracked") or torch.equal(after[key], tensor), key


@pytest.mark.parametrize("name", ["ms_rcnn", "polarmask", "centermask"])
def test_exported_names_are_those_of_their_files(name):
    """As the tests of the import write them down, but for offsets that PolarMask's files do not have."""
    form = "detectron2" if name == "centermask" else "mmdetection"
    ours = translate(shaken(name), name, form)
    known = PUBLISHED[name](2)
    found = {key: tuple(tensor.shape) for key, tensor in ours.tensors.items() if not key.startswith("pixel_")}
    extra = {key for key in found if key not in known}
    assert all(name == "polarmask" and key.endswith(".conv.bias") for key in extra)
    assert ("bias=True" in " ".join(ours.config)) == bool(extra)
    assert {key: shape for key, shape in found.items() if key in known} == {
        key: tuple(tensor.shape) for key, tensor in known.items()
    }


def test_solo_is_mmdetections_own():
    """Written under mmdetection's names; those of its authors' files mean the same."""
    theirs = translate(shaken("solo"), "solo", "mmdetection").tensors
    assert {"mask_head.mask_convs.1.gn.bias", "mask_head.conv_mask_list.4.bias", "mask_head.conv_cls.weight"} <= set(
        theirs
    )
    for own, authors in (
        ("mask_head.mask_convs.0.conv.weight", "bbox_head.ins_convs.0.conv.weight"),
        ("mask_head.cls_convs.1.gn.bias", "bbox_head.cate_convs.1.gn.bias"),
        ("mask_head.conv_mask_list.2.bias", "bbox_head.solo_ins_list.2.bias"),
        ("mask_head.conv_cls.weight", "bbox_head.solo_cate.weight"),
    ):
        assert rename("solo", "mmdetection", own) == rename("solo", "mmdetection", authors) != ("", "")


def test_names_of_the_published_projects():
    """A few that their files are known by, background last, and images as they have them."""
    ours = shaken("mask_rcnn")
    theirs = translate(ours, "mask_rcnn", "detectron2")
    classes = ours.state_dict()["roi_heads.box_predictor.cls_score.weight"]
    assert torch.equal(theirs.tensors["roi_heads.box_predictor.cls_score.weight"], classes[[1, 2, 0]])
    assert theirs.tensors["roi_heads.box_predictor.bbox_pred.weight"].shape[0] == 8
    assert theirs.tensors["roi_heads.mask_head.predictor.weight"].shape[0] == 2
    assert "backbone.fpn_lateral2.weight" in theirs.tensors
    assert theirs.config["INPUT.FORMAT"] == "RGB"
    assert theirs.content["__author__"] == "torchvision"
    modern = translate(ours, "mask_rcnn", "mmdetection")
    assert torch.equal(modern.tensors["roi_head.bbox_head.fc_cls.weight"], classes[[1, 2, 0]])
    assert {"neck.fpn_convs.3.conv.bias", "rpn_head.rpn_cls.weight"} <= set(modern.content["state_dict"])
    blend = translate(shaken("blendmask"), "blendmask", "adelaidet").tensors
    assert {"top_layer.weight", "basis_module.tower.4.0.weight", "basis_module.seg_head.6.bias"} <= set(blend)
    assert "backbone.fpn_lateral3.weight" in blend


def test_first_convolution_of_bgr_weights_is_turned_back():
    ours = shaken("mask_rcnn")
    ours.extractor.body.stride_in_1x1.fill_(True)
    theirs = translate(ours, "mask_rcnn", "detectron2")
    first = ours.extractor.body.conv1.weight
    assert torch.equal(theirs.tensors["backbone.bottom_up.stem.conv1.weight"], first.flip(1))
    assert theirs.config["MODEL.PIXEL_MEAN"] == sorted(theirs.config["MODEL.PIXEL_MEAN"])
    assert theirs.config["MODEL.RESNETS.STRIDE_IN_1X1"]


def test_what_a_project_does_not_have_is_refused():
    with pytest.raises(UserError, match="names that it has for a blendmask"):
        translate(build("blendmask", SMALL, 2), "blendmask", "detectron2")
    detector = build("mask_rcnn", SMALL, 2)
    detector.anchors += 1
    with pytest.raises(UserError, match="anchors"):
        translate(detector, "mask_rcnn", "detectron2")
    detector.extractor.body.stray = torch.nn.Linear(1, 1)
    with pytest.raises(UserError, match="no counterpart"):
        translate(detector, "mask_rcnn", "detectron2")


def test_command(tmp_path):
    from comics.model import Comics

    run = load(Path(__file__).parents[2] / "params.yaml").resolve("comics")
    params = run.params.model_copy(update={"model": SMALL, "detector": "blendmask"})
    run = run.model_copy(update={"params": params})
    model = Comics(run)
    torch.save({"state_dict": model.state_dict(), "description": run.description}, tmp_path / "model.pt")
    result = CliRunner().invoke(app(), ["weights", "export", str(tmp_path / "model.pt"), "--format", "adelaidet"])
    assert result.exit_code == 0, result.output
    assert "INPUT.FORMAT" in result.output
    assert "tensors of the attention" in result.output
    back = build("blendmask", SMALL, 2)
    load_into(back, "blendmask", tmp_path / "model.adelaidet.pth")
    assert torch.equal(back.attention.weight, model.detector.attention.weight)
