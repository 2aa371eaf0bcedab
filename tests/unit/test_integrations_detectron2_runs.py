"""Whole runs on models of detectron2, on stand-ins: trained, interrupted, resumed, evaluated; and the examples of the docs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from detectron2_engine import STEPS, install_engine
from detectron2_runs import (
    PARAMS,
    blocks_of,
    comics,
    evaluated,
    make_dataset,
    rows_of,
    trained_interrupted_and_resumed,
    write_run,
)
from detectron2_scenes import ARCHITECTURES, Storage, install

from comics.files import read_json
from comics.params import detectors as known
from comics.params import load


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_run_is_trained_resumed_and_evaluated(dataset, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(known, "_registered", dict(known._registered))  # reading params.yaml makes its detectors known
    install(monkeypatch)
    (tmp_path / "data").symlink_to(dataset)
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(kind.__name__)
    write_run("{config: toy.yaml}")
    run = trained_interrupted_and_resumed(monkeypatch)
    assert {row["task"] for row in evaluated(run)} == {"detection", "segmentation"}
    assert len(read_json(run.folder / "test_dev.detections.json")) == 4  # two on each of two images
    assert not Storage.open


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
    rows = rows_of(words[-1])
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
