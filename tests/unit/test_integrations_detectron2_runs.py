"""Whole runs on models of detectron2, on stand-ins: trained, interrupted, resumed, evaluated; and the example of the docs."""

from __future__ import annotations

import csv
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest
import torch
from detectron2_engine import STEPS, install_engine
from detectron2_scenes import ARCHITECTURES, Storage, install
from typer.testing import CliRunner

from comics.cli import app
from comics.files import read_json
from comics.params import detectors as known
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


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    (folder / "params.yaml").write_text(PARAMS + "  plain: {}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        comics("data", "make", "mini")
    return folder / "data"


@pytest.fixture
def project(dataset, tmp_path, monkeypatch):
    """A folder whose run `theirs`, and `again` (the same), is of one toy family."""
    monkeypatch.setattr(known, "_registered", dict(known._registered))  # reading params.yaml makes its detectors known
    there = install(monkeypatch)
    (tmp_path / "data").symlink_to(dataset)
    monkeypatch.chdir(tmp_path)

    def write(kind):
        Path("toy.yaml").write_text(kind.__name__)
        run = "{detector: detectron2, components: [views, attention, coarse, fine], model: {detectron2: {config: toy.yaml}}}"
        Path("params.yaml").write_text(f"{PARAMS}  theirs: {run}\n  again: {run[:-1]}, seeds: [0]}}\n")

    return write, there


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_run_is_trained_resumed_and_evaluated(project, monkeypatch, kind):
    write, _ = project
    write(kind)
    run = load("params.yaml").resolve("theirs")
    train(run)
    model = Path(run.folder / "model.pt")
    whole = torch.load(model, weights_only=True)["state_dict"]
    assert any(name.startswith("momentum.module.extractor.backbone.") for name in whole)
    steps = read_json(run.folder / "run.json")["steps"]
    assert steps == 4

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

    found = f"{run.folder}/test_dev.detections.json"
    comics("predict", "theirs", "--split", "test_dev")
    assert len(read_json(found)) == 4  # two on each of two images
    comics("evaluate", "data/mini/test_dev/annotations.json", found, "--output", f"{run.folder}/test_dev.csv")
    with (run.folder / "test_dev.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["task"] for row in rows} == {"detection", "segmentation"}
    assert not Storage.open


def blocks_of(section: str) -> list[tuple[str, str]]:
    """Language and text of the fenced blocks below a heading of docs/interplay.md."""
    page = (ROOT / "docs/interplay.md").read_text(encoding="utf-8")
    below = re.search(rf"^## {section}\n(.*?)(?=^## )", page, re.DOTALL | re.MULTILINE)
    assert below is not None
    return re.findall(r"^```(\w*)\n(.*?)^```", below[1], re.DOTALL | re.MULTILINE)


def test_the_whole_example_of_the_docs(dataset, tmp_path, monkeypatch):
    """As it is written, from the first import to the scores and the row of a table."""
    there = install_engine(monkeypatch, tmp_path)
    (tmp_path / "data").symlink_to(dataset)
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(PARAMS + "  comics: {components: [views, attention, coarse, fine]}\n")
    (_, program), (_, command) = blocks_of("A whole example")
    exec(compile(program, "docs/interplay.md", "exec"), {"__name__": "__main__"})
    (trainer,) = there.trainers
    assert type(trainer.model).__name__ == "BiGrainedGeneralizedRCNN"
    assert len(trainer.seen) == STEPS
    assert {"loss_coarse", "loss_intra", "loss_inter"} <= set(trainer.seen[0])
    assert trainer.model.bi_grained.coarse.memory.filled.sum() > 0  # the hook has moved them
    found = read_json("theirs/coco_instances_results.json")
    assert {one["category_id"] for one in found} == {1, 2}

    _, *words = shlex.split(command)
    comics(*words)
    with open(words[-1], newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["task"], row["class"]) for row in rows} >= {("detection", "Fake"), ("segmentation", "Real")}

    (_, table), *_ = blocks_of("Their results in our tables")
    Path("params.yaml").write_text(Path("params.yaml").read_text() + table)
    (_, row) = load("params.yaml").tables["mine"].rows
    assert row.detections_of("test_dev") == Path("theirs/coco_instances_results.json")
    assert row.detections_of("test_dev").exists()


def test_the_lines_of_the_docs_for_a_training_of_theirs(monkeypatch, dataset, tmp_path):
    there = install_engine(monkeypatch, tmp_path)
    (tmp_path / "data").symlink_to(dataset)
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(PARAMS + "  plain: {}\n")
    from comics.integrations.detectron2 import register_datasets

    names = register_datasets(load("params.yaml"))
    cfg = sys.modules["detectron2"].config.get_cfg()
    cfg.INPUT.MASK_FORMAT, cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.DATASETS.TRAIN = "bitmask", 2, (names[0],)
    ((_, program),) = blocks_of("Our objective in a training of theirs")
    lines = [line for line in program.splitlines() if line and not line.startswith("from comics")]
    assert len(lines) <= 5  # five lines of its own
    exec(program, {"cfg": cfg, "DefaultTrainer": sys.modules["detectron2"].engine.DefaultTrainer})
    assert "loss_coarse" in there.trainers[0].seen[0]
