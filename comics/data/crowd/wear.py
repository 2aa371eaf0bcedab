"""What people wear: clothes, glasses, caps."""

from __future__ import annotations

import numpy as np

from comics.data.crowd.features import EYE_X, EYE_Y
from comics.data.crowd.people import Head
from comics.data.rendering.people import Light
from comics.data.rendering.shapes import Array, bell, bump, edge, mix, planes, smoothstep


def body(
    head: Head, light: Light, xs: Array, ys: Array, tilted: Array, scale: float, folds: Array
) -> tuple[Array, Array]:
    """Shoulders in cloth and a neck in skin, both behind the chin: colour (3, h, w) and coverage (h, w).

    `xs`, `ys` are upright coordinates around the head's centre, `tilted` is x in the frame of the rolled head.
    """
    tint = planes(light.colour)
    aside = np.abs(xs)
    wide = 1.2 + 0.3 * head.width
    slope = xs / wide
    shoulder = 1.18 + 0.36 * slope * slope + 0.18 * smoothstep(0.9, 1.5, aside)
    cover = edge(ys - shoulder, 1.0 / scale) * edge(wide * 1.25 - aside, 1.0 / scale)
    slant = np.clip(0.72 + 0.35 * light.direction[0] * xs - 0.12 * (ys - 1.4), 0.2, 1.3)
    weave = 1.0 + 0.14 * folds + 0.12 * bell(aside - 0.25 * ys, 0.35, 0.12)
    if head.pattern == 1:
        weave = weave * np.where((ys * 5.0) % 1.0 < 0.45, np.float32(0.55), np.float32(1.0))
    elif head.pattern == 2:  # a jacket over a shirt
        weave = weave * np.where(aside < 0.62 - 0.28 * (ys - 1.2), np.float32(2.2), np.float32(0.6))
    cloth = planes(head.cloth) * tint * (slant * weave)
    collar = edge(1.44 - 0.9 * aside - ys, 1.5 / scale)
    rim = bell(1.44 - 0.9 * aside - ys, -0.05, 0.06)
    cloth = cloth * (1.0 - 0.45 * rim)
    across = (0.5 * tilted + 0.5 * xs) / 0.40
    neck = edge((1.0 - np.abs(across)) * 0.40, 1.0 / scale) * edge(ys - 0.3, 1.0 / scale)
    under_chin = 0.24 + 0.6 * smoothstep(0.95, 1.5, ys)
    shade = np.clip(1.0 - 0.5 * across * across + 0.55 * light.direction[0] * across, 0.1, 1.2) * under_chin
    tendon = 1.0 - 0.15 * bell(np.abs(across), 0.35 + 0.0, 0.2)
    skin = planes(head.skin) * tint * (shade * tendon)
    visible = neck * np.maximum(1.0 - cover, collar)
    return mix(cloth, skin, visible), np.maximum(cover, visible)


def glasses(head: Head, colour: Array, x: Array, y: Array, front: Array, coverage: Array, pixel: float) -> Array:
    """Clear or dark glasses with frame, bridge and temples."""
    gap = EYE_X * head.eye_gap
    aside = np.abs(x)
    frame = max(0.018, pixel * 0.7)
    u, v = (aside - gap) / 0.215, (y - EYE_Y - 0.02) / (0.12 if head.seed & 4 else 0.16)
    u2, v2 = u * u, v * v
    reach = np.sqrt(u2 + v2) if head.seed & 8 else np.sqrt(np.sqrt(u2 * u2 + v2 * v2))
    lens = edge((1.0 - reach) * 0.16, pixel) * front * coverage
    rim = edge(frame - np.abs(reach - 1.0) * 0.16, pixel)
    bridge = edge(frame - np.abs(y - EYE_Y + 0.03), pixel) * edge(gap - 0.2 - aside, pixel)
    temple = edge(frame - np.abs(y - EYE_Y + 0.05), pixel) * edge(aside - gap - 0.2, pixel)
    wire = np.maximum(np.maximum(rim * front, bridge * front), temple) * coverage
    if head.glasses == "dark":
        sheen = 0.08 * bump((u - v * 0.6 + 0.5) * (u - v * 0.6 + 0.5) * 4.0)
        colour = colour + (0.012 + sheen - colour) * (lens * 0.92)
    else:
        sheen = 0.14 * bump((u + v * 0.8 - 0.3) * (u + v * 0.8 - 0.3) * 9.0) * lens
        colour = colour * (1.0 - 0.08 * lens) + sheen
    return mix(colour, (0.02, 0.018, 0.018) if head.seed & 2 else (0.10, 0.05, 0.03), wire * 0.95)


def cap(
    head: Head, light: Light, width: float, x: Array, y: Array, head_x: Array, head_y: Array, head_z: Array, soft: float
) -> tuple[Array, Array]:
    """A cap down to the forehead with its brim: colour (3, h, w) and coverage (h, w)."""
    rim, crown = x / (width + 0.08), (y + 0.08) / 1.05
    dome = edge(1.0 - np.sqrt(rim * rim + crown * crown), soft * 1.25)
    dome = dome * edge(-0.46 + 0.10 * head_x * head_x - head_y, soft)
    brim_x, brim_y = head_x / 0.62, (head_y + 0.44) / 0.11
    brim = edge((1.0 - np.sqrt(brim_x * brim_x + brim_y * brim_y)) * 0.1, soft) * smoothstep(-0.1, 0.1, head_z)
    cloth = planes((head.cloth[2], head.cloth[0], head.cloth[1]))
    shade = np.clip(
        light.ambient + 0.6 * (light.direction[2] + light.direction[0] * rim + light.direction[1] * crown), 0.1, 1.2
    )
    shade = shade * (1.0 - 0.25 * bell(head_x, 0.0, 0.02)) * (1.0 - 0.5 * brim)
    return cloth * shade, np.maximum(dome, brim)
