"""Which result files a table or figure of params.yaml is made from: asked by the workflow's rules and DVC's stages."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from comics.files import file_digest, write_json
from comics.params import SPLITS, Params, TableRow
from comics.provenance import sidecar_path
from comics.report import generalisation, study
from comics.report.results import (
    details_path,
    detections_path,
    elsewhere_path,
    resolved_runs,
    robustness_path,
    scores_path,
)
from comics.report.tables import compared_metrics, comparison_path


def splits_of(params: Params) -> list[str]:
    """The splits of the dataset: all, or those that one's own COCO files give."""
    return params.splits


def score_files(params: Params, runs: Iterable[str], splits: Iterable[str]) -> list[str]:
    """The scores of `runs` on `splits`, each file before its sidecar; runs that are the same are one."""
    splits = list(splits)
    scores = dict.fromkeys(
        scores_path(one, split) for run in runs for one in resolved_runs(params, run) for split in splits
    )
    return [str(file) for score in scores for file in (score, sidecar_path(score))]


def runs_of(params: Params, tables: Iterable[str]) -> set[str]:
    """The runs, under the names they are trained with, of all rows of `tables`, optional ones too: who asks for a table gets it
    measured."""
    rows = [row for table in tables for row in params.tables[table].rows]
    return {params.canonical(row.run) for row in rows if row.run}


def measured_runs(params: Params, table: str, splits: Iterable[str], made: Collection[str] = ()) -> list[str]:
    """The runs of a table's rows that are shown as measured; those of optional rows where they have all their results
    on `splits` or are in `made`."""
    splits = list(splits)

    def there(run: str) -> bool:
        return params.canonical(run) in made or all(Path(file).exists() for file in score_files(params, [run], splits))

    rows = params.tables[table].rows
    return list(dict.fromkeys(row.run for row in rows if row.run and (not row.optional or there(row.run))))


def elsewhere_rows(params: Params, table: str, splits: Iterable[str]) -> list[TableRow]:
    """The rows of detections made elsewhere that are shown: optional ones where detections or scores are there."""
    splits = list(splits)

    def there(row: TableRow) -> bool:
        return all(
            row.detections_of(split).exists() or elsewhere_path(params.dataset, row, split).exists() for split in splits
        )

    return [row for row in params.tables[table].rows if row.detections and (not row.optional or there(row))]


def elsewhere_scores(params: Params, table: str, splits: Iterable[str]) -> list[str]:
    """The scores of detections made elsewhere, each file before its sidecar."""
    splits = list(splits)
    scores = dict.fromkeys(
        elsewhere_path(params.dataset, row, split) for row in elsewhere_rows(params, table, splits) for split in splits
    )
    return [str(file) for score in scores for file in (score, sidecar_path(score))]


def elsewhere_files(params: Params) -> dict[str, dict[str, str]]:
    """Folder of scores -> split -> detections made elsewhere, for every table of params.yaml."""
    found: dict[str, dict[str, str]] = {}
    for table in params.tables.values():
        for row in table.rows:
            for split in table.splits if row.detections else ():
                place = elsewhere_path(params.dataset, row, split).parent.name
                found.setdefault(place, {})[split] = str(row.detections_of(split))
    return found


def page_files(params: Params, made: Collection[str] = (), tables: Collection[str] = ()) -> list[str]:
    """What the page shows: scores of every run that has all of them or is in `made`, and the comparisons of `tables`,
    which the caller makes anyway."""
    files = [file for table in tables for file in comparison_files(params, table, made)]
    files += [file for table in tables for file in elsewhere_scores(params, table, params.tables[table].splits)]
    for run in params.runs:
        if params.dataset_of(run) != params.dataset:
            continue
        scores = score_files(params, [run], params.test_splits)
        if params.canonical(run) in made or all(Path(file).exists() for file in scores):
            files += scores
    return list(dict.fromkeys(files))


def table_scores(params: Params, name: str, made: Collection[str] = ()) -> list[str]:
    """Scores of the measured rows of table `name`; `made`: runs whose results the caller makes anyway."""
    splits = params.tables[name].splits
    scores = score_files(params, measured_runs(params, name, splits, made), splits)
    return scores + elsewhere_scores(params, name, splits)


def table_files(params: Params, name: str, made: Collection[str] = ()) -> list[str]:
    """What table `name` is made from: its scores, and the comparison of its rows where there is one to be had."""
    return [*table_scores(params, name, made), *comparison_files(params, name, made)]


def compared_files(params: Params, name: str, made: Collection[str] = ()) -> list[str]:
    """What the comparison of the rows of table `name` is made from: scores, detections and ground truth."""
    detections = dict.fromkeys(found for _, found in _scores_and_detections(params, name, made))
    return [
        *table_scores(params, name, made),
        *(str(file) for path in detections for file in (path, sidecar_path(path))),
        *(f"data/{params.dataset}/{split}/annotations.json" for split in params.tables[name].splits),
    ]


def _scores_and_detections(params: Params, name: str, made: Collection[str]) -> list[tuple[Path, Path]]:
    """What is compared of table `name`: of the first seed of each measured row, on each split."""
    splits = params.tables[name].splits
    runs = [resolved_runs(params, run)[0] for run in measured_runs(params, name, splits, made)]
    return [(scores_path(one, split), detections_path(one, split)) for one in runs for split in splits]


def comparison_files(params: Params, name: str, made: Collection[str] = ()) -> list[str]:
    """The comparison of the rows of table `name`, if it is there or can be made without predicting anew.

    Scores may have been brought here without their detections: then the table does without.
    """
    table, path = params.tables[name], comparison_path(params, name)
    compared = _scores_and_detections(params, name, made)
    to_be_had = len(compared) > len(table.splits) and all(
        detections.exists() or not scores.exists() for scores, detections in compared
    )
    return [str(path)] if compared_metrics(table) and (path.exists() or to_be_had) else []


def figure_files(params: Params, name: str, made: Collection[str] = ()) -> list[str]:
    """What figure `name` is made from: scores of a table's rows, images, or detections beside the truth."""
    figure = params.figures[name]
    if figure.kind == "scatter":
        scores = score_files(params, measured_runs(params, figure.table, [figure.split], made), [figure.split])
        return scores + elsewhere_scores(params, figure.table, [figure.split])
    if figure.kind == "errors":
        runs = [resolved_runs(params, run)[0] for run in figure.runs]
        errors = dict.fromkeys(details_path(one, figure.split, "errors") for one in runs)
        return [str(file) for path in errors for file in (path, sidecar_path(path))]
    if figure.kind == "curves":  # logs are no outputs, which Snakemake would delete before a training goes on
        return list(dict.fromkeys(str(resolved_runs(params, run)[0].folder / "run.json") for run in figure.runs))
    files = [f"data/{params.dataset}/{split}/annotations.json" for split in figure.splits]
    if figure.kind == "comparison":
        files += score_files(params, figure.runs, figure.splits)
        for run in figure.runs:
            for one in resolved_runs(params, run):
                for split in figure.splits:
                    detections = detections_path(one, split)
                    files += [str(detections), str(sidecar_path(detections))]
    return files


def study_files(params: Params, name: str) -> list[str]:
    """What study `name` compares: the detections of all its runs and seeds, each file before its sidecar."""
    return [str(file) for path in study.study_files(params, name) for file in (path, sidecar_path(path))]


def robustness_files(params: Params) -> list[str]:
    """What the robustness report is made from: the measurements of all its runs and seeds, each file before its sidecar."""
    block = params.file.robustness
    runs = [] if block is None else block.runs
    measured = dict.fromkeys(robustness_path(one) for run in runs for one in resolved_runs(params, run))
    return [str(file) for path in measured for file in (path, sidecar_path(path))]


def matrix_files(params: Params, name: str) -> list[str]:
    """What the matrix `name` of `generalisation` is made from: of all its runs and seeds, each file before its sidecar."""
    return [str(file) for path in dict(generalisation.sources(params, name)) for file in (path, sidecar_path(path))]


def study_digests(params: Params) -> list[str]:
    """SHA-256 of what the studies found, of those that were made."""
    return [file_digest(path) for name in params.studies if (path := study.effects_path(params, name)).exists()]


def beyond_digests(params: Params) -> list[str]:
    """The same of what else the page shows where it is there: robustness, and the matrices of generalisation."""
    named = [*robustness_files(params), *(file for name in params.matrices for file in matrix_files(params, name))]
    return [file_digest(file) for file in dict.fromkeys(named) if Path(file).exists() and file.endswith(".csv")]


def block_of(params: Params, kind: str, name: str) -> dict[str, Any]:
    """What params.yaml says of a table or figure (`kind`: ``tables`` or ``figures``), with the rows a scatter draws."""
    if kind == "tables":
        return params.tables[name].model_dump(mode="json")
    figure = params.figures[name]
    block = figure.model_dump(mode="json")
    if figure.kind in ("comparison", "errors"):
        titles = {run: params.resolve(run).params.title for run in figure.runs}
        if any(titles.values()):
            block["titles"] = titles
    if figure.kind == "scatter":
        block["rows"] = params.tables[figure.table].model_dump(mode="json")["rows"]
    return block


def without_sidecar(params: Params) -> list[str]:
    """Scores and detections of runs that are there, and whose sidecars are not."""
    found = []
    results = [f"{split}{suffix}" for split in SPLITS for suffix in (".csv", ".detections.json")]
    for folder, _, names in os.walk(Path("results") / params.dataset):
        if os.path.basename(folder).startswith("seed"):
            there = set(names)
            found += [f"{folder}/{name}" for name in results if name in there and f"{name}.meta.json" not in there]
    return sorted(found)


def compared_block(params: Params, name: str) -> dict[str, Any]:
    """What params.yaml says of table `name` that decides the comparison of its rows: no caption, label or note."""
    table = params.tables[name]
    return {
        **table.model_dump(mode="json", include={"splits", "tasks", "metrics", "compare"}),
        "runs": [[params.canonical(row.run), row.optional] for row in table.rows if row.run],
    }


def _runs_drawn(params: Params, kind: str, name: str) -> list[str]:
    if kind == "figures":
        figure = params.figures[name]
        if figure.kind != "scatter":
            return figure.runs if figure.kind in ("comparison", "errors", "curves") else []
        name = figure.table
    return [row.run for row in params.tables[name].rows if row.run]


def write_inputs(params: Params, folder: Path) -> int:
    """Write ``<folder>/{tables,figures}/<name>.json``, one a table and figure, and return how many.

    Each holds all that decides what is rendered, beside the code: its entry of params.yaml, the digests that its runs
    have now, and the SHA-256 of the files that exist. DVC renders what has another file than before, and nothing else.
    """
    written = set()
    for kind, names, files_of in (("tables", params.tables, table_files), ("figures", params.figures, figure_files)):
        for name in names:
            digests = {
                f"{run} seed {one.seed}": one.digest
                for run in _runs_drawn(params, kind, name)
                for one in resolved_runs(params, run)
            }
            files = {}
            for file in files_of(params, name):
                if Path(file).exists():
                    files[file] = file_digest(file)
            path = folder / kind / f"{name}.json"
            content = {
                "dataset": params.dataset,
                "block": block_of(params, kind, name),
                "runs": digests,
                "files": files,
            }
            write_json(path, content, indent=2)
            written.add(path)
    for path in folder.glob("*/*.json"):
        if path not in written:
            path.unlink()
    return len(written)
