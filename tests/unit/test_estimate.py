"""The time estimate of a plan: which finished training a planned one is taken to be like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from comics.params import load
from comics.workflow.estimate import done, plan

ROOT = Path(__file__).parents[2]


def finished(root: Path, name: str, description: dict[str, Any], seconds: float) -> None:
    path = root / "results/mini" / name / "seed7/run.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"run": name, "description": description, "steps": 100, "seconds": seconds}))


def test_every_component_counts(tmp_path: Path) -> None:
    """DCL takes longer than the same run without it."""
    params = load(ROOT / "params.yaml")
    description = params.resolve("two_phase_dcl").description
    finished(tmp_path, "without", {key: value for key, value in description.items() if key != "objective"}, 100)
    finished(tmp_path, "with", description, 170)
    assert {one.run: one.components for one in done(params, tmp_path)} == {
        "without": {"views"},
        "with": {"views", "dual"},
    }
    planned = {one.run.name: one for one in plan(params, tmp_path)}
    assert planned["two_phase_dcl"].like is not None
    assert planned["two_phase_dcl"].like.run == "with"
    assert planned["two_phase_dcl"].seconds == 1.7 * (planned["two_phase_dcl"].steps or 0)
    assert planned["da"].like is not None
    assert planned["da"].like.run == "without"
