"""Repairing one face of a COCO file: polygons, run-length masks, boxes and areas.

A value is kept as published unless it cannot be right. Every change is told to a `Notes`, by kind, so that a conversion
can report (or, when strict, refuse) it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from comics.data.canonical.coco import require_box, require_number, shorten
from comics.errors import UserError

EXAMPLES = 5

# Kinds of change that make the file canonical without anything having been wrong with it: never refused.
NORMALISATIONS: dict[str, str] = {
    "image_id_renumbered": "image ids made unique across splits",
    "face_id_renumbered": "face ids made unique across splits and at least 1",
    "category_renumbered": "categories numbered 1 = Real, 2 = Fake",
    "file_name_relative": "file names made relative to annotations.json",
    "file_found_elsewhere": "images found in another folder than the annotations say (a doubled folder, say)",
    "ring_points_repeated": "a polygon's repeated points removed (a ring closes from its last point to its first)",
    "polygon_nested": "polygons of [x, y] pairs or without the outer list, flattened",
    "rle_compressed": "run-length masks compressed",
}
REPAIRS: dict[str, str] = {
    "image_size_corrected": "width or height differed from the image's header",
    "image_missing": "images that are not there, dropped with their faces",
    "polygon_odd": "a polygon's last x without a y removed",
    "polygon_clipped": "polygons that left the image clipped to it",
    "polygon_dropped": "polygons of fewer than three points or of no area dropped",
    "box_clipped": "boxes that left the image clipped to it",
    "box_recomputed": "boxes missing, empty or far from their mask taken from the mask",
    "area_recomputed": "areas missing or not those of the mask recomputed",
    "crowd_flag_set": "iscrowd missing or neither 0 nor 1 set to 0",
    "face_without_mask": "faces without a mask dropped",
    "face_degenerate": "faces whose mask covers no pixel of the image dropped",
}


@dataclass
class Notes:
    """Changes made to a file, by kind: how many, and the first few of them.

    Args:
        strict: refuse the first change that is not a mere normalisation.
        root: taken off paths in examples, so that the report is the same wherever the dataset lies.
    """

    strict: bool = False
    root: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, where: str) -> None:
        """Count a change of `where`, which names the place for a reader.

        Raises:
            UserError: when strict and the change repairs a defect.
        """
        if kind not in REPAIRS and kind not in NORMALISATIONS:
            raise KeyError(kind)
        if self.strict and kind in REPAIRS:
            raise UserError(
                f"{where}: {REPAIRS[kind]}: refused, because the conversion is strict.",
                "Correct the file, or convert without --strict to have such faces repaired and reported.",
            )
        self.counts[kind] = self.counts.get(kind, 0) + 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < EXAMPLES:
            examples.append(where.replace(self.root, "") if self.root else where)

    def as_json(self) -> dict[str, dict[str, Any]]:
        """``{kind: {"count", "meaning", "defect", "examples"}}``, sorted by kind."""
        return {
            kind: {
                "count": self.counts[kind],
                "meaning": REPAIRS.get(kind) or NORMALISATIONS[kind],
                "defect": kind in REPAIRS,
                "examples": self.examples[kind],
            }
            for kind in sorted(self.counts)
        }


def clip_ring(ring: NDArray[np.float64], width: float, height: float) -> NDArray[np.float64]:
    """Clip a polygon to ``[0, width] x [0, height]`` (Sutherland and Hodgman, 1974).

    Args:
        ring: (N, 2) points x, y in pixels, closed implicitly.

    Returns:
        (M, 2) points; M = 0 when nothing is left. Parts that the clipping separates stay joined along the border, which
        encloses no area.
    """
    for axis, bound, sign in ((0, 0.0, 1.0), (0, width, -1.0), (1, 0.0, 1.0), (1, height, -1.0)):
        if not len(ring):
            break
        distance = sign * (ring[:, axis] - bound)  # >= 0 inside
        following = np.roll(ring, -1, axis=0)
        following_distance = np.roll(distance, -1)
        points = []
        for here, there, d0, d1 in zip(ring, following, distance, following_distance, strict=True):
            if d0 >= 0:
                points.append(here)
            if (d0 >= 0) != (d1 >= 0):
                crossing = here + (there - here) * (d0 / (d0 - d1))
                crossing[axis] = bound
                points.append(crossing)
        ring = np.array(points, dtype=np.float64).reshape(-1, 2)
    return ring


def _distinct(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """The points of a ring without those equal to the one before, nor a last one equal to the first."""
    if len(ring) < 2:
        return ring
    fresh = np.any(ring != np.roll(ring, 1, axis=0), axis=1)
    fresh[0] = True
    ring = ring[fresh]
    return ring[:-1] if len(ring) > 1 and (ring[0] == ring[-1]).all() else ring


def _flat(ring: NDArray[np.float64]) -> list[float]:
    return [int(value) if value == int(value) else float(value) for value in ring.reshape(-1)]


def _polygons(
    segmentation: list[Any], width: int, height: int, where: str, notes: Notes
) -> tuple[list[list[float]], list[float]]:
    """Repaired polygons, and their bounding box ``[x, y, width, height]``."""
    rings, low, high = [], [], []
    if segmentation and all(isinstance(value, int | float) for value in segmentation):
        notes.add("polygon_nested", where)
        segmentation = [segmentation]
    for index, values in enumerate(segmentation):
        place = f"{where}.segmentation[{index}]"
        if not isinstance(values, list):
            raise UserError(f"{place}: expected a polygon, found {shorten(values)}.")
        if values and all(isinstance(value, list) and len(value) == 2 for value in values):
            notes.add("polygon_nested", place)
            values = [number for point in values for number in point]
        # The types are checked in one pass of C code; only a polygon that fails is looked at value by value.
        if not set(map(type, values)) <= {int, float}:
            for number, value in enumerate(values):
                require_number(value, f"{place}[{number}]")
        if len(values) % 2:
            notes.add("polygon_odd", place)
            values = values[:-1]
        try:
            given = np.array(values, dtype=np.float64).reshape(-1, 2)
        except OverflowError:
            given = np.array([[np.inf, np.inf]])
        if not np.isfinite(given).all():
            raise UserError(f"{place}: a coordinate is no finite number.")
        ring = _distinct(given)
        if len(ring) < len(given):
            notes.add("ring_points_repeated", place)
        if len(ring) and (ring.min() < 0 or (ring > (width, height)).any()):
            notes.add("polygon_clipped", place)
            ring = _distinct(clip_ring(ring, width, height))
        x, y = ring[:, 0], ring[:, 1]
        if len(ring) < 3 or not (x.max() > x.min() and y.max() > y.min()):
            notes.add("polygon_dropped", place)
            continue
        rings.append(values if len(ring) == len(given) and (ring == given).all() else _flat(ring))
        low.append(ring.min(axis=0))
        high.append(ring.max(axis=0))
    if not rings:
        return [], [0.0, 0.0, 0.0, 0.0]
    corner, end = np.min(low, axis=0), np.max(high, axis=0)
    return rings, [float(value) for value in (*corner, *(end - corner))]


def _run_lengths(segmentation: dict[str, Any], width: int, height: int, where: str, notes: Notes) -> dict[str, Any]:
    """A compressed RLE whose counts are known to fill the image exactly."""
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        raise UserError(f"{where}.segmentation.size: expected [{height}, {width}], found {shorten(size)}.")
    if isinstance(counts, list):
        if any(type(count) is not int or count < 0 for count in counts) or sum(counts) != width * height:
            raise UserError(f"{where}.segmentation.counts: the runs do not add up to {width} x {height} px.")
        notes.add("rle_compressed", where)
        counts = coco_mask.frPyObjects({"size": size, "counts": counts}, height, width)["counts"].decode("ascii")
    elif not isinstance(counts, str):
        raise UserError(f"{where}.segmentation.counts: expected runs, found {shorten(counts)}.")
    elif _run_total(counts) != width * height:  # the decoder writes beyond its memory when they do not
        raise UserError(f"{where}.segmentation.counts: the runs do not add up to {width} x {height} px.")
    return {"size": [height, width], "counts": counts}


def _run_total(counts: str) -> int:
    """The number of pixels a compressed RLE covers, or -1 when it is not one (COCO's six-bit code, ``rleFrString``)."""
    runs: list[int] = []
    position = 0
    while position < len(counts):
        value, shift, more = 0, 0, True
        while more:
            if position == len(counts):
                return -1
            code = ord(counts[position]) - 48
            if not 0 <= code < 64:
                return -1
            value |= (code & 0x1F) << shift
            more = bool(code & 0x20)
            position, shift = position + 1, shift + 5
            if not more and code & 0x10:
                value -= 1 << shift
        if len(runs) > 2:
            value += runs[-2]
        if value < 0:
            return -1
        runs.append(value)
    return sum(runs)


def _overlap(a: list[float], b: list[float]) -> float:
    """Intersection over union of two boxes ``[x, y, width, height]``."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def repair_face(face: dict[str, Any], width: int, height: int, where: str, notes: Notes) -> dict[str, Any] | None:
    """The ``bbox``, ``area``, ``iscrowd`` and ``segmentation`` of a face in canonical form.

    - Polygons: repeated points removed, clipped to the image, dropped when they enclose nothing.
    - Box: kept unless missing, empty or overlapping the mask's box by less than IoU 0.5 (then the mask's box); clipped.
    - Area: kept unless it differs from the mask's number of pixels by more than 1 % and by more than the box's
      half perimeter, which is the most that counting pixels and measuring the polygon can differ by.

    Args:
        face: a COCO annotation.
        width: of its image, in pixels.
        height: of its image, in pixels.
        where: names the annotation in messages.
        notes: told of every change.

    Returns:
        the four fields, or None when the face has to be dropped (which `notes` is told).

    Raises:
        UserError: when a field has the wrong type, so that nothing can be said about what was meant.
    """
    segmentation = face.get("segmentation")
    if segmentation in (None, [], {}, ""):
        notes.add("face_without_mask", where)
        return None
    shape: Any
    if isinstance(segmentation, dict):
        shape = _run_lengths(segmentation, width, height, where, notes)
        rle = shape
        mask_box = [float(value) for value in coco_mask.toBbox(rle)]
    elif isinstance(segmentation, list):
        shape, mask_box = _polygons(segmentation, width, height, where, notes)
        if not shape:
            notes.add("face_degenerate", where)
            return None
        rle = coco_mask.merge(coco_mask.frPyObjects(shape, height, width))
    else:
        raise UserError(f"{where}.segmentation: expected polygons or an RLE, found {shorten(segmentation)}.")
    pixels = float(coco_mask.area(rle))
    if pixels < 1:
        notes.add("face_degenerate", where)
        return None
    box = _repair_box(face.get("bbox"), mask_box, width, height, where, notes)
    area = face.get("area")
    if area is not None:
        require_number(area, f"{where}.area")
    if area is None or area <= 0 or abs(area - pixels) > max(0.01 * pixels, mask_box[2] + mask_box[3]):
        notes.add("area_recomputed", where)
        area = pixels
    crowd = face.get("iscrowd")
    if crowd not in (0, 1):
        notes.add("crowd_flag_set", where)
        crowd = 0
    return {"bbox": box, "area": area, "iscrowd": int(crowd), "segmentation": shape}


def _repair_box(given: Any, mask_box: list[float], width: int, height: int, where: str, notes: Notes) -> list[float]:
    """The published box clipped to the image, or the mask's box when it cannot be right."""
    if given is None or given == []:
        notes.add("box_recomputed", where)
        return mask_box
    x, y, box_width, box_height = require_box(given, f"{where}.bbox")
    right, bottom = min(x + box_width, width), min(y + box_height, height)
    left, top = max(x, 0), max(y, 0)
    clipped = [left, top, right - left, bottom - top]
    if box_width <= 0 or box_height <= 0 or min(clipped[2:]) <= 0 or _overlap(clipped, mask_box) < 0.5:
        notes.add("box_recomputed", where)
        return mask_box
    if x < 0 or y < 0 or x + box_width > width or y + box_height > height:
        notes.add("box_clipped", where)
        return clipped
    return [x, y, box_width, box_height]
