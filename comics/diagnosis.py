"""Do the parts of the objective help, and how? What each term asks of a trained run's extractor, and what its features tell.

Of training batches: the norm of each term's gradient to the extractor, beside the detector's, and the cosine between them: a
term that pulls against detection has a negative one. Of images that training did not see: how far real and forged proposals are
apart, level by level, and faces and their surroundings, pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.data import DataLoader

from comics.classes import CLASSES
from comics.contrast.coarse import FINEST, gather, label_proposals, locate
from comics.contrast.fine import FAKE, REAL, crop_masks, split_regions
from comics.data.loading.batches import Batch
from comics.data.loading.loaders import evaluation_loader, training_loader
from comics.gradients import grouped, term_gradients
from comics.model import Comics
from comics.params import ResolvedRun
from comics.progress import Progress, silent
from comics.training.checkpoint import load_weights
from comics.training.hardware import device

FACES, SURROUNDINGS = "pixels of faces", "pixels around faces"

LEAST = 10
"""Features of each class that a separation is told of at least."""


@dataclass(frozen=True)
class Pull:
    """The gradient that one term gives the extractor, one value a batch.

    Attributes:
        term: a contrastive term as weighted, ``coarse P3`` ... for one level of the coarse one before all weights,
            ``detection`` for the detector's loss.
        norm: of the gradient.
        detection: its cosine with that of the detector's loss.
        classes: its cosine with that of the detector's class loss; empty for a detector that has none of that name.
    """

    term: str
    norm: tuple[float, ...]
    detection: tuple[float, ...]
    classes: tuple[float, ...]


@dataclass(frozen=True)
class Separation:
    """How well features tell real from forged.

    Attributes:
        features: what they are of.
        real, fake: their numbers.
        within: mean cosine of two features of one class, the mean over the classes.
        between: mean cosine of a real and a forged one.
        auc: area under the ROC curve of the features' projection on the difference of the class means; each half of the batches
            is judged by the means of the other. 1/2 is chance. None with fewer than `LEAST` of a class in a half.
    """

    features: str
    real: int
    fake: int
    within: float | None
    between: float | None
    auc: float | None


@dataclass(frozen=True)
class FaceContrast:
    """How alike a face and its surroundings are (equation 6 wants it of real faces alone).

    Attributes:
        real, fake: mean similarity of equation 7, as a mean over pixel pairs.
        auc: probability that a real face is more alike to its surroundings than a forged one.
    """

    real: float | None
    fake: float | None
    auc: float | None


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found."""

    pulls: tuple[Pull, ...]
    separations: tuple[Separation, ...]
    faces: FaceContrast

    def as_json(self) -> dict[str, Any]:
        return {
            "pulls": [asdict(one) for one in self.pulls],
            "separations": [asdict(one) for one in self.separations],
            "faces": asdict(self.faces),
        }


# -------------------------------------------------------------------------------------------------------- gradients


def _cosine(one: Tensor, other: Tensor) -> float:
    one, other = one.double(), other.double()  # of ten million summands
    return float(one @ other / (one.norm() * other.norm()).clamp(min=1e-30))


@contextmanager
def _one_level(model: Comics, level: int) -> Iterator[None]:
    """The coarse loss of one level alone, before its weights."""
    assert model.coarse is not None
    weights, objective = model.coarse.weights, model.objective
    model.coarse.weights = [float(index == level) for index in range(len(weights))]
    coarse = objective.coarse.model_copy(update={"weight": 1.0})
    model.objective = objective.model_copy(update={"coarse": coarse, "ramp": (0.0, 0.0)})
    try:
        yield
    finally:
        model.coarse.weights, model.objective = weights, objective


def _terms(model: Comics, batch: Batch) -> dict[str, Tensor]:
    """Gradients (P,) of the terms of one batch, and of the coarse loss level by level."""
    losses = model.losses(batch).terms
    wanted = {**grouped(losses), **({"class": losses["class"]} if "class" in losses else {})}
    found = dict(term_gradients(wanted, model.detector.extractor))
    if model.coarse is not None and len(model.coarse.weights) > 1:
        for level in range(len(model.coarse.weights)):
            with _one_level(model, level):
                alone = {f"coarse P{FINEST + level}": model.losses(batch).terms["loss_coarse"]}
            found.update(term_gradients(alone, model.detector.extractor))
    return found


def pulls(model: Comics, batches: Sequence[Batch]) -> tuple[Pull, ...]:
    """The gradients of each term, batch by batch, of a model in training mode; queues and prototypes stay as they are."""
    rows: dict[str, list[tuple[float, float, float | None]]] = {}
    for batch in batches:
        gradients = _terms(model, batch)
        detection, classes = gradients["detection"], gradients.pop("class", None)
        for name, gradient in gradients.items():
            rows.setdefault(name.removeprefix("loss_"), []).append(
                (
                    float(gradient.norm()),
                    _cosine(gradient, detection),
                    None if classes is None else _cosine(gradient, classes),
                )
            )
    return tuple(
        Pull(
            name,
            tuple(norm for norm, _, _ in values),
            tuple(cosine for _, cosine, _ in values),
            tuple(cosine for _, _, cosine in values if cosine is not None),
        )
        for name, values in rows.items()
    )


# ------------------------------------------------------------------------------------------------------- separation


def auc(positive: Tensor, negative: Tensor) -> float:
    """Probability that a value of `positive` (n,) is larger than one of `negative` (m,); ties count half."""
    values = torch.cat([positive, negative]).double()
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0) - (counts - 1) / 2)[inverse]  # the mean rank of ties
    own = ranks[: len(positive)].sum() - len(positive) * (len(positive) + 1) / 2
    return float(own / (len(positive) * len(negative)))


def _mean_cosine(features: Tensor) -> float | None:
    """Over all pairs of two different rows (n, C) of unit length."""
    count = len(features)
    return float((features.sum(0).square().sum() - count) / (count * (count - 1))) if count > 1 else None


def separation(name: str, halves: Sequence[Mapping[int, Tensor]]) -> Separation:
    """Of features (n, C) of each class, in two halves that share no image."""
    units = [{label: normalize(half[label].double(), dim=1) for label in (REAL, FAKE)} for half in halves]
    real, fake = (torch.cat([half[label] for half in units]) for label in (REAL, FAKE))
    within = [one for one in (_mean_cosine(real), _mean_cosine(fake)) if one is not None]
    enough = all(len(half[label]) >= LEAST for half in units for label in (REAL, FAKE))
    areas = []
    for own, other in (units, units[::-1]) if enough else ():
        direction = other[FAKE].mean(0) - other[REAL].mean(0)
        areas.append(auc(own[FAKE] @ direction, own[REAL] @ direction))
    return Separation(
        name,
        len(real),
        len(fake),
        sum(within) / len(within) if within else None,
        float(real.mean(0) @ fake.mean(0)) if len(real) and len(fake) else None,
        sum(areas) / 2 if areas else None,
    )


def contrast_in_faces(face: Mapping[int, Tensor], around: Mapping[int, Tensor]) -> FaceContrast:
    """Of mean unit vectors (n, C) of faces and of their surroundings, of each class."""
    real, fake = ((face[label] * around[label]).sum(1) for label in (REAL, FAKE))
    means = [float(part.mean()) if len(part) else None for part in (real, fake)]
    return FaceContrast(means[0], means[1], auc(real, fake) if min(len(real), len(fake)) >= LEAST else None)


@torch.no_grad()
def separations(model: Comics, batches: Sequence[Batch]) -> tuple[tuple[Separation, ...], FaceContrast]:
    """Of proposals on each level, of the mean unit vectors of faces and of their surroundings; a model in evaluation mode."""
    threshold, fine = model.objective.coarse.iou_threshold, model.objective.fine
    halves: list[dict[str, dict[int, list[Tensor]]]] = [{}, {}]

    def keep(half: int, name: str, label: int, features: Tensor) -> None:
        halves[half].setdefault(name, {one: [] for one in range(len(CLASSES))})[label].append(features.float().cpu())

    for number, batch in enumerate(batches):
        faces = [target["boxes"] for target in batch.targets]
        labels = [target["labels"] for target in batch.targets]
        maps = model.features(batch.images, batch.sizes)
        outputs = model.detector.look(batch.images, maps)
        for level, (features, found) in enumerate(zip(maps, model.detector.proposals(outputs), strict=True)):
            places = locate(label_proposals(found.boxes, faces, labels, threshold), found.locations)
            for label, part in enumerate(gather(features, places)):
                keep(number % 2, f"proposals P{FINEST + level}", label, part)
        masks = crop_masks([target["masks"] for target in batch.targets], faces, fine.size)
        crops = normalize(model.detector.roi_mask_features(outputs, faces, fine.size).float(), dim=1).flatten(2)
        regions = [region.flatten(1).float() for region in split_regions(masks, "far", fine.margin)]
        usable = torch.stack([region.any(1) for region in regions]).all(0)
        means = [torch.einsum("ncp,np->nc", crops, region) / region.sum(1, keepdim=True) for region in regions]
        for label in range(len(CLASSES)):
            chosen = usable & (torch.cat(labels) == label)
            keep(number % 2, FACES, label, means[0][chosen])
            keep(number % 2, SURROUNDINGS, label, means[1][chosen])
    joined = [
        {name: {label: torch.cat(parts) for label, parts in of.items()} for name, of in half.items()} for half in halves
    ]
    shared = [name for name in joined[0] if name in joined[1]]
    face, around = (
        {label: torch.cat([half[name][label] for half in joined if name in half]) for label in range(len(CLASSES))}
        for name in (FACES, SURROUNDINGS)
    )
    parts = tuple(separation(name, [half[name] for half in joined]) for name in shared)
    return parts, contrast_in_faces(face, around)


def diagnose(
    run: ResolvedRun, root: Path = Path(), batches: int = 6, split: str = "val", progress: Progress = silent
) -> Diagnosis:
    """Of a trained run: `pulls` on training batches, `separations` on `split`.

    Args:
        run: whose ``model.pt`` is there.
        root: folder that holds ``results/`` and ``data/``.
        batches: of training images; four times as many of `split`.
        split: that training does not read.

    Raises:
        UserError: no checkpoint, or no dataset.
    """
    on = device()
    model = Comics(run.from_checkpoint())
    model.load_state_dict(load_weights(root / run.folder / "model.pt", run))
    model = model.to(on, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.done = 1.0
    progress("Gradients", 0, 2)
    loader = training_loader(run, root)
    loader.order.set_epoch(run.training.epochs)  # an epoch that training did not come to
    pulled = pulls(model.train(), _first(loader, batches, on))
    progress("Gradients", 1, 2)
    parts, faces = separations(model.eval(), _first(evaluation_loader(run, split, root), 4 * batches, on))
    progress("Features", 2, 2)
    return Diagnosis(pulled, parts, faces)


def _first(loader: DataLoader[Batch], count: int, on: torch.device) -> list[Batch]:
    return [batch.to(on) for batch in islice(loader, count)]
