"""The reliability diagram as SVG: what was said of faces against what they are, before and after calibration."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from comics.report.style import BETTER, GREY, WORSE

SIDE, MARGIN, BARS = 220, 34, 40
"""Of the square, of the space around it, and height of the faces' counts below, in px."""


def reliability_svg(calibration: Mapping[str, Any], title: str = "") -> str:
    """An SVG element that stands alone, as a file or inside a page.

    Args:
        calibration: content of a run's calibration.json.
        title: whose it is.
    """
    before, after = calibration["before"], calibration["after"]
    width, height = SIDE + 2 * MARGIN + 90, SIDE + 2 * MARGIN + BARS
    label = (
        f"Reliability{f' of {title}' if title else ''}: expected calibration error {before['ece']:.3f} before, "
        f"{after['ece']:.3f} after calibration."
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(label, quote=True)}" font-family="sans-serif" font-size="11">',
        f'<rect x="{MARGIN}" y="{MARGIN / 2}" width="{SIDE}" height="{SIDE}" fill="none" stroke="{GREY}"/>',
        f'<line x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}" stroke="{GREY}" stroke-dasharray="4 4"/>',
    ]
    for tick in (0.0, 0.5, 1.0):
        parts.append(f'<text x="{_x(tick)}" y="{_y(0) + BARS + 14}" text-anchor="middle" fill="{GREY}">{tick:g}</text>')
        parts.append(f'<text x="{MARGIN - 6}" y="{_y(tick) + 4:.1f}" text-anchor="end" fill="{GREY}">{tick:g}</text>')
    parts.append(
        f'<text x="{_x(0.5)}" y="{_y(0) + BARS + 28}" text-anchor="middle" fill="{GREY}">P(fake) said; bars: faces</text>'
    )
    most = max([1, *after["faces"]])
    bins = len(after["faces"])
    for number, count in enumerate(after["faces"]):
        tall = (BARS - 6) * count / most
        parts.append(
            f'<rect x="{_x(number / bins) + 1:.1f}" y="{_y(0) + BARS - tall:.1f}" width="{SIDE / bins - 2:.1f}" '
            f'height="{tall:.1f}" fill="{BETTER}" opacity="0.35"/>'
        )
    for name, one, colour, row in (
        ("before", before, WORSE, 0),
        ("after", after, BETTER, 1),
    ):
        parts += _curve(one, colour)
        y = MARGIN + 16 * row
        parts.append(f'<circle cx="{_x(1) + 14}" cy="{y}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{_x(1) + 22}" y="{y + 4}">{name}, {one["ece"]:.3f}</text>')
    return "\n".join([*parts, "</svg>"])


def _x(value: float) -> float:
    return MARGIN + SIDE * value


def _y(value: float) -> float:
    return MARGIN / 2 + SIDE * (1 - value)


def _curve(one: Mapping[str, Any], colour: str) -> list[str]:
    points = [
        (_x(said), _y(are))
        for said, are in zip(one["said"], one["are"], strict=True)
        if said is not None and are is not None
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return [
        f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points),
    ]
