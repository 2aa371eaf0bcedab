"""A copy of the project with small made-up datasets, weights, detections and scores, as if the pipeline had run."""

from __future__ import annotations

import csv
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from comics.files import write_json
from comics.params import METRICS, SPLITS, TASKS, TEST_SPLITS, Params
from comics.provenance import write_sidecar
from comics.report.results import resolved_runs
from comics.report.tables import comparison_path

Run = Callable[..., subprocess.CompletedProcess[str]]
"""The fixture `run`."""

ROOT = Path(__file__).parents[2]
COPIED = (
    "params.yaml",
    "Snakefile",
    "dvc.yaml",
    ".dvcignore",
    ".dvc",
    "workflow",
    "profiles",
    "comics",
    "reports/README.md",
)


def copy_project(folder: Path) -> Path:
    """What a clone would hold of the files that the workflow reads, without anything it made."""
    ignore = shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local")
    for name in COPIED:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=ignore)
        elif source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    (folder / "results").mkdir()
    return folder


def fabricate_scores(params: Params, folder: Path, run: str, seed: int = 0) -> list[Path]:
    """Write plausible score files of `run` and their sidecars under `folder`; return the score files."""
    resolved = params.resolve(run, seed)
    paths = []
    for split in TEST_SPLITS:
        draw = random.Random(f"{run} {seed} {split}")
        path = folder / resolved.folder / f"{split}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["task", "class", *METRICS, "oLRP_threshold"])
            for task in TASKS:
                for name in ("all", "Real", "Fake"):
                    threshold = "" if name == "all" else 0.5
                    writer.writerow([task, name, *(draw.uniform(0.2, 0.9) for _ in METRICS), threshold])
        made_by = {"run": run, "dataset": params.dataset, "split": split, "seed": seed, "digest": resolved.digest}
        write_sidecar(path, made_by)
        paths.append(path)
    return paths


def fabricate_dataset(params: Params, folder: Path) -> None:
    """Write COCO files without images for every split, and a mask code in name only."""
    for split in SPLITS:
        categories = [{"id": 1, "name": "Real"}, {"id": 2, "name": "Fake"}]
        content = {"images": [], "annotations": [], "categories": categories}
        path = folder / "data" / params.dataset / split / "annotations.json"
        write_json(path, content)
    (folder / "data" / params.dataset / "mask_codec.npz").write_bytes(b"code")


def fabricate(params: Params, folder: Path) -> None:
    """Everything that the whole workflow makes before it renders, for every run that is trained, in its order."""
    fabricate_dataset(params, folder)
    # What others start from is older than they are, wherever it stands in the file.
    for run in dict.fromkeys(map(params.canonical, [*params.starts, *params.runs])):
        for seed in params.seeds(run):
            resolved = params.resolve(run, seed)
            described = {"digest": resolved.digest, "checkpoint_digest": resolved.checkpoint_digest}
            write_json(folder / resolved.folder / "run.json", described)
            (folder / resolved.folder / "model.pt").write_bytes(b"weights")
            for split in TEST_SPLITS:
                path = folder / resolved.folder / f"{split}.detections.json"
                write_json(path, [])
                write_sidecar(path, {"run": run, "split": split, "seed": seed, "digest": resolved.digest})
            fabricate_scores(params, folder, run, seed)
    for name, table in params.tables.items():
        runs = [one for row in table.rows if row.run for one in resolved_runs(params, row.run)]
        digests = {f"{one.name} seed {one.seed}": one.digest for one in runs}
        write_json(folder / comparison_path(params, name), {"digests": digests, "comparisons": [], "similar": []})


def planned(text: str) -> dict[str, int]:
    """Jobs by rule, from the output of ``snakemake -n``."""
    block = re.search(r"^job +count\n[- ]+\n(.*?)^total", text, re.DOTALL | re.MULTILINE)
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", block[1], re.MULTILINE)} if block else {}


def edit(path: Path, old: str, new: str) -> None:
    """Replace the one occurrence of `old`."""
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path}"
    path.write_text(text.replace(old, new))
