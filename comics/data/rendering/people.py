"""What is drawn of every rendered person and photograph: light, pose, and the tones of skin, hair and iris."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from comics.data.rendering.shapes import Colour

IRIS = np.array([[0.05, 0.022, 0.01], [0.11, 0.06, 0.025], [0.09, 0.12, 0.05], [0.10, 0.17, 0.26]])


@dataclass(frozen=True)
class Light:
    """One directional light over an ambient one; `direction` points towards the light (x right, y down, z viewer)."""

    direction: Colour
    colour: Colour
    ambient: float


@dataclass(frozen=True)
class Pose:
    """Rotation of a head in radians: yaw to the right of the image, pitch down, roll clockwise."""

    yaw: float
    pitch: float
    roll: float


def triple(values: NDArray[np.float64]) -> Colour:
    """Three numbers as Python's own."""
    return float(values[0]), float(values[1]), float(values[2])


def random_light(rng: np.random.Generator, aside: float, front: float, ambient: tuple[float, float]) -> Light:
    """A light from above, from the side more often than not, warm to cool.

    Args:
        rng: what draws it.
        aside: how far to the side it stands at most.
        front: how far towards the camera at least.
        ambient: bounds of the light from everywhere.
    """
    side, above = rng.uniform(-1.0, 1.0), rng.uniform(0.1, 0.9)
    x, y, z = side * aside, -above, rng.uniform(front, 1.1)
    norm = math.sqrt(x * x + y * y + z * z)
    warmth = rng.uniform(-0.14, 0.14)
    return Light((x / norm, y / norm, z / norm), (1.0 + warmth, 1.0, 1.0 - warmth), rng.uniform(*ambient))


def random_skin(rng: np.random.Generator, tones: NDArray[Any], tone: float) -> NDArray[np.float64]:
    """Skin between the `tones` (6, 3), fair to dark, at `tone` in [0, 5], a little lighter or darker, redder or yellower."""
    lower = min(int(tone), 4)
    skin = tones[lower] + (tone - lower) * (tones[lower + 1] - tones[lower])
    drawn: NDArray[np.float64] = skin * rng.uniform(0.9, 1.1) * (1.0 + rng.uniform(-0.05, 0.05, 3))
    return drawn
