"""`make demo` after an interruption, a second time, and beside another pipeline."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from conftest import Run

from comics.pipeline import DEMO_TARGETS, wait_for_others


def test_a_second_demo_does_nothing_and_says_so_even_after_a_kill(made_project: Path, run: Run) -> None:
    siblings = {".tex": (".tex", ".csv", ".md"), ".html": (".html",)}
    for target in DEMO_TARGETS:
        for suffix in siblings.get(Path(target).suffix, (".pdf", ".svg", ".png")):
            path = (made_project / target).with_suffix(suffix)
            path.parent.mkdir(exist_ok=True)
            path.write_text("made")
    # What a killed Snakemake leaves behind.
    locks = made_project / ".snakemake/locks"
    locks.mkdir(parents=True)
    (locks / "0.output.lock").write_text("results/mini/da/seed0/model.pt\n")
    (locks / "0.input.lock").write_text("")
    done = run("comics", "demo", cwd=made_project)
    assert "Nothing to do" in done.stdout
    assert "Running" not in done.stdout
    assert "reports/table_*.md" in done.stdout  # where to look
    assert "da_fea" in done.stdout


def test_the_demo_waits_for_a_pipeline_at_work_in_the_folder(project: Path) -> None:
    pretended = project / "snakemake"
    pretended.write_text("import time\ntime.sleep(1.5)\n")
    with subprocess.Popen([sys.executable, str(pretended)], cwd=project) as other:
        time.sleep(0.3)
        wait_for_others(interval=0.1)
        assert other.poll() is not None
    with subprocess.Popen([sys.executable, str(pretended)], cwd="/") as elsewhere:
        time.sleep(0.3)
        wait_for_others(interval=0.1)
        assert elsewhere.poll() is None
