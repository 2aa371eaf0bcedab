"""The worked example of docs/add-a-detector.md: short, complete, and held to the contract."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
import test_detectors_contract as contract
import torch
from detector_scenes import scenes, tiny

DOCUMENT = Path(__file__).parents[2] / "docs" / "add-a-detector.md"


@pytest.fixture(scope="module", autouse=True)
def example():
    """The document's code, run as a module: it registers `patchmask`."""
    text = DOCUMENT.read_text(encoding="utf-8")
    _, _, rest = text.partition("```python\n")
    code, _, _ = rest.partition("```")
    module = types.ModuleType("patchmask")
    sys.modules["patchmask"] = module  # dataclasses look their module up
    exec(compile(code, str(DOCUMENT), "exec"), module.__dict__)
    yield code
    del sys.modules["patchmask"]


def test_it_is_short(example):
    assert len(example.splitlines()) < 150


@pytest.mark.parametrize("counts", [[0], [50, 3], [2, 0]])
def test_losses(counts):
    contract.test_losses_are_finite_and_reach_every_part("patchmask", counts)


@pytest.mark.parametrize(
    "promise",
    [
        contract.test_one_pixel_faces,
        contract.test_a_face_without_a_pixel,
        contract.test_nothing_to_detect,
        contract.test_bf16_follows_float32,
        contract.test_what_the_contrast_needs,
        contract.test_copies_and_state_dicts,
    ],
)
def test_promises(promise):
    promise("patchmask")


def test_it_learns():
    images, targets, sizes = scenes(contract.FOUR, 96, 96)
    detector = tiny("patchmask")
    optimizer = torch.optim.Adam(detector.parameters(), 2e-3)
    for _ in range(40):
        optimizer.zero_grad()
        sum(detector.losses(detector(images), targets, sizes).values()).backward()
        optimizer.step()
    detector.eval()
    with torch.no_grad():
        predictions = detector.predict(detector(images), sizes)
    assert contract.average_precision(targets, predictions, "segm") > 30
