"""What a table or figure is made from, and the scores that DVC shows."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricate import Run, edit, fabricate_scores, planned
from PIL import Image

from comics.errors import UserError
from comics.files import read_json
from comics.params import load
from comics.report.results import scores_path
from comics.workflow.demo import demo, mean_scores, print_summary, write_metrics
from comics.workflow.plan import (
    beyond_digests,
    block_of,
    compared_block,
    compared_files,
    comparison_files,
    figure_files,
    page_files,
    runs_of,
    score_files,
    table_files,
    write_inputs,
)


def test_runs_that_are_the_same_are_one(project: Path) -> None:
    params = load("params.yaml")
    assert params.canonical("temperature_07") == params.canonical("weights_05_01_01") == "comics"
    files = score_files(params, ["comics", "temperature_07", "da"], ["test_dev"])
    comics, da = "results/mini/comics/seed0/test_dev.csv", "results/mini/da/seed0/test_dev.csv"
    assert files == [comics, f"{comics}.meta.json", da, f"{da}.meta.json"]
    assert runs_of(params, ["table_viii"]) == {"temperature_007", "temperature_02", "comics"}


def test_who_asks_for_a_table_gets_every_row_of_it_measured(project: Path) -> None:
    params = load("params.yaml")
    for table in ("table_ii", "table_iii"):
        rows = [row.run for row in params.tables[table].rows]
        assert len(rows) == 15
        assert None not in rows
        made = runs_of(params, [table])
        assert made == {params.canonical(run) for run in rows}
        assert {file for file in table_files(params, table, made) if file.endswith(".csv")} == {
            f"results/mini/{run}/seed0/{params.tables[table].splits[0]}.csv" for run in made
        }


def test_every_seed_counts(project: Path) -> None:
    edit(project / "params.yaml", "\nseeds: [0]", "\nseeds: [3, 4]")
    files = score_files(load("params.yaml"), ["da"], ["test_dev", "test_challenge"])
    assert len(files) == 8
    assert "results/mini/da/seed4/test_challenge.csv" in files


def test_optional_rows_count_where_results_exist_or_are_made_anyway(project: Path) -> None:
    params = load("params.yaml")
    assert table_files(params, "table_ii") == []
    assert len(table_files(params, "table_ii", made={"blendmask", "da"})) == 2  # scores and sidecar
    fabricate_scores(params, project, "comics")
    files = figure_files(params, "figure_9", made={"blendmask"})
    assert [file for file in files if file.endswith(".csv")] == [
        f"results/mini/{run}/seed0/test_dev.csv" for run in ("blendmask", "comics")
    ]


def test_rows_are_compared_where_their_detections_are_there_or_made_anyway(made_project: Path) -> None:
    params, path = load("params.yaml"), "results/mini/comparisons/table_iv.json"
    assert comparison_files(params, "table_iv") == [path]
    assert set(compared_files(params, "table_iv")) >= {
        "results/mini/da/seed0/test_dev.csv",
        "results/mini/da/seed0/test_dev.detections.json",
        "data/mini/test_challenge/annotations.json",
    }
    assert path in page_files(params, tables=["table_iv"])
    (made_project / path).unlink()
    assert comparison_files(params, "table_iv") == [path]
    (made_project / "results/mini/da/seed0/test_dev.detections.json").unlink()
    assert comparison_files(params, "table_iv") == []  # the scores are enough: no training for a mark
    assert path not in table_files(params, "table_iv")
    (made_project / "results/mini/da/seed0/test_dev.csv").unlink()
    assert comparison_files(params, "table_iv") == [path]  # they are made for the scores
    edit(made_project / "params.yaml", "    paper: IV\n", "    paper: IV\n    compare: false\n")
    assert comparison_files(load("params.yaml"), "table_iv") == []


def test_one_row_is_not_compared(project: Path) -> None:
    params = load("params.yaml")
    assert comparison_files(params, "table_ii", made={"blendmask"}) == []
    assert len(comparison_files(params, "table_ii", made={"blendmask", "comics"})) == 1


def inputs(project: Path) -> dict[str, str]:
    write_inputs(load("params.yaml"), project / "reports/inputs")
    return {path.stem: path.read_text() for path in (project / "reports/inputs").glob("*/*.json")}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def test_inputs_change_for_what_is_drawn_otherwise_alone(made_project: Path) -> None:
    params = made_project / "params.yaml"
    before = inputs(made_project)
    assert before.keys() == {*load("params.yaml").tables, *load("params.yaml").figures}

    edit(
        params,
        "    split: test_dev\n    table: table_ii\n",
        "    split: test_dev\n    table: table_ii\n    x: oLRP_FP\n",
    )
    after = inputs(made_project)
    assert changed(before, after) == {"figure_9"}

    edit(params, "{inter_weight: 0}", "{inter_weight: 0.05}")
    before, after = after, inputs(made_project)
    assert changed(before, after) == {"table_v"}

    scores = made_project / "results/mini/samples_all/seed0/test_dev.csv"
    scores.write_text(scores.read_text() + "\n")
    before, after = after, inputs(made_project)
    assert changed(before, after) == {"table_vi"}

    text, figures = params.read_text(), list(load("params.yaml").figures)
    params.write_text(text[: text.index("  figure_11:")])
    before, after = after, inputs(made_project)
    assert changed(before, after) == set(figures[figures.index("figure_11") :])
    assert not (made_project / "reports/inputs/figures/figure_11.json").exists()


def test_metrics_hold_current_results_only(made_project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, scores = Path("reports/metrics"), Path("reports/scores.csv")
    params = load("params.yaml")
    count = write_metrics(params, folder, scores)
    here = [
        run for run in params.runs if params.dataset_of(run) == params.dataset
    ]  # scores on other images do not compare
    assert count == len(set(map(params.canonical, here)))
    with open("results/mini/da/seed0/test_dev.csv", newline="") as file:
        expected = float(next(csv.DictReader(file))["AP"])
    assert read_json(folder / "da.json")["test_dev"]["detection"]["AP"] == expected
    print_summary(params, "table_iv")
    shown = capsys.readouterr().out
    assert f"{100 * expected:.1f}" in shown
    assert "comics" in shown
    assert "mask_rcnn" not in shown

    edit(made_project / "params.yaml", "da:         {title: BlendMask + DA,", "da: {training: {lr: 0.5},")
    assert write_metrics(load("params.yaml"), folder, scores) == count - 1
    assert not (folder / "da.json").exists()
    assert "\nda," not in scores.read_text()


def test_metrics_average_over_seeds(project: Path) -> None:
    edit(project / "params.yaml", "\nseeds: [0]", "\nseeds: [0, 1]")
    params = load("params.yaml")
    values = []
    for seed in (0, 1):
        path, _ = fabricate_scores(params, project, "da", seed)
        with path.open(newline="") as file:
            values.append(float(next(csv.DictReader(file))["oLRP"]))
    assert mean_scores(params, ("oLRP",))["da"]["test_dev"]["detection"]["oLRP"] == pytest.approx(sum(values) / 2)


def test_the_demo_refuses_a_dataset_that_takes_days(project: Path) -> None:
    edit(project / "params.yaml", "\ndataset: mini ", "\ndataset: openforensics ")
    with pytest.raises(UserError, match=r"params\.yaml: dataset: .*openforensics") as error:
        demo(load("params.yaml"))
    assert "dataset: mini" in error.value.remedy


def test_planning_and_rendering_import_no_torch() -> None:
    code = "import sys, comics.workflow.plan, comics.cli; comics.cli.app(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def own_splits(project: Path, *splits: str) -> None:
    """A dataset `own` of COCO files, with `splits` only, that params.yaml uses."""
    (project / "own").mkdir(exist_ok=True)
    for split in splits:
        (project / f"own/{split}.json").write_text("{}")
    annotations = ", ".join(f"{split}: own/{split}.json" for split in splits)
    images = ", ".join(f"{split}: own" for split in splits)
    block = f"\n  own:\n    kind: coco\n    annotations: {{{annotations}}}\n    images: {{{images}}}\n"
    edit(project / "params.yaml", "\ndataset: mini ", "\ndataset: own ")
    edit(project / "params.yaml", "\n  openforensics:\n    kind: openforensics\n", f"\n  openforensics: {{}}\n{block}")
    edit(project / "params.yaml", "openforensics: {}\n\n  own", "openforensics:\n    kind: openforensics\n  own")


def test_tables_leave_out_splits_that_the_dataset_lacks(project: Path, run: Run) -> None:
    """The shipped tables of a dataset with one test split: what they show of the other one is left out, and nothing asks
    for it."""
    own_splits(project, "train", "test_dev")
    params = load("params.yaml")
    assert params.splits == ["train", "test_dev"]
    assert params.test_splits == ["test_dev"]
    assert params.tables["table_iv"].splits == ["test_dev"]
    assert "table_iii" not in params.tables
    assert "figure_10" not in params.figures
    assert params.figures["figure_8"].splits == ["test_dev"]
    with pytest.raises(
        UserError, match=r"params\.yaml: tables\.table_iii: the dataset 'own' has no test_challenge"
    ) as error:
        params.require("tables", "table_iii")
    assert "datasets: own" in error.value.remedy
    plan = run("snakemake", "-n", "--quiet", "--", "tables", "figures", cwd=project)
    assert "MissingInputException" not in plan.stdout


def test_robustness_and_studies_on_a_split_that_the_dataset_lacks(project: Path) -> None:
    own_splits(project, "train", "test_challenge")
    params = load("params.yaml")
    assert params.file.robustness is None
    with pytest.raises(UserError, match=r"robustness: the dataset 'own' has no test_dev"):
        params.require_split("robustness")
    assert "claim" in params.studies  # of another dataset


def test_a_dataset_of_masks_is_converted_by_the_workflow(project: Path, run: Run) -> None:
    """One test split without real faces: converted once, verified, and nothing to do the second time."""
    for name in ("images", "masks"):
        (project / "given" / name).mkdir(parents=True)
    mask = np.zeros((64, 96), np.uint8)
    mask[10:40, 20:50] = 255
    Image.fromarray(mask).save(project / "given/masks/a.png")
    Image.fromarray(mask).convert("RGB").save(project / "given/images/a.png")
    block = "  own:\n    kind: masks\n    splits: {test_dev: {images: given/images, masks: given/masks}}\n"
    edit(project / "params.yaml", "    kind: openforensics\n", f"    kind: openforensics\n{block}")
    target = "data/own/test_dev/annotations.json"
    assert load("params.yaml").file.datasets["own"].splits["test_dev"].images == "given/images"
    run("snakemake", "--cores", "1", target, cwd=project)
    assert [face["category_id"] for face in read_json(project / target)["annotations"]] == [2]
    assert "Nothing to be done" in run("snakemake", "--cores", "1", target, cwd=project).stdout
    shown = run("comics", "data", "verify", "own", cwd=project).stdout
    assert "0 Real, 1 Fake" in shown
    edit(project / "params.yaml", "\ndataset: mini ", "\ndataset: own ")
    refused = run("snakemake", "-n", "reports/table_iv.md", cwd=project, code=1).stdout
    assert "datasets.own: has no split 'train', which this step needs" in refused
    assert "MissingInputException" not in refused


def test_weights_do_not_depend_on_the_sizes_of_other_splits(project: Path) -> None:
    """Predictions do, and the training split's size makes other weights."""
    before = load("params.yaml").resolve("comics")
    original = (project / "params.yaml").read_text()
    edit(
        project / "params.yaml",
        "    kind: mini\n",
        "    kind: mini\n    test_dev: 60\n    val: 10\n    challenge_level: 2\n",
    )
    after = load("params.yaml").resolve("comics")
    assert after.checkpoint_digest == before.checkpoint_digest
    assert after.digest != before.digest
    (project / "params.yaml").write_text(original.replace("    kind: mini\n", "    kind: mini\n    train: 60\n", 1))
    assert load("params.yaml").resolve("comics").checkpoint_digest != before.checkpoint_digest


def test_what_decides_a_comparison_and_a_figure(project: Path) -> None:
    def blocks() -> tuple[dict[str, Any], dict[str, Any]]:
        params = load("params.yaml")
        return compared_block(params, "table_iv"), block_of(params, "figures", "figure_11")

    before = blocks()
    edit(project / "params.yaml", "    caption: Effect of the components of COMICS.\n", "    caption: Another.\n")
    assert blocks() == before
    edit(
        project / "params.yaml", "blendmask:  {title: BlendMask}", "blendmask:  {title: Base}"
    )  # drawn beside its images
    assert blocks()[0] == before[0]
    assert blocks()[1] != before[1]
    edit(project / "params.yaml", "    paper: IV\n", "    paper: IV\n    metrics: [AP]\n")
    assert blocks()[0] != before[0]


def test_generalisation_is_planned_with_its_datasets_and_starts(project: Path, run: Run) -> None:
    (project / "short.yaml").write_text(
        "extends: params.yaml\ngeneralisation:\n  forgeries: null\n"
        "  datasets: {runs: [mini_blendmask, crowd_blendmask]}\n"
    )
    done = run("snakemake", "-n", "--config", "params=short.yaml", "--", "generalisation", cwd=project)
    jobs = planned(done.stdout)
    assert jobs["make_dataset"] == 2
    assert (jobs["train"], jobs["train_on_another"]) == (2, 2)  # each with a start on its own dataset
    assert (jobs["predict_across"], jobs["evaluate_across"]) == (2, 2)
    assert (jobs["evaluate"], jobs["evaluate_on_another"]) == (1, 1)
    assert (jobs["resample"], jobs["resample_across"]) == (2, 2)
    assert "Evaluate crowd_blendmask of crowd, seed 0, on test_dev of mini" in done.stdout
    assert not set(planned(run("snakemake", "-n", cwd=project).stdout)) & {"train_on_another", "predict_across"}


def test_the_page_follows_what_was_measured_beyond_its_tables(made_project: Path) -> None:
    params = load("params.yaml")
    before = beyond_digests(params)
    path = made_project / scores_path(params.resolve("mini_blendmask"), "test_dev", "crowd")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("one")
    once = beyond_digests(params)
    assert len(once) == len(before) + 1
    path.write_text("another")
    assert beyond_digests(params) != once
