"""Geometric training transforms: one affine map an image, applied to its pixels and to the outlines of its faces."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from comics.params import TrainingParams

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Affine:
    """A map of pixel coordinates (x, y) and the size of its result.

    Attributes:
        matrix: (2, 3), from input to output pixels; pixel centres are at half integers.
        size: (height, width) of the output.
    """

    matrix: Matrix
    size: tuple[int, int]

    @property
    def is_identity(self) -> bool:
        return bool(np.array_equal(self.matrix, np.eye(2, 3)))

    def points(self, points: NDArray) -> NDArray[np.float64]:
        """Map (N, 2) points."""
        return points @ self.matrix[:, :2].T + self.matrix[:, 2]

    def image(self, picture: Image.Image) -> Image.Image:
        """Warp `picture`; what was outside of it is black.

        Test images are shrunk with antialiasing and never turned. So a turn shrinks in the same way first, and then takes
        cubic interpolation, which keeps the high frequencies that forgeries are told by (docs/fidelity.md).
        """
        height, width = self.size
        linear = self.matrix[:, :2]
        if self.is_identity and picture.size == (width, height):
            return picture
        if linear[0, 1] == linear[1, 0] == 0 and linear[0, 0] > 0 and linear[1, 1] > 0:
            # scale and crop: PIL's resize averages when it shrinks, its warp does not
            x, y = -self.matrix[:, 2] / (linear[0, 0], linear[1, 1])
            box = (x, y, x + width / linear[0, 0], y + height / linear[1, 1])
            if box[0] >= 0 and box[1] >= 0 and box[2] <= picture.width + 1e-6 and box[3] <= picture.height + 1e-6:
                box = (box[0], box[1], min(box[2], picture.width), min(box[3], picture.height))
                return picture.resize((width, height), Image.Resampling.BILINEAR, box=box)
        matrix, scale = self.matrix, math.sqrt(abs(np.linalg.det(linear)))
        if scale < 1:
            small = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
            matrix = matrix * [[picture.width / small[0], picture.height / small[1], 1]]
            picture = picture.resize(small, Image.Resampling.BILINEAR)
        inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
        return picture.transform(
            (width, height), Image.Transform.AFFINE, inverse.ravel().tolist(), Image.Resampling.BICUBIC
        )


def fit(height: int, width: int, longest: int) -> Affine:
    """Shrink so that the longest side is at most `longest` px; smaller images stay as they are."""
    scale = min(1.0, longest / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return Affine(np.array([[size[1] / width, 0, 0], [0, size[0] / height, 0]], float), size)


def random_affine(rng: np.random.Generator, height: int, width: int, training: TrainingParams) -> Affine:
    """The training transform: shrink to the longest side, rotate about the centre, crop, flip.

    Every number is drawn whatever the settings, so that switching one off does not change the others.
    """
    angle = math.radians(rng.uniform(-1, 1) * training.rotation)
    share_y, share_x = 1 - (1 - training.crop) * rng.random(2)
    place_y, place_x = rng.random(2)
    flip = rng.random() < training.flip

    base = fit(height, width, training.image_size)
    full = np.vstack([base.matrix, [0, 0, 1]])
    h, w = base.size
    if angle:
        cos, sin = math.cos(angle), math.sin(angle)
        centre = np.array([w / 2, h / 2])
        turn = np.array([[cos, -sin], [sin, cos]])
        rotation = np.eye(3)
        rotation[:2, :2] = turn
        rotation[:2, 2] = centre - turn @ centre
        full = rotation @ full
    size = (max(1, round(h * share_y)), max(1, round(w * share_x)))
    top, left = round((h - size[0]) * place_y), round((w - size[1]) * place_x)
    full = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]]) @ full
    if flip:
        full = np.array([[-1, 0, size[1]], [0, 1, 0], [0, 0, 1]]) @ full
    return Affine(full[:2], size)
