"""Detections matched with ground truth, by one of two libraries that implement COCO's evaluation.

The library matches once, computes average precision from the matches, and hands the matches on: LRP and everything else
is computed from the same ones.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from comics.errors import UserError, did_you_mean
from comics.evaluation import inputs
from comics.evaluation.classification import Points
from comics.evaluation.inputs import Detections, GroundTruth, Part, collection_paused, in_parts
from comics.evaluation.lrp import TAU
from comics.evaluation.verdicts import paired_ious
from comics.machine import release_memory

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
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

IOU_TYPES = {"detection": "bbox", "segmentation": "segm"}


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
        partners: (T, N) index of the annotation that a detection is matched to in all areas; -1 for none.
    """

    scores: Floats
    images: Ints
    matched: Bools
    ignored: Bools
    ious: Floats
    objects: Ints
    partners: Ints

    @cached_property
    def prefixes(self) -> list[list[Prefixes]]:
        """Of each area range and IoU threshold: what resampling asks for again and again."""
        found: list[list[Prefixes]] = []
        for area in range(self.matched.shape[1]):
            known: dict[bytes, Ints] = {}  # the thresholds of an area often ignore the same detections
            found.append([])
            for matched, ignored in zip(self.matched[:, area], self.ignored[:, area], strict=True):
                counted = known.setdefault(np.packbits(ignored).tobytes(), np.flatnonzero(~ignored))
                found[-1].append(Prefixes(counted, np.flatnonzero(matched[counted])))
        return found


@dataclass(frozen=True)
class Prefixes:
    """The detections of an area range that count at an IoU threshold.

    Attributes:
        counted: (C,) indices of those that are not ignored.
        ends: (P,) places in `counted` of those that are matched: precision falls with every other one, so that only
            prefixes that end with these can be the best.
    """

    counted: Ints
    ends: Ints


@dataclass(frozen=True)
class Matched:
    """What a library makes of one task.

    Attributes:
        precision: (10 IoU thresholds, 101 recall thresholds, K classes, A areas); -1 where there is no object.
        classes: category id -> its matches.
        verdicts: what is judged real or forged, by kind (`comics.evaluation.judging`); empty where nothing is.
    """

    precision: Floats
    classes: dict[int, Matches]
    verdicts: Mapping[str, Points] = field(default_factory=dict)


@dataclass(frozen=True)
class _Pairs:
    """Detections and what they are matched to, as a library tells, in any order.

    Attributes:
        detections: (M,) index of each detection that a library looked at.
        matched, ignored: (T, A, M).
        partners: (A, M) index of the annotation at the first IoU threshold; -1 for none.
        everywhere: (T, M) index of the annotation in all areas; -1 for none.
    """

    detections: Ints
    matched: Bools
    ignored: Bools
    partners: Ints
    everywhere: Ints

    def of(self, chosen: Bools) -> _Pairs:
        """The `chosen` (M,) detections."""
        return _Pairs(
            self.detections[chosen],
            self.matched[..., chosen],
            self.ignored[..., chosen],
            self.partners[:, chosen],
            self.everywhere[:, chosen],
        )

    def numbered(self, detections: Ints, annotations: Ints) -> _Pairs:
        """With the numbers that these have in the whole: `detections` (N,) and `annotations` (A,) by their numbers here."""

        def renumbered(partners: Ints) -> Ints:
            known = partners >= 0
            of_whole = np.full(partners.shape, -1)
            of_whole[known] = annotations[partners[known]]
            return of_whole

        partners, everywhere = renumbered(self.partners), renumbered(self.everywhere)
        return _Pairs(detections[self.detections], self.matched, self.ignored, partners, everywhere)

    @staticmethod
    def joined(parts: Sequence[_Pairs]) -> _Pairs:
        """One after the other."""
        names = ("detections", "matched", "ignored", "partners", "everywhere")
        return _Pairs(*(np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in names))


Told = Iterator[tuple[int, Task, Floats, _Pairs]]
"""Of each category that has annotations, and task: precision (10 IoU thresholds, 101 recall thresholds, A areas), and the matches."""


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
    if found.mask_scores is not None:  # each task by its own scores
        options: Any = {"engine": engine, "detailed": detailed, "areas": areas}
        return {task: match_tasks(truth, found.scored_for(task), [task], **options)[task] for task in tasks}
    shape = (len(IOU_THRESHOLDS), len(RECALL_THRESHOLDS), len(truth.categories), len(areas))
    precision = {task: np.full(shape, -1.0) for task in tasks}
    nothing = {category: _nothing(truth, detailed, areas) for category in truth.categories}
    classes = {task: dict(nothing) for task in tasks}
    for category, task, of_class, pairs in ENGINES[engine](truth, found, tasks, detailed, areas):
        precision[task][:, :, list(truth.categories).index(category)] = of_class
        objects = np.stack([truth.objects(category, AREAS[area]) for area in (areas if detailed else areas[:1])])
        classes[task][category] = _ranked(truth, found, task, engine, pairs, objects)
    return {task: Matched(precision[task], classes[task]) for task in tasks}


def _ranked(truth: GroundTruth, found: Detections, task: Task, engine: str, pairs: _Pairs, objects: Ints) -> Matches:
    """The detections of a class by descending score, image and place in the file."""
    images, scores = found.images[pairs.detections], found.scores[pairs.detections]
    ranked = np.lexsort((pairs.detections, images, -scores))
    return Matches(
        scores=scores[ranked],
        images=images[ranked],
        matched=pairs.matched[..., ranked],
        ignored=pairs.ignored[..., ranked],
        ious=_ious(truth, found, task, engine, pairs)[:, ranked],
        objects=objects,
        partners=pairs.everywhere[:, ranked],
    )


def _nothing(truth: GroundTruth, detailed: bool, areas: Sequence[str]) -> Matches:
    """No detection and no object."""
    thresholds, ranges = (len(IOU_THRESHOLDS), len(areas)) if detailed else (1, 1)
    none = np.zeros((thresholds, ranges, 0), bool)
    objects = np.zeros((ranges, len(truth.image_ids)), np.int64)
    partners = np.zeros((thresholds, 0), np.int64)
    return Matches(np.zeros(0), np.zeros(0, np.int64), none, none, np.zeros((ranges, 0)), objects, partners)


def _ious(truth: GroundTruth, found: Detections, task: Task, engine: str, pairs: _Pairs) -> Floats:
    """(A, M) IoU of each detection with its annotation, computed once for each pair; 0 without one or where ignored."""
    ious = np.zeros(pairs.partners.shape)
    where = np.nonzero((pairs.partners >= 0) & ~pairs.ignored[0])
    # A pair is matched in up to three area ranges.
    annotations = len(truth.annotation_ids)
    keys, inverse = np.unique(pairs.detections[where[1]] * annotations + pairs.partners[where], return_inverse=True)
    ours, theirs = keys // max(annotations, 1), keys % max(annotations, 1)
    if task == "detection":
        assert found.boxes is not None
        assert truth.boxes is not None
        values = paired_ious(found.boxes[ours], truth.boxes[theirs])
    else:
        assert found.masks is not None
        assert truth.masks is not None
        mask_iou = mask_library(engine).iou
        sizes = truth.image_sizes[found.images[ours]].tolist()
        values = np.empty(len(keys))
        for index, (size, one, other) in enumerate(zip(sizes, found.masks[ours], truth.masks[theirs], strict=True)):
            detection, annotation = {"size": size, "counts": one}, {"size": size, "counts": other}
            values[index] = mask_iou([detection], [annotation], [False])[0, 0]
    ious[where] = values[inverse.reshape(-1)]
    return ious


def mask_library(engine: str) -> Any:
    """The functions on run lengths of a library."""
    if engine == "pycocotools":
        from pycocotools import mask

        return mask
    import hotcoco

    return hotcoco.mask


def coco_ground_truth(truth: GroundTruth) -> dict[str, Any]:
    """What a library needs of the ground truth, in COCO's format.

    Fields that no evaluation needs are left out, because libraries insist on types of theirs. Ids of images, annotations
    and categories are their places in the checked arrays plus 1, because libraries do not take every integer.
    """
    images = truth.annotation_images
    return {
        "images": _images(truth),
        "annotations": [
            {"id": index + 1, "image_id": image + 1, "category_id": category, "area": area, "iscrowd": crowd, **shape}
            for index, (image, category, area, crowd, shape) in enumerate(
                zip(
                    images.tolist(),
                    _category_numbers(truth, truth.annotation_categories),
                    truth.areas.tolist(),
                    truth.crowd.astype(int).tolist(),
                    _shapes(truth, truth, np.arange(len(images)), images),
                    strict=True,
                )
            )
        ],
        "categories": _categories(truth),
    }


def coco_results(truth: GroundTruth, found: Detections, chosen: Ints) -> list[dict[str, Any]]:
    """The `chosen` (M,) detections in COCO's format, with the ids of `coco_ground_truth`."""
    images = found.images[chosen]
    return [
        {"image_id": image + 1, "category_id": category, "score": score, **shape}
        for image, category, score, shape in zip(
            images.tolist(),
            _category_numbers(truth, found.category_ids[chosen]),
            found.scores[chosen].tolist(),
            _shapes(truth, found, chosen, images),
            strict=True,
        )
    ]


def _with_objects(truth: GroundTruth) -> Iterator[tuple[int, int]]:
    """Number for the libraries and id of each category that has annotations; scores of the others are undefined.

    A library takes them one after the other: detections and objects of two classes never meet, and it is less memory.
    """
    for number, category in enumerate(truth.categories, start=1):
        if (truth.annotation_categories == category).any():
            yield number, category


def _images(truth: GroundTruth) -> list[dict[str, int]]:
    sizes = truth.image_sizes.tolist()
    return [{"id": number, "height": height, "width": width} for number, (height, width) in enumerate(sizes, start=1)]


def _categories(truth: GroundTruth) -> list[dict[str, Any]]:
    return [{"id": number, "name": name} for number, name in enumerate(truth.categories.values(), start=1)]


def _category_numbers(truth: GroundTruth, category_ids: Ints) -> list[int]:
    return (np.searchsorted(np.array(list(truth.categories), np.int64), category_ids) + 1).tolist()


def _shapes(truth: GroundTruth, of: GroundTruth | Detections, chosen: Ints, images: Ints) -> Iterable[dict[str, Any]]:
    """Box and mask, if there are any, of the `chosen` (M,) entries of `of`, which are in `images` (M,)."""
    boxes = [{} for _ in chosen] if of.boxes is None else [{"bbox": box} for box in of.boxes[chosen].tolist()]
    masks = _masks(truth, of, chosen, images)
    if masks is None:
        return boxes
    return ({**box, "segmentation": mask} for box, mask in zip(boxes, masks, strict=True))


def _masks(truth: GroundTruth, of: GroundTruth | Detections, chosen: Ints, images: Ints) -> list[Any] | None:
    """Masks, if there are any, of the `chosen` (M,) entries of `of`, which are in `images` (M,)."""
    if of.masks is None:
        return None
    sizes = truth.image_sizes.tolist()
    return [{"size": sizes[i], "counts": text} for i, text in zip(images.tolist(), of.masks[chosen], strict=True)]


def _hotcoco(
    truth: GroundTruth, found: Detections, tasks: Sequence[Task], detailed: bool, areas: Sequence[str]
) -> Told:
    """hotcoco, a compiled implementation."""
    if detailed:
        yield from _hotcoco_detailed(truth, found, tasks, areas)
    elif len(found.scores) > inputs.BLOCK:
        yield from _hotcoco_in_parts(truth, found, tasks, areas)
    else:
        yield from _hotcoco_at_once(truth, found, tasks, areas)


def _evaluator(
    gt: Any,
    dt: Any,
    truth: GroundTruth,
    task: Task,
    numbers: list[int],
    areas: Sequence[str],
    thresholds: Sequence[float] = tuple(IOU_THRESHOLDS.tolist()),
) -> Any:
    """hotcoco's evaluator of the categories of these numbers, which has matched at these thresholds."""
    import hotcoco

    evaluator = hotcoco.COCOeval(gt, dt, IOU_TYPES[task])
    params = evaluator.params  # a copy
    params.img_ids, params.cat_ids = list(range(1, len(truth.image_ids) + 1)), numbers
    _settings(params, areas, thresholds)
    evaluator.params = params
    evaluator.evaluate()
    return evaluator


def _settings(params: Any, areas: Sequence[str], thresholds: Sequence[float]) -> None:
    params.iou_thrs, params.rec_thrs = list(thresholds), RECALL_THRESHOLDS.tolist()
    params.area_rng, params.area_rng_lbl = [list(AREAS[area]) for area in areas], list(areas)
    params.max_dets = [MAX_DETECTIONS]


def _precision(evaluator: Any) -> Floats:
    """(10, 101, K, A) of the evaluator's categories."""
    evaluator.accumulate()
    curves = evaluator.eval
    assert curves is not None
    return np.asarray(curves["precision"])[..., -1]


def _in_turn(jobs: Iterable[Callable[[], Any]]) -> Iterator[Any]:
    """What the jobs give. hotcoco computes on all cores and without Python's lock; meanwhile the caller goes on with what it is
    told."""
    with ThreadPoolExecutor(1) as computing:
        rest = [computing.submit(job) for job in jobs]
        try:
            while rest:
                yield rest.pop(0).result()
        finally:
            computing.shutdown(wait=False, cancel_futures=True)  # an interruption does not wait for the rest


def _hotcoco_detailed(truth: GroundTruth, found: Detections, tasks: Sequence[Task], areas: Sequence[str]) -> Told:
    """A category after the other, because their matches take much memory."""
    outlined = "segmentation" in tasks
    gt = _hotcoco_truth(truth, outlined)
    dt = _hotcoco_results(gt, truth, found, outlined)

    def computed(number: int, category: int, task: Task) -> tuple[int, Task, Floats, _Pairs]:
        evaluator = _evaluator(gt, dt, truth, task, [number], areas)
        of_category = np.flatnonzero(found.category_ids == category) + 1
        return category, task, _precision(evaluator)[:, :, 0], _table(evaluator.eval_imgs, of_category, areas)

    yield from _in_turn(partial(computed, *one, task) for one in _with_objects(truth) for task in tasks)


def _hotcoco_at_once(truth: GroundTruth, found: Detections, tasks: Sequence[Task], areas: Sequence[str]) -> Told:
    """All categories together."""
    outlined = "segmentation" in tasks
    gt = _hotcoco_truth(truth, outlined)
    dt = _hotcoco_results(gt, truth, found, outlined)
    known = list(_with_objects(truth))
    if not known:
        return

    def computed(task: Task) -> tuple[Task, Floats, _Pairs]:
        evaluator = _evaluator(gt, dt, truth, task, [number for number, _ in known], areas)
        return task, _precision(evaluator), _counted(evaluator)

    for task, precision, pairs in _in_turn(partial(computed, task) for task in tasks):
        for index, (_, category) in enumerate(known):
            yield category, task, precision[:, :, index], pairs.of(found.category_ids[pairs.detections] == category)


def _hotcoco_in_parts(truth: GroundTruth, found: Detections, tasks: Sequence[Task], areas: Sequence[str]) -> Told:
    """Some images at a time: masks are handed on for these alone, and of what was matched little is kept.

    A streaming evaluator holds what average precision needs; what LRP needs is asked of an ordinary one, which matches a second time.
    """
    import hotcoco

    known = list(_with_objects(truth))
    numbers = [number for number, _ in known]
    for task in tasks:  # one after the other, since what a stream holds grows with the detections
        params = hotcoco.Params(IOU_TYPES[task])
        _settings(params, areas, IOU_THRESHOLDS.tolist())
        stream = hotcoco.StreamingEval(_categories(truth), IOU_TYPES[task], params=params)
        pairs: list[_Pairs] = []
        for part in in_parts(truth, found):
            images, annotations, results, masks = _batch(part, task)
            stream.update(images, annotations, results, segmentation=masks)
            gt = _hotcoco_truth(part.truth, task == "segmentation")
            dt = _hotcoco_results(gt, part.truth, part.found, task == "segmentation")
            evaluator = _evaluator(gt, dt, part.truth, task, numbers, areas[:1], [TAU])
            pairs.append(_counted(evaluator).numbered(part.detections, part.annotations))
            del images, annotations, results, masks, gt, dt, evaluator  # before memory is given back
        of_task = _Pairs.joined(pairs)
        del pairs
        precision = _precision(stream.finalize())
        del stream
        release_memory()
        for number, category in known:
            chosen = of_task.of(found.category_ids[of_task.detections] == category)
            yield category, task, precision[:, :, number - 1], chosen


def _batch(part: Part, task: Task) -> tuple[list[Any], list[Any], Any, list[Any] | None]:
    """Images, annotations and detections of some images, numbered as in the whole; and the masks of the detections."""
    whole = coco_ground_truth(part.truth)
    for image in whole["images"]:
        image["id"] += part.first
    for annotation, number in zip(whole["annotations"], part.annotations.tolist(), strict=True):
        annotation["id"] = number + 1
        annotation["image_id"] += part.first
        if task == "detection":
            annotation.pop("segmentation", None)
    everything = np.arange(len(part.found.scores))
    if part.found.boxes is None:
        results = coco_results(part.truth, part.found, everything)
        for one in results:
            one["image_id"] += part.first
        return whole["images"], whole["annotations"], results, None
    masks = _masks(part.truth, part.found, everything, part.found.images) if task == "segmentation" else None
    return whole["images"], whole["annotations"], _columns(part.truth, part.found, part.first), masks


def _columns(truth: GroundTruth, found: Detections, first: int = 0) -> Floats:
    """(N, 7) image id, box, score and category number, as hotcoco takes detections; images are counted from `first` on."""
    numbers = _category_numbers(truth, found.category_ids)
    assert found.boxes is not None
    return np.column_stack((found.images + first + 1, found.boxes, found.scores, numbers))


def _hotcoco_truth(truth: GroundTruth, outlined: bool) -> Any:
    """`coco_ground_truth` for hotcoco: from columns, where there are all that it takes; masks if `outlined`."""
    import hotcoco

    if truth.boxes is None:
        return hotcoco.COCO(coco_ground_truth(truth))
    return hotcoco.COCO.from_arrays(
        _images(truth),
        _categories(truth),
        truth.annotation_images + 1,
        np.array(_category_numbers(truth, truth.annotation_categories), np.int64),
        truth.boxes,
        area=truth.areas,
        iscrowd=truth.crowd,
        segmentation=_masks(truth, truth, np.arange(len(truth.areas)), truth.annotation_images) if outlined else None,
    )


def _hotcoco_results(gt: Any, truth: GroundTruth, found: Detections, outlined: bool) -> Any:
    """`coco_results` for hotcoco: from columns, where there are all that it takes; masks if `outlined`."""
    everything = np.arange(len(found.scores))
    if found.boxes is None:
        return gt.load_res(coco_results(truth, found, everything))
    return gt.load_res(
        _columns(truth, found), segmentation=_masks(truth, found, everything, found.images) if outlined else None
    )


def _counted(evaluator: Any) -> _Pairs:
    """The matches of the detections that count, at `TAU` in all areas.

    The same as `_table` tells, but from one dictionary for all images: far less to convert than a dictionary for each.
    """
    diagnostics = evaluator.image_diagnostics(iou_thr=TAU, score_thr=np.inf)  # no search for errors in the ground truth
    counted, partner_of = diagnostics["dt_status"], diagnostics["dt_match"]
    ids = np.sort(np.fromiter(counted, np.int64, len(counted)))
    partners = np.full((1, len(ids)), -1)
    matched = np.fromiter(partner_of, np.int64, len(partner_of))
    partners[0, np.searchsorted(ids, matched)] = np.fromiter(partner_of.values(), np.int64, len(partner_of)) - 1
    return _Pairs(ids - 1, partners[None] >= 0, np.zeros((1, 1, len(ids)), bool), partners, partners)


def _pycocotools(
    truth: GroundTruth, found: Detections, tasks: Sequence[Task], detailed: bool, areas: Sequence[str]
) -> Told:
    """pycocotools, the reference."""
    from pycocotools import mask as rle
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    gt, dt = COCO(), COCO()
    gt.dataset = coco_ground_truth(truth)
    with contextlib.redirect_stdout(io.StringIO()):
        gt.createIndex()
    for number, category in _with_objects(truth):
        chosen = np.flatnonzero(found.category_ids == category)
        results = coco_results(truth, found, chosen)
        for index, one in enumerate(results, start=1):
            # As `COCO.loadRes` does: the area is the box's where there is one.
            area = one["bbox"][2] * one["bbox"][3] if "bbox" in one else float(rle.area(one["segmentation"]))
            one.update(id=index, iscrowd=0, area=area)
        dt.dataset = {**gt.dataset, "annotations": results}
        for task in tasks:
            with contextlib.redirect_stdout(io.StringIO()):
                dt.createIndex()
                evaluator = COCOeval(gt, dt, IOU_TYPES[task])
                params = evaluator.params
                params.imgIds, params.catIds = list(range(1, len(truth.image_ids) + 1)), [number]
                params.iouThrs, params.recThrs = IOU_THRESHOLDS, RECALL_THRESHOLDS
                params.areaRng, params.areaRngLbl = [list(AREAS[area]) for area in areas], list(areas)
                params.maxDets = [MAX_DETECTIONS]
                evaluator.evaluate()
                evaluator.accumulate()
            pairs = _table(evaluator.evalImgs, np.arange(1, len(chosen) + 1), areas)
            pairs = replace(pairs, detections=chosen[pairs.detections])
            if not detailed:
                counted = ~pairs.ignored[0, 0]
                pairs = _Pairs(
                    pairs.detections[counted],
                    pairs.matched[:1, :1, counted],
                    pairs.ignored[:1, :1, counted],
                    pairs.partners[:1, counted],
                    pairs.everywhere[:1, counted],
                )
            yield category, task, np.asarray(evaluator.eval["precision"])[:, :, 0, :, -1], pairs


def _table(eval_images: Sequence[dict[str, Any] | None], ids: Ints, areas: Sequence[str]) -> _Pairs:
    """The matches of the detections `ids` (N,), ascending, as a COCO evaluator tells them, by area range and image."""
    index_of = {AREAS[area]: index for index, area in enumerate(areas)}
    shape = (len(IOU_THRESHOLDS), len(areas), len(ids))
    partners = np.zeros(shape, np.int64)
    ignored = np.ones(shape, bool)
    for one in eval_images:
        if one is not None and len(one["dtIds"]):
            low, high = one["aRng"]
            place = (slice(None), index_of[low, high], np.searchsorted(ids, one["dtIds"]))
            partners[place] = one["dtMatches"]
            ignored[place] = one["dtIgnore"]
    looked_at = np.flatnonzero(~ignored.all(axis=(0, 1)))
    partners, ignored = partners[..., looked_at], ignored[..., looked_at]
    return _Pairs(ids[looked_at] - 1, partners > 0, ignored, partners[0] - 1, partners[:, 0] - 1)


ENGINES = {"hotcoco": _hotcoco, "pycocotools": _pycocotools}
"""Libraries that match, by name."""
