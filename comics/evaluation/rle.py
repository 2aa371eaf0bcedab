"""COCO's run lengths of masks: what the check of inputs needs beyond the libraries.

Runs alternate between outside and inside, down the columns, beginning outside. As text, a run is written as its
difference to the run two before (from the fourth on), in groups of five bits, the lowest first: each character is 48 plus the
group, plus 32 if another group follows; bit 16 of the last group is the sign.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHARACTERS = 1 << 15
"""Decoded at once, which bounds memory."""


def pixels(counts: Sequence[str | bytes | Sequence[int]]) -> NDArray[np.int64]:
    """(N,) pixels that each mask's runs add up to; -1 where they are malformed or a run is negative."""
    texts = [one.encode("ascii") if isinstance(one, str) else one for one in counts if isinstance(one, str | bytes)]
    totals = np.zeros(len(counts), np.int64)
    listed = np.fromiter((not isinstance(one, str | bytes) for one in counts), bool, len(counts))
    totals[listed] = [sum(one) for one in counts if not isinstance(one, str | bytes)]
    of_texts = np.zeros(len(texts), np.int64)
    ends = np.cumsum([len(text) for text in texts])
    start = 0
    while start < len(texts):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _CHARACTERS, side="right")))
        of_texts[start:stop] = _pixels(texts[start:stop])
        start = stop
    totals[~listed] = of_texts
    return totals


def _pixels(texts: Sequence[bytes]) -> NDArray[np.int64]:
    """`pixels` of texts, decoded together."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    code = np.frombuffer(b"".join(texts), np.uint8)
    totals = np.zeros(len(texts), np.int64)
    if not len(code):
        return totals
    group = code - np.uint8(48)  # characters below 48 wrap to above 63
    last = (group & 32) == 0
    stops = np.flatnonzero(last)
    text_ends = np.cumsum(lengths)
    filled = lengths > 0
    malformed = np.zeros(len(texts), bool)
    malformed[filled] = ~last[text_ends[filled] - 1]
    wrong = np.flatnonzero(group > 63)
    malformed[np.searchsorted(text_ends, wrong, side="right")] = True
    if not len(stops):
        return np.where(filled, -1, 0)

    # Values: one a stop, from the characters since the stop before.
    width = np.diff(stops, prepend=-1)
    value = (group[stops] & 31).astype(np.int64)
    value -= (value & 16) << 1  # sign
    for back in range(1, int(min(width.max(), 8))):
        longer = np.flatnonzero(width > back)
        value[longer] = (value[longer] << 5) | (group[stops[longer] - back] & 31)
    too_long = np.flatnonzero(width > 8)
    malformed[np.searchsorted(text_ends, stops[too_long], side="right")] = True

    # Runs: sums over every other value, starting anew in each mask; the first value stands for itself.
    mask = np.searchsorted(text_ends, stops, side="right")
    values = np.bincount(mask, minlength=len(texts))
    first = np.cumsum(values) - values
    position = np.arange(len(value)) - first[mask]
    leading = value[position == 0]
    totals[mask[position == 0]] += leading
    malformed[mask[position == 0][leading < 0]] = True
    for parity in (1, 0):
        chosen = (position > 0) & (position % 2 == parity)
        of_mask = mask[chosen]
        summed = np.cumsum(value[chosen])
        count = np.bincount(of_mask, minlength=len(texts))
        before = np.concatenate([[0], summed])[np.cumsum(count) - count]
        runs = summed - before[of_mask]
        malformed[of_mask[runs < 0]] = True
        running = np.concatenate([[0], np.cumsum(runs)])
        totals += running[np.cumsum(count)] - running[np.cumsum(count) - count]
    totals[malformed] = -1
    return totals


def compress(mask: Mapping[str, Any]) -> dict[str, Any]:
    """Run lengths with their counts as text, from counts as bytes or numbers."""
    size, counts = mask["size"], mask["counts"]
    if not isinstance(counts, bytes):
        from pycocotools import mask as rle

        counts = rle.frPyObjects({"size": list(size), "counts": list(counts)}, *size)["counts"]
    return {"size": list(size), "counts": counts.decode("ascii")}
