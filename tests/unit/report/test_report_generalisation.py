"""Generalisation: matrices of what runs were trained on and tested on, and of kinds of forgery that training lacked."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

import comics.results
from comics.commands.evaluate import INTERVAL_HEADER
from comics.errors import UserError
from comics.evaluation.breakdowns import GROUP_HEADER
from comics.evaluation.scores import write_table
from comics.params import METRICS, TASKS
from comics.params.resolve import REPORTS
from comics.provenance import write_sidecar
from comics.report import generalisation, page
from comics.report.results import NotMade, details_path, intervals_path, resolved_runs, scores_path

KINDS = ("attribute", "inner", "swap", "synthesis")


def scores(project: Any, run: str, seed: int, test: str | None, value: float) -> Path:
    """Scores of `run` on the dataset `test`, all of them `value`."""
    (one,) = (one for one in resolved_runs(project.params, run) if one.seed == seed)
    path = project.root / scores_path(one, "test_dev", test)
    rows = [[task, cls, *([value] * len(METRICS)), 0.5] for task in TASKS for cls in ("all", "Real", "Fake")]
    write_table(path, ["task", "class", *METRICS, "oLRP_threshold"], rows)
    write_sidecar(path, {"digest": one.digest, "dataset": one.dataset_name})
    return path


def interval(project: Any, run: str, test: str | None, low: float, high: float) -> None:
    """An interval of `run` on the dataset `test`, of the AP of masks."""
    (one,) = resolved_runs(project.params, run)
    path = project.root / intervals_path(one, "test_dev", test)
    lines = [[task, cls, "AP", 0.5, low, high] for task, cls in (("segmentation", "all"),)]
    write_table(path, INTERVAL_HEADER, [["detection", "all", "AP", 0.5, 0.0, 1.0], *lines])
    write_sidecar(path, {"digest": one.digest, "dataset": one.dataset_name})


def kinds(project: Any, run: str, values: dict[str, float | None]) -> None:
    """Scores of `run` by kind of forgery."""
    for one in resolved_runs(project.params, run):
        path = project.root / details_path(one, "test_dev", "by_forgery")
        rows = [[task, "all", kind, 5, *([value] * 8)] for task in TASKS for kind, value in values.items()]
        write_table(path, GROUP_HEADER, [*rows, [TASKS[0], "Fake", "swap", 5, *([0.9] * 8)]])
        write_sidecar(path, {"digest": one.digest, "dataset": one.dataset_name})


def cells(path: Path, key: str) -> dict[tuple[str, str], dict[str, str]]:
    with path.open(newline="") as file:
        return {(row["run"], row[key] or row["relation"]): row for row in csv.DictReader(file)}


def test_a_run_is_tested_on_its_own_dataset_and_on_others(project, tmp_path):
    project.edit("tests: [crowd]}\n  crowd_blendmask: ", "tests: [crowd], seeds: [3, 4]}\n  crowd_blendmask: ")
    with pytest.raises(NotMade, match=r"on_crowd/test_dev\.csv: no such result"):
        generalisation.render(project.params, "datasets", tmp_path, project.root)
    for seed, own, other in ((3, 0.8, 0.3), (4, 0.6, 0.5)):
        scores(project, "mini_blendmask", seed, None, own)
        scores(project, "mini_blendmask", seed, "crowd", other)
    for run in ("mini_comics", "crowd_blendmask", "crowd_comics"):
        other_dataset = "mini" if run.startswith("crowd") else "crowd"
        scores(project, run, 0, None, 0.7)
        scores(project, run, 0, other_dataset, 0.2)
        interval(project, run, None, 0.61, 0.79)
        with pytest.raises(NotMade, match=r"test_dev\.intervals\.csv: no such result"):
            generalisation.render(project.params, "datasets", tmp_path, project.root)
        interval(project, run, other_dataset, 0.11, 0.29)
    paths = generalisation.render(project.params, "datasets", tmp_path, project.root)
    assert sorted(path.suffix for path in paths) == sorted([".tex", ".md", ".csv", ".pdf", ".svg", ".png"])
    found = cells(tmp_path / "datasets.csv", "tested_on")
    assert len(found) == 8
    own, other = found["mini_blendmask", "mini"], found["mini_blendmask", "crowd"]
    assert (float(own["mean"]), own["seeds"], own["relation"]) == (pytest.approx(70), "2", "its own")
    assert float(other["mean"]) == pytest.approx(40)
    assert float(other["deviation"]) == pytest.approx(20 / 2**0.5)
    assert found["crowd_blendmask", "crowd"]["trained_on"] == "crowd"
    assert found["crowd_blendmask", "crowd"]["relation"] == "its own"
    text = (tmp_path / "datasets.md").read_text()
    assert "**70.0 ± 14.1** | 40.0 ± 14.1" in text  # of several seeds, their deviation
    assert "20.0 [11.0, 29.0] | **70.0 [61.0, 79.0]**" in text
    assert "In brackets: 95 % intervals over images" in text
    one_seed = found["crowd_comics", "mini"]
    assert (float(one_seed["low"]), float(one_seed["high"])) == (pytest.approx(11), pytest.approx(29))
    assert found["mini_blendmask", "mini"]["low"] == ""
    # As numbers, too, and in the page.
    frame = comics.results.load(project.params, project.root)
    chosen = frame[(frame.run == "crowd_comics") & (frame.metric == "AP") & (frame["class"] == "all")]
    assert set(zip(chosen.dataset, chosen.test, chosen.value, strict=True)) == {
        ("crowd", "crowd", 0.7),
        ("crowd", "mini", 0.2),
    }
    charts = {chart["name"]: chart for chart in page.gather(project.params, project.root).charts}
    assert charts["generalisation_datasets"]["image"].startswith("data:image/svg+xml")
    assert "generalisation_forgeries" not in charts  # nothing of it was made


def test_kinds_that_training_lacked_stand_apart(project, tmp_path):
    for run in project.params.matrices["forgeries"].runs:
        kinds(project, run, dict(zip(KINDS, (0.9, 0.8, 0.7, 0.6), strict=True)))
    kinds(project, "without_swap", dict(zip(KINDS, (0.9, 0.8, 0.1, None), strict=True)))
    generalisation.render(project.params, "forgeries", tmp_path, project.root)
    found = cells(tmp_path / "forgeries.csv", "forgery")
    assert found["without_swap", "swap"]["relation"] == "held out"
    assert found["without_swap", "inner"]["relation"] == "in training"
    assert float(found["without_swap", "held out"]["mean"]) == pytest.approx(10)
    assert float(found["without_swap", "in training"]["mean"]) == pytest.approx(85)  # undefined ones left out
    assert ("without_swap", "synthesis") not in found
    assert float(found["crowd_blendmask", "in training"]["mean"]) == pytest.approx(75)
    assert ("crowd_blendmask", "held out") not in found
    assert r"\textbf{10.0}" in (tmp_path / "forgeries.tex").read_text()


def test_what_cannot_be_shown_is_said(project, tmp_path):
    for run in project.params.matrices["forgeries"].runs:
        kinds(project, run, {})
    with pytest.raises(UserError, match="no kinds of forgery"):
        generalisation.render(project.params, "forgeries", tmp_path, project.root)
    with pytest.raises(UserError, match="no matrix 'dataset'") as caught:
        generalisation.render(project.params, "dataset", tmp_path, project.root)
    assert "datasets" in caught.value.remedy
    path = scores(project, "mini_comics", 0, "crowd", 0.4)
    path.write_text(path.read_text().replace("0.4", "0.5", 1))
    with pytest.raises(UserError, match="SHA-256"):
        comics.results.load(project.params, project.root)


def test_mistakes_in_the_file(project):
    for old, new, message in (
        ("dataset: crowd, tests: [mini]}\n  mini_comics", "dataset: crowds}\n  mini_comics", "no dataset 'crowds'"),
        ("tests: [crowd]}\n  crowd_comics", "tests: [crowds]}\n  crowd_comics", "no dataset 'crowds'"),
        ("tests: [crowd]}\n  crowd_comics", "tests: [crowd, crowd]}\n  crowd_comics", "lists one of them twice"),
        (
            "  runs: [blendmask, comics]     # the",
            "  runs: [blendmask, crowd_comics]     # the",
            "is of the dataset 'crowd'",
        ),
        ("    runs: [crowd_blendmask, without_swap,", "    runs: [crowd_blendmask, swap,", "no run 'swap'"),
    ):
        project.edit(old, new)
        with pytest.raises(UserError, match=message):
            _ = [project.params.resolve(run) for run in project.params.runs]
        project.edit(new, old)
    assert "generalisation" not in REPORTS  # a folder of reports/, and no file


def test_a_run_of_another_dataset_has_its_presets_and_starts_there(project):
    params = project.params
    one = params.resolve("without_swap")
    assert str(one.folder) == "results/without_swap/without_swap/seed0"
    assert one.training == params.resolve("comics", dataset="crowd").training  # of its kind
    assert one.start is not None
    assert (one.start.name, one.start.dataset_name) == ("common_start", "without_swap")
    assert one.start.dataset == params.file.datasets["without_swap"]
    # What a run is tested on changes nothing about it.
    before = params.resolve("crowd_comics").digest
    project.edit("dataset: crowd, tests: [mini]}\n  without", "dataset: crowd}\n  without")
    assert project.params.resolve("crowd_comics").digest == before
