"""Severities that mean something: how strongly an operation is applied so that what is left of the image is as stated.

Strengths of different operations cannot be compared: the strongest hue shift is invisible beside the strongest noise. A severity
is therefore a peak signal-to-noise ratio, 34 dB for the mildest to 18 dB for the strongest of five (`PSNR`), and every operation is
calibrated to it on images of the dataset: `calibrate` searches the amount whose mean PSNR over them comes nearest. An
amount in [0, 1] is a strength; below 0 the image is blended with the mildest, above 1 the strongest is applied again and
again. Some operations never get so far (JPEG does not change what it has compressed); what was reached, as PSNR and as
SSIM (Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004), stands beside every severity.

Operations that move pixels (`WARPS`) have no meaningful PSNR: their severities are equal steps of strength.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from comics.data.perturb.operations import FAMILIES, OPERATIONS, WARPS, Pixels, generator_for
from comics.data.perturb.social import SOCIAL

PSNR = (34.0, 30.0, 26.0, 22.0, 18.0)
"""dB that the severities 1 to 5 mean."""
FAMILY_OF: dict[str, str] = {
    **{name: family for family, names in FAMILIES.items() for name in names},
    **dict.fromkeys(WARPS, "geometry"),
    **dict.fromkeys(SOCIAL, "social"),
}
"""Family of every operation."""
MOST = 4.0
"""Largest amount: the strongest, four times over."""
_INVOLUTIONS = frozenset({"invert"})
"""Operations that undo themselves when they are applied again."""


@dataclass(frozen=True)
class Severity:
    """How an operation is applied at a severity, and what that leaves of the images it was calibrated on.

    Attributes:
        amount: below 0 blended with the mildest, in [0, 1] the strength, above 1 applied again.
        psnr: mean over the images, in dB; None where pixels move.
        ssim: mean over the images; None where pixels move.
    """

    amount: float
    psnr: float | None = None
    ssim: float | None = None


def changed(image: Pixels, name: str, amount: float, generator: np.random.Generator) -> Pixels:
    """`image` (H, W, 3) with an operation that moves no pixels, by `amount` in [-1, `MOST`]."""
    operation = OPERATIONS.get(name) or SOCIAL[name]
    if amount < 0:
        mildest = operation(image, 0.0, generator).astype(np.float32)
        return np.rint(image + (1 + amount) * (mildest - image)).astype(np.uint8)
    for _ in range(max(1, int(np.ceil(amount)))):
        image = operation(image, min(amount, 1.0), generator)
        amount -= 1
    return image


def psnr(one: Pixels, other: Pixels) -> float:
    """Peak signal-to-noise ratio in dB; at most 60, which is that of equal images here."""
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return min(60.0, 10 * float(np.log10(255**2 / error))) if error > 0 else 60.0


def ssim(one: Pixels, other: Pixels) -> float:
    """Mean structural similarity of windows of 7 x 7 px and of the channels, with sample covariances."""
    size, pixels = 7, 49
    a, b = one.astype(np.float64), other.astype(np.float64)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(ndimage.uniform_filter(values, (size, size, 1)))

    ma, mb = mean(a), mean(b)
    scale = pixels / (pixels - 1)
    va, vb, covariance = (
        scale * (mean(x * y) - mx * my) for x, y, mx, my in ((a, a, ma, ma), (b, b, mb, mb), (a, b, ma, mb))
    )
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = ((2 * ma * mb + c1) * (2 * covariance + c2)) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    edge = size // 2
    whole = min(one.shape[:2]) > 2 * edge
    return float((values[edge:-edge, edge:-edge] if whole else values).mean())


def calibrate(
    images: Sequence[Pixels], name: str, targets: Sequence[float] = PSNR, seed: int = 0
) -> tuple[Severity, ...]:
    """The amount of operation `name` for each of `targets` (dB, descending), found by halving.

    Args:
        images: (H, W, 3) each; their mean is what is brought to the target.
        name: of an operation, a warp or a social one.
        targets: of the severities.
        seed: of the operation's chance, which depends on the image's number as well.
    """
    if name in WARPS:
        return tuple(Severity(float(strength)) for strength in np.linspace(0, 1, len(targets)))

    def applied(amount: float) -> list[Pixels]:
        return [changed(one, name, amount, _chance(seed, name, number)) for number, one in enumerate(images)]

    def reached(amount: float) -> float:
        return float(np.mean([psnr(one, other) for one, other in zip(images, applied(amount), strict=True)]))

    severities = []
    for target in targets:
        low, high = -1.0, 1.0 if name in _INVOLUTIONS else MOST
        tried = {amount: reached(amount) for amount in (low, high)}
        for _ in range(9):
            middle = (low + high) / 2
            tried[middle] = reached(middle)
            low, high = (middle, high) if tried[middle] > target else (low, middle)
        # Chance and steps make some operations waver: the nearest of all amounts tried is kept.
        best = min(tried, key=lambda amount: abs(tried[amount] - target))
        final = applied(best)
        severities.append(
            Severity(
                amount=best,
                psnr=float(np.mean([psnr(one, other) for one, other in zip(images, final, strict=True)])),
                ssim=float(np.mean([ssim(one, other) for one, other in zip(images, final, strict=True)])),
            )
        )
    return tuple(severities)


def _chance(seed: int, name: str, number: int) -> np.random.Generator:
    return generator_for(seed, f"{name}:{number}")


def as_json(severities: Mapping[str, Sequence[Severity]]) -> dict[str, list[dict[str, Any]]]:
    """Operation -> severities, for a file."""
    return {name: [asdict(one) for one in of_operation] for name, of_operation in severities.items()}


def from_json(content: Mapping[str, Any]) -> dict[str, tuple[Severity, ...]]:
    """What `as_json` made."""
    return {name: tuple(Severity(**one) for one in of_operation) for name, of_operation in content.items()}
