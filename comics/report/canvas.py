"""What all drawings share: a canvas, its files, and texts set beside what they name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from comics.errors import UserError
from comics.files import atomic_write
from comics.report.labels import Box, Segment, place

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text


FORMATS = (".pdf", ".svg", ".png")


@contextmanager
def canvas(width: float, height: float, font_size: float) -> Iterator[Figure]:
    """An empty figure of `width` x `height` inches; no window system, no global state."""
    import matplotlib
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {
        "font.family": "DejaVu Sans",
        "font.size": font_size,
        "axes.linewidth": 0.6,
        "axes.titlesize": font_size * 1.1,
        "legend.fontsize": font_size * 0.93,
        "pdf.fonttype": 42,
        "svg.fonttype": "path",
        "svg.hashsalt": "comics",
        "savefig.dpi": 200,
    }
    with matplotlib.style.context("default"), matplotlib.rc_context(settings):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def save(figure: Figure, output: Path, title: str, runs: Mapping[str, str]) -> list[Path]:
    """Write `figure` to `output` (.pdf) and beside it as .svg and .png; return the paths.

    Raises:
        UserError: `output` does not end in .pdf.
    """
    if output.suffix != ".pdf":
        raise UserError(f"--output: {output} does not end in .pdf.", "The .svg and the .png go beside the .pdf.")
    digests = ", ".join(f"{run}: {digest}" for run, digest in runs.items())
    metadata: dict[str, dict[str, str | None]] = {
        ".pdf": {"Title": title, "Keywords": digests, "CreationDate": None, "Creator": None, "Producer": None},
        ".svg": {"Title": title, "Description": digests, "Date": None, "Creator": None},
        ".png": {"Title": title, "Description": digests, "Software": None},
    }
    paths = []
    for suffix in FORMATS:
        path = output.with_suffix(suffix)
        with atomic_write(path) as beside:
            figure.savefig(beside, format=suffix[1:], metadata=metadata[suffix])
        paths.append(path)
    return paths


def on_paper(ax: Axes, point: tuple[float, float]) -> tuple[float, float]:
    """A point of `ax`'s data, in points of 1/72 inch from the figure's corner."""
    x, y = ax.transData.transform(point) * 72 / ax.figure.dpi  # type: ignore[union-attr]
    return float(x), float(y)


def in_data(ax: Axes, point: tuple[float, float]) -> tuple[float, float]:
    """The opposite of `on_paper`."""
    x, y = ax.transData.inverted().transform(np.array(point) * ax.figure.dpi / 72)  # type: ignore[union-attr]
    return float(x), float(y)


def marker_box(ax: Axes, corner: tuple[float, float], opposite: tuple[float, float]) -> Box:
    """The rectangle between two corners in `ax`'s data, the lower left one on paper first."""
    return Box(*on_paper(ax, corner), *on_paper(ax, opposite))


def place_texts(
    ax: Axes,
    texts: Sequence[Text],
    markers: Sequence[Box],
    *,
    padding: tuple[float, float],
    inset: float = 0,
    lines: Sequence[Segment] = (),
) -> list[Box]:
    """Move `texts` inside `ax` beside their `markers`, without overlap (`comics.report.labels.place`); the layout of the figure must be
    settled.

    Args:
        ax: where the texts are, centred on their positions.
        texts, markers: of the same things.
        padding: added to the width and the height of each text, in points.
        inset: what stays free along the sides of `ax`, in px.
        lines: that the texts rather leave alone.

    Returns:
        The rectangles of the texts, in points from the figure's corner.
    """
    scale = 72 / ax.figure.dpi  # type: ignore[union-attr]
    window = ax.get_window_extent()
    sides = (window.x0 + inset, window.y0 + inset, window.x1 - inset, window.y1 - inset)
    extents = [text.get_window_extent() for text in texts]
    sizes = [(one.width * scale + padding[0], one.height * scale + padding[1]) for one in extents]
    boxes = place(markers, sizes, Box(*(float(side) * scale for side in sides)), lines)
    for text, box in zip(texts, boxes, strict=True):
        text.set_position(in_data(ax, box.centre()))
    return boxes


def draw_leader(ax: Axes, start: tuple[float, float], end: tuple[float, float], **looks: Any) -> None:
    """A line from `start` to `end`, in points from the figure's corner; the limits of `ax` stay."""
    x, y = zip(in_data(ax, start), in_data(ax, end), strict=True)
    ax.plot(x, y, scalex=False, scaley=False, **looks)
