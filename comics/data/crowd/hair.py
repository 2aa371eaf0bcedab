"""Hair on, around and behind a head, and beards: coverage and colour."""

from __future__ import annotations

import numpy as np

from comics.data.crowd.features import EYE_Y, MOUTH_Y
from comics.data.crowd.people import Head
from comics.data.rendering.people import Light
from comics.data.rendering.shapes import Array, bell, bump, edge, mix, noise_line, planes, smoothstep, spot

_PUFF = {"bald": 0.0, "buzz": 0.015, "short": 0.07, "parted": 0.10, "fringe": 0.11, "long": 0.13, "curly": 0.24}


class Strands:
    """The run of a head's hair: a fan from a point above the head, the same however finely it is sampled."""

    def __init__(self, rng: np.random.Generator, head: Head) -> None:
        self.head = head
        self.coarse, self.fine, self.wave = (rng.standard_normal(257, dtype=np.float32) for _ in range(3))
        for knots in (self.coarse, self.fine, self.wave):
            knots[256] = knots[0]

    def __call__(self, x: Array, y: Array, scale: float) -> Array:
        """Noise (h, w), about standard normal, that runs along the hair; `scale` px make half a head."""
        if self.head.hair_style == "curly":
            turn = noise_line(self.wave, y * 9.0 + 40.0)
            return 0.75 * noise_line(self.coarse, x * 13.0 + 1.1 * turn + 90.0) + 0.75 * noise_line(
                self.fine, y * 14.0 + 1.4 * noise_line(self.wave, x * 8.0 + 150.0) + 90.0
            )
        fan = (x - np.float32(0.5 * self.head.parting)) / (np.maximum(y, -1.3) + 1.9)
        fan = fan + 0.012 * noise_line(self.wave, y * 3.0 + 40.0)
        knots = min(1.6 * scale / 1.3, 52.0)
        return 0.75 * noise_line(self.fine, fan * knots + 128.0) + 0.6 * noise_line(self.coarse, fan * 13.0 + 128.0)


def hair_colour(head: Head, light: Light, strands: Array, y: Array, shade: Array) -> Array:
    """What is seen of hair: strands lighter and darker, a band of gloss round the crown."""
    lit = np.clip(1.0 + 0.36 * strands, 0.3, 2.2) * shade
    gloss = (0.055 if head.hair_style in ("curly", "buzz") else 0.13) * bell(y, -0.66, 0.3)
    gloss = gloss * np.clip(0.6 + 0.6 * strands, 0.0, 1.6) * shade
    tone = planes(head.hair)
    return (tone * lit + (0.35 + 0.65 * tone / tone.max()) * np.float32(0.45) * gloss) * planes(light.colour)


def hair_line(head: Head, x: Array, strands: Array) -> Array:
    """Level y of the hair line over the forehead: temples that recede, a fringe that falls, ragged by strands."""
    line = head.hair_line + 0.30 * x * x - 0.16 * head.receding * bell(np.abs(x), 0.34, 0.2) + 0.035 * strands
    if head.hair_style == "fringe":
        line = line + 0.25 + 0.14 * x * (1.0 if head.seed & 1 else -1.0) + 0.03 * strands
    elif head.hair_style == "parted":
        fall = np.abs(x - np.float32(head.parting))
        line = line - 0.05 + 0.22 * fall * smoothstep(0.0, 0.3, fall)
    elif head.hair_style == "long":
        line = line - 0.06 + 0.3 * np.abs(x - np.float32(0.3 * head.parting))
    return line


def hair_on_head(head: Head, x: Array, y: Array, z: Array, strands: Array, pixel: float) -> Array:
    """Share of hair over skin on the head itself (h, w)."""
    soft = max(pixel * 1.5, 0.05)
    if head.hair_style == "bald":
        return 0.35 * smoothstep(0.05, -0.15, z) * smoothstep(0.2, 0.0, y)
    top = edge(hair_line(head, x, strands) - y, soft)
    low = {"long": 0.75, "curly": 0.3, "fringe": 0.5, "short": 0.14, "parted": 0.12, "buzz": 0.1}[head.hair_style]
    full = 0.24 if head.hair_style in ("long", "fringe", "curly") else 0.13
    sides = edge(full + 0.035 * strands - z - 0.12 * smoothstep(0.0, 0.3, y), soft) * edge(
        low - y + 0.05 * strands, 0.2
    )
    cover = np.maximum(top, sides)
    return cover * np.clip(0.72 + 0.2 * strands, 0.3, 0.95) if head.hair_style == "buzz" else cover


def hair_behind(head: Head, yaw: float, width: float, x: Array, y: Array, strands: Array, scale: float) -> Array:
    """Coverage of the hair that stands around or falls behind the head (h, w), in the upright image frame."""
    puff = _PUFF[head.hair_style]
    if not puff:
        return np.zeros_like(x)
    back = x + np.float32(0.12 * yaw)  # seen from the side, hair is behind the face
    rim, crown = back / (width + puff), (y + 0.04) / (1.0 + puff)
    rough = 0.05 if head.hair_style == "curly" else 0.018
    cap = edge(1.0 + rough * strands - np.sqrt(rim * rim + crown * crown), 1.3 / scale)
    limit = {"buzz": -0.1, "short": 0.1, "parted": 0.1, "fringe": 0.6, "long": 0.3, "curly": 0.5}[head.hair_style]
    cap = cap * edge(limit - y + 0.06 * strands, 0.16)
    if head.hair_style != "long":
        return cap
    length = 0.9 + 1.1 * head.receding
    half = width + puff + 0.09 * np.clip(y, -1.0, 1.2) + 0.02 * strands
    fall = edge(half - np.abs(back), 1.3 / scale) * edge(y + 0.1, 0.05) * edge(length + 0.12 * strands - y, 0.25)
    return np.maximum(cap, fall * np.maximum(edge(np.abs(x) - 0.42, 0.1), smoothstep(0.9, 0.5, y)))


def locks(head: Head, width: float, x: Array, y: Array, strands: Array, coverage: Array) -> Array:
    """Hair that hangs over the sides of the face (h, w), in the upright image frame."""
    side = 1.0 if head.seed & 1 else -1.0
    inner = width * (0.78 if head.hair_style == "long" else 0.88) + 0.025 * strands
    strength = 1.0 if head.hair_style == "long" else 0.8
    return edge(side * x - inner, 0.05) * smoothstep(1.05, 0.7, y) * smoothstep(-0.9, -0.6, y) * strength * coverage


def beard(head: Head, albedo: Array, x: Array, y: Array, front: Array, pores: Array, strands: Array) -> Array:
    """Grow stubble, a full beard, a goatee or a moustache."""
    aside = np.abs(x)
    lips = spot(x, y, (0.0, MOUTH_Y + 0.005), (head.mouth_width * 1.15, 0.085))
    moustache = spot(x, y, (0.0, MOUTH_Y - 0.095), (head.mouth_width * 1.25, 0.075)) * 1.6
    chin = spot(x, y, (0.0, 0.84), (0.34, 0.26)) * 1.5
    if head.beard_style == "moustache":
        area = moustache
    elif head.beard_style == "goatee":
        ring = spot(x, y, (0.0, MOUTH_Y + 0.06), (0.40, 0.30)) * 1.5 * smoothstep(0.12, 0.26, aside)
        area = np.maximum(np.maximum(moustache, chin), ring * smoothstep(0.42, 0.52, y))
    else:
        cheek = 0.30 + 0.26 * bump((aside - 0.1) * (aside - 0.1) * 4.0)
        jaw = smoothstep(0.0, 0.16, y - cheek + 0.012 * pores)
        side = smoothstep(0.46, 0.6, aside) * smoothstep(EYE_Y, EYE_Y + 0.15, y)
        area = np.maximum(np.maximum(jaw, side), moustache)
    area = np.clip(area, 0.0, 1.0) * (1.0 - 0.95 * np.clip(lips * 1.6, 0.0, 1.0)) * np.maximum(front, 0.35)
    stubble = head.beard_style == "stubble"
    strength = head.beard * (0.5 if stubble else 1.0)
    amount = np.clip(area * strength * (0.85 + 0.15 * pores), 0.0, 0.96)
    tone = planes(head.hair) * np.clip(1.0 + 0.4 * strands + 0.2 * pores, 0.3, 2.0)
    return mix(albedo, tone, amount)
