"""SOLOv2 beside its published implementation (AdelaiDet's), which does not install with today's PyTorch.

data/solov2_published.json holds what that implementation gave for weights and maps that are made here by a formula. The
weights enter through the import of its names, so this also checks the name mapping.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from comics.detectors import Target, build
from comics.params import ModelParams
from comics.weights.checkpoint import recognise
from comics.weights.transfer import transfer

PUBLISHED = json.loads((Path(__file__).parent / "data" / "solov2_published.json").read_text())
HEIGHT, WIDTH = 256, 320
SIZES = [(HEIGHT, WIDTH), (200, 300)]
BOXES = [
    [[20, 30, 120, 150], [100, 60, 180, 200], [200, 10, 226, 40], [150, 150, 310, 250]],
    [[40, 40, 300, 220]],
]


def wave(shape: list[int], phase: float, scale: float) -> Tensor:
    index = torch.arange(int(torch.tensor(shape).prod()), dtype=torch.float64)
    return (scale * torch.sin(1.7 * index + phase + (index * index) % 7.0)).float().view(shape)


def weights() -> dict[str, Tensor]:
    found = {}
    for index, (name, shape) in enumerate(PUBLISHED["parameters"]):
        if len(shape) > 1:
            fan = int(torch.tensor(shape[1:]).prod())
            found[name] = wave(shape, float(index), (3 / fan) ** 0.5)
        elif name.endswith("weight"):
            found[name] = 1 + wave(shape, float(index), 0.2)
        else:
            found[name] = wave(shape, float(index), 0.1)
    found["ins_head.cate_pred.bias"] = torch.full((2,), -2.0)
    return found


def pyramid() -> list[Tensor]:
    """Smooth maps P2 to P6 of two images."""
    maps = []
    channel = torch.arange(32, dtype=torch.float64).view(-1, 1, 1)
    for level in range(5):
        height, width = 64 // 2**level, 80 // 2**level
        y = ((torch.arange(height, dtype=torch.float64) + 0.5) / height).view(1, -1, 1)
        x = ((torch.arange(width, dtype=torch.float64) + 0.5) / width).view(1, 1, -1)
        waves = (1 + channel % 5) * 3 * y + (1 + channel % 7) * 2 * x + channel
        maps.append(torch.stack([torch.sin(waves), torch.sin(waves + 1.0)]).float())
    return maps


def ellipses(boxes: list[list[int]]) -> Target:
    corners = torch.tensor(boxes, dtype=torch.float32)
    left, top, right, bottom = corners[:, :, None, None].unbind(1)
    y, x = torch.arange(HEIGHT).view(-1, 1) + 0.5, torch.arange(WIDTH).view(1, -1) + 0.5
    inside = ((x - (left + right) / 2) / (right - left)) ** 2 + ((y - (top + bottom) / 2) / (bottom - top)) ** 2 <= 0.25
    return Target(boxes=corners, labels=torch.arange(len(boxes)) % 2, masks=inside)


@pytest.fixture(scope="module")
def detector():
    model = ModelParams(backbone="resnet18", fpn_channels=32, head_channels=32, head_convs=2, mask_channels=32)
    detector = build("solov2", model, 2)
    taken, report = transfer(detector, "solov2", recognise({"model": weights()}, "published"))
    assert len(report.of("used")) == len(PUBLISHED["parameters"])
    detector.load_state_dict(taken, strict=False)
    return detector.eval()


def test_losses(detector):
    with torch.no_grad():
        found = detector.losses(
            detector.forward_heads(pyramid()), [ellipses(boxes) for boxes in BOXES], [(HEIGHT, WIDTH)] * 2
        )
    assert float(found["mask"]) == pytest.approx(PUBLISHED["losses"]["loss_ins"], abs=1e-4)
    assert float(found["category"]) == pytest.approx(PUBLISHED["losses"]["loss_cate"], abs=1e-4)


def test_predictions(detector):
    with torch.no_grad():
        found = detector.predict(detector.forward_heads(pyramid()), SIZES)
    for ours, theirs in zip(found, PUBLISHED["images"], strict=True):
        assert ours["scores"].tolist() == pytest.approx(theirs["scores"], abs=1e-4)
        assert ours["labels"].tolist() == theirs["labels"]
        areas = ours["masks"].flatten(1).sum(dim=1).tolist()
        assert areas == pytest.approx(theirs["areas"], rel=1e-3, abs=8)
