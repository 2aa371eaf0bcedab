"""A file that extends another, runs over a grid, and names that nothing bears."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML
from test_params import SMALL, write
from typer.testing import CliRunner

from comics.cli import app
from comics.errors import UserError
from comics.params import json_schema, load

ROOT = Path(__file__).parents[2]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write(tmp_path, SMALL)


def own(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text("extends: params.yaml\n" + text)
    return path


def test_a_file_states_what_differs(base: Path, tmp_path: Path) -> None:
    mine = load(
        own(
            tmp_path,
            "training: {mini: {epochs: 5}}\nruns: {cold: null, hot: {objective: {temperature: 2.0}}}\ntables: {table_one: null}",
        )
    )
    assert mine.runs == ["plain", "coarse", "same", "hot"]
    assert mine.tables == {}
    assert mine.resolve("plain").training.epochs == 5
    assert mine.resolve("plain").training.lr == 1e-4
    assert mine.reports == Path("reports/mine")


def test_what_two_files_share_is_made_once_and_the_rest_lies_side_by_side(base: Path, tmp_path: Path) -> None:
    shipped = load(base)
    mine = load(
        own(
            tmp_path,
            "runs: {cold: {objective: {temperature: 0.08}}, twin: {components: [coarse]}, new: {components: [fine]}}",
        )
    )
    assert mine.resolve("plain").folder == shipped.resolve("plain").folder
    assert mine.resolve("twin").folder == shipped.resolve("coarse").folder  # another name for the same run
    assert mine.resolve("cold").folder == Path("results/mini/mine.cold/seed0") != shipped.resolve("cold").folder
    assert mine.resolve("mine.cold") == mine.resolve("cold")
    assert mine.compared("comparisons") != shipped.compared("comparisons")
    folders = {
        name: load(own(tmp_path, "runs: {new: {components: [fine]}}", name)).resolve("new").folder
        for name in ("a.yaml", "b.yaml")
    }
    assert folders["a.yaml"] != folders["b.yaml"]


def test_a_file_may_extend_one_that_extends(base: Path, tmp_path: Path) -> None:
    own(tmp_path, "runs: {warm: {objective: {temperature: 1.0}, components: [coarse]}}", "a.yaml")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\nseeds: [3]\nruns: {last: {components: [fine]}}\n")
    last = load(tmp_path / "b.yaml")
    assert last.resolve("warm").folder == Path("results/mini/a.warm/seed3")
    assert last.resolve("last").folder == Path("results/mini/b.last/seed3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: absent.yaml\n", "there is no file"),
        ("extends: mine.yaml\n", "extends this file in turn"),
        ("extends: [params.yaml]\n", "expected a file's path"),
        ("extends: params.yaml\nruns: {hot: {objektive: {}}}\n", r"mine.yaml: runs.hot.objektive: unknown key"),
    ],
)
def test_what_cannot_be_extended_is_said(base: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load(tmp_path / "mine.yaml")


GRID = """
  tau: {title: "tau {objective.temperature}", seeds: [0, 1, 2], components: [coarse],
        grid: {detector: [blendmask, condinst], objective.temperature: [0.07, 0.2, 0.7]}}
tables:
  table_one: {caption: One., columns: [Detector, Tau], rows: {grid: tau}}
"""


def test_a_grid_is_its_product_and_a_table_has_its_rows(tmp_path: Path) -> None:
    params = load(write(tmp_path, SMALL[: SMALL.index("tables:")] + GRID.lstrip("\n")))
    names = [f"tau_{detector}_{tau}" for detector in ("blendmask", "condinst") for tau in ("007", "02", "07")]
    assert params.runs[-6:] == names
    assert [(row.run, row.label) for row in params.tables["table_one"].rows][1] == (names[1], ["blendmask", "0.2"])
    last = params.resolve("tau_condinst_07")
    assert (last.detector, last.objective.temperature, last.params.title) == ("condinst", 0.7, "tau 0.7")
    assert params.seeds("tau_condinst_07") == [0, 1, 2]


def test_settings_that_change_together(tmp_path: Path) -> None:
    grid = "  both: {components: [fine], grid: {'objective.fine.intra_weight, objective.fine.inter_weight': [[1.0, 0.1], [0.5, 1.0]]}}\n"
    params = load(write(tmp_path, SMALL.replace("tables:", grid + "tables:")))
    assert params.runs[-2:] == ["both_1_01", "both_05_1"]
    fine = params.resolve("both_05_1").objective.fine
    assert (fine.intra_weight, fine.inter_weight) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("grid: {}", "expected settings"),
        ("grid: {seeds: 3}", "expected a list"),
        ("grid: {objective.temprature: [1.0]}", r"runs.tau_1.objective.temprature: unknown key"),
        ("grid: {objective.temperature: [0.1, '01']}", "two runs come out as 'tau_01'"),
        ("grid: {'model.fpn_channels, model.head_channels': [8]}", "not a list of 2 values"),
    ],
)
def test_a_grid_that_is_none(tmp_path: Path, entry: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(write(tmp_path, SMALL.replace("tables:", f"  tau: {{{entry}}}\ntables:")))


def test_rows_of_no_grid(tmp_path: Path) -> None:
    rows = re.sub(r"rows:\n.*\n", "rows: {grid: tao}\n", SMALL)
    with pytest.raises(UserError, match="there is no grid 'tao'"):
        load(write(tmp_path, rows))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  mini: {epochs: 2, lr: 1e-4}", "  mimi: {epochs: 2}", r"training.mimi: there is no dataset 'mimi'"),
        ("  mini: {backbone: resnet18}", "  mimi: {}", r"models.mimi: there is no dataset 'mimi'"),
        ("dataset: mini", "dataset: mini\nseeds: [4294967296]", r"seeds\[0\]"),
        ("lr: 1e-4", "lr: .inf", r"training.mini.lr"),
        ("epochs: 2", "epochs: 1000000000", r"training.mini.epochs"),
        ("epochs: 2", "epochs: '1e9'", r"training.mini.epochs"),
        ("caption: One.", "caption: One.\n    paper: XII", r"paper's? table|table of the paper 'XII'"),
        ("{label: Plain, run: plain}", "{label: Plain, run: plain, paper: DAA}", None),
    ],
)
def test_a_name_that_nothing_bears_is_an_error_before_anything_runs(
    tmp_path: Path, old: str, new: str, message: str | None
) -> None:
    text = SMALL.replace(old, new, 1)
    if message is None:
        text, message = (
            text.replace("caption: One.", "caption: One.\n    paper: IV"),
            r"rows\[0\].paper: there is no row .* 'DAA'",
        )
    with pytest.raises(UserError, match=message):
        load(write(tmp_path, text))


def test_the_schema_takes_what_the_shipped_file_says() -> None:
    Draft202012Validator(json_schema()).validate(YAML(typ="safe").load((ROOT / "params.yaml").read_text()))


def test_every_command_takes_params(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    own(tmp_path, "runs: {hot: {components: [coarse], objective: {temperature: 2.0}}}")
    run = CliRunner().invoke
    assert "hot" not in run(app(), ["runs"]).output
    assert "hot" in run(app(), ["runs", "--params", "mine.yaml"]).output
    assert "hot" not in run(app(), ["runs"]).output  # the choice ends with the command
    for words in (["train"], ["table"], ["data", "make"], ["weights", "import"], ["summary"]):
        assert "--params" in run(app(), [*words, "--help"]).output
