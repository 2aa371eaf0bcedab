"""Reading and checking ground truth and detections in COCO's formats.

Every entry is checked before anything is computed, because the libraries that match drop, mistake or crash on what they
do not expect. A message names the file, the first offending entry and how many more there are.

A file is read by types first (`comics.evaluation.layout`); if anything is wrong with it, once more as plain JSON, from
which the message is made.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from comics.errors import UserError
from comics.evaluation.checks import Checker, repeated
from comics.evaluation.coco import Bools, Floats, Ints
from comics.evaluation.layout import Content, Detection, read_layout, read_parts
from comics.evaluation.rle import JoinedTexts, Texts
from comics.files import parsed_json, read_json
from comics.machine import release_memory

Source = str | os.PathLike[str]
Checked = TypeVar("Checked")

ALL = "all"
"""The average over classes, where else a class is named."""
LARGE = 1 << 26
"""Bytes of a results file from which on it is read part by part."""
BLOCK = 100_000
"""Detections that are matched and judged at once; what is beyond them waits."""


@dataclass(frozen=True)
class GroundTruth:
    """Checked ground truth.

    Attributes:
        name: the file, for messages.
        image_ids: (I,) ascending.
        image_sizes: (I, 2) height and width in px; 0 where the file does not tell.
        categories: id -> name, by ascending id.
        annotation_ids, annotation_images, annotation_categories: (A,); images as indices into `image_ids`.
        areas: (A,) px^2, as the file tells them.
        boxes: (A, 4) x, y, width, height in px; None where the annotations have none.
        crowd: (A,) bool.
        masks: (A) run lengths as text, of polygons too; None where the annotations have none. Without an annotation
            there is every task to evaluate.
        videos: (I,) number of the video that each image is of, from 0; None where the images have no `video_id`.
        tracks: (A,) number of the track that each annotation is of, from 0; None where they have no `track_id`.
        forgeries: (A) kind of forgery of each annotation, from `forgery`; empty where there is none.
    """

    name: str
    image_ids: Ints
    image_sizes: Ints
    categories: dict[int, str]
    annotation_ids: Ints
    annotation_images: Ints
    annotation_categories: Ints
    areas: Floats
    boxes: Floats | None
    crowd: Bools
    masks: Texts | None
    videos: Ints | None = None
    tracks: Ints | None = None
    forgeries: tuple[str, ...] = ()

    def part(self, chosen: Ints, first: int, stop: int) -> GroundTruth:
        """The images from `first` to before `stop`, with the annotations `chosen` (M,), which are theirs."""
        return GroundTruth(
            name=self.name,
            image_ids=self.image_ids[first:stop],
            image_sizes=self.image_sizes[first:stop],
            categories=self.categories,
            annotation_ids=self.annotation_ids[chosen],
            annotation_images=self.annotation_images[chosen] - first,
            annotation_categories=self.annotation_categories[chosen],
            areas=self.areas[chosen],
            boxes=None if self.boxes is None else self.boxes[chosen],
            crowd=self.crowd[chosen],
            masks=None if self.masks is None else Texts(self.masks[chosen]),
        )

    def objects(self, category: int, area: tuple[float, float] = (0.0, np.inf)) -> Ints:
        """(I,) number of objects of a category in each image; crowd regions and areas out of range are none."""
        of_size = (self.areas >= area[0]) & (self.areas <= area[1])
        chosen = (self.annotation_categories == category) & ~self.crowd & of_size
        return np.bincount(self.annotation_images[chosen], minlength=len(self.image_ids))


@dataclass(frozen=True)
class Detections:
    """Checked detections, in the file's order.

    Attributes:
        name: the file, for messages.
        images: (N,) indices into the ground truth's `image_ids`.
        category_ids: (N,).
        scores: (N,).
        boxes: (N, 4) x, y, width, height in px; None where the detections have none.
        masks: (N) run lengths as text; None where the detections have none. Without a detection there is every task to
            evaluate.
        mask_scores: (N,) by which masks are ranked; None where `scores` are for both.
    """

    name: str
    images: Ints
    category_ids: Ints
    scores: Floats
    boxes: Floats | None
    masks: Texts | None
    mask_scores: Floats | None = None

    def part(self, chosen: Ints, first: int) -> Detections:
        """The `chosen` (M,) detections, with images counted from `first` on."""
        return Detections(
            self.name,
            self.images[chosen] - first,
            self.category_ids[chosen],
            self.scores[chosen],
            None if self.boxes is None else self.boxes[chosen],
            None if self.masks is None else Texts(self.masks[chosen]),
            None if self.mask_scores is None else self.mask_scores[chosen],
        )

    def scored_for(self, task: str) -> Detections:
        """With one score each, the one that ranks the task's detections."""
        if self.mask_scores is None:
            return self
        return replace(self, scores=self.mask_scores if task == "segmentation" else self.scores, mask_scores=None)


@dataclass(frozen=True)
class Part:
    """Some images of the whole, with what is in them.

    Attributes:
        truth, found: of these images alone; without videos, tracks and kinds of forgery.
        first: number of the first image.
        annotations, detections: (A,), (N,) which of the whole these are.
    """

    truth: GroundTruth
    found: Detections
    first: int
    annotations: Ints
    detections: Ints


def in_parts(truth: GroundTruth, found: Detections, most: int | None = None) -> Iterator[Part]:
    """The images one after the other, as many at once as have at most `most` detections (`BLOCK`), and at least one.

    In each image annotations and detections are in the file's order.
    """
    most = BLOCK if most is None else most
    images = len(truth.image_ids)
    if len(found.scores) <= most:
        yield Part(truth, found, 0, np.arange(len(truth.areas)), np.arange(len(found.scores)))
        return
    places = np.arange(images + 1)
    detections = np.argsort(found.images, kind="stable")
    annotations = np.argsort(truth.annotation_images, kind="stable")
    ends = np.searchsorted(found.images[detections], places)
    of_truth = np.searchsorted(truth.annotation_images[annotations], places)
    first = 0
    while first < images:
        stop = max(first + 1, int(np.searchsorted(ends, ends[first] + most, side="right")) - 1)
        ours, theirs = detections[ends[first] : ends[stop]], annotations[of_truth[first] : of_truth[stop]]
        yield Part(truth.part(theirs, first, stop), found.part(ours, first), first, theirs, ours)
        release_memory()
        first = stop


@contextmanager
def collection_paused() -> Iterator[None]:
    """No cyclic garbage collection: it would look again and again through millions of entries that form no cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@collection_paused()
def read_ground_truth(source: Source | Mapping[str, Any]) -> GroundTruth:
    """Ground truth from a COCO file, or from its content.

    Raises:
        UserError: it is no COCO ground truth, or an entry of it is not usable.
    """
    if isinstance(source, Mapping):
        return _ground_truth("Ground truth", dict(source))
    return _read(source, Content, _ground_truth)


def _ground_truth(name: str, content: Any) -> GroundTruth:
    parts = ("images", "annotations", "categories")
    if isinstance(content, Content):
        content = {part: getattr(content, part) for part in parts}
    if not isinstance(content, dict) or not all(isinstance(content.get(part), list) for part in parts):
        swapped = isinstance(content, list) and content and isinstance(content[0], dict) and "score" in content[0]
        raise UserError(
            f"{name}: not COCO ground truth, which is an object with lists of images, annotations and categories.",
            "These look like detections: is the order of the arguments right?" if swapped else "",
        )
    image_ids, image_sizes, videos = _images(name, content["images"])
    categories = _categories(name, content["categories"])
    entries = content["annotations"]
    check = Checker(name, "annotations", entries)
    check.objects()
    ids = check.integers("id")
    check.no("id", ids < 1, "COCO's evaluation counts an id below 1 as unmatched; number from 1")
    check.no("id", repeated(ids), "the same as an earlier one")
    images = check.members("image_id", image_ids, "no such image")
    known = np.array(list(categories), np.int64)
    category_ids = known[check.members("category_id", known, "no such category")]
    boxes = check.boxes()
    areas = check.floats("area")
    check.no("area", areas < 0, "negative")
    crowds = check.column("iscrowd", 0)
    check.no("iscrowd", [one not in (0, 1) for one in crowds], "neither 0 nor 1")
    return GroundTruth(
        name=name,
        image_ids=image_ids,
        image_sizes=image_sizes,
        categories=categories,
        annotation_ids=ids,
        annotation_images=images,
        annotation_categories=category_ids,
        areas=areas,
        boxes=boxes,
        crowd=np.array(crowds, bool),
        masks=check.annotation_masks(image_sizes[images]),
        videos=videos,
        tracks=check.belongs("track_id"),
        forgeries=check.forgeries(),
    )


@collection_paused()
def read_detections(source: Source | Sequence[Mapping[str, Any]], truth: GroundTruth) -> Detections:
    """Detections of `truth`'s images from a COCO results file, or from its content.

    Raises:
        UserError: they are no COCO results, or an entry is not usable with this ground truth.
    """
    if not isinstance(source, str | os.PathLike):
        return _detections("Detections", source if isinstance(source, Mapping) else list(source), truth)
    parts = read_parts(source, Detection) if _is_large(source) else None
    if parts is not None:
        return _joined(str(source), truth, parts)
    return _read(source, list[Detection], lambda name, content: _detections(name, content, truth))


def _is_large(source: Source) -> bool:
    with suppress(OSError):
        return os.path.getsize(source) > LARGE
    return False


def _joined(name: str, truth: GroundTruth, parts: Iterator[tuple[bytes, list[Detection] | None]]) -> Detections:
    """Detections that are read part by part, each checked before the next is read: of all that was parsed, columns are left."""
    checked: list[Detections] = []
    first = 0
    for text, typed in parts:
        part = None
        if typed is not None:
            with suppress(UserError):
                part = _detections(name, typed, truth)
        if part is None:  # as plain JSON, from which messages are made
            told = f"{name}, from detections[{first}] on" if first else name
            part = _detections(name, parsed_json(told, text), truth, first)
        for field in ("boxes", "masks", "mask_scores"):
            if checked and (getattr(part, field) is None) != (getattr(checked[0], field) is None):
                called = {"boxes": "bbox", "masks": "segmentation", "mask_scores": "score_mask"}[field]
                lacks = first if getattr(part, field) is None else 0
                raise UserError(f"{name}: detections[{lacks}].{called}: missing: other entries have it.")
        checked.append(part)
        first += len(part.images)
    release_memory()

    def column(field: str) -> Any:
        values = [getattr(part, field) for part in checked]
        return None if values[0] is None else np.concatenate(values)

    masks = [part.masks for part in checked if part.masks is not None]
    return Detections(
        name,
        column("images"),
        column("category_ids"),
        column("scores"),
        column("boxes"),
        JoinedTexts(masks) if masks else None,
        column("mask_scores"),
    )


def _detections(name: str, content: Any, truth: GroundTruth, first: int = 0) -> Detections:
    """Checked detections; `first` is the place of the first in its file, for messages."""
    if not isinstance(content, list):
        swapped = isinstance(content, dict) and "annotations" in content
        raise UserError(
            f"{name}: not COCO results, which are a list of detections.",
            "It looks like ground truth: is the order of the arguments right?" if swapped else "",
        )
    check = Checker(name, "detections", content, first)
    check.objects()
    images = check.members("image_id", truth.image_ids, f"no such image in {truth.name}")
    known = np.array(list(truth.categories), np.int64)
    if not len(known) and content:
        raise UserError(f"{truth.name}: has no categories, but {name} has detections.")
    category_ids = known[check.members("category_id", known, f"not among the categories {known.tolist()}")]
    scores = check.floats("score")
    check.no("score", (scores < 0) | (scores > 1), "not between 0 and 1")
    mask_scores = None
    if content and check.all_or_none("score_mask"):
        mask_scores = check.floats("score_mask")
        check.no("score_mask", (mask_scores < 0) | (mask_scores > 1), "not between 0 and 1")
    boxes = check.boxes()
    masks = None
    if check.all_or_none("segmentation"):
        masks = check.masks(np.arange(len(content)), truth.image_sizes[images])
    if content and boxes is None and masks is None:
        raise UserError(f"{name}: its detections have neither bbox nor segmentation.")
    return Detections(name, images, category_ids, scores, boxes, masks, mask_scores)


def _read(source: Source, layout: Any, checked: Callable[[str, Any], Checked]) -> Checked:
    """What `checked` makes of a file by types; where it refuses that, of the file as plain JSON."""
    typed = read_layout(source, layout)
    if typed is not None:
        with suppress(UserError):
            return checked(str(source), typed)
    return checked(str(source), read_json(source))


def _images(name: str, entries: list[Any]) -> tuple[Ints, Ints, Ints | None]:
    """Ids, ascending, sizes (height, width), and the numbers of the videos, if there are any."""
    check = Checker(name, "images", entries)
    check.objects()
    ids = check.integers("id")
    check.no("id", repeated(ids), "the same as an earlier one")
    sizes = np.zeros((len(entries), 2), np.int64)
    for column, field in enumerate(("height", "width")):
        if check.has(field).any():
            sizes[:, column] = check.integers(field)
            check.no(field, sizes[:, column] < 1, "not positive")
    order = np.argsort(ids)
    videos = check.belongs("video_id")
    return ids[order], sizes[order], None if videos is None else videos[order]


def _categories(name: str, entries: list[Any]) -> dict[int, str]:
    check = Checker(name, "categories", entries)
    check.objects()
    ids = check.integers("id")
    check.no("id", repeated(ids), "the same as an earlier one")
    names = check.column("name")
    check.no("name", [not isinstance(one, str) or not one for one in names], "not a name")
    check.no("name", [one == ALL for one in names], "this stands for the average over the classes")
    check.no("name", [one in names[:index] for index, one in enumerate(names)], "the same as an earlier one")
    return {int(ids[index]): str(names[index]) for index in np.argsort(ids)}
