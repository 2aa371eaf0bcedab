"""params.yaml as a whole, and its JSON schema."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from comics.params.block import Block, Name, partial
from comics.params.datasets import Dataset
from comics.params.objective import ObjectiveParams, ViewsParams
from comics.params.reports import FigureParams, GridRows, MatrixParams, RobustnessParams, StudyParams, TableParams
from comics.params.runs import ModelParams, RunParams, Seed, TrainingParams

RunEntry = partial(RunParams)

TrainingEntry = partial(TrainingParams)

ModelEntry = partial(ModelParams)

ObjectiveEntry = partial(ObjectiveParams)

ViewsEntry = partial(ViewsParams)


class ParamsFile(Block):
    """params.yaml as it is written."""

    dataset: Name
    """Which of `datasets` everything is made from."""
    seeds: list[Seed] = Field([0], min_length=1)
    """Every run is trained once a seed."""
    datasets: dict[Name, Dataset]
    """Where each dataset comes from."""
    training: dict[Name, TrainingEntry]  # type: ignore[valid-type]
    """Optimisation, by dataset; a dataset without an entry takes that of its kind, or of `openforensics`."""
    models: dict[Name, ModelEntry]  # type: ignore[valid-type]
    """Sizes of the network, by dataset; a dataset without an entry takes that of its kind, or of `openforensics`."""
    objectives: dict[Name, ObjectiveEntry] = {}  # type: ignore[valid-type]
    """The bi-grained objective, by dataset, where it is not the paper's."""
    views: dict[Name, ViewsEntry] = {}  # type: ignore[valid-type]
    """The augmentation, by dataset, where it is not the paper's."""
    defaults: RunEntry = RunEntry()  # type: ignore[valid-type]
    """What every run shares."""
    runs: dict[Name, RunEntry]  # type: ignore[valid-type]
    """What is trained, by name; a run states only what differs from `defaults` and its dataset's blocks."""
    tables: dict[Name, TableParams] = {}
    """Tables of scores, by name: `reports/<name>.tex`."""
    figures: dict[Name, FigureParams] = {}
    """Figures, by name: `reports/figures/<name>.pdf`."""
    studies: dict[Name, StudyParams] = {}
    """Runs against a baseline over seeds, by name: `reports/studies/<name>.tex`."""
    robustness: RobustnessParams | None = None
    """What `snakemake robustness` measures; without it there is none."""
    generalisation: dict[Name, MatrixParams] = {}
    """Matrices of runs and what they were not trained on."""


def json_schema() -> dict[str, Any]:
    """The JSON schema of params.yaml (draft 2020-12), for editors and for ``workflow/schemas``."""
    schema = ParamsFile.model_json_schema()
    schema["properties"]["extends"] = {
        "type": "string",
        "description": "A file, relative to this one, that this one is laid on; `null` takes an entry of it away.",
    }
    # What a file may leave to be written out stands in its schema, and not in what the code then sees.
    grid = GridRows.model_json_schema()
    schema["$defs"]["GridRows"] = grid
    rows = schema["$defs"]["TableParams"]["properties"]["rows"]
    reference = {"$ref": "#/$defs/GridRows"}
    rows["items"] = {"anyOf": [rows["items"], reference]}
    both = {key: rows.pop(key) for key in ("items", "type", "minItems")}
    rows["anyOf"] = [both, reference]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "params.yaml of COMICS", **schema}
