"""Entries of COCO files checked column by column, before anything is computed."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any

import numpy as np

from comics.errors import UserError
from comics.evaluation.coco import Bools, Floats, Ints
from comics.evaluation.layout import UNSET, Struct
from comics.evaluation.rle import Texts, as_text, filled, pixels

_FARTHEST = 1e5
"""Of a polygon's coordinates, px from the corner: filling polygons takes memory in proportion to their outline."""


class Checker:
    """Columns of a list of entries; a `UserError` at the first entry that is not usable.

    Args:
        name: the file.
        part: what the list is called.
        entries: its elements, as parsed: anything, or all of a type of `comics.evaluation.layout`.
        first: place of the first of them in the file.
    """

    def __init__(self, name: str, part: str, entries: Sequence[Any], first: int = 0) -> None:
        self.name, self.part, self.entries, self.first = name, part, entries, first
        self.typed = bool(entries) and isinstance(entries[0], Struct)

    def no(self, field: str, bad: Any, why: str | Callable[[int], str]) -> None:
        """Refuse the list if any of `bad` (N,) is set."""
        if not np.any(bad):
            return
        if self.typed:
            raise UserError(f"{self.name}: {self.part} are not usable.")  # the caller goes on with plain JSON
        where = np.flatnonzero(bad)
        first = int(where[0])
        place = f"{self.name}: {self.part}[{self.first + first}]" + (f".{field}" if field else "")
        entry = self.entries[first]
        missing = field and isinstance(entry, dict) and field not in entry
        text = "missing" if missing else repr(entry[field] if field and isinstance(entry, dict) else entry)
        reason = why(first) if callable(why) else why
        more = f" And {len(where) - 1} more like it." if len(where) > 1 else ""
        raise UserError(f"{place}: {text[:60] + '…' if len(text) > 60 else text}: {reason}.{more}")

    def objects(self) -> None:
        """Check that every entry is an object."""
        if not self.typed and not set(map(type, self.entries)) <= {dict}:
            self.no("", [not isinstance(one, dict) for one in self.entries], "not an object")

    def column(self, field: str, default: Any = None) -> list[Any]:
        if self.typed:
            return list(map(attrgetter(field), self.entries))
        return [one.get(field, default) for one in self.entries]

    def has(self, field: str) -> Bools:
        """(N,) whether an entry has `field`."""
        if self.typed:
            return np.array([value is not UNSET for value in self.column(field)], bool)
        return np.array([field in one for one in self.entries], bool)

    def integers(self, field: str) -> Ints:
        """(N,) a field that must be an integer."""
        values = self.column(field)
        if not set(map(type, values)) <= {int}:
            self.no(field, [not _is(numbers.Integral, value) for value in values], "not an integer")
        try:
            return np.array(values, np.int64)
        except OverflowError:
            self.no(field, [abs(value) >= 2**63 for value in values], "too large")
            raise

    def belongs(self, field: str) -> Ints | None:
        """(N,) what each entry belongs to, numbered from 0: an id that all entries have, an integer or a text; None where none
        has one."""
        if not self.entries or not self.all_or_none(field):
            return None
        values = self.column(field)
        self.no(field, [not isinstance(value, str) and not _is(numbers.Integral, value) for value in values], "no id")
        number_of = {value: number for number, value in enumerate(dict.fromkeys(values))}
        return np.array([number_of[value] for value in values], np.int64)

    def forgeries(self) -> tuple[str, ...]:
        """(N) kinds of forgery, empty texts where an entry has none; nothing where none has one."""
        if not self.has("forgery").any():
            return ()
        kinds = ["" if value is None or value is UNSET else value for value in self.column("forgery")]
        self.no("forgery", [not isinstance(kind, str) for kind in kinds], "not a text")
        return tuple(kinds)

    def members(self, field: str, known: Ints, why: str) -> Ints:
        """(N,) index into `known`, ascending, of a field that must be one of them."""
        values = self.integers(field)
        indices = np.searchsorted(known, values)
        unknown = np.ones(len(values), bool) if not len(known) else known[np.minimum(indices, len(known) - 1)] != values
        self.no(field, unknown, why)
        return indices

    def floats(self, field: str) -> Floats:
        """(N,) a field that must be a finite number."""
        values = self.column(field)
        if not set(map(type, values)) <= {float, int}:
            self.no(field, [not _is(numbers.Real, value) for value in values], "not a number")
        try:
            column = np.array(values, np.float64)
        except OverflowError:
            column = np.array([_as_float(value) for value in values])
        self.no(field, ~np.isfinite(column), "not finite")
        return column

    def all_or_none(self, field: str) -> bool:
        """Whether the entries have `field`; an empty list has every field."""
        has = self.has(field)
        if has.any():
            self.no(field, ~has, "other entries have it")
        return bool(has.all())

    def boxes(self) -> Floats | None:
        """(N, 4) of ``bbox``, or None where no entry has one."""
        if not self.all_or_none("bbox"):
            return None
        values = self.column("bbox")
        lists = set(map(type, values)) <= {list, tuple} and set(map(len, values)) <= {4}
        if not lists or not set(map(type, chain.from_iterable(values))) <= {float, int}:
            self.no("bbox", [not _is_numbers(value, 4) for value in values], "not four numbers")
        try:
            boxes = np.fromiter(chain.from_iterable(values), np.float64, 4 * len(values)).reshape(-1, 4)
        except OverflowError:
            boxes = np.array([[_as_float(one) for one in value] for value in values])
        self.no("bbox", ~np.isfinite(boxes).all(axis=1), "not finite")
        self.no("bbox", (boxes[:, 2:] < 0).any(1), "x, y, width, height: a negative size")
        return boxes

    def masks(self, chosen: Ints, sizes: Ints) -> Texts:
        """Run lengths as text of the `chosen` entries, which must be masks of `sizes` (N, 2)."""
        values = self.column("segmentation")
        masks = values if len(chosen) == len(values) else [values[index] for index in chosen.tolist()]
        if not self.typed and not _are_texts(masks):
            self._no_of(chosen, [not _is_rle(mask) for mask in masks], lambda _: "not run lengths with size and counts")
        part = attrgetter if self.typed else itemgetter
        # As floats, which hold every size of an image exactly and integers of any length.
        told = np.fromiter(chain.from_iterable(map(part("size"), masks)), np.float64).reshape(-1, 2)
        wanted = sizes[chosen]
        unknown = (wanted == 0).any(1)
        self._no_of(chosen, unknown, lambda _: "its image has no height and width")
        self._no_of(
            chosen,
            (told != wanted).any(1),
            lambda index: f"size {self.entries[index]['segmentation']['size']} of an image of {sizes[index].tolist()}",
        )
        counts = list(map(part("counts"), masks))
        texts = Texts(counts) if set(map(type, counts)) <= {str} else None
        if texts is None or not texts.isascii():
            bad = [isinstance(one, str) and not one.isascii() for one in counts]
            self._no_of(chosen, bad, lambda _: "its counts are no run lengths")
        totals = pixels(counts) if texts is None else texts.pixels()
        self._no_of(chosen, totals != told.prod(1), lambda _: "its run lengths do not add up to its size")
        if texts is None:
            sizes_told = told.astype(int).tolist()
            texts = Texts([as_text(one, *size) for one, size in zip(counts, sizes_told, strict=True)])
        return texts

    def annotation_masks(self, sizes: Ints) -> Texts | None:
        """Run lengths as text of annotations in images of `sizes` (N, 2), from run lengths or polygons."""
        if not self.all_or_none("segmentation"):
            return None
        values = self.column("segmentation")
        polygons = np.array([isinstance(mask, list) for mask in values], bool)
        bad = [isinstance(mask, list) and not _is_polygons(mask, self.typed) for mask in values]
        self.no("segmentation", bad, "polygons are lists of at least three x, y pairs in px")
        self.no("segmentation", polygons & (sizes == 0).any(1), "its image has no height and width")
        compressed = np.flatnonzero(~polygons)
        masks = [""] * len(values)
        texts = self.masks(compressed, sizes)
        for index, text in zip(compressed, texts[np.arange(len(texts))], strict=True):
            masks[index] = text
        outlined = np.flatnonzero(polygons).tolist()
        shapes = sizes[polygons].tolist()
        drawn = filled([values[index] for index in outlined], [(height, width) for height, width in shapes])
        for place, text in zip(outlined, drawn, strict=True):
            masks[place] = text
        return Texts(masks)

    def _no_of(self, chosen: Ints, bad: Any, why: Callable[[int], str]) -> None:
        every = np.zeros(len(self.entries), bool)
        every[chosen] = bad
        self.no("segmentation", every, why)


def _is(kind: type, value: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool | np.bool_)


def _is_numbers(value: Any, count: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == count and all(_is(numbers.Real, one) for one in value)


def _is_polygons(value: list[Any], typed: bool = False) -> bool:
    """Whether these are usable outlines; with `typed` they are known to be lists of floats."""
    if typed:
        # A NaN is refused with infinity: both comparisons with it are false.
        return bool(value) and all(
            len(one) >= 6
            and len(one) % 2 == 0
            and min(one) >= -_FARTHEST
            and max(one) <= _FARTHEST
            and sum(one) == sum(one)
            for one in value
        )
    return bool(value) and all(
        isinstance(one, list)
        and len(one) >= 6
        and len(one) % 2 == 0
        and set(map(type, one)) <= {int, float}
        and min(one) >= -_FARTHEST
        and max(one) <= _FARTHEST
        and math.isfinite(sum(one))
        for one in value
    )


def _as_float(value: Any) -> float:
    """`value`, or infinity where it is too large for a float."""
    try:
        return float(value)
    except OverflowError:
        return np.inf


def _are_texts(masks: list[Any]) -> bool:
    """Whether all are run lengths as text: a quick look that settles the usual case."""
    if not set(map(type, masks)) <= {dict}:
        return False
    sizes = [mask.get("size") for mask in masks]
    return (
        set(map(type, [mask.get("counts") for mask in masks])) <= {str}
        and set(map(type, sizes)) <= {list}
        and set(map(len, sizes)) <= {2}
        and set(map(type, chain.from_iterable(sizes))) <= {int}
    )


def _is_rle(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(size := value.get("size"), list | tuple)
        and len(size) == 2
        and all(_is(numbers.Integral, one) for one in size)
        and (
            isinstance(counts := value.get("counts"), str | bytes)
            or (isinstance(counts, list) and all(_is(numbers.Integral, one) and one >= 0 for one in counts))
        )
    )


def repeated(values: Ints) -> Bools:
    """(N,) whether an earlier element is the same."""
    repeated = np.ones(len(values), bool)
    repeated[np.unique(values, return_index=True)[1]] = False
    return repeated
