"""Faces followed from one sampled frame of a video to the next by the overlap of their boxes: for data and for detection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SAME_FACE = 0.3
"""Least IoU of a face with where its track was last seen."""
MISSED = 2
"""So many sampled frames in a row a face may be missing from before its track ends."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in px."""


@dataclass
class _Open:
    number: int
    box: Box
    missed: int = 0


@dataclass
class Tracker:
    """Gives faces of one frame after another the numbers of their tracks, from 1 on.

    Faces and tracks are paired so that the sum of their overlaps is largest, each overlap at least `SAME_FACE`.
    """

    tracks: list[_Open] = field(default_factory=list)
    begun: int = 0

    def follow(self, boxes: Sequence[Box]) -> list[int]:
        """The track of each face of the next frame, told by their boxes."""
        from scipy.optimize import linear_sum_assignment

        overlaps = iou(np.array([one.box for one in self.tracks]), np.array(boxes))
        rows, columns = linear_sum_assignment(-np.where(overlaps >= SAME_FACE, overlaps, 0.0))
        pairs = {int(c): int(r) for r, c in zip(rows, columns, strict=True) if overlaps[r, c] >= SAME_FACE}
        known = len(self.tracks)
        numbers = []
        for place, box in enumerate(boxes):
            if place in pairs:
                track = self.tracks[pairs[place]]
                track.box, track.missed = box, 0
            else:
                self.begun += 1
                track = _Open(self.begun, box)
                self.tracks.append(track)
            numbers.append(track.number)
        seen = set(pairs.values())
        for place in range(known):
            if place not in seen:
                self.tracks[place].missed += 1
        self.tracks = [track for track in self.tracks if track.missed <= MISSED]
        return numbers


def iou(one: Any, other: Any) -> Any:
    """IoU (N, M) of boxes (N, 4) and (M, 4), left, top, right, bottom."""
    one, other = np.reshape(one, (-1, 1, 4)), np.reshape(other, (1, -1, 4))
    low, high = np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])
    inter = np.prod(np.maximum(high - low, 0), axis=-1)
    union = np.prod(one[..., 2:] - one[..., :2], axis=-1) + np.prod(other[..., 2:] - other[..., :2], axis=-1) - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
