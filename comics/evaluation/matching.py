"""Detections matched with ground truth, by one of two libraries (`comics.evaluation.engines`) that implement COCO's evaluation.

The library matches once, computes average precision from the matches, and hands the matches on: LRP and everything else
is computed from the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from comics.errors import UserError, did_you_mean
from comics.evaluation.classification import Points
from comics.evaluation.coco import AREAS, IOU_THRESHOLDS, RECALL_THRESHOLDS, Bools, Floats, Ints, Task
from comics.evaluation.engines import ENGINES
from comics.evaluation.engines.pairs import Pairs
from comics.evaluation.inputs import Detections, GroundTruth, collection_paused
from comics.verdicts import paired_ious


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


def _ranked(truth: GroundTruth, found: Detections, task: Task, engine: str, pairs: Pairs, objects: Ints) -> Matches:
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


def _ious(truth: GroundTruth, found: Detections, task: Task, engine: str, pairs: Pairs) -> Floats:
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
