"""Small ground truth and detections, and evaluation in plain loops to compare with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pycocotools import mask as rle

HEIGHT, WIDTH = 120, 160
NAMES = ("Real", "Fake")

Entry = dict[str, Any]


def rectangle_mask(box: list[float]) -> Entry:
    """Run lengths of a filled box x, y, width, height."""
    x, y, width, height = (round(value) for value in box)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[max(y, 0) : y + height, max(x, 0) : x + width] = 1
    encoded = rle.encode(mask)
    return {"size": [HEIGHT, WIDTH], "counts": encoded["counts"].decode()}


def truth(
    faces: list[tuple[int, int, list[float]]],
    images: list[int],
    categories: tuple[int, ...] = (1, 2),
    crowd: tuple[int, ...] = (),
) -> Entry:
    """Ground truth of (image id, category id, box) with masks; `crowd` are indices of crowd regions."""
    return {
        "images": [{"id": one, "width": WIDTH, "height": HEIGHT, "file_name": f"{one}.jpg"} for one in images],
        "categories": [{"id": one, "name": NAMES[index]} for index, one in enumerate(categories)],
        "annotations": [
            {
                "id": index + 1,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": int(index in crowd),
                "segmentation": rectangle_mask(box),
            }
            for index, (image, category, box) in enumerate(faces)
        ],
    }


def detection(image: int, category: int, box: list[float], score: float) -> Entry:
    """A detection with the mask of its box."""
    return {
        "image_id": image,
        "category_id": category,
        "bbox": box,
        "score": score,
        "segmentation": rectangle_mask(box),
    }


def scene(seed: int, images: int = 6) -> tuple[Entry, list[Entry]]:
    """Random faces, some crowd regions, and detections: near and far from them, some with equal scores; sparse ids."""
    rng = np.random.default_rng(seed)
    ids = (1 + 7 * rng.permutation(images)).tolist()
    faces: list[tuple[int, int, list[float]]] = []
    found: list[Entry] = []
    for image in ids:
        for _ in range(rng.integers(0, 4)):
            width, height = rng.integers(4, 100, 2)
            box = [int(rng.integers(0, WIDTH - width)), int(rng.integers(0, HEIGHT - height)), int(width), int(height)]
            category = int(rng.integers(1, 3))
            faces.append((image, category, [float(value) for value in box]))
            for _ in range(rng.integers(0, 4)):
                x, y = (int(value) for value in rng.integers(-4, 5, 2))
                near = [
                    float(max(box[0] + x, 0)),
                    float(max(box[1] + y, 0)),
                    float(max(2, box[2] + int(rng.integers(-4, 5)))),
                    float(max(2, box[3] + int(rng.integers(-4, 5)))),
                ]
                of = category if rng.random() < 0.8 else 3 - category
                found.append(detection(image, of, near, round(float(rng.random()), int(rng.integers(1, 4)))))
        for _ in range(rng.integers(0, 3)):
            width, height = (float(value) for value in rng.integers(4, 60, 2))
            box = [float(rng.integers(0, 90)), float(rng.integers(0, 60)), width, height]
            found.append(detection(image, int(rng.integers(1, 3)), box, round(float(rng.random()), 1)))
    crowd = tuple(np.flatnonzero(rng.random(len(faces)) < 0.15).tolist())
    order = rng.permutation(len(found))
    return truth(faces, ids, crowd=crowd), [found[index] for index in order]


def box_iou(one: list[float], other: list[float], crowd: bool = False) -> float:
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    inter = max(width, 0) * max(height, 0)
    union = one[2] * one[3] if crowd else one[2] * one[3] + other[2] * other[3] - inter
    return inter / union


def plain_olrp(ground_truth: Entry, detections: list[Entry], category: int) -> dict[str, float]:
    """oLRP of the boxes of a class, in loops over images, detections and thresholds."""
    ranked: list[tuple[float, int, int, float]] = []  # score, image, place, IoU
    objects = 0
    for image in sorted(one["id"] for one in ground_truth["images"]):
        faces = [
            one for one in ground_truth["annotations"] if one["image_id"] == image and one["category_id"] == category
        ]
        objects += sum(not face["iscrowd"] for face in faces)
        taken: set[int] = set()
        own = [
            (place, one)
            for place, one in enumerate(detections)
            if one["image_id"] == image and one["category_id"] == category
        ]
        for place, one in sorted(own, key=lambda pair: -pair[1]["score"])[:100]:
            ious = {face["id"]: box_iou(one["bbox"], face["bbox"], bool(face["iscrowd"])) for face in faces}
            free = [f["id"] for f in faces if not f["iscrowd"] and f["id"] not in taken and ious[f["id"]] >= 0.5]
            if free:
                best = max(free, key=lambda face: (ious[face], face))
                taken.add(best)
                ranked.append((one["score"], image, place, ious[best]))
            elif not any(face["iscrowd"] and ious[face["id"]] >= 0.5 for face in faces):
                ranked.append((one["score"], image, place, math.nan))
    nan = math.nan
    if objects == 0:
        return {"oLRP": nan, "oLRP_Loc": nan, "oLRP_FP": nan, "oLRP_FN": nan}
    ranked.sort(key=lambda one: (-one[0], one[1], one[2]))
    best_row = {"oLRP": 1.0, "oLRP_Loc": nan, "oLRP_FP": nan, "oLRP_FN": 1.0}
    for length in range(1, len(ranked) + 1):
        ious = [iou for *_, iou in ranked[:length] if not math.isnan(iou)]
        found, wrong, missed = len(ious), length - len(ious), objects - len(ious)
        error = sum((1 - iou) / 0.5 for iou in ious)
        lrp = (error + wrong + missed) / (found + wrong + missed)
        # Of equally good prefixes the shortest with a face found, even where that is no better than none at all.
        if found and (lrp < best_row["oLRP"] - 1e-12 or (math.isnan(best_row["oLRP_Loc"]) and lrp <= 1 + 1e-12)):
            best_row = {
                "oLRP": lrp,
                "oLRP_Loc": sum(1 - iou for iou in ious) / found,
                "oLRP_FP": wrong / (found + wrong),
                "oLRP_FN": missed / objects,
            }
    return best_row


def plain_tide(ground_truth: Entry, detections: list[Entry]) -> dict[str, tuple[int | None, float]]:
    """Kind of error -> number and the AP50 of boxes that it costs (TIDE), in loops; for truth without crowd regions.

    Every false positive has the first kind that fits; correcting it makes of the best one on a free face a hit, and drops
    the others.
    """
    kind_of: dict[int, tuple[str, int | None]] = {}  # detection -> kind of error, face concerned
    used: dict[int, int] = {}  # face -> detection
    faces = {one["id"]: one for one in ground_truth["annotations"]}
    ranked = sorted(range(len(detections)), key=lambda one: -detections[one]["score"])
    for number in ranked:
        one = detections[number]
        iou = {
            key: box_iou(one["bbox"], face["bbox"])
            for key, face in faces.items()
            if face["image_id"] == one["image_id"]
        }
        same = {key: value for key, value in iou.items() if faces[key]["category_id"] == one["category_id"]}
        free = [key for key, value in same.items() if key not in used and value >= 0.5]
        if free:
            used[max(free, key=lambda key: (same[key], key))] = number
        else:
            kind_of[number] = ("", None)
    for number in kind_of:
        one = detections[number]
        iou = {
            key: box_iou(one["bbox"], face["bbox"])
            for key, face in faces.items()
            if face["image_id"] == one["image_id"]
        }
        same = {key: value for key, value in iou.items() if faces[key]["category_id"] == one["category_id"]}
        other = {key: value for key, value in iou.items() if key not in same}
        if same and 0.1 <= max(same.values()) <= 0.5:
            kind_of[number] = ("Loc", max(same, key=lambda key: same[key]))
        elif other and max(other.values()) >= 0.5:
            kind_of[number] = ("Cls", max(other, key=lambda key: other[key]))
        elif any(value >= 0.5 for key, value in same.items() if key in used):
            kind_of[number] = ("Dupe", None)
        elif max(iou.values(), default=0) <= 0.1:
            kind_of[number] = ("Bkg", None)
        else:
            kind_of[number] = ("Both", None)
    missed = set(faces) - set(used) - {face for _, face in kind_of.values()}

    def precision(fixed: str | None = None) -> float:
        """AP50 with the errors of a kind corrected."""
        by_class = []
        first: dict[int, int] = {}  # free face -> the best of all detections that are wrong about it
        for number in ranked:
            face = kind_of.get(number, ("", None))[1]
            if face is not None and face not in used:
                first.setdefault(face, number)
        corrected = {number: face for face, number in first.items() if kind_of[number][0] == fixed}
        for category in {face["category_id"] for face in faces.values()}:
            mine = {key for key, face in faces.items() if face["category_id"] == category}
            objects = len(mine - missed) if fixed == "Miss" else len(mine & set(used)) if fixed == "FN" else len(mine)
            hits = [number for face, number in used.items() if face in mine]
            hits += [number for number, face in corrected.items() if face in mine]
            wrong = [
                number
                for number, (kind, _) in kind_of.items()
                if detections[number]["category_id"] == category and fixed not in (kind, "FP")
            ]
            kept = sorted([*hits, *wrong], key=lambda number: -detections[number]["score"])
            found = np.cumsum([number in hits for number in kept])
            curve = found / np.arange(1, len(kept) + 1)
            recalls = found / max(objects, 1)
            best = [max([*curve[recalls >= level], 0.0]) for level in np.linspace(0, 1, 101)] if objects else [0.0]
            by_class.append(float(np.mean(best)))
        return float(np.mean(by_class))

    base = precision()
    counts = {kind: sum(one == kind for one, _ in kind_of.values()) for kind in ("Cls", "Loc", "Both", "Dupe", "Bkg")}
    numbers: dict[str, int | None] = {**counts, "Miss": len(missed), "FP": None, "FN": None}
    return {kind: (number, precision(kind) - base) for kind, number in numbers.items()}
