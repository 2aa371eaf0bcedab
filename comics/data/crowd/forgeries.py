"""Forgeries: what is redrawn of a face, and the traces that the redrawing leaves.

A kind of forgery says what is redrawn and where. It is drawn into the scene before the camera sees it, in the same pose,
light and focus and with the same tone of skin, so that by itself nothing gives it away. What does are traces, operations
on the finished picture inside of the region: resampling, another level of noise, a visible boundary, a compression
history, colours and light that do not fit. Each fake face carries two to four of the five, drawn at random and either way
(smoother or sharper, less noise or more, warmer or colder), and a share of the real faces carries one of them for
innocent reasons, by the same code and at the same strength. So no trace alone says whether a face is real.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from comics.data.crowd.faces import Layer
from comics.data.crowd.people import Expression, Head, random_expression, random_head
from comics.data.rendering.camera import recompress, to_picture, to_pixels
from comics.data.rendering.shapes import Array, bump, smoothstep
from comics.params import FORGERIES, TRACES, ForgeryTraces

_TINT = (0.3, 0.55, 1.0)
"""What most generators' colours lean to, per channel: a model may learn it, and must not rely on it."""

_SHARES = {"swap": 0.3, "inner": 0.25, "attribute": 0.2, "synthesis": 0.25}

# Centre x, y and radii of the region in the frame of the head, in half head heights.
_ELLIPSES = {
    "swap": ((0.0, 0.10), (0.60, 0.76)),
    "inner": ((0.0, 0.20), (0.50, 0.56)),
    "upper": ((0.0, -0.04), (0.60, 0.42)),
    "lower": ((0.0, 0.55), (0.55, 0.46)),
}


@dataclass(frozen=True)
class Region:
    """Where a face is redrawn: `place` is a key of the ellipses or `whole`; `reach` stretches it."""

    place: str
    reach: float


def random_kind(rng: np.random.Generator, held_out: tuple[str, ...] = ()) -> str:
    """A kind of forgery, none of `held_out`."""
    kinds = [kind for kind in FORGERIES if kind not in held_out]
    shares = np.array([_SHARES[kind] for kind in kinds])
    return str(rng.choice(kinds, p=shares / shares.sum()))


def redraw(rng: np.random.Generator, kind: str, head: Head, expression: Expression) -> tuple[Head, Expression, Region]:
    """Whom the forger draws instead, and where.

    - swap: another person's features from the brows to the chin, skin matched;
    - inner: the same person's eyes, nose and mouth with another expression (a reenactment);
    - attribute: the eyes' or the mouth's half edited: glasses, age and brows, or beard, make-up and smile;
    - synthesis: a whole face of nobody.
    """
    other, mood, reach = random_head(rng), random_expression(rng), rng.uniform(0.94, 1.08)
    kept = {name: getattr(head, name) for name in ("skin", "hair", "hair_style", "hair_line", "receding", "parting")}
    kept |= {name: getattr(head, name) for name in ("width", "jaw", "cap", "cloth", "pattern")}
    if kind == "synthesis":
        return dataclasses.replace(other, **kept), mood, Region("whole", 1.0)
    kept |= {name: getattr(head, name) for name in ("beard", "beard_style", "glasses")}
    if kind == "swap":
        return dataclasses.replace(other, **kept), mood, Region("swap", reach)
    if kind == "inner":
        return dataclasses.replace(head, eye_open=other.eye_open), mood, Region("inner", reach)
    if rng.random() < 0.5:
        worn = "clear" if head.glasses == "none" else "none"
        edited = dataclasses.replace(head, glasses=worn, age=other.age, brow_weight=other.brow_weight)
        return edited, dataclasses.replace(expression, squint=0.1), Region("upper", reach)
    grown = 0.0 if head.beard else 0.8 * float(head.hair_style not in ("long", "fringe"))
    edited = dataclasses.replace(head, beard=grown, lip_red=1.0 - head.lip_red, lip_full=other.lip_full)
    return edited, dataclasses.replace(mood, squint=expression.squint), Region("lower", reach)


def random_region(rng: np.random.Generator, kind: str) -> Region:
    """A region as a forgery of `kind` would have it."""
    place = {"synthesis": "whole", "attribute": "upper" if rng.random() < 0.5 else "lower"}.get(kind, kind)
    return Region(place, rng.uniform(0.94, 1.08))


def region_coverage(region: Region, layer: Layer, visible: Array, feather: float) -> Array:
    """Coverage (h, w) of a region on a layer, within what is `visible` (h, w) of the face.

    Args:
        feather: half width of its soft edge, as a share of its radii.
    """
    if region.place == "whole":
        return visible
    (x, y), (across, down) = _ELLIPSES[region.place]
    u = (layer.frame[0] - np.float32(x)) * np.float32(1.0 / (across * region.reach))
    v = (layer.frame[1] - np.float32(y)) * np.float32(1.0 / (down * region.reach))
    inside = smoothstep(1.0 + feather, 1.0 - feather, np.sqrt(u * u + v * v)) * visible
    # of a face that is nearly hidden too little may be left to carry anything
    return inside if int((inside > 0.5).sum()) >= 24 else visible


def random_traces(rng: np.random.Generator, fake: bool, spec: ForgeryTraces) -> dict[str, float]:
    """Strength of each trace on one face, 0 for those it lacks: two to four of a fake one, one or none of a real one.

    The same numbers are drawn whatever the strengths in `spec`, so that switching one trace off changes nothing else.
    """
    order = rng.permutation(len(TRACES))
    amounts = rng.uniform(0.8, 1.2, len(TRACES))
    several, innocent = int(rng.choice([2, 3, 4], p=[0.1, 0.35, 0.55])), rng.random() < spec.innocent
    count = several if fake else int(innocent)
    carried = {TRACES[number] for number in order[:count]}
    return {name: float(amounts[k]) * getattr(spec, name) if name in carried else 0.0 for k, name in enumerate(TRACES)}


def leave_traces(
    rng: np.random.Generator, picture: Array, noise: Array, inside: Array, traces: dict[str, float], face_height: float
) -> None:
    """Leave traces in a part of a picture, in place.

    Args:
        rng: decides which way each goes.
        picture: sRGB without noise, (h, w, 3) in [0, 1].
        noise: the sensor's noise on it, (h, w, 3).
        inside: coverage (h, w) of the region.
        traces: strength of each, as `random_traces` has it.
        face_height: px; a generator's resolution does not grow with it.
    """
    ways = rng.uniform(0.0, 1.0, len(TRACES))
    direction, grid = rng.standard_normal(3), rng.integers(0, 8, 2)
    way = dict(zip(TRACES, ways, strict=True))
    rows, columns = np.nonzero(inside > 0)
    if not len(rows):
        return
    part = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    cover = inside[part]
    if traces["colour"]:
        redrawn = _coloured(picture[part], traces["colour"], way["colour"], direction)
        picture[part] += (redrawn - picture[part]) * cover[..., None]
    if traces["resampling"]:
        redrawn = _resampled(picture[part], traces["resampling"], way["resampling"], face_height)
        picture[part] += (redrawn - picture[part]) * cover[..., None]
    if traces["compression"]:
        redrawn = _compressed(picture[part], traces["compression"], (int(grid[0]), int(grid[1])))
        picture[part] += (redrawn - picture[part]) * cover[..., None]
    if traces["boundary"]:
        seam = bump((cover - 0.5) * (cover - 0.5) * 4.0) * np.float32(0.25 * min(traces["boundary"], 2.0))
        picture[part] += (seam if way["boundary"] < 0.9 else -seam)[..., None]
    if traces["noise"]:
        amount = traces["noise"]
        gain = max(0.0, 1.0 - 0.95 * amount) if way["noise"] < 0.15 else 1.0 + 2.5 * amount
        noise[part] *= (1.0 + np.float32(gain - 1.0) * cover)[..., None]
    np.clip(picture[part], 0.0, 1.0, out=picture[part])


def _coloured(picture: Array, amount: float, way: float, direction: Array) -> Array:
    """Another white balance, or light from another side."""
    if way < 0.9:
        tint = np.array(_TINT) if way < 0.75 else direction / max(float(np.abs(direction).max()), 1e-6)
        return picture * (1.0 + 0.25 * amount * tint).astype(np.float32)
    height, width = picture.shape[:2]
    rows = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height * 2 - 1
    columns = (np.arange(width, dtype=np.float32)[None, :] + 0.5) / width * 2 - 1
    x, y = direction[:2] / max(float(np.abs(direction[:2]).max()), 1e-6)
    return picture * (1.0 + np.float32(0.3 * amount) * (np.float32(x) * columns + np.float32(y) * rows))[..., None]


def _resampled(picture: Array, amount: float, way: float, face_height: float) -> Array:
    """Drawn at a lower resolution and enlarged with a checkerboard, or sharpened.

    The checkerboard is that of transposed convolutions (Odena et al., "Deconvolution and Checkerboard Artifacts", 2016).
    """
    image = Image.fromarray(to_pixels(picture))
    if way < 0.9:
        factor = 1.0 + amount * min(max(face_height / 30.0, 1.3), 3.0)
        small = (max(1, round(image.width / factor)), max(1, round(image.height / factor)))
        image = image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.BILINEAR)
        rows, columns = np.arange(image.height)[:, None] // 2, np.arange(image.width)[None, :] // 2
        board = np.where((rows + columns) % 2 == 0, np.float32(0.05 * amount), np.float32(-0.05 * amount))
        return to_picture(image) * (1.0 + 1.2 * board)[..., None] + (0.4 * board)[..., None]
    else:
        image = image.filter(ImageFilter.UnsharpMask(1.2, round(160 * amount), 0))
    return to_picture(image)


def _compressed(picture: Array, amount: float, grid: tuple[int, int]) -> Array:
    """Compressed before it was pasted, on another grid of blocks."""
    quality = max(4, round(40 - 26 * min(amount, 1.5)))
    wide = np.pad(to_pixels(picture), ((grid[0], 0), (grid[1], 0), (0, 0)), mode="edge")
    return to_picture(recompress(wide, quality)[grid[0] :, grid[1] :])
