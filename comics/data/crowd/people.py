"""Who is photographed, how, and in which light: identities, expressions and poses drawn from a generator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from comics.data.rendering.people import IRIS, Pose, random_skin, triple
from comics.data.rendering.shapes import Colour


@dataclass(frozen=True)
class Expression:
    """What the face does. `squint` in [0, 1] closes the eyes, `gaze` is -1 (left) to 1."""

    smile: float
    mouth_open: float
    brow_raise: float
    frown: float
    squint: float
    gaze: float


@dataclass(frozen=True)
class Head:
    """Identity: everything that stays when the same person is photographed again. Lengths in half head heights."""

    seed: int
    skin: Colour
    hair: Colour
    hair_style: str  # one of HAIR_STYLES
    hair_line: float
    receding: float
    parting: float
    width: float
    jaw: float
    eye_size: float
    eye_gap: float
    eye_open: float
    iris: Colour
    brow_weight: float
    brow_tilt: float
    brow_height: float
    nose_width: float
    nose_length: float
    mouth_width: float
    lip_red: float
    lip_full: float
    beard: float
    beard_style: str  # one of BEARD_STYLES
    age: float
    freckles: float
    glasses: str  # none | clear | dark
    cap: bool
    cloth: Colour
    pattern: int


HAIR_STYLES = ("bald", "buzz", "short", "parted", "long", "fringe", "curly")
BEARD_STYLES = ("stubble", "full", "goatee", "moustache")

# Linear-light skin from very fair to very dark, measured by eye on grey-card portraits; tones between are blends.
_SKIN = np.array(
    [
        [0.80, 0.565, 0.46],
        [0.68, 0.44, 0.325],
        [0.54, 0.325, 0.22],
        [0.37, 0.20, 0.12],
        [0.20, 0.098, 0.058],
        [0.105, 0.05, 0.031],
    ]
)
_HAIR = np.array(
    [
        [0.012, 0.010, 0.009],
        [0.030, 0.019, 0.013],
        [0.075, 0.040, 0.021],
        [0.30, 0.18, 0.08],
        [0.17, 0.058, 0.022],
        [0.33, 0.32, 0.31],
    ]
)


def random_pose(rng: np.random.Generator) -> Pose:
    """Mostly towards the camera, one in seven in half or full profile."""
    yaw = float(np.clip(rng.normal(0.0, 0.33), -0.75, 0.75))
    if rng.random() < 0.15:
        yaw = (1.0 if rng.random() < 0.5 else -1.0) * rng.uniform(0.75, 1.3)
    return Pose(
        yaw, float(np.clip(rng.normal(0.0, 0.14), -0.3, 0.35)), float(np.clip(rng.normal(0.0, 0.16), -0.5, 0.5))
    )


def random_expression(rng: np.random.Generator) -> Expression:
    """Neutral, smiling, laughing, talking, surprised or frowning."""
    mood = rng.choice(6, p=[0.30, 0.26, 0.16, 0.12, 0.08, 0.08])
    smile, opening, raised, frown, squint = rng.uniform(-0.03, 0.07), 0.0, rng.uniform(0, 0.2), 0.0, rng.uniform(0, 0.2)
    if mood == 1:
        smile = rng.uniform(0.14, 0.3)
    elif mood == 2:
        smile, opening, squint = rng.uniform(0.26, 0.42), rng.uniform(0.07, 0.13), rng.uniform(0.2, 0.55)
    elif mood == 3:
        opening = rng.uniform(0.04, 0.1)
    elif mood == 4:
        opening, raised, squint = rng.uniform(0.09, 0.16), rng.uniform(0.6, 1.0), 0.0
    elif mood == 5:
        smile, frown = rng.uniform(-0.2, -0.08), rng.uniform(0.5, 1.0)
    if rng.random() < 0.05:
        squint = 1.0  # a blink
    return Expression(smile, opening, raised, frown, squint, rng.uniform(-1, 1))


def random_head(rng: np.random.Generator) -> Head:
    """Draw an identity."""
    tone = rng.uniform(0.0, 5.0)
    skin = random_skin(rng, _SKIN, tone)
    dark = tone > 2.6
    hair = _HAIR[rng.integers(0, 2 if dark and rng.random() < 0.85 else len(_HAIR))] * rng.uniform(0.7, 1.3)
    style = str(rng.choice(HAIR_STYLES, p=[0.07, 0.08, 0.2, 0.17, 0.26, 0.13, 0.09]))
    bearded = style not in ("long", "fringe") and rng.random() < 0.5
    return Head(
        seed=int(rng.integers(0, 2**31)),
        skin=triple(np.clip(skin, 0.02, 0.9)),
        hair=triple(hair),
        hair_style=style,
        hair_line=rng.uniform(-0.72, -0.54),
        receding=rng.uniform(0.0, 1.0),
        parting=rng.uniform(-0.45, 0.45),
        width=rng.uniform(0.68, 0.79),
        jaw=rng.uniform(-0.12, 0.20),
        eye_size=rng.uniform(0.125, 0.16),
        eye_gap=rng.uniform(0.94, 1.08),
        eye_open=rng.uniform(0.34, 0.52),
        iris=triple(IRIS[rng.integers(0, 2 if dark else len(IRIS))] * rng.uniform(0.8, 1.3)),
        brow_weight=rng.uniform(0.3, 1.0),
        brow_tilt=rng.uniform(-0.16, 0.10),
        brow_height=rng.uniform(0.165, 0.22),
        nose_width=rng.uniform(0.10, 0.165),
        nose_length=rng.uniform(0.32, 0.41),
        mouth_width=rng.uniform(0.20, 0.27),
        lip_red=rng.uniform(0.0, 1.0) * (1.0 if style in ("long", "fringe") else 0.3),
        lip_full=rng.uniform(0.030, 0.058),
        beard=rng.uniform(0.45, 0.95) if bearded else 0.0,
        beard_style=str(rng.choice(BEARD_STYLES, p=[0.35, 0.35, 0.15, 0.15])),
        age=rng.uniform(0.0, 1.0),
        freckles=rng.uniform(0.3, 1.0) if rng.random() < 0.2 else 0.0,
        glasses=str(rng.choice(["none", "clear", "dark"], p=[0.72, 0.22, 0.06])),
        cap=bool(rng.random() < 0.09),
        cloth=triple(0.25 * rng.uniform(0.02, 1.0) + rng.uniform(0.0, 0.22, 3)),
        pattern=int(rng.integers(0, 4)),
    )
