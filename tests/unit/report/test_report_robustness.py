"""Robustness: perturbed, found and scored in memory; degradations by hand; table and figures from measurements."""

from __future__ import annotations

import csv
from typing import Any

import numpy as np
import pytest
import torch

from comics.data.perturb.severity import FAMILY_OF, Severity
from comics.detect import robustness as measuring
from comics.errors import UserError
from comics.evaluation.scores import write_table
from comics.params import RobustnessParams
from comics.provenance import write_sidecar
from comics.report import page, robustness
from comics.report.results import NotMade, resolved_runs, robustness_path

BLOCK = "  images: 12                    # of the split; two runs take a few minutes on two cores\n"


def measured(title: str, clean: float, values: dict[tuple[str, int], float]) -> robustness.Measured:
    families = {name: FAMILY_OF[name] for name, _ in values}
    return robustness.Measured(title, {("none", 0): clean, **values}, families, {})


def test_degradations_are_those_of_hendrycks_and_dietterich():
    block = RobustnessParams(runs=["a", "b"], severities=[1, 2], families=["colour", "corruption"])
    a = measured("a", 0.8, {("hue", 1): 0.7, ("hue", 2): 0.5, ("jpeg", 1): 0.6, ("jpeg", 2): 0.4})
    b = measured("b", 0.9, {("hue", 1): 0.8, ("hue", 2): 0.8, ("jpeg", 1): 0.3, ("jpeg", 2): 0.3})
    first, second = robustness.degradations(block, {"a": a, "b": b})
    assert (first.mce, first.relative) == (1, 1)
    assert second.mce == pytest.approx(((0.2 + 0.2) / (0.3 + 0.5) + (0.7 + 0.7) / (0.4 + 0.6)) / 2)
    # Increases of b: 0.4 - 0.2 and 1.4 - 0.2; of a: 0.8 - 0.4 and 1.0 - 0.4.
    assert second.relative == pytest.approx((0.2 + 1.2) / (0.4 + 0.6))
    assert second.perturbed == pytest.approx(0.55)
    assert second.families == pytest.approx({"colour": -0.1, "corruption": -0.6})
    lower = RobustnessParams(runs=["a"], severities=[1], families=["colour"], metric="oLRP")
    assert a.error(("hue", 1), lower.metric) == 0.7


def fabricate(project: Any, run: str, fall: float) -> None:
    """Measurements that fall by `fall` a severity."""
    params = project.params
    block = robustness.block_of(params)
    for one in resolved_runs(params, run):
        rows = []
        for task in ("detection", "segmentation"):
            for name, level in [("none", 0), *((name, level) for name in FAMILY_OF for level in block.severities)]:
                row = [0.9 - fall * level] * len(measuring.SHOWN)
                rows.append([name, FAMILY_OF.get(name, "none"), level, 30.0 if level else None, 0.9, task, *row])
        path = project.root / robustness_path(one)
        write_table(path, measuring.HEADER, rows)
        write_sidecar(path, {"digest": one.digest, "conditions": robustness.conditions(block)})


def test_rendered_from_measurements(project, tmp_path):
    with pytest.raises(NotMade, match=r"robustness\.csv: no such result"):
        robustness.render(project.params, tmp_path, project.root)
    fabricate(project, "blendmask", 0.1)
    fabricate(project, "comics", 0.05)
    paths = robustness.render(project.params, tmp_path, project.root)
    assert sorted(path.name for path in paths) == sorted(
        [f"table{one}" for one in (".tex", ".md", ".csv")]
        + [f"{name}{one}" for name in ("curves", "heat_map") for one in (".pdf", ".svg", ".png")]
    )
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert float(rows["blendmask"]["mce"]) == 100
    assert float(rows["comics"]["perturbed"]) == pytest.approx(75)
    assert float(rows["comics"]["mce"]) == pytest.approx(100 * (0.5 + 0.75) / (0.5 + 1.5))
    assert float(rows["comics"]["social"]) == pytest.approx(-15)
    assert "relative to BlendMask" in (tmp_path / "table.md").read_text()
    shown = page.gather(project.params, project.root)
    assert {"curves", "heat_map"} <= {chart["name"].removeprefix("robustness_") for chart in shown.charts}


def test_other_conditions_are_refused(project, tmp_path):
    fabricate(project, "blendmask", 0.1)
    fabricate(project, "comics", 0.1)
    project.edit(BLOCK, "  images: 6\n")
    with pytest.raises(UserError, match="other conditions") as caught:
        robustness.render(project.params, tmp_path, project.root)
    assert "snakemake" in caught.value.remedy


class Oracle:
    """Finds every face of the images it was told of, wherever a bright oval is: as a stand-in for a trained run."""

    def __init__(self, run: Any, root: Any) -> None:
        self.run = run
        self.model = type("Model", (), {"detector": type("Detector", (), {"predicts_boxes": True})})
        self.seen: list[torch.Tensor] = []

    def __call__(self, images: torch.Tensor, sizes: list[tuple[int, int]]) -> list[dict[str, torch.Tensor]]:
        self.seen.append(images)
        found = []
        for image, (height, width) in zip(images, sizes, strict=True):
            mask = torch.zeros(1, height, width, dtype=torch.bool)
            mask[0, 10:40, 10:40] = image[0, :height, :width][10:40, 10:40] > 0.3
            box = torch.tensor([[10.0, 10.0, 40.0, 40.0]])
            found.append({"boxes": box, "scores": torch.tensor([0.9]), "labels": torch.tensor([1]), "masks": mask})
        return found


def test_measured_in_memory(project, monkeypatch):
    project.dataset(5, splits=["test_dev"])
    monkeypatch.setattr(measuring, "Predictor", Oracle)
    block = RobustnessParams(runs=["comics"], images=3, severities=[1, 4], families=["geometry", "social"])
    names = measuring.operations(block)
    assert names == ["flip", "rotate", "elastic", "upload", "passed_on", "screenshot"]
    severities = {name: tuple(Severity(level / 4, 30.0, 0.9) for level in range(5)) for name in names}
    (run,) = resolved_runs(project.params, "comics")
    before = sorted(project.root.rglob("*"))
    rows = measuring.measure(run, block, severities, project.root)
    assert sorted(project.root.rglob("*")) == before  # no image is written
    assert len(rows) == 2 * (1 + len(names) * 2)
    assert [row[:3] for row in rows[:3]] == [["none", "none", 0], ["none", "none", 0], ["flip", "geometry", 1]]
    assert len({(*tuple(row[:3]), row[5]) for row in rows}) == len(rows)
    with pytest.raises(UserError, match="No severities of screenshot"):
        measuring.measure(run, block, {name: severities[name] for name in names[:-1]}, project.root)


def test_faces_move_with_the_pixels(project):
    project.dataset(2, splits=["test_dev"])
    (run,) = resolved_runs(project.params, "comics")
    photos = measuring.read_photos(project.root / run.annotations("test_dev"), 2)
    flipped = measuring.perturbed(photos, "flip", 0.0)
    assert (flipped.images[0] == photos.images[0][:, ::-1]).all()
    before, after = photos.truth["annotations"][0]["bbox"], flipped.truth["annotations"][0]["bbox"]
    assert after[0] == pytest.approx(photos.images[0].shape[1] - before[0] - before[2], abs=2)
    same = measuring.perturbed(photos, "gaussian_noise", 0.5)
    assert same.truth["annotations"] == photos.truth["annotations"]
    assert not np.array_equal(same.images[0], photos.images[0])
