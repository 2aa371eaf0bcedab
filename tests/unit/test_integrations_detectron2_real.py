"""The same against detectron2 itself, where it is installed (docs/interplay.md has what that gave)."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from detector_scenes import random_boxes, scenes
from test_weights_foreign import shaken

from comics.integrations.detectron2 import Detectron2Detector
from comics.params import InferenceParams, ModelParams
from comics.weights.foreign import translate, write_foreign

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.skipif(importlib.util.find_spec("detectron2") is None, reason="detectron2 is not installed"),
]

ZOO = {
    "mask_rcnn": "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml",
    "retinanet": "COCO-Detection/retinanet_R_50_FPN_3x.yaml",
}


def detector_of(name, *options):
    from detectron2 import model_zoo

    file = model_zoo.get_config_file(ZOO[name])
    settings = Detectron2Detector.Settings(config=file, weights="none", options=list(options))
    return Detectron2Detector.from_params(ModelParams(), settings, 2, InferenceParams(score_threshold=0.0))


@pytest.mark.parametrize("name", ZOO)
def test_contract(name):
    torch.manual_seed(0)
    detector = detector_of(name)
    images, targets, sizes = scenes([random_boxes(n, 96, 128, n) for n in (2, 0)], 96, 128)
    losses = detector.losses(detector(images), targets, sizes)
    assert all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    outputs = detector(images)
    levels = detector.proposals(outputs)
    for features, level, stride in zip(outputs.features, levels, detector.strides, strict=True):
        cells = features.shape[-2] * features.shape[-1]
        assert level.locations.max() == cells - 1
        assert level.boxes.shape[1] % cells == 0
        assert features.shape[-1] == -(-128 // stride)
    crops = detector.roi_mask_features(outputs, [target["boxes"] for target in targets], 14)
    assert crops.shape == (2, detector.mask_channels, 14, 14)
    for found, size in zip(detector.eval().predict(detector(images), sizes), sizes, strict=True):
        assert found["masks"].shape[1:] == size
        assert (found["scores"].diff() <= 0).all()


def test_exported_weights_are_all_its_own(tmp_path):
    from detectron2.checkpoint import DetectionCheckpointer

    ours = shaken("mask_rcnn", params=ModelParams(backbone="resnet50", head_channels=256, head_convs=4))
    write_foreign(tmp_path / "ours.pth", translate(ours, "mask_rcnn", "detectron2"))
    theirs = detector_of("mask_rcnn", "MODEL.RESNETS.STRIDE_IN_1X1", "False")
    theirs.model.backbone = theirs.extractor.backbone
    found = DetectionCheckpointer(theirs.model).load(str(tmp_path / "ours.pth"))
    assert not found.get("unexpected_keys", [])
    assert not [key for key in found.get("missing_keys", []) if "anchor" not in key and "pixel" not in key]
