"""Labels beside points, without overlap: deterministic, so that equal results give equal bytes."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Segment = tuple[tuple[float, float], tuple[float, float]]


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


def _spots(x: float, y: float, width: float, height: float, gap: float) -> Iterator[Box]:
    """Places for a label around a point: to the right first, then around, in rings ever farther out."""
    for ring in range(40):
        distance = gap + 3.0 * ring
        for step in (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6, 7, -7, 8):
            angle = math.pi * step / 8
            cos, sin = math.cos(angle), math.sin(angle)
            # the rectangle's point nearest to (x, y) is at `distance` in this direction
            centre_x = x + distance * cos + width / 2 * (1 if cos > 0.3 else -1 if cos < -0.3 else 0)
            centre_y = y + distance * sin + height / 2 * (1 if sin > 0.3 else -1 if sin < -0.3 else 0)
            yield Box(centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2)


def _crossed(a: tuple[float, float], b: tuple[float, float], box: Box) -> bool:
    """Whether the segment from `a` to `b` passes through the inside of `box` (Liang and Barsky's clipping)."""
    enter, leave = 0.0, 1.0
    for start, end, low, high in ((a[0], b[0], box.left, box.right), (a[1], b[1], box.bottom, box.top)):
        step = end - start
        if step == 0:
            if not low < start < high:
                return False
            continue
        first, second = (low - start) / step, (high - start) / step
        enter, leave = max(enter, min(first, second)), min(leave, max(first, second))
        if enter >= leave:
            return False
    return True


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _cross(first: Segment, second: Segment) -> bool:
    """Whether two segments properly cross."""
    (a, b), (c, d) = first, second
    return _turn(a, b, c) * _turn(a, b, d) < 0 and _turn(c, d, a) * _turn(c, d, b) < 0


class _Placement:
    """The state of `place`: a rectangle for each label placed so far."""

    def __init__(
        self,
        points: Sequence[tuple[float, float]],
        sizes: Sequence[tuple[float, float]],
        frame: Box,
        marker: float,
        taken: Sequence[Box],
    ) -> None:
        self.points, self.sizes, self.frame, self.taken = points, sizes, frame, taken
        self.half = marker / 2 + 0.5
        self.markers = [Box(x - self.half, y - self.half, x + self.half, y + self.half) for x, y in points]
        self.boxes: dict[int, Box] = {}

    def _cost(self, index: int, box: Box, enough: float = math.inf) -> float:
        """Length of the leader line, and what it runs through; any sum from `enough` on is as good as another."""
        point = self.points[index]
        line = (point, anchor(box, point))
        cost = math.dist(*line)
        for other, placed in self.boxes.items():
            if cost >= enough:
                return cost
            if other != index:
                theirs = (self.points[other], anchor(placed, self.points[other]))
                cost += 200 * (_crossed(*line, placed) + _crossed(*theirs, box)) + 100 * _cross(line, theirs)
        for other, marker in enumerate(self.markers):
            if other != index and not marker.overlaps(self.markers[index]):
                cost += 25 * _crossed(*line, marker)
        return cost

    def total(self) -> float:
        """Cost of all labels; one that overlaps another or a marker outweighs everything."""
        boxes = list(self.boxes.values())
        clashes = sum(box.overlaps(other) for i, box in enumerate(boxes) for other in [*boxes[:i], *self.markers])
        return 1e4 * clashes + sum(self._cost(index, box) for index, box in self.boxes.items())

    def choose(self, index: int) -> None:
        """Give label `index` its cheapest free place; none free: the place it has, or on its point."""
        (x, y), (width, height) = self.points[index], self.sizes[index]
        others = [box for other, box in self.boxes.items() if other != index]
        blocked = [*self.taken, *self.markers, *others]
        best, lowest = None, math.inf
        for box in _spots(x, y, width, height, self.half + 1.0):
            if math.dist((x, y), anchor(box, (x, y))) >= lowest:
                break  # and so it is with all that follow
            if not box.inside(self.frame) or any(box.overlaps(other) for other in blocked):
                continue
            cost = self._cost(index, box, lowest)
            if cost < lowest - 0.5:  # an earlier place is the more usual one
                best, lowest = box, cost
        if best is not None:
            self.boxes[index] = best
        else:
            self.boxes.setdefault(index, Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2))


def place(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    frame: Box,
    marker: float,
    taken: Sequence[Box] = (),
) -> list[Box]:
    """A rectangle for each point's label that overlaps neither another label, nor a marker, nor what is `taken`.

    Points with the most neighbours choose first, each the place with the shortest leader line that crosses least; then
    each chooses anew, knowing the others. A label finds no place only where the frame is full: it lies on its point.

    Args:
        points: (x, y) of each point, in points of 1/72 inch.
        sizes: (width, height) of each label.
        frame: labels stay inside.
        marker: diameter of the markers.
        taken: other rectangles to stay clear of.
    """
    near = [sum(math.dist(point, other) < 60 for other in points) for point in points]
    order = sorted(range(len(points)), key=lambda index: (-near[index], points[index], index))
    best: _Placement | None = None
    for attempt in range(4):  # other orders end in other local minima
        placement = _Placement(points, sizes, frame, marker, taken)
        for _ in range(4):
            before = dict(placement.boxes)
            for index in order:
                placement.choose(index)
            if placement.boxes == before:
                break
        if best is None or placement.total() < best.total():
            best = placement
        random.Random(attempt).shuffle(order)
    assert best is not None
    return [best.boxes[index] for index in range(len(points))]


def anchor(box: Box, point: tuple[float, float]) -> tuple[float, float]:
    """The point of `box` nearest to `point`: where its leader line ends."""
    return min(max(point[0], box.left), box.right), min(max(point[1], box.bottom), box.top)
