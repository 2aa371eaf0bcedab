"""The whole pipeline with `dataset: openforensics`: from a record on loopback to a rendered Table IV."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from loopback import Record, Server, make_raw, pack

ROOT = Path(__file__).parents[2]
PARAMS = """
dataset: openforensics
datasets:
  openforensics: {{kind: openforensics, base_url: "{url}"}}
training:
  openforensics:
    {{epochs: 1, batch_size: 2, milestones: [1], warmup_iterations: 0, lr: 0.001, image_size: 64, workers: 0}}
models:
  openforensics: {{backbone: resnet18, fpn_channels: 16, head_channels: 16, head_convs: 1, mask_channels: 16}}
runs:
  comics: {{components: [views, attention, coarse, fine]}}
tables:
  table_iv:
    caption: Ablation
    paper: IV
    rows:
      - {{label: COMICS, run: comics}}
figures: {{}}
"""


def test_from_the_record_to_table_iv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = make_raw(tmp_path / "published", {"train": 4, "val": 1, "test_dev": 2, "test_challenge": 2})
    project = tmp_path / "project"
    project.mkdir()
    for name in ("workflow", "profiles"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns(".snakemake", "__pycache__"))
    shutil.copy(ROOT / "Snakefile", project)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def snakemake() -> str:
        command = [sys.executable, "-m", "snakemake", "--cores", "1", "reports/table_iv.tex"]
        done = subprocess.run(
            command,
            cwd=project,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=280,
        )
        logs = "".join(f"\n{path}:\n{path.read_text()}" for path in sorted(project.glob("logs/**/*.log")))
        assert done.returncode == 0, done.stdout + logs
        return done.stdout

    with Server(Record(pack(raw))) as server:
        (project / "params.yaml").write_text(PARAMS.format(url=server.url))
        snakemake()
        asked = len(server.record.requests)
        assert asked == len(server.record.files)
        assert "Nothing to be done" in snakemake()
        assert len(server.record.requests) == asked

    assert "COMICS" in (project / "reports/table_iv.tex").read_text()
    for split in ("test_dev", "test_challenge"):
        with (project / f"results/openforensics/comics/seed0/{split}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [(row["task"], row["class"]) for row in rows] == [
            (task, name) for task in ("detection", "segmentation") for name in ("all", "Real", "Fake")
        ]
        assert all(float(row["oLRP"]) > 0 for row in rows)
