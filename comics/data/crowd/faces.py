"""Procedural heads: a shaded, posed human head as an image layer, with the visible face as a separate coverage map.

The head is an ellipsoid seen under yaw, pitch and roll, whose outline takes on nose, lips and chin as it turns into
profile. Features (`features`), hair (`hair`), glasses and clothes (`wear`) are defined in the frame of the head and
carried over by the surface, so that they turn with it; relief comes from a height map whose normals are lit by one
directional light over an ambient term. Colours are linear light in [0, 1] until the camera encodes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from comics.data.crowd import features, hair, wear
from comics.data.crowd.features import EYE_Y, MOUTH_Y
from comics.data.crowd.people import Expression, Head
from comics.data.rendering.people import Light, Pose
from comics.data.rendering.shapes import (
    Array,
    band,
    bell,
    cos_sin,
    edge,
    halve,
    mix,
    noise_field,
    pixels_last,
    planes,
    smoothstep,
    spot,
)

FACE_UNITS = 1.62
"""Height of the face (hair line to chin) in units of the head's half height; turns a face height into a scale."""

DEPTH = 0.88
"""Half depth of a head, in half head heights."""


@dataclass(frozen=True)
class Layer:
    """A head ready to composite, at `origin` (x, y) px.

    `colour` (h, w, 3), `alpha` and `face` coverage (h, w); `frame` (2, h, w) holds the head's own coordinates x, y of
    what is seen at each pixel (far outside of the head: 9), in half head heights, of which `scale` px make one.
    """

    colour: Array
    alpha: Array
    face: Array
    frame: Array
    origin: tuple[int, int]
    scale: float


class _Surface:
    """The head's ellipsoid on a pixel grid: image-frame and head-frame coordinates of the point seen at each pixel."""

    def __init__(self, head: Head, pose: Pose, xs: Array, ys: Array, scale: float) -> None:
        self.pixel = 1.0 / scale
        cos, sin = cos_sin(pose.roll)
        self.x = xs * np.float32(cos) + ys * np.float32(sin)  # upright image frame, half head heights
        self.y = ys * np.float32(cos) - xs * np.float32(sin)
        cy, sy = cos_sin(pose.yaw)
        self.width = math.sqrt((head.width * cy) ** 2 + (0.86 * sy) ** 2)
        depth = math.sqrt((DEPTH * cy) ** 2 + (head.width * sy) ** 2)
        lower = np.clip(self.y, 0.0, 1.0)
        taper = 1.0 + head.jaw * lower * lower - 0.10 * lower
        turned = min(max((abs(pose.yaw) - 0.45) / 0.65, 0.0), 1.0)
        if turned:
            taper = taper + np.float32(turned) * self._profile(head, self.x * np.float32(math.copysign(1.0, sy)))
        across = self.x / (self.width * taper)
        self.radius = np.sqrt(across * across + self.y * self.y)
        self.z = depth * np.sqrt(np.maximum(1.0 - self.radius * self.radius, 0.0))
        # Undo pitch, then yaw: the point in the frame of the head.
        cp, sp = cos_sin(pose.pitch)
        straight = across * np.float32(self.width)
        z1 = self.z * cp + self.y * (sp * 0.8)
        self.head_x = straight * cy - z1 * sy
        self.head_y = self.y * cp - self.z * (sp * 0.8)
        self.head_z = z1 * cy + straight * sy
        self.coverage = edge((1.0 - self.radius) * head.width, 1.0 / scale)

    def _profile(self, head: Head, ahead: Array) -> Array:
        """What a profile adds to the half width: brow, nose, lips and chin in front, the nape behind."""
        y = self.y
        tip = EYE_Y + head.nose_length + 0.03
        nose = np.clip((y + 0.12) / (tip + 0.12), 0.0, 1.0) * smoothstep(tip + 0.12, tip - 0.01, y)
        front = 0.24 * nose * nose + 0.03 * bell(y, -0.22, 0.14)
        front = front + 0.10 * bell(y, MOUTH_Y - 0.04, 0.09) + 0.10 * bell(y, MOUTH_Y + 0.09, 0.08)
        front = front + 0.42 * smoothstep(0.3, 0.95, y) * smoothstep(1.3, 0.9, y)
        behind = -0.45 * smoothstep(0.15, 0.9, y)
        return np.where(ahead > 0, front, behind) * smoothstep(0.0, 0.3, np.abs(ahead))


def _box(
    centre: tuple[float, float], scale: float, reach: tuple[float, float, float], bounds: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Left, top, right, bottom px of `reach` = (aside, above, below) half heads around a centre, cut to the image."""
    left, right = math.floor(centre[0] - reach[0] * scale), math.ceil(centre[0] + reach[0] * scale)
    top, bottom = math.floor(centre[1] - reach[1] * scale), math.ceil(centre[1] + reach[2] * scale)
    left, top = min(max(left, 0), bounds[1] - 2), min(max(top, 0), bounds[0] - 2)
    return left, top, max(min(right, bounds[1]), left + 2), max(min(bottom, bounds[0]), top + 2)


def _grid(box: tuple[int, int, int, int], centre: tuple[float, float], scale: float, fine: int) -> tuple[Array, Array]:
    left, top, right, bottom = box
    shape = ((bottom - top) * fine, (right - left) * fine)
    rows = (np.arange(shape[0], dtype=np.float32) + 0.5) / fine + np.float32(top - centre[1])
    columns = (np.arange(shape[1], dtype=np.float32) + 0.5) / fine + np.float32(left - centre[0])
    xs, ys = columns[None, :] * np.float32(1.0 / scale), rows[:, None] * np.float32(1.0 / scale)
    return np.broadcast_to(xs, shape), np.broadcast_to(ys, shape)


def render_head(
    head: Head,
    expression: Expression,
    pose: Pose,
    light: Light,
    centre: tuple[float, float],
    face_height: float,
    bounds: tuple[int, int],
    body: bool = True,
) -> Layer:
    """Render one head with neck and shoulders.

    Args:
        head: who.
        expression: what the face does.
        pose: how the head is turned.
        light: what lights it.
        centre: middle of the head (x, y) in pixels of the image.
        face_height: hair line to chin in pixels.
        bounds: (height, width) of the image; the layer is cut to it.
        body: False leaves out shoulders, neck and the hair behind the head.

    Returns:
        A layer in linear light, down to the lower edge of the image.
    """
    scale = face_height / FACE_UNITS
    rng = np.random.default_rng(head.seed)  # texture belongs to the identity, not to the scene
    strands = hair.Strands(rng, head)
    whole = _box(centre, scale, (1.9, 1.4, 99.0), bounds)
    xs, ys = _grid(whole, centre, scale, 1)
    if body:
        colour, alpha = _behind(head, pose, light, xs, ys, scale, strands, np.random.default_rng([head.seed, 1]))
    else:
        colour, alpha = np.zeros((3, *xs.shape), np.float32), np.zeros(xs.shape, np.float32)

    part = _box(centre, scale, (1.2, 1.12, 1.14), bounds)
    fine = 2 if scale < 34 else 1  # small heads are sampled twice as finely: their eyes are a few pixels wide
    xs, ys = _grid(part, centre, scale, fine)
    over, cover, visible, frame = (
        halve(values) if fine > 1 else values
        for values in _front(head, expression, pose, light, xs, ys, scale * fine, strands, rng)
    )
    rows, columns = slice(part[1] - whole[1], part[3] - whole[1]), slice(part[0] - whole[0], part[2] - whole[0])
    colour[:, rows, columns] += (over - colour[:, rows, columns]) * cover
    alpha[rows, columns] = np.maximum(alpha[rows, columns], cover)
    face = np.zeros_like(alpha)
    face[rows, columns] = visible
    frames = np.full((2, *alpha.shape), 9.0, np.float32)
    frames[:, rows, columns] = frame
    return Layer(pixels_last(colour), alpha, face, frames, (whole[0], whole[1]), scale)


def _behind(
    head: Head,
    pose: Pose,
    light: Light,
    xs: Array,
    ys: Array,
    scale: float,
    strands: hair.Strands,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Body, neck, and the hair behind the head: colour and coverage."""
    cos, sin = cos_sin(pose.roll)
    x, y = xs * np.float32(cos) + ys * np.float32(sin), ys * np.float32(cos) - xs * np.float32(sin)
    folds = noise_field(rng, xs.shape, (max(2.0, scale * 0.45), max(2.0, scale * 0.2)))
    colour, alpha = wear.body(head, light, xs, ys, x, scale, folds)
    width = math.sqrt((head.width * cos_sin(pose.yaw)[0]) ** 2 + (0.86 * cos_sin(pose.yaw)[1]) ** 2)
    run = strands(x, y, scale)
    cover = hair.hair_behind(head, pose.yaw, width, x, y, run, scale)
    shade = (light.ambient + 0.3) * (1.0 - 0.45 * smoothstep(0.35, 1.0, y) * smoothstep(0.75, 0.4, np.abs(x)))
    tone = hair.hair_colour(head, light, run, y, shade)
    return mix(colour, tone, cover), np.maximum(alpha, cover)


def _front(
    head: Head,
    expression: Expression,
    pose: Pose,
    light: Light,
    xs: Array,
    ys: Array,
    scale: float,
    strands: hair.Strands,
    rng: np.random.Generator,
) -> tuple[Array, Array, Array, Array]:
    """The head itself: colour, coverage, coverage of the face, and the head's coordinates."""
    shape = xs.shape
    surface = _Surface(head, pose, xs, ys, scale)
    x, y, z, pixel = surface.head_x, surface.head_y, surface.head_z, surface.pixel
    front = smoothstep(0.02, 0.3, z)
    blotch = noise_field(rng, shape, (scale * 0.2, scale * 0.2))
    pores = noise_field(rng, shape, (max(1.5, scale * 0.035), max(1.5, scale * 0.035)))
    run = strands(surface.x, surface.y, scale)

    albedo = features.skin(head, expression, x, y, front, blotch, pores)
    if head.beard:
        albedo = hair.beard(head, albedo, x, y, front, pores, run)
    rows = band(y, -0.42, 0.18)
    if rows.stop:
        part = features.eyes(head, expression, pose, albedo[:, rows], x[rows], y[rows], front[rows], pixel)
        albedo[:, rows] = features.brows(head, expression, part, x[rows], y[rows], front[rows], pores[rows])
    rows = band(y, 0.25, 0.85)
    if rows.stop:
        albedo[:, rows] = features.mouth(head, expression, pose, albedo[:, rows], x[rows], y[rows], front[rows], pixel)

    height = surface.z + features.relief(head, expression, pose, x, y, front) + 0.0016 * pores * (0.5 + head.age)
    hairy = hair.hair_on_head(head, x, y, z, run, pixel)
    lit, diffuse = _shade(
        head, light, albedo, height, pixel, features.occlusion(head, x, y, front), x, y, z, run, hairy
    )
    over = hair.hair_colour(head, light, run, y, light.ambient + (1.1 - light.ambient) * diffuse)
    colour = mix(lit, over, hairy)

    alpha = surface.coverage
    # The face reaches to where the side of the head turns away; hair (and a cap) hide it.
    face = alpha * (1.0 - hairy) * smoothstep(-0.04, 0.06, z)
    colour, alpha = _ears(head, pose, light, surface, colour, alpha, scale)
    if head.hair_style in ("fringe", "long") and abs(pose.yaw) < 0.7:
        lock = hair.locks(head, surface.width, surface.x, surface.y, run, np.minimum(alpha * 2.0, 1.0))
        colour = mix(colour, hair.hair_colour(head, light, run, y, light.ambient + 0.5 * diffuse), lock)
        face = face * (1.0 - lock)
    if head.glasses != "none":
        colour = wear.glasses(head, colour, x, y, front, surface.coverage, pixel)
    if head.cap:
        tone, hat = wear.cap(head, light, surface.width, surface.x, surface.y, x, y, z, pixel)
        colour, alpha, face = mix(colour, tone, hat), np.maximum(alpha, hat), face * (1.0 - hat)
    return colour, alpha, face, np.stack([x, y])


def _shade(
    head: Head,
    light: Light,
    albedo: Array,
    height: Array,
    pixel: float,
    open_sky: Array,
    x: Array,
    y: Array,
    z: Array,
    run: Array,
    hairy: Array,
) -> tuple[Array, Array]:
    """Light the relief: what is seen of the skin (h, w, 3), and the share of the direct light (h, w)."""
    slope_y, slope_x = np.gradient(height, np.float32(pixel))
    norm = 1.0 / np.sqrt(slope_x * slope_x + slope_y * slope_y + 1.0)
    lx, ly, lz = light.direction
    # Slopes are in the image's own axes, as the light is: the roll is already in them.
    facing = (-slope_x * lx - slope_y * ly + lz) * norm
    # Skin scatters light past the terminator, red the farthest.
    wrapped = [np.maximum((facing + wrap) / (1.0 + wrap), 0.0) for wrap in (0.32, 0.22, 0.16)]
    under_hair = 0.0 if head.hair_style == "bald" else 0.3 * bell(y - hair.hair_line(head, x, run), 0.05, 0.16)
    ambient = light.ambient * (0.7 + 0.3 * norm)
    free = (1.0 - 0.75 * (1.0 - open_sky)) * (1.0 - under_hair * (z > 0))
    gloss = np.maximum(facing, 0.0) * norm
    gloss = gloss * gloss * gloss
    gloss = gloss * gloss * gloss
    oily = 0.05 + 0.09 * (spot(x, y, (0.0, 0.1), (0.2, 0.5)) + spot(x, y, (0.0, -0.42), (0.4, 0.2)))
    sheen = oily * gloss * (1.0 - 0.6 * head.beard * (y > 0.45))
    parts = [
        (albedo[k] * (ambient + (1.15 - light.ambient) * wrapped[k]) * free + sheen) * np.float32(light.colour[k])
        for k in range(3)
    ]
    return np.stack(parts), wrapped[1]


def _ears(
    head: Head, pose: Pose, light: Light, surface: _Surface, colour: Array, alpha: Array, scale: float
) -> tuple[Array, Array]:
    """Ears: in front of the head where it has turned, behind its outline where it has not, under long hair not at all."""
    if head.hair_style in ("long", "curly", "fringe"):
        return colour, alpha
    cy, sy = cos_sin(pose.yaw)
    tone = planes(head.skin) * planes((0.95, 0.8, 0.78)) * planes(light.colour)
    for side in (-1.0, 1.0):
        ahead = -side * head.width * sy  # how far it stands before the middle of the head
        if ahead < -0.35:
            continue
        at = side * head.width * cy * 1.0 - 0.08 * sy
        reach = 0.075 + 0.06 * abs(sy)
        u, v = (surface.x - at) / reach, (surface.y - 0.06) / 0.2
        distance = u * u + v * v
        cover = edge((1.0 - np.sqrt(distance)) * 0.085, 1.0 / scale)
        if ahead < 0.12:
            cover = cover * (1.0 - surface.coverage)
        shade = light.ambient + (1.0 - light.ambient) * max(0.2, 0.5 + 0.5 * side * light.direction[0])
        hollow = shade * (0.5 + 0.5 * np.minimum(distance, 1.0)) * (1.0 - 0.35 * bell(np.sqrt(distance), 0.62, 0.2))
        colour = mix(colour, tone * hollow, cover)
        alpha = np.maximum(alpha, cover)
    return colour, alpha
