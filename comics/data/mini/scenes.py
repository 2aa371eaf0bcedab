"""Scenes of the embedded dataset: a photographed background with heads, a camera, and forgeries of some of the faces.

A forgery is a swap as a tool would make it, in the finished photograph: another rendering, with its own light, resolution,
noise and compression, is warped onto the target's eyes and mouth, its colours are transferred, and its inner face is blended in
with a feathered edge. What remains to be found is what remains of real swaps: resampling, another noise level, a boundary, a
light that does not fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from comics.data.mini.faces import FACE_UNITS, Head, Layer, random_head, random_pose, render_head
from comics.data.rendering.camera import Camera, Pixels, blurred, expose, grain, random_camera, to_picture, to_pixels
from comics.data.rendering.people import Light, Pose, random_light
from comics.data.rendering.shapes import Array, noise_field, smoothstep

MIN_VISIBLE = 0.3
"""A face is annotated when at least this share of it is seen."""


@dataclass(frozen=True)
class Face:
    """One annotated face: coverage (H, W) in [0, 1] of what is seen of it, and whether it is forged."""

    coverage: Array
    fake: bool


def _light(rng: np.random.Generator) -> Light:
    return random_light(rng, aside=1.1, front=0.45, ambient=(0.22, 0.55))


def _camera(rng: np.random.Generator) -> Camera:
    return random_camera(rng, noise=(0.4, 1.0), exposure=(0.75, 1.25), blur=0.45, quality=82)


def photograph(linear: Array, camera: Camera, rng: np.random.Generator) -> Array:
    """What the camera makes of linear light (H, W, 3): sRGB in [0, 1], with noise, not yet compressed."""
    picture = expose(linear, camera)
    return np.clip(picture + grain(rng, camera, picture), 0, 1)


def _background(rng: np.random.Generator, height: int, width: int, light: Light) -> Array:
    """A room, a street or a meadow out of focus: a wall of light, smooth texture, and things on it."""
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    columns = np.linspace(0, 1, width, dtype=np.float32)[None, :, None]
    top, bottom = (rng.uniform(0.04, 0.6, 3).astype(np.float32) for _ in range(2))
    grey = np.float32(rng.uniform(0.55, 0.95))
    top, bottom = (grey * colour.mean() + (1 - grey) * colour for colour in (top, bottom))
    scene = top + (bottom - top) * rows
    scene = scene * (1 + np.float32(0.35 * light.direction[0]) * (columns - np.float32(0.5)))
    for cell, strength in ((0.35, 0.22), (0.1, 0.12), (0.02, 0.05)):
        texture = noise_field(rng, (height, width), (cell * height, cell * height))
        scene = scene * np.clip(1 + np.float32(strength * rng.uniform(0.3, 1)) * texture, 0.2, 2)[..., None]
    for _ in range(int(rng.integers(4, 14))):
        scene = _thing(rng, scene, light)
    return np.clip(scene, 0.003, 1)


def _thing(rng: np.random.Generator, scene: Array, light: Light) -> Array:
    """Blend one object into the background: a window, a pole, a lamp, foliage, somebody's jacket."""
    height, width = scene.shape[:2]
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    w, h = rng.uniform(0.03, 0.3) * width, rng.uniform(0.05, 0.6) * height
    soft = np.float32(rng.uniform(0.02, 0.3))
    columns = (np.arange(width, dtype=np.float32)[None, :] - np.float32(x)) / np.float32(w)
    rows = (np.arange(height, dtype=np.float32)[:, None] - np.float32(y)) / np.float32(h)
    square = rng.random() < 0.55
    distance = np.maximum(np.abs(columns), np.abs(rows)) if square else np.sqrt(columns * columns + rows * rows)
    cover = smoothstep(1 + float(soft), 1 - float(soft), distance)
    colour = rng.uniform(0.02, 0.75, 3).astype(np.float32)
    grey = np.float32(rng.uniform(0.3, 0.95))
    colour = (colour + (colour.mean() - colour) * grey) * np.float32(rng.uniform(0.5, 1.1))
    shade = 1 + np.float32(0.4) * (np.float32(light.direction[0]) * columns + np.float32(light.direction[1]) * rows)
    shade = np.clip(shade, 0.35, 1.6)[..., None]
    if rng.random() < 0.4:
        period = rng.uniform(0.1, 0.5)
        stripes = ((columns if rng.random() < 0.5 else rows) * np.float32(1 / period)) % 1 < 0.5
        shade = shade * np.where(stripes, 1.0, 0.7).astype(np.float32)[..., None]
    return scene + (colour * shade - scene) * (cover * np.float32(rng.uniform(0.6, 1)))[..., None]


def _places(rng: np.random.Generator, height: int, width: int) -> list[tuple[float, float, float]]:
    """Centres and face heights (px) of one to six heads, the farthest first; heads overlap a little at most."""
    count = int(rng.choice(np.arange(1, 7), p=[0.26, 0.28, 0.20, 0.13, 0.08, 0.05]))
    largest = (0.80, 0.62, 0.50, 0.42, 0.36, 0.32)[count - 1] * height
    places: list[tuple[float, float, float]] = []
    for _ in range(count * 30):
        if len(places) == count:
            break
        face = float(np.clip(rng.uniform(0.5, 1.0) * largest, 0.16 * height, None))
        x = rng.uniform(0.45 * face, width - 0.45 * face)
        y = rng.uniform(0.6 * face, max(0.62 * face, height - 0.6 * face))
        near = [
            ((x - other_x) ** 2 + (0.8 * (y - other_y)) ** 2) ** 0.5 < 0.52 * (face + other)
            for other_x, other_y, other in places
        ]
        if not any(near):
            places.append((x, y, face))
    return sorted(places, key=lambda place: place[2])


def _paste(scene: Array, layer: Layer) -> None:
    """Composite a layer in place."""
    x, y = layer.origin
    height, width = layer.alpha.shape
    window = scene[y : y + height, x : x + width]
    window += (layer.colour - window) * layer.alpha[..., None]


def _bar(rng: np.random.Generator, scene: Array, coverages: list[Array], x: float, y: float, face: float) -> None:
    """Something in the foreground across a part of a face: a hand, a pole, a phone."""
    height, width = scene.shape[:2]
    angle = rng.uniform(-0.6, 0.6)
    rows = np.arange(height, dtype=np.float32)[:, None] - np.float32(y + rng.uniform(-0.1, 0.35) * face)
    columns = np.arange(width, dtype=np.float32)[None, :] - np.float32(x + rng.uniform(-0.4, 0.4) * face)
    along = rows + np.float32(angle) * columns
    across = columns - np.float32(angle) * rows
    thick, length = rng.uniform(0.06, 0.14) * face, rng.uniform(0.3, 0.8) * face
    if rng.random() < 0.5:
        along, across = across, along
    cover = smoothstep(1.15, 0.85, np.abs(across) / np.float32(thick)) * smoothstep(
        1.1, 0.9, np.abs(along) / np.float32(length)
    )
    colour = rng.uniform(0.03, 0.6, 3).astype(np.float32)
    shade = np.clip(1 - 0.5 * across / np.float32(thick), 0.4, 1.4)[..., None]
    scene += (colour * shade - scene) * cover[..., None]
    for coverage in coverages:
        coverage *= 1 - cover


@dataclass(frozen=True)
class _Person:
    head: Head
    pose: Pose
    layer: Layer


def render_scene(
    rng: np.random.Generator, height: int, width: int, fake_share: float
) -> tuple[Pixels, list[Face], int]:
    """One photograph.

    Args:
        rng: decides everything.
        height, width: in px.
        fake_share: chance of each face to be forged.

    Returns:
        The pixels (H, W, 3) before compression, the annotated faces, and the JPEG quality of the camera.
    """
    light, camera = _light(rng), _camera(rng)
    scene = _background(rng, height, width, light)
    people: list[_Person] = []
    coverages: list[Array] = []
    for x, y, face in _places(rng, height, width):
        head, pose = random_head(rng), random_pose(rng)
        layer = render_head(head, pose, light, (x, y), face, (height, width))
        left, top = layer.origin
        part = (slice(top, top + layer.alpha.shape[0]), slice(left, left + layer.alpha.shape[1]))
        for coverage in coverages:
            coverage[part] *= 1 - layer.alpha
        _paste(scene, layer)
        coverage = np.zeros((height, width), np.float32)
        coverage[part] = layer.face * layer.alpha
        people.append(_Person(head, pose, layer))
        coverages.append(coverage)
        if rng.random() < 0.12:
            _bar(rng, scene, coverages, x, y, face)
    picture = photograph(scene, camera, rng)

    faces = []
    for person, coverage in zip(people, coverages, strict=True):
        whole = float((person.layer.face * person.layer.alpha).sum())
        seen = float(coverage.sum()) / max(whole, 1.0)
        fake = bool(rng.random() < fake_share)
        if seen < MIN_VISIBLE or float(coverage.sum()) < 60:
            continue
        if fake:
            picture = _swap(rng, picture, coverage, person, light)
        faces.append(Face(coverage, fake))
    return to_pixels(picture), faces, camera.quality


def _similarity(source: NDArray, target: NDArray) -> NDArray[np.float64]:
    """The (2, 3) similarity that maps source points to target points best (Umeyama, PAMI 1991), for (N, 2) points."""
    a, b = source - source.mean(0), target - target.mean(0)
    norm = (a * a).sum()
    cos, sin = (a * b).sum() / norm, (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / norm
    linear = np.array([[cos, -sin], [sin, cos]])
    return np.hstack([linear, (target.mean(0) - linear @ source.mean(0))[:, None]])


def _swap(rng: np.random.Generator, picture: Array, coverage: Array, person: _Person, light: Light) -> Array:
    """Swap the inner face of a person in the finished photograph by that of another rendering."""
    height, width = coverage.shape
    target = person.layer.landmarks
    scale = person.layer.scale
    donor_size = float(
        np.clip(scale * FACE_UNITS * rng.uniform(0.24, 0.38), 10, 34)
    )  # generators work at a resolution of their own
    side = int(donor_size * 2.2)
    donor_light = light if rng.random() < 0.1 else _light(rng)
    pose = Pose(
        person.pose.yaw + rng.normal(0, 0.06),
        person.pose.pitch + rng.normal(0, 0.04),
        person.pose.roll + rng.normal(0, 0.03),
    )
    tone = float(rng.random()) if rng.random() < 0.85 else None
    donor = random_head(rng, tone)
    layer = render_head(donor, pose, donor_light, (side / 2, side / 2), donor_size, (side, side))
    patch = np.full((side, side, 3), 0.2, np.float32)
    _paste(patch, layer)
    patch = photograph(patch, _camera(rng), rng)
    if rng.random() < 0.8:  # generated faces are smoother than photographs
        patch = blurred(patch, rng.uniform(0.4, 0.8))

    inverse = _similarity(target, layer.landmarks)
    warped = _warp(patch, inverse, (height, width))
    inner = _inner_face(target, coverage.shape, rng)
    inside = inner * coverage > 0.5
    if int(inside.sum()) < 12:
        return picture
    # Reinhard et al., "Color Transfer between Images", 2001, on RGB; tools stop short of a perfect match
    strength = np.float32(rng.uniform(0.0, 0.12))
    mean_t, mean_d = picture[inside].mean(0), warped[inside].mean(0)
    std_t, std_d = picture[inside].std(0) + 1e-3, warped[inside].std(0) + 1e-3
    matched = (warped - mean_d) * np.clip(std_t / std_d, 0.6, 1.6) + mean_t
    warped = warped + (matched - warped) * strength
    blend = (inner * coverage)[..., None]
    return np.clip(picture + (warped - picture) * blend, 0, 1).astype(np.float32)


def _warp(patch: Array, inverse: NDArray[np.float64], size: tuple[int, int]) -> Array:
    """Sample `patch` bilinearly at ``inverse @ (x, y, 1)`` of every pixel of an image of `size`."""
    image = Image.fromarray(to_pixels(patch))
    data = tuple(round(float(value), 9) for value in inverse.ravel())
    warped = image.transform((size[1], size[0]), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    return to_picture(warped)


def _inner_face(landmarks: NDArray, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """A feathered ellipse around eyes and mouth: brows to chin, cheek to cheek."""
    eyes = landmarks[:2].mean(0)
    down = landmarks[2] - eyes
    length = float(np.hypot(*down)) + 1e-6
    across = np.array([down[1], -down[0]]) / length
    gap = abs(float((landmarks[1] - landmarks[0]) @ across))
    centre = eyes + 0.52 * down
    half_height, half_width = 1.12 * length, max(1.05 * gap, 0.62 * length) * rng.uniform(0.95, 1.1)
    columns = np.arange(shape[1], dtype=np.float32)[None, :] + np.float32(0.5 - centre[0])
    rows = np.arange(shape[0], dtype=np.float32)[:, None] + np.float32(0.5 - centre[1])
    v = (columns * np.float32(down[0]) + rows * np.float32(down[1])) / np.float32(length * half_height)
    u = (columns * np.float32(across[0]) + rows * np.float32(across[1])) / np.float32(half_width)
    feather = rng.uniform(0.04, 0.13)
    return smoothstep(1.0 + feather, 1.0 - feather, np.sqrt(u * u + v * v))
