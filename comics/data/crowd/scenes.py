"""Scenes: a photographed background with people before it, a camera, and forgeries of some of the faces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from comics.data.crowd.backgrounds import obstacle, render_background
from comics.data.crowd.faces import Layer, render_head
from comics.data.crowd.forgeries import (
    leave_traces,
    random_kind,
    random_region,
    random_traces,
    redraw,
    region_coverage,
)
from comics.data.crowd.people import Expression, Head, random_expression, random_head, random_pose
from comics.data.rendering.camera import Pixels, expose, grain, random_camera, to_pixels
from comics.data.rendering.people import Pose, random_light
from comics.data.rendering.shapes import Array, blur
from comics.params import ForgeryTraces

MIN_VISIBLE = 0.3
"""A face is annotated when at least this share of it is seen."""

MIN_PIXELS = 60
"""A face of which fewer pixels are seen is not annotated."""


@dataclass(frozen=True)
class Face:
    """One annotated face: coverage (H, W) in [0, 1] of what is seen of it, and the kind of forgery, empty for a real one."""

    coverage: Array
    forgery: str


@dataclass(frozen=True)
class _Place:
    """Where somebody stands: centre of the head, height of the face (px), and how far out of focus."""

    x: float
    y: float
    face: float
    blur: int


@dataclass(frozen=True)
class _Person:
    head: Head
    expression: Expression
    pose: Pose
    place: _Place
    layer: Layer
    part: tuple[slice, slice]
    whole: int


def _places(rng: np.random.Generator, height: int, width: int) -> list[_Place]:
    """One to six heads, the farthest first, in one scene of ten a crowd of up to twelve; heads may overlap strongly."""
    crowd = rng.random() < 0.1
    if crowd:
        count, largest, smallest = int(rng.integers(6, 12)), 0.29 * height, 0.18 * height
    else:
        count = int(rng.choice(np.arange(1, 7), p=[0.28, 0.30, 0.20, 0.12, 0.06, 0.04]))
        largest = (0.80, 0.62, 0.50, 0.42, 0.36, 0.32)[count - 1] * height
        smallest = 0.2 * height
    apart = 0.3 if crowd or rng.random() < 0.25 else 0.5
    found: list[tuple[float, float, float]] = []
    for _ in range(count * 30):
        if len(found) == count:
            break
        face = max(rng.uniform(0.5, 1.0) * largest, smallest)
        x = rng.uniform(0.45 * face, width - 0.45 * face)
        y = rng.uniform(0.6 * face, max(0.62 * face, height - 0.6 * face))
        near = [
            (x - other_x) ** 2 + (0.8 * (y - other_y)) ** 2 < (apart * (face + other)) ** 2
            for other_x, other_y, other in found
        ]
        if not any(near):
            found.append((x, y, face))
    aperture = rng.uniform(2.0, 10.0) if rng.random() < 0.33 else 0.0
    focus = found[int(rng.integers(0, len(found)))][2]
    found.sort(key=lambda place: place[2])
    return [_Place(x, y, face, min(int(aperture * abs(face / focus - 1.0)), 5)) for x, y, face in found]


def _focused(layer: Layer, passes: int) -> tuple[Array, Array]:
    """Colour times coverage, and coverage, of a layer out of focus."""
    covered = layer.colour * layer.alpha[..., None]
    return (blur(covered, passes), blur(layer.alpha, passes)) if passes else (covered, layer.alpha)


def render_scene(
    rng: np.random.Generator,
    height: int,
    width: int,
    fake_share: float,
    traces: ForgeryTraces | None = None,
    held_out: tuple[str, ...] = (),
) -> tuple[Pixels, list[Face], int]:
    """One photograph.

    Args:
        rng: decides everything.
        height, width: in px.
        fake_share: chance of each face to be forged.
        traces: how strong the forgeries' traces are.
        held_out: kinds of forgery that do not occur.

    Returns:
        The pixels (H, W, 3) before compression, the annotated faces, and the JPEG quality of the camera.
    """
    traces = traces or ForgeryTraces()
    light = random_light(rng, aside=1.2, front=0.4, ambient=(0.2, 0.5))
    camera = random_camera(rng, noise=(0.7, 1.3), exposure=(0.8, 1.35), blur=0.4, quality=84)
    size = (height, width)
    scene = render_background(rng, height, width, light)
    people: list[_Person] = []
    coverages: list[Array] = []
    for place in _places(rng, height, width):
        head, expression, pose = random_head(rng), random_expression(rng), random_pose(rng)
        layer = render_head(head, expression, pose, light, (place.x, place.y), place.face, size)
        left, top = layer.origin
        part = (slice(top, top + layer.alpha.shape[0]), slice(left, left + layer.alpha.shape[1]))
        colour, alpha = _focused(layer, place.blur)
        for coverage in coverages:
            coverage[part] *= 1 - layer.alpha
        scene[part] = scene[part] * (1 - alpha[..., None]) + colour
        coverage = np.zeros(size, np.float32)
        coverage[part] = layer.face * layer.alpha
        people.append(_Person(head, expression, pose, place, layer, part, int((coverage > 0.5).sum())))
        coverages.append(coverage)
        if rng.random() < 0.1:
            hidden = obstacle(rng, scene, random_head(rng).skin, (place.x, place.y, place.face))
            for coverage in coverages:
                coverage *= 1 - hidden

    faces, marked = [], []
    for person, coverage in zip(people, coverages, strict=True):
        own = np.random.default_rng(rng.integers(0, 2**63))  # one face's draws do not move the next one's
        fake = bool(own.random() < fake_share)
        seen = int((coverage > 0.5).sum())
        if seen < MIN_VISIBLE * person.whole or seen < MIN_PIXELS:
            continue
        kind = random_kind(own, held_out)
        carried = random_traces(own, fake, traces)
        feather = 0.1 if carried["boundary"] else 0.2
        visible = coverage[person.part]
        if fake:
            other, mood, region = redraw(own, kind, person.head, person.expression)
            place = person.place
            at = (place.x, place.y)
            layer = render_head(other, mood, person.pose, light, at, place.face, size, body=False)
            colour, alpha = _focused(layer, place.blur)
            inside = region_coverage(region, person.layer, visible, feather)
            window = scene[person.part]
            window += (colour - window * alpha[..., None]) * inside[..., None]
        else:
            region = random_region(own, kind)
            inside = region_coverage(region, person.layer, visible, feather)
        faces.append(Face(coverage, kind if fake else ""))
        marked.append((own, person, inside, carried))

    picture = expose(scene, camera)
    noise = grain(rng, camera, picture)
    for own, person, inside, carried in marked:
        leave_traces(own, picture[person.part], noise[person.part], inside, carried, person.place.face)
    return to_pixels(picture + noise), faces, camera.quality
