"""Runs on models of detectron2: a tiny project, a training that is interrupted and resumed, and the examples of docs/interplay.md; for
stand-ins and for the package itself."""

from __future__ import annotations

import csv
import re
import signal
from pathlib import Path

import pytest
import torch
from detector_scenes import random_boxes, scenes
from typer.testing import CliRunner

from comics.cli import app
from comics.files import read_json
from comics.params import load
from comics.training.checkpoints import Checkpoints
from comics.training.fit import train
from comics.training.signals import Interrupted

ROOT = Path(__file__).parents[2]
PARAMS = """
dataset: mini
datasets:
  mini: {kind: mini, width: 96, height: 64, train: 4, val: 2, test_dev: 2, test_challenge: 2}
training:
  mini:
    {epochs: 2, batch_size: 2, milestones: [1.5], warmup_iterations: 2, image_size: 96, workers: 0, precision: fp32, lr: 0.001}
models:
  mini: {backbone: resnet18}
runs:
"""


def comics(*words: str) -> str:
    result = CliRunner().invoke(app(), list(words))
    assert result.exit_code == 0, result.output or result.exception
    return result.output


def make_dataset(folder):
    """A tiny `mini` in a folder: its `data`."""
    (folder / "params.yaml").write_text(PARAMS + "  plain: {}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        comics("data", "make", "mini")
    return folder / "data"


def write_run(settings, lr=0.001):
    """params.yaml in the working folder, whose run `theirs` has these settings of `detectron2`."""
    run = f"{{detector: detectron2, components: [views, attention, coarse, fine], model: {{detectron2: {settings}}}}}"
    Path("params.yaml").write_text(f"{PARAMS}  theirs: {run}\n".replace("lr: 0.001", f"lr: {lr}"))


def trained_interrupted_and_resumed(monkeypatch):
    """The run `theirs` trained, and once more with an interruption after its second step: to the same weights, bit for bit."""
    run = load("params.yaml").resolve("theirs")
    train(run)
    model = Path(run.folder / "model.pt")
    whole = torch.load(model, weights_only=True)["state_dict"]
    assert any(name.startswith("momentum.module.extractor.backbone.") for name in whole)
    assert read_json(run.folder / "run.json")["steps"] == 4
    original = Checkpoints.on_train_batch_end

    def asked(self, trainer, *arguments):
        if trainer.global_step == 2:
            self.interruption.signum = signal.SIGTERM
        return original(self, trainer, *arguments)

    model.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_train_batch_end", asked)
        with pytest.raises(Interrupted):
            train(run)
    assert not model.exists()
    train(run)
    assert read_json(run.folder / "run.json")["resumed"]
    resumed = torch.load(model, weights_only=True)["state_dict"]
    assert resumed.keys() == whole.keys()
    assert not [name for name, value in whole.items() if not torch.equal(resumed[name], value)]
    return run


def evaluated(run):
    """The detections of a trained run on test_dev, scored: the rows of the file of scores."""
    found, scores = f"{run.folder}/test_dev.detections.json", f"{run.folder}/test_dev.csv"
    comics("predict", "theirs", "--split", "test_dev")
    comics("evaluate", "data/mini/test_dev/annotations.json", found, "--output", scores)
    return rows_of(scores)


def rows_of(scores):
    with open(scores, newline="") as file:
        return list(csv.DictReader(file))


def blocks_of(section):
    """Language and text of the fenced blocks below a heading of docs/interplay.md."""
    page = (ROOT / "docs/interplay.md").read_text(encoding="utf-8")
    below = re.search(rf"^## {section}\n(.*?)(?=^## )", page, re.DOTALL | re.MULTILINE)
    assert below is not None
    return re.findall(r"^```(\w*)\n(.*?)^```", below[1], re.DOTALL | re.MULTILINE)


def assert_the_same_found(ours, theirs, least, rtol=1e-4, atol=1e-3, masks=0.99):
    """Two detectors of one contract find the same on two scenes: maps, boxes, scores, classes and masks; the number of masks.

    Args:
        least: each image must have more faces.
        masks: share of the union that both masks cover, give or take a few cells.
    """
    images, _, sizes = scenes([random_boxes(n, 96, 128, n, 24) for n in (2, 3)], 96, 128)
    maps = [one.extractor(one.normalise(images, sizes)) for one in (ours, theirs)]
    for own, other in zip(*maps, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4 * own.abs().max().item())
    drawn = 0
    for own, other in zip(ours.predict(ours(images), sizes), theirs.predict(theirs(images), sizes), strict=True):
        assert least < len(own["scores"]) == len(other["scores"])
        for key in ("scores", "boxes", "labels"):
            torch.testing.assert_close(own[key], other[key], rtol=rtol, atol=atol)
        both = (own["masks"] & other["masks"]).flatten(1).sum(1)
        either = (own["masks"] | other["masks"]).flatten(1).sum(1)
        assert (both >= masks * either - 200 * (1 - masks)).all()
        drawn += int((own["masks"].flatten(1).sum(1) > 0).sum())
    return drawn
