"""BlendMask, CondInst and MEInst beside AdelaiDet's, which does not install with today's PyTorch.

data/fcos_published.json holds what its FCOS, bottom module, blender, mask branch, dynamic head and mask encoding gave for
weights and maps that are made here by a formula. The weights enter through the import of its names, so this also checks
the mapping. In MEInst the random probabilities of mask cells were all 0.025.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from comics.detectors import Target, build
from comics.detectors.backbone import level_shapes
from comics.params import ModelParams
from comics.weights.checkpoint import recognise
from comics.weights.transfer import transfer

PUBLISHED = json.loads((Path(__file__).parent / "data" / "fcos_published.json").read_text())
CHANNELS, HEIGHT, WIDTH = 64, 256, 320
SIZES = [(HEIGHT, WIDTH), (200, 300)]
BOXES = [
    [[20, 30, 120, 150], [100, 60, 180, 200], [200, 10, 226, 40], [150, 150, 310, 250]],
    [[40, 40, 300, 220]],
]
LOSSES = {
    "class": ("loss_fcos_cls", "loss_MEInst_cls"),
    "box": ("loss_fcos_loc", "loss_MEInst_loc"),
    "centerness": ("loss_fcos_ctr", "loss_MEInst_ctr"),
    "mask": ("loss_mask", "loss_MEInst_mask"),
    "semantic": ("loss_basis_sem",),
}


def wave(shape: list[int], phase: float, scale: float) -> Tensor:
    count = int(torch.tensor(shape).prod())
    index = torch.arange(count, dtype=torch.float64)
    return (scale * torch.sin(1.7 * index + phase + (index * index) % 7.0)).float().view(shape)


def weights(name: str) -> dict[str, Tensor]:
    found = {}
    for index, (key, shape) in enumerate(PUBLISHED[name]["parameters"]):
        if len(shape) > 1:
            found[key] = wave(shape, float(index), (3 / int(torch.tensor(shape[1:]).prod())) ** 0.5)
        elif key.endswith(("weight", "scale")):
            found[key] = 1 + wave(shape, float(index), 0.2)
        elif key.endswith("explained_variances"):
            found[key] = 1 + wave(shape, float(index), 0.1)
        elif key.endswith("cls_logits.bias"):
            found[key] = torch.full(shape, -1.0)
        else:
            found[key] = wave(shape, float(index), 0.1)
    return found


def pyramid() -> list[Tensor]:
    """Smooth maps P3 to P7 of two images."""
    maps = []
    channel = torch.arange(CHANNELS, dtype=torch.float64).view(-1, 1, 1)
    for height, width in level_shapes(HEIGHT, WIDTH):
        y = ((torch.arange(height, dtype=torch.float64) + 0.5) / height).view(1, -1, 1)
        x = ((torch.arange(width, dtype=torch.float64) + 0.5) / width).view(1, 1, -1)
        waves = (1 + channel % 5) * 3 * y + (1 + channel % 7) * 2 * x + channel
        maps.append(torch.stack([torch.sin(waves), torch.sin(waves + 1)]).float())
    return maps


def ellipses(boxes: list[list[int]]) -> Target:
    corners = torch.tensor(boxes, dtype=torch.float32)
    left, top, right, bottom = corners[:, :, None, None].unbind(1)
    y, x = torch.arange(HEIGHT).view(-1, 1) + 0.5, torch.arange(WIDTH).view(1, -1) + 0.5
    inside = ((x - (left + right) / 2) / (right - left)) ** 2 + ((y - (top + bottom) / 2) / (bottom - top)) ** 2 <= 0.25
    return Target(boxes=corners, labels=torch.arange(len(boxes)) % 2, masks=inside)


@pytest.fixture(params=list(PUBLISHED))
def pair(request):
    """Our detector with the published weights, and what the published implementation gave."""
    name = request.param
    model = ModelParams(
        backbone="resnet18", fpn_channels=CHANNELS, head_channels=CHANNELS, head_convs=1, mask_channels=32
    )
    detector = build(name, model)
    taken, report = transfer(detector, name, recognise({"model": weights(name)}, "published"))
    assert len(report.of("used")) == len(PUBLISHED[name]["parameters"])
    detector.load_state_dict(taken, strict=False)
    return detector, PUBLISHED[name]


def test_losses(pair, monkeypatch):
    detector, published = pair
    monkeypatch.setattr(torch, "rand_like", lambda x: torch.full_like(x, 0.5))
    detector.train()
    with torch.no_grad():
        found = detector.losses(detector.forward_heads(pyramid()), [ellipses(boxes) for boxes in BOXES], [SIZES[0]] * 2)
    assert len(found) == len(published["losses"])
    for name, value in found.items():
        (expected,) = (published["losses"][key] for key in LOSSES[name] if key in published["losses"])
        assert value.item() == pytest.approx(expected, rel=1e-4, abs=1e-4), name


def test_predictions(pair):
    """Published boxes are clipped after their masks are made, ours before: masks are compared where that is the same."""
    detector, published = pair
    with torch.no_grad():
        found = detector.eval().predict(detector.forward_heads(pyramid()), SIZES)
    for ours, theirs, (height, width) in zip(found, published["images"], SIZES, strict=True):
        boxes = torch.tensor(theirs["boxes"])
        limits = torch.tensor([width, height, width, height])
        clipped = boxes.clamp(min=torch.zeros(4), max=limits)
        whole = (clipped[:, 2:] > clipped[:, :2]).all(dim=1)
        torch.testing.assert_close(ours["boxes"], clipped[whole], atol=2e-3, rtol=1e-4)
        torch.testing.assert_close(ours["scores"], torch.tensor(theirs["scores"])[whole], atol=1e-4, rtol=0)
        assert ours["labels"].tolist() == torch.tensor(theirs["labels"])[whole].tolist()
        areas = ours["masks"].flatten(1).sum(dim=1)
        inside = (clipped == boxes).all(dim=1)[whole]
        expected = torch.tensor(theirs["areas"])[whole]
        if detector.__class__.__name__ == "CondInst":
            inside = torch.ones_like(inside)
        assert (expected[inside] > 0).sum() >= 4
        difference = (areas - expected)[inside].abs()
        assert (difference <= 0.001 * expected[inside] + 4).all()
