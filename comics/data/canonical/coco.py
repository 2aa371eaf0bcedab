"""Canonical COCO files: reading, writing and validating, a part at a time.

The canonical form is what every other room relies on:

- ``categories`` are 1 = Real and 2 = Fake;
- ids are integers from 1, unique across the splits of a dataset;
- ``file_name`` is relative to the folder of the JSON file, and the file exists;
- every face has a box inside its image (``[x, y, width, height]`` in pixels, positive sides), a positive ``area``
  in pixels, ``iscrowd`` 0 or 1, and a ``segmentation``: polygons (flat ``[x1, y1, x2, y2, ...]`` rings, which COCO
  closes from the last point to the first) or a compressed RLE of the image's size;
- optional: ``video_id`` of all images and ``track_id`` of all faces (integers or texts), and a face's ``forgery`` (text).

OpenForensics' training annotations are hundreds of megabytes, many times that as Python objects. `stream` therefore
parses the elements of the top-level arrays one by one, in constant memory, and `Writer` writes them one by one.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, TextIO

from comics.classes import CLASSES, category_id
from comics.errors import UserError
from comics.files import atomic_write
from comics.params import SPLITS as SPLITS

CATEGORIES: list[dict[str, Any]] = [
    {"id": category_id(label), "name": name, "supercategory": "face"} for label, name in enumerate(CLASSES)
]

SECTIONS = ("categories", "images", "annotations")
"""The arrays that a COCO annotation file has."""

_CHUNK = 1 << 20  # characters read at a time
_WHITESPACE = " \t\n\r"
# A literal (`false`, `-Infinity`) or an escape cut off by the end of the buffer fails at most this far before it.
_LITERAL = 16


class MalformedJSON(ValueError):
    """The text is not the JSON that was promised; the message tells where."""


def _refuse_constant(name: str) -> Any:
    raise MalformedJSON(f"{name} is not a JSON number")


class _Reader:
    """A window on a text file: characters are appended as they are needed and dropped when they are consumed."""

    def __init__(self, file: TextIO, on_read: Callable[[int], None] | None) -> None:
        self._file = file
        self._on_read = on_read
        self._decoder = json.JSONDecoder(parse_constant=_refuse_constant)
        self.text = ""
        self.position = 0  # of the next character, in `text`
        self.dropped = 0  # characters before `text`
        self.ended = False
        self.where = "top level"  # for messages

    @property
    def offset(self) -> int:
        return self.dropped + self.position

    def grow(self, size: int = 0) -> bool:
        """Append up to `size` characters, or a chunk; False at the end of the file."""
        if self.ended:
            return False
        try:
            more = self._file.read(size or _CHUNK)
        except UnicodeDecodeError as error:
            raise MalformedJSON(f"not UTF-8 text ({error.reason})") from None
        if not more:
            self.ended = True
            return False
        self.dropped += self.position
        self.text = self.text[self.position :] + more
        self.position = 0
        if self._on_read is not None:
            self._on_read(len(more))
        return True

    def peek(self) -> str:
        """The next character that is not white space, or an empty string at the end; does not consume it."""
        while True:
            while self.position < len(self.text) and self.text[self.position] in _WHITESPACE:
                self.position += 1
            if self.position < len(self.text):
                return self.text[self.position]
            if not self.grow():
                return ""

    def take(self, character: str) -> bool:
        """Consume the next character if it is `character`."""
        if self.peek() != character:
            return False
        self.position += 1
        return True

    def expect(self, characters: str) -> str:
        """Consume the next character, which must be one of `characters`."""
        found = self.peek()
        if not found or found not in characters:
            wanted = " or ".join(repr(character) for character in characters)
            there = repr(found) if found else "the end of the file"
            raise MalformedJSON(f"expected {wanted} at character {self.offset}, found {there}")
        self.position += 1
        return found

    def value(self) -> Any:
        """Consume one JSON value."""
        self.peek()
        size = _CHUNK
        while True:
            try:
                value, end = self._decoder.raw_decode(self.text, self.position)
            except json.JSONDecodeError as error:
                cut_off = error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - _LITERAL
                if not cut_off or not self.grow(size):
                    where = "the end of the file" if cut_off and self.ended else f"character {self.dropped + error.pos}"
                    raise MalformedJSON(f"{error.msg} at {where}") from None
                size *= 2  # so that one huge value is not parsed again for every chunk
                continue
            except MalformedJSON:
                raise
            except ValueError as error:  # a number of thousands of digits
                raise MalformedJSON(f"{error} at character {self.offset}") from None
            except RecursionError:
                raise MalformedJSON(f"nested too deeply at character {self.offset}") from None
            # "1" near the end of the window may be the beginning of "12" or, with "e+" left over, of "1e+2".
            if len(self.text) - end < 4 and self.grow(size):
                size *= 2
                continue
            self.position = end
            return value

    def members(self) -> Iterator[tuple[str, int, Any]]:
        """The whole file, which must be one object; see `stream`."""
        seen: set[str] = set()
        self.expect("{")
        ended = self.take("}")
        while not ended:
            if self.peek() != '"':
                self.expect('"')
            self.where = key = self.value()
            if key in seen:
                raise MalformedJSON("the key stands twice in the file")
            seen.add(key)
            self.expect(":")
            if self.take("["):
                yield from self._elements(key)
            else:
                yield key, -1, self.value()
            self.where = f"after {key}"
            ended = self.expect(",}") == "}"
        if self.peek():
            raise MalformedJSON(f"something follows the end of the object at character {self.offset}")

    def _elements(self, key: str) -> Iterator[tuple[str, int, Any]]:
        if self.take("]"):
            yield key, -1, []
            return
        for index in itertools.count():
            self.where = f"{key}[{index}]"
            yield key, index, self.value()
            if self.expect(",]") == "]":
                return


def stream(
    path: str | os.PathLike[str], on_read: Callable[[int], None] | None = None
) -> Iterator[tuple[str, int, Any]]:
    """Go through a JSON object file in constant memory.

    Yields ``(key, index, element)`` for every element of every top-level array, in the order of the file, and
    ``(key, -1, value)`` for a top-level value that is no array. An empty array yields ``(key, -1, [])``.

    Args:
        path: a UTF-8 JSON file whose top level is an object.
        on_read: called with the number of characters just read, for a progress bar.

    Raises:
        UserError: when the file cannot be read or is malformed; the message names the file and the element.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = _Reader(file, on_read)
            yield from reader.members()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.", "Check the path, or run the step that makes it.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    except MalformedJSON as error:
        raise UserError(
            f"{path}: {reader.where}: {error}.", "The file may be truncated: make or fetch it again."
        ) from None


class Writer:
    """Write a canonical annotation file one image and one face at a time; the file appears only when all is written.

    A context manager: images come first, faces after them. Equal content gives equal bytes.
    """

    def __init__(self, path: str | os.PathLike[str], description: str = "") -> None:
        self._path = path
        self._description = description
        self._stack = ExitStack()
        self._section = ""
        self._first = True

    def __enter__(self) -> Writer:
        beside = self._stack.enter_context(atomic_write(self._path))
        self._file = self._stack.enter_context(beside.open("w", encoding="utf-8", newline="\n"))
        self._file.write('{"info": ' + json.dumps({"description": self._description}) + ",\n")
        self._file.write('"categories": ' + json.dumps(CATEGORIES))
        self._open("images")
        return self

    def _open(self, section: str) -> None:
        self._file.write(f',\n"{section}": [')
        self._section, self._first = section, True

    def _item(self, item: dict[str, Any]) -> None:
        self._file.write("\n" if self._first else ",\n")
        self._file.write(json.dumps(item, separators=(",", ":"), allow_nan=False))
        self._first = False

    def image(self, image: dict[str, Any]) -> None:
        """Add an image: ``id, file_name, width, height``."""
        if self._section != "images":
            raise ValueError("images come before annotations")
        self._item(image)

    def annotation(self, annotation: dict[str, Any]) -> None:
        """Add a face: ``id, image_id, category_id, bbox, area, iscrowd, segmentation``."""
        if self._section == "images":
            self._file.write("\n]")
            self._open("annotations")
        self._item(annotation)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            if kind is None:
                if self._section == "images":
                    self._file.write("\n]")
                    self._open("annotations")
                self._file.write("\n]\n}\n")
        except BaseException as failure:
            self._stack.__exit__(type(failure), failure, failure.__traceback__)
            raise
        return self._stack.__exit__(kind, error, trace)


def write(
    path: str | os.PathLike[str],
    images: Iterable[dict[str, Any]],
    annotations: Iterable[dict[str, Any]],
    description: str = "",
) -> None:
    """Write a canonical annotation file atomically; see the module's docstring for the fields."""
    with Writer(path, description) as writer:
        for image in images:
            writer.image(image)
        for annotation in annotations:
            writer.annotation(annotation)


def require_number(value: Any, where: str) -> float:
    """`value` when it is a finite number; a UserError that names `where` when it is not."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) == float("inf"):
        raise UserError(f"{where}: expected a number, found {shorten(value)}.")
    return value


def require_integer(value: Any, where: str) -> int:
    """`value` as an integer (``3.0`` counts as one); a UserError that names `where` when it is not."""
    if require_number(value, where) != int(value):
        raise UserError(f"{where}: expected an integer, found {shorten(value)}.")
    return int(value)


def require_section(key: str, value: Any, path: str | os.PathLike[str]) -> None:
    """A UserError when `key`, which `stream` gave as one value, has to be an array and is not an empty one."""
    if key in SECTIONS and value != []:
        raise UserError(f"{path}: {key}: expected an array, found {shorten(value)}.")


def require_object(value: Any, where: str) -> dict[str, Any]:
    """`value` when it is a JSON object; a UserError that names `where` when it is not."""
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a JSON object, found {shorten(value)}.")
    return value


def require_box(value: Any, where: str) -> tuple[float, float, float, float]:
    """`value` as ``(x, y, width, height)``; a UserError that names `where` when it is not four numbers."""
    if not isinstance(value, list) or len(value) != 4:
        raise UserError(f"{where}: expected [x, y, width, height], found {shorten(value)}.")
    x, y, width, height = (require_number(number, f"{where}[{i}]") for i, number in enumerate(value))
    return x, y, width, height


def require_membership(item: dict[str, Any], key: str, where: str) -> int | str | None:
    """The `video_id` of an image or the `track_id` of a face, None where it has none; a UserError that names `where` when it is
    neither an integer nor a text."""
    value = item.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | str)):
        raise UserError(f"{where}.{key}: expected an integer or a text, found {shorten(value)}.")
    return value


def require_file_name(value: Any, where: str) -> PurePosixPath:
    """`value` as a relative path that stays where it is; a UserError that names `where` when it leads elsewhere."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise UserError(f"{where}: expected a file name, found {shorten(value)}.")
    path = PurePosixPath(value.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or not path.name:
        raise UserError(f"{where}: '{value}' leads out of the folder of images.", "Give a relative path below it.")
    return path


def shorten(value: Any, length: int = 60) -> str:
    """A short JSON-like rendering of any value for a message; ``nothing`` for a field that is absent."""
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= length else text[: length - 3] + "..."


@dataclass
class Summary:
    """What a canonical file holds.

    Attributes:
        images: number of images.
        faces: number of faces of each class, by class name.
        empty: number of images without a face.
    """

    images: int = 0
    faces: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CLASSES, 0))
    empty: int = 0


def validate(path: str | os.PathLike[str], check_files: bool = True) -> Summary:
    """Check that a file has the canonical form (see the module's docstring), in memory proportional to its images.

    Args:
        path: the annotation file.
        check_files: also check that the images exist beside it.

    Raises:
        UserError: at the first field that is wrong, naming it.
    """
    folder = Path(path).parent
    sizes: dict[int, tuple[int, int]] = {}
    faces: Counter[int] = Counter()
    labels: Counter[int] = Counter()
    face_ids: set[int] = set()
    categories: list[Any] = []
    sections: set[str] = set()
    with_id: dict[str, set[bool]] = {"video_id": set(), "track_id": set()}
    for key, index, item in stream(path):
        sections.add(key)
        where = f"{path}: {key}[{index}]"
        if index < 0:
            require_section(key, item, path)
            continue
        if key == "categories":
            categories.append(item)
        elif key == "images":
            image = require_object(item, where)
            identity = require_integer(image.get("id"), f"{where}.id")
            if identity < 1 or identity in sizes:
                raise UserError(f"{where}.id: {identity} is below 1 or stands twice.")
            width, height = (require_integer(image.get(side), f"{where}.{side}") for side in ("width", "height"))
            if width < 1 or height < 1:
                raise UserError(f"{where}: an image of {width} x {height} px.")
            name = require_file_name(image.get("file_name"), f"{where}.file_name")
            if check_files and not (folder / name).is_file():
                raise UserError(f"{where}.file_name: '{name}' is not beside the file.", "Convert the dataset again.")
            sizes[identity] = (width, height)
            with_id["video_id"].add(require_membership(image, "video_id", where) is not None)
        elif key == "annotations":
            if "images" not in sections:
                raise UserError(f"{path}: annotations stand before images.", "Convert the dataset again.")
            face = require_object(item, where)
            image_id = _validate_face(face, sizes, where)
            with_id["track_id"].add(require_membership(face, "track_id", where) is not None)
            if face["id"] in face_ids:
                raise UserError(f"{where}.id: {face['id']} stands twice.")
            face_ids.add(face["id"])
            faces[image_id] += 1
            labels[face["category_id"]] += 1
    for field_name, given in with_id.items():
        if len(given) > 1:
            raise UserError(f"{path}: {field_name}: some have one, others none.", "Give it to all, or to none.")
    for section in SECTIONS:
        if section not in sections:
            raise UserError(f"{path}: '{section}' is missing.", "Convert the dataset again.")
    found = [(category.get("id"), category.get("name")) for category in categories if isinstance(category, dict)]
    if found != [(category["id"], category["name"]) for category in CATEGORIES]:
        raise UserError(f"{path}: categories: expected 1 = Real and 2 = Fake, found {shorten(found)}.")
    return Summary(
        images=len(sizes),
        faces={name: labels[category_id(label)] for label, name in enumerate(CLASSES)},
        empty=len(sizes) - len(faces),
    )


def _validate_face(face: dict[str, Any], sizes: dict[int, tuple[int, int]], where: str) -> int:
    """Check one canonical annotation and return the id of its image."""
    if require_integer(face.get("id"), f"{where}.id") < 1:
        raise UserError(f"{where}.id: {face['id']} is below 1.")
    image_id = require_integer(face.get("image_id"), f"{where}.image_id")
    if image_id not in sizes:
        raise UserError(f"{where}.image_id: there is no image {image_id}.")
    if face.get("category_id") not in {category["id"] for category in CATEGORIES}:
        raise UserError(f"{where}.category_id: expected 1 or 2, found {shorten(face.get('category_id'))}.")
    if face.get("iscrowd") not in (0, 1):
        raise UserError(f"{where}.iscrowd: expected 0 or 1, found {shorten(face.get('iscrowd'))}.")
    if require_number(face.get("area"), f"{where}.area") <= 0:
        raise UserError(f"{where}.area: {face['area']} is not positive.")
    width, height = sizes[image_id]
    x, y, box_width, box_height = require_box(face.get("bbox"), f"{where}.bbox")
    slack = 1e-3  # decimal coordinates need not add up exactly
    inside = x >= -slack and y >= -slack and x + box_width <= width + slack and y + box_height <= height + slack
    if box_width <= 0 or box_height <= 0 or not inside:
        raise UserError(f"{where}.bbox: {face['bbox']} is empty or leaves its image of {width} x {height} px.")
    segmentation = face.get("segmentation")
    if isinstance(segmentation, dict):
        if segmentation.get("size") != [height, width] or not isinstance(segmentation.get("counts"), str):
            raise UserError(f"{where}.segmentation: expected a compressed RLE of size [{height}, {width}].")
    elif not isinstance(segmentation, list) or not segmentation:
        raise UserError(f"{where}.segmentation: expected polygons or an RLE, found {shorten(segmentation)}.")
    else:
        for i, ring in enumerate(segmentation):
            if not isinstance(ring, list) or len(ring) < 6 or len(ring) % 2:
                raise UserError(f"{where}.segmentation[{i}]: expected at least three points, found {shorten(ring)}.")
            for number in ring:
                require_number(number, f"{where}.segmentation[{i}]")
    return image_id


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A whole annotation file as one object with ``images``, ``annotations`` and ``categories`` lists.

    Use `stream` for files of OpenForensics' size.
    """
    document: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    for key, index, value in stream(path):
        if index >= 0:
            document.setdefault(key, []).append(value)
        else:
            document[key] = value
    return document
