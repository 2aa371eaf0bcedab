"""Rows of detections that were made elsewhere: scored here, marked so, never compared with ours."""

from __future__ import annotations

import csv
import json

import pytest
from typer.testing import CliRunner

from comics.cli import app
from comics.errors import UserError
from comics.params import load
from comics.provenance import read_sidecar
from comics.report import comparison, figures, page, tables
from comics.report.results import NotCurrent, elsewhere_path

ROW = "      - {label: Theirs, detections: 'theirs/{split}.json'}\n"
OURS = "      - {label: BlendMask, paper: BlendMask, run: blendmask, optional: true}\n"


@pytest.fixture
def theirs(project):
    """Two rows of ours in Table II, and detections of a third system, scored as the workflow does."""
    text = (project.root / "params.yaml").read_text()
    first = text.index(OURS)  # Table II's
    (project.root / "params.yaml").write_text(text[:first] + ROW + text[first:])
    project.dataset()
    project.detections(["comics"])
    project.scores(["blendmask", "comics"])
    (project.root / "theirs").mkdir()
    run = project.params.resolve("comics")
    for split in ("test_dev", "test_challenge"):
        found = (project.root / run.folder / f"{split}.detections.json").read_bytes()
        (project.root / "theirs" / f"{split}.json").write_bytes(found)
    score(project)
    return project


def row_of(project):
    return next(row for row in project.params.tables["table_ii"].rows if row.detections)


def score(project, split="test_dev"):
    truth, file = f"data/mini/{split}/annotations.json", f"theirs/{split}.json"
    path = elsewhere_path("mini", row_of(project), split)
    done = CliRunner().invoke(app(), ["evaluate", truth, file, "--output", str(path), "--no-verdicts"])
    assert done.exit_code == 0, done.output
    return path


def build(project, **options):
    return tables.build(project.params, "table_ii", project.root, **options)


def test_it_is_scored_here_and_marked(theirs):
    table = build(theirs)
    lines = table.blocks["test_dev"]
    (line,) = [one for one in lines if one.kind == "elsewhere"]
    path = elsewhere_path("mini", row_of(theirs), "test_dev")
    with path.open() as file:
        scores = {(one["task"], one["class"]): one for one in csv.DictReader(file)}
    cell = line.cell("segmentation", "AP")
    assert cell.value == float(scores["segmentation", "all"]["AP"])
    assert 0 < cell.value < 1
    assert all((one.rank, one.similar) == (0, False) for one in line.cells)
    assert "‡: run elsewhere, its detections scored here on mini" in " ".join(table.remarks)
    digest = read_sidecar(path)["detections_sha256"][:16]
    assert table.runs["theirs/test_dev.json"] == digest
    latex, markdown = tables.to_latex(table), tables.to_markdown(table)
    assert r"Theirs$^\ddagger$ & elsewhere & " in latex
    assert f"% theirs/test_dev.json: digest {digest}" in latex
    assert "| Theirs ‡ | " in markdown
    sources = {one["source"]: one for one in csv.DictReader(tables.to_csv(table).splitlines())}
    assert sources["elsewhere"]["run"] == "theirs/test_dev.json"
    assert "Theirs" not in " ".join(one.labels[0] for one in build(theirs, delta=True).blocks["test_dev"])
    html = page.to_html(theirs.params, page.gather(theirs.params, theirs.root))
    assert "run elsewhere, scored here from theirs/test_dev.json" in html


def test_the_best_is_found_among_ours_alone(theirs):
    """Perfect detections of somebody else take no rank from ours."""
    theirs.scores(["blendmask", "comics"], AP=0.01)
    lines = build(theirs).blocks["test_dev"]
    assert max(one.cell("segmentation", "AP").value for one in lines if one.kind == "elsewhere") > 0.1
    assert {one.cell("segmentation", "AP").rank for one in lines if one.kind == "ours"} == {1}
    rows = tables.read_rows(theirs.params, theirs.params.tables["table_ii"], ["test_dev"], theirs.root)
    pairs = list(comparison.pairs_of(theirs.params.tables["table_ii"], rows))
    assert {name for pair in pairs for name in pair.key[2:]} == {"blendmask", "comics"}


def test_a_scatter_draws_it_as_neither_measured_here_nor_reported(theirs):
    figure = theirs.params.figures["figure_9"]
    (point,) = [one for one in figures.scatter_points(theirs.params, figure, "detection", theirs.root) if one.elsewhere]
    assert (point.label, point.run, point.highlighted) == ("Theirs", None, False)
    figures.draw(theirs.params, "figure_9", theirs.root / "figure_9.pdf", theirs.root)
    assert "run elsewhere, scored here" in (theirs.root / "figure_9.svg").read_text()


def test_other_detections_are_refused_until_they_are_scored(theirs):
    file = theirs.root / "theirs" / "test_dev.json"
    file.write_text(json.dumps(json.loads(file.read_text())[1:]))
    with pytest.raises(NotCurrent, match="made from other detections") as caught:
        build(theirs)
    path = elsewhere_path("mini", row_of(theirs), "test_dev")
    assert caught.value.remedy == f"Renew with: snakemake {path} --forcerun {path}"
    score(theirs)
    build(theirs)
    file.unlink()
    build(theirs)  # scores may travel without what they were made from
    path.write_text(path.read_text().replace("0.", "0.1", 1))
    with pytest.raises(NotCurrent, match="its bytes have changed"):
        build(theirs)


def test_without_scores_it_is_refused_or_left_out(theirs):
    path = elsewhere_path("mini", row_of(theirs), "test_dev")
    path.unlink()
    with pytest.raises(NotCurrent, match="no such result") as caught:
        build(theirs)
    assert caught.value.remedy == f"Renew with: snakemake {path}"
    assert any(remark.startswith("Not made yet: Theirs") for remark in build(theirs, available=True).remarks)
    theirs.edit("'theirs/{split}.json'}", "'theirs/{split}.json', optional: true}")
    with pytest.raises(NotCurrent):
        build(theirs)  # the detections are there
    (theirs.root / "theirs" / "test_dev.json").unlink()
    assert "elsewhere" not in {one.kind for one in build(theirs).blocks["test_dev"]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{label: A, detections: a.json, run: comics}", "has both `run` and `detections`"),
        ("{label: A, detections: a.json}", "detections: one file for 2 test sets"),
        ("{label: A}", "names neither a run, nor detections, nor a row of the paper"),
    ],
)
def test_rows_that_cannot_be_are_named(project, row, message):
    project.edit("      - {label: FL, run: fine, paper: FL}\n", f"      - {row}\n")
    with pytest.raises(UserError, match=message) as caught:
        load(project.root / "params.yaml")
    assert "tables.table_v.rows[3]" in caught.value.message
