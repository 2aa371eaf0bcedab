"""Fine-grained contrastive learning (section V, equations 6-8): pixels inside and outside of a face's outline.

Around every face, mask features are cut out with its box and resized to S x S. Inside and outside of the outline, and
away from it, they make two regions: h+ (the face) and h- (what surrounds it).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint
from torchvision.ops import roi_align

from comics.classes import CLASSES
from comics.ranks import gather_rows

Samples = Literal["far", "close", "all"]
REAL, FAKE = range(len(CLASSES))

SMALLEST_NORM = 1e-4
"""Pixels with a shorter feature count as zero. The gradient of a cosine grows as 1 / norm, and behind a ReLU norms may
be anything."""


def crop_masks(masks: Sequence[Tensor], boxes: Sequence[Tensor], size: int) -> Tensor:
    """Masks cut out with their boxes and resized, in the order of the boxes.

    Args:
        masks: B tensors (n, H, W) bool.
        boxes: B tensors (n, 4) xyxy px, one a mask.
        size: S.

    Returns:
        (sum of n, S, S) bool.
    """
    crops = []
    for mask, box in zip(masks, boxes, strict=True):
        index = torch.arange(len(box), device=box.device, dtype=torch.float32)[:, None]
        rois = torch.cat([index, box.float()], dim=1)
        crops.append(roi_align(mask[:, None].float(), rois, size, aligned=True)[:, 0] >= 0.5)
    return torch.cat(crops)


def boundary_distance(masks: Tensor) -> Tensor:
    """Distance of every pixel to the nearest pixel of the other side of the outline, exact and Euclidean.

    A pixel that touches the outline has distance 1; in a mask without an outline every distance is infinite. Computed on
    the masks' device in two separable passes: along rows by scans to both sides, then the lower envelope of parabolas along
    columns by comparing all pairs (S is small).

    Args:
        masks: (n, S, S) bool.

    Returns:
        (n, S, S) float32, in pixels of the crop.
    """
    size = masks.shape[-1]
    steps = torch.arange(size, device=masks.device, dtype=torch.float32)
    far = float(4 * size * size)  # more than any squared distance
    sets = torch.stack([~masks, masks])

    def steps_since(members: Tensor) -> Tensor:
        return steps - torch.where(members, steps, -2.0 * size).cummax(dim=-1).values

    along_rows = torch.minimum(steps_since(sets), steps_since(sets.flip(-1)).flip(-1)).square()
    gaps = (steps[:, None] - steps).square()
    squared = (along_rows[:, :, None] + gaps[:, :, None]).amin(dim=-2)
    squared = torch.where(squared < far, squared, torch.inf)
    return torch.where(masks, squared[0], squared[1]).sqrt()


def split_regions(masks: Tensor, samples: Samples, margin: float) -> tuple[Tensor, Tensor]:
    """The pixels of h+ and of h- (figure 6): those farther than `margin` from the outline, those within it, or all.

    Args:
        masks: (n, S, S) bool.
        samples: ``far`` | ``close`` | ``all``.
        margin: in pixels of the crop; the paper's 2.

    Returns:
        Two (n, S, S) bool: inside and outside.
    """
    if samples == "all":
        return masks, ~masks
    distance = boundary_distance(masks)
    kept = distance > margin if samples == "far" else distance <= margin
    return masks & kept, ~masks & kept


def _mean_units(pixels: Tensor, regions: Sequence[Tensor]) -> Sequence[Tensor]:
    """The mean of the unit vectors of each region's pixels: (n, C, P) and R times (n, P) to R times (n, C).

    The lengths go into the weights of the mean, so that unit vectors are never written down.
    """
    weights = torch.stack(list(regions), dim=2).to(pixels.dtype)
    lengths = torch.linalg.vector_norm(pixels, dim=1).clamp(min=SMALLEST_NORM)
    weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1) / lengths[:, :, None]
    return torch.bmm(pixels, weights).unbind(dim=2)


def region_mean(first: Tensor, second: Tensor) -> Tensor:
    """Equation 7 as a mean over pixel pairs: the dot product of two regions' mean unit vectors, (..., C) to (...).

    Of two regions' sums of unit vectors it is equation 7 to the letter, the sum over all pixel pairs.
    """
    return (first * second).sum(-1)


def log_pixel_pairs(
    features: Tensor, region: Tensor, others: Tensor, other_region: Tensor, temperature: float
) -> Tensor:
    """Logarithm of the sum over pixel pairs of ``exp(cos / tau)``, for every pair of rows: the authors' reading of equation 7.

    One row at a time, recomputed in the backward pass: n x m x P x P cosines would not fit.

    Args:
        features, others: unit vectors (n, C, P) and (m, C, P).
        region, other_region: (n, P) and (m, P) bool, at least one pixel a row.
        temperature: tau.

    Returns:
        (n, m).
    """

    def row(feature: Tensor, inside: Tensor) -> Tensor:
        cosine = torch.einsum("cp,mcq->mpq", feature[:, inside], others) / temperature
        return cosine.masked_fill(~other_region[:, None, :], float("-inf")).flatten(1).logsumexp(dim=1)

    rows = zip(features, region, strict=True)
    return torch.stack([checkpoint(row, *one, use_reentrant=False, preserve_rng_state=False) for one in rows])


def _ratio_loss(positive: Tensor, negative: Tensor, dim: int = 0) -> Tensor:
    """``-log(sum e^positive / (sum e^positive + sum e^negative))`` over `dim`, stable for any size of the summands."""
    own, other = torch.logsumexp(positive, dim), torch.logsumexp(negative, dim)
    return torch.logaddexp(own, other) - own


def fine_losses(
    features: Tensor,
    masks: Tensor,
    labels: Tensor,
    temperature: float,
    samples: Samples = "far",
    margin: float = 2.0,
    similarity: Literal["region_mean", "pair_sum", "pixel_pairs"] = "region_mean",
) -> tuple[Tensor, Tensor]:
    """The intra-face loss of equation 6 and the inter-face loss of equation 8, before their weights.

    Equation 6: the face and the surroundings of a real face are alike, those of a fake face differ. Equation 8: the
    surroundings of real and fake faces are alike, the faces themselves differ; averaged over the real and the
    fake faces h_j. Faces with an empty region are left out; where a batch has not both classes, there is nothing to
    compare and the loss is 0.

    Args:
        features: mask features (n, C, S, S) of n faces.
        masks: (n, S, S) bool.
        labels: (n,) class indices, 0 real and 1 fake.
        temperature: tau.
        samples, margin: which pixels, see `split_regions`.
        similarity: ``region_mean`` and ``pair_sum``, the mean and the sum over pixel pairs, both O(pixels), or ``pixel_pairs``,
            the sum of exponentials over them, O(pixels^2). The fractions are taken in log space: the exponential of a sum
            over 10^5 pairs is no number.

    Returns:
        Two scalars, connected to `features` also where they are 0.
    """
    features = features if features.dtype == torch.float64 else features.float()
    nothing = features.sum() * 0
    inside, outside = split_regions(masks, samples, margin)
    usable = inside.flatten(1).any(1) & outside.flatten(1).any(1)
    usable, labels = gather_rows(torch.stack([usable.long(), labels], dim=1)).unbind(1)  # each rank sees all faces
    usable = usable.bool()
    real = (usable & (labels == REAL)).nonzero()[:, 0]
    fake = (usable & (labels == FAKE)).nonzero()[:, 0]
    if not (len(real) and len(fake)):
        return nothing, nothing
    pixels, inside, outside = features.flatten(2), inside.flatten(1), outside.flatten(1)

    if similarity != "pixel_pairs":
        face, around = _mean_units(pixels, (inside, outside))
        if similarity == "pair_sum":
            face, around = face * inside.sum(1, keepdim=True), around * outside.sum(1, keepdim=True)
        face, around = gather_rows(torch.stack([face, around], dim=1)).unbind(1)
        own, foreign = (region_mean(face[group], around[group]) / temperature for group in (real, fake))
        alike = region_mean(around[real][:, None], around[fake][None]) / temperature
        apart = region_mean(face[real][:, None], face[fake][None]) / temperature
    else:
        pixels = gather_rows(normalize(pixels, dim=1, eps=SMALLEST_NORM))
        inside, outside = gather_rows(torch.stack([inside, outside], dim=1).byte()).bool().unbind(1)
        own, foreign = (
            torch.cat([log_pixel_pairs(pixels[i], inside[i], pixels[i], outside[i], temperature)[0] for i in group])
            for group in (real[:, None], fake[:, None])
        )
        alike = log_pixel_pairs(pixels[real], outside[real], pixels[fake], outside[fake], temperature)
        apart = log_pixel_pairs(pixels[real], inside[real], pixels[fake], inside[fake], temperature)

    intra = _ratio_loss(own, foreign)
    inter = torch.cat([_ratio_loss(alike, apart, dim=1), _ratio_loss(alike, apart, dim=0)]).mean()
    return intra + nothing, inter + nothing
