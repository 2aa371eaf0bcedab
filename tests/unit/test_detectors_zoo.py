"""``comics detectors``: facts that can be checked."""

from __future__ import annotations

import json

import pytest
from detector_scenes import TINY
from typer.testing import CliRunner

from comics.cli import app
from comics.detectors import NAMES, build
from comics.detectors.zoo import measure
from comics.errors import UserError


def test_facts():
    facts = measure("blendmask", TINY, size=64, seconds=0)
    detector = build("blendmask", TINY)
    assert facts.parameters == sum(parameter.numel() for parameter in detector.parameters())
    # The stem alone: 32 x 32 outputs of 64 channels, each 3 x 7 x 7 multiply-adds.
    assert facts.gigaflops > 2 * 32 * 32 * 64 * 147 / 1e9
    assert facts.images_per_second > 0


def test_operations_grow_with_the_image():
    small, large = (measure("solov2", TINY, size=size, seconds=0).gigaflops for size in (64, 128))
    assert small < large < 4 * small  # the grids stay as they are


def test_the_command_lists_every_detector():
    words = ["detectors", *NAMES, "--backbone", "resnet18", "--size", "64", "--seconds", "0", "--device", "cpu"]
    result = CliRunner().invoke(app(), [*words, "--json"])
    assert result.exit_code == 0, result.output
    found = {fact["name"]: fact for fact in json.loads(result.stdout)}
    assert list(found) == list(NAMES)
    assert [name for name, fact in found.items() if not fact["has_boxes"]] == ["solo", "solov2"]


def test_an_unknown_detector():
    result = CliRunner().invoke(app(), ["detectors", "soloo"])
    assert isinstance(result.exception, UserError)
    assert "solo" in result.exception.remedy


@pytest.mark.parametrize(("option", "value"), [("--size", "100"), ("--backbone", "vgg16")])
def test_wrong_options(option, value):
    result = CliRunner().invoke(app(), ["detectors", option, value])
    assert isinstance(result.exception, UserError)
    assert option in str(result.exception)
