"""params.yaml: its schema, what a run resolves to, and the digest that names it.

One file holds everything a user edits. `load` reads it, validates it against the classes of this package, and turns every
mistake into a `UserError` that names file, key and the nearest valid name. ``workflow/schemas/params.schema.json`` is
generated from these classes.
"""

from comics.params.block import Block, Colour, Name, Probability, partial
from comics.params.datasets import (
    FORGERIES,
    SPLITS,
    TEST_SPLITS,
    TRACES,
    CrowdDataset,
    CustomDataset,
    Dataset,
    EmbeddedDataset,
    Forgery,
    ForgeryTraces,
    MiniDataset,
    OpenForensicsDataset,
    Split,
)
from comics.params.detectors import DetectorSettings
from comics.params.file import ParamsFile, json_schema
from comics.params.objective import AttentionParams, CoarseParams, Component, FineParams, ObjectiveParams, ViewsParams
from comics.params.read import ENVIRONMENT, load
from comics.params.reports import (
    METRICS,
    TASKS,
    ComparisonFigure,
    ErrorsFigure,
    ExamplesFigure,
    FigureParams,
    ImageStyle,
    Metric,
    RobustnessParams,
    ScatterFigure,
    ScatterStyle,
    StudyParams,
    StudyRow,
    TableParams,
    TableRow,
    Task,
)
from comics.params.resolve import TRAINING_CODE_VERSION, Params, ResolvedRun, digest_of
from comics.params.runs import (
    DetectorName,
    InferenceParams,
    ModelParams,
    RunParams,
    TrainingParams,
)

__all__ = [
    "ENVIRONMENT",
    "FORGERIES",
    "METRICS",
    "SPLITS",
    "TASKS",
    "TEST_SPLITS",
    "TRACES",
    "TRAINING_CODE_VERSION",
    "AttentionParams",
    "Block",
    "CoarseParams",
    "Colour",
    "ComparisonFigure",
    "Component",
    "CrowdDataset",
    "CustomDataset",
    "Dataset",
    "DetectorName",
    "DetectorSettings",
    "EmbeddedDataset",
    "ErrorsFigure",
    "ExamplesFigure",
    "FigureParams",
    "FineParams",
    "Forgery",
    "ForgeryTraces",
    "ImageStyle",
    "InferenceParams",
    "Metric",
    "MiniDataset",
    "ModelParams",
    "Name",
    "ObjectiveParams",
    "OpenForensicsDataset",
    "Params",
    "ParamsFile",
    "Probability",
    "ResolvedRun",
    "RobustnessParams",
    "RunParams",
    "ScatterFigure",
    "ScatterStyle",
    "Split",
    "StudyParams",
    "StudyRow",
    "TableParams",
    "TableRow",
    "Task",
    "TrainingParams",
    "ViewsParams",
    "digest_of",
    "json_schema",
    "load",
    "partial",
]
