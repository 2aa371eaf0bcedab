"""What becomes of a picture that is passed on: resized, compressed, photographed from the screen, and again.

No service says exactly what it does; these chains hold what measurements of services agree on (Sun et al., "Robust image
forgery detection over online social network shared images", CVPR 2022): the picture is shrunk to a longest side, compressed as
JPEG of a quality of 70 to 90 with halved colour resolution, and shown enlarged; whoever passes it on does that anew. Every
function is an operation as in `comics.data.perturb.operations`, and keeps the image's size.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance

from comics.data.perturb.operations import Operation, Pixels

SOCIAL: dict[str, Operation] = {}
"""Operations by name."""


def _social(function: Operation) -> Operation:
    SOCIAL[function.__name__] = function
    return function


def _compressed(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=2)  # 4:2:0
    return Image.open(buffer).convert("RGB")


def _at_scale(image: Image.Image, scale: float, change: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """`change` the image at another size, and bring it back."""
    small = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return change(image.resize(small, Image.Resampling.LANCZOS)).resize(image.size, Image.Resampling.BICUBIC)


@_social
def upload(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Uploaded once: shrunk to 0.9 ... 0.4 of its size, JPEG of quality 90 ... 50."""
    quality = round(90 - 40 * strength)
    return np.array(_at_scale(Image.fromarray(image), 0.9 - 0.5 * strength, lambda small: _compressed(small, quality)))


@_social
def passed_on(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Passed on two to five times, each time at another size near 0.8 and another quality: 85 ... 60, give or take five."""
    picture = Image.fromarray(image)
    for _ in range(2 + round(3 * strength)):
        quality = int(np.clip(85 - 25 * strength + generator.uniform(-5, 5), 5, 95))
        scale = float(generator.uniform(0.7, 0.9))
        picture = _at_scale(picture, scale, lambda small, quality=quality: _compressed(small, quality))  # type: ignore[misc]
    return np.array(picture)


@_social
def screenshot(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Shown enlarged or shrunk by up to 1.1 ... 1.7, contrast and brightness of another screen, caught, and sent as JPEG of
    quality 92 ... 60."""
    scale = float(generator.uniform(1.05, 1.1 + 0.6 * strength))
    scale = scale if generator.random() < 0.5 else 1 / scale
    shift = 0.03 + 0.12 * strength

    def shown(picture: Image.Image) -> Image.Image:
        picture = ImageEnhance.Contrast(picture).enhance(1 + float(generator.uniform(-shift, shift)))
        picture = ImageEnhance.Brightness(picture).enhance(1 + float(generator.uniform(-shift, shift)))
        return _compressed(picture, round(92 - 32 * strength))

    return np.array(_at_scale(Image.fromarray(image), scale, shown))
