"""Detections matched with ground truth, by one of two libraries that implement COCO's evaluation.

The library matches once, computes average precision from the matches, and hands the matches on: LRP and everything else
is computed from the same ones.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from comics.errors import UserError, did_you_mean
from comics.evaluation.inputs import Detections, GroundTruth
from comics.evaluation.lrp import TAU

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
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
    """Detections of one class matched at an IoU of `TAU`, by descending score; those that COCO ignores are left out.

    Attributes:
        scores: (N,) descending.
        ious: (N,) with the matched object; 0 for false positives.
        images: (N,) index into the ground truth's image ids.
        objects: (I,) number of objects in each image; crowd regions are none.
    """

    scores: Floats
    ious: Floats
    images: Ints
    objects: Ints


@dataclass(frozen=True)
class Matched:
    """What a library hands on of one task.

    Attributes:
        precision: (10 IoU thresholds, 101 recall thresholds, K classes, 4 areas); -1 where there is no object.
        detections: (M,) index of every detection that counts (not ignored, among the first 100), in no order.
        annotations: (M,) index of the annotation each is matched to at `TAU`, -1 for false positives.
        ious: (M,) IoU with it, 0 for false positives.
    """

    precision: Floats
    detections: Ints
    annotations: Ints
    ious: Floats


class Engine(Protocol):
    """A library that matches."""

    def match(self, truth: GroundTruth, found: Detections, task: Task) -> Matched: ...


def box_ious(one: Floats, other: Floats) -> Floats:
    """IoU of paired boxes (N, 4) x, y, width, height; 0 for a pair of empty boxes."""
    low = np.maximum(one[:, :2], other[:, :2])
    high = np.minimum(one[:, :2] + one[:, 2:], other[:, :2] + other[:, 2:])
    inter = np.prod(np.maximum(high - low, 0), axis=1)
    union = np.prod(one[:, 2:], axis=1) + np.prod(other[:, 2:], axis=1) - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


class Hotcoco:
    """hotcoco, a compiled implementation."""

    def match(self, truth: GroundTruth, found: Detections, task: Task) -> Matched:
        import hotcoco

        gt = hotcoco.COCO(truth.dataset)
        evaluator = hotcoco.COCOeval(gt, gt.load_res(found.entries), _IOU_TYPES[task])
        params = evaluator.params  # a copy
        params.img_ids, params.cat_ids = truth.image_ids.tolist(), list(truth.categories)
        params.iou_thrs, params.rec_thrs = IOU_THRESHOLDS.tolist(), RECALL_THRESHOLDS.tolist()
        params.area_rng, params.area_rng_lbl = [list(area) for area in AREAS.values()], list(AREAS)
        params.max_dets = [1, 10, MAX_DETECTIONS]
        evaluator.params = params
        evaluator.evaluate()
        evaluator.accumulate()
        diagnostics = evaluator.image_diagnostics(iou_thr=TAU)
        counted = diagnostics["dt_status"]
        detections = np.fromiter(counted, np.int64, len(counted))
        matched = diagnostics["dt_match"]
        partner = np.zeros(len(found.entries) + 1, np.int64)
        partner[np.fromiter(matched, np.int64, len(matched))] = np.fromiter(matched.values(), np.int64, len(matched))
        annotations = _annotation_indices(truth, partner[detections])

        def mask_iou(detection: dict[str, Any], annotation: dict[str, Any]) -> float:
            one = hotcoco.mask.iou([detection["segmentation"]], [gt.ann_to_rle(annotation)], [False])
            return float(one[0, 0])

        return Matched(
            precision=np.asarray(evaluator.eval["precision"])[..., -1],
            detections=detections - 1,
            annotations=annotations,
            ious=_ious(truth, found, task, detections - 1, annotations, mask_iou),
        )


class Pycocotools:
    """pycocotools, the reference."""

    def match(self, truth: GroundTruth, found: Detections, task: Task) -> Matched:
        from pycocotools import mask as rle
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        with contextlib.redirect_stdout(io.StringIO()):
            gt, dt = COCO(), COCO()
            # Shallow copies: the library writes into the annotations it is given.
            gt.dataset = {**truth.dataset, "annotations": [dict(one) for one in truth.dataset["annotations"]]}
            gt.createIndex()
            dt.dataset = {
                "images": truth.dataset["images"],
                "categories": truth.dataset["categories"],
                "annotations": _with_ids(found, rle.area),
            }
            dt.createIndex()
            evaluator = COCOeval(gt, dt, _IOU_TYPES[task])
            evaluator.params.imgIds, evaluator.params.catIds = truth.image_ids.tolist(), list(truth.categories)
            evaluator.evaluate()
            evaluator.accumulate()
        detections, partners = [], []
        areas = len(AREAS)
        images = len(truth.image_ids)
        for index, one in enumerate(evaluator.evalImgs):
            if one is not None and (index // images) % areas == 0:
                counted = ~one["dtIgnore"][0].astype(bool)
                detections.append(np.array(one["dtIds"], np.int64)[counted])
                partners.append(one["dtMatches"][0][counted].astype(np.int64))
        detected = np.concatenate([np.zeros(0, np.int64), *detections]) - 1
        annotations = _annotation_indices(truth, np.concatenate([np.zeros(0, np.int64), *partners]))

        def mask_iou(detection: dict[str, Any], annotation: dict[str, Any]) -> float:
            return float(rle.iou([detection["segmentation"]], [gt.annToRLE(annotation)], [0])[0, 0])

        return Matched(
            precision=evaluator.eval["precision"][..., -1],
            detections=detected,
            annotations=annotations,
            ious=_ious(truth, found, task, detected, annotations, mask_iou),
        )


def _with_ids(found: Detections, mask_area: Any) -> list[dict[str, Any]]:
    """Detections with what COCO's evaluation asks of them; the area is the box's where there is one."""
    return [
        {
            **one,
            "id": number,
            "iscrowd": 0,
            "area": one["bbox"][2] * one["bbox"][3] if "bbox" in one else float(mask_area(one["segmentation"])),
        }
        for number, one in enumerate(found.entries, start=1)
    ]


def _annotation_indices(truth: GroundTruth, ids: Ints) -> Ints:
    """Indices of annotations from ids, where 0 is none and becomes -1."""
    known = np.array([one["id"] for one in truth.dataset["annotations"]], np.int64)
    indices = np.full(len(ids), -1)
    if len(known):
        order = np.argsort(known)
        some = ids > 0
        indices[some] = order[np.searchsorted(known, ids[some], sorter=order)]
    return indices


def _ious(
    truth: GroundTruth, found: Detections, task: Task, detections: Ints, annotations: Ints, mask_iou: Any
) -> Floats:
    """(M,) IoU of each detection with its annotation; 0 for those without one."""
    ious = np.zeros(len(detections))
    pairs = np.flatnonzero(annotations >= 0)
    entries = truth.dataset["annotations"]
    if task == "detection":
        assert found.boxes is not None
        boxes = np.array([entries[index]["bbox"] for index in annotations[pairs]], np.float64).reshape(-1, 4)
        ious[pairs] = box_ious(found.boxes[detections[pairs]], boxes)
    else:
        for pair in pairs:
            ious[pair] = mask_iou(found.entries[detections[pair]], entries[annotations[pair]])
    return ious


ENGINES: dict[str, type[Hotcoco] | type[Pycocotools]] = {"hotcoco": Hotcoco, "pycocotools": Pycocotools}


def build_engine(name: str) -> Engine:
    """The library called `name`.

    Raises:
        UserError: there is none of that name.
    """
    if name not in ENGINES:
        raise UserError(f"No evaluation engine '{name}'.", did_you_mean(name, ENGINES))
    return ENGINES[name]()


def by_class(truth: GroundTruth, found: Detections, matched: Matched) -> dict[int, Matches]:
    """Category id -> its matches, ranked as COCO ranks: by score, then by image id, then by place in the file."""
    images = np.searchsorted(truth.image_ids, found.image_ids[matched.detections])
    scores = found.scores[matched.detections]
    categories = found.category_ids[matched.detections]
    objects = count_objects(truth)
    ranked = np.lexsort((matched.detections, images, -scores))
    classes = {}
    for category in truth.categories:
        chosen = ranked[categories[ranked] == category]
        classes[category] = Matches(
            scores=scores[chosen], ious=matched.ious[chosen], images=images[chosen], objects=objects[category]
        )
    return classes


def count_objects(truth: GroundTruth) -> Mapping[int, Ints]:
    """Category id -> (I,) number of its objects in each image, crowd regions left out."""
    annotations: Sequence[Mapping[str, Any]] = truth.dataset["annotations"]
    objects = [one for one in annotations if not one.get("iscrowd", 0)]
    images = np.searchsorted(truth.image_ids, np.array([one["image_id"] for one in objects], np.int64))
    categories = np.array([one["category_id"] for one in objects], np.int64)
    return {
        category: np.bincount(images[categories == category], minlength=len(truth.image_ids))
        for category in truth.categories
    }
