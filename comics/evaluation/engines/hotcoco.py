"""hotcoco, a compiled implementation of COCO's evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from comics.evaluation import inputs
from comics.evaluation.coco import (
    AREAS,
    IOU_THRESHOLDS,
    IOU_TYPES,
    MAX_DETECTIONS,
    RECALL_THRESHOLDS,
    Floats,
    Task,
)
from comics.evaluation.engines.entries import (
    categories_of,
    category_numbers,
    coco_ground_truth,
    coco_results,
    images_of,
    masks_of,
    with_objects,
)
from comics.evaluation.engines.pairs import Pairs, Told, table
from comics.evaluation.inputs import Detections, GroundTruth, Part, in_parts
from comics.evaluation.lrp import TAU
from comics.machine import release_memory


def match(truth: GroundTruth, found: Detections, tasks: Sequence[Task], detailed: bool, areas: Sequence[str]) -> Told:
    """Match once a task."""
    if detailed:
        yield from _detailed(truth, found, tasks, areas)
    elif len(found.scores) > inputs.BLOCK:
        yield from _in_parts(truth, found, tasks, areas)
    else:
        yield from _at_once(truth, found, tasks, areas)


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


def _detailed(truth: GroundTruth, found: Detections, tasks: Sequence[Task], areas: Sequence[str]) -> Told:
    """A category after the other, because their matches take much memory."""
    outlined = "segmentation" in tasks
    gt = _truth(truth, outlined)
    dt = _results(gt, truth, found, outlined)

    def computed(number: int, category: int, task: Task) -> tuple[int, Task, Floats, Pairs]:
        evaluator = _evaluator(gt, dt, truth, task, [number], areas)
        of_category = np.flatnonzero(found.category_ids == category) + 1
        return category, task, _precision(evaluator)[:, :, 0], table(evaluator.eval_imgs, of_category, areas)

    yield from _in_turn(partial(computed, *one, task) for one in with_objects(truth) for task in tasks)


def _at_once(truth: GroundTruth, found: Detections, tasks: Sequence[Task], areas: Sequence[str]) -> Told:
    """All categories together."""
    outlined = "segmentation" in tasks
    gt = _truth(truth, outlined)
    dt = _results(gt, truth, found, outlined)
    known = list(with_objects(truth))
    if not known:
        return

    def computed(task: Task) -> tuple[Task, Floats, Pairs]:
        evaluator = _evaluator(gt, dt, truth, task, [number for number, _ in known], areas)
        return task, _precision(evaluator), _counted(evaluator)

    for task, precision, pairs in _in_turn(partial(computed, task) for task in tasks):
        for index, (_, category) in enumerate(known):
            yield category, task, precision[:, :, index], pairs.of(found.category_ids[pairs.detections] == category)


def _in_parts(truth: GroundTruth, found: Detections, tasks: Sequence[Task], areas: Sequence[str]) -> Told:
    """Some images at a time: masks are handed on for these alone, and of what was matched little is kept.

    A streaming evaluator holds what average precision needs; what LRP needs is asked of an ordinary one, which matches a second time.
    """
    import hotcoco

    known = list(with_objects(truth))
    numbers = [number for number, _ in known]
    for task in tasks:  # one after the other, since what a stream holds grows with the detections
        params = hotcoco.Params(IOU_TYPES[task])
        _settings(params, areas, IOU_THRESHOLDS.tolist())
        stream = hotcoco.StreamingEval(categories_of(truth), IOU_TYPES[task], params=params)
        pairs: list[Pairs] = []
        for part in in_parts(truth, found):
            images, annotations, results, masks = _batch(part, task)
            stream.update(images, annotations, results, segmentation=masks)
            gt = _truth(part.truth, task == "segmentation")
            dt = _results(gt, part.truth, part.found, task == "segmentation")
            evaluator = _evaluator(gt, dt, part.truth, task, numbers, areas[:1], [TAU])
            pairs.append(_counted(evaluator).numbered(part.detections, part.annotations))
            del images, annotations, results, masks, gt, dt, evaluator  # before memory is given back
        of_task = Pairs.joined(pairs)
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
    masks = masks_of(part.truth, part.found, everything, part.found.images) if task == "segmentation" else None
    return whole["images"], whole["annotations"], _columns(part.truth, part.found, part.first), masks


def _columns(truth: GroundTruth, found: Detections, first: int = 0) -> Floats:
    """(N, 7) image id, box, score and category number, as hotcoco takes detections; images are counted from `first` on."""
    numbers = category_numbers(truth, found.category_ids)
    assert found.boxes is not None
    return np.column_stack((found.images + first + 1, found.boxes, found.scores, numbers))


def _truth(truth: GroundTruth, outlined: bool) -> Any:
    """`coco_ground_truth` for hotcoco: from columns, where there are all that it takes; masks if `outlined`."""
    import hotcoco

    if truth.boxes is None:
        return hotcoco.COCO(coco_ground_truth(truth))
    return hotcoco.COCO.from_arrays(
        images_of(truth),
        categories_of(truth),
        truth.annotation_images + 1,
        np.array(category_numbers(truth, truth.annotation_categories), np.int64),
        truth.boxes,
        area=truth.areas,
        iscrowd=truth.crowd,
        segmentation=masks_of(truth, truth, np.arange(len(truth.areas)), truth.annotation_images) if outlined else None,
    )


def _results(gt: Any, truth: GroundTruth, found: Detections, outlined: bool) -> Any:
    """`coco_results` for hotcoco: from columns, where there are all that it takes; masks if `outlined`."""
    everything = np.arange(len(found.scores))
    if found.boxes is None:
        return gt.load_res(coco_results(truth, found, everything))
    return gt.load_res(
        _columns(truth, found), segmentation=masks_of(truth, found, everything, found.images) if outlined else None
    )


def _counted(evaluator: Any) -> Pairs:
    """The matches of the detections that count, at `TAU` in all areas.

    The same as `table` tells, but from one dictionary for all images: far less to convert than a dictionary for each.
    """
    diagnostics = evaluator.image_diagnostics(iou_thr=TAU, score_thr=np.inf)  # no search for errors in the ground truth
    counted, partner_of = diagnostics["dt_status"], diagnostics["dt_match"]
    ids = np.sort(np.fromiter(counted, np.int64, len(counted)))
    partners = np.full((1, len(ids)), -1)
    matched = np.fromiter(partner_of, np.int64, len(partner_of))
    partners[0, np.searchsorted(ids, matched)] = np.fromiter(partner_of.values(), np.int64, len(partner_of)) - 1
    return Pairs(ids - 1, partners[None] >= 0, np.zeros((1, 1, len(ids)), bool), partners, partners)
