"""What an engine tells: precision, and which detections it matched to what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from comics.evaluation.coco import AREAS, IOU_THRESHOLDS, Bools, Floats, Ints, Task


@dataclass(frozen=True)
class Pairs:
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

    def of(self, chosen: Bools) -> Pairs:
        """The `chosen` (M,) detections."""
        return Pairs(
            self.detections[chosen],
            self.matched[..., chosen],
            self.ignored[..., chosen],
            self.partners[:, chosen],
            self.everywhere[:, chosen],
        )

    def numbered(self, detections: Ints, annotations: Ints) -> Pairs:
        """With the numbers that these have in the whole: `detections` (N,) and `annotations` (A,) by their numbers here."""

        def renumbered(partners: Ints) -> Ints:
            known = partners >= 0
            of_whole = np.full(partners.shape, -1)
            of_whole[known] = annotations[partners[known]]
            return of_whole

        partners, everywhere = renumbered(self.partners), renumbered(self.everywhere)
        return Pairs(detections[self.detections], self.matched, self.ignored, partners, everywhere)

    @staticmethod
    def joined(parts: Sequence[Pairs]) -> Pairs:
        """One after the other."""
        names = ("detections", "matched", "ignored", "partners", "everywhere")
        return Pairs(*(np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in names))


Told = Iterator[tuple[int, Task, Floats, Pairs]]
"""Of each category that has annotations, and task: precision (10 IoU thresholds, 101 recall thresholds, A areas), and the matches."""


def table(eval_images: Sequence[dict[str, Any] | None], ids: Ints, areas: Sequence[str]) -> Pairs:
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
    return Pairs(ids[looked_at] - 1, partners > 0, ignored, partners[0] - 1, partners[:, 0] - 1)
