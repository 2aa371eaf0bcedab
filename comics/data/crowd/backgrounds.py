"""What stands behind people: rooms, streets and meadows, more or less out of focus, and things before faces."""

from __future__ import annotations

import numpy as np
from PIL import Image

from comics.data.rendering.people import Light
from comics.data.rendering.shapes import Array, Colour, blur, edge, mix, noise_field, pixels_last, planes

_PLACES = ("room", "street", "meadow", "lights")


def _muted(rng: np.random.Generator, low: float, high: float) -> Array:
    """A colour (3, 1, 1) of a random brightness, mostly grey."""
    level = rng.uniform(low, high)
    tint = rng.uniform(-1, 1, 3) * rng.uniform(0.03, 0.28)
    return planes(np.clip(level * (1.0 + tint), 0.01, 0.9))


def render_background(rng: np.random.Generator, height: int, width: int, light: Light) -> Array:
    """Linear light (height, width, 3) of a scene without people, drawn at half the size."""
    h, w = (height + 1) // 2, (width + 1) // 2
    rows = (np.arange(h, dtype=np.float32)[:, None] + 0.5) / h
    columns = (np.arange(w, dtype=np.float32)[None, :] + 0.5) / w * np.float32(width / height)
    place = str(rng.choice(_PLACES, p=[0.4, 0.27, 0.18, 0.15]))
    scene = {"room": _room, "street": _street, "meadow": _meadow, "lights": _lights}[place](rng, rows, columns)
    scene = scene * (1 + np.float32(0.3 * light.direction[0]) * (columns - np.float32(0.7)))
    for cell, strength in ((0.3, 0.16), (0.07, 0.08)):
        texture = noise_field(rng, (h, w), (cell * h, cell * h))
        scene = scene * np.clip(1 + np.float32(strength * rng.uniform(0.3, 1)) * texture, 0.2, 2)
    scene = blur(pixels_last(scene), int(rng.choice(5, p=[0.3, 0.25, 0.2, 0.15, 0.1])))
    wide = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(scene[..., k])).resize((width, height), Image.Resampling.BICUBIC)
        )
        for k in range(3)
    ]
    return np.clip(np.stack(wide, axis=-1), 0.003, 1.0)


def _box(rows: Array, columns: Array, box: tuple[float, float, float, float], soft: float = 0.012) -> Array:
    """Coverage of left, top, right, bottom, in units of the image's height."""
    left, top, right, bottom = box
    across = np.minimum(columns - np.float32(left), np.float32(right) - columns)
    return edge(across, soft) * edge(np.minimum(rows - np.float32(top), np.float32(bottom) - rows), soft)


def _room(rng: np.random.Generator, rows: Array, columns: Array) -> Array:
    """A wall with pictures, shelves, a window, a door, a curtain."""
    wall = _muted(rng, 0.12, 0.5)
    scene = np.broadcast_to(wall, (3, rows.shape[0], columns.shape[1])) * (1.1 - 0.3 * rows)
    floor = rng.uniform(0.75, 1.1)
    scene = mix(scene, _muted(rng, 0.05, 0.25), edge(rows - np.float32(floor), 0.02) * np.ones_like(columns))
    for _ in range(int(rng.integers(1, 5))):
        x, y, kind = rng.uniform(-0.1, 1.4), rng.uniform(-0.05, 0.45), rng.integers(0, 4)
        wide, tall = rng.uniform(0.15, 0.45), rng.uniform(0.2, 0.5)
        if kind == 0:  # a window, panes of sky
            scene = mix(
                scene,
                _muted(rng, 0.4, 0.7),
                _box(rows, columns, (x - 0.03, y - 0.03, x + wide + 0.03, y + tall + 0.03)),
            )
            for k in range(2):
                pane = (x + k * wide / 2 + 0.01, y, x + (k + 1) * wide / 2 - 0.01, y + tall)
                scene = mix(scene, (0.62, 0.72, 0.85), _box(rows, columns, pane))
        elif kind == 1:  # a picture in its frame
            scene = mix(scene, _muted(rng, 0.02, 0.2), _box(rows, columns, (x, y, x + wide * 0.7, y + tall * 0.6)))
            inside = _box(rows, columns, (x + 0.03, y + 0.03, x + wide * 0.7 - 0.03, y + tall * 0.6 - 0.03))
            scene = mix(scene, _muted(rng, 0.1, 0.6), inside)
        elif kind == 2:  # books on a shelf
            left = x
            for _ in range(int(rng.integers(4, 10))):
                thick = rng.uniform(0.02, 0.05)
                scene = mix(
                    scene,
                    _muted(rng, 0.03, 0.35),
                    _box(rows, columns, (left, y + rng.uniform(0.0, 0.06), left + thick, y + 0.25), 0.008),
                )
                left += thick + 0.003
            scene = mix(
                scene, _muted(rng, 0.05, 0.2), _box(rows, columns, (x - 0.05, y + 0.25, left + 0.05, y + 0.275))
            )
        else:  # a curtain or a door
            folds = 1 + 0.25 * np.where((columns * 14.0) % 1.0 < 0.5, np.float32(1.0), np.float32(-1.0))
            tone = _muted(rng, 0.08, 0.4) * folds
            scene = mix(scene, tone, _box(rows, columns, (x, -1.0, x + wide * 0.8, 2.0), 0.02))
    return scene


def _street(rng: np.random.Generator, rows: Array, columns: Array) -> Array:
    """House fronts with rows of windows under a sky."""
    scene = np.broadcast_to(_muted(rng, 0.45, 0.8), (3, rows.shape[0], columns.shape[1])) * (1.1 - 0.2 * rows)
    left = -0.1
    while left < 1.5:
        wide, roof = rng.uniform(0.25, 0.7), rng.uniform(-0.2, 0.35)
        scene = mix(scene, _muted(rng, 0.08, 0.4), _box(rows, columns, (left, roof, left + wide, 2.0)))
        pitch, storey = rng.uniform(0.09, 0.16), rng.uniform(0.14, 0.22)
        across, down = ((columns - np.float32(left)) / pitch) % 1.0, ((rows - np.float32(roof)) / storey) % 1.0
        panes = edge(0.28 - np.abs(across - 0.5), 0.1) * edge(0.3 - np.abs(down - 0.5), 0.08)
        scene = mix(scene, _muted(rng, 0.02, 0.5), panes * _box(rows, columns, (left, roof, left + wide, 0.85)) * 0.85)
        left += wide
    return scene


def _meadow(rng: np.random.Generator, rows: Array, columns: Array) -> Array:
    """Sky, trees, grass."""
    shape = (rows.shape[0], columns.shape[1])
    sky = planes((0.45, 0.58, 0.78)) * np.float32(rng.uniform(0.7, 1.2))
    scene = np.broadcast_to(sky, (3, *shape)) * (0.85 + 0.3 * rows)
    rough = noise_field(rng, shape, (shape[0] * 0.09, shape[0] * 0.09))
    leaves = noise_field(rng, shape, (shape[0] * 0.025, shape[0] * 0.025))
    crown = rng.uniform(0.05, 0.4)
    green = planes((0.06, 0.11, 0.035)) * planes(rng.uniform(0.7, 1.5, 3))
    trees = np.clip(1.0 + 0.4 * leaves + 0.3 * rough, 0.2, 2.2) * green
    scene = mix(scene, trees, edge(rows - np.float32(crown) + 0.10 * rough + 0.03 * leaves, 0.04))
    grass = np.clip(1.0 + 0.2 * leaves, 0.4, 1.8) * green * np.float32(rng.uniform(1.4, 2.6))
    return mix(scene, grass, edge(rows - np.float32(rng.uniform(0.6, 0.9)), 0.03) * np.ones_like(columns))


def _lights(rng: np.random.Generator, rows: Array, columns: Array) -> Array:
    """A dark place with lamps far out of focus."""
    scene = np.broadcast_to(_muted(rng, 0.02, 0.09), (3, rows.shape[0], columns.shape[1]))
    for _ in range(int(rng.integers(8, 24))):
        radius = rng.uniform(0.02, 0.08)
        u, v = columns - np.float32(rng.uniform(0, 1.4)), rows - np.float32(rng.uniform(0, 1))
        disc = edge(radius - np.sqrt(u * u + v * v), 0.02)
        warm = planes(np.clip(np.asarray([0.8, 0.55, 0.3]) + rng.uniform(-0.3, 0.3, 3), 0.05, 1))
        scene = mix(scene, warm, disc * np.float32(rng.uniform(0.2, 0.8)))
    return scene


def obstacle(rng: np.random.Generator, scene: Array, skin: Colour, place: tuple[float, float, float]) -> Array:
    """Draw something in the foreground across a part of a face, in place: a hand, a pole, a phone.

    Args:
        scene: linear light (h, w, 3).
        skin: of the hand.
        place: the face's centre x, y and height, px.

    Returns:
        Its coverage (h, w).
    """
    x, y, face = place
    height, width = scene.shape[:2]
    rows = np.arange(height, dtype=np.float32)[:, None] - np.float32(y + rng.uniform(0.0, 0.4) * face)
    columns = np.arange(width, dtype=np.float32)[None, :] - np.float32(x + rng.uniform(-0.4, 0.4) * face)
    lean = rng.uniform(-0.5, 0.5)
    along, across = rows + np.float32(lean) * columns, columns - np.float32(lean) * rows
    kind = rng.integers(0, 3)
    if kind == 0:  # fingers that come from below
        thick = np.float32(0.30 * face)
        cover = np.zeros((height, width), np.float32)
        for k in range(4):
            u = across / thick * 2.0 - (k - 1.5) * 0.9
            tip = -0.28 * face + 0.05 * face * abs(k - 1.6)
            cover = np.maximum(cover, edge((0.42 - np.abs(u)) * thick * 0.5, 1.5) * edge(along - np.float32(tip), 2.0))
        palm = edge(thick * 0.8 - np.abs(across), 2.0) * edge(along - np.float32(0.08 * face), 2.0)
        cover, colour = np.maximum(cover, palm), planes(skin) * np.float32(0.8)
        shade = np.clip(0.85 - 0.3 * across / thick, 0.4, 1.3)
    else:  # a pole, or a phone held up
        thick = np.float32((0.09 if kind == 1 else 0.17) * face)
        length = np.float32((2.5 if kind == 1 else 0.33) * face)
        cover = edge(thick - np.abs(across), 1.5) * edge(length - np.abs(along), 1.5)
        colour = _muted(rng, 0.02, 0.4)
        shade = np.clip(1.0 - (0.5 if kind == 1 else 0.1) * across / thick, 0.4, 1.5)
    scene += (pixels_last(colour * shade) - scene) * cover[..., None]
    return cover
