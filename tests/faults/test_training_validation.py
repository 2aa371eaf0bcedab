"""Trainings that are validated, whose best epoch and averaged weights are kept, and that stop early: also interrupted ones."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import trainings
from trainings import comics, require_equal, steps_of, train, training, wait_for, weights

from comics.evaluation import evaluate
from comics.files import read_json

SEED = int(os.environ.get("FAULT_SEED", random.randrange(2**31)))
LOW = "inference: {score_threshold: 0.0}"  # what has hardly learnt anything finds something
BEST = "{ema: 0.5, validation: {every: 1, keep: best, metric: detection_oLRP}}"
RUNS = {
    "plain": f"{{{LOW}}}",
    "watched": f"{{{LOW}, training: {{validation: {{every: 3}}}}}}",
    "best": f"{{{LOW}, components: [views, coarse, fine], training: {BEST}}}",
    "patient": "{training: {epochs: 30, lr: 1.0e-9, validation: {every: 1, patience: 2}}}",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("validation")
    again = {f"{name}_again": block for name, block in RUNS.items()}
    trainings.write_params(folder, {**RUNS, **again})
    comics(folder, "data", "make", "mini")
    return folder


def folder_of(project: Path, run: str) -> Path:
    return project / f"results/mini/{run}/seed0"


def trained(project: Path, run: str, before: Callable[[], None] | None = None) -> dict[str, Any]:
    """run.json of `run`, trained without disturbance."""
    if not (folder_of(project, run) / "model.pt").exists():
        code, text = train(project, run, before)
        assert code == 0, text
    described: dict[str, Any] = read_json(folder_of(project, run) / "run.json")
    return described


def curves(project: Path, run: str, name: str = "val/segmentation_AP") -> list[dict[str, str]]:
    with (folder_of(project, run) / "logs/metrics.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row.get(name)]


def found_are_kept() -> None:
    """Write what the last validation finds to val.json. SLURM's `srun` is on the path, and not used."""
    srun = Path("bin/srun")
    srun.parent.mkdir()
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    os.environ["PATH"] = f"{srun.parent.absolute()}{os.pathsep}{os.environ['PATH']}"
    from comics.training.validation import Validation

    score = Validation._score

    def kept(self: Any, entries: Any) -> Any:
        found = score(self, entries)
        Path("val.json").write_text(json.dumps(entries))
        return found

    Validation._score = kept


def ranked(entries: Any) -> list[str]:
    return sorted(json.dumps(entry, sort_keys=True) for entry in entries)


def test_validation_sees_what_predict_does_and_changes_nothing(project: Path) -> None:
    watched, plain = trained(project, "watched", found_are_kept), trained(project, "plain")
    assert watched["digest"] == plain["digest"]
    require_equal(weights(project, "watched"), weights(project, "plain"))
    said = (project / "watched.log").read_text().splitlines()
    ours = r"watched seed 0: step \d+/12, loss .* left|results/mini/watched/seed0(: epoch \d, validation: .*|/model\.pt: the weights of .*)"
    assert [line for line in said if not re.fullmatch(ours, line)] == []  # no warnings of libraries
    history = watched["validation"]["history"]
    assert [(one["epochs"], one["steps"]) for one in history] == [(3, 9), (4, 12)]
    comics(project, "predict", "watched", "--split", "val")
    detections = folder_of(project, "watched") / "val.detections.json"
    assert ranked(read_json(project / "val.json")) == ranked(read_json(detections)) != []
    scores = evaluate(project / "data/mini/val/annotations.json", detections)
    assert len(history[-1]["scores"]) == 4
    for name, value in history[-1]["scores"].items():
        task, _, metric = name.partition("_")
        assert value == pytest.approx(scores[task, "all", metric], abs=1e-9), name
    assert [(row["step"], float(row["val/segmentation_AP"])) for row in curves(project, "watched")] == [
        (str(one["steps"]), one["scores"]["segmentation_AP"]) for one in history
    ]
    logged = tensorboard(project, "watched")
    assert logged["val/segmentation_AP"] == [one["steps"] for one in history]
    with (folder_of(project, "watched") / "logs/metrics.csv").open(newline="") as file:
        assert set(logged) >= set(csv.DictReader(file).fieldnames or ()) - {"step", "epoch"}
    assert "train/loss" in logged


def tensorboard(project: Path, run: str) -> dict[str, list[int]]:
    """Steps of each term that TensorBoard has."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder_of(project, run) / "logs/tensorboard"))
    events.Reload()
    return {name: [event.step for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def while_validating(epoch: int, signum: int) -> None:
    """End the process, or ask it to, in the middle of the validation of `epoch`; 0: never. What is hardly trained has an oLRP of 1,
    whatever it finds: the mean score stands in its place, lower in the second epoch."""
    from comics.training.validation import Validation

    def score(self: Any, entries: Any) -> dict[str, float]:
        if len(self.history) == epoch - 1 and signum == signal.SIGKILL:
            os.kill(os.getpid(), signum)
        return {"detection_oLRP": fmean(entry["score"] for entry in entries) + (len(self.history) != 1)}

    scores = Validation.scores

    def asked(self: Any, trainer: Any, module: Any) -> Any:
        if len(self.history) == epoch - 1 and signum != signal.SIGKILL:
            os.kill(os.getpid(), signum)
        return scores(self, trainer, module)

    Validation._score, Validation.scores = score, asked


@pytest.mark.injects(
    "SIGKILL at a random step, SIGKILL and SIGTERM within validations, weights averaged",
    "validations are made up for; bitwise equal weights of the best epoch",
)
def test_a_validation_that_was_interrupted_is_made_up_for(project: Path) -> None:
    theirs = trained(project, "best", partial(while_validating, 0, 0))["validation"]
    values = [one["scores"]["detection_oLRP"] for one in theirs["history"]]
    assert len(set(values)) == 4
    assert (theirs["best"]["epochs"], theirs["kept_epoch"]) == (2, 2)
    comics(project, "predict", "best", "--split", "val")
    entries = read_json(folder_of(project, "best") / "val.detections.json")
    assert fmean(entry["score"] for entry in entries) == pytest.approx(theirs["best"]["value"], abs=1e-9)

    run = "best_again"
    print(f"FAULT_SEED={SEED}")
    moment = random.Random(SEED).randint(1, 5)
    with training(project, run, partial(while_validating, 2, signal.SIGKILL)) as process:
        wait_for(lambda: max(steps_of(project, run), default=0) >= moment, process)
        process.kill()
    code, said = train(project, run, partial(while_validating, 2, signal.SIGTERM))
    assert code == 143, said
    assert "step 6 is saved, the same command goes on from it" in said
    assert train(project, run, partial(while_validating, 3, signal.SIGKILL))[0] == 137
    assert train(project, run, partial(while_validating, 4, signal.SIGTERM))[0] == 143
    assert steps_of(project, run)[-1] == 12
    code, said = train(project, run, partial(while_validating, 0, 0))
    assert code == 0, said
    assert read_json(folder_of(project, run) / "run.json")["validation"] == theirs
    assert curves(project, run, "val/detection_oLRP") == curves(project, "best", "val/detection_oLRP")
    require_equal(weights(project, run), weights(project, "best"))


def test_a_training_whose_scores_no_longer_rise_stops(project: Path) -> None:
    code, said = train(project, "patient")
    assert code == 0, said
    described = read_json(folder_of(project, "patient") / "run.json")
    assert (described["epochs"], described["steps"]) == (3, 9)
    assert "stops after epoch 3: no better one since epoch 1" in said


def test_what_the_best_is_chosen_by_must_be_there(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "data", tmp_path / "data")
    trainings.write_params(
        tmp_path,
        {"solov2": "{detector: solov2, training: {validation: {every: 1, metric: detection_AP}}}", "plain": "{}"},
        validation={"every": 1},
    )
    code, said = train(tmp_path, "solov2")
    assert code == 2
    assert "'detection_AP' is of boxes" in said
    shutil.rmtree(tmp_path / "data/mini/val")
    code, said = train(tmp_path, "plain")
    assert code == 2
    assert "data/mini/val/annotations.json: no such file" in said
    assert not steps_of(tmp_path, "plain")
