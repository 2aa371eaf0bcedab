"""Faces outlined on their picture, legible at any size: blue what is taken for real, orange what for fake.

Lines and letters grow with the picture. What the model is stands in a strip below the picture, which hides nothing of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from comics.detect.outcome import About, Face, Outcome, VideoOutcome

BLUE, ORANGE = (0, 114, 178), (230, 159, 0)
"""Okabe and Ito: told apart by the colour-blind; the words say it too."""
SMALLEST_TEXT = 11  # px
NARROWEST = 320
"""Smaller pictures are enlarged, in px of the longest side, so that words fit on them."""


def colour_of(face: Face) -> tuple[int, int, int]:
    """RGB of a face's outline."""
    return ORANGE if face.fake else BLUE


def label_of(face: Face, calibrated: bool) -> str:
    """What is written at a face: the verdict, and P(fake) in percent, or the score where it is no probability."""
    value = percent(face.p_fake) if calibrated else f"score {face.p_fake:.2f}"
    return f"{face.verdict}, P(fake) {value}" if calibrated else f"{face.verdict}, {value}"


def percent(p: float) -> str:
    """A probability in words that no calibration makes certain: never 0 % or 100 %."""
    return "< 1 %" if p < 0.01 else "> 99 %" if p > 0.99 else f"{100 * p:.0f} %"


def draw(picture: Any, outcome: Outcome, faces: tuple[Face, ...] | None = None, legend: bool = True) -> Image.Image:
    """`picture` with faces outlined, and a legend below.

    Args:
        picture: PIL image or (h, w, 3) uint8; its size may differ from the outcome's.
        outcome: what was found.
        faces: those to draw; by default all of the outcome.
        legend: whether the strip below is added.
    """
    image = picture.convert("RGB") if isinstance(picture, Image.Image) else Image.fromarray(np.asarray(picture))
    longest = max(image.size)
    if longest < NARROWEST:
        factor = NARROWEST / longest
        image = image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))))
    scale = (image.width / outcome.size[1], image.height / outcome.size[0])
    line = max(2, round(max(image.size) / 400))
    font = font_of(image.size)
    chosen = outcome.faces if faces is None else faces
    canvas = np.array(image)
    for face in reversed(chosen):
        _tint(canvas, face, scale)
    image = Image.fromarray(canvas)
    pen = ImageDraw.Draw(image)
    for face in reversed(chosen):
        x1, y1, x2, y2 = (value * scale[index % 2] for index, value in enumerate(face.box))
        pen.rectangle((x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)), outline=colour_of(face), width=line)
    for face in reversed(chosen):
        _label(pen, face, label_of(face, outcome.about.calibrated), scale, image.size, font)
    return _with_legend(image, outcome, font) if legend else image


def font_of(size: tuple[int, int]) -> Any:
    """Letters for a picture of (width, height)."""
    return ImageFont.load_default(size=max(SMALLEST_TEXT, round(max(size) / 55)))


def _tint(canvas: Any, face: Face, scale: tuple[float, float]) -> None:
    """Colour the face's mask, in place."""
    (x, y), (h, w) = face.corner, face.crop.shape
    x1, y1 = round(x * scale[0]), round(y * scale[1])
    x2, y2 = min(canvas.shape[1], round((x + w) * scale[0])), min(canvas.shape[0], round((y + h) * scale[1]))
    if x2 <= x1 or y2 <= y1:
        return
    crop = face.crop
    if crop.shape != (y2 - y1, x2 - x1):
        resized = Image.fromarray(crop.astype(np.uint8) * 255).resize((x2 - x1, y2 - y1), Image.Resampling.BILINEAR)
        crop = np.asarray(resized) >= 128
    part = canvas[y1:y2, x1:x2]
    tint = np.array(colour_of(face), np.float32)
    part[crop] = (0.65 * part[crop] + 0.35 * tint).round().astype(np.uint8)


def _label(
    pen: ImageDraw.ImageDraw, face: Face, text: str, scale: tuple[float, float], size: tuple[int, int], font: Any
) -> None:
    """The verdict above the box, or inside it where there is no room; never outside of the picture."""
    x1, y1 = face.box[0] * scale[0], face.box[1] * scale[1]
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    margin = max(2, round((bottom - top) / 4))
    width, height = right - left + 2 * margin, bottom - top + 2 * margin
    x = max(0.0, min(x1, size[0] - width))
    y = y1 - height if y1 >= height else min(max(y1, 0.0), max(0.0, size[1] - height))
    pen.rectangle((x, y, x + width, y + height), fill=colour_of(face))
    pen.text((x + margin - left, y + margin - top), text, fill="black" if face.fake else "white", font=font)


def legend_lines(outcome: Outcome) -> list[str]:
    """What stands below a picture."""
    about = outcome.about
    what = f"{about.model}: {_counted(outcome)}"
    return [what, threshold_line(about), about.notice]


def threshold_line(about: About) -> str:
    """The legend's line about the threshold."""
    name = f" ({about.threshold_name})" if not about.threshold_name[:1].isdigit() else ""
    kind = "P(fake)" if about.calibrated else "the score"
    return f"Fake from {kind} {about.threshold:.2f}{name} on. Blue: taken for real, orange: for fake."


def _counted(outcome: Outcome) -> str:
    fakes = [face.fake for face in outcome.faces]
    if isinstance(outcome, VideoOutcome):
        fakes = [track.fake for track in outcome.tracks]
    if not fakes:
        return "no face found"
    text = f"{len(fakes)} {'face' if len(fakes) == 1 else 'faces'}, {sum(fakes)} taken for fake"
    if outcome.about.calibrated and outcome.p_any_fake is not None:
        text += f"; P(any fake) {percent(outcome.p_any_fake)}"
    return text


def _with_legend(image: Image.Image, outcome: Outcome, font: Any) -> Image.Image:
    pen = ImageDraw.Draw(image)
    lines = [part for line in legend_lines(outcome) for part in _wrapped(pen, line, image.width * 0.97, font)]
    step = round(font.size * 1.35)
    strip = step * len(lines) + step // 2
    whole = Image.new("RGB", (image.width, image.height + strip), "white")
    whole.paste(image, (0, 0))
    pen = ImageDraw.Draw(whole)
    for number, line in enumerate(lines):
        pen.text((image.width * 0.015, image.height + step // 4 + number * step), line, fill="black", font=font)
    return whole


def _wrapped(pen: ImageDraw.ImageDraw, text: str, width: float, font: Any) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and pen.textlength(longer, font=font) > width:
            lines.append(line)
            line = word
        else:
            line = longer
    return [*lines, line]
