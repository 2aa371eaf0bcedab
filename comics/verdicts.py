"""One verdict a face: which detections mean the same face, and how likely it is forged.

A detector reports classes apart: a face may come back twice, as Real with one score and as Fake with another. Detections
that overlap are one face here, whatever their class: by an IoU of 0.5 of their boxes or, of a detector that predicts none
(SOLO, SOLOv2), of their masks. The scores of its two classes are weighed against each other:

    P(fake) = (F + floor) / (F + R + 2 floor),

F and R being the highest scores of the face's Fake and of its Real detections, 0 where it has none. The floor stands for
what is not reported: a class without a detection scored below the detector's threshold, but not 0. So a face reported
once, as Fake with 0.06, is hardly more than undecided (0.69 at a floor of 0.05), and with 0.9 nearly certain (0.95).

Numpy and pycocotools, for evaluation, figures and detection alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

Overlaps = Callable[[Ints, Ints], Floats]
"""IoU (M,) of the detections (M,) and (M,) of each pair, told by their indices."""

OVERLAP = 0.5
"""IoU from which on two detections are the same face."""
FLOOR = 0.05
"""Score of a class that is not reported: what detectors usually leave out is below it."""


@dataclass(frozen=True)
class Faces:
    """The faces that detections of one image add up to, by descending score.

    Attributes:
        leaders: (G,) index of each face's highest scored detection, whose box and mask are the face's.
        scores: (G,) of the leader: how sure it is that there is a face.
        p_fake: (G,) how likely the face is forged, if it is one.
        groups: (N,) the face that each detection belongs to, as an index into the others.
    """

    leaders: Ints
    scores: Floats
    p_fake: Floats
    groups: Ints


def grouped(
    boxes: Floats, scores: Floats, images: Ints, overlap: float = OVERLAP, overlaps: Overlaps | None = None
) -> tuple[Ints, Ints]:
    """The face of each detection, of many images at once.

    The highest scored detection of an image leads a face of all that overlap with it; of the rest, the highest scored
    leads the next, and so on: non-maximum suppression that remembers what it suppressed. Of equal scores the earlier goes
    first.

    Args:
        boxes: (N, 4) x, y, width, height.
        scores: (N,).
        images: (N,) number of the image that a detection is of.
        overlap: least IoU with the leader; empty boxes overlap with nothing.
        overlaps: how detections overlap where it is not told by their boxes, such as masks of a detector without boxes.

    Returns:
        leaders (G,), by image and descending score, and the face (N,) of each detection, an index into them.
    """
    order = np.lexsort((np.arange(len(scores)), -scores, images))
    leader_of = np.empty(len(scores), np.int64)
    while len(order):
        # The first that is left of every image leads; a round settles one face of each.
        first = np.flatnonzero(np.diff(images[order], prepend=images[order[0]] - 1))
        leaders = np.repeat(order[first], np.diff(first, append=len(order)))
        ious = paired_ious(boxes[order], boxes[leaders]) if overlaps is None else overlaps(order, leaders)
        joins = ious >= overlap
        joins[first] = True
        leader_of[order[joins]] = leaders[joins]
        order = order[~joins]
    leaders = np.flatnonzero(leader_of == np.arange(len(scores)))
    leaders = leaders[np.lexsort((leaders, -scores[leaders], images[leaders]))]
    place = np.empty(len(scores), np.int64)
    place[leaders] = np.arange(len(leaders))
    return leaders, place[leader_of]


def coco_masks(entries: Sequence[dict[str, Any]], overlap: float = OVERLAP) -> tuple[Floats, Overlaps]:
    """Of masks as COCO's run lengths (N), by detectors that predict no boxes: their boxes (N, 4) x, y, width, height, and how they
    overlap, for `grouped` with the same `overlap`."""
    from pycocotools import mask as rle

    boxes = np.asarray(rle.toBbox(list(entries)), np.float64).reshape(-1, 4)
    areas = np.asarray(rle.area(list(entries)), np.float64).reshape(-1)

    def shared(one: int, other: int) -> float:
        return float(rle.area(rle.merge([entries[one], entries[other]], intersect=True)))

    return boxes, mask_overlaps(boxes, areas, shared, overlap)


def mask_overlaps(
    boxes: Floats, areas: Floats, shared: Callable[[int, int], float], overlap: float = OVERLAP
) -> Overlaps:
    """How masks overlap, for `grouped`; 0 where it is told without looking that it is less than `overlap`.

    Args:
        boxes: (N, 4) around the masks.
        areas: (N,) pixels of the masks.
        shared: pixels that two masks have in common, by their indices.
        overlap: what `grouped` is given.
    """

    def overlaps(ours: Ints, theirs: Ints) -> Floats:
        # An IoU of masks is at most the ratio of their areas, and 0 where their boxes are apart.
        least, most = np.minimum(areas[ours], areas[theirs]), np.maximum(areas[ours], areas[theirs])
        near = np.flatnonzero((least >= overlap * most) & (most > 0) & (paired_ious(boxes[ours], boxes[theirs]) > 0))
        both = np.zeros(len(ours))
        both[near] = [shared(one, other) for one, other in zip(ours[near].tolist(), theirs[near].tolist(), strict=True)]
        return both / np.maximum(least + most - both, 1)

    return overlaps


def paired_ious(one: Floats, other: Floats) -> Floats:
    """IoU of paired boxes (N, 4) x, y, width, height; 0 for a pair of empty boxes."""
    low = np.maximum(one[:, :2], other[:, :2])
    high = np.minimum(one[:, :2] + one[:, 2:], other[:, :2] + other[:, 2:])
    inter = np.prod(np.maximum(high - low, 0), axis=1)
    union = np.prod(one[:, 2:], axis=1) + np.prod(other[:, 2:], axis=1) - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def probability_of_fake(scores: Floats, fake: Bools, groups: Ints, floor: float = FLOOR) -> Floats:
    """(G,) P(fake) of each group, by the formula above.

    Args:
        scores: (N,) in [0, 1].
        fake: (N,) whether the detection says Fake.
        groups: (N,) as `grouped` gives.
        floor: score of a class that a group has no detection of, positive.
    """
    best = np.zeros((2, int(groups.max(initial=-1)) + 1))
    np.maximum.at(best, (fake.astype(int), groups), scores)
    real, forged = best + floor
    return forged / (real + forged)


def faces(
    boxes: Floats,
    scores: Floats,
    fake: Bools,
    overlap: float = OVERLAP,
    floor: float = FLOOR,
    overlaps: Overlaps | None = None,
) -> Faces:
    """The faces of one image, each with its verdict.

    Args:
        boxes: (N, 4) x, y, width, height of all detections of the image.
        scores: (N,) in [0, 1].
        fake: (N,) whether the detection says Fake.
        overlap: IoU from which on detections are one face.
        floor: score of a class that is not reported.
        overlaps: see `grouped`.
    """
    leaders, groups = grouped(boxes, scores, np.zeros(len(scores), np.int64), overlap, overlaps)
    return Faces(leaders, scores[leaders], probability_of_fake(scores, fake, groups, floor), groups)
