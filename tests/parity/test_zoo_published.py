"""SOLO, PolarMask, YOLACT, YOLACT++, CenterMask's and MS R-CNN's mask heads and RetinaMask's loss beside their authors' code.

data/*_published.json holds what that code gave for weights and maps that are made here by a formula; it does not install with
today's PyTorch, but its heads run alone. The weights enter through the import of its names, so this also checks the mapping.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from comics.detectors import Target, build, detector_class
from comics.detectors.centermask import levels_by_share
from comics.detectors.retinamask import SelfAdjustingSmoothL1
from comics.detectors.roi import MaskIoUHead, class_masks, mask_iou_loss, mask_iou_targets, mask_loss
from comics.params import InferenceParams, ModelParams
from comics.weights.checkpoint import Checkpoint
from comics.weights.names import rename
from comics.weights.transfer import transfer


def published(name: str) -> Any:
    return json.loads((Path(__file__).parent / "data" / f"{name}_published.json").read_text())


def wave(shape: list[int], phase: float, scale: float) -> Tensor:
    index = torch.arange(int(torch.tensor(shape).prod()), dtype=torch.float64)
    return (scale * torch.sin(1.7 * index + phase + (index * index) % 7.0)).float().view(shape)


def weights(parameters: list[Any]) -> dict[str, Tensor]:
    found = {}
    for index, (name, shape) in enumerate(parameters):
        if len(shape) > 1:
            found[name] = wave(shape, float(index), (3 / int(torch.tensor(shape[1:]).prod())) ** 0.5)
        elif name.endswith(("weight", "scale")):
            found[name] = 1 + wave(shape, float(index), 0.2)
        else:
            found[name] = wave(shape, float(index), 0.1)
    return found


def pyramid(finest: int, height: int, width: int, channels: int) -> list[Tensor]:
    """Smooth maps of two images, five levels from stride 2^finest on."""
    channel = torch.arange(channels, dtype=torch.float64).view(-1, 1, 1)
    maps = []
    for level in range(finest, finest + 5):
        rows, columns = height // 2**level, width // 2**level
        y = ((torch.arange(rows, dtype=torch.float64) + 0.5) / rows).view(1, -1, 1)
        x = ((torch.arange(columns, dtype=torch.float64) + 0.5) / columns).view(1, 1, -1)
        waves = (1 + channel % 5) * 3 * y + (1 + channel % 7) * 2 * x + channel
        maps.append(torch.stack([torch.sin(waves), torch.sin(waves + 1.0)]).float())
    return maps


def ellipses(boxes: list[list[int]], height: int, width: int) -> Target:
    corners = torch.tensor(boxes, dtype=torch.float32)
    left, top, right, bottom = corners[:, :, None, None].unbind(1)
    y, x = torch.arange(height).view(-1, 1) + 0.5, torch.arange(width).view(1, -1) + 0.5
    inside = ((x - (left + right) / 2) / (right - left)) ** 2 + ((y - (top + bottom) / 2) / (bottom - top)) ** 2 <= 0.25
    return Target(boxes=corners, labels=torch.arange(len(boxes)) % 2, masks=inside)


def with_weights(name: str, family: str, tensors: dict[str, Tensor], channels: int, settings: dict[str, Any]):
    """A detector with the published weights, every one of which it must have taken."""
    model = ModelParams(
        backbone="resnet18", fpn_channels=channels, head_channels=channels, head_convs=2, mask_channels=channels
    )
    kind = detector_class(name)
    model = model.model_copy(update={"settings": kind.Settings(**settings)})
    detector = build(name, model, 2, InferenceParams(**kind.Settings.published_inference))
    taken, report = transfer(detector, name, Checkpoint("published", family, tensors))
    assert len(report.of("used")) == len(tensors)
    detector.load_state_dict(taken, strict=False)
    return detector.eval()


class TestSOLO:
    """Vanilla, with greedy suppression in place of the matrix NMS of the authors' later code."""

    height, width = 256, 320
    boxes = (
        [[20, 30, 120, 150], [100, 60, 180, 200], [200, 10, 226, 40], [150, 150, 310, 250]],
        [[40, 40, 300, 220]],
    )

    @pytest.fixture(scope="class")
    def theirs(self):
        return published("solo")

    @pytest.fixture(scope="class")
    def detector(self, theirs):
        tensors = weights(theirs["parameters"])
        tensors["bbox_head.solo_cate.bias"] = torch.full((2,), -2.0)
        return with_weights("solo", "mmdetection", tensors, 32, {"grids": theirs["grids"]})

    def test_losses(self, detector, theirs):
        with torch.no_grad():
            targets = [ellipses(boxes, self.height, self.width) for boxes in self.boxes]
            outputs = detector.forward_heads(pyramid(2, self.height, self.width, 32))
            found = detector.losses(outputs, targets, [(self.height, self.width)] * 2)
        assert float(found["mask"]) == pytest.approx(theirs["losses"]["loss_ins"], abs=1e-4)
        assert float(found["category"]) == pytest.approx(theirs["losses"]["loss_cate"], abs=1e-4)

    def test_predictions(self, detector, theirs):
        with torch.no_grad():
            outputs = detector.forward_heads(pyramid(2, self.height, self.width, 32))
            found = detector.predict(outputs, [(self.height, self.width), (200, 300)])
        for ours, image in zip(found, theirs["images"], strict=True):
            assert ours["scores"].tolist() == pytest.approx(image["scores"], abs=1e-4)
            assert ours["labels"].tolist() == image["labels"]
            assert ours["masks"].flatten(1).sum(dim=1).tolist() == pytest.approx(image["areas"], rel=1e-3, abs=8)


class TestPolarMask:
    """The whole head: its three towers, the scales of its levels (numbers without a dimension in its files), all losses on our
    positives and rays, suppression, and the outlines."""

    height, width = 256, 384

    @pytest.fixture(scope="class")
    def theirs(self):
        return published("polarmask")

    @pytest.fixture(scope="class")
    def detector(self, theirs):
        tensors = weights(theirs["parameters"])
        tensors["bbox_head.polar_cls.bias"] = torch.full((2,), -2.0)
        for kind in ("reg", "mask"):
            tensors[f"bbox_head.polar_{kind}.bias"] = torch.full_like(tensors[f"bbox_head.polar_{kind}.bias"], 3.0)
        return with_weights("polarmask", "mmdetection", tensors, 64, {})

    @pytest.fixture(scope="class")
    def outputs(self, detector):
        with torch.no_grad():
            return detector.forward_heads(pyramid(3, self.height, self.width, 64))

    def test_losses(self, detector, outputs, theirs):
        targets = [ellipses(boxes, self.height, self.width) for boxes in TestSOLO.boxes]
        with torch.no_grad():
            found = detector.losses(outputs, targets, [(self.height, self.width)] * 2)
        names = {"class": "loss_cls", "box": "loss_bbox", "centerness": "loss_centerness", "mask": "loss_mask"}
        for ours, name in names.items():
            assert float(found[ours]) == pytest.approx(theirs["losses"][name], abs=1e-4), ours

    def test_predictions(self, detector, outputs, theirs):
        found = detector.predict(outputs, [(self.height, self.width)] * 2)
        last = torch.tensor([self.width, self.height]) - 1  # their outlines end there
        for ours, image in zip(found, theirs["images"], strict=True):
            assert ours["scores"].tolist() == pytest.approx(image["scores"], abs=1e-4)
            assert ours["labels"].tolist() == image["labels"]
            torch.testing.assert_close(ours["boxes"], torch.tensor(image["boxes"]), atol=0.01, rtol=0)
            outlines = ours["soft"].points[:2, None] + ours["soft"].ends[:2]
            ends = torch.minimum(outlines.clamp(min=0), last).transpose(1, 2).flatten(1)
            torch.testing.assert_close(ends, torch.tensor(image["ends"]), atol=0.02, rtol=0)


@pytest.mark.parametrize("name", ["yolact", "yolact_plus"])
class TestYOLACT:
    """Heads, loss and Fast NMS, and YOLACT++'s mask re-scoring, on anchors that are not square."""

    side = 256
    boxes = (
        [[20, 30, 120, 150], [100, 60, 180, 200], [200, 10, 226, 40], [150, 150, 250, 250]],
        [[40, 40, 230, 220]],
    )

    @pytest.fixture
    def theirs(self, name):
        return published("yolact")[name]

    @pytest.fixture
    def detector(self, name, theirs):
        tensors = weights(theirs["parameters"])
        for key in tensors:
            if key.endswith("conf_layer.bias"):
                tensors[key].view(-1, 3)[:, 0] += 1.5
            if key == "maskiou_net.maskiou_net.10.bias":
                tensors[key] += 0.5
        if name == "yolact":
            return with_weights(name, "yolact", tensors, 16, {"prototypes": 8})
        # its files have the names of YOLACT's; no import reads its scoring network's
        layers = {str(2 * index): f"convs.{index}" for index in range(5)} | {"10": "iou"}
        named = {}
        for key, tensor in tensors.items():
            _, *scoring = key.split("maskiou_net.maskiou_net.")
            layer, kind = (scoring or ["."])[0].split(".")
            named[f"scorer.{layers[layer]}.{kind}" if scoring else rename("yolact", "yolact", key)[0]] = tensor
        model = ModelParams(backbone="resnet18", fpn_channels=16, head_channels=16)
        settings = detector_class(name).Settings(prototypes=8, deformable_interval=0)
        detector = build(name, model.model_copy(update={"settings": settings}), 2)
        assert not detector.load_state_dict(named, strict=False).unexpected_keys
        return detector.eval()

    def test_losses(self, detector, name, theirs):
        with torch.no_grad():
            targets = [ellipses(boxes, self.side, self.side) for boxes in self.boxes]
            outputs = detector.forward_heads(pyramid(3, self.side, self.side, 16))
            found = detector.losses(outputs, targets, [(self.side, self.side)] * 2)
        names = {"box": "B", "mask": "M", "class": "C", "semantic": "S"} | (
            {"mask_iou": "I"} if name == "yolact_plus" else {}
        )
        for ours, key in names.items():
            assert float(found[ours]) == pytest.approx(theirs["losses"][key], rel=1e-4), ours

    def test_predictions(self, detector, name, theirs):
        with torch.no_grad():
            outputs = detector.forward_heads(pyramid(3, self.side, self.side, 16))
            found = detector.predict(outputs, [(self.side, self.side)] * 2)
        for ours, image in zip(found, theirs["images"], strict=True):
            assert ours["scores"].tolist() == pytest.approx(image["scores"], abs=1e-4)
            assert ours["labels"].tolist() == image["labels"]
            boxes = torch.tensor(image["boxes"])
            torch.testing.assert_close(ours["boxes"][: len(boxes)], boxes, rtol=0, atol=0.01)
            assert ours["masks"].flatten(1).sum(dim=1).tolist() == pytest.approx(image["areas"], rel=1e-3, abs=4)
            if name == "yolact_plus":
                assert ours["mask_scores"].tolist() == pytest.approx(image["mask_scores"], abs=1e-4)


class TestMaskHeads:
    """CenterMask's spatial attention and mask head, the MaskIoU head that MS R-CNN has too, on pooled features."""

    @pytest.fixture(scope="class")
    def theirs(self):
        return published("centermask")

    @pytest.fixture(scope="class")
    def detector(self, theirs):
        tensors = weights(theirs["parameters"])
        model = ModelParams(backbone="resnet18", fpn_channels=16, head_channels=16, head_convs=2)
        detector = build("centermask", model, 2)
        detector.mask_iou_head = MaskIoUHead(16, 16, 1024, 2)  # as wide as it is published
        taken, report = transfer(detector, "centermask", Checkpoint("published", "detectron2", tensors))
        assert len(report.of("used")) == len(tensors)
        detector.load_state_dict(taken, strict=False)
        return detector.eval()

    def test_masks_ious_and_losses(self, detector, theirs):
        pooled = wave([6, 16, 14, 14], 0.5, 1.0)
        labels = torch.tensor([0, 1, 1, 0, 1, 0])
        wanted = (wave([6, 28, 28], 0.25, 1.0) > 0).float()
        wanted[5] = 0
        with torch.no_grad():
            every = detector.mask_predictor(detector._attended(pooled))
            logits = class_masks(every, labels)
            ious = detector.mask_iou_head(pooled, logits.sigmoid())
        assert every.sum(dim=(2, 3)).flatten().tolist() == pytest.approx(theirs["logits"], abs=1e-3)  # of 784 cells
        torch.testing.assert_close(ious, torch.tensor(theirs["ious"]), rtol=0, atol=1e-4)
        shares = torch.tensor([1.0, 0.8, 0.5, 0.25, 0.9, 0.0])
        targets = mask_iou_targets(logits.sigmoid(), wanted, shares)
        assert targets.tolist() == pytest.approx(theirs["iou_targets"], abs=1e-4)
        assert float(mask_loss(logits, wanted)) == pytest.approx(theirs["losses"]["mask"], abs=1e-4)
        found = mask_iou_loss(class_masks(ious, labels), targets)
        assert float(found) == pytest.approx(theirs["losses"]["mask_iou"], abs=1e-4)

    def test_levels(self, theirs):
        corners = [[0, 0, 30, 40], [10, 10, 110, 150], [0, 0, 200, 150], [5, 5, 255, 195], [0, 0, 310, 195]]
        found = levels_by_share(torch.tensor(corners, dtype=torch.float32), torch.full((5,), 200.0 * 320))
        assert found.tolist() == theirs["levels"]


def test_self_adjusting_smooth_l1():
    """RetinaMask's, over four steps: its statistics move first."""
    theirs = published("retinamask")
    loss = SelfAdjustingSmoothL1(0.11).train()
    found = [float(loss(wave([12, 4], step, 0.2), wave([12, 4], step + 0.5, 0.2)).sum()) for step in range(4)]
    assert found == pytest.approx(theirs["losses"], rel=1e-4)
    assert loss.mean.tolist() == pytest.approx(theirs["mean"], abs=1e-5)
    assert loss.variance.tolist() == pytest.approx(theirs["variance"], abs=1e-5)
