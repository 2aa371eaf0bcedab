"""One verdict a face: which detections mean the same face, and how likely it is forged.

A detector reports classes apart: a face may come back twice, as Real with one score and as Fake with another. Detections
that overlap are one face here, whatever their class, and the scores of its two classes are weighed against each other:

    P(fake) = (F + floor) / (F + R + 2 floor),

F and R being the highest scores of the face's Fake and of its Real detections, 0 where it has none. The floor stands for
what is not reported: a class without a detection scored below the detector's threshold, but not 0. So a face reported
once, as Fake with 0.06, is hardly more than undecided (0.69 at a floor of 0.05), and with 0.9 nearly certain (0.95).

Pure numpy, for evaluation and for detection alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

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


def overlaps(boxes: Floats) -> Floats:
    """(N, N) IoU of boxes (N, 4) x, y, width, height; 0 for a pair of empty boxes."""
    low, size = boxes[:, :2], boxes[:, 2:]
    high = low + size
    sides = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    inter = np.prod(np.maximum(sides, 0), axis=-1)
    area = np.prod(size, axis=-1)
    union = area[:, None] + area - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def grouped(ious: Floats, scores: Floats, overlap: float = OVERLAP) -> Ints:
    """(N,) group of each detection, numbered from 0 by descending score of their leaders.

    The highest scored detection leads a group of all that overlap with it; of the rest, the highest scored leads the
    next, and so on: non-maximum suppression that remembers what it suppressed. Of equal scores the earlier goes first.

    Args:
        ious: (N, N) of the detections with each other, whatever their class.
        scores: (N,).
        overlap: least IoU with a group's leader.
    """
    groups = np.full(len(scores), -1)
    number = 0
    for leader in np.argsort(-scores, kind="stable").tolist():
        if groups[leader] >= 0:
            continue
        members = (ious[leader] >= overlap) & (groups < 0)
        members[leader] = True
        groups[members] = number
        number += 1
    return groups


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
    ious: Floats | None = None,
) -> Faces:
    """The faces of one image, each with its verdict.

    Args:
        boxes: (N, 4) x, y, width, height of all detections of the image.
        scores: (N,) in [0, 1].
        fake: (N,) whether the detection says Fake.
        overlap: IoU from which on detections are one face.
        floor: score of a class that is not reported.
        ious: (N, N) to take instead of the boxes', of masks say.
    """
    groups = grouped(overlaps(boxes) if ious is None else ious, scores, overlap)
    order = np.argsort(-scores, kind="stable")
    leaders = order[np.unique(groups[order], return_index=True)[1]]
    return Faces(leaders, scores[leaders], probability_of_fake(scores, fake, groups, floor), groups)
