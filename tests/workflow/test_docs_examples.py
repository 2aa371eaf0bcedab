"""What the documentation tells to write, taken out of its text: a file that extends, a sweep, a backbone. The detector of
docs/add-a-detector.md is in tests/unit/test_detectors_example.py."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from fabricate import ROOT, Run, planned

from comics.params import load


def block(page: str, holding: str) -> str:
    """The one block of YAML of a page that holds a text."""
    blocks = re.findall(r"^```ya?ml\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (found,) = [text for text in blocks if holding in text]
    return found


def test_a_file_that_extends_with_a_sweep_and_its_table(project: Path, run: Run) -> None:
    """One file: six runs of three seeds, a table with their rows, beside what params.yaml makes."""
    text = block("docs/workflow.md", "grid:")
    Path("mine.yaml").write_text(text)
    base, params = load("params.yaml"), load("mine.yaml")
    swept = [name for name in params.runs if name not in base.runs]
    assert len(swept) == 6
    page = (ROOT / "docs/workflow.md").read_text(encoding="utf-8")
    assert swept[0] in page  # it names one
    first = params.resolve(swept[0])
    assert (first.detector, first.objective.temperature) == ("blendmask", 0.07)
    assert [row.run for row in params.tables["tau"].rows] == swept
    assert params.seeds(swept[0]) == [0, 1, 2]
    (order,) = re.findall(r"^snakemake (--config params=mine\.yaml .*?)$", page, re.MULTILINE)
    jobs = planned(run("snakemake", "-n", *shlex.split(order, comments=True), cwd=project).stdout)
    assert jobs["train"] == 6 * 3 + 1  # and the start of all
    assert jobs["table"] == 1


def test_a_backbone(project: Path) -> None:
    """One entry under `runs:`."""
    text = block("docs/detectors.md", "backbone: timm/")
    Path("mine.yaml").write_text(f"extends: params.yaml\n{text}")
    params = load("mine.yaml")
    (name,) = [name for name in params.runs if name not in load("params.yaml").runs]
    run = params.resolve(name)
    assert f"backbone: {run.model.backbone}," in text
    assert run.model.backbone.startswith("timm/")
    assert run.training.layer_decay < 1
