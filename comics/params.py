"""params.yaml: its schema, what a run resolves to, and the digest that names it.

One file holds everything a user edits. `load` reads it with one YAML 1.2 loader (``1e-4`` is a number, a key written
twice is an error), validates it against the classes below, and turns every mistake into a `UserError` that names file,
key and the nearest valid name. `Params.resolve` merges the preset of the dataset, the defaults and the run's own entry
into a complete, hashable description, whose `digest` travels with every file the run makes.
``workflow/schemas/params.schema.json`` is generated from these classes.
"""

from __future__ import annotations

import hashlib
import json
import types
import typing
from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, create_model, model_validator

from comics.errors import UserError, did_you_mean

TRAINING_CODE_VERSION = 2
"""Raised by hand when a change makes trained weights different: part of every digest, so that results are renewed.
Training deliberately does not depend on source files, lest a docstring cost GPU hours."""

SPLITS = ("train", "val", "test_dev", "test_challenge")
TEST_SPLITS = ("test_dev", "test_challenge")
TASKS = ("detection", "segmentation")
METRICS = ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L", "oLRP", "oLRP_Loc", "oLRP_FP", "oLRP_FN")

Split = Literal["train", "val", "test_dev", "test_challenge"]
Task = Literal["detection", "segmentation"]
Metric = Literal["AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L", "oLRP", "oLRP_Loc", "oLRP_FP", "oLRP_FN"]
DetectorName = Literal["blendmask", "condinst", "meinst", "solov2", "mask_rcnn"]
Component = Literal["views", "attention", "coarse", "fine"]
Probability = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]


class Block(BaseModel):
    """A part of params.yaml: unknown keys are errors, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


# --------------------------------------------------------------------------------------------------------- datasets


class MiniDataset(Block):
    """The embedded dataset, rendered by `comics.data.mini.dataset` from a seed."""

    kind: Literal["mini"] = "mini"
    seed: int = 5528418
    """Everything about the images follows from it."""
    width: int = Field(224, ge=64)
    """Image width in px."""
    height: int = Field(160, ge=64)
    """Image height in px."""
    train: int = Field(400, ge=1)
    """Number of training images."""
    val: int = Field(40, ge=1)
    test_dev: int = Field(120, ge=1)
    test_challenge: int = Field(120, ge=1)
    challenge_level: int | None = Field(None, ge=1, le=4)
    """How hard test_challenge is perturbed (`comics.data.perturb.operations`); drawn for each image when empty."""


class OpenForensicsDataset(Block):
    """OpenForensics as its Zenodo record serves it."""

    kind: Literal["openforensics"] = "openforensics"
    record: str = "5528418"
    """Number of the Zenodo record."""
    base_url: str = "https://zenodo.org"
    """Address of the server that answers for the record; a mirror's goes here."""
    archive_gb: float = Field(100.0, gt=0)
    """An image archive that unpacks to more gigabytes is refused."""
    archive_ratio: float = Field(50.0, gt=1)
    """An image that unpacks to more times its compressed size is refused: photographs hardly compress."""


class CustomDataset(Block):
    """A user's own dataset: COCO files with the categories Real and Fake."""

    kind: Literal["coco"] = "coco"
    annotations: dict[Split, str]
    """COCO file of each split."""
    images: dict[Split, str]
    """Image folder of each split: `file_name` in the COCO file is relative to it."""
    frame_step: int = Field(1, ge=1)
    """Keep every n-th image of each folder only: for folders of video frames."""


Dataset = Annotated[MiniDataset | OpenForensicsDataset | CustomDataset, Field(discriminator="kind")]

# ------------------------------------------------------------------------------------------------------------- runs


class ModelParams(Block):
    """Sizes of the network. The defaults are the paper's base, ResNet-50-FPN."""

    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"
    weights: str = "none"
    """Initial weights of the backbone: `none`, `imagenet` (torchvision's weights enum) or a file's path."""
    frozen_stages: int = Field(0, ge=0, le=5)
    """How many stages, from the stem on, are not trained."""
    frozen_batchnorm: bool = False
    """Keep the backbone's BatchNorm statistics and affine parameters as loaded."""
    fpn_channels: int = Field(256, ge=8)
    head_channels: int = Field(256, ge=8)
    """Width of the detection towers."""
    head_convs: int = Field(4, ge=0)
    """Convolutions in each detection tower."""
    mask_channels: int = Field(128, ge=8)
    """Width of the mask branch (BlendMask's bottom module and its like)."""
    mask_code: int = Field(60, ge=1, le=784)
    """Numbers that stand for a mask (MEInst)."""
    rois: PositiveInt = 512
    """Boxes an image that train Mask R-CNN's second stage."""
    grids: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (40, 36, 24, 16, 12)
    """SOLOv2's cells a side, from the finest level on. The paper's are for images of 800 px and more."""


class InferenceParams(Block):
    """From raw outputs to detections; changing these does not retrain."""

    score_threshold: Probability = 0.05
    nms_threshold: Probability = 0.6
    pre_nms_top: int = Field(1000, ge=1)
    """Candidates kept before non-maximum suppression."""
    max_detections: int = Field(100, ge=1)
    """Detections kept an image."""
    batch_size: int = Field(8, ge=1)


PUBLISHED_INFERENCE: dict[str, dict[str, Any]] = {
    "mask_rcnn": {"nms_threshold": 0.5},
    "solov2": {"score_threshold": 0.1, "pre_nms_top": 500},
}
"""Where a detector's published inference differs from the defaults of `InferenceParams`, which are FCOS's."""


class TrainingParams(Block):
    """The optimisation. The defaults are the paper's; where it is silent, its authors' code's (docs/fidelity.md)."""

    epochs: int = Field(12, ge=1)
    batch_size: int = Field(8, ge=1)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """`adamw` learns faster from scratch; the paper's is `sgd`."""
    lr: float = Field(0.01, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of SGD; AdamW's first moment."""
    weight_decay: float = Field(1e-4, ge=0)
    milestones: list[Annotated[float, Field(gt=0)]] = [8, 10]
    """Epochs at which the learning rate is multiplied by `gamma`."""
    gamma: float = Field(0.1, gt=0, le=1)
    warmup_iterations: int = Field(1000, ge=0)
    warmup_factor: float = Field(0.001, gt=0, le=1)
    clip_gradient_norm: float = Field(0.0, ge=0)
    """Largest norm of the gradient; 0 leaves it alone."""
    image_size: int = Field(1024, ge=32)
    """Longest side of an image in px, in training and in inference; smaller images are not enlarged."""
    crop: float = Field(0.9, gt=0, le=1)
    """Smallest relative side of the random crop; 1 crops nothing."""
    rotation: float = Field(30.0, ge=0, le=180)
    """Largest rotation in degrees, to both sides."""
    flip: Probability = 0.5
    """Probability of the horizontal flip."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto` takes bf16 where the processor computes in it. Losses that need float32 stay in it."""
    workers: int = Field(4, ge=0)
    """Loader processes; no effect on the result."""
    checkpoint_minutes: float = Field(10.0, gt=0)
    """Between two resumable checkpoints; no effect on the result."""


class ViewsParams(Block):
    """The paper's four families of augmentation (section IV-A). Geometry is untouched by all of them."""

    jitter_probability: Probability = 0.5
    """Of each of brightness, contrast, saturation and sharpness (the paper's 50 %)."""
    jitter_strength: float = Field(0.4, ge=0, le=1)
    """Each factor is drawn from 1 - strength ... 1 + strength."""
    grayscale_probability: Probability = 0.2
    blocking_probability: Probability = 0.5
    blocking_grid: int = Field(10, ge=1)
    """Chunks a side (the paper's 10 x 10)."""
    blocking_range: tuple[Probability, Probability] = (0.02, 0.06)
    """Share of the chunks that are blocked (the paper's 2-6 %)."""
    noise_probability: Probability = 0.5
    """Of Gaussian or salt-and-pepper noise, one of them at random."""
    gaussian_sigma: float = Field(0.04, ge=0)
    """Largest standard deviation, in units of the full range."""
    salt_pepper_share: Probability = 0.02
    """Largest share of pixels set to black or white."""
    interpolation_probability: Probability = 0.5
    """Of shrinking to 1/`interpolation_factor` and back."""
    interpolation_factor: int = Field(4, ge=1)


class AttentionParams(Block):
    """Frequency enhanced attention (section VI, figure 7)."""

    channels: tuple[int, int] = (32, 64)
    """Of the two convolutions."""
    identity: bool = False
    """False: features x attention, the paper's text. True: features x (1 + attention), its authors' code."""


class CoarseParams(Block):
    """Coarse-grained contrastive learning (section IV, equations 1-5)."""

    weight: float = Field(0.5, ge=0)
    """lambda 1 of equation 9."""
    momentum: Probability = 0.999
    """beta of equation 1."""
    prototype_momentum: Probability = 0.9
    """alpha of equation 2."""
    iou_threshold: Probability = 0.6
    """A proposal is real (fake) when its box overlaps a real (fake) face by more."""
    pushed: int = Field(5, ge=1)
    """Key features pushed a step, level and class: the least similar to their prototype."""
    queue_size: int = Field(1024, ge=1)
    """Slots a level and class; a slot never filled is never a negative."""
    level_weights: list[float] = [0.1, 0.2, 0.4, 0.7, 1.0]
    """omega of equation 5, from the finest level on."""
    multi_scale: bool = True
    """False: one pair of queues over the proposals of all levels (Table V, `w.o. MS`)."""
    negatives: Literal["other_class", "same_class"] = "other_class"
    """Which queue holds the negatives of a proposal; `same_class` is the letter of equation 4's text."""


class FineParams(Block):
    """Fine-grained contrastive learning (section V, equations 6-8)."""

    intra_weight: float = Field(0.1, ge=0)
    """lambda 2 of equation 9."""
    inter_weight: float = Field(0.1, ge=0)
    """lambda 3 of equation 9."""
    size: int = Field(28, ge=4)
    """Mask features and masks are resized to size x size."""
    samples: Literal["far", "close", "all"] = "far"
    """Pixels compared: far from the face's boundary, close to it, or all (Table VI)."""
    margin: float = Field(2.0, ge=0)
    """Pixels within this distance of the boundary are close."""
    similarity: Literal["region_mean", "pixel_pairs"] = "region_mean"
    """Equation 7 as the mean over pixel pairs, or the authors' code's sum of exponentials over them."""


class ObjectiveParams(Block):
    """The bi-grained objective (equation 9)."""

    temperature: float = Field(0.7, gt=0)
    """tau, everywhere."""
    coarse: CoarseParams = CoarseParams()
    fine: FineParams = FineParams()


class RunParams(Block):
    """Everything that one run is made of. In params.yaml a run states only what differs from the defaults."""

    title: str = ""
    """For people; not part of the digest."""
    detector: DetectorName = "blendmask"
    components: list[Component] = []
    """Parts of COMICS that are on: views (DA), attention (FEA), coarse and fine (Bi-grained)."""
    model: ModelParams = ModelParams()
    training: TrainingParams = TrainingParams()
    inference: InferenceParams = InferenceParams()
    views: ViewsParams = ViewsParams()
    attention: AttentionParams = AttentionParams()
    objective: ObjectiveParams = ObjectiveParams()
    seeds: list[Annotated[int, Field(ge=0)]] = Field([], description="Seeds of this run; empty: those of the file.")

    @model_validator(mode="before")
    @classmethod
    def _published_inference(cls, data: Any) -> Any:
        """What a run does not state about inference is its detector's published setting."""
        if not isinstance(data, Mapping) or not isinstance(data.get("inference", {}), Mapping):
            return data
        published = PUBLISHED_INFERENCE.get(str(data.get("detector")), {})
        return {**data, "inference": {**published, **data.get("inference", {})}} if published else data

    @model_validator(mode="after")
    def _check(self) -> RunParams:
        if len(set(self.components)) != len(self.components):
            raise ValueError("components lists one of them twice")
        return self


@cache
def partial(model: type[Block]) -> type[Block]:
    """The class of entries that may leave out any field of `model`, at any depth."""
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Block):
            fields[name] = (partial(annotation), Field(None, description=field.description))
        else:
            annotation = Annotated[(annotation, *field.metadata)] if field.metadata else annotation  # type: ignore[assignment]
            fields[name] = (annotation, Field(None, description=field.description))
    return create_model(f"{model.__name__}Entry", __base__=Block, __doc__=model.__doc__, **fields)


# ------------------------------------------------------------------------------------------------ tables and figures


class TableRow(Block):
    """One row: a run of ours, a row of the paper, or both side by side."""

    label: list[str] | str
    """One text, or one a label column; `yes` and `no` become check marks."""
    run: str | None = None
    """Name of a run."""
    paper: str | None = None
    """The row's name in the paper's table."""
    optional: bool = False
    """Measured when the run's results exist, the paper's row otherwise."""


class TableParams(Block):
    """A table of scores."""

    caption: str
    paper: str | None = None
    """Number of the paper's table that stands beside ours."""
    columns: list[str] = ["Method"]
    """Headings of the label columns."""
    splits: list[Split] = ["test_dev", "test_challenge"]
    tasks: list[Task] = ["detection", "segmentation"]
    metrics: list[Metric] = ["AP", "AP_S", "AP_M", "AP_L", "oLRP", "oLRP_Loc", "oLRP_FP", "oLRP_FN"]
    rows: list[TableRow] = Field(min_length=1)
    compare: bool = True
    """Mark rows that are not significantly different from the best, by AP and oLRP: a step of its own, from detections."""
    notes: list[str] = []
    """Remarks set under the table."""


Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]


class ScatterStyle(Block):
    """Looks of a scatter. Identity never rests on colour: measured is filled, reported hollow, highlighted a star."""

    width: float = Field(7.16, gt=1, le=20)
    """Inches; 7.16 is the text width of a two-column page."""
    height: float = Field(3.4, gt=1, le=20)
    """Inches."""
    font_size: float = Field(7.5, gt=3, le=30)
    """Points."""
    marker_size: float = Field(5.5, gt=1, le=30)
    """Points."""
    measured: Colour = "#0072B2"
    reported: Colour = "#666666"
    highlight: Colour = "#D55E00"


class ScatterFigure(Block):
    """One metric against another, one panel a task, one labelled point a system."""

    kind: Literal["scatter"] = "scatter"
    caption: str
    split: Split = "test_dev"
    tasks: list[Task] = Field(["detection", "segmentation"], min_length=1)
    """One panel each."""
    table: str
    """The table whose rows are drawn."""
    x: Metric = "oLRP"
    y: Metric = "AP"
    highlight: list[str] = ["comics"]
    """Runs drawn as a star."""
    style: ScatterStyle = ScatterStyle()


class ImageStyle(Block):
    """Looks of a figure made of photographs."""

    width: float = Field(7.16, gt=1, le=20)
    """Inches."""
    font_size: float = Field(7.0, gt=3, le=30)
    """Points."""
    real: Colour = "#56B4E9"
    """Outline of a real face (drawn solid)."""
    fake: Colour = "#E69F00"
    """Outline of a fake face (drawn dashed)."""


class ExamplesFigure(Block):
    """Images of the dataset, one row a split. Picks: of the images with a real and a fake face (of all images where
    none has both), `count` spread evenly over the split in order of image id."""

    kind: Literal["examples"] = "examples"
    caption: str
    splits: list[Split] = Field(["test_dev", "test_challenge"], min_length=1)
    """One row each."""
    count: int = Field(5, ge=1, le=20)
    """Images a row."""
    outlines: bool = False
    """Draw the annotated masks' outlines."""
    style: ImageStyle = ImageStyle()


class ComparisonFigure(Block):
    """Two runs and the ground truth side by side. Picks: per split, the `count` images on which the two runs' numbers
    of errors (misses, false alarms, wrong classes) differ most, in either run's favour; ties by image id."""

    kind: Literal["comparison"] = "comparison"
    caption: str
    runs: list[str] = Field(["blendmask", "comics"], min_length=1)
    """One row each, above the ground truth; the picks compare the first with the last."""
    splits: list[Split] = Field(["test_dev", "test_challenge"], min_length=1)
    """One group of columns each."""
    count: int = Field(3, ge=1, le=20)
    """Images a split."""
    score: Probability | Literal["optimal"] = "optimal"
    """Detections drawn: score at least this; `optimal` takes each class's threshold at its oLRP (scores CSV)."""
    iou: float = Field(0.5, gt=0, lt=1)
    """Mask overlap from which a detection counts as a hit."""
    style: ImageStyle = ImageStyle()


FigureParams = Annotated[ScatterFigure | ExamplesFigure | ComparisonFigure, Field(discriminator="kind")]
"""A figure; `kind` says which."""


class StudyRow(Block):
    """One arm of a study."""

    label: str
    run: str
    """Name of a run; all its seeds count."""


class StudyParams(Block):
    """Does it help? Runs against a baseline over several seeds: differences with paired intervals, as table and figure.

    Made when it is asked for by its name (``snakemake claim``), and not by `all`."""

    caption: str
    dataset: str
    """The dataset it is about; refused on another, whose training would need other numbers."""
    split: Split = "test_challenge"
    rows: list[StudyRow] = Field(min_length=2)
    """The first is the baseline."""
    samples: int = Field(1000, ge=1)
    """Resamples of the bootstrap."""


# --------------------------------------------------------------------------------------------------------- the file

_RunEntry = partial(RunParams)
_TrainingEntry = partial(TrainingParams)
_ModelEntry = partial(ModelParams)
_ObjectiveEntry = partial(ObjectiveParams)
_ViewsEntry = partial(ViewsParams)


class ParamsFile(Block):
    """params.yaml as it is written."""

    dataset: Name
    """Which of `datasets` everything is made from."""
    seeds: list[Annotated[int, Field(ge=0)]] = Field([0], min_length=1)
    """Every run is trained once a seed."""
    datasets: dict[Name, Dataset]
    training: dict[Name, _TrainingEntry]  # type: ignore[valid-type]
    """Optimisation, by dataset; a dataset without an entry takes that of `openforensics`."""
    models: dict[Name, _ModelEntry]  # type: ignore[valid-type]
    """Sizes of the network, by dataset; a dataset without an entry takes that of `openforensics`."""
    objectives: dict[Name, _ObjectiveEntry] = {}  # type: ignore[valid-type]
    """The bi-grained objective, by dataset, where it is not the paper's."""
    views: dict[Name, _ViewsEntry] = {}  # type: ignore[valid-type]
    """The augmentation, by dataset, where it is not the paper's."""
    defaults: _RunEntry = _RunEntry()  # type: ignore[valid-type]
    """What every run shares."""
    runs: dict[Name, _RunEntry]  # type: ignore[valid-type]
    tables: dict[Name, TableParams] = {}
    figures: dict[Name, FigureParams] = {}
    studies: dict[Name, StudyParams] = {}


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, mapping by mapping; lists and values replace."""
    merged = dict(base)
    for key, value in over.items():
        inner = merged.get(key)
        merged[key] = _merge(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return merged


def _stated(block: Any) -> dict[str, Any]:
    """What a block of the file says itself, without defaults."""
    return block.model_dump(exclude_unset=True)


def digest_of(description: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits of SHA-256 over the canonical JSON of `description`."""
    canonical = json.dumps(description, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


_NO_EFFECT = {"workers", "checkpoint_minutes"}
_NO_EFFECT_DATASET = {"base_url", "archive_gb", "archive_ratio"}


class ResolvedRun(Block):
    """One run with one seed, complete: nothing else decides what it makes."""

    name: str
    seed: int
    dataset_name: str
    dataset: Dataset
    params: RunParams

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
        run = self.params.model_dump(mode="json", exclude={"title", "seeds", "components", "objective"})
        for component in ("views", "attention"):
            if component not in self.components:
                del run[component]
        objective = self.params.objective.model_dump(mode="json")
        parts = {part: objective[part] for part in ("coarse", "fine") if part in self.components}
        if parts:
            run["objective"] = {"temperature": objective["temperature"], **parts}
        run["training"] = {key: value for key, value in run["training"].items() if key not in _NO_EFFECT}
        run["inference"] = {key: value for key, value in run["inference"].items() if key != "batch_size"}
        return {
            "code_version": TRAINING_CODE_VERSION,
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
        """Names the run's weights: inference settings do not change them."""
        return digest_of({key: value for key, value in self.description.items() if key != "inference"})

    def from_checkpoint(self) -> ResolvedRun:
        """The run as its trained weights need it: building the network loads no initial weights."""
        model = self.model.model_copy(update={"weights": "none"})
        return self.model_copy(update={"params": self.params.model_copy(update={"model": model})})

    @property
    def folder(self) -> Path:
        """Where the run's files are, from the project's root."""
        return Path("results") / self.dataset_name / self.name / f"seed{self.seed}"

    def annotations(self, split: str) -> Path:
        """The canonical COCO file of `split`."""
        return Path("data") / self.dataset_name / split / "annotations.json"


class Params:
    """A validated params.yaml."""

    def __init__(self, file: ParamsFile, path: Path) -> None:
        self.file = file
        self.path = path
        self._check_names()

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
    def runs(self) -> list[str]:
        """Names of the runs, in the file's order."""
        return list(self.file.runs)

    def _known(self, key: str, name: str, valid: typing.Iterable[str], kind: str) -> None:
        if name not in valid:
            raise UserError(f"{self.path}: {key}: there is no {kind} '{name}'.", did_you_mean(name, valid))

    def _check_names(self) -> None:
        """Everything that one part of the file says of another."""
        self._known("dataset", self.dataset, self.file.datasets, "dataset")
        for name, table in self.tables.items():
            for number, row in enumerate(table.rows):
                key = f"tables.{name}.rows[{number}]"
                if row.run is not None:
                    self._known(f"{key}.run", row.run, self.file.runs, "run")
                if row.run is None and row.paper is None:
                    raise UserError(
                        f"{self.path}: {key}: names neither a run nor a row of the paper.", "Give `run:` or `paper:`."
                    )
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
                    self._known(f"{key}.highlight", run, self.file.runs, "run")
            elif isinstance(figure, ComparisonFigure):
                for run in figure.runs:
                    self._known(f"{key}.runs", run, self.file.runs, "run")
        for name, study in self.studies.items():
            self._known(f"studies.{name}.dataset", study.dataset, self.file.datasets, "dataset")
            for number, arm in enumerate(study.rows):
                self._known(f"studies.{name}.rows[{number}].run", arm.run, self.file.runs, "run")
        for run in self.runs:
            self._run_params(run)  # values that only a merge makes wrong

    def _preset(self, blocks: Mapping[str, Block]) -> dict[str, Any]:
        block = blocks.get(self.dataset) or blocks.get("openforensics")
        return _stated(block) if block is not None else {}

    @cache  # noqa: B019 - one Params a process
    def _run_params(self, run: str) -> RunParams:
        preset = {
            "training": self._preset(self.file.training),
            "model": self._preset(self.file.models),
            "objective": self._preset(self.file.objectives),
            "views": self._preset(self.file.views),
        }
        merged = _merge(_merge(preset, _stated(self.file.defaults)), _stated(self.file.runs[run]))
        try:
            return RunParams.model_validate(merged)
        except ValidationError as error:
            raise _as_user_error(error, RunParams, self.path, ("runs", run)) from None

    def require_run(self, run: str) -> None:
        """Raise `UserError` unless `run` is a run of the file."""
        self._known("runs", run, self.file.runs, "run")

    def seeds(self, run: str) -> list[int]:
        """The seeds that `run` is trained with."""
        self.require_run(run)
        return list(self._run_params(run).seeds or self.file.seeds)

    def resolve(self, run: str, seed: int | None = None) -> ResolvedRun:
        """`run` with `seed` (default: its first), complete."""
        self.require_run(run)
        return ResolvedRun(
            name=run,
            seed=self.seeds(run)[0] if seed is None else seed,
            dataset_name=self.dataset,
            dataset=self.file.datasets[self.dataset],
            params=self._run_params(run),
        )

    @cached_property
    def _first_of_digest(self) -> dict[str, str]:
        first: dict[str, str] = {}
        for run in self.runs:
            first.setdefault(self.resolve(run, 0).digest, run)
        return first

    def canonical(self, run: str) -> str:
        """The first run of the file that resolves to the same as `run`: the one that is trained for both."""
        return self._first_of_digest[self.resolve(run, 0).digest]


# ----------------------------------------------------------------------------------------------- reading and errors


def load(path: str | Path = "params.yaml") -> Params:
    """Read and validate params.yaml.

    Raises:
        UserError: file absent, not YAML, a key unknown or written twice, a value out of range, a name that nothing
            bears; the message names file and key, the remedy the nearest valid name.
    """
    path = Path(path)
    return Params(_validate(_read_yaml(path), path), path)


def _read_yaml(path: Path) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file.", "Run the command in the project's folder, or give --params FILE."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}).") from None
    try:
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{path}: {place}{error.problem or error}.", "Mend the YAML there.") from None
    except YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}.") from None


def _validate(content: Any, path: Path) -> ParamsFile:
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected keys such as `dataset:` and `runs:`, found {type(content).__name__}.")
    try:
        return ParamsFile.model_validate(content)
    except ValidationError as error:
        raise _as_user_error(error, ParamsFile, path) from None


def _unwrap(annotation: Any, step: Any) -> tuple[Any, bool]:
    """The type behind `annotation` at `step` of an error's place, and whether the step was used up."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _unwrap(typing.get_args(annotation)[0], step)
    if origin in (Union, types.UnionType):
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
        for member in members:  # a discriminated union puts its tag into the place
            if isinstance(member, type) and issubclass(member, Block):
                kind = member.model_fields.get("kind")
                if kind is not None and kind.default == step:
                    return member, True
        return _unwrap(members[0], step)
    if origin in (dict, list, tuple):
        return typing.get_args(annotation)[-1 if origin is dict else 0], True
    if isinstance(annotation, type) and issubclass(annotation, Block):
        field = annotation.model_fields.get(step)
        return (field.annotation if field else None), True
    return None, True


def _valid_keys(model: Any, place: tuple[Any, ...]) -> list[str]:
    """The keys that the block at `place` may hold."""
    current: Any = model
    for step in place:
        used = False
        while not used and current is not None:
            current, used = _unwrap(current, step)
    while current is not None and not (isinstance(current, type) and issubclass(current, Block)):
        args = typing.get_args(current)
        current = next((arg for arg in args if isinstance(arg, type) and issubclass(arg, Block)), None)
    return list(current.model_fields) if current is not None else []


def _as_user_error(error: ValidationError, model: Any, path: Path, prefix: tuple[str, ...] = ()) -> UserError:
    """All mistakes of `error` in one `UserError`, the first with a remedy."""
    lines, remedy = [], ""
    for item in sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden"):  # misspelt before missing
        place = item["loc"]
        key = _key((*prefix, *place))
        if item["type"] == "extra_forbidden":
            lines.append(f"{path}: {key}: unknown key.")
            hint = did_you_mean(str(place[-1]), _valid_keys(model, place[:-1]))
        elif item["type"] in ("literal_error", "enum"):
            lines.append(f"{path}: {key}: '{item['input']}' is not one of the values it takes.")
            expected = item.get("ctx", {}).get("expected", "")
            hint = did_you_mean(
                str(item["input"]), [word.strip(" '") for word in expected.replace(" or ", ", ").split(",")]
            )
        elif item["type"] == "union_tag_not_found":
            lines.append(f"{path}: {key}.kind: missing.")
            hint = "Add it."
        elif item["type"] == "union_tag_invalid":
            tag, tags = str(item["ctx"]["tag"]), item["ctx"]["expected_tags"]
            lines.append(f"{path}: {key}.kind: '{tag}' is not one of the values it takes.")
            hint = did_you_mean(tag, [word.strip(" '") for word in tags.split(",")])
        elif item["type"] == "missing":
            lines.append(f"{path}: {key}: missing.")
            hint = "Add it."
        else:
            lines.append(f"{path}: {key}: {item['msg']} (found {item['input']!r}).")
            hint = ""
        remedy = remedy or hint
    return UserError("\n".join(lines), remedy)


def _key(place: tuple[Any, ...]) -> str:
    """An error's place as a dotted key; the tag that pydantic adds for a kind of dataset is left out."""
    parts = list(place)
    if len(parts) > 2 and parts[0] in ("datasets", "figures"):
        del parts[2]
    if parts and parts[-1] == "[key]":
        parts.pop()
    key = ""
    for part in parts:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
    return key


def json_schema() -> dict[str, Any]:
    """The JSON schema of params.yaml (draft 2020-12), for editors and for ``workflow/schemas``."""
    schema = ParamsFile.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "params.yaml of COMICS", **schema}
