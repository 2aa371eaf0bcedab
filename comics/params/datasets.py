"""The kinds of dataset, and the splits they are divided into."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field

from comics.params.block import Block

SPLITS = ("train", "val", "test_dev", "test_challenge")

TEST_SPLITS = ("test_dev", "test_challenge")

Split = Literal["train", "val", "test_dev", "test_challenge"]


Forgery = Literal["swap", "inner", "attribute", "synthesis"]

FORGERIES: tuple[Forgery, ...] = get_args(Forgery)
"""Kinds of forgery in the embedded dataset, as its annotations' `forgery` names them."""

TRACES = ("resampling", "noise", "boundary", "compression", "colour")
"""What gives a forgery in the embedded dataset away."""

Strength = Annotated[float, Field(ge=0, le=3)]


class ForgeryTraces(Block):
    """How strong each trace of the embedded dataset's forgeries is: 1 as designed, 0 switches it off."""

    resampling: Strength = 1.0
    """Redrawn at a lower resolution and enlarged, or sharpened."""
    noise: Strength = 1.0
    """Less of the sensor's noise than around it, or more."""
    boundary: Strength = 1.0
    """A seam along the edge of what was redrawn, brighter or darker."""
    compression: Strength = 1.0
    """Compressed before it was pasted, on another grid of blocks."""
    colour: Strength = 1.0
    """Another white balance, or light from another side."""
    innocent: float = Field(0.2, ge=0, le=1)
    """Share of the real faces that carry one trace, for innocent reasons such as a beauty filter or a coloured lamp."""


class EmbeddedDataset(Block):
    """A dataset that is rendered from a seed."""

    kind: Literal["mini", "crowd"]

    seed: int = 5528418
    """Everything about the images follows from it."""
    width: int = Field(224, ge=64)
    """Image width in px."""
    height: int = Field(160, ge=64)
    """Image height in px."""
    train: int = Field(400, ge=1)
    """Number of training images."""
    val: int = Field(40, ge=1)
    """Number of validation images."""
    test_dev: int = Field(120, ge=1)
    """Number of images of the clean test set."""
    test_challenge: int = Field(120, ge=1)
    """Number of images of the perturbed test set."""
    challenge_level: int | None = Field(None, ge=1, le=4)
    """How hard test_challenge is perturbed (`comics.data.perturb.operations`); drawn for each image when empty."""


class MiniDataset(EmbeddedDataset):
    """The embedded dataset of the demo, rendered by `comics.data.mini.dataset`."""

    kind: Literal["mini"] = "mini"


class CrowdDataset(EmbeddedDataset):
    """The harder embedded dataset, rendered by `comics.data.crowd.dataset`: kinds of forgery, and traces with strengths."""

    kind: Literal["crowd"] = "crowd"
    traces: ForgeryTraces = ForgeryTraces()
    """How strong the traces of the forgeries are."""
    held_out: tuple[Forgery, ...] = Field((), max_length=3)
    """Kinds of forgery that train and val lack and the test splits keep."""


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


def _workflow_path(path: str) -> str:
    """`path`, which Snakemake takes as it is: it has no way to write braces and angle brackets that are only such."""
    bad = sorted({character for character in path if character in "{}<>" or character < " "} - {"\n", "\t"})
    if bad or not path.strip():
        raise ValueError(f"a path with {' '.join(map(repr, bad)) or 'nothing in it'} cannot be used; rename the file")
    return path


WorkflowPath = Annotated[str, AfterValidator(_workflow_path)]


class CustomDataset(Block):
    """A user's own dataset: COCO files with the categories Real and Fake."""

    kind: Literal["coco"] = "coco"
    annotations: dict[Split, WorkflowPath]
    """COCO file of each split."""
    images: dict[Split, str]
    """Image folder of each split: `file_name` in the COCO file is relative to it."""
    frame_step: int = Field(1, ge=1)
    """Keep every n-th image of each folder only: for folders of video frames."""


class MaskSplit(Block):
    """One split of images and masks of what is forged."""

    images: WorkflowPath
    """Folder of images, with folders in it or not."""
    masks: WorkflowPath
    """Folder of masks, under the images' relative names with any suffix."""
    faces: WorkflowPath | None = None
    """COCO file of a face detector's boxes: those that are not forged become Real faces. Without it real faces are unknown."""


class MasksDataset(Block):
    """Images with masks of what is forged (`comics.data.canonical.masks`)."""

    kind: Literal["masks"] = "masks"
    splits: dict[Split, MaskSplit] = Field(min_length=1)
    """Folders of each split."""
    mask_suffix: str = ""
    """What follows an image's name in its mask's: `_gt` for `a.jpg` and `a_gt.png`."""
    indexed: bool = False
    """Each value of a mask is a face (0 is none, 255 ignored); otherwise each connected component is."""
    threshold: int = Field(128, ge=1, le=255)
    """Grey value from which on a pixel is forged, in masks that are not indexed."""
    min_area: int = Field(16, ge=1)
    """Components of fewer pixels are left out."""


class VideoSplit(Block):
    """One split of forged videos and their masks."""

    target: WorkflowPath
    """Folder of forged videos."""
    mask: WorkflowPath
    """Folder of mask videos, under the targets' names."""
    source: WorkflowPath | None = None
    """Folder of pristine videos."""
    names: WorkflowPath | None = None
    """The videos of the split: a text file of names, one a line, or FaceForensics++' JSON list of pairs; all by default."""
    faces: WorkflowPath | None = None
    """COCO file of a face detector's boxes in the frames: those that are not forged become Real faces."""
    forgery: str | None = None
    """What the forged faces are called, such as `Deepfakes`."""


class VideosDataset(Block):
    """Forged videos with mask videos, as FFIW and FaceForensics++ have them (`comics.data.canonical.videos`)."""

    kind: Literal["videos"] = "videos"
    splits: dict[Split, VideoSplit] = Field(min_length=1)
    """Folders of each split."""
    frame_step: int = Field(10, ge=1)
    """Every n-th frame is taken, the first included."""
    real_by_mask: bool = False
    """A source's real face lies where the mask of its target (the same name, or `name_...`) says, as in FaceForensics++."""
    threshold: int = Field(128, ge=1, le=255)
    """Grey value from which on a pixel of a mask is forged."""
    min_area: int = Field(64, ge=1)
    """Components of fewer pixels are left out."""


def splits_of(block: Block) -> list[str]:
    """The splits of a dataset: all, or those that one's own files give."""
    if isinstance(block, MasksDataset | VideosDataset):
        return [split for split in SPLITS if split in block.splits]
    return [split for split in SPLITS if not isinstance(block, CustomDataset) or split in block.annotations]


_OTHER_SPLITS = ("val", "test_dev", "test_challenge", "challenge_level")
"""Fields of an embedded dataset that say nothing of its training split."""


def trained_from(block: Block) -> dict[str, Any]:
    """What decides the training split of a dataset, as plain JSON values.

    What an embedded one's other splits are stands there by its default, and is not left out: so weights from before sizes of
    test splits left the digest are still those of their run.
    """
    values = block.model_dump(mode="json")
    if isinstance(block, EmbeddedDataset):
        fields = type(block).model_fields
        values |= {name: fields[name].get_default() for name in _OTHER_SPLITS}
    return values


def given_files(block: Block) -> list[str]:
    """The user's files and folders that a dataset is converted from; none for those that are made or fetched."""
    if isinstance(block, MasksDataset | VideosDataset):
        fields = [value for split in block.splits.values() for value in split.model_dump(exclude={"forgery"}).values()]
        return [value for value in fields if value is not None]
    return list(block.annotations.values()) if isinstance(block, CustomDataset) else []


Dataset = Annotated[
    MiniDataset | CrowdDataset | OpenForensicsDataset | CustomDataset | MasksDataset | VideosDataset,
    Field(discriminator="kind"),
]
