"""From a detector's scores to probabilities: P(fake) of a face that is right as often as it says.

Fitted on a split that training never reads. Detections are grouped to faces (`comics.verdicts`), faces are
matched to the truth, and two numbers are learnt from those that have one, as in Platt scaling (Platt, "Probabilistic
outputs for support vector machines", 1999) and temperature scaling (Guo et al., "On calibration of modern neural networks",
ICML 2017):

    P(fake) = sigmoid(logit(p) / temperature + bias).

Thresholds for P(fake) come with it, each from the same faces: equal error, 1 % and 5 % false alarms, optimal LRP.

numpy and scipy only; works on COCO files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from comics.errors import UserError
from comics.evaluation.inputs import Detections, GroundTruth, read_detections, read_ground_truth
from comics.evaluation.judging import MATCHED, faces_found, fake_category
from comics.files import read_json
from comics.verdicts import FLOOR, OVERLAP, Bools, Floats, Ints, probability_of_fake

FORMAT = "comics-calibration/1"
BINS = 10
"""Of the reliability diagram, of equal width."""
THRESHOLDS = ("eer", "fpr1", "fpr5", "olrp")
MAX_SLOPE = 20.0
"""Of logit(p): on a handful of faces that a detector tells apart without a mistake the best slope would be infinite."""
UNCALIBRATED_SCORE = 0.3
"""Least score of a face where no calibration says better."""


@dataclass(frozen=True)
class FoundFaces:
    """Faces of a whole split: found, and compared with the truth.

    Attributes:
        scores: (G,) how sure the detector is that there is a face.
        p_fake: (G,) before calibration.
        truth: (G,) 0 real, 1 fake, -1 where there is no face.
        ious: (G,) with the true face, 0 where there is none.
        annotations: (G,) index of the true face in the ground truth, -1 where there is none.
        real, fake: how many faces there are in truth.
    """

    scores: Floats
    p_fake: Floats
    truth: Ints
    ious: Floats
    annotations: Ints
    real: int
    fake: int


@dataclass(frozen=True)
class Reliability:
    """The reliability diagram: how often faces are fake, by what was said of them.

    Attributes:
        said: mean P(fake) of each bin, None where it is empty.
        are: share of fake faces of each bin.
        faces: how many of each bin.
        ece: expected calibration error: the mean of \\|said - are\\| over faces (Naeini et al., AAAI 2015).
        brier: mean squared error of P(fake).
    """

    said: list[float | None]
    are: list[float | None]
    faces: list[int]
    ece: float
    brier: float


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` learnt, and how good it was before and after.

    Attributes:
        temperature, bias: see the module.
        score: from which on a detection counts as a face: where most are found with fewest false alarms (F1).
        thresholds: name -> P(fake) from which on a face is called fake.
        overlap, floor: how detections were grouped to faces.
        split: what it was fitted on.
        images, real, fake: how many of them it has.
        before, after: reliability on those faces.
        digest: of the run whose detections these are.
    """

    temperature: float
    bias: float
    score: float
    thresholds: dict[str, float]
    overlap: float
    floor: float
    split: str
    images: int
    real: int
    fake: int
    before: Reliability
    after: Reliability
    digest: str = ""

    def apply(self, p_fake: Floats) -> Floats:
        """Calibrated P(fake) of what the detector says, of any shape."""
        return _sigmoid(_logit(p_fake) / self.temperature + self.bias)

    def as_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}


@dataclass(frozen=True)
class Held:
    """How a calibration holds on faces of another split than the one it was fitted to.

    Attributes:
        before, after: reliability on the faces found there.
        real, fake: how many those are.
        called_fake: threshold -> how many of the real, and how many of the fake ones, are called fake at it.
    """

    before: Reliability
    after: Reliability
    real: int
    fake: int
    called_fake: dict[str, tuple[int, int]]


def held(calibration: Calibration, faces: FoundFaces) -> Held:
    """`calibration` on the `faces` that were found and are there, of a split that it has not seen."""
    chosen = (faces.scores >= calibration.score) & (faces.truth >= 0)
    raw, fake = faces.p_fake[chosen], faces.truth[chosen] == 1
    p = calibration.apply(raw)
    return Held(
        before=reliability(raw, fake),
        after=reliability(p, fake),
        real=int((~fake).sum()),
        fake=int(fake.sum()),
        called_fake={
            name: (int((p[~fake] >= at).sum()), int((p[fake] >= at).sum()))
            for name, at in calibration.thresholds.items()
        },
    )


def from_json(content: Any, name: str) -> Calibration:
    """A `Calibration` from what `Calibration.as_json` gave.

    Raises:
        UserError: it is none; `name` says where it came from.
    """
    try:
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, expected {FORMAT}")
        fields = {key: value for key, value in content.items() if key != "format"}
        fields["before"], fields["after"] = Reliability(**fields["before"]), Reliability(**fields["after"])
        made = Calibration(**fields)
        numbers = (made.temperature, made.bias, made.score, made.overlap, made.floor, *made.thresholds.values())
        if not all(np.isfinite(float(one)) for one in numbers) or made.temperature <= 0:
            raise ValueError("a number is not finite, or the temperature not positive")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{name}: no calibration ({error}).", "Make it with: comics calibrate RUN") from None
    return made


def read_calibration(path: str | os.PathLike[str]) -> Calibration:
    """The calibration in a file that ``comics calibrate`` wrote.

    Raises:
        UserError: it is absent or none.
    """
    return from_json(read_json(path), str(path))


def match_faces(truth: GroundTruth, found: Detections, overlap: float = OVERLAP, floor: float = FLOOR) -> FoundFaces:
    """The faces that `found` add up to, each beside its true one.

    Found faces choose by descending score, each the free true face that it overlaps most, by at least `MATCHED`. Those on
    crowd regions alone are left out.

    Raises:
        UserError: the truth has no boxes, or no class named Fake.
    """
    category = fake_category(truth)
    if category is None:
        raise UserError(f"{truth.name}: has no category named Fake.", "Calibration is for real and fake faces.")
    if truth.boxes is None:
        raise UserError(f"{truth.name}: has no boxes, by which faces are matched.")
    fake = found.category_ids == category
    boxes, leaders, groups = faces_found(truth, found, overlap)
    p_fake = probability_of_fake(found.scores, fake, groups, floor)
    true_fake = (truth.annotation_categories == category).astype(np.int64)
    labels, places, ious = np.full(len(leaders), -1), np.full(len(leaders), -1), np.zeros(len(leaders))
    keep = np.ones(len(leaders), bool)
    of_image = np.argsort(truth.annotation_images, kind="stable")
    starts = np.searchsorted(truth.annotation_images[of_image], np.arange(len(truth.image_ids) + 1))
    images = found.images[leaders]  # ascending, and within an image by descending score
    edges = np.searchsorted(images, np.arange(len(truth.image_ids) + 1))
    for image in np.unique(images):
        faces = of_image[starts[image] : starts[image + 1]]
        mine = np.arange(edges[image], edges[image + 1])
        table = _ious(boxes[leaders[mine]], truth.boxes[faces])
        free = ~truth.crowd[faces]
        for row, face in enumerate(mine.tolist()):
            choice = np.where(free, table[row], -1.0)
            best = int(choice.argmax()) if len(choice) else -1
            if best >= 0 and choice[best] >= MATCHED:
                labels[face], places[face], ious[face] = true_fake[faces[best]], faces[best], choice[best]
                free[best] = False
            elif (table[row][truth.crowd[faces]] >= MATCHED).any():
                keep[face] = False
    own = ~truth.crowd
    return FoundFaces(
        scores=found.scores[leaders][keep],
        p_fake=p_fake[keep],
        truth=labels[keep],
        ious=ious[keep],
        annotations=places[keep],
        real=int((own & (true_fake == 0)).sum()),
        fake=int((own & (true_fake == 1)).sum()),
    )


def _ious(one: Floats, other: Floats) -> Floats:
    """IoU (N, M) of boxes (N, 4) with boxes (M, 4), x, y, width, height."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, :2] + one[:, None, 2:], other[None, :, :2] + other[None, :, 2:])
    inter = np.prod(np.maximum(high - low, 0), axis=2)
    union = np.prod(one[:, 2:], axis=1)[:, None] + np.prod(other[:, 2:], axis=1)[None] - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def calibrate(
    truth: str | os.PathLike[str] | Mapping[str, Any] | GroundTruth,
    detections: str | os.PathLike[str] | list[dict[str, Any]] | Detections,
    split: str = "val",
    digest: str = "",
    overlap: float = OVERLAP,
    floor: float = FLOOR,
) -> Calibration:
    """Learn temperature, bias and thresholds from detections on a split that training never read.

    Args:
        truth: COCO ground truth.
        detections: COCO results on its images.
        split: what to call it.
        digest: of the run that made the detections.
        overlap: IoU from which on detections are one face.
        floor: score of a class that is not reported.

    Raises:
        UserError: an input is not usable, or no real, or no fake face was found.
    """
    if not isinstance(truth, GroundTruth):
        truth = read_ground_truth(truth)
    if not isinstance(detections, Detections):
        detections = read_detections(detections, truth)
    faces = match_faces(truth, detections, overlap, floor)
    score = best_score(faces)
    chosen = (faces.scores >= score) & (faces.truth >= 0)
    raw, fake = faces.p_fake[chosen], faces.truth[chosen] == 1
    if not fake.any() or fake.all():
        missing = "fake" if not fake.any() else "real"
        raise UserError(
            f"{detections.name}: no {missing} face of {truth.name} was found: nothing to calibrate with.",
            "Train longer, or calibrate on more images.",
        )
    temperature, bias = fit(raw, fake)
    p = _sigmoid(_logit(raw) / temperature + bias)
    eer, fpr1, fpr5 = (equal_error(p, fake), *(false_alarms(p[~fake], rate) for rate in (0.01, 0.05)))
    counted = faces.scores >= score
    every = _sigmoid(_logit(faces.p_fake[counted]) / temperature + bias)
    olrp = optimal_threshold(every, faces.truth[counted] == 1, faces.ious[counted], faces.fake)
    return Calibration(
        temperature=temperature,
        bias=bias,
        score=score,
        thresholds={"eer": eer, "fpr1": fpr1, "fpr5": fpr5, "olrp": olrp},
        overlap=overlap,
        floor=floor,
        split=split,
        images=len(truth.image_ids),
        real=faces.real,
        fake=faces.fake,
        before=reliability(raw, fake),
        after=reliability(p, fake),
        digest=digest,
    )


def best_score(faces: FoundFaces) -> float:
    """The score from which on faces are found with the highest F1, whatever their class; of equals the highest."""
    order = np.argsort(-faces.scores, kind="stable")
    scores, hits = faces.scores[order], np.cumsum(faces.truth[order] >= 0)
    if not len(scores):
        return UNCALIBRATED_SCORE
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + faces.real + faces.fake)
    last = np.append(np.diff(scores) != 0, True)  # a threshold takes all of an equal score
    return float(scores[np.where(last, f1, -1.0).argmax()])


def fit(p_fake: Floats, fake: Bools) -> tuple[float, float]:
    """Temperature and bias of least cross-entropy.

    The targets are Platt's, a little off 0 and 1 by how few faces there are, so that faces that are told apart without a
    mistake do not ask for certainty.

    Args:
        p_fake: (N,) of the detector.
        fake: (N,) whether the face is forged; some are, some are not.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    x = _logit(p_fake)
    positive, negative = int(fake.sum()), int((~fake).sum())
    target = np.where(fake, (positive + 1) / (positive + 2), 1 / (negative + 2))

    def loss(parameters: Floats) -> tuple[float, Floats]:
        slope, bias = parameters
        z = slope * x + bias
        residual = (expit(z) - target) / len(x)
        value = float((np.logaddexp(0, z) - target * z).mean())
        return value, np.array([(residual * x).sum(), residual.sum()])

    found = minimize(
        loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(1 / MAX_SLOPE, MAX_SLOPE), (-50, 50)]
    )
    slope, bias = found.x
    return float(1 / slope), float(bias)


def reliability(p_fake: Floats, fake: Bools, bins: int = BINS) -> Reliability:
    """The reliability diagram of P(fake) (N,) of faces that are `fake` (N,), in bins of equal width."""
    place = np.minimum((p_fake * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    said = np.bincount(place, p_fake, bins) / np.maximum(count, 1)
    are = np.bincount(place, fake, bins) / np.maximum(count, 1)
    return Reliability(
        said=[float(one) if n else None for one, n in zip(said, count, strict=True)],
        are=[float(one) if n else None for one, n in zip(are, count, strict=True)],
        faces=count.tolist(),
        ece=float((np.abs(said - are) * count).sum() / max(len(p_fake), 1)),
        brier=float(((p_fake - fake) ** 2).mean()) if len(p_fake) else 0.0,
    )


def equal_error(p_fake: Floats, fake: Bools) -> float:
    """The threshold at which as large a share of real faces is called fake as of fake faces is called real.

    A face is called fake from the threshold on. Between two faces the middle is taken.
    """
    values = np.unique(p_fake)
    cuts = np.concatenate([[values[0]], (values[1:] + values[:-1]) / 2, [values[-1] + 1e-6]])
    alarms = 1 - np.searchsorted(np.sort(p_fake[~fake]), cuts, "left") / max((~fake).sum(), 1)
    misses = np.searchsorted(np.sort(p_fake[fake]), cuts, "left") / max(fake.sum(), 1)
    worst = np.maximum(alarms, misses)
    ties = np.flatnonzero(worst == worst.min())
    return float(cuts[ties[len(ties) // 2]])


def false_alarms(real: Floats, rate: float) -> float:
    """The lowest threshold at which at most `rate` of the real faces, whose P(fake) is `real` (N,), are called fake."""
    ordered = np.sort(real)[::-1]
    allowed = int(np.floor(rate * len(ordered) + 1e-9))
    if allowed >= len(ordered):
        return 0.0
    return float(np.nextafter(ordered[allowed], 2.0))


def optimal_threshold(p_fake: Floats, fake: Bools, ious: Floats, total: int) -> float:
    """The threshold of least LRP error of the class Fake (Oksuz et al., TPAMI 2022), by P(fake).

    Args:
        p_fake: (G,) of every face found, also where there is none in truth.
        fake: (G,) whether it is on a fake one.
        ious: (G,) with the true face.
        total: fake faces there are in truth.
    """
    order = np.argsort(-p_fake, kind="stable")
    p, hit = p_fake[order], fake[order]
    hits = np.cumsum(hit)
    error = np.cumsum(np.where(hit, (1 - ious[order]) / (1 - MATCHED), 0.0))
    alarms = np.cumsum(~hit)
    lrp = (error + alarms + (total - hits)) / np.maximum(total + alarms, 1)
    last = np.append(np.diff(p) != 0, True)
    return float(p[np.where(last, lrp, np.inf).argmin()])


def _logit(p: Floats) -> Floats:
    p = np.clip(np.asarray(p, np.float64), 1e-6, 1 - 1e-6)
    return np.log(p) - np.log1p(-p)


def _sigmoid(z: Floats) -> Floats:
    return 1 / (1 + np.exp(-np.clip(z, -50, 50)))
