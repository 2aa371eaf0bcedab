"""The chain on a tiny dataset: make, train, predict, evaluate; interrupted and resumed; mistakes refused."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pycocotools import mask as rle

PARAMS = """
dataset: mini
datasets:
  mini: {kind: mini, width: 128, height: 96, train: 12, val: 2, test_dev: 4, test_challenge: 4}
training:
  mini: &training
    epochs: 5
    batch_size: 4
    milestones: [4]
    warmup_iterations: 2
    image_size: 128
    crop: 0.9
    rotation: 10
    workers: 0
models:
  mini: {backbone: resnet18, fpn_channels: 16, head_channels: 16, head_convs: 1, mask_channels: 16}
runs:
  plain: {}
  comics: {components: [views, attention, coarse, fine]}
  killed: {components: [views, attention, coarse, fine], title: The same as comics}
  begun: {components: [coarse], model: {start: comics}, training: {epochs: 1, lr: 1e-9, weight_decay: 0}}
"""


def comics(folder: Path, *arguments: str, code: int = 0) -> str:
    """Run the command line in `folder`, expect its exit code, and return all that it printed."""
    command = [sys.executable, "-m", "comics", *arguments]
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    text = answer.stdout + answer.stderr
    assert answer.returncode == code, text
    assert "Traceback" not in text, text
    return text


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny dataset and one trained run."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "params.yaml").write_text(PARAMS)
    comics(folder, "data", "make", "mini")
    comics(folder, "train", "comics")
    return folder


def test_a_run_leaves_weights_description_logs_and_scores(project: Path) -> None:
    folder = project / "results/mini/comics/seed0"
    comics(project, "predict", "comics", "--split", "test_dev")
    detections = folder / "test_dev.detections.json"
    truth = project / "data/mini/test_dev/annotations.json"
    comics(project, "evaluate", str(truth), str(detections), "--output", str(folder / "test_dev.csv"))

    checkpoint = torch.load(folder / "model.pt", weights_only=True)
    description = json.loads((folder / "run.json").read_text())
    sidecars = [json.loads(Path(f"{file}.meta.json").read_text()) for file in (detections, folder / "test_dev.csv")]
    assert checkpoint["digest"] == description["checkpoint_digest"]
    assert {sidecar["digest"] for sidecar in sidecars} == {description["digest"]}

    with (folder / "logs/metrics.csv").open(newline="") as file:
        columns = next(csv.reader(file))
    assert {"train/loss", "train/lr", "step"} <= set(columns)
    assert sum("coarse" in column for column in columns) >= 1
    assert sum("intra" in column or "inter" in column for column in columns) >= 2
    assert list(folder.glob("logs/**/events.out.tfevents.*"))

    images = {image["id"]: image for image in json.loads(truth.read_text())["images"]}
    for entry in json.loads(detections.read_text()):
        image = images[entry["image_id"]]
        assert entry["category_id"] in (1, 2)
        assert 0 <= entry["score"] <= 1
        assert rle.decode(entry["segmentation"]).shape == (image["height"], image["width"])
    with (folder / "test_dev.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["task"], row["class"]) for row in rows] == [
        (task, name) for task in ("detection", "segmentation") for name in ("all", "Real", "Fake")
    ]


def test_a_run_starts_from_the_weights_of_another(project: Path) -> None:
    comics(project, "train", "begun")
    start, begun = (
        torch.load(project / f"results/mini/{name}/seed0/model.pt", weights_only=True) for name in ("comics", "begun")
    )
    assert begun["description"]["model"]["start"] == start["digest"]
    learnt = [name for name in begun["state_dict"] if name.startswith("detector.") and "running" not in name]
    learnt = [name for name in learnt if begun["state_dict"][name].is_floating_point()]
    assert len(learnt) > 50
    for name in [*learnt, "momentum.module.extractor.body.layer4.0.conv1.weight"]:
        source = name.replace("momentum.module.extractor.", "detector.extractor.")
        torch.testing.assert_close(begun["state_dict"][name], start["state_dict"][source], rtol=1e-4, atol=1e-6)

    text = (project / "params.yaml").read_text()
    try:  # the run that it starts from is no longer what it was
        (project / "params.yaml").write_text(text.replace("batch_size: 4", "batch_size: 2"))
        refused = comics(project, "train", "begun", code=2)
    finally:
        (project / "params.yaml").write_text(text)
    assert "results/mini/comics/seed0/model.pt" in refused
    assert "has changed since" in refused


def test_an_interrupted_training_ends_with_the_weights_of_an_uninterrupted_one(project: Path) -> None:
    folder = project / "results/mini/killed/seed0"
    process = subprocess.Popen([sys.executable, "-m", "comics", "train", "killed"], cwd=project, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(folder.glob("checkpoints/step-*.meta.json")):
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGSTOP)  # lest it ends while a second call is refused
    refused = comics(project, "train", "killed", code=2)
    assert f"results/mini/killed/seed0: is being trained by process {process.pid} on " in refused
    process.send_signal(signal.SIGKILL)
    process.wait()
    last = max(folder.glob("checkpoints/step-*.ckpt"))
    spent = torch.load(last, weights_only=True)["callbacks"]["Expense"]
    assert spent["seconds"] > 0
    assert not (folder / "model.pt").exists()

    comics(project, "train", "killed")
    description = json.loads((folder / "run.json").read_text())
    assert description["resumed"]
    assert description["seconds"] > spent["seconds"]  # of both stretches
    assert (description["energy_joules"] is None) == (not description["energy_sources"])
    weights = torch.load(folder / "model.pt", weights_only=True)["state_dict"]
    expected = torch.load(project / "results/mini/comics/seed0/model.pt", weights_only=True)["state_dict"]
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(weights[name], value), name


def test_a_single_image_can_be_looked_at(project: Path) -> None:
    image = next((project / "data/mini/test_dev").rglob("*.jpg"))
    text = comics(project, "detect", str(image), "--threshold", "0.01")
    assert "real" in text
    assert [*(project / "detections").rglob(f"{image.name}.faces.*")]  # names keep their folders
    assert "no such file" in comics(project, "detect", "absent.jpg", code=2)


def test_mistakes_end_with_code_two_and_a_remedy(project: Path) -> None:
    assert "Did you mean 'comics'?" in comics(project, "train", "comisc", code=2)
    assert "Did you mean 'test_dev'?" in comics(project, "predict", "comics", "--split", "testdev", code=2)
    assert "no such checkpoint" in comics(project, "predict", "plain", "--split", "test_dev", code=2)
    assert "no such file" in comics(project.parent, "runs", code=2)


def test_runs_and_doctor_tell_what_is_there(project: Path) -> None:
    text = comics(project, "runs")
    assert "trained" in text
    assert "same as comics" in text
    assert "torch" in comics(project, "doctor")
