"""What is on a face: relief, skin, eyes, brows, nose, mouth, as functions of the head's own coordinates.

All take x (to the image's right on a frontal face), y (down) in half head heights, (h, w) each, and `front`, which fades
out what has turned away.
"""

from __future__ import annotations

import numpy as np

from comics.data.crowd.people import Expression, Head
from comics.data.rendering.people import Pose
from comics.data.rendering.shapes import Array, bell, bump, cos_sin, edge, mix, planes, smoothstep, spot

EYE_X, EYE_Y = 0.295, -0.02
MOUTH_Y = 0.585


def relief(head: Head, expression: Expression, pose: Pose, x: Array, y: Array, front: Array) -> Array:
    """Height of the features over the ellipsoid, in half head heights."""
    aside = np.abs(x)
    gap = EYE_X * head.eye_gap
    nose_tip = EYE_Y + head.nose_length + 0.02
    down = np.clip((y - EYE_Y + 0.08) / (nose_tip - EYE_Y + 0.08), 0.0, 1.0)
    # the nose stands out of the face: it moves further than the rest
    lean = x - 0.16 * cos_sin(pose.yaw)[1] * down
    bridge = lean / ((0.055 + (head.nose_width - 0.055) * down * down) * 1.5)
    height = 0.18 * bump(bridge * bridge) * down * smoothstep(nose_tip + 0.085, nose_tip - 0.02, y)
    wing = spot(np.abs(lean), y, (head.nose_width * 0.62, nose_tip + 0.01), (0.075, 0.075))
    height = height + 0.035 * wing
    height = height - 0.075 * spot(aside, y, (gap, EYE_Y), (0.24, 0.17))
    height = height + 0.035 * spot(aside, y, (gap, EYE_Y), (0.15, 0.12))
    height = height + 0.05 * spot(x, y, (0.0, EYE_Y - head.brow_height), (0.62, 0.12))
    smile = max(expression.smile, 0.0)
    height = height + (0.04 + 0.16 * smile) * spot(aside, y, (0.41, 0.26 - 0.1 * smile), (0.27, 0.28))
    height = height - (0.012 + 0.03 * head.age) * spot(aside, y, (0.5, 0.52), (0.16, 0.24))  # the hollow of the cheek
    height = height + 0.05 * spot(x, y, (0.0, MOUTH_Y), (head.mouth_width * 1.25, 0.115))
    height = height + 0.05 * spot(x, y, (0.0, 0.87), (0.26, 0.16))
    fold = (aside - 0.15 - (0.28 + 0.25 * smile) * (y - 0.33)) / 0.05
    height = height - (0.006 + 0.024 * head.age + 0.06 * smile) * bump(fold * fold) * bell(y, 0.47, 0.17)
    return height * front


def occlusion(head: Head, x: Array, y: Array, front: Array) -> Array:
    """How much of the ambient light reaches the skin: less in sockets, under nose and lip, 1 elsewhere."""
    aside = np.abs(x)
    gap = EYE_X * head.eye_gap
    dark = 0.42 * spot(aside, y, (gap - 0.03, EYE_Y - 0.06), (0.2, 0.12))
    dark = dark + 0.55 * spot(x, y, (0.0, EYE_Y + head.nose_length + 0.075), (head.nose_width * 1.15, 0.055))
    dark = dark + 0.35 * spot(x, y, (0.0, MOUTH_Y + 0.12), (head.mouth_width * 0.75, 0.05))
    dark = dark + 0.24 * spot(aside, y, (0.055, EYE_Y + 0.02), (0.05, 0.13))
    dark = dark + (0.05 + 0.16 * head.age) * spot(aside, y, (gap, EYE_Y + 0.14), (0.13, 0.055))  # bags under the eyes
    return 1.0 - dark * front


def skin(head: Head, expression: Expression, x: Array, y: Array, front: Array, blotch: Array, pores: Array) -> Array:
    """Albedo (3, h, w) of bare skin: tone, mottling, flushed cheeks and nose, freckles, wrinkles, a mole."""
    aside = np.abs(x)
    tone = planes(head.skin)
    shade = 1.0 + 0.05 * blotch + (0.03 + 0.03 * head.age) * pores
    flush = 0.35 * spot(aside, y, (0.37, 0.3), (0.27, 0.24)) + 0.35 * spot(x, y, (0.0, 0.36), (0.16, 0.15))
    flush = (flush + 0.08 * np.clip(blotch, -1.0, 1.5)) * front
    if head.age > 0.35 or expression.brow_raise > 0.4:
        depth = 0.18 * max(head.age - 0.3, expression.brow_raise * 0.6)
        for level in (-0.36, -0.45, -0.53):
            shade = shade - depth * bell(y + 0.06 * x * x, level, 0.022) * smoothstep(0.5, 0.2, aside) * front
    if head.age > 0.4 or expression.smile > 0.2:
        for slope in (-0.5, 0.0, 0.5):  # crow's feet
            lines = y - EYE_Y - slope * (aside - 0.44)
            shade = shade - 0.14 * bell(lines, 0.0, 0.016) * bell(aside, 0.51, 0.08) * front
    if expression.frown > 0.3:
        shade = shade - 0.35 * expression.frown * bell(aside, 0.045, 0.025) * bell(y, EYE_Y - 0.17, 0.1) * front
    if head.freckles:
        shade = shade - 0.4 * head.freckles * smoothstep(0.9, 1.9, pores) * spot(x, y, (0.0, 0.2), (0.7, 0.42)) * front
    if head.seed & 12 == 0:
        place = (0.45 * ((head.seed >> 8 & 255) / 128 - 1), 0.1 + 0.6 * (head.seed >> 16 & 255) / 256)
        shade = shade - 0.6 * spot(x, y, place, (0.03, 0.03))
    albedo = tone * np.clip(shade, 0.4, 1.35)
    return albedo * (1.0 + planes((0.05, -0.24, -0.22)) * flush)


def eyes(
    head: Head, expression: Expression, pose: Pose, albedo: Array, x: Array, y: Array, front: Array, pixel: float
) -> Array:
    """Eyeballs between lids, with lashes, the crease over them, and a reflection."""
    soft = max(pixel, 0.012)
    gap = EYE_X * head.eye_gap
    half_width = head.eye_size
    half_height = half_width * head.eye_open * (1.0 + 0.35 * expression.brow_raise) * (1.0 - 0.92 * expression.squint)
    for side in (-1.0, 1.0):
        u = (x - side * gap) / half_width
        v = y - EYE_Y + 0.014 * side * u
        arch = np.maximum(1.0 - u * u, 0.0)
        root = np.sqrt(arch)
        upper, lower = -half_height * arch * 1.05, half_height * arch * (0.75 - 0.3 * max(expression.smile, 0.0))
        opening = edge(v - upper, soft) * edge(lower - v, soft) * edge((1.0 - np.abs(u)) * half_width, soft) * front
        crease = (v - upper * 1.25 + 0.045) / 0.03
        albedo = albedo * (1.0 - 0.34 * bump(crease * crease) * root * front)
        below = (v - lower * 1.2 - 0.03) / 0.03
        albedo = albedo * (1.0 - (0.10 + 0.2 * head.age) * bump(below * below) * root * front)
        lid_shade = 0.3 + 0.7 * np.clip((v - upper) / (half_height * 0.9 + 0.004), 0.0, 1.0)
        albedo = mix(albedo, planes((0.40, 0.36, 0.34)) * lid_shade, opening * 0.92)
        gaze = 0.22 * expression.gaze - 0.15 * cos_sin(pose.yaw)[1]
        ball_u, ball_v = (u - gaze) * half_width, v + half_height * 0.1
        radius = half_width * 0.46
        distance = np.sqrt(ball_u * ball_u + ball_v * ball_v)
        albedo = mix(albedo, head.iris, edge(radius - distance, soft) * opening)
        albedo = mix(albedo, (0.008, 0.008, 0.008), edge(radius * 0.48 - distance, soft) * opening)
        lash = (v - upper) / (0.018 + soft * 0.6)
        albedo = mix(albedo, (0.015, 0.011, 0.01), 0.88 * bump(lash * lash) * root * front)
        spark = spot(ball_u, ball_v, (radius * 0.35, -radius * 0.35), (radius * 0.4 + soft, radius * 0.4 + soft))
        albedo = mix(albedo, (1.3, 1.3, 1.3), spark * opening * 0.8)
    return albedo


def brows(head: Head, expression: Expression, albedo: Array, x: Array, y: Array, front: Array, pores: Array) -> Array:
    """Two arches of hair, thinner outwards, that rise and knit."""
    gap = EYE_X * head.eye_gap
    hairs = np.clip(0.8 + 0.35 * pores, 0.25, 1.2) * (0.4 + 0.55 * head.brow_weight) * front
    tone = planes(np.minimum(0.2, 0.8 * np.asarray(head.hair)))
    for side in (-1.0, 1.0):
        along = (x - side * (gap + 0.01 - 0.03 * expression.frown)) / (head.eye_size * 1.5)
        outward = along * side
        level = EYE_Y - head.brow_height - 0.07 * expression.brow_raise + 0.03 * expression.frown
        height = level + (head.brow_tilt * 0.35 - 0.045 * expression.frown) * outward + 0.05 * along * along
        thick = np.maximum((0.042 - 0.018 * outward) * (0.65 + 0.5 * head.brow_weight), 0.014)
        across = (y - height) / thick
        square = along * along
        albedo = mix(albedo, tone, np.clip(bump(across * across) * bump(square * square) * hairs, 0.0, 0.95))
    return albedo


def mouth(
    head: Head, expression: Expression, pose: Pose, albedo: Array, x: Array, y: Array, front: Array, pixel: float
) -> Array:
    """Nostrils, and two lips around a line that curves with the smile; teeth and tongue in an open one."""
    soft = max(pixel, 0.012)
    lean = x - 0.10 * cos_sin(pose.yaw)[1]
    nostrils = spot(np.abs(lean), y, (head.nose_width * 0.5, EYE_Y + head.nose_length + 0.045), (0.042, 0.026))
    albedo = albedo * (1.0 - 0.8 * nostrils * front)
    width = head.mouth_width * (1.0 + 0.5 * max(expression.smile, 0.0) - 0.9 * expression.brow_raise * 0.25)
    u = x / width
    arch = np.maximum(1.0 - u * u, 0.0)
    line = MOUTH_Y + 0.02 * expression.smile - expression.smile * 0.36 * u * u
    opening = expression.mouth_open * arch
    full = head.lip_full * (1.0 - 0.4 * max(expression.smile, 0.0)) * arch
    upper, lower = line - opening * 0.4, line + opening * 0.95
    within = edge((1.0 - np.abs(u)) * width, soft) * front
    dip = 0.012 * bell(u, 0.0, 1.0 / 6.0)
    lips = edge(y - upper + full - dip, soft * 1.5) * edge(lower + full * 1.35 - y, soft * 1.5) * within
    tone = planes(head.skin) * planes((0.84, 0.55, 0.54))
    tone = tone + (planes((0.42, 0.05, 0.06)) - tone) * np.float32(0.65 * head.lip_red)
    gloss = 0.85 + 0.35 * smoothstep(0.0, 0.05, y - lower)
    albedo = mix(albedo, tone * gloss, lips * 0.85)
    seam = (y - line) / (0.012 + soft * 0.5)
    seam_width = smoothstep(1.1, 0.9, np.abs(u)) * front
    albedo = albedo * (1.0 - 0.72 * bump(seam * seam) * seam_width)
    corner = spot(np.abs(x), y, (width, MOUTH_Y - expression.smile * 0.34), (0.045, 0.045))
    albedo = albedo * (1.0 - 0.4 * corner * front)
    if expression.mouth_open > 0.012:
        inner = edge(y - upper, soft) * edge(lower - y, soft) * np.minimum(arch * 4.0, 1.0) * front
        albedo = mix(albedo, (0.045, 0.012, 0.012), inner * 0.95)
        row = upper + expression.mouth_open * (1.0 if expression.smile > 0.15 else 0.35) * arch
        between = ((u * 4.0) % 1.0 - 0.5) * 2.0
        gaps = 1.0 - 0.18 * between * between
        teeth = inner * edge(row - y, soft) * smoothstep(0.95, 0.7, np.abs(u))
        albedo = mix(albedo, planes((0.62, 0.58, 0.50)) * gaps, teeth * 0.9)
    return albedo
