"""A change that makes trained weights different raises TRAINING_CODE_VERSION: two steps of every detector, beside a record.

What training moved, part by part of the model, is compared with `RECORD` within what another processor's rounding may do, so that the
record holds on every machine; a change below `TOLERANCE` is not seen. After a change that is meant: raise the version in
comics/params/resolve.py, say so in CHANGELOG.md under *Results*, and run `AGAIN`.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from comics.cli import app
from comics.detectors import NAMES
from comics.params import TRAINING_CODE_VERSION, load
from comics.training import fit
from comics.training.module import TrainingModule

RECORD = Path(__file__).parent / "data/training_record.json"
TOLERANCE = 0.02
"""Of what training moved a part by."""
AGAIN = "TRAINING_RECORD=write python -m pytest tests/unit/test_training_record.py"
PARAMS = """
dataset: mini
datasets:
  mini: {kind: mini, width: 96, height: 64, train: 6, val: 1, test_dev: 1, test_challenge: 1}
training:
  mini:
    epochs: 1
    batch_size: 3
    lr: 0.002
    warmup_iterations: 2
    warmup_factor: 0.5
    milestones: [1]
    image_size: 96
    workers: 0
    precision: fp32
models:
  mini:
    backbone: resnet18
    backbone_width: 0.25
    fpn_channels: 32
    head_channels: 32
    head_convs: 1
    mask_channels: 16
    mask_rcnn: &rois {rois: 16, proposals: 50, roi_samples: 2}
    ms_rcnn: *rois
    centermask: {rois: 16, roi_samples: 2}
    meinst: {mask_code: 6}
    solo: {grids: [12, 10, 8, 6, 4]}
    solov2: {grids: [12, 10, 8, 6, 4]}
objectives:
  mini: {coarse: {queue_size: 16, momentum: 0.9, iou_threshold: 0}}
runs:
  plain: {}
  adamw: {training: {optimizer: adamw}}
  heavier: {components: &all [views, attention, coarse, fine], objective: {fine: {inter_weight: 0.5}}}
"""
RUNS = ("plain", *NAMES)
"""BlendMask alone, and every detector with all components."""

Moved = dict[str, list[float]]
"""Of each part of a model: the length of what training moved it by, and that along a fixed direction."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("record")
    runs = "".join(f"  {name}: {{detector: {name}, components: *all}}\n" for name in NAMES)
    (folder / "params.yaml").write_text(PARAMS + runs)
    for command in (["data", "make"], ["data", "encode-masks"]):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            assert CliRunner().invoke(app(), command).exit_code == 0
    return folder


class Watched(TrainingModule):
    """Keeps what training starts from."""

    start: ClassVar[dict[str, Tensor]] = {}
    learnt: ClassVar[set[str]] = set()

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        Watched.start = {name: value.clone() for name, value in self.model.state_dict().items()}
        Watched.learnt = {name for name, _ in self.model.named_parameters()}


def moved(root: Path, run: str) -> Moved:
    """Train `run` and tell what that changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "TrainingModule", Watched)
        patch.chdir(root)
        path = fit.train(load().resolve(run), root)
    return steps(torch.load(path, weights_only=True)["state_dict"])


def steps(after: dict[str, Tensor]) -> Moved:
    """From `Watched.start` to `after`: of each part its parameters, and its statistics and memories."""
    assert after.keys() == Watched.start.keys()
    parts: dict[str, list[float]] = {}
    for name, value in after.items():
        if value.is_floating_point():
            step = (value - Watched.start[name]).double().flatten()
            draw = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            signs = torch.randint(0, 2, step.shape, generator=draw).double() * 2 - 1
            kind = "" if name in Watched.learnt else ", not learnt"
            part = parts.setdefault(".".join(name.split(".")[:2]) + kind, [0.0, 0.0])
            part[0] += float(step.square().sum())
            part[1] += float(step @ signs)
    return {part: [squares**0.5, along] for part, (squares, along) in parts.items() if squares}


def differences(found: Moved, recorded: Moved) -> list[str]:
    """Parts that training moves otherwise."""
    assert found.keys() == recorded.keys(), "the model has other parts"
    return [
        f"{part}: {value} instead of {recorded[part]}"
        for part, value in found.items()
        for ours, theirs in zip(value, recorded[part], strict=True)
        if abs(ours - theirs) > TOLERANCE * recorded[part][0] + 1e-7
    ]


@pytest.mark.timeout(1800)
@pytest.mark.skipif("TRAINING_RECORD" not in os.environ, reason="writes the record")
def test_write_the_record(root: Path) -> None:
    runs = {
        run: {part: [float(f"{value:.6g}") for value in values] for part, values in moved(root, run).items()}
        for run in RUNS
    }
    RECORD.write_text(json.dumps({"code_version": TRAINING_CODE_VERSION, "runs": runs}, indent=1) + "\n")


def test_the_record_is_of_this_version() -> None:
    recorded = json.loads(RECORD.read_text())
    assert recorded["code_version"] == TRAINING_CODE_VERSION, f"The record is of another version: {AGAIN}"
    assert set(recorded["runs"]) == set(RUNS), f"Detectors have come or gone: {AGAIN}"


@pytest.mark.parametrize("run", RUNS)
def test_training_is_what_it_was(root: Path, run: str) -> None:
    recorded = json.loads(RECORD.read_text())["runs"][run]
    told = differences(moved(root, run) if "TRAINING_RECORD" not in os.environ else recorded, recorded)
    assert not told, (
        f"{run} trains otherwise than recorded, and TRAINING_CODE_VERSION is still {TRAINING_CODE_VERSION}. If that is meant, raise it in "
        f"comics/params/resolve.py, so that runs are trained anew, and record: {AGAIN}\n" + "\n".join(told)
    )


@pytest.mark.parametrize(("run", "like"), [("adamw", "plain"), ("heavier", "blendmask")])
def test_another_training_is_noticed(root: Path, run: str, like: str) -> None:
    assert differences(moved(root, run), json.loads(RECORD.read_text())["runs"][like])
