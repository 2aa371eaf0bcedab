"""The examples of docs/reports.md, taken as they stand there, and the table of slips."""

import functools
import re

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from comics import reported
from comics.cli import app
from comics.evaluation.seeds import compare_runs
from comics.params import TEST_SPLITS
from comics.report import figures, study, tables
from comics.report.results import elsewhere_path

from .conftest import REPOSITORY

DOCS = (REPOSITORY / "docs/reports.md").read_text(encoding="utf-8")


@pytest.fixture
def extended(project):
    """A project whose params.yaml has every example of the docs."""
    yaml = YAML(typ="safe", pure=True)
    yaml.width = 1000  # a key that is broken over lines is none
    path = project.root / "params.yaml"
    content = yaml.load(path)
    for example in re.findall(r"```yaml\n(.*?)```", DOCS, re.S):
        for kind, entries in yaml.load(example).items():
            content[kind].update(entries)
    with path.open("w") as file:
        yaml.dump(content, file)
    return project


def score_theirs(project):
    """The row of detections that were made elsewhere, as the workflow scores it."""
    project.dataset()
    project.detections(["comics"])
    found = project.root / project.params.resolve("comics").folder / "test_challenge.detections.json"
    (row,) = [one for one in project.params.tables["my_table"].rows if one.detections]
    (project.root / row.detections).parent.mkdir()
    (project.root / row.detections).write_bytes(found.read_bytes())
    scores = elsewhere_path("mini", row, "test_challenge")
    truth = "data/mini/test_challenge/annotations.json"
    done = CliRunner().invoke(app(), ["evaluate", truth, row.detections, "--output", str(scores)])
    assert done.exit_code == 0, done.output


def test_the_table_of_the_docs_renders(extended):
    extended.scores(["blendmask", "comics"])
    score_theirs(extended)
    table = tables.build(extended.params, "my_table", extended.root)
    assert [line.labels for line in table.blocks["test_challenge"]] == [
        ("BlendMask", "base"),
        ("COMICS", "ours"),
        ("YOLO", "theirs"),
    ]
    assert "Trained for half the time." in tables.to_latex(table)


@pytest.mark.parametrize("name", ["my_scatter", "my_examples", "my_comparison"])
def test_the_figures_of_the_docs_render(extended, name):
    runs = ["blendmask", "bi_grained", "comics"]
    splits = (*TEST_SPLITS, "val")
    extended.scores(runs)
    if name == "my_scatter":
        score_theirs(extended)
    extended.dataset(4, splits=splits)
    extended.detections(runs)
    written = figures.draw(extended.params, name, extended.root / f"{name}.pdf", extended.root)
    assert all(path.stat().st_size > 1000 for path in written)


def test_the_study_of_the_docs_is_computed_and_rendered(extended):
    extended.dataset(4, splits=["test_challenge"])
    extended.detections(["warm", "cool"], ["test_challenge"])
    params = extended.params
    few = functools.partial(compare_runs, samples=5)
    study.compute(params, "temperature", lambda *files, **_: few(*files), extended.root)
    written = study.render(params, "temperature", extended.root / "studies", extended.root)
    assert "τ = 0.07" in written[1].read_text(encoding="utf-8")


def test_the_slips_of_the_docs_are_those_of_the_code():
    section = DOCS[DOCS.index("Rows that slip") : DOCS.index("## Refusals")]
    listed = {number for line in section.splitlines() for number in re.findall(r"^\| ([IVX, ]+) \|", line)}
    assert {number for numbers in listed for number in numbers.split(", ")} == {slip.table for slip in reported.SLIPS}
