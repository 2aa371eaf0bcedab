"""A project in a temporary folder: the repository's params.yaml and fabricated results."""

from __future__ import annotations

import csv
import random
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from comics import params as params_module
from comics.params import METRICS, TASKS, TEST_SPLITS, Params
from comics.provenance import write_sidecar
from comics.report.results import resolved_runs, scores_path

REPOSITORY = Path(__file__).parents[3]
TABLE_IV = ("blendmask", "da", "fea", "bi_grained", "da_fea", "fea_bi", "da_bi", "comics")


class Project:
    """A folder that looks like a checkout with results in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copy(REPOSITORY / "params.yaml", root / "params.yaml")

    @property
    def params(self) -> Params:
        return params_module.load(self.root / "params.yaml")

    def edit(self, old: str, new: str) -> None:
        """Replace one text of params.yaml."""
        text = (self.root / "params.yaml").read_text()
        assert text.count(old) == 1, old
        (self.root / "params.yaml").write_text(text.replace(old, new))

    def scores(self, runs: Iterable[str], **fixed: float | None) -> None:
        """Fabricate scores of `runs`: random, but equal from call to call; `fixed` metrics as given."""
        for run in runs:
            for resolved in resolved_runs(self.params, run):
                for split in TEST_SPLITS:
                    rng = random.Random(f"{resolved.name} {resolved.seed} {split}")
                    path = self.root / scores_path(resolved, split)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with path.open("w", newline="") as file:
                        writer = csv.writer(file)
                        writer.writerow(["task", "class", *METRICS, "oLRP_threshold"])
                        for task in TASKS:
                            for cls in ("all", "Real", "Fake"):
                                drawn = {metric: rng.uniform(0.2, 0.7) for metric in METRICS} | fixed
                                values = ["" if value is None else value for value in drawn.values()]
                                writer.writerow([task, cls, *values, 0.4])
                    write_sidecar(
                        path,
                        {
                            "digest": resolved.digest,
                            "run": resolved.name,
                            "dataset": resolved.dataset_name,
                            "seed": resolved.seed,
                            "split": split,
                        },
                    )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An empty project, which is also the working folder."""
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)
