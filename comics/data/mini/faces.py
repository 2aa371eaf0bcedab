"""Procedural heads: a shaded, posed human head as an image layer, with the visible face as a separate coverage map.

The head is an ellipsoid seen under yaw, pitch and roll. Features (eyes, brows, nose, lips, beard, hair line) are
defined in the frame of the head and carried over by the surface, so that they turn with it; relief comes from a height
map whose normals are lit by one directional light over an ambient term.

Large arrays see only ``+ - * / sqrt min max``, which IEEE 754 fixes to the last bit, and never ``exp`` or ``sin``, whose
last bit depends on the processor: that is what makes the dataset the same on every machine. Colours are linear
light in [0, 1] until the camera (`comics.data.rendering.camera`) encodes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from comics.data.rendering.people import IRIS, Light, Pose, random_skin, triple
from comics.data.rendering.shapes import Array, bump, noise_field, smoothstep

FACE_UNITS = 1.62
"""Height of the face (hair line to chin) in units of the head's half height; turns a face height into a scale."""

EYE_X, EYE_Y = 0.295, -0.02
MOUTH_Y = 0.585


@dataclass(frozen=True)
class Head:
    """Identity: everything that stays when the same person is photographed again. Lengths in half head heights."""

    seed: int
    skin: tuple[float, float, float]
    hair: tuple[float, float, float]
    hair_style: str  # bald | short | long | afro | fringe
    hair_line: float
    width: float
    jaw: float
    eye_size: float
    eye_gap: float
    eye_open: float
    iris: tuple[float, float, float]
    brow_weight: float
    brow_tilt: float
    brow_height: float
    nose_width: float
    nose_length: float
    mouth_width: float
    mouth_open: float
    smile: float
    lip_red: float
    lip_full: float
    beard: float
    age: float
    freckles: float
    glasses: str  # none | clear | dark
    cap: bool
    cloth: tuple[float, float, float]


@dataclass(frozen=True)
class Layer:
    """A head ready to composite: `colour` (h, w, 3), `alpha` and `face` coverage (h, w), at `origin` (x, y) px.

    `landmarks` are the eyes' and the mouth's centres, (3, 2) as x, y in the pixel frame of the whole image.
    """

    colour: Array
    alpha: Array
    face: Array
    origin: tuple[int, int]
    landmarks: Array
    scale: float


# Linear-light skin from very fair to very dark, measured by eye on grey-card portraits; tones between are blends.
_SKIN = np.array(
    [
        [0.83, 0.60, 0.48],
        [0.70, 0.46, 0.33],
        [0.56, 0.34, 0.22],
        [0.38, 0.20, 0.115],
        [0.20, 0.095, 0.052],
        [0.10, 0.045, 0.026],
    ]
)
_HAIR = np.array(
    [
        [0.012, 0.010, 0.009],
        [0.035, 0.020, 0.012],
        [0.10, 0.050, 0.024],
        [0.36, 0.21, 0.085],
        [0.23, 0.075, 0.025],
        [0.36, 0.35, 0.34],
    ]
)


def random_pose(rng: np.random.Generator) -> Pose:
    """Mostly towards the camera, up to about 45 degrees aside."""
    yaw = float(np.clip(rng.normal(0.0, 0.36), -0.8, 0.8))
    return Pose(yaw, float(np.clip(rng.normal(0.0, 0.13), -0.3, 0.3)), float(np.clip(rng.normal(0.0, 0.16), -0.5, 0.5)))


def random_head(rng: np.random.Generator, tone: float | None = None) -> Head:
    """Draw an identity. `tone` in [0, 5] fixes the skin's place between fair and dark (None draws it)."""
    tone = rng.uniform(0.0, 5.0) if tone is None else float(np.clip(tone, 0.0, 5.0))
    skin = random_skin(rng, _SKIN, tone)
    dark = tone > 2.6
    hair = _HAIR[rng.integers(0, 2 if dark and rng.random() < 0.85 else len(_HAIR))] * rng.uniform(0.7, 1.3)
    style = str(rng.choice(["bald", "short", "long", "afro", "fringe"], p=[0.08, 0.4, 0.28, 0.08, 0.16]))
    beard = rng.uniform(0.35, 0.95) if style in ("bald", "short", "afro") and rng.random() < 0.4 else 0.0
    return Head(
        seed=int(rng.integers(0, 2**31)),
        skin=triple(np.clip(skin, 0.02, 0.9)),
        hair=triple(hair),
        hair_style=style,
        hair_line=rng.uniform(-0.72, -0.52),
        width=rng.uniform(0.68, 0.80),
        jaw=rng.uniform(-0.10, 0.20),
        eye_size=rng.uniform(0.125, 0.165),
        eye_gap=rng.uniform(0.94, 1.08),
        eye_open=rng.uniform(0.32, 0.52),
        iris=triple(IRIS[rng.integers(0, 2 if dark else len(IRIS))] * rng.uniform(0.8, 1.3)),
        brow_weight=rng.uniform(0.35, 1.0),
        brow_tilt=rng.uniform(-0.16, 0.10),
        brow_height=rng.uniform(0.17, 0.235),
        nose_width=rng.uniform(0.10, 0.165),
        nose_length=rng.uniform(0.32, 0.41),
        mouth_width=rng.uniform(0.19, 0.28),
        mouth_open=max(0.0, rng.uniform(-0.06, 0.085)),
        smile=rng.uniform(-0.05, 0.22),
        lip_red=rng.uniform(0.0, 1.0) * (1.0 if style in ("long", "fringe") else 0.5),
        lip_full=rng.uniform(0.032, 0.062),
        beard=beard,
        age=rng.uniform(0.0, 1.0),
        freckles=rng.uniform(0.3, 1.0) if rng.random() < 0.2 else 0.0,
        glasses=str(rng.choice(["none", "clear", "dark"], p=[0.76, 0.18, 0.06])),
        cap=bool(rng.random() < 0.08),
        cloth=triple(rng.uniform(0.02, 0.6, 3) * rng.uniform(0.3, 1.0)),
    )


def _mix(base: Array, colour: Array | tuple[float, float, float], amount: Array) -> Array:
    """Blend `colour` over `base` (h, w, 3) by `amount` (h, w)."""
    return base + (np.asarray(colour, dtype=np.float32) - base) * amount[..., None]


class _Surface:
    """The head's ellipsoid on a pixel grid: image-frame and head-frame coordinates of the point seen at each pixel."""

    def __init__(self, head: Head, pose: Pose, xs: Array, ys: Array, scale: float) -> None:
        self.pixel = 1.0 / scale
        cos, sin = math.cos(pose.roll), math.sin(pose.roll)
        self.x = (xs * cos + ys * sin).astype(np.float32)  # upright image frame, half head heights
        self.y = (ys * cos - xs * sin).astype(np.float32)
        lower = np.clip(self.y, 0.0, 1.0)
        taper = 1.0 + head.jaw * lower * lower - 0.10 * lower
        across = self.x / (head.width * taper)
        self.radius = np.sqrt(across * across + self.y * self.y)
        inside = np.maximum(1.0 - self.radius * self.radius, 0.0)
        depth = 0.88
        self.z = depth * np.sqrt(inside)
        # Undo pitch, then yaw: the point in the frame of the head.
        cp, sp = math.cos(pose.pitch), math.sin(pose.pitch)
        cy, sy = math.cos(pose.yaw), math.sin(pose.yaw)
        y1, z1 = self.y * cp - self.z * sp * 0.8, self.z * cp + self.y * sp * 0.8
        self.head_x = self.x * cy - z1 * sy
        self.head_y = y1
        self.head_z = z1 * cy + self.x * sy
        self.coverage = np.clip((1.0 - self.radius) * scale * head.width + 0.5, 0.0, 1.0)


def _to_image(points: NDArray[np.float64], head: Head, pose: Pose, scale: float, centre: tuple[float, float]) -> Array:
    """Where head-frame surface points (n, 2) land in the image: the inverse of `_Surface` (a few Newton-like steps)."""
    target = np.asarray(points, dtype=np.float64)
    guess = target.copy()
    for _ in range(12):
        across = guess[:, 0] / head.width
        z = 0.88 * np.sqrt(np.maximum(1.0 - across**2 - guess[:, 1] ** 2, 0.0))
        cp, sp = math.cos(pose.pitch), math.sin(pose.pitch)
        cy, sy = math.cos(pose.yaw), math.sin(pose.yaw)
        z1 = z * cp + guess[:, 1] * sp * 0.8
        here = np.stack([guess[:, 0] * cy - z1 * sy, guess[:, 1] * cp - z * sp * 0.8], axis=1)
        guess = guess + 0.8 * (target - here)
        guess = np.clip(guess, -0.95, 0.95)
    cos, sin = math.cos(pose.roll), math.sin(pose.roll)
    x = guess[:, 0] * cos - guess[:, 1] * sin
    y = guess[:, 0] * sin + guess[:, 1] * cos
    return np.stack([x * scale + centre[0], y * scale + centre[1]], axis=1).astype(np.float32)


def render_head(
    head: Head, pose: Pose, light: Light, centre: tuple[float, float], face_height: float, bounds: tuple[int, int]
) -> Layer:
    """Render one head with neck and shoulders.

    Args:
        head: who.
        pose: how the head is turned.
        light: what lights it.
        centre: middle of the head (x, y) in pixels of the image.
        face_height: hair line to chin in pixels.
        bounds: (height, width) of the image; the layer is cut to it.

    Returns:
        A layer in linear light, down to the lower edge of the image.
    """
    scale = face_height / FACE_UNITS
    left, right = math.floor(centre[0] - 1.9 * scale), math.ceil(centre[0] + 1.9 * scale)
    top, bottom = math.floor(centre[1] - 1.55 * scale), bounds[0]
    left, top = max(left, 0), max(top, 0)
    right, bottom = max(min(right, bounds[1]), left + 2), max(min(bottom, bounds[0]), top + 2)
    fine = 2 if scale < 26 else 1  # small heads are sampled twice as finely: their eyes are a few pixels wide
    shape = ((bottom - top) * fine, (right - left) * fine)
    rows = (np.arange(shape[0], dtype=np.float32) + 0.5) / fine + (top - centre[1])
    columns = (np.arange(shape[1], dtype=np.float32) + 0.5) / fine + (left - centre[0])
    xs = np.broadcast_to(columns[None, :] / np.float32(scale), shape)
    ys = np.broadcast_to(rows[:, None] / np.float32(scale), shape)

    rng = np.random.default_rng(head.seed)  # texture belongs to the identity, not to the scene
    colour, alpha, face = _paint(head, pose, light, xs, ys, scale * fine, rng)
    if fine > 1:
        colour, alpha, face = _halve(colour), _halve(alpha), _halve(face)
    gap = EYE_X * head.eye_gap
    marks = np.array([[-gap, EYE_Y], [gap, EYE_Y], [0.0, MOUTH_Y]])
    return Layer(colour, alpha, face, (left, top), _to_image(marks, head, pose, scale, centre), scale)


def _halve(values: Array) -> Array:
    """Average 2x2 blocks."""
    return (values[0::2, 0::2] + values[1::2, 0::2] + values[0::2, 1::2] + values[1::2, 1::2]) * np.float32(0.25)


def _paint(
    head: Head, pose: Pose, light: Light, xs: Array, ys: Array, scale: float, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    shape = xs.shape
    surface = _Surface(head, pose, xs, ys, scale)
    head_x, head_y, head_z = surface.head_x, surface.head_y, surface.head_z
    front = smoothstep(0.02, 0.3, head_z)
    pixel = surface.pixel

    streaks = noise_field(rng, shape, (scale * 0.5, max(1.2, scale * 0.035)))
    blotch = noise_field(rng, shape, (scale * 0.22, scale * 0.22))
    pores = noise_field(rng, shape, (max(1.0, scale * 0.03), max(1.0, scale * 0.03)))

    # Body: shoulders in cloth, neck in skin, both behind the chin.
    colour, alpha = _body(head, light, xs, ys, scale, blotch, surface)

    height = _relief(head, pose, head_x, head_y, front)
    relief = surface.z + height
    slope_y, slope_x = np.gradient(relief, np.float32(pixel))
    norm = 1.0 / np.sqrt(slope_x * slope_x + slope_y * slope_y + 1.0)
    lx, ly, lz = light.direction
    # Slopes are in the image's own axes, as the light is: the roll is already in them.
    facing = (-slope_x * lx - slope_y * ly + lz) * norm
    diffuse = np.maximum((facing + 0.25) / 1.25, 0.0)  # wrapped: skin scatters light past the terminator
    gloss = np.maximum(facing, 0.0) * norm
    gloss = gloss * gloss * gloss
    gloss = gloss * gloss * gloss

    albedo = _skin(head, head_x, head_y, front, blotch, pores, pixel)
    occlusion = _occlusion(head, head_x, head_y, front)
    albedo = _features(head, pose, albedo, head_x, head_y, front, streaks, pores, pixel)

    hair_amount = _hair_on_head(head, surface, streaks, pixel)
    hair_tone = np.maximum(1.0 + 0.38 * streaks, 0.25)[..., None] * np.asarray(head.hair, dtype=np.float32)
    albedo = albedo + (hair_tone - albedo) * hair_amount[..., None]
    shade = (light.ambient * (0.75 + 0.25 * norm) + (1.15 - light.ambient) * diffuse) * (
        1.0 - 0.75 * (1.0 - occlusion) * (1.0 - hair_amount)
    )
    tint = np.asarray(light.colour, dtype=np.float32)
    lit = (
        albedo * shade[..., None] * tint
        + (0.10 * gloss * (1.0 - hair_amount) * (1.0 - 0.7 * head.beard))[..., None] * tint
    )
    lit = lit + (0.05 * bump((facing - 0.75) * (facing - 0.75) * 16.0) * hair_amount)[..., None] * tint

    # Hair that stands out from or falls behind the head.
    back = _hair_behind(head, surface, streaks)
    back_tone = hair_tone * (light.ambient + 0.35)
    colour = colour + (back_tone - colour) * back[..., None]
    alpha = np.maximum(alpha, back)

    # Ears, half hidden by yaw.
    for side in (-1.0, 1.0):
        if head.hair_style in ("long", "afro"):
            break
        reach = head.width * 1.0 * math.cos(pose.yaw * 0.6) + side * -0.12 * math.sin(pose.yaw)
        ear_x, ear_y = (surface.x - side * reach) / 0.085, (surface.y - 0.05) / 0.2
        distance = ear_x * ear_x + ear_y * ear_y
        ear = np.clip((1.0 - np.sqrt(distance)) * scale * 0.085 + 0.5, 0.0, 1.0)
        tone = np.asarray(head.skin, dtype=np.float32) * np.asarray([0.95, 0.8, 0.78], dtype=np.float32)
        shade_ear = (light.ambient + (1.0 - light.ambient) * max(0.15, 0.5 + 0.5 * side * lx)) * (
            0.55 + 0.45 * np.minimum(distance, 1.0)
        )
        colour = colour + (tone * shade_ear[..., None] * tint - colour) * ear[..., None]
        alpha = np.maximum(alpha, ear)

    coverage = surface.coverage
    colour = colour + (lit - colour) * coverage[..., None]
    alpha = np.maximum(alpha, coverage)
    # The face reaches to where the side of the head turns away; hair (and a cap) hide it.
    face = coverage * (1.0 - hair_amount) * smoothstep(-0.04, 0.06, head_z)

    if head.hair_style in ("fringe", "long"):
        colour, face = _fringe(head, surface, colour, face, hair_tone, light, streaks, scale)
    if head.glasses != "none":
        colour = _glasses(head, colour, head_x, head_y, front, coverage, pixel)
    if head.cap:
        colour, alpha, face = _cap(head, surface, colour, alpha, face, light, scale)
    return colour.astype(np.float32), alpha.astype(np.float32), face.astype(np.float32)


def _body(
    head: Head, light: Light, xs: Array, ys: Array, scale: float, blotch: Array, surface: _Surface
) -> tuple[Array, Array]:
    tint = np.asarray(light.colour, dtype=np.float32)
    wide = 1.15 + 0.25 * head.width
    shoulder_y = 1.42 + 0.42 * (xs / wide) * (xs / wide)
    body = np.clip((ys - shoulder_y) * scale + 0.5, 0.0, 1.0) * np.clip(
        (wide * 1.25 - np.abs(xs)) * scale + 0.5, 0.0, 1.0
    )
    slant = np.clip(0.75 + 0.35 * light.direction[0] * xs - 0.12 * (ys - 1.4), 0.2, 1.3)
    folds = 1.0 + 0.12 * blotch
    cloth = np.asarray(head.cloth, dtype=np.float32) * tint * (slant * folds)[..., None]
    collar = np.clip((1.62 - 0.9 * np.abs(xs) - ys) * scale * 0.7 + 0.5, 0.0, 1.0)
    neck_half = 0.40 + 0.06 * head.jaw
    neck = np.clip((neck_half - np.abs(surface.x * 0.5 + xs * 0.5)) * scale + 0.5, 0.0, 1.0)
    neck = neck * np.clip((ys - 0.3) * scale + 0.5, 0.0, 1.0)
    round_off = 1.0 - (xs / 0.5) * (xs / 0.5) * 0.5
    under_chin = 0.30 + 0.5 * smoothstep(0.95, 1.55, ys)
    neck_shade = np.clip(round_off + 0.5 * light.direction[0] * xs / 0.4, 0.1, 1.2) * under_chin
    skin = np.asarray(head.skin, dtype=np.float32) * tint * neck_shade[..., None]
    visible_neck = neck * np.maximum(1.0 - body, collar)
    colour = cloth + (skin - cloth) * visible_neck[..., None]
    return colour, np.maximum(body, visible_neck)


def _relief(head: Head, pose: Pose, x: Array, y: Array, front: Array) -> Array:
    """Height of the features over the ellipsoid, in half head heights."""
    nose_tip = EYE_Y + head.nose_length + 0.02
    down = np.clip((y - EYE_Y + 0.08) / (nose_tip - EYE_Y + 0.08), 0.0, 1.0)
    lean = x - 0.16 * math.sin(pose.yaw) * down  # the nose stands out of the face: it moves further than the rest
    bridge_half = 0.055 + (head.nose_width - 0.055) * down * down
    bridge = bump((lean / (bridge_half * 1.5)) * (lean / (bridge_half * 1.5)))
    below = smoothstep(nose_tip + 0.085, nose_tip - 0.02, y)
    height = 0.17 * bridge * down * below
    gap = EYE_X * head.eye_gap
    aside = (np.abs(x) - gap) / 0.24
    socket_y = (y - EYE_Y - 0.0) / 0.17
    height = height - 0.075 * bump(aside * aside + socket_y * socket_y)
    ball = (np.abs(x) - gap) / 0.15
    height = height + 0.03 * bump(ball * ball + (socket_y * 1.3) * (socket_y * 1.3))
    brow_y = (y - EYE_Y + head.brow_height) / 0.12
    brow_x = x / 0.62
    height = height + 0.045 * bump(brow_y * brow_y + brow_x * brow_x * brow_x * brow_x)
    cheek_x, cheek_y = (np.abs(x) - 0.42) / 0.28, (y - 0.28) / 0.3
    height = height + (0.035 + 0.05 * max(head.smile, 0.0)) * bump(cheek_x * cheek_x + cheek_y * cheek_y)
    lip_x, lip_y = x / (head.mouth_width * 1.25), (y - MOUTH_Y) / 0.115
    height = height + 0.05 * bump(lip_x * lip_x + lip_y * lip_y)
    chin_x, chin_y = x / 0.26, (y - 0.87) / 0.16
    height = height + 0.05 * bump(chin_x * chin_x + chin_y * chin_y)
    fold = (np.abs(x) - 0.16 - 0.28 * (y - 0.33)) / 0.05
    fold_y = (y - 0.47) / 0.17
    height = height - (0.006 + 0.022 * head.age) * bump(fold * fold) * bump(fold_y * fold_y)
    return height * front


def _skin(head: Head, x: Array, y: Array, front: Array, blotch: Array, pores: Array, pixel: float) -> Array:
    tone = np.asarray(head.skin, dtype=np.float32)
    shade = 1.0 + 0.035 * blotch + (0.028 + 0.03 * head.age) * pores
    albedo = tone * np.clip(shade, 0.7, 1.3)[..., None]
    cheek_x, cheek_y = (np.abs(x) - 0.36) / 0.25, (y - 0.3) / 0.22
    nose_x, nose_y = x / 0.14, (y - 0.36) / 0.14
    flush = (
        0.30 * bump(cheek_x * cheek_x + cheek_y * cheek_y) + 0.25 * bump(nose_x * nose_x + nose_y * nose_y)
    ) * front
    red = np.asarray([0.04, -0.22, -0.22], dtype=np.float32)
    albedo = albedo * (1.0 + red * flush[..., None])
    if head.freckles:
        spots = (
            smoothstep(1.2, 2.0, pores)
            * head.freckles
            * front
            * bump(cheek_x * cheek_x * 0.3 + cheek_y * cheek_y * 0.5)
        )
        albedo = albedo * (1.0 - 0.45 * spots)[..., None]
    if head.beard:
        jaw_y = smoothstep(0.36, 0.60, y - 0.10 * np.abs(x) * 0.0)
        lip_x, lip_y = x / (head.mouth_width * 1.1), (y - MOUTH_Y) / 0.07
        sideburn = smoothstep(0.42, 0.58, np.abs(x)) * smoothstep(0.0, 0.15, y)
        area = np.maximum(jaw_y * smoothstep(0.08, 0.30, np.abs(x) + (y - 0.40)), sideburn)
        area = area * (1.0 - 0.9 * bump(lip_x * lip_x + lip_y * lip_y))
        amount = np.clip(area * head.beard * (0.85 + 0.35 * pores), 0.0, 0.95)
        albedo = _mix(albedo, head.hair, amount)
    return albedo


def _occlusion(head: Head, x: Array, y: Array, front: Array) -> Array:
    """How much of the ambient light reaches the skin: less in sockets, under nose and lip, 1 elsewhere."""
    gap = EYE_X * head.eye_gap
    aside, above = (np.abs(x) - gap + 0.03) / 0.2, (y - EYE_Y + 0.06) / 0.12
    dark = 0.40 * bump(aside * aside + above * above)
    under_x, under_y = x / (head.nose_width * 1.15), (y - EYE_Y - head.nose_length - 0.075) / 0.055
    dark = dark + 0.55 * bump(under_x * under_x + under_y * under_y)
    lip_x, lip_y = x / (head.mouth_width * 0.75), (y - MOUTH_Y - 0.12) / 0.05
    dark = dark + 0.35 * bump(lip_x * lip_x + lip_y * lip_y)
    side_x, side_y = (np.abs(x) - 0.055) / 0.05, (y - EYE_Y - 0.02) / 0.13
    dark = dark + 0.22 * bump(side_x * side_x + side_y * side_y)
    return 1.0 - dark * front


def _features(
    head: Head, pose: Pose, albedo: Array, x: Array, y: Array, front: Array, streaks: Array, pores: Array, pixel: float
) -> Array:
    soft = max(pixel, 0.012)
    gap = EYE_X * head.eye_gap
    half_width, half_height = head.eye_size, head.eye_size * head.eye_open
    for side in (-1.0, 1.0):
        u = (x - side * gap) / half_width
        v = y - EYE_Y - 0.012 * side * u * -1.0
        arch = np.maximum(1.0 - u * u, 0.0)
        upper, lower = -half_height * arch * 1.05, half_height * arch * 0.75
        opening = np.clip((v - upper) / soft + 0.5, 0.0, 1.0) * np.clip((lower - v) / soft + 0.5, 0.0, 1.0)
        opening = opening * np.clip((1.0 - np.abs(u)) * half_width / soft + 0.5, 0.0, 1.0) * front
        # Lid crease and lashes first, then the eyeball.
        crease = (v - upper * 1.25 + 0.045) / 0.03
        albedo = albedo * (1.0 - 0.30 * bump(crease * crease) * np.sqrt(arch) * front)[..., None]
        albedo = _mix(albedo, (0.50, 0.46, 0.44), opening * 0.92)
        gaze = 0.18 * math.sin(pose.yaw) * -0.5
        ball_u, ball_v = (u - gaze) * half_width, v + half_height * 0.12
        radius = math.sqrt(1.0) * half_width * 0.46
        distance = np.sqrt(ball_u * ball_u + ball_v * ball_v)
        iris = np.clip((radius - distance) / soft + 0.5, 0.0, 1.0) * opening
        albedo = _mix(albedo, head.iris, iris)
        pupil = np.clip((radius * 0.45 - distance) / soft + 0.5, 0.0, 1.0) * opening
        albedo = _mix(albedo, (0.008, 0.008, 0.008), pupil)
        lash = (v - upper) / (0.016 + soft * 0.6)
        lashes = bump(lash * lash) * np.sqrt(arch) * front
        albedo = _mix(albedo, (0.015, 0.011, 0.01), np.clip(lashes * 0.85, 0.0, 1.0))
        spark_u, spark_v = ball_u - radius * 0.35, ball_v + radius * 0.35
        spark = np.clip((radius * 0.3 - np.sqrt(spark_u * spark_u + spark_v * spark_v)) / soft + 0.5, 0.0, 1.0)
        albedo = _mix(albedo, (1.3, 1.3, 1.3), spark * opening * 0.8)
        # Brow: an arch of hairs, thinner outwards.
        along = (x - side * (gap + 0.01)) / (half_width * 1.45)
        brow_y = EYE_Y - head.brow_height + head.brow_tilt * along * side * 0.35 + 0.045 * along * along
        thick = (0.042 - 0.016 * along * side) * (0.7 + 0.5 * head.brow_weight)
        across = (y - brow_y) / np.maximum(thick, 0.015)
        hairs = np.clip(0.85 + 0.25 * pores, 0.3, 1.2)
        amount = (
            bump(across * across)
            * bump(along * along * along * along)
            * hairs
            * (0.45 + 0.5 * head.brow_weight)
            * front
        )
        albedo = _mix(albedo, tuple(min(0.2, c * 0.8) for c in head.hair), np.clip(amount, 0.0, 0.95))  # type: ignore[arg-type]
    # Nostrils.
    for side in (-1.0, 1.0):
        lean = x - 0.10 * math.sin(pose.yaw)
        u, v = (lean - side * head.nose_width * 0.5) / 0.042, (y - EYE_Y - head.nose_length - 0.045) / 0.024
        albedo = albedo * (1.0 - 0.8 * bump(u * u + v * v) * front)[..., None]
    # Mouth: two lips around a line that curves with the smile; teeth in an open one.
    u = x / head.mouth_width
    line = MOUTH_Y - head.smile * 0.28 * u * u
    arch = np.maximum(1.0 - u * u, 0.0)
    opening = head.mouth_open * arch
    dip = bump((u * 6.0) * (u * 6.0)) * 0.012
    top_lip = line - opening * 0.35 - head.lip_full * arch + dip
    low_lip = line + opening * 0.65 + head.lip_full * 1.35 * arch
    lips = np.clip((y - top_lip) / (soft * 1.5) + 0.5, 0.0, 1.0) * np.clip((low_lip - y) / (soft * 1.5) + 0.5, 0.0, 1.0)
    lips = lips * np.clip((1.0 - np.abs(u)) * head.mouth_width / soft + 0.5, 0.0, 1.0) * front
    skin = np.asarray(head.skin, dtype=np.float32)
    natural = skin * np.asarray([0.82, 0.52, 0.52], dtype=np.float32)
    painted = np.asarray([0.42, 0.05, 0.06], dtype=np.float32)
    albedo = _mix(albedo, natural + (painted - natural) * np.float32(0.65 * head.lip_red), lips * 0.85)
    seam = (y - line) / (0.012 + soft * 0.5)
    seam_amount = bump(seam * seam) * smoothstep(1.08, 0.9, np.abs(u)) * front
    albedo = albedo * (1.0 - 0.72 * seam_amount)[..., None]
    if head.mouth_open > 0.012:
        inner = np.clip((y - line + opening * 0.35) / soft + 0.5, 0.0, 1.0)
        inner = (
            inner * np.clip((line + opening * 0.65 - y) / soft + 0.5, 0.0, 1.0) * np.minimum(arch * 4.0, 1.0) * front
        )
        albedo = _mix(albedo, (0.05, 0.012, 0.012), inner * 0.95)
        teeth = inner * np.clip((line + opening * 0.25 - y) / soft + 0.5, 0.0, 1.0) * smoothstep(0.85, 0.6, np.abs(u))
        albedo = _mix(albedo, (0.62, 0.58, 0.50), teeth * 0.9)
    return albedo


def _hair_on_head(head: Head, surface: _Surface, streaks: Array, pixel: float) -> Array:
    """Share of hair over skin on the head itself (h, w)."""
    x, y, z = surface.head_x, surface.head_y, surface.head_z
    edge = max(pixel * 1.5, 0.035)
    if head.hair_style == "bald":
        return 0.35 * smoothstep(0.05, -0.15, z) * smoothstep(0.2, 0.0, y)
    ragged = 0.03 * streaks
    line = head.hair_line + 0.30 * x * x + ragged
    if head.hair_style == "fringe":
        line = line + 0.16 + 0.10 * x
    top = np.clip((line - y) / edge + 0.5, 0.0, 1.0)
    low = {"long": 0.62, "afro": 0.25, "fringe": 0.55, "short": 0.12}[head.hair_style]
    sides = np.clip((0.24 + 0.5 * ragged - z) / edge + 0.5, 0.0, 1.0) * np.clip((low - y) / edge + 0.5, 0.0, 1.0)
    return np.maximum(top, sides)


def _hair_behind(head: Head, surface: _Surface, streaks: Array) -> Array:
    """Coverage of the hair that stands around or falls behind the head (h, w)."""
    x, y = surface.x, surface.y
    scale = 1.0 / surface.pixel
    puff = {"bald": 0.0, "short": 0.06, "fringe": 0.10, "long": 0.15, "afro": 0.32}[head.hair_style]
    if not puff:
        return np.zeros_like(x)
    rim = x / (head.width + puff)
    crown = (y + 0.05) / (1.0 + puff)
    cap = np.clip((1.0 + 0.03 * streaks - np.sqrt(rim * rim + crown * crown)) * scale * 0.8 + 0.5, 0.0, 1.0)
    limit = {"short": 0.05, "fringe": 0.6, "long": 0.3, "afro": 0.5}[head.hair_style]
    cap = cap * np.clip((limit - y) * scale * 0.25 + 0.5, 0.0, 1.0)
    if head.hair_style != "long":
        return cap
    length = 1.2 + 0.8 * head.age
    fall = np.clip((head.width + puff + 0.05 * (y - 0.2) + 0.03 * streaks - np.abs(x)) * scale + 0.5, 0.0, 1.0)
    fall = (
        fall
        * np.clip((y + 0.1) * scale + 0.5, 0.0, 1.0)
        * np.clip((length + 0.1 * streaks - y) * scale * 0.3 + 0.5, 0.0, 1.0)
    )
    inner = np.clip((np.abs(x) - 0.42) * scale * 0.5 + 0.5, 0.0, 1.0)
    return np.maximum(cap, fall * np.maximum(inner, smoothstep(0.9, 0.5, y)))


def _fringe(
    head: Head,
    surface: _Surface,
    colour: Array,
    face: Array,
    hair_tone: Array,
    light: Light,
    streaks: Array,
    scale: float,
) -> tuple[Array, Array]:
    """Locks that hang over the sides of the face."""
    side = 1.0 if head.seed & 1 else -1.0
    inner = head.width * (0.80 if head.hair_style == "long" else 0.88) + 0.02 * streaks
    strength = 1.0 if head.hair_style == "long" else 0.7
    lock = np.clip((side * surface.x - inner) * scale * 0.6 + 0.5, 0.0, 1.0) * smoothstep(1.05, 0.7, surface.y)
    lock = lock * smoothstep(-0.9, -0.6, surface.y) * strength * np.clip((surface.coverage * 2.0), 0.0, 1.0)
    colour = colour + (hair_tone * np.float32(light.ambient + 0.4) - colour) * lock[..., None]
    return colour, face * (1.0 - lock)


def _glasses(head: Head, colour: Array, x: Array, y: Array, front: Array, coverage: Array, pixel: float) -> Array:
    gap = EYE_X * head.eye_gap
    frame = max(0.016, pixel * 0.6)
    u, v = (np.abs(x) - gap) / 0.215, (y - EYE_Y - 0.015) / 0.155
    u2, v2 = u * u, v * v
    reach = np.sqrt(np.sqrt(u2 * u2 + v2 * v2))  # a rounded rectangle
    lens = np.clip((1.0 - reach) * 0.16 / pixel + 0.5, 0.0, 1.0) * front * coverage
    rim = np.clip((frame - np.abs(reach - 1.0) * 0.16) / pixel + 0.5, 0.0, 1.0)
    bridge = np.clip((frame - np.abs(y - EYE_Y + 0.03)) / pixel + 0.5, 0.0, 1.0) * np.clip(
        (gap - 0.2 - np.abs(x)) / pixel + 0.5, 0.0, 1.0
    )
    temple = np.clip((frame - np.abs(y - EYE_Y + 0.05)) / pixel + 0.5, 0.0, 1.0) * np.clip(
        (np.abs(x) - gap - 0.2) / pixel + 0.5, 0.0, 1.0
    )
    wire = np.maximum(np.maximum(rim, bridge), temple) * smoothstep(-0.1, 0.1, front - 0.05) * coverage
    if head.glasses == "dark":
        tinted = np.asarray([0.012, 0.012, 0.014], dtype=np.float32)
        sheen = 0.08 * bump((u - v * 0.6 + 0.5) * (u - v * 0.6 + 0.5) * 4.0)
        colour = colour + (tinted + sheen[..., None] - colour) * (lens * 0.92)[..., None]
    else:
        sheen = 0.10 * bump((u + v * 0.8 - 0.3) * (u + v * 0.8 - 0.3) * 9.0) * lens
        colour = colour * (1.0 - 0.06 * lens)[..., None] + sheen[..., None]
    return _mix(colour, (0.02, 0.018, 0.018) if head.seed & 2 else (0.12, 0.07, 0.04), wire * 0.95)


def _cap(
    head: Head, surface: _Surface, colour: Array, alpha: Array, face: Array, light: Light, scale: float
) -> tuple[Array, Array, Array]:
    """A cap down to the forehead, with its brim."""
    x, y = surface.x, surface.y
    rim, crown = x / (head.width + 0.08), (y + 0.08) / 1.05
    dome = np.clip((1.0 - np.sqrt(rim * rim + crown * crown)) * scale * 0.8 + 0.5, 0.0, 1.0)
    edge = -0.46 + 0.10 * surface.head_x * surface.head_x
    dome = dome * np.clip((edge - surface.head_y) * scale + 0.5, 0.0, 1.0)
    brim_x, brim_y = surface.head_x / 0.62, (surface.head_y + 0.44) / 0.10
    brim = np.clip((1.0 - np.sqrt(brim_x * brim_x + brim_y * brim_y)) * scale * 0.1 + 0.5, 0.0, 1.0) * smoothstep(
        -0.1, 0.1, surface.head_z
    )
    cloth = np.asarray([head.cloth[2], head.cloth[0], head.cloth[1]], dtype=np.float32)
    shade = np.clip(
        light.ambient + 0.6 * (light.direction[2] + light.direction[0] * rim - light.direction[1] * -crown), 0.1, 1.2
    )
    colour = colour + (cloth * shade[..., None] - colour) * dome[..., None]
    colour = colour + (cloth * np.float32(0.5) * shade[..., None] - colour) * brim[..., None]
    hat = np.maximum(dome, brim)
    return colour, np.maximum(alpha, hat), face * (1.0 - hat)
