"""Labels beside points, without overlap: deterministic, so that equal results give equal bytes.

Each label has about a hundred places around its point. What each place costs by itself, and what each two places of two labels
cost together, is computed once; then many random choices are improved label by label, all at the same time, and the
cheapest is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Segment = tuple[tuple[float, float], tuple[float, float]]

CLASH, COVER, THROUGH, CROSSING, MARKER, LINE = 1e4, 2e3, 200.0, 100.0, 25.0, 10.0
"""Costs, beside a leader line's length in points: two labels overlap; a label covers a marker; a leader line runs through a
label; two of them cross; one runs through a marker; a label lies on another line of the figure."""

STARTS = 24
"""Random choices that are improved."""

SWEEPS, HEAT = 60, 50.0
"""Rounds of annealing, and the difference in cost that hardly matters in the first."""

KEPT = 96
"""Places a label chooses from: those that cost least by themselves."""

RINGS, STEP, GAP = 30, 4.0, 1.0
"""Of places around a marker: their number, the distance between them, and that of the first, in points."""


@dataclass(frozen=True)
class Box:
    """An axis-parallel rectangle, in points."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: Box) -> bool:
        """Whether the insides meet."""
        return (
            self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top
        )

    def inside(self, other: Box) -> bool:
        """Whether no part is outside `other`."""
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.bottom >= other.bottom
            and self.top <= other.top
        )

    def centre(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.bottom + self.top) / 2


def anchor(box: Box, point: tuple[float, float]) -> tuple[float, float]:
    """The point of `box` nearest to `point`: where its leader line ends."""
    return min(max(point[0], box.left), box.right), min(max(point[1], box.bottom), box.top)


def centred(point: tuple[float, float], width: float, height: float) -> Box:
    """The box of this size around `point`."""
    return Box(point[0] - width / 2, point[1] - height / 2, point[0] + width / 2, point[1] + height / 2)


def place(
    markers: Sequence[Box],
    sizes: Sequence[tuple[float, float]],
    frame: Box,
    lines: Sequence[Segment] = (),
) -> list[Box]:
    """A rectangle for each marker's label that overlaps neither another label nor a marker, with short leader lines.

    Where the frame is too full for that, labels cover markers rather than each other; one that is larger than the frame
    lies on its marker.

    Args:
        markers: what is labelled, in points of 1/72 inch.
        sizes: (width, height) of each label.
        frame: labels stay inside.
        lines: other lines of the figure, which labels rather leave alone.
    """
    points = [marker.centre() for marker in markers]
    places = []
    for marker, (width, height) in zip(markers, sizes, strict=True):
        around = [box for box in _around(marker, width, height) if box.inside(frame)]
        places.append(np.array([astuple(box) for box in around or [centred(marker.centre(), width, height)]]))
    leaders = [_leaders(boxes, point) for boxes, point in zip(places, points, strict=True)]
    alone = []
    for index, (boxes, leader) in enumerate(zip(places, leaders, strict=True)):
        length = np.hypot(*(leader[:, 1] - leader[:, 0]).T)
        cost = length + length**2 / 100 + 0.02 * np.arange(len(boxes))  # an earlier place is the more usual one
        for other, box in enumerate(markers):
            cost += COVER * _overlap(boxes, np.array([astuple(box)]))[:, 0]
            if other != index and not box.overlaps(markers[index]):
                cost += MARKER * _through(leader, np.array([astuple(box)]))[:, 0]
        for line in lines:
            cost += LINE * _through(np.array([line]), boxes)[0]
        kept = np.argsort(cost, kind="stable")[:KEPT]
        places[index], leaders[index] = boxes[kept], leader[kept]
        alone.append(cost[kept])
    reach = [_around_all(boxes, leader) for boxes, leader in zip(places, leaders, strict=True)]
    together = {
        (one, other): _together(places[one], leaders[one], places[other], leaders[other])
        for one in range(len(points))
        for other in range(one)
        if reach[one].overlaps(reach[other])
    }
    chosen = _cheapest(alone, together)
    return [Box(*boxes[index].tolist()) for boxes, index in zip(places, chosen, strict=True)]


def _around(marker: Box, width: float, height: float) -> Iterator[Box]:
    """Places for a label around a marker: to the right first, then around, in rings ever farther out."""
    x, y = marker.centre()
    for ring in range(RINGS):
        across, along = (
            (side / 2 + GAP + STEP * ring) for side in (marker.right - marker.left, marker.top - marker.bottom)
        )
        for step in (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6, 7, -7, 8):
            angle = math.pi * step / 8
            cos, sin = math.cos(angle), math.sin(angle)
            # the label's point nearest to (x, y) is on an ellipse around the marker
            centre_x = x + across * cos + width / 2 * (1 if cos > 0.3 else -1 if cos < -0.3 else 0)
            centre_y = y + along * sin + height / 2 * (1 if sin > 0.3 else -1 if sin < -0.3 else 0)
            yield centred((centre_x, centre_y), width, height)


def _leaders(boxes: Floats, point: tuple[float, float]) -> Floats:
    """(K, 2 ends, 2) leader lines from `point` to `boxes` (K, 4)."""
    start = np.broadcast_to(np.array(point), (len(boxes), 2))
    return np.stack([start, np.clip(start, boxes[:, :2], boxes[:, 2:])], axis=1)


def _around_all(boxes: Floats, leaders: Floats) -> Box:
    """The smallest rectangle around all places (K, 4) of a label and its leader lines (K, 2 ends, 2)."""
    corners = np.concatenate([boxes[:, :2], boxes[:, 2:], leaders[:, 0], leaders[:, 1]])
    return Box(*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())


def _through(segments: Floats, boxes: Floats) -> NDArray[np.bool_]:
    """(S, K) whether segments (S, 2 ends, 2) pass through the inside of boxes (K, 4) (Liang and Barsky's clipping)."""
    enter, leave = np.zeros((len(segments), len(boxes))), np.ones((len(segments), len(boxes)))
    for axis in (0, 1):
        start, end = segments[:, None, 0, axis], segments[:, None, 1, axis]
        low, high = boxes[None, :, axis], boxes[None, :, 2 + axis]
        # A step of 0 crosses nothing: tiny, it is beside the box for all of its length, or inside.
        step = np.where(end == start, 1e-30, end - start)
        one, other = (low - start) / step, (high - start) / step
        np.maximum(enter, np.minimum(one, other), out=enter)
        np.minimum(leave, np.maximum(one, other), out=leave)
    return enter < leave


def _crossing(one: Floats, other: Floats) -> NDArray[np.bool_]:
    """(K, L) whether segments (K, 2 ends, 2) and (L, 2 ends, 2) properly cross."""

    def turn(a: Floats, b: Floats, c: Floats) -> Floats:
        return (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])

    a, b = one[:, None, 0], one[:, None, 1]
    c, d = other[None, :, 0], other[None, :, 1]
    return (turn(a, b, c) * turn(a, b, d) < 0) & (turn(c, d, a) * turn(c, d, b) < 0)


def _overlap(one: Floats, other: Floats) -> NDArray[np.bool_]:
    """(K, L) whether the insides of boxes (K, 4) and (L, 4) meet."""
    across, along = (
        (one[:, None, axis] < other[None, :, 2 + axis]) & (other[None, :, axis] < one[:, None, 2 + axis])
        for axis in (0, 1)
    )
    return across & along


def _together(one: Floats, leaders: Floats, other: Floats, their_leaders: Floats) -> Floats:
    """(K, L) cost of each two places (K, 4) and (L, 4) of two labels, with their leader lines."""
    through = _through(leaders, other).astype(float) + _through(their_leaders, one).T
    return CLASH * _overlap(one, other) + THROUGH * through + CROSSING * _crossing(leaders, their_leaders)


def _cheapest(alone: Sequence[Floats], together: dict[tuple[int, int], Floats]) -> list[int]:
    """A place for each label, by cost.

    Args:
        alone: (K,) of each label, ascending: what its places cost by themselves.
        together: (one, other) with other < one -> (K, L), what theirs cost together; labels that cannot meet are left out.
    """
    labels = len(alone)
    if not labels:
        return []
    rng = np.random.default_rng(0)
    chosen = np.stack([rng.integers(min(len(cost), 40), size=STARTS) for cost in alone])  # among the cheapest
    chosen[:, 0] = 0
    meets: list[list[tuple[int, Floats]]] = [[] for _ in range(labels)]  # others, and (their places, this one's) costs
    for (one, other), costs in together.items():
        if costs.any():
            meets[one].append((other, np.ascontiguousarray(costs.T)))
            meets[other].append((one, costs))
    for sweep in range(SWEEPS + 20):
        before = chosen.copy()
        warmth = HEAT * max(0.0, 1 - sweep / SWEEPS)
        for label in rng.permutation(labels):
            costs = np.repeat(alone[label][None], STARTS, axis=0)
            for other, pair in meets[label]:
                costs += pair[chosen[other]]  # whole rows: several times faster than columns
            if warmth:  # simulated annealing: Gumbel noise makes a cheap place likely, not certain
                costs -= warmth * rng.gumbel(size=costs.shape)
            chosen[label] = costs.argmin(axis=1)
        if not warmth and (chosen == before).all():
            break
    total = np.sum([alone[label][chosen[label]] for label in range(labels)], axis=0)
    for (one, other), costs in together.items():
        total += costs[chosen[one], chosen[other]]
    best: list[int] = chosen[:, total.argmin()].tolist()
    return best
