"""The reliability diagram as SVG: what was said of faces against what they are, before and after calibration."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from comics.report.style import BETTER, GREY, WORSE

SIDE, MARGIN, BARS, LEGEND = 220, 34, 40, 180
"""Of the square, of the space around it, height of the faces' counts below, and width of the legend beside it, in px."""
DASHES = ("2 3", "7 4", "7 3 2 3")
"""Of splits that the calibration was not fitted to."""


def reliability_svg(
    calibration: Mapping[str, Any], title: str = "", tests: Mapping[str, Mapping[str, Any]] | None = None
) -> str:
    """An SVG element that stands alone, as a file or inside a page.

    Args:
        calibration: content of a run's calibration.json.
        title: whose it is.
        tests: split -> `comics.evaluation.calibration.Held`, as JSON has it, of splits that it was not fitted to.
    """
    before, after, split = calibration["before"], calibration["after"], calibration["split"]
    width, height = SIDE + 2 * MARGIN + LEGEND, SIDE + 2 * MARGIN + BARS
    curves = [(f"{split}, before", before, WORSE, ""), (f"{split}, after", after, BETTER, "")]
    for number, (name, one) in enumerate((tests or {}).items()):
        curves.append((f"{name}, after", one["after"], GREY, DASHES[number % len(DASHES)]))
    errors = ", ".join(f"{one['ece']:.3f} on {name}" for name, one, _, _ in curves)
    label = f"Reliability{f' of {title}' if title else ''}: expected calibration error {errors} calibration."
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
    for row, (name, one, colour, dash) in enumerate(curves):
        parts += _curve(one, colour, dash)
        x, y = _x(1) + 10, MARGIN + 16 * row
        parts.append(_line(f"{x},{y} {x + 22},{y}", colour, dash))
        parts.append(f'<text x="{x + 28}" y="{y + 4}">{escape(name)}: {one["ece"]:.3f}</text>')
    return "\n".join([*parts, "</svg>"])


def _x(value: float) -> float:
    return MARGIN + SIDE * value


def _y(value: float) -> float:
    return MARGIN / 2 + SIDE * (1 - value)


def _curve(one: Mapping[str, Any], colour: str, dash: str) -> list[str]:
    points = [
        (_x(said), _y(are))
        for said, are in zip(one["said"], one["are"], strict=True)
        if said is not None and are is not None
    ]
    return [
        _line(" ".join(f"{x:.1f},{y:.1f}" for x, y in points), colour, dash),
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points),
    ]


def _line(points: str, colour: str, dash: str) -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"{dashed}/>'
