"""What is judged, and by which P(fake): faces, images, pixels, videos and tracks.

face
    The faces that detections add up to (`comics.verdicts`) are matched with those of the ground truth, whatever
    the class: by descending score, each with the free face it overlaps most, at an IoU of at least 0.5 of boxes (detection)
    or masks (segmentation). A matched face is judged by its P(fake). A face that is not found counts as judged wrongly: a
    missed fake as P(fake) = 0, a missed real one as 1; calibration (ECE, Brier) is of the faces found. What is found beside
    the faces counts nowhere here: AP and the verdict of the image tell of it.
image
    Fake if one of its faces is. Its P(fake) is the highest score x P(fake) of its faces, 0 without any.
pixel
    Fake if in the mask of a fake face. Its P(fake) is the highest score x P(fake) of the faces whose mask covers it, 0
    outside; the mask is that of the face's highest scored Fake detection. `pixel_core` leaves out the pixels near the outline
    of what is fake, where annotations are least sure: within 0.5 % of the image's diagonal, at least 1 px.
video
    The images with the same `video_id`: fake if one of them is; the mean of their P(fake).
track
    The faces with the same `track_id` in a video (or in all images, where there are no videos): fake if one of them is; the
    mean P(fake) of those found, or the wrong verdict if none is.

Crowd regions are no faces, and no fake pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from comics.evaluation.classification import Points, joined, points
from comics.evaluation.coco import Bools, Floats, Ints, Task
from comics.evaluation.inputs import Detections, GroundTruth, in_parts
from comics.evaluation.matching import Matched, mask_library
from comics.evaluation.rle import inside
from comics.verdicts import OVERLAP, coco_masks, grouped, paired_ious, probability_of_fake

Runs = tuple[Ints, Ints, Ints]
"""Number of a mask, first place and the one behind, of each run."""

MATCHED = 0.5
"""Least IoU of a face found with a face that is there."""
BAND = 0.005
"""Pixels nearer to the outline of the fake are left out of `pixel_core`: in lengths of the image's diagonal."""


def fake_category(truth: GroundTruth) -> int | None:
    """The id of the category called Fake, in letters of any case; None where there is none."""
    return next((category for category, name in truth.categories.items() if name.casefold() == "fake"), None)


def judged(
    truth: GroundTruth, found: Detections, matched: Mapping[Task, Matched], engine: str = "hotcoco"
) -> dict[Task, Matched]:
    """`matched`, with the verdicts; unchanged where the ground truth has no category Fake.

    Args:
        truth, found: the inputs.
        matched: of each task.
        engine: the library that overlaps masks.
    """
    fake = fake_category(truth)
    if fake is None:
        return dict(matched)
    values = np.zeros(len(truth.image_ids))
    p_fake = {task: np.full(len(truth.annotation_ids), np.nan) for task in matched}
    pixels: dict[str, list[Points]] = {}
    for part in in_parts(truth, found):
        faces = _Found(part.truth, part.found, fake)
        np.maximum.at(values, faces.images + part.first, faces.values)
        for task in matched:
            p_fake[task][part.annotations] = _matched_faces(part.truth, faces, task, engine)
        if "segmentation" in matched:
            for name, of_part in _pixels(part.truth, fake, faces).items():
                pixels.setdefault(name, []).append(replace(of_part, images=of_part.images + part.first))
    images = _images(truth, fake, values)
    common = {"image": images, **_videos(truth, images)}
    of_tasks = {}
    for task, of_task in matched.items():
        verdicts = {**common, **face_points(truth, p_fake[task]), **_tracks(truth, fake, p_fake[task])}
        if task == "segmentation":
            verdicts |= {name: joined(parts) for name, parts in pixels.items()}
        of_tasks[task] = replace(of_task, verdicts=verdicts)
    return of_tasks


def face_verdicts(truth: GroundTruth, found: Detections, task: Task, engine: str = "hotcoco") -> Floats:
    """(A,) P(fake) of each annotated face as it was found; NaN where it was not, or nothing is judged."""
    fake = fake_category(truth)
    if fake is None:
        return np.full(len(truth.annotation_ids), np.nan)
    p_fake = np.full(len(truth.annotation_ids), np.nan)
    for part in in_parts(truth, found):
        faces = _Found(part.truth, part.found, fake)
        p_fake[part.annotations] = _matched_faces(part.truth, faces, task, engine)
    return p_fake


def face_points(truth: GroundTruth, p_fake: Floats, chosen: Bools | None = None) -> dict[str, Points]:
    """The verdicts on the `chosen` (A,) faces, all of them when None, for `verdict_scores`; nothing where nothing is judged.

    Args:
        truth: ground truth.
        p_fake: (A,) as `face_verdicts` gives.
        chosen: crowd regions are left out in any case.
    """
    fake = fake_category(truth)
    if fake is None:
        return {}
    counted = ~truth.crowd if chosen is None else chosen & ~truth.crowd
    forged = truth.annotation_categories[counted] == fake
    return {"face": _verdicts(p_fake[counted], forged, truth.annotation_images[counted])}


class _Found:
    """The faces that detections add up to, in all images; by image, then by descending score.

    Attributes:
        leaders: (G,) index of the detection whose box and mask are the face's.
        images: (G,).
        p_fake: (G,).
        values: (G,) score x P(fake).
        outlines: (G,) index of the highest scored Fake detection; -1 for none.
    """

    def __init__(self, truth: GroundTruth, found: Detections, fake: int) -> None:
        self.found = found
        forged = found.category_ids == fake
        self.boxes, self.leaders, groups = faces_found(truth, found)
        self.images = found.images[self.leaders]
        self.p_fake = probability_of_fake(found.scores, forged, groups)
        self.values = found.scores[self.leaders] * self.p_fake
        self.outlines = np.full(len(self.leaders), -1)
        order = np.flatnonzero(forged)
        order = order[np.argsort(found.scores[order], kind="stable")]
        self.outlines[groups[order]] = order  # of several the last is kept: the highest


def faces_found(truth: GroundTruth, found: Detections, overlap: float = OVERLAP) -> tuple[Floats, Ints, Ints]:
    """Which detections are the same face: those whose boxes overlap or, where there are none, whose masks do.

    Args:
        overlap: IoU from which on they are.

    Returns:
        Boxes (N, 4) of all detections, x, y, width, height; leaders (G,) and groups (N,) as `grouped` gives.
    """
    if found.boxes is not None:
        return found.boxes, *grouped(found.boxes, found.scores, found.images, overlap)
    assert found.masks is not None
    texts = found.masks[np.arange(len(found.images))]
    sizes = truth.image_sizes[found.images].tolist()
    entries = [{"size": size, "counts": text} for size, text in zip(sizes, texts, strict=True)]
    boxes, overlaps = coco_masks(entries, overlap)
    return boxes, *grouped(boxes, found.scores, found.images, overlap, overlaps)


def _matched_faces(truth: GroundTruth, faces: _Found, task: Task, engine: str) -> Floats:
    """(A,) P(fake) of each annotation's face as it was found; NaN where it was not."""
    p_fake = np.full(len(truth.annotation_ids), np.nan)
    ours, theirs, ious = _pairs(truth, faces, task, engine)
    used = np.zeros(len(faces.leaders), bool)
    # By image and descending score, as the faces are; then by the overlap.
    for pair in np.lexsort((-ious, ours)).tolist():
        one, other = ours[pair], theirs[pair]
        if not used[one] and np.isnan(p_fake[other]):
            used[one], p_fake[other] = True, faces.p_fake[one]
    return p_fake


def _pairs(truth: GroundTruth, faces: _Found, task: Task, engine: str) -> tuple[Ints, Ints, Floats]:
    """Faces found (M,) and annotations (M,) that overlap by at least `MATCHED`, and their IoU (M,)."""
    theirs = np.flatnonzero(~truth.crowd)
    theirs = theirs[np.argsort(truth.annotation_images[theirs], kind="stable")]
    images = np.arange(len(truth.image_ids) + 1)
    starts = np.searchsorted(truth.annotation_images[theirs], images)
    of_image = np.diff(starts)
    if task == "segmentation":
        return _mask_pairs(truth, faces, engine, theirs, starts, np.searchsorted(faces.images, images))
    counts = of_image[faces.images]
    ours = np.repeat(np.arange(len(faces.leaders)), counts)
    within = np.arange(len(ours)) - np.repeat(np.cumsum(counts) - counts, counts)
    annotations = theirs[starts[faces.images[ours]] + within]
    assert truth.boxes is not None
    ious = paired_ious(faces.boxes[faces.leaders[ours]], truth.boxes[annotations])
    near = ious >= MATCHED
    return ours[near], annotations[near], ious[near]


def _mask_pairs(
    truth: GroundTruth, faces: _Found, engine: str, theirs: Ints, starts: Ints, bounds: Ints
) -> tuple[Ints, Ints, Floats]:
    """`_pairs` of masks, image by image: annotations `theirs` from `starts` on, faces found from `bounds` on."""
    assert truth.masks is not None
    assert faces.found.masks is not None
    overlap = mask_library(engine).iou
    parts: list[tuple[Ints, Ints, Floats]] = []
    for image, size in enumerate(truth.image_sizes.tolist()):
        ours = np.arange(bounds[image], bounds[image + 1])
        annotations = theirs[starts[image] : starts[image + 1]]
        if not len(ours) or not len(annotations):
            continue
        one = [{"size": size, "counts": text} for text in faces.found.masks[faces.leaders[ours]]]
        other = [{"size": size, "counts": text} for text in truth.masks[annotations]]
        ious = np.asarray(overlap(one, other, [False] * len(other)), np.float64).reshape(len(one), len(other))
        near = np.nonzero(ious >= MATCHED)
        parts.append((ours[near[0]], annotations[near[1]], ious[near]))
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    ours, annotations, ious = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return ours, annotations, ious


def _verdicts(p_fake: Floats, forged: Bools, images: Ints) -> Points:
    """Points of P(fake); NaN becomes the wrong verdict."""
    stated = ~np.isnan(p_fake)
    return points(np.where(stated, p_fake, ~forged), forged.astype(float), (~forged).astype(float), images, stated)


def _images(truth: GroundTruth, fake: int, values: Floats) -> Points:
    forged = truth.objects(fake) > 0
    return points(values, forged.astype(float), (~forged).astype(float), np.arange(len(values)))


def _videos(truth: GroundTruth, images: Points) -> dict[str, Points]:
    if truth.videos is None:
        return {}
    of_row = truth.videos[images.images]
    number = int(truth.videos.max(initial=-1)) + 1
    frames = np.maximum(np.bincount(truth.videos, minlength=number), 1)
    values = np.bincount(of_row, images.values, number) / frames
    forged = np.bincount(of_row, images.forged, number) > 0
    first = np.unique(truth.videos, return_index=True)[1]
    return {"video": points(values, forged.astype(float), (~forged).astype(float), first)}


def _tracks(truth: GroundTruth, fake: int, p_fake: Floats) -> dict[str, Points]:
    if truth.tracks is None:
        return {}
    counted = np.flatnonzero(~truth.crowd)
    videos = np.zeros(len(counted), np.int64)
    if truth.videos is not None:
        videos = truth.videos[truth.annotation_images[counted]]
    keys = np.stack([videos, truth.tracks[counted]], axis=1)
    _, first, track = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    track = track.reshape(-1)
    forged = np.bincount(track, truth.annotation_categories[counted] == fake, len(first)) > 0
    found = ~np.isnan(p_fake[counted])
    times = np.bincount(track, found, len(first))
    with np.errstate(invalid="ignore"):
        values = np.bincount(track[found], p_fake[counted][found], len(first)) / times
    return {"track": _verdicts(values, forged, truth.annotation_images[counted[first]])}


def _pixels(truth: GroundTruth, fake: int, faces: _Found) -> dict[str, Points]:
    """Of all pixels, and of those away from the outline."""
    columns: dict[str, list[tuple[Floats, Floats, Floats, Ints]]] = {"pixel": [], "pixel_core": []}
    for image, values, areas in _levels(truth, fake, faces):
        for name, (real, forged) in zip(columns, areas, strict=True):
            columns[name].append((values, forged, real, np.full(len(values), image)))
    return {name: points(*map(np.concatenate, zip(*parts, strict=True))) for name, parts in columns.items() if parts}


def _levels(truth: GroundTruth, fake: int, faces: _Found) -> Iterator[tuple[int, Floats, Floats]]:
    """Of each image: the values (K,) that its pixels have, and how many have them (2: all, away from the outline; 2: real,
    fake; K)."""
    assert truth.masks is not None
    assert faces.found.masks is not None
    chosen = np.flatnonzero((truth.annotation_categories == fake) & ~truth.crowd)
    chosen = chosen[np.argsort(truth.annotation_images[chosen], kind="stable")]
    outlined = np.flatnonzero(faces.outlines >= 0)
    outlined = outlined[np.lexsort((-faces.values[outlined], faces.images[outlined]))]
    everything = np.arange(len(truth.image_ids) + 1)
    starts = np.searchsorted(truth.annotation_images[chosen], everything)
    bounds = np.searchsorted(faces.images[outlined], everything)
    for image, (height, width) in enumerate(truth.image_sizes.tolist()):
        forged = truth.masks[chosen[starts[image] : starts[image + 1]]]
        ours = outlined[bounds[image] : bounds[image + 1]]
        claimed = faces.found.masks[faces.outlines[ours]]
        values = np.append(faces.values[ours], 0.0)
        band = near_outline(forged, height, width) if forged else None
        yield image, values, _areas(forged, claimed, band, height * width)


def _areas(forged: list[str], claimed: list[str], band: Runs | None, pixels: int) -> Floats:
    """How many pixels (2: all, outside the band; 2: real, fake; K + 1) each of K claims is the first to cover, and none.

    The ends of all runs cut the image into pieces, of which each lies inside or outside of every mask.
    """
    mask, start, stop = inside([*claimed, *forged])
    number = len(claimed) + len(forged)
    if band is not None:
        mask = np.concatenate([mask, band[0] + number])
        start, stop = np.concatenate([start, band[1]]), np.concatenate([stop, band[2]])
    cuts, place = np.unique(np.concatenate([[0, pixels], start, stop]), return_inverse=True)
    first, last = place[2 : 2 + len(start)], place[2 + len(start) :]
    covers = np.zeros((number + (len(forged) if band is not None else 0), len(cuts)), np.int8)
    covers[mask, first] = 1
    np.add.at(covers, (mask, last), -1)  # where a run of the same mask may begin
    np.cumsum(covers, axis=1, out=covers)
    covers = covers[:, :-1]
    of_claims = np.concatenate([covers[: len(claimed)], np.ones((1, covers.shape[1]), np.int8)])
    level = of_claims.argmax(axis=0)
    is_forged = covers[len(claimed) : number].any(axis=0)
    in_band = covers[number:].any(axis=0)
    lengths = np.diff(cuts).astype(float)
    keys = level + (len(claimed) + 1) * is_forged
    total = np.stack([np.bincount(keys, weights, 2 * len(claimed) + 2) for weights in (lengths, lengths * ~in_band)])
    return total.reshape(2, 2, len(claimed) + 1).astype(np.float64)


def near_outline(masks: list[str], height: int, width: int) -> Runs:
    """The pixels near the outline of `masks` together, on both its sides: within `BAND`, at least 1 px, along rows and columns
    (Chebyshev distance of a pixel to the nearest on the other side). The image's edge is no outline.

    Returns:
        runs as `comics.evaluation.rle.inside` gives them, of a part around each mask; parts may overlap.
    """
    from hotcoco import mask as rle

    reach = max(1, round(BAND * float(np.hypot(height, width))))
    entries = [{"size": [height, width], "counts": text} for text in masks]
    whole = rle.decode(entries[0] if len(entries) == 1 else rle.merge(entries))
    parts = [
        _near(whole, box, reach) for box in np.asarray(rle.toBbox(entries)).reshape(-1, 4).round().astype(int).tolist()
    ]
    numbers = [np.full(len(start), number) for number, (start, _) in enumerate(parts)]
    starts, stops = zip(*parts, strict=True)
    return np.concatenate(numbers), np.concatenate(starts), np.concatenate(stops)


def _near(whole: NDArray[np.uint8], box: list[int], reach: int) -> tuple[Ints, Ints]:
    """First places and those behind of the runs, down the columns, of the pixels in and around `box` that are near an outline."""
    height, width = whole.shape
    x, y, w, h = box
    if not w or not h:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    top, bottom = max(y - reach, 0), min(y + h + reach, height)
    left, right = max(x - reach, 0), min(x + w + reach, width)
    # Windows reach farther than the pixels they are of; beyond the image the pixels of its edge go on.
    rows = np.clip(np.arange(top - reach, bottom + reach), 0, height - 1)
    columns = np.clip(np.arange(left - reach, right + reach), 0, width - 1)
    sums = np.zeros((len(columns) + 1, len(rows) + 1), np.int32)
    crop = whole.T[columns[0] : columns[-1] + 1, rows[0] : rows[-1] + 1]
    crop = crop[np.ix_(columns - columns[0], rows - rows[0])]
    np.cumsum(crop, axis=1, out=sums[1:, 1:])
    np.cumsum(sums, axis=0, out=sums)
    side = 2 * reach + 1
    window = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    band = np.zeros((right - left, bottom - top + 2), np.int8)  # a column a row, between zeros
    band[:, 1:-1] = (window > 0) & (window < side * side)
    steps = np.diff(band, axis=1)
    ends = []
    for step in (1, -1):
        column, row = np.nonzero(steps == step)
        ends.append((left + column) * height + top + row)
    return ends[0], ends[1]
