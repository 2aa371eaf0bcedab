"""Figures made of photographs: examples of the dataset, and runs beside the ground truth.

Real is a solid outline, fake a dashed one; what a run got wrong is written out, so that nothing rests on colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from comics.classes import CLASSES
from comics.errors import UserError
from comics.params import ComparisonFigure, ExamplesFigure, ImageStyle, Params
from comics.report.canvas import canvas, draw_leader, marker_box, place_texts, save
from comics.report.labels import anchor
from comics.report.results import resolved_runs
from comics.report.samples import (
    AGAIN,
    FALSE_ALARM,
    HIT,
    MISS,
    WRONG,
    Face,
    Sample,
    box_iou,
    comparison_samples,
    example_samples,
    outlines,
)
from comics.report.style import SPLIT_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LARGEST_SIDE = 480
"""Photographs are shrunk to this many px before they are embedded."""

ERROR = "#CC79A7"
"""Frame of an error (reddish purple of the colour-blind palette); the word stands beside it."""


def run_title(params: Params, run: str) -> str:
    """A run's title for people."""
    return params.resolve(run).params.title or run


def read_photo(sample: Sample, root: Path = Path(), side: int = LARGEST_SIDE) -> NDArray[np.uint8]:
    """The photograph (H, W, 3), at most `side` px on its longer side.

    Raises:
        UserError: the file is missing or no image.
    """
    from PIL import Image

    try:
        with Image.open(root / sample.path) as photo:
            photo.draft("RGB", (side, side))
            small = photo.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise UserError(f"{sample.path}: cannot be read ({error}).", "Make the dataset again.") from None
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(small)


def _outline(ax: Axes, face: Face, sample: Sample, style: ImageStyle, *, faint: bool = False) -> None:
    from matplotlib import patheffects

    colour = (style.real, style.fake)[face.label]
    for ring in outlines(face.segmentation, sample.height, sample.width):
        closed = np.vstack([ring, ring[:1]])
        ax.plot(
            closed[:, 0],
            closed[:, 1],
            color=colour,
            linewidth=0.9,
            linestyle=("-", (0, (2.2, 1.2)))[face.label],
            alpha=0.6 if faint else 1.0,
            path_effects=[patheffects.Stroke(linewidth=1.9, foreground="black", alpha=0.7), patheffects.Normal()],
        )


@dataclass(frozen=True)
class _Tag:
    """A few words about a face."""

    face: Face
    text: str
    error: bool


def _write_tags(ax: Axes, tags: Sequence[_Tag], style: ImageStyle) -> None:
    """Write `tags` beside their faces, inside the photograph, without overlap; one farther away has a leader line.

    The layout of the figure must be settled.
    """
    texts, markers = [], []
    for tag in tags:
        texts.append(
            ax.text(
                0,
                0,
                tag.text,
                fontsize=0.72 * style.font_size,
                fontweight="bold" if tag.error else "normal",
                color="black",
                ha="center",
                va="center",
                linespacing=1.0,
                bbox={
                    "boxstyle": "square,pad=0.12",
                    "facecolor": "#FFFFFF" if tag.error else (style.real, style.fake)[tag.face.label],
                    "edgecolor": ERROR if tag.error else "none",
                    "linewidth": 0.7,
                    "alpha": 0.92,
                },
            )
        )
        x, y, width, height = tag.face.box
        # The middle of a face stays free; its rim may be covered.
        markers.append(marker_box(ax, (x + 0.2 * width, y + 0.8 * height), (x + 0.8 * width, y + 0.2 * height)))
    around = 0.24 * 0.72 * style.font_size + 1.0  # what the box of a tag adds to its text
    for marker, box in zip(markers, place_texts(ax, texts, markers, padding=(around, around)), strict=True):
        start = anchor(marker, box.centre())
        end = anchor(box, start)
        if math.dist(start, end) > 0.6 * style.font_size:
            draw_leader(ax, start, end, color="white", linewidth=0.6, zorder=2.5)


def _frame(ax: Axes, face: Face) -> None:
    from matplotlib.patches import Rectangle

    x, y, width, height = face.box
    ax.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor="white", linewidth=1.7))
    ax.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=ERROR, linewidth=0.9, linestyle=(0, (1, 1))))


def _show(ax: Axes, sample: Sample, root: Path) -> None:
    ax.imshow(read_photo(sample, root), extent=(0, sample.width, sample.height, 0), interpolation="antialiased")
    ax.set_xlim(0, sample.width)
    ax.set_ylim(sample.height, 0)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)


def verdict_text(face: Face) -> str:
    """A detection in a word or two: ``fake .93``, and what is wrong with it."""
    name = CLASSES[face.label].lower()
    score = f" {face.score:.2f}".replace(" 0.", " .") if face.score is not None else ""
    words = {HIT: name, WRONG: f"not {name}", AGAIN: f"+ {name}", FALSE_ALARM: "no face"}
    return f"{words[face.verdict]}{score}" if face.verdict in words else name


def _draw_run(ax: Axes, sample: Sample, run: str, style: ImageStyle) -> list[_Tag]:
    """Draw what `run` found and missed; return what there is to write."""
    for face in sample.found[run]:
        _outline(ax, face, sample, style)
        if face.verdict != HIT:
            _frame(ax, face)
    for face in sample.missed[run]:
        _frame(ax, face)
    first = [face for face in sample.found[run] if face.verdict != AGAIN]
    words = [[verdict_text(face)] for face in first]
    for face in sample.found[run]:
        if face.verdict == AGAIN:  # said beside the better one
            nearest = int(box_iou(face.box, np.array([one.box for one in first])).argmax())
            words[nearest].append(verdict_text(face))
    return [
        *(_Tag(face, MISS, True) for face in sample.missed[run]),
        *(
            _Tag(face, "\n".join(lines), face.verdict != HIT or len(lines) > 1)
            for face, lines in zip(first, words, strict=True)
        ),
    ]


def _heights(columns: Sequence[Sample], rows: int, width: float) -> float:
    """Height in inches of `rows` rows of photographs, `width` inches wide together."""
    tallest = max((sample.height / sample.width for sample in columns), default=0.75)
    return rows * width / max(len(columns), 1) * tallest


def draw_examples(params: Params, figure: ExamplesFigure, output: Path, root: Path) -> list[Path]:
    """One row of photographs a split."""
    picked = example_samples(params, figure, root)
    style = figure.style
    columns = max(map(len, picked.values()), default=0)
    if not columns:
        raise UserError(f"data/{params.dataset}: {', '.join(figure.splits)}: there are no images to show.")
    first = next(samples for samples in picked.values() if len(samples) == columns)
    height = _heights(first, len(picked), style.width - 0.2) + 0.1
    with canvas(style.width, height, style.font_size) as drawing:
        axes = drawing.subplots(len(picked), columns, squeeze=False)
        drawing.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)  # type: ignore[union-attr,call-arg]
        for line, (split, samples) in zip(axes, picked.items(), strict=True):
            for ax in line[len(samples) :]:
                ax.set_axis_off()
            for ax, sample in zip(line, samples, strict=False):
                _show(ax, sample, root)
                if figure.outlines:
                    for face in sample.truth:
                        _outline(ax, face, sample, style)
            line[0].set_ylabel(SPLIT_NAMES[split], fontsize=0.9 * style.font_size)
        return save(drawing, output, figure.caption, {})


def draw_comparison(params: Params, figure: ComparisonFigure, output: Path, root: Path) -> list[Path]:
    """One row a run and one of the ground truth; one group of columns a split."""
    from matplotlib.lines import Line2D

    picked = comparison_samples(params, figure, root)
    style = figure.style
    columns = [sample for samples in picked.values() for sample in samples]
    if not columns:
        raise UserError(f"data/{params.dataset}: {', '.join(figure.splits)}: there are no images to show.")
    runs = list(dict.fromkeys(figure.runs))
    height = _heights(columns, len(runs) + 1, style.width - 0.25) + 0.5
    with canvas(style.width, height, style.font_size) as drawing:
        axes = drawing.subplots(len(runs) + 1, len(columns), squeeze=False)
        drawing.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)  # type: ignore[union-attr,call-arg]
        tags: dict[Axes, list[_Tag]] = {}
        for column, sample in enumerate(columns):
            for row, run in enumerate(runs):
                _show(axes[row, column], sample, root)
                tags[axes[row, column]] = _draw_run(axes[row, column], sample, run, style)
            _show(axes[-1, column], sample, root)
            for face in sample.truth:
                _outline(axes[-1, column], face, sample, style)
            tags[axes[-1, column]] = [_Tag(face, CLASSES[face.label].lower(), False) for face in sample.truth]
            axes[-1, column].set_xlabel(f"({_letter(column)})", labelpad=2)
        for row, run in enumerate(runs):
            axes[row, 0].set_ylabel(run_title(params, run))
        axes[-1, 0].set_ylabel("Ground truth")
        done = 0
        for split, samples in picked.items():
            if samples:
                axes[0, done + (len(samples) - 1) // 2].set_title(SPLIT_NAMES[split], pad=4)
            done += len(samples)
        handles = [
            Line2D([], [], color=style.real, linestyle="-", label="real"),
            Line2D([], [], color=style.fake, linestyle=(0, (2.2, 1.2)), label="fake"),
            Line2D(
                [],
                [],
                color=ERROR,
                linestyle=(0, (1, 1)),
                label="error: miss, no face, not that class, or found again (+)",
            ),
        ]
        drawing.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
        drawing.canvas.draw()  # only then is it known where the photographs are
        drawing.set_layout_engine("none")
        for ax, of_photo in tags.items():
            _write_tags(ax, of_photo, style)
        digests = {}
        for run in runs:
            resolved = resolved_runs(params, run)[0]
            digests[f"{resolved.name} seed {resolved.seed}"] = resolved.digest
        return save(drawing, output, figure.caption, digests)


def _letter(number: int) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return letters[number % 26] if number < 26 else letters[number // 26 - 1] + letters[number % 26]
