"""Pictures of any origin as RGB pixels: the one place where image files are opened that nobody has vouched for.

Kinds of file differ in ways that a plain ``convert("RGB")`` gets wrong: 16-bit greys come out white, colours hidden under
full transparency come out visible, photographs lie on their side. And files lie: about their size, about their kind, about
being whole. Whatever is wrong with a file, what is raised is an `UnreadableImage` that names it.

numpy and pillow only.
"""

from __future__ import annotations

import io
import os
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from comics.errors import UserError

MAX_PIXELS = 500 * 10**6
"""Larger pictures are refused: no camera takes them, and a file of a few kB can claim to be one."""

Pixels = NDArray[np.uint8]
Source = str | os.PathLike[str] | bytes | BinaryIO | Image.Image

UNNAMED = "the picture"
"""What messages call one that has no name."""

_PROGRAMS = frozenset({"EPS", "WMF", "MPEG", "GRIB", "HDF5", "BUFR"})
_TRANSPARENT = ("RGBA", "LA", "PA", "La", "RGBa")
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_STEERING = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
_guard = threading.Lock()


class UnreadableImage(UserError):
    """A picture that cannot be read, and why."""


@dataclass(frozen=True)
class Picture:
    """A picture as it is meant to be seen.

    Attributes:
        pixels: (h, w, 3) uint8 RGB, upright, perhaps smaller than the file's.
        size: (height, width) of the whole picture in px, upright.
        notes: what a user should know of how it was read, such as that only the first of several frames was.
    """

    pixels: Pixels
    size: tuple[int, int]
    notes: tuple[str, ...] = ()


def shown(name: str | os.PathLike[str]) -> str:
    """A file's name as text that can be printed and written as UTF-8, whatever its bytes are.

    Bytes that are no UTF-8, and characters that move the cursor, break the line or turn the direction of writing, become
    escapes: a name is not to write on a terminal what it likes.
    """
    text = os.fsencode(os.fspath(name)).decode("utf-8", "backslashreplace")
    return _STEERING.sub(lambda one: one[0].encode("unicode_escape").decode(), text)


@contextmanager
def opened(source: Source, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """The file of `source`, its header read, its pixels not yet.

    Args:
        source: a path, the bytes of a file, or a binary stream; a PIL image is handed through.
        max_pixels: more are refused before any is decoded.

    Raises:
        UnreadableImage: it is absent, no image, damaged, or too large; also when that only turns out inside the block.
    """
    name = shown(source) if isinstance(source, str | os.PathLike) else UNNAMED
    try:
        if isinstance(source, Image.Image):
            _within(source, max_pixels)
            yield source
            return
        if isinstance(source, str | os.PathLike):
            # a pipe would wait for ever, a device never end
            if not stat.S_ISREG(os.stat(source).st_mode):
                raise UnreadableImage(f"{name}: not a regular file.")
            stream: Any = source
        else:
            stream = io.BytesIO(source) if isinstance(source, bytes) else source
        with _open(stream) as file:
            _within(file, max_pixels)
            yield file
    except UnreadableImage as error:
        text = error.message if error.message.startswith(name) else f"{name}: {error.message}"
        raise UnreadableImage(text, error.remedy) from None
    except FileNotFoundError:
        raise UnreadableImage(f"{name}: no such file.") from None
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UnreadableImage(f"{name}: not an image of a kind that can be read.") from None
    except (OSError, Image.DecompressionBombError, MemoryError) as error:
        raise UnreadableImage(f"{name}: not a readable image ({error}).") from None
    except (ValueError, SyntaxError, EOFError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        # what pillow's readers raise on damaged files of one kind or another; zlib and struct have errors of their own
        raise UnreadableImage(f"{name}: not a readable image ({type(error).__name__}: {error}).") from None
    except Exception as error:
        if type(error).__module__ not in ("struct", "zlib"):
            raise
        raise UnreadableImage(f"{name}: not a readable image ({error}).") from None


def _open(stream: Any) -> Image.Image:
    """``Image.open`` without pillow's own limit, which stands at 89 megapixels; ours is checked by the caller."""
    with _guard:  # the limit is a global of pillow's, and is not asked for after the header
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(stream, formats=_kinds())
        except UnidentifiedImageError:
            if not _is_heif(stream):
                raise
            _register_heif()
            return Image.open(stream, formats=_kinds())
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _kinds() -> list[str]:
    """The kinds of file that are opened: not those that pillow hands to other programs."""
    Image.init()
    return [kind for kind in Image.OPEN if kind not in _PROGRAMS]


def _is_heif(stream: Any) -> bool:
    """Whether it begins as HEIC and HEIF do, the pictures of many telephones."""
    if isinstance(stream, str | os.PathLike):
        with open(stream, "rb") as file:
            return _is_heif(file)
    stream.seek(0)
    head = stream.read(12)
    stream.seek(0)
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def _register_heif() -> None:
    """Let pillow read HEIC by pillow-heif, which is imported only where there is such a file."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise UnreadableImage("HEIC needs pillow-heif, which is not installed (pip install pillow-heif).") from None
    register_heif_opener()


def _within(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise UnreadableImage(f"it is {width} x {height} px.")
    if width * height > max_pixels:
        raise UnreadableImage(
            f"{width} x {height} px are more than the {max_pixels / 1e6:.0f} megapixels that are read.",
            "If it is meant to be that large, shrink it first.",
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """`image` in mode RGB, as a viewer shows it: deep greys scaled to 8 bits, transparency on white."""
    if image.mode == "RGB":
        if "transparency" not in image.info:
            return image
        return _on_white(image)  # one colour of a PNG can be transparent
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        return _on_white(image)
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    layer = image.convert("RGBA")
    ground = Image.new("RGB", image.size, "white")
    ground.paste(layer, mask=layer.getchannel("A"))
    return ground


def _eight_bits(values: NDArray[Any]) -> Pixels:
    """Greys of any depth (H, W) in 0 ... 255. Integers are of 8 or 16 bits if they fit; floats are in [0, 1] if they
    fit; anything larger is scaled by its largest value."""
    finite = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    largest = float(finite.max(initial=0.0))
    if np.issubdtype(values.dtype, np.floating):
        full = 1.0 if largest <= 1 else 255.0 if largest <= 255 else largest
    elif values.dtype.itemsize <= 2:
        full = 65535.0
    else:
        full = 255.0 if largest <= 255 else 65535.0 if largest <= 65535 else largest
    return (finite.clip(0, full) * (255 / full)).round().astype(np.uint8)


def shrunk(height: int, width: int, longest: int) -> tuple[int, int]:
    """Height and width with the longest side at most `longest`; smaller pictures stay as they are."""
    scale = min(1.0, longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def read(source: Source, longest: int | None = None, max_pixels: int = MAX_PIXELS) -> Picture:
    """The picture of `source`, upright, in RGB; of an animation or a file of several pages the first.

    Args:
        source: a path, the bytes of a file, a binary stream, or a PIL image.
        longest: side in px to which larger pictures are shrunk, JPEG files while they are decoded.
        max_pixels: more are refused.

    Raises:
        UnreadableImage: see `opened`.
    """
    with opened(source, max_pixels) as file:
        notes = []
        frames = getattr(file, "n_frames", 1)
        if frames > 1 and not isinstance(source, Image.Image):
            notes.append(f"the first of {frames} frames")
        turned = _orientation(file)
        height, width = file.height, file.width
        size = (width, height) if turned >= 5 else (height, width)
        if longest is not None and isinstance(file, ImageFile.ImageFile):
            file.draft("RGB", (longest, longest))  # JPEG: decode no finer; others ignore it
        image = file
        if longest is not None:
            h, w = shrunk(height, width, longest)
            image.load()
            if (w, h) != image.size and (image.mode in ("RGB", "L", "CMYK") and "transparency" not in image.info):
                image = image.resize((w, h), Image.Resampling.BILINEAR, reducing_gap=3.0)
            image = to_rgb(image)
            if (w, h) != image.size:
                image = image.resize((w, h), Image.Resampling.BILINEAR, reducing_gap=3.0)
        else:
            image = to_rgb(image)
        if turned != 1:
            image = image.transpose(_TURNS[turned])
        return Picture(np.array(image), size, tuple(notes))


def _orientation(image: Image.Image) -> int:
    """How EXIF says that the picture is to be turned, 1 ... 8; 1 where it says nothing sensible."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block is no reason not to see the picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
