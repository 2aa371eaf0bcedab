"""What a run of params.yaml resolves to, and the digest that names it.

`Params.resolve` merges the preset of the dataset, the defaults and the run's own entry into a complete, hashable
description, whose `digest` travels with every file the run makes."""

from __future__ import annotations

import hashlib
import json
import typing
from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from comics import reported
from comics.errors import UserError, did_you_mean
from comics.params.block import Block, merge, stated
from comics.params.datasets import TEST_SPLITS, Dataset, given_files, splits_of, trained_from
from comics.params.file import ParamsFile
from comics.params.mistakes import as_user_error
from comics.params.objective import AttentionParams, ObjectiveParams, ViewsParams
from comics.params.phases import faces_of, on_faces
from comics.params.reports import (
    ComparisonFigure,
    CurvesFigure,
    DatasetsMatrix,
    ErrorsFigure,
    FigureParams,
    ForgeriesMatrix,
    ScatterFigure,
    StudyParams,
    TableParams,
    TableRow,
)
from comics.params.runs import InferenceParams, ModelParams, RunParams, TrainingParams

TRAINING_CODE_VERSION = 7
"""Raised by hand when a change makes trained weights different: part of every digest, so that results are renewed.
Training deliberately does not depend on source files, lest a docstring cost GPU hours."""

PREDICTION_CODE_VERSION = 1
"""Raised by hand when a change makes other predictions of the same weights: renews predictions, and trains nothing."""


RULES = frozenset(
    {
        "all",
        "calibrate",
        "calibrate_severities",
        "card",
        "cards",
        "compare_study",
        "compare_table",
        "convert_dataset",
        "details",
        "details_on_another",
        "encode_masks",
        "evaluate",
        "evaluate_across",
        "evaluate_elsewhere",
        "evaluate_on_another",
        "evaluate_other",
        "fetch_dataset",
        "figure",
        "figures",
        "generalisation",
        "make_dataset",
        "make_other_splits",
        "measure_robustness",
        "page",
        "paper",
        "predict",
        "predict_across",
        "predict_on_another",
        "predict_other",
        "render_generalisation",
        "render_robustness",
        "resample",
        "resample_across",
        "robustness",
        "study",
        "table",
        "tables",
        "train",
        "train_on_another",
    }
)
"""The rules of the workflow: `snakemake NAME` makes what a rule or a study makes, so that a study takes another name."""
_SINGULAR = {"generalisation": "matrix"}
"""What one entry of a section is called, where it is not the section's name without its s."""
REPORTS = frozenset({"paper", "readme", "scores"})
"""What else lies in reports/ with the suffix of a table."""


def digest_of(description: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits of SHA-256 over the canonical JSON of `description`."""
    canonical = json.dumps(description, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


PRESET = "openforensics"
"""The dataset whose presets are taken for one that has none: the paper's."""

_NO_EFFECT = {"workers", "gradient_norms_every", "checkpoint_minutes", "devices"}

_NO_EFFECT_DATASET = {"base_url", "archive_gb", "archive_ratio"}


class ResolvedRun(Block):
    """One run with one seed, complete: nothing else decides what it makes."""

    name: str
    place: str
    """Its folder below ``results/<dataset>``, and the word for it in the workflow: see `Params.place`."""
    seed: int
    dataset_name: str
    dataset: Dataset
    params: RunParams
    start: ResolvedRun | None = None
    """The run whose trained weights this one starts from."""

    @property
    def detector(self) -> str:
        return self.params.detector

    @property
    def components(self) -> frozenset[str]:
        return frozenset(self.params.components)

    @property
    def model(self) -> ModelParams:
        return self.params.model

    @property
    def training(self) -> TrainingParams:
        return self.params.training

    @property
    def inference(self) -> InferenceParams:
        return self.params.inference

    @property
    def views(self) -> ViewsParams:
        return self.params.views

    @property
    def attention(self) -> AttentionParams:
        return self.params.attention

    @property
    def objective(self) -> ObjectiveParams:
        return self.params.objective

    @cached_property
    def description(self) -> dict[str, Any]:
        """What decides the results, as plain JSON values. Blocks of components that are off are left out, so that two
        runs that train the same network are one."""
        stated = self.params.as_json
        left_out = ("title", "seeds", "components", "objective", "dataset", "tests")
        run = {key: value for key, value in stated.items() if key not in left_out}
        run["model"] = {key: value for key, value in stated["model"].items() if key != "settings"}
        if settings := stated["model"]["settings"]:
            unknown = self.model.settings.unknown()
            run["model"][self.detector] = {key: value for key, value in settings.items() if key not in unknown}
        if contents := self.model.settings.contents():
            run["model"]["contents"] = contents
        if self.start is not None:
            run["model"].update(weights="none", start=self.start.checkpoint_digest)
            if faces_of(self.params) is not None:
                run["model"][self.detector]["faces"] = self.start.checkpoint_digest  # whatever that run is called
        for component in ("views", "attention"):
            if component not in self.components:
                del run[component]
        if (
            run.get("attention", {}).get("design") == AttentionParams().design
        ):  # a later addition, which runs without it do not know
            run["attention"] = {key: value for key, value in run["attention"].items() if key != "design"}
        objective = stated["objective"]
        parts = {part: objective[part] for part in ("coarse", "fine", "dual") if part in self.components}
        if parts:
            run["objective"] = {"temperature": objective["temperature"], "ramp": objective["ramp"], **parts}
        run["training"] = {key: value for key, value in run["training"].items() if key not in _NO_EFFECT}
        if not self.training.ema:  # a later addition, which runs without it do not know
            del run["training"]["ema"]
        if not self.training.validation.decides:
            del run["training"]["validation"]
        run["inference"] = {key: value for key, value in run["inference"].items() if key != "batch_size"}
        return {
            "code_version": TRAINING_CODE_VERSION,
            "prediction_code": PREDICTION_CODE_VERSION,
            **({"detector_code": code} if (code := type(self.model.settings).training_code) else {}),
            "dataset": {"name": self.dataset_name, **self.dataset.model_dump(mode="json", exclude=_NO_EFFECT_DATASET)},
            "seed": self.seed,
            **run,
        }

    @cached_property
    def digest(self) -> str:
        """Names the run's predictions and results."""
        return digest_of(self.description)

    @cached_property
    def checkpoint_digest(self) -> str:
        """Names the run's weights: neither inference settings nor the other splits of an embedded dataset change them."""
        decides = {key: value for key, value in self.description.items() if key not in ("inference", "prediction_code")}
        trained = trained_from(self.dataset)
        if self.training.validation.decides:
            trained.pop("val", None)  # the best weights on that split are taken
        decides["dataset"] = {key: trained.get(key, value) for key, value in decides["dataset"].items()}
        return digest_of(decides)

    def from_checkpoint(self) -> ResolvedRun:
        """The run as its trained weights need it: building the network loads no initial weights."""
        return self._with_weights("none")

    def from_start(self, root: Path = Path()) -> ResolvedRun:
        """The run as it is trained: its initial weights are the file below `root` that its start has made."""
        return self if self.start is None else self._with_weights(str(root / self.start.weights_file))

    def _with_weights(self, weights: str) -> ResolvedRun:
        model = self.model.model_copy(update={"weights": weights})
        if weights == "none":
            model = model.model_copy(update={"settings": model.settings.of_checkpoint()})
        return self.model_copy(update={"params": self.params.model_copy(update={"model": model})})

    @property
    def weights_file(self) -> Path:
        """Where its trained weights are, from the project's root."""
        return self.folder / "model.pt"

    @cached_property
    def folder(self) -> Path:
        """Where the run's files are, from the project's root."""
        return Path("results") / self.dataset_name / self.place / f"seed{self.seed}"

    def annotations(self, split: str, dataset: str | None = None) -> Path:
        """The canonical COCO file of `split`, of its own dataset or of `dataset`."""
        return Path("data") / (dataset or self.dataset_name) / split / "annotations.json"


class Params:
    """A validated params.yaml.

    Args:
        file: what it says, written out in full.
        path: where it stands.
        base: the file that it extends. What both say is made once; what is its own lies beside the other's.
    """

    def __init__(self, file: ParamsFile, path: Path, base: Params | None = None) -> None:
        self.file = file
        self.path = path
        self.base = base
        self._check_names()
        self.file = self._with_splits_there_are()

    @property
    def label(self) -> str:
        """What its own files are told apart by: nothing, or the name of a file that extends another."""
        return self.path.stem if self.base is not None else ""

    @property
    def reports(self) -> Path:
        """Where its tables, figures and page are, from the project's root."""
        return Path("reports") / self.label

    def compared(self, kind: str) -> Path:
        """Where its comparisons (`kind`: ``comparisons`` or ``studies``) are, from the project's root."""
        return Path("results") / self.dataset / kind / self.label

    @property
    def dataset(self) -> str:
        return self.file.dataset

    @property
    def tables(self) -> dict[str, TableParams]:
        return self.file.tables

    @property
    def figures(self) -> dict[str, FigureParams]:
        return self.file.figures

    @property
    def studies(self) -> dict[str, StudyParams]:
        return self.file.studies

    @property
    def matrices(self) -> dict[str, DatasetsMatrix | ForgeriesMatrix]:
        return self.file.generalisation

    @property
    def runs(self) -> list[str]:
        """Names of the runs, in the file's order."""
        return list(self.file.runs)

    @property
    def splits(self) -> list[str]:
        """The splits that the dataset has."""
        return splits_of(self.file.datasets[self.dataset])

    @property
    def test_splits(self) -> list[str]:
        """The test splits that the dataset has: one's own may have one."""
        return [split for split in self.splits if split in TEST_SPLITS]

    @cached_property
    def left_out(self) -> dict[str, str]:
        """Why an entry of the file, such as ``tables.NAME``, is none here: the dataset lacks the splits that it shows."""
        return {}

    def _with_splits_there_are(self) -> ParamsFile:
        """The file without what its tables and figures show of splits that the dataset lacks; what is then left empty goes
        into `left_out`."""
        have = self.splits

        def absent(key: str, *splits: str) -> None:
            self.left_out[key] = f"the dataset '{self.dataset}' has no {' or '.join(splits)}, which it shows"

        tables = {}
        for name, table in self.file.tables.items():
            splits = [split for split in table.splits if split in have]
            if splits or not table.splits:
                tables[name] = table.model_copy(update={"splits": splits})
            else:
                absent(f"tables.{name}", *table.splits)
        figures: dict[str, FigureParams] = {}
        for name, figure in self.file.figures.items():
            if isinstance(figure, CurvesFigure):
                figures[name] = figure
                continue
            wanted = [figure.split] if isinstance(figure, ScatterFigure | ErrorsFigure) else figure.splits
            splits = [split for split in wanted if split in have]
            if not splits:
                absent(f"figures.{name}", *wanted)
            elif isinstance(figure, ScatterFigure | ErrorsFigure):
                figures[name] = figure
            else:
                figures[name] = figure.model_copy(update={"splits": splits})
        robustness = self.file.robustness
        if robustness is not None and robustness.split not in have:
            absent("robustness", robustness.split)
            robustness = None
        studies = {}
        for name, study in self.file.studies.items():
            if study.dataset == self.dataset and study.split not in have:
                absent(f"studies.{name}", study.split)
            else:
                studies[name] = study
        matrices = {}
        for name, matrix in self.matrices.items():
            lack = [
                dataset
                for dataset in self.tested_on(matrix)
                if matrix.split not in splits_of(self.file.datasets[dataset])
            ]
            if lack:
                why = f"the dataset '{lack[0]}' has no {matrix.split}, which it shows"
                self.left_out[f"generalisation.{name}"] = why
            else:
                matrices[name] = matrix
        update = {
            "tables": tables,
            "figures": figures,
            "studies": studies,
            "robustness": robustness,
            "generalisation": matrices,
        }
        return self.file.model_copy(update=update)

    def tested_on(self, matrix: DatasetsMatrix | ForgeriesMatrix) -> list[str]:
        """The datasets that `matrix` has results on: those of its runs, and those of their tests."""
        found = [self.dataset_of(run) for run in matrix.runs]
        if matrix.kind == "datasets":
            found += [test for run in matrix.runs for test in self._run_params(run).tests]
        return list(dict.fromkeys(found))

    def require(self, section: str, name: str) -> None:
        """Raise `UserError` unless `name` is an entry of `section` (``tables``, ``figures``, ``generalisation``) that can be made."""
        self.require_split(f"{section}.{name}")
        self._known(section, name, getattr(self.file, section), _SINGULAR.get(section, section.removesuffix("s")))

    def require_split(self, key: str) -> None:
        """Raise `UserError` if the entry `key` of the file was left out for want of a split."""
        if why := self.left_out.get(key):
            raise UserError(
                f"{self.path}: {key}: {why}.",
                f"Add that split under `datasets: {self.dataset}:`, or name another one under `{key}`.",
            )

    def _known(self, key: str, name: str, valid: typing.Iterable[str], kind: str) -> None:
        if name not in valid:
            raise UserError(f"{self.path}: {key}: there is no {kind} '{name}'.", did_you_mean(name, valid))

    def _known_here(self, key: str, run: str, dataset: str | None = None) -> None:
        """Raise `UserError` unless `run` is a run on `dataset`, by default that of the file: scores on other images do not compare."""
        self._known(key, run, self.file.runs, "run")
        stated_one = self._stated(run).get("dataset")
        if stated_one not in (None, dataset or self.dataset):
            raise UserError(
                f"{self.path}: {key}: the run '{run}' is of the dataset '{stated_one}', and this of '{dataset or self.dataset}'.",
                "Compare runs of several datasets under `generalisation:`.",
            )

    def _free(self, key: str, name: str, taken: typing.Collection[str], by: str) -> None:
        if name in taken:
            raise UserError(f"{self.path}: {key}: the name '{name}' is taken by {by}.", "Give it another name.")

    def _check_names(self) -> None:
        """Everything that one part of the file says of another, and of the workflow."""
        own = {f"convert_{name}": name for name, block in self.file.datasets.items() if given_files(block)}
        for rule, name in own.items():
            self._free(f"datasets.{name}", rule, RULES, "a rule of the workflow, which converts the dataset")
        for name in self.studies:
            self._free("studies", name, RULES | own.keys(), "a rule of the workflow")
        for name in self.tables:
            self._free("tables", name, REPORTS, "another file in reports/")
        self._known("dataset", self.dataset, self.file.datasets, "dataset")
        for section in ("training", "models", "objectives", "views"):
            for name in getattr(self.file, section):
                self._known(f"{section}.{name}", name, {*self.file.datasets, PRESET}, "dataset")
        for name, table in self.tables.items():
            printed = () if table.paper is None else reported.rows(table.paper)
            if table.paper is not None and not printed:
                self._known(f"tables.{name}.paper", table.paper, reported.tables(), "table of the paper")
            for number, row in enumerate(table.rows):
                key = f"tables.{name}.rows[{number}]"
                if row.paper is not None and table.paper is not None:
                    self._known(f"{key}.paper", row.paper, printed, f"row of the paper's table {table.paper}")
                if row.run is not None:
                    self._known_here(f"{key}.run", row.run)
                if row.run is None and row.paper is None and row.detections is None:
                    raise UserError(
                        f"{self.path}: {key}: names neither a run, nor detections, nor a row of the paper.",
                        "Give `run:`, `detections:` or `paper:`.",
                    )
                if row.detections is not None:
                    self._check_detections(key, row, table)
                labels = 1 if isinstance(row.label, str) else len(row.label)
                if labels != len(table.columns):
                    raise UserError(
                        f"{self.path}: {key}.label: has {labels} texts for {len(table.columns)} label columns.",
                        f"Give one text for each of: {', '.join(table.columns)}.",
                    )
        for name, figure in self.figures.items():
            key = f"figures.{name}"
            if isinstance(figure, ScatterFigure):
                self._known(f"{key}.table", figure.table, self.tables, "table")
                if figure.split not in self.tables[figure.table].splits:
                    raise UserError(
                        f"{self.path}: {key}.split: table '{figure.table}' has no split '{figure.split}'.",
                        "Add it to the table's `splits`.",
                    )
                for run in figure.highlight:
                    self._known_here(f"{key}.highlight", run)
            elif isinstance(figure, ComparisonFigure | ErrorsFigure | CurvesFigure):
                for run in figure.runs:
                    self._known_here(f"{key}.runs", run)
        for name, study in self.studies.items():
            self._known(f"studies.{name}.dataset", study.dataset, self.file.datasets, "dataset")
            for number, arm in enumerate(study.rows):
                self._known_here(f"studies.{name}.rows[{number}].run", arm.run, study.dataset)
        if self.file.robustness is not None:
            for run in self.file.robustness.runs:
                self._known_here("robustness.runs", run)
        for name, matrix in self.matrices.items():
            for run in matrix.runs:
                self._known(f"generalisation.{name}.runs", run, self.file.runs, "run")
            if len(set(matrix.runs)) != len(matrix.runs):
                raise UserError(f"{self.path}: generalisation.{name}.runs: lists one of them twice.")
        for run in self.runs:
            self._check_start(run)

    def _check_detections(self, key: str, row: TableRow, table: TableParams) -> None:
        if row.run is not None:
            raise UserError(
                f"{self.path}: {key}: has both `run` and `detections`: detections are of a system that was run elsewhere.",
                "Give the row one of them.",
            )
        if len(table.splits) > 1 and "{split}" not in (row.detections or ""):
            raise UserError(
                f"{self.path}: {key}.detections: one file for {len(table.splits)} test sets: {', '.join(table.splits)}.",
                "Write {split} in its path where the name of the test set stands, or give the table one of `splits`.",
            )

    def _check_start(self, run: str) -> None:
        """The datasets of `run`; the runs that it starts from, one after the other: each there, none twice; and values that only
        a merge makes wrong."""
        of_run = self._stated(run)
        for key in ("dataset", "tests"):
            value = of_run.get(key) or []
            for dataset in [value] if isinstance(value, str) else value:
                self._known(f"runs.{run}.{key}", dataset, self.file.datasets, "dataset")
        seen = [run]
        while (start := self._run_params(seen[-1]).model.start) is not None:
            key = f"runs.{seen[-1]}.model.start"
            self._known(key, start, self.file.runs, "run")
            if start in seen:
                raise UserError(
                    f"{self.path}: {key}: '{start}' starts from '{seen[-1]}' itself ({' <- '.join([*seen, start])}).",
                    "Write `model: {start: null}` for the first of them, in its entry under `runs:`.",
                )
            seen.append(start)

    def _preset(self, blocks: Mapping[str, Block], dataset: str) -> dict[str, Any]:
        block = blocks.get(dataset) or blocks.get(self.file.datasets[dataset].kind) or blocks.get(PRESET)
        return stated(block) if block is not None else {}

    def _stated(self, run: str) -> dict[str, Any]:
        """What the file says of `run`, presets apart."""
        return merge(stated(self.file.defaults), stated(self.file.runs[run]))

    def dataset_of(self, run: str) -> str:
        """The dataset that `run` is trained and tested on."""
        return str(self._stated(run).get("dataset") or self.dataset)

    @cache  # noqa: B019 - one Params a process
    def _run_params(self, run: str, dataset: str | None = None) -> RunParams:
        """`run` on `dataset`, by default its own."""
        dataset = dataset or self.dataset_of(run)
        found = self._own_params(run, dataset)
        faces = faces_of(found)
        if faces is None:
            return found
        self._known(f"runs.{run}.model.{found.detector}.faces", faces, self.file.runs, "run")
        own = self._own_params(faces, dataset)
        return on_faces(found, own, stated(self.file.runs[run]), f"runs.{run}", self.path)

    def _own_params(self, run: str, dataset: str) -> RunParams:
        """A run as its entry has it, without what it takes over from the run that finds its faces."""
        preset = {
            "training": self._preset(self.file.training, dataset),
            "model": self._preset(self.file.models, dataset),
            "objective": self._preset(self.file.objectives, dataset),
            "views": self._preset(self.file.views, dataset),
        }
        merged = merge(preset, self._stated(run))
        try:
            return RunParams.model_validate(merged)
        except ValidationError as error:
            raise as_user_error(error, RunParams, self.path, ("runs", run)) from None

    @property
    def starts(self) -> list[str]:
        """The runs that others start from."""
        found = (self._run_params(run).model.start for run in self.runs)
        return list(dict.fromkeys(start for start in found if start is not None))

    def require_run(self, run: str) -> None:
        """Raise `UserError` unless `run` is a run of the file."""
        self._known("runs", run, self.file.runs, "run")

    def _named(self, run: str) -> str:
        """The run's name, from its name or its place."""
        if run in self.file.runs:
            return run
        own = run.removeprefix(f"{self.label}.")
        return own if self.label and own in self.file.runs else self._by_place.get(run, run)

    @cached_property
    def _by_place(self) -> dict[str, str]:
        return {self.place(run): run for run in reversed(self.runs)}

    def place(self, run: str, dataset: str | None = None) -> str:
        """The folder of `run` below ``results/<dataset>``, and the word for it in the workflow's files; `dataset` is its own by
        default.

        It is the run's name. In a file that extends another, a run that comes out as one of that is that one, and a run
        of its own has the file's name in front: ``mine.cool``.
        """
        if self.base is None:
            return run
        digest = self._digest_of_run(run, dataset)
        inherited = self.base._first_of_digest.get(digest)
        if inherited is None and dataset in self.base.file.datasets and run in self.base.runs:
            # What others start from is made on each of their datasets.
            inherited = run if self.base._digest_of_run(run, dataset) == digest else None
        return f"{self.label}.{run}" if inherited is None else self.base.place(inherited)

    @cache  # noqa: B019 - one Params a process
    def _digest_of_run(self, run: str, dataset: str | None = None) -> str:
        """What tells runs of one file apart: the digest with seed 0."""
        return self._resolve(run, 0, run, dataset or self.dataset_of(run)).digest

    def seeds(self, run: str) -> list[int]:
        """The seeds that `run` is trained with."""
        self.require_run(run)
        return list(self._run_params(run).seeds or self.file.seeds)

    def resolve(self, run: str, seed: int | None = None, dataset: str | None = None) -> ResolvedRun:
        """`run`, a name or a place, with `seed` (default: its first) on `dataset` (default: its own), complete."""
        run = self._named(run)
        self.require_run(run)
        dataset = self.dataset_of(run) if dataset is None else dataset
        self._known("datasets", dataset, self.file.datasets, "dataset")
        return self._resolve(run, self.seeds(run)[0] if seed is None else seed, self.place(run, dataset), dataset)

    @cache  # noqa: B019
    def _resolve(self, run: str, seed: int, place: str, dataset: str) -> ResolvedRun:
        start = self._run_params(run, dataset).model.start
        return ResolvedRun(
            name=run,
            place=place,
            seed=seed,
            dataset_name=dataset,
            dataset=self.file.datasets[dataset],
            params=self._run_params(run, dataset),
            start=None if start is None else self._start(start, seed, dataset),
        )

    @cache  # noqa: B019
    def _start(self, run: str, seed: int, dataset: str) -> ResolvedRun:
        """`run` with `seed`, where it is trained with that one, and with its first otherwise; on the same `dataset`, unless it
        states another."""
        own = self._stated(run).get("dataset")
        return self.resolve(run, seed if seed in self.seeds(run) else None, own or dataset)

    @cached_property
    def _first_of_digest(self) -> dict[str, str]:
        first: dict[str, str] = {}
        for run in self.runs:
            first.setdefault(self._digest_of_run(run), run)
        return first

    def canonical(self, run: str) -> str:
        """The first run of the file that resolves to the same as `run`: the one that is trained for both."""
        self.require_run(run)
        return self._first_of_digest[self._digest_of_run(run)]
