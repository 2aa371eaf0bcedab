"""What is rendered from results: tables, figures, studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from comics.params.block import Block, Colour, Probability
from comics.params.datasets import Split

TASKS = ("detection", "segmentation")

Task = Literal["detection", "segmentation"]

Metric = Literal[
    "AP",
    "AP50",
    "AP75",
    "AP_S",
    "AP_M",
    "AP_L",
    "oLRP",
    "oLRP_Loc",
    "oLRP_FP",
    "oLRP_FN",
    "face_AUC",
    "face_EER",
    "face_ACC",
    "face_BACC",
    "face_TPR1",
    "face_TPR5",
    "face_ECE",
    "face_Brier",
    "face_found",
    "image_AUC",
    "image_EER",
    "image_ACC",
    "image_F1",
    "pixel_AUC",
    "pixel_F1",
    "pixel_IoU",
    "pixel_F1_best",
    "pixel_IoU_best",
    "pixel_core_AUC",
    "pixel_core_F1",
    "pixel_core_IoU",
    "pixel_core_F1_best",
    "pixel_core_IoU_best",
    "video_AUC",
    "video_EER",
    "video_ACC",
    "video_F1",
    "track_AUC",
    "track_EER",
    "track_ACC",
    "track_BACC",
]
"""Average precision, oLRP, and the verdicts on faces, images, pixels, videos and tracks (docs/evaluation.md)."""

METRICS: tuple[str, ...] = get_args(Metric)


class TableRow(Block):
    """One row: a run of ours, detections of a system that was run elsewhere, a row of the paper, or one of the former beside the
    latter."""

    label: list[str] | str
    """One text, or one a label column; `yes` and `no` become check marks."""
    run: str | None = None
    """Name of a run."""
    detections: str | None = None
    """COCO results (detectron2's coco_instances_results.json, say) of a system that was run elsewhere, instead of `run`; scored here,
    marked so, and not compared with ours. `{split}` in the path stands for the test set."""
    paper: str | None = None
    """The row's name in the paper's table."""
    optional: bool = False
    """Where the run's results, or the detections, do not exist, the paper's row stands in, and a figure of the table trains nothing.
    The workflow makes the table itself with all its runs."""

    def detections_of(self, split: str) -> Path:
        """The file of `detections` on `split`."""
        return Path((self.detections or "").replace("{split}", split))


class GridRows(Block):
    """Rows for all points of a run's grid. In its texts ``{objective.temperature}`` stands for a setting's value."""

    grid: str
    """Name of a run with a `grid`."""
    label: list[str] | str | None = None
    """By default the values, a label column each."""
    paper: str | None = None
    """The row's name in the paper's table, with the values of each point in it."""
    optional: bool = False
    """As of a row."""


class TableParams(Block):
    """A table of scores."""

    caption: str
    """Set above the table; the dataset and the seeds are added."""
    paper: str | None = None
    """Number of the paper's table that stands beside ours."""
    columns: list[str] = ["Method"]
    """Headings of the label columns."""
    splits: list[Split] = ["test_dev", "test_challenge"]
    """One block of rows each."""
    tasks: list[Task] = ["detection", "segmentation"]
    """One block of columns each: boxes, masks."""
    metrics: list[Metric] = ["AP", "AP_S", "AP_M", "AP_L", "oLRP", "oLRP_Loc", "oLRP_FP", "oLRP_FN"]
    """Columns of each task."""
    rows: list[TableRow] = Field(min_length=1)
    """From top to bottom; or the points of a grid."""
    compare: bool = True
    """Mark rows that are not significantly different from the best, by AP, oLRP, verdicts: a step of its own, from detections."""
    notes: list[str] = []
    """Remarks set under the table."""


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
    """Colour of what was measured here."""
    reported: Colour = "#666666"
    """Colour of what the paper reports."""
    highlight: Colour = "#D55E00"
    """Colour of the star."""


class ScatterFigure(Block):
    """One metric against another, one panel a task, one labelled point a system."""

    kind: Literal["scatter"] = "scatter"
    caption: str
    """Set under the figure."""
    split: Split = "test_dev"
    """Test set whose scores are drawn."""
    tasks: list[Task] = Field(["detection", "segmentation"], min_length=1)
    """One panel each."""
    table: str
    """The table whose rows are drawn."""
    x: Metric = "oLRP"
    """Metric along the horizontal axis."""
    y: Metric = "AP"
    """Metric along the vertical axis."""
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
    """Set under the figure."""
    splits: list[Split] = Field(["test_dev", "test_challenge"], min_length=1)
    """One row each."""
    count: int = Field(5, ge=1, le=20)
    """Images a row."""
    outlines: bool = False
    """Draw the annotated masks' outlines."""
    style: ImageStyle = ImageStyle()


class ComparisonFigure(Block):
    """Runs and the ground truth side by side. Picks, per split, `count` images: those on which the numbers of errors (misses,
    false alarms, wrong classes) of the first run and the last differ most, in either's favour, or those on which the last run
    has the most; ties by image id."""

    kind: Literal["comparison"] = "comparison"
    caption: str
    """Set under the figure."""
    runs: list[str] = Field(["blendmask", "comics"], min_length=1)
    """One row each, above the ground truth; the picks compare the first with the last."""
    pick: Literal["differences", "worst"] = "differences"
    """Images on which the first run and the last differ most, or on which the last has the most errors."""
    splits: list[Split] = Field(["test_dev", "test_challenge"], min_length=1)
    """One group of columns each."""
    count: int = Field(3, ge=1, le=20)
    """Images a split."""
    score: Probability | Literal["optimal"] = "optimal"
    """Detections drawn: score at least this; `optimal` takes each class's threshold at its oLRP (scores CSV)."""
    iou: float = Field(0.5, gt=0, lt=1)
    """Mask overlap from which a detection counts as a hit."""
    style: ImageStyle = ImageStyle()


class ChartStyle(Block):
    """Looks of bars and curves."""

    width: float = Field(7.16, gt=1, le=20)
    """Inches; 7.16 is the text width of a two-column page."""
    height: float = Field(0.0, ge=0, le=20)
    """Inches; 0 takes what the content needs."""
    font_size: float = Field(7.5, gt=3, le=30)
    """Points."""


class ErrorsFigure(Block):
    """What each kind of error costs in AP50 (TIDE), as a stacked bar a run, one panel a task. Of each run's first seed."""

    kind: Literal["errors"] = "errors"
    caption: str
    """Set under the figure."""
    runs: list[str] = Field(["blendmask", "comics"], min_length=1)
    """One bar each."""
    split: Split = "test_dev"
    """Test set whose errors are drawn."""
    tasks: list[Task] = Field(["detection", "segmentation"], min_length=1)
    """One panel each."""
    style: ChartStyle = ChartStyle()


class CurvesFigure(Block):
    """What runs logged while they were trained: one panel a term, one line a run. Of each run's first seed."""

    kind: Literal["curves"] = "curves"
    caption: str
    """Set under the figure."""
    runs: list[str] = Field(["blendmask", "comics"], min_length=1)
    """One line each."""
    terms: list[str] = Field(
        ["loss", "class", "box", "mask", "loss_coarse", "loss_intra", "loss_inter", "val/segmentation_AP"], min_length=1
    )
    """Columns of logs/metrics.csv, without `train/`; those that none of the runs has logged are left out."""
    style: ChartStyle = ChartStyle()


FigureParams = Annotated[
    ScatterFigure | ExamplesFigure | ComparisonFigure | ErrorsFigure | CurvesFigure, Field(discriminator="kind")
]
"""A figure; `kind` says which."""


Family = Literal["colour", "edge", "convolution", "block", "corruption", "weather", "geometry", "social"]
"""Kinds of change: those of `comics.data.perturb.operations`, its warps, and what becomes of a picture that is passed on."""


class RobustnessParams(Block):
    """How scores fall as images get worse: every operation at five severities, on images of one test set.

    Made when it is asked for by its name (``snakemake robustness``), and not by `all`."""

    runs: list[str] = Field(min_length=1)
    """The first is the baseline, in whose errors those of the others are told. All seeds count."""
    split: Split = "test_dev"
    """Test set whose images are made worse."""
    images: int = Field(24, ge=2)
    """Spread evenly over the split, in order of id."""
    severities: list[Annotated[int, Field(ge=1, le=5)]] = Field([1, 2, 3, 4, 5], min_length=1)
    """1 means a PSNR of 34 dB, 2 of 30, 3 of 26, 4 of 22, 5 of 18, as near as an operation can come."""
    families: list[Family] = Field(
        ["colour", "edge", "convolution", "block", "corruption", "weather", "geometry", "social"], min_length=1
    )
    """Kinds of change that are applied."""
    task: Task = "segmentation"
    """Boxes or masks, in curves, heat map and table."""
    metric: Metric = "AP"
    """What curves, heat map and table show; the others stand in the results."""
    style: ChartStyle = ChartStyle()

    @model_validator(mode="after")
    def _check(self) -> RobustnessParams:
        for name in ("runs", "severities", "families"):
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise ValueError(f"{name} lists one of them twice")
        return self


class _Matrix(Block):
    """How well runs do on what they were not trained on: a row a run.

    Made when it is asked for by its name (``snakemake generalisation``), and not by `all`."""

    caption: str
    """What is set above it."""
    runs: list[str] = Field(min_length=1)
    """One row each. All seeds count."""
    split: Split = "test_dev"
    """Of every dataset."""
    task: Task = "segmentation"
    """Boxes or masks."""
    style: ChartStyle = ChartStyle()


class DatasetsMatrix(_Matrix):
    """Trained on one dataset, tested on its own and on those of the run's `tests`: a column a test dataset."""

    kind: Literal["datasets"] = "datasets"
    metric: Metric = "AP"
    """What the cells hold."""
    intervals: bool = False
    """Whether cells of one seed have a 95 % interval: from 1,000 resamples of the test images."""


ForgeryMetric = Literal["AP", "oLRP", "oLRP_Loc", "oLRP_FN", "face_ACC", "face_found"]
"""What the faces of one kind of forgery can be measured by."""


class ForgeriesMatrix(_Matrix):
    """Tested on its own dataset, kinds of forgery apart, those that training lacked (`held_out`) and those that it had: a column a
    kind."""

    kind: Literal["forgeries"] = "forgeries"
    metric: ForgeryMetric = "AP"
    """What the cells hold, of the faces of one kind."""


MatrixParams = Annotated[DatasetsMatrix | ForgeriesMatrix, Field(discriminator="kind")]
"""How well runs do on what they were not trained on; `kind` says in which respect."""


class StudyRow(Block):
    """One arm of a study."""

    label: str
    """How tables and figure call it."""
    run: str
    """Name of a run; all its seeds count."""


class StudyParams(Block):
    """Does it help? Runs against a baseline over several seeds: differences with paired intervals, as table and figure.

    Made when it is asked for by its name (``snakemake claim``), and not by `all`."""

    caption: str
    """Set above the table."""
    dataset: str
    """The dataset it is about; refused on another, whose training would need other numbers."""
    split: Split = "test_challenge"
    """Test set that is compared."""
    rows: list[StudyRow] = Field(min_length=2)
    """The first is the baseline."""
    metrics: list[Metric] = Field(["AP", "oLRP"], min_length=1)
    """What is compared, of boxes and of masks."""
    samples: int = Field(1000, ge=1)
    """Resamples of the bootstrap."""
