"""Detections matched with ground truth, by one of two libraries that implement COCO's evaluation.

The library matches once, computes average precision from the matches, and hands the matches on: LRP and everything else
is computed from the same ones.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from comics.errors import UserError, did_you_mean
from comics.evaluation.inputs import Detections, GroundTruth, collection_paused
from comics.evaluation.lrp import TAU

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
MaskIou = Callable[[dict[str, Any], dict[str, Any]], float]
Task = Literal["detection", "segmentation"]

IOU_THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
RECALL_THRESHOLDS: Floats = np.linspace(0, 1, 101)
"""Exactly COCO's, to the last bit: a recall of 0.35 is below its threshold 0.35000000000000003."""
AREAS: dict[str, tuple[float, float]] = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
"""Ranges of object areas in px^2."""
MAX_DETECTIONS = 100
"""Of a class in an image, those with the highest scores."""

_IOU_TYPES = {"detection": "bbox", "segmentation": "segm"}


@dataclass(frozen=True)
class Matches:
    """Detections of one class matched at T IoU thresholds in A area ranges, ranked as COCO ranks them.

    That is by descending score, then by image id, then by place in the file. Without detail T = A = 1 (IoU `TAU`, all
    areas), and the detections that COCO ignores are left out; with it they are COCO's ten and four.

    Attributes:
        scores: (N,) descending.
        images: (N,) index into the ground truth's image ids.
        matched: (T, A, N) whether the detection is matched to an object.
        ignored: (T, A, N) whether it counts neither as right nor as wrong: matched to a crowd region or to an object out
            of the area range, or unmatched and itself out of the range.
        ious: (A, N) at the first IoU threshold, with the matched object; 0 for the other detections.
        objects: (A, I) number of objects in each image; crowd regions are none.
    """

    scores: Floats
    images: Ints
    matched: Bools
    ignored: Bools
    ious: Floats
    objects: Ints


@dataclass(frozen=True)
class Matched:
    """What a library makes of one task.

    Attributes:
        precision: (10 IoU thresholds, 101 recall thresholds, K classes, A areas); -1 where there is no object.
        classes: category id -> its matches.
    """

    precision: Floats
    classes: dict[int, Matches]


@dataclass(frozen=True)
class _Pairs:
    """Detections and what they are matched to, as a library tells, in any order.

    Attributes:
        detections: (M,) index of each detection that a library looked at.
        matched, ignored: (T, A, M).
        partners: (A, M) annotation id at the first IoU threshold, 0 for none.
    """

    detections: Ints
    matched: Bools
    ignored: Bools
    partners: Ints


Told = tuple[Task, Floats, _Pairs, MaskIou]
"""Of a task: precision, see `Matched`; the matches; and a function for the IoU of two masks."""


def match(
    truth: GroundTruth,
    found: Detections,
    task: Task,
    engine: str = "hotcoco",
    *,
    detailed: bool = False,
    areas: Sequence[str] = tuple(AREAS),
) -> Matched:
    """`match_tasks` of one task."""
    return match_tasks(truth, found, [task], engine, detailed=detailed, areas=areas)[task]


@collection_paused()
def match_tasks(
    truth: GroundTruth,
    found: Detections,
    tasks: Sequence[Task],
    engine: str = "hotcoco",
    *,
    detailed: bool = False,
    areas: Sequence[str] = tuple(AREAS),
) -> dict[Task, Matched]:
    """Match detections with ground truth, once for each task.

    Args:
        truth, found: checked inputs that both have what the tasks compare.
        tasks: detection, segmentation.
        engine: the library, one of `ENGINES`.
        detailed: hand on the matches of every IoU threshold and area range, for resampling.
        areas: names of the area ranges, ``all`` first.

    Raises:
        UserError: there is no such engine.
    """
    if engine not in ENGINES:
        raise UserError(f"No evaluation engine '{engine}'.", did_you_mean(engine, ENGINES))
    if not len(truth.annotation_ids):  # Without an object every score is undefined.
        shape = (len(IOU_THRESHOLDS), len(RECALL_THRESHOLDS), len(truth.categories), len(areas))
        nothing = {category: _nothing(truth, detailed, areas) for category in truth.categories}
        return {task: Matched(np.full(shape, -1.0), nothing) for task in tasks}
    matched = {}
    for task, precision, pairs, mask_iou in ENGINES[engine](truth, found, tasks, detailed, areas):
        ious = _ious(truth, found, task, pairs, mask_iou)
        matched[task] = Matched(precision, _by_class(truth, found, pairs, ious, areas if detailed else areas[:1]))
    return matched


def _by_class(
    truth: GroundTruth, found: Detections, pairs: _Pairs, ious: Floats, areas: Sequence[str]
) -> dict[int, Matches]:
    """Category id -> its detections, ranked."""
    images = found.images[pairs.detections]
    scores = found.scores[pairs.detections]
    categories = found.category_ids[pairs.detections]
    ranked = np.lexsort((pairs.detections, images, -scores))
    classes = {}
    for category in truth.categories:
        chosen = ranked[categories[ranked] == category]
        classes[category] = Matches(
            scores=scores[chosen],
            images=images[chosen],
            matched=pairs.matched[..., chosen],
            ignored=pairs.ignored[..., chosen],
            ious=ious[:, chosen],
            objects=np.stack([truth.objects(category, AREAS[area]) for area in areas]),
        )
    return classes


def _nothing(truth: GroundTruth, detailed: bool, areas: Sequence[str]) -> Matches:
    """No detection and no object."""
    thresholds, ranges = (len(IOU_THRESHOLDS), len(areas)) if detailed else (1, 1)
    none = np.zeros((thresholds, ranges, 0), bool)
    objects = np.zeros((ranges, len(truth.image_ids)), np.int64)
    return Matches(np.zeros(0), np.zeros(0, np.int64), none, none, np.zeros((ranges, 0)), objects)


def box_ious(one: Floats, other: Floats) -> Floats:
    """IoU of paired boxes (N, 4) x, y, width, height; 0 for a pair of empty boxes."""
    low = np.maximum(one[:, :2], other[:, :2])
    high = np.minimum(one[:, :2] + one[:, 2:], other[:, :2] + other[:, 2:])
    inter = np.prod(np.maximum(high - low, 0), axis=1)
    union = np.prod(one[:, 2:], axis=1) + np.prod(other[:, 2:], axis=1) - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def _ious(truth: GroundTruth, found: Detections, task: Task, pairs: _Pairs, mask_iou: MaskIou) -> Floats:
    """(A, M) IoU of each detection with its annotation, computed once for each pair; 0 without one or where ignored."""
    ious = np.zeros(pairs.partners.shape)
    where = np.nonzero((pairs.partners > 0) & ~pairs.ignored[0])
    order = np.argsort(truth.annotation_ids)
    partners = (
        order[np.searchsorted(truth.annotation_ids, pairs.partners[where], sorter=order)] if len(order) else order
    )
    wanted = np.stack([pairs.detections[where[1]], partners], axis=1)
    unique, inverse = np.unique(wanted, axis=0, return_inverse=True)
    if task == "detection":
        assert found.boxes is not None
        assert truth.boxes is not None
        values = box_ious(found.boxes[unique[:, 0]], truth.boxes[unique[:, 1]])
    else:
        entries = truth.dataset["annotations"]
        values = np.array([mask_iou(found.entries[one], entries[other]) for one, other in unique], np.float64)
    ious[where] = values[inverse.reshape(-1)]
    return ious


def _hotcoco(
    truth: GroundTruth, found: Detections, tasks: Sequence[Task], detailed: bool, areas: Sequence[str]
) -> Iterator[Told]:
    """hotcoco, a compiled implementation."""
    import hotcoco

    gt = hotcoco.COCO(truth.dataset)
    dt = gt.load_res(found.entries)

    def mask_iou(detection: dict[str, Any], annotation: dict[str, Any]) -> float:
        return float(hotcoco.mask.iou([detection["segmentation"]], [gt.ann_to_rle(annotation)], [False])[0, 0])

    for task in tasks:
        evaluator = hotcoco.COCOeval(gt, dt, _IOU_TYPES[task])
        params = evaluator.params  # a copy
        params.img_ids, params.cat_ids = truth.image_ids.tolist(), list(truth.categories)
        params.iou_thrs, params.rec_thrs = IOU_THRESHOLDS.tolist(), RECALL_THRESHOLDS.tolist()
        params.area_rng, params.area_rng_lbl = [list(AREAS[area]) for area in areas], list(areas)
        params.max_dets = [MAX_DETECTIONS]
        evaluator.params = params
        evaluator.evaluate()
        evaluator.accumulate()
        accumulated = evaluator.eval
        assert accumulated is not None
        if detailed:
            pairs = _table(evaluator.eval_imgs, found, areas)
        else:
            # The same matches, but one dictionary for all images: far less to convert than a dictionary for each.
            diagnostics = evaluator.image_diagnostics(iou_thr=TAU)
            counted, partner_of = diagnostics["dt_status"], diagnostics["dt_match"]
            ids = np.fromiter(counted, np.int64, len(counted))
            matched = np.fromiter(partner_of, np.int64, len(partner_of))
            partners = np.zeros(len(found.entries) + 1, np.int64)
            partners[matched] = np.fromiter(partner_of.values(), np.int64, len(partner_of))
            partners = partners[None, ids]
            pairs = _Pairs(ids - 1, partners[None] > 0, np.zeros((1, 1, len(ids)), bool), partners)
        precision = np.asarray(accumulated["precision"])[..., -1]
        del evaluator, accumulated  # before the next task's
        yield task, precision, pairs, mask_iou


def _pycocotools(
    truth: GroundTruth, found: Detections, tasks: Sequence[Task], detailed: bool, areas: Sequence[str]
) -> Iterator[Told]:
    """pycocotools, the reference."""
    from pycocotools import mask as rle
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    # Copies: the library writes into what it is given. Areas of detections are the boxes' where there are boxes.
    dataset = {**truth.dataset, "annotations": [dict(one) for one in truth.dataset["annotations"]]}
    detections = [
        {
            **one,
            "id": number,
            "iscrowd": 0,
            "area": one["bbox"][2] * one["bbox"][3] if "bbox" in one else float(rle.area(one["segmentation"])),
        }
        for number, one in enumerate(found.entries, start=1)
    ]
    gt, dt = COCO(), COCO()
    gt.dataset, dt.dataset = dataset, {**dataset, "annotations": detections}

    def mask_iou(detection: dict[str, Any], annotation: dict[str, Any]) -> float:
        return float(rle.iou([detection["segmentation"]], [gt.annToRLE(annotation)], [0])[0, 0])

    with contextlib.redirect_stdout(io.StringIO()):
        gt.createIndex()
        dt.createIndex()
    for task in tasks:
        with contextlib.redirect_stdout(io.StringIO()):
            evaluator = COCOeval(gt, dt, _IOU_TYPES[task])
            params = evaluator.params
            params.imgIds, params.catIds = truth.image_ids.tolist(), list(truth.categories)
            params.iouThrs, params.recThrs = IOU_THRESHOLDS, RECALL_THRESHOLDS
            params.areaRng, params.areaRngLbl = [list(AREAS[area]) for area in areas], list(areas)
            params.maxDets = [MAX_DETECTIONS]
            evaluator.evaluate()
            evaluator.accumulate()
        pairs = _table(evaluator.evalImgs, found, areas)
        if not detailed:
            counted = ~pairs.ignored[0, 0]
            pairs = _Pairs(
                pairs.detections[counted],
                pairs.matched[:1, :1, counted],
                pairs.ignored[:1, :1, counted],
                pairs.partners[:1, counted],
            )
        yield task, np.asarray(evaluator.eval["precision"])[..., -1], pairs, mask_iou


def _table(eval_images: Sequence[dict[str, Any] | None], found: Detections, areas: Sequence[str]) -> _Pairs:
    """The matches of a COCO evaluator, which tells them by category, area range and image."""
    index_of = {AREAS[area]: index for index, area in enumerate(areas)}
    shape = (len(IOU_THRESHOLDS), len(areas), len(found.entries))
    partners = np.zeros(shape, np.int64)
    ignored = np.ones(shape, bool)
    for one in eval_images:
        if one is not None and len(one["dtIds"]):
            low, high = one["aRng"]
            place = (slice(None), index_of[low, high], np.array(one["dtIds"], np.int64) - 1)
            partners[place] = one["dtMatches"]
            ignored[place] = one["dtIgnore"]
    looked_at = np.flatnonzero(~ignored.all(axis=(0, 1)))
    partners, ignored = partners[..., looked_at], ignored[..., looked_at]
    return _Pairs(looked_at, partners > 0, ignored, partners[0])


ENGINES = {"hotcoco": _hotcoco, "pycocotools": _pycocotools}
"""Libraries that match, by name."""
