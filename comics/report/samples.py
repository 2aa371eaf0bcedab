"""Photographs for figures and page: picked by rule, with ground truth, detections and what they got wrong.

Works on COCO files alone. Boxes are ``[x, y, width, height]`` in px; outlines are closed rings, arrays (N, 2) of x, y.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from comics.classes import CLASSES, class_label
from comics.files import read_json
from comics.params import ComparisonFigure, ExamplesFigure, Params
from comics.report.results import NotMade, detections_path, read_scores, require, resolved_runs, scores_path
from comics.score_files import Key
from comics.verdicts import coco_masks, faces

HIT, WRONG, AGAIN, FALSE_ALARM, MISS = "hit", "wrong class", "found again", "false alarm", "miss"
"""A detection on a face of its class, on a face of the other class, on a face that a better one is on, on no face; a face
that no detection is on."""

Outline = NDArray[np.float64]


@dataclass
class Face:
    """A face of the ground truth, or one that was found."""

    label: int
    box: tuple[float, float, float, float]
    segmentation: Any
    score: float | None = None
    verdict: str = ""


@dataclass
class Sample:
    """One photograph."""

    image_id: int
    split: str
    path: Path
    width: int
    height: int
    truth: list[Face]
    found: dict[str, list[Face]] = field(default_factory=dict)
    """Detections by run."""
    missed: dict[str, list[Face]] = field(default_factory=dict)
    """Faces of the ground truth that a run has no detection on."""

    def errors(self, run: str) -> int:
        """Misses, false alarms, faces found again and wrong classes of `run`."""
        return len(self.missed[run]) + sum(face.verdict != HIT for face in self.found[run])


def outlines(segmentation: Any, height: int, width: int) -> list[Outline]:
    """The rings of a COCO segmentation: polygons as they are, an RLE by its level line at one half."""
    if isinstance(segmentation, list):
        return [np.asarray(ring, dtype=np.float64).reshape(-1, 2) for ring in segmentation]
    from contourpy import contour_generator
    from pycocotools import mask as coco_mask

    rle = dict(segmentation)
    if isinstance(rle["counts"], list):
        rle = coco_mask.frPyObjects(rle, height, width)
    elif isinstance(rle["counts"], str):
        rle["counts"] = rle["counts"].encode()
    padded = np.pad(coco_mask.decode(rle).astype(np.float64), 1)
    rings = contour_generator(z=padded).lines(0.5)
    return [np.asarray(ring, dtype=np.float64) - 0.5 for ring in rings]  # pixel (0, 0) spans 0 ... 1


def box_iou(one: Sequence[float], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Overlap of box `one` (xywh) with each of `others` (N, 4): intersection over union (N,)."""
    x, y, width, height = one
    across = np.minimum(x + width, others[:, 0] + others[:, 2]) - np.maximum(x, others[:, 0])
    down = np.minimum(y + height, others[:, 1] + others[:, 3]) - np.maximum(y, others[:, 1])
    shared = np.clip(across, 0, None) * np.clip(down, 0, None)
    union = width * height + others[:, 2] * others[:, 3] - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1), 0.0)


def judge(truth: Sequence[Face], found: Sequence[Face], iou: float) -> list[Face]:
    """Set the verdict of each detection; return the faces that none is on.

    Detections choose in order of score, each the free face that it overlaps most, by at least `iou`, of either class.
    """
    free = list(range(len(truth)))
    boxes = np.array([face.box for face in truth], dtype=np.float64).reshape(-1, 4)
    for detection in sorted(found, key=lambda face: -(face.score or 0)):
        overlaps = box_iou(detection.box, boxes)
        detection.verdict = AGAIN if (overlaps >= iou).any() else FALSE_ALARM
        best = max(free, key=overlaps.__getitem__, default=None)
        if best is not None and overlaps[best] >= iou:
            free.remove(best)
            detection.verdict = HIT if truth[best].label == detection.label else WRONG
    return [truth[index] for index in free]


def annotations_path(params: Params, split: str) -> Path:
    """The canonical COCO file of `split`, from the project's root."""
    return Path("data") / params.dataset / split / "annotations.json"


def read_samples(params: Params, split: str, root: Path = Path()) -> list[Sample]:
    """All photographs of `split` with their faces, in order of image id.

    Raises:
        UserError: the dataset is not there.
    """
    path = annotations_path(params, split)
    if not (root / path).exists():
        raise NotMade(f"{path}: no such file.", f"Make the dataset with: snakemake {path}")
    content = read_json(root / path)
    samples = {
        image["id"]: Sample(
            image_id=image["id"],
            split=split,
            path=path.parent / image["file_name"],
            width=image["width"],
            height=image["height"],
            truth=[],
        )
        for image in content["images"]
    }
    for face in content["annotations"]:
        if not face.get("iscrowd"):
            samples[face["image_id"]].truth.append(
                Face(class_label(face["category_id"]), tuple(face["bbox"]), face["segmentation"])
            )
    return [samples[key] for key in sorted(samples)]


def thresholds(scores: Mapping[Key, float | None], score: float | str) -> list[float]:
    """The score from which detections of each class count: as given, or where the class's mask oLRP is reached."""
    if isinstance(score, float | int):
        return [float(score)] * len(CLASSES)
    optimal = [scores.get(("segmentation", name, "oLRP_threshold")) for name in CLASSES]
    return [1.0 if value is None else value for value in optimal]  # a class that was never found shows nothing


def add_detections(
    params: Params, samples: Iterable[Sample], run: str, split: str, score: float | str, iou: float, root: Path = Path()
) -> None:
    """Add the faces that `run` found on `split` (first seed) to `samples`, one verdict a face, judged.

    Raises:
        UserError: detections or scores are missing or stale.
    """
    resolved = resolved_runs(params, run)[0]
    detections, scores = detections_path(resolved, split), scores_path(resolved, split)
    require([(detections, resolved), (scores, resolved)], root)
    least = thresholds(read_scores(root / scores), score)
    by_image: dict[int, list[dict[str, Any]]] = {}
    for entry in read_json(root / detections):
        by_image.setdefault(entry["image_id"], []).append(entry)
    for sample in samples:
        found = faces_of(by_image.get(sample.image_id, []))
        sample.found[run] = [face for face in found if (face.score or 0) >= least[face.label]]
        sample.missed[run] = judge(sample.truth, sample.found[run], iou)


def faces_of(entries: Sequence[Mapping[str, Any]]) -> list[Face]:
    """The faces that the detections of one image add up to, one verdict each (`comics.verdicts`), by descending score.

    A face has box, mask and score of its best detection, and is fake where P(fake), as the detector gives it, is at least 0.5:
    a figure compares runs, which may be calibrated or not.

    Args:
        entries: of a COCO results file; without `bbox` where the detector predicts none.
    """
    scores = np.array([one["score"] for one in entries], np.float64)
    fake = np.array([class_label(one["category_id"]) == 1 for one in entries], bool)
    if all("bbox" in one for one in entries):
        boxes, overlaps = np.array([one["bbox"] for one in entries], np.float64).reshape(-1, 4), None
    else:
        boxes, overlaps = coco_masks([one["segmentation"] for one in entries])
    found = faces(boxes, scores, fake, overlaps=overlaps)
    return [
        Face(int(p >= 0.5), tuple(boxes[leader].tolist()), entries[leader]["segmentation"], float(scores[leader]))
        for leader, p in zip(found.leaders.tolist(), found.p_fake, strict=True)
    ]


def spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """`count` of `samples` (all of them if fewer), evenly spread, the middle of each stretch."""
    count = min(count, len(samples))
    return [samples[(2 * index + 1) * len(samples) // (2 * count)] for index in range(count)]


def pick_examples(samples: Sequence[Sample], count: int) -> list[Sample]:
    """`count` photographs evenly spread over those with a real and a fake face; over all where none has both."""
    both = [sample for sample in samples if {face.label for face in sample.truth} >= {0, 1}]
    return spread(both or samples, count)


def pick_differences(samples: Sequence[Sample], first: str, last: str, count: int) -> list[Sample]:
    """The `count` photographs on which two runs' numbers of errors differ most, in either's favour; ties by id."""
    ranked = sorted(samples, key=lambda sample: (-abs(sample.errors(first) - sample.errors(last)), sample.image_id))
    return ranked[:count]


def pick_worst(samples: Sequence[Sample], run: str, count: int) -> list[Sample]:
    """The `count` photographs on which `run` has the most errors; ties by id."""
    return sorted(samples, key=lambda sample: (-sample.errors(run), sample.image_id))[:count]


EXAMPLES_RULE = "Picks: evenly spread, in order of id, over the images with a real and a fake face."


def differences_rule(figure: ComparisonFigure, title: Callable[[str], str] = str) -> str:
    """The rule by which a comparison picks, in words."""
    if figure.pick == "worst":
        return f"Picks: the {figure.count} images of each set on which {title(figure.runs[-1])} has the most errors."
    return (
        f"Picks: the {figure.count} images of each set on which the numbers of errors of {title(figure.runs[0])} and "
        f"{title(figure.runs[-1])} differ most, in either's favour."
    )


def example_samples(params: Params, figure: ExamplesFigure, root: Path = Path()) -> dict[str, list[Sample]]:
    """The picks of an examples figure by split."""
    return {split: pick_examples(read_samples(params, split, root), figure.count) for split in figure.splits}


def comparison_samples(params: Params, figure: ComparisonFigure, root: Path = Path()) -> dict[str, list[Sample]]:
    """The picks of a comparison by split, with the detections of its runs.

    Raises:
        UserError: dataset, detections or scores are missing or stale (all results at once, with one command).
    """
    wanted = []
    for split in figure.splits:
        for run in dict.fromkeys(figure.runs):
            resolved = resolved_runs(params, run)[0]
            wanted += [(detections_path(resolved, split), resolved), (scores_path(resolved, split), resolved)]
    require(wanted, root)
    picked: dict[str, list[Sample]] = {}
    for split in figure.splits:
        samples = read_samples(params, split, root)
        for run in dict.fromkeys(figure.runs):
            add_detections(params, samples, run, split, figure.score, figure.iou, root)
        picked[split] = (
            pick_worst(samples, figure.runs[-1], figure.count)
            if figure.pick == "worst"
            else pick_differences(samples, figure.runs[0], figure.runs[-1], figure.count)
        )
    return picked
