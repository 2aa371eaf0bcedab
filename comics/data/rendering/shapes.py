"""Small pieces that everything rendered is made of: soft steps, bells, noise, mixing, blur.

Large arrays see only ``+ - * / sqrt min max`` and table look-ups, which IEEE 754 fixes to the last bit, and never ``exp``,
``sin``, or a sum whose order is numpy's to choose: that is what makes the dataset the same on every machine.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]  # float32; numpy's stubs lose the width in arithmetic with Python numbers
Colour = tuple[float, float, float]


def cos_sin(angle: float) -> tuple[float, float]:
    """Cosine and sine, rounded: the last bits of libm's differ between systems."""
    return round(math.cos(angle), 9), round(math.sin(angle), 9)


def smoothstep(low: float, high: float, value: Array) -> Array:
    """0 below `low`, 1 above `high`, cubic between (reversed where `low` > `high`)."""
    t = np.clip((value - np.float32(low)) * np.float32(1.0 / (high - low)), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def bump(squared: Array) -> Array:
    """A bell of the squared distance, 1 at 0 and 0 from 1 on: (1 - d^2)^2, cheap and exact to the last bit."""
    t = np.maximum(1.0 - squared, 0.0)
    return t * t


def bell(value: Array, centre: float, width: float) -> Array:
    """`bump` of the distance from `centre` in units of `width`."""
    t = (value - np.float32(centre)) * np.float32(1.0 / width)
    return bump(t * t)


def spot(x: Array, y: Array, centre: tuple[float, float], radii: tuple[float, float]) -> Array:
    """A round bell around `centre` = (x, y), 0 beyond the ellipse of `radii`."""
    u = (x - np.float32(centre[0])) * np.float32(1.0 / radii[0])
    v = (y - np.float32(centre[1])) * np.float32(1.0 / radii[1])
    return bump(u * u + v * v)


def edge(distance: Array, softness: float) -> Array:
    """Coverage of a shape from the signed distance to its edge (positive inside), ramped over `softness`."""
    return np.clip(distance * np.float32(1.0 / softness) + 0.5, 0.0, 1.0)


def planes(colour: Colour | Array) -> Array:
    """A colour as (3, 1, 1): heads and backgrounds are drawn in planes (3, h, w), which numpy goes through faster."""
    return np.asarray(colour, dtype=np.float32)[:, None, None]


def mix(base: Array, colour: Array | Colour, amount: Array) -> Array:
    """Blend `colour`, (3, h, w) or one for all, over `base` (3, h, w) by `amount` (h, w)."""
    return base + ((planes(colour) if isinstance(colour, tuple) else colour) - base) * amount


def pixels_last(values: Array) -> Array:
    """(3, h, w) to (h, w, 3)."""
    return np.ascontiguousarray(np.moveaxis(values, 0, -1))


def band(values: Array, low: float, high: float) -> slice:
    """The rows in which a coordinate (h, w) comes between two values."""
    rows = np.flatnonzero(((values > low) & (values < high)).any(axis=1))
    return slice(rows[0], rows[-1] + 1) if len(rows) else slice(0, 0)


def noise_field(rng: np.random.Generator, shape: tuple[int, int], cell: tuple[float, float]) -> Array:
    """Smooth noise, about standard normal, whose cells are `cell` = (height, width) pixels."""
    height, width = shape
    rows = max(2, math.ceil(height / cell[0]) + 1)
    columns = max(2, math.ceil(width / cell[1]) + 1)
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def noise_line(knots: Array, position: Array) -> Array:
    """Linear interpolation between 257 `knots`, one a unit of `position`; repeats after 256 (the last equals the first)."""
    whole = np.floor(position)
    part = position - whole
    index = whole.astype(np.int32) & 255
    low = knots[index]
    return low + (knots[index + 1] - low) * part


def halve(values: Array) -> Array:
    """Average 2x2 blocks of (..., h, w)."""
    odd, even = values[..., 1::2, :], values[..., 0::2, :]
    return (even[..., 0::2] + odd[..., 0::2] + even[..., 1::2] + odd[..., 1::2]) * np.float32(0.25)


def blur(values: Array, passes: int) -> Array:
    """Binomial blur of (h, w) or (h, w, c): each pass adds a variance of 1/2 px^2; borders repeat."""
    for _ in range(passes):
        for axis in (0, 1):
            pad = [(1, 1) if at == axis else (0, 0) for at in range(values.ndim)]
            wide = np.pad(values, pad, mode="edge")
            before, here, after = (
                wide[
                    tuple(slice(k, k + values.shape[axis]) if at == axis else slice(None) for at in range(values.ndim))
                ]
                for k in range(3)
            )
            values = (before + after) * np.float32(0.25) + here * np.float32(0.5)
    return values
