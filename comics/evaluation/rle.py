"""COCO's run lengths of masks: what the check of inputs needs beyond the libraries.

Runs alternate between outside and inside, down the columns, beginning outside. As text, a run is written as its
difference to the run two before (from the fourth on), in groups of five bits, the lowest first: each character is 48 plus the
group, plus 32 if another group follows; bit 16 of the last group is the sign.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_CHARACTERS = 1 << 16
"""Decoded at once, which bounds memory."""
_VALUES = ((np.arange(256) - 48) & 31).astype(np.int64)
_VALUES[_VALUES > 15] -= 32
"""Of a group that is the last of its run, by character: five bits with a sign."""


class Texts:
    """Run lengths of masks as one text: hundreds of thousands of small ones would keep the memory around them in use."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._text = "".join(texts)
        self._ends = np.cumsum([0, *map(len, texts)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def isascii(self) -> bool:
        """Whether no mask has other characters."""
        return self._text.isascii()

    def __getitem__(self, chosen: NDArray[np.int64]) -> list[str]:
        """The run lengths of the `chosen` (M,) masks."""
        bounds = zip(self._ends[chosen].tolist(), self._ends[chosen + 1].tolist(), strict=True)
        return [self._text[start:end] for start, end in bounds]

    def pixels(self) -> NDArray[np.int64]:
        """(N,) pixels that each mask's runs add up to; -1 where they are malformed or a run is negative."""
        totals = np.zeros(len(self), np.int64)
        start = 0
        while start < len(self):
            fitting = int(np.searchsorted(self._ends, self._ends[start] + _CHARACTERS, side="right")) - 1
            stop = max(start + 1, fitting)
            text = self._text[self._ends[start] : self._ends[stop]].encode("latin-1")
            totals[start:stop] = _pixels(np.frombuffer(text, np.uint8), np.diff(self._ends[start : stop + 1]))
            start = stop
        return totals


class JoinedTexts(Texts):
    """Several `Texts` after each other, none of which is copied."""

    def __init__(self, parts: Sequence[Texts]) -> None:
        self._parts = list(parts)
        self._firsts = np.cumsum([0, *map(len, self._parts)])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def isascii(self) -> bool:
        return all(part.isascii() for part in self._parts)

    def __getitem__(self, chosen: NDArray[np.int64]) -> list[str]:
        numbers = np.searchsorted(self._firsts, chosen, side="right") - 1
        texts = [""] * len(chosen)
        for number in np.unique(numbers).tolist():
            places = np.flatnonzero(numbers == number)
            own = self._parts[number][chosen[places] - self._firsts[number]]
            for place, text in zip(places.tolist(), own, strict=True):
                texts[place] = text
        return texts

    def pixels(self) -> NDArray[np.int64]:
        return np.concatenate([np.zeros(0, np.int64), *(part.pixels() for part in self._parts)])


def pixels(counts: Sequence[str | bytes | Sequence[int]]) -> NDArray[np.int64]:
    """(N,) pixels that each mask's runs add up to; -1 where they are malformed or a run is negative."""
    listed = np.array([not isinstance(one, str | bytes) for one in counts], bool)
    texts = [one if isinstance(one, str) else one.decode("latin-1") for one in counts if isinstance(one, str | bytes)]
    totals = np.zeros(len(counts), np.int64)
    totals[listed] = [min(sum(one), 2**62) for one in counts if not isinstance(one, str | bytes)]
    totals[~listed] = Texts(texts).pixels()
    return totals


def inside(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The runs inside of masks: the number (R,) of the mask, and the first place (R,) and the one behind (R,), counted down
    the columns.

    Args:
        texts: checked run lengths.
    """
    lengths = np.array([len(text) for text in texts], np.int64)
    none = np.zeros(0, np.int64)
    if not lengths.any():
        return none, none, none
    value, first, _ = _values(np.frombuffer("".join(texts).encode("latin-1"), np.uint8), lengths[lengths > 0])
    masks = np.flatnonzero(lengths)
    counts = np.diff(first, append=len(value))
    place = np.arange(len(value)) - np.repeat(first, counts)
    lead = value[first]
    value[first] = 0
    # From the start of its own mask, every other value adds up to a run; the lanes of all masks go on from each other.
    lanes = np.zeros((2, len(value)), np.int64)
    lanes[place % 2, np.arange(len(value))] = value
    lanes = lanes.cumsum(axis=1)
    before = np.concatenate([np.zeros((2, 1), np.int64), lanes], axis=1)[:, first]
    runs = lanes[place % 2, np.arange(len(value))] - np.repeat(before, counts, axis=1)[place % 2, np.arange(len(value))]
    runs[first] = lead
    ends = runs.cumsum()
    ends -= np.repeat(np.concatenate([[0], ends])[first], counts)
    odd = np.flatnonzero(place % 2)
    odd = odd[runs[odd] > 0]
    return np.repeat(masks, counts)[odd], ends[odd - 1], ends[odd]


def _values(
    codes: NDArray[np.uint8], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.intp], NDArray[np.bool_]]:
    """The values that texts of positive `lengths` (N,) write, the first (N,) of each, and which (N,) are malformed."""
    ends = np.cumsum(lengths)
    starts = np.concatenate([[0], ends[:-1]])
    group = codes - np.uint8(48)  # characters below 48 wrap to above 63
    last = (group & 32) == 0
    malformed = ~last[ends - 1] | (np.maximum.reduceat(group, starts) > 63)
    last[ends - 1] = True  # a text that breaks off must not run into the next one

    # Values: one a stop, from the characters since the stop before.
    stops = np.flatnonzero(last)
    first = np.searchsorted(stops, starts)
    width = np.diff(stops, prepend=-1)
    malformed |= np.maximum.reduceat(width, first) > 8
    value = _VALUES[codes[stops]]
    longer = np.flatnonzero(width > 1)
    for back in range(1, 8):
        value[longer] = (value[longer] << 5) | (group[stops[longer] - back] & 31)
        longer = longer[width[longer] > back + 1]
    return value, first, malformed


def _pixels(codes: NDArray[np.uint8], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """`pixels` of texts of `lengths` (N,) whose characters are `codes`, decoded together."""
    totals = np.zeros(len(lengths), np.int64)
    filled = np.flatnonzero(lengths)
    if not len(filled):
        return totals
    value, first, malformed = _values(codes, lengths[filled])

    # Runs: the first stands for itself; the others add up over every other place, from the start of their own mask. Places
    # are added up in two lanes through all masks; what a mask's runs begin from is then taken off.
    lead = value[first]
    value[first] = 0
    lanes = np.zeros((len(value) // 2 + 3, 2), np.int64)  # a row of zeros before, and one behind
    lanes.ravel()[2 : len(value) + 2] = value
    lanes.cumsum(axis=0, out=lanes)
    pixels = lead
    malformed |= lead < 0
    bounds = np.append(first, len(value))
    for lane in (0, 1):
        rows = (bounds - lane + 1) // 2 + 1  # the first of each mask in this lane, and the end
        counts = np.diff(rows)
        before = lanes[rows[:-1] - 1, lane]
        lowest, total = (add.reduceat(lanes[:, lane], rows)[:-1] for add in (np.minimum, np.add))
        malformed |= (lowest < before) & (counts > 0)
        pixels = pixels + np.where(counts > 0, total - before * counts, 0)
    totals[filled] = np.where(malformed, -1, pixels)
    return totals


def as_text(counts: str | bytes | Sequence[int], height: int, width: int) -> str:
    """Run lengths as text, from whatever they are."""
    if isinstance(counts, str):
        return counts
    if isinstance(counts, bytes):
        return counts.decode("ascii")
    from pycocotools import mask as rle

    encoded: bytes = rle.frPyObjects({"size": [height, width], "counts": list(counts)}, height, width)["counts"]
    return encoded.decode("ascii")


def filled(masks: Sequence[list[list[float]]], sizes: Sequence[tuple[int, int]]) -> list[str]:
    """Run lengths as text of what the polygons x, y, x, y, ... in px of each mask cover together.

    Args:
        masks: (N) polygons of each.
        sizes: (N) height and width.
    """
    from pycocotools import mask as rle

    texts = [""] * len(masks)
    of_size: dict[tuple[int, int], list[int]] = {}
    for index, size in enumerate(sizes):
        of_size.setdefault(size, []).append(index)
    for size, chosen in of_size.items():  # one call for all of a size: the call costs more than the polygon
        drawn = iter(rle.frPyObjects([polygon for index in chosen for polygon in masks[index]], *size))
        for index in chosen:
            parts = [next(drawn) for _ in masks[index]]
            texts[index] = (parts[0] if len(parts) == 1 else rle.merge(parts))["counts"].decode("ascii")
    return texts
