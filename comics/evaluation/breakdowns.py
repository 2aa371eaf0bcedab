"""Where the scores come from: by size of the face, faces in the image, kind of forgery, overlap and kind of error; and the curves.

Each function returns rows of plain values under the header that goes with it, ready for a CSV file.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np

from comics.evaluation.classification import verdict_scores
from comics.evaluation.coco import AREAS, IOU_TYPES, RECALL_THRESHOLDS, Bools, Floats, Ints, Task
from comics.evaluation.engines.entries import coco_ground_truth, coco_results
from comics.evaluation.inputs import Detections, GroundTruth
from comics.evaluation.judging import face_points
from comics.evaluation.lrp import TAU, lrp_curve
from comics.evaluation.matching import Matched, Matches
from comics.evaluation.precision import average_precisions
from comics.evaluation.precision import precision_curves as of_class
from comics.evaluation.resampling import class_scores
from comics.evaluation.scores import ALL, average, lrp_errors

Row = list[Any]

MEASURES = ("AP", "oLRP", "oLRP_Loc", "oLRP_FP", "oLRP_FN")
JUDGED = ("face_ACC", "face_BACC", "face_found")
"""Verdicts on the faces of a group, in the rows of all classes together."""
FACES_IN_IMAGE: dict[str, tuple[int, int]] = {
    "1": (1, 1),
    "2": (2, 2),
    "3-5": (3, 5),
    "6-10": (6, 10),
    ">10": (11, 2**31),
}
"""Groups of images by their number of faces, both bounds included."""
OVERLAPS: dict[str, tuple[float, float]] = {"0": (0, 0), "0-0.1": (1e-9, 0.1), ">0.1": (0.1, np.inf)}
"""Groups of faces by the largest share of their box that the box of another face of the image covers."""
CURVE_POINTS = 1000
"""At most, of an LRP curve."""

SIZE_HEADER = ("task", "class", "size", "faces", *MEASURES, *JUDGED)
FACES_HEADER = ("task", "class", "faces_in_image", "images", "faces", *MEASURES, *JUDGED)
GROUP_HEADER = ("task", "class", "group", "faces", *MEASURES, *JUDGED)
PRECISION_HEADER = ("task", "class", "recall", "precision_50", "precision_75", "precision_mean")
LRP_HEADER = ("task", "class", "threshold", "LRP", "Loc", "FP", "FN")
CONFUSION_HEADER = ("task", "truth", "found_as", "count", "share")
ERROR_HEADER = ("task", "error", "count", "AP50_lost")


def by_size(truth: GroundTruth, task: Task, matched: Matched, p_fake: Floats) -> list[Row]:
    """Scores of the faces in each of COCO's area ranges; detections matched to faces of another size are ignored.

    Args:
        truth, matched: inputs and their detailed matches.
        task: which the matches are of.
        p_fake: (A,) verdicts on the faces (`judging.face_verdicts`).
    """
    rows = []
    for area, size in enumerate(AREAS):
        metric = ("AP", "AP_S", "AP_M", "AP_L")[area]
        classes = {
            name: {
                **lrp_errors(matched.classes[category], area=area),
                "AP": average_precisions(matched.classes[category])[metric],
                "faces": int(matched.classes[category].objects[area].sum()),
            }
            for category, name in truth.categories.items()
        }
        low, high = AREAS[size]
        verdicts = _verdicts(truth, p_fake, (truth.areas >= low) & (truth.areas <= high))
        together = {**average(classes.values()), "faces": sum(int(row["faces"]) for row in classes.values())}
        for cls, row in {ALL: together, **classes}.items():
            judged = verdicts if cls == ALL else [None] * len(JUDGED)
            rows.append([task, cls, size, row["faces"], *(row[measure] for measure in MEASURES), *judged])
    return rows


def _verdicts(truth: GroundTruth, p_fake: Floats, chosen: Bools) -> list[float]:
    return list(verdict_scores(face_points(truth, p_fake, chosen), metrics=JUDGED).values())


def by_faces(truth: GroundTruth, task: Task, matched: Matched, p_fake: Floats) -> list[Row]:
    """Scores of the images with few faces and with many, of `FACES_IN_IMAGE`; groups without images are left out."""
    faces = np.sum([matches.objects[0] for matches in matched.classes.values()], axis=0)
    rows = []
    for group, (low, high) in FACES_IN_IMAGE.items():
        chosen = (faces >= low) & (faces <= high)
        if not chosen.any():
            continue
        numbers = {
            name: int(matched.classes[category].objects[0][chosen].sum()) for category, name in truth.categories.items()
        }
        numbers[ALL] = sum(numbers.values())
        for cls, row in class_scores(truth, matched, chosen.astype(np.float64)).items():
            measures = (row[measure] for measure in MEASURES)
            judged = _verdicts(truth, p_fake, chosen[truth.annotation_images]) if cls == ALL else [None] * len(JUDGED)
            rows.append([task, cls, group, int(chosen.sum()), numbers[cls], *measures, *judged])
    return rows


def by_forgery(truth: GroundTruth, task: Task, matched: Matched, p_fake: Floats) -> list[Row]:
    """Scores of the faces of each kind of forgery, as the ground truth's `forgery` tells; those without one are left out."""
    kinds = np.array(truth.forgeries)
    groups = {str(kind): kinds == kind for kind in np.unique(kinds) if kind}
    return _by_group(truth, task, matched, p_fake, groups)


def by_overlap(truth: GroundTruth, task: Task, matched: Matched, p_fake: Floats) -> list[Row]:
    """Scores of the faces that no other covers, and of those that one covers, of `OVERLAPS`."""
    covered = covered_share(truth)
    groups = {name: (covered >= low) & (covered <= high) for name, (low, high) in OVERLAPS.items()}
    groups[">0.1"] = covered > OVERLAPS[">0.1"][0]
    return _by_group(truth, task, matched, p_fake, groups)


def covered_share(truth: GroundTruth) -> Floats:
    """(A,) the largest share of each face's box that the box of another face of the image covers; 0 where there are no boxes."""
    shares = np.zeros(len(truth.annotation_ids))
    if truth.boxes is None:
        return shares
    order = np.argsort(truth.annotation_images, kind="stable")
    order = order[~truth.crowd[order]]
    bounds = np.flatnonzero(np.diff(truth.annotation_images[order], prepend=-1, append=-1))
    for start, stop in itertools.pairwise(bounds):
        of_image = order[start:stop]
        low, size = truth.boxes[of_image, :2], truth.boxes[of_image, 2:]
        sides = np.minimum((low + size)[:, None], low + size) - np.maximum(low[:, None], low)
        inter = np.prod(np.maximum(sides, 0), axis=-1)
        np.fill_diagonal(inter, 0)
        shares[of_image] = inter.max(axis=1) / np.maximum(np.prod(size, axis=1), 1e-9)
    return shares


def _by_group(truth: GroundTruth, task: Task, matched: Matched, p_fake: Floats, groups: dict[str, Bools]) -> list[Row]:
    """Scores of groups (A,) of faces. A detection matched with a face of another group is left out, as COCO does for sizes; one
    that is matched with none counts as wrong in every group."""
    rows = []
    for group, chosen in groups.items():
        classes = {}
        for category, name in truth.categories.items():
            matches = _of_group(truth, category, matched.classes[category], chosen)
            classes[name] = {
                **lrp_errors(matches),
                "AP": average_precisions(matches)["AP"],
                "faces": int(matches.objects.sum()),
            }
        together = {**average(classes.values()), "faces": sum(int(row["faces"]) for row in classes.values())}
        verdicts = _verdicts(truth, p_fake, chosen)
        for cls, row in {ALL: together, **classes}.items():
            judged = verdicts if cls == ALL else [None] * len(JUDGED)
            rows.append([task, cls, group, row["faces"], *(row[measure] for measure in MEASURES), *judged])
    return rows


def _of_group(truth: GroundTruth, category: int, matches: Matches, chosen: Bools) -> Matches:
    """The matches of a class, as if the `chosen` (A,) faces were all that count; of all areas alone."""
    partners = matches.partners
    other = (partners >= 0) & ~np.append(chosen, False)[partners]
    ignored = matches.ignored[:, 0] | other
    counted = chosen & (truth.annotation_categories == category) & ~truth.crowd
    objects = np.bincount(truth.annotation_images[counted], minlength=len(truth.image_ids))
    return replace(
        matches,
        matched=(matches.matched[:, 0] & ~other)[:, None],
        ignored=ignored[:, None],
        ious=matches.ious[:1],
        objects=objects[None],
    )


def precision_curves(truth: GroundTruth, task: Task, matched: Matched) -> list[Row]:
    """Precision at COCO's 101 recall thresholds: at an IoU of 0.5, of 0.75, and the mean over all IoU thresholds."""
    rows: list[Row] = []
    for category, name in truth.categories.items():
        matches = matched.classes[category]
        if matches.objects[0].any():
            by_iou = of_class(matches)
            columns = zip(RECALL_THRESHOLDS, by_iou[0], by_iou[5], by_iou.mean(axis=0), strict=True)
            rows += [[task, name, *map(float, values)] for values in columns]
    return rows


def lrp_curves(truth: GroundTruth, task: Task, matched: Matched) -> list[Row]:
    """LRP and its parts when detections below a score are dropped, at no more than `CURVE_POINTS` scores and the optimum."""
    rows: list[Row] = []
    for category, name in truth.categories.items():
        matches = matched.classes[category]
        objects = float(matches.objects[0].sum())
        counted = ~matches.ignored[0, 0]
        scores, ious, hit = matches.scores[counted], matches.ious[0, counted], matches.matched[0, 0, counted]
        if not objects or not len(scores):
            continue
        lrp = lrp_curve(ious, hit, objects)
        found = np.cumsum(hit)
        kept = np.arange(1, len(hit) + 1)
        with np.errstate(invalid="ignore"):
            loc = np.cumsum(np.where(hit, 1 - ious, 0)) / found
        points = np.unique(np.linspace(0, len(lrp) - 1, CURVE_POINTS).astype(int))
        for point in np.union1d(points, [int(np.argmin(lrp))]):
            fp, fn = 1 - found[point] / kept[point], 1 - found[point] / objects
            rows.append([task, name, *map(float, (scores[point], lrp[point], loc[point], fp, fn))])
    return rows


def confusion(truth: GroundTruth, found: Detections, task: Task, thresholds: dict[str, float]) -> list[Row]:
    """What becomes of the faces of each class when only detections from their class's optimal threshold on are kept.

    Detections are matched regardless of class. Beside the classes there is ``none``: faces not found, and detections
    where there is no face.

    Args:
        truth, found: the inputs.
        task: detection or segmentation.
        thresholds: class -> score; NaN for a class none of whose detections are kept.
    """
    found = found.scored_for(task)
    of_category = {category: thresholds[name] for category, name in truth.categories.items()}
    lowest = np.array([of_category[int(category)] for category in found.category_ids], np.float64)
    kept = np.flatnonzero(found.scores >= lowest)
    evaluator = _hotcoco(truth, found, kept, task)
    matrix = evaluator.confusion_matrix(iou_thr=TAU)["matrix"]
    names = [*truth.categories.values(), "none"]
    totals = np.maximum(matrix.sum(axis=1), 1)
    return [
        [task, names[row], names[column], int(matrix[row, column]), float(matrix[row, column] / totals[row])]
        for row in range(len(names))
        for column in range(len(names))
        if not row == column == len(names) - 1
    ]


def errors(truth: GroundTruth, found: Detections, task: Task) -> list[Row]:
    """Kinds of error, how many there are and the AP50 that each costs (Bolya et al., "TIDE", ECCV 2020).

    Cls: the other class; Loc: IoU of 0.1 to 0.5; Both; Dupe: face found already; Bkg: no face; Miss: not found. FP and FN
    are the AP50 lost to all false positives and to all misses.
    """
    if not len(truth.annotation_ids):
        return []
    evaluator = _hotcoco(truth, found.scored_for(task), np.arange(len(found.scores)), task)
    evaluator.evaluate()
    told = evaluator.tide_errors(pos_thr=TAU, bg_thr=0.1)
    order = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss", "FP", "FN")
    return [[task, kind, told["counts"].get(kind), told["delta_ap"][kind]] for kind in order]


def _hotcoco(truth: GroundTruth, found: Detections, chosen: Ints, task: Task) -> Any:
    """hotcoco's evaluator of the `chosen` detections."""
    import hotcoco

    ground_truth = hotcoco.COCO(coco_ground_truth(truth))
    return hotcoco.COCOeval(ground_truth, ground_truth.load_res(coco_results(truth, found, chosen)), IOU_TYPES[task])
