"""All scores as one table, and what would be trained for how long."""

from __future__ import annotations

from pathlib import Path

import pandas
import pytest
from fabricate import edit, fabricate_scores
from typer.testing import CliRunner

import comics.results
from comics import score_files
from comics.cli import app
from comics.errors import UserError
from comics.files import write_json
from comics.params import load
from comics.report import results as reading
from comics.workflow.estimate import plan


def test_every_number_is_a_row(project: Path) -> None:
    params = load()
    assert comics.results.load(params).empty
    for run in ("blendmask", "comics"):
        fabricate_scores(params, project, run)
    scores = comics.results.load(params)
    assert tuple(scores.columns) == comics.results.COLUMNS
    same = [run for run in params.runs if params.canonical(run) in ("blendmask", "comics")]
    assert scores.run.unique().tolist() == same  # runs that come out the same have rows of their own
    one = scores[(scores.run == "comics") & (scores.split == "test_dev") & (scores.task == "detection")]
    one = one[(one["class"] == "Fake") & (one.metric == "AP")]
    path = reading.scores_path(params.resolve("comics"), "test_dev")
    assert one.value.tolist() == [score_files.read_score_file(path)["detection", "Fake", "AP"]]
    assert one.digest.tolist() == [params.resolve("comics").digest]
    assert set(scores.state) == {"current"}
    assert scores[scores.metric == "oLRP_threshold"].value.isna().any()


def test_what_has_changed_is_stale_and_what_is_damaged_refused(project: Path) -> None:
    path = fabricate_scores(load(), project, "intra")[0]
    edit(project / "params.yaml", "{inter_weight: 0}", "{inter_weight: 0.05}")
    assert set(comics.results.load().state) == {"stale"}
    edit(project / "params.yaml", "{inter_weight: 0.05}", "{inter_weight: 0}")
    path.write_text(path.read_text().replace("0.", "0.1", 1))
    with pytest.raises(UserError, match="SHA-256"):
        comics.results.load()


def test_each_file_is_read_once(made_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    original = reading.read_score_file
    monkeypatch.setattr(reading, "read_score_file", lambda path: read.append(Path(path)) or original(path))
    params = load()
    comics.results.load(params)
    for table in params.tables.values():
        reading.read_rows(params, table, table.splits)
    assert len(read) == len({path.resolve() for path in read}) > 40


def test_the_command_writes_csv_and_parquet(made_project: Path) -> None:
    done = CliRunner().invoke(app(), ["results", "--csv", "all.csv", "--parquet", "all.parquet"])
    assert done.exit_code == 0, done.output
    expected = comics.results.load()
    assert f"{len(expected):,} scores" in done.output
    pandas.testing.assert_frame_equal(pandas.read_parquet("all.parquet"), expected)
    assert len(pandas.read_csv("all.csv")) == len(expected)


def test_a_plan_counts_steps_and_takes_the_time_of_the_likest_training(project: Path) -> None:
    params = load()
    images = params.file.datasets["mini"].train
    planned = {one.run.name: one for one in plan(params)}
    first = planned["blendmask"]
    training = first.run.training
    assert first.steps == training.epochs * -(-images // training.batch_size)
    assert first.seconds is None
    assert "temperature_07" not in planned  # the same as comics
    for name, seconds in (("blendmask", 100.0), ("condinst", 300.0)):
        run = params.resolve(name)
        facts = {"run": name, "description": run.description, "steps": 100, "seconds": seconds}
        write_json(run.folder / "run.json", {**facts, "checkpoint_digest": run.checkpoint_digest})
        (run.folder / "model.pt").write_bytes(b"weights")
    planned = {one.run.name: one for one in plan(params)}
    assert "blendmask" not in planned
    assert planned["condinst_comics"].like.run == "condinst"
    assert planned["comics"].like.run == "blendmask"
    assert planned["comics"].seconds == pytest.approx(planned["comics"].steps * 1.0)
    shown = CliRunner().invoke(app(), ["runs", "--plan"], env={"COLUMNS": "120"}).output
    assert "condinst, 3.00 s" in shown
    assert "comics" in shown
