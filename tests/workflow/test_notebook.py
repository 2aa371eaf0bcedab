"""The notebook runs from its first cell to its last, on results as the pipeline leaves them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from fabricate import ROOT, Run, fabricate_scores

from comics.params import load

NOTEBOOK = ROOT / "notebooks/results.ipynb"


def test_the_notebook_draws(project: Path, run: Run) -> None:
    for name in ("blendmask", "comics"):
        fabricate_scores(load(), project, name)
    (project / "notebooks").mkdir()
    copy = project / "notebooks" / NOTEBOOK.name
    shutil.copyfile(NOTEBOOK, copy)
    run("jupyter", "execute", "--inplace", copy.name, cwd=copy.parent, PYTHONPATH=str(ROOT))
    cells = {cell["id"]: cell.get("outputs") for cell in json.loads(copy.read_text())["cells"]}
    assert any("comics" in line for line in cells["table"][0]["data"]["text/plain"])
    for drawn in ("bars", "scatter"):
        assert [output for output in cells[drawn] if "image/png" in output.get("data", {})]


def test_the_notebook_is_stored_without_results() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)
