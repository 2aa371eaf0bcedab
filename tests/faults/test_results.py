"""Results: what a disk, a copy or a hand changes after it was written"""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from injection import HANGS, ROOT, comics, message_of, refused

from comics.data.loading.loaders import Loader
from comics.data.loading.samples import Annotations, ForensicsDataset
from comics.detectors import mask_codec
from comics.errors import UserError
from comics.evaluation import evaluate
from comics.params import TrainingParams, load
from comics.provenance import made_by, write_sidecar

sys.path.insert(0, str(ROOT / "tests" / "workflow"))
from fabricate import copy_project, fabricate

SCORES = "results/mini/{run}/seed0/test_dev.csv"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which every run has (made-up) results, not to be changed."""
    folder = copy_project(tmp_path_factory.mktemp("results") / "project")
    fabricate(load(folder / "params.yaml"), folder)
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "project"))


def change(path: Path, kind: str, rng: random.Random) -> None:
    """Change `path` as `kind` says."""
    raw = path.read_bytes()
    if kind == "one bit":
        place = rng.randrange(len(raw))
        raw = raw[:place] + bytes([raw[place] ^ 1 << rng.randrange(8)]) + raw[place + 1 :]
    elif kind == "cut":
        raw = raw[: rng.randrange(len(raw))]
    elif kind == "header":
        raw = raw.splitlines(keepends=True)[0]
    else:  # a cell
        lines = raw.decode().splitlines(keepends=True)
        cells = lines[1].split(",")
        cells[2] = kind
        raw = "".join([lines[0], ",".join(cells), *lines[2:]]).encode()
    path.write_bytes(raw)


@pytest.mark.injects(
    "a score changed by hand to 98.8, 0.9 or NaN, one bit flipped, the CSV cut in a line or to its header",
    "table, figure, page, metrics and `comics runs` refuse it or say so; nothing is rendered from it; code 2 and the command",
)
@pytest.mark.parametrize(
    "kind",
    ["0.9", "cut", *(pytest.param(k, marks=pytest.mark.faults) for k in ("98.8", "nan", "123", "one bit", "header"))],
)
def test_changed_scores_are_never_rendered(
    project: Path, rng: random.Random, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from comics.cli import app

    monkeypatch.chdir(project)
    path = Path(SCORES.format(run="comics"))
    change(path, kind, rng)
    runner = CliRunner()
    for words in (["table", "table_iv"], ["figure", "figure_9"], ["metrics"]):
        with pytest.raises(UserError, match=str(path)) as caught:
            runner.invoke(app(), words, catch_exceptions=False)
        assert f"--forcerun {path}" in caught.value.remedy
    assert not Path("reports/table_iv.tex").exists()
    assert "Not shown" in runner.invoke(app(), ["page"], catch_exceptions=False).output
    assert "damaged" in runner.invoke(app(), ["runs"], catch_exceptions=False, env={"COLUMNS": "200"}).output


@pytest.mark.injects(
    "the same, with a sidecar that tells the changed file's SHA-256", "refused by line and column, code 2"
)
@pytest.mark.parametrize(
    "kind", ["nan", *(pytest.param(k, marks=pytest.mark.faults) for k in ("98.8", "-1", "123", "header"))]
)
def test_scores_that_are_none_are_refused_whatever_their_sidecar_says(
    project: Path, rng: random.Random, kind: str
) -> None:
    path = project / SCORES.format(run="comics")
    change(path, kind, rng)
    write_sidecar(path, made_by(path))
    refused(comics("table", "table_iv", cwd=project), SCORES.format(run="comics"))


@pytest.mark.faults
@pytest.mark.injects("a changed score, under Snakemake and DVC", "the step fails, the table is not written")
def test_snakemake_and_dvc_stop_at_a_changed_score(project: Path) -> None:
    import subprocess

    from injection import environment

    change(project / SCORES.format(run="comics"), "0.9", random.Random(0))
    for words in (
        ["snakemake", "--cores", "1", "reports/table_iv.tex"],
        ["dvc", "repro", "--single-item", "table@table_iv"],
    ):
        if words[0] == "dvc":
            (project / ".dvc/config").write_text("[core]\n    no_scm = true\n")
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=project,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=HANGS,
        )
        assert done.returncode != 0, done.stdout
        assert not (project / "reports/table_iv.tex").exists()


@pytest.mark.injects(
    "one bit of detections flipped, detections cut", "`comics evaluate` refuses them, code 2, no scores"
)
@pytest.mark.parametrize("kind", ["one bit", "cut"])
def test_changed_detections_are_not_scored(tmp_path: Path, rng: random.Random, kind: str) -> None:
    truth = {"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "Real"}]}
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    path = tmp_path / "found.json"
    path.write_text(json.dumps([{"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [0, 0, 5, 5]}] * 20))
    write_sidecar(path, {"digest": "abc"})
    change(path, kind, rng)
    done = comics("evaluate", "gt.json", "found.json", "--output", "scores.csv", cwd=tmp_path)
    refused(done, "found.json: its bytes have changed")
    assert not (tmp_path / "scores.csv").exists()


@pytest.mark.injects("scores of detections of 7, -1, NaN", "refused by entry, code 2")
@pytest.mark.parametrize("score", ["7", "-1", "NaN"])
def test_scores_of_detections_are_probabilities(score: str) -> None:
    truth = {"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "Real"}]}
    found = [{"image_id": 1, "category_id": 1, "score": json.loads(score), "bbox": [0, 0, 5, 5]}]
    with pytest.raises(UserError, match=r"detections\[0\]\.score"):
        evaluate(truth, found)


@pytest.mark.injects("one bit of the mask codec flipped", "refused, code 2")
def test_a_changed_mask_codec_is_refused(tmp_path: Path, rng: random.Random) -> None:
    path = tmp_path / mask_codec.FILE
    with path.open("wb") as file:
        np.savez(file, mean=np.zeros(784), components=np.eye(784), variances=np.ones(784))
    write_sidecar(path, {"masks": 2})
    assert mask_codec.load(path).mean.shape == (784,)
    change(path, "one bit", rng)
    with pytest.raises(UserError, match="its bytes have changed"):
        mask_codec.load(path)


@pytest.mark.injects("model.pt of a finished run removed", "`comics runs` says `no model.pt`")
def test_a_run_without_weights_is_not_called_trained(project: Path) -> None:
    before = comics("runs", cwd=project).stdout
    assert "no model.pt" not in before
    (project / "results/mini/comics/seed0/model.pt").unlink()
    assert comics("runs", cwd=project).stdout.count("no model.pt") == 1


@pytest.mark.injects(
    "an image of the dataset cut, emptied, exchanged for another size or a decompression bomb, with loader workers",
    "one message that names the file, no traceback of a worker",
)
@pytest.mark.parametrize("kind", ["cut", "empty", "size", "bomb"])
def test_a_damaged_image_is_told_by_its_name(tmp_path: Path, kind: str) -> None:
    import io

    from PIL import Image

    stream = io.BytesIO()
    rows = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(rows).save(stream, "PNG")
    raw = stream.getvalue()
    (tmp_path / "good.png").write_bytes(raw)
    if kind == "size":
        stream = io.BytesIO()
        Image.new("RGB", (32, 64)).save(stream, "PNG")
    bomb = raw[:16] + (100_000).to_bytes(4, "big") * 2 + raw[24:]
    (tmp_path / "bad.png").write_bytes(
        {"cut": raw[: len(raw) // 2], "empty": b"", "size": stream.getvalue(), "bomb": bomb}[kind]
    )
    images = [
        {"id": n, "file_name": name, "width": 64, "height": 64} for n, name in enumerate(("good.png", "bad.png"), 1)
    ]
    (tmp_path / "annotations.json").write_text(json.dumps({"images": images, "annotations": []}))
    dataset = ForensicsDataset(Annotations(tmp_path / "annotations.json"), TrainingParams(image_size=64))
    for workers in (0, 1):
        message = message_of(lambda workers=workers: list(Loader(dataset, batch_size=2, num_workers=workers)))
        assert message is not None
        assert message.startswith(str(tmp_path / "bad.png"))
        assert "Traceback" not in message


@pytest.mark.injects("run lengths as text changed and cut at random places", "decoded, or refused")
def test_no_run_lengths_escape(rng: random.Random) -> None:
    from pycocotools import mask as rle

    size = (40, 60)
    whole = rle.encode(np.asfortranarray((np.indices(size).sum(0) // 7 % 2).astype(np.uint8)))["counts"]
    truth = {
        "images": [{"id": 1, "height": 40, "width": 60}],
        "annotations": [],
        "categories": [{"id": 1, "name": "Real"}],
    }
    for _ in range(300):
        raw = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            raw[rng.randrange(len(raw))] = rng.randrange(32, 127)
        text = bytes(raw[: rng.randrange(len(raw) + 1)] if rng.random() < 0.3 else raw).decode()
        found = [{"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": {"size": list(size), "counts": text}}]
        message = message_of(lambda found=found: evaluate(truth, found))
        assert message is None or "segmentation" in message
