"""Masks before they are cut: probabilities that are drawn at any size, one at a time.

A detector sees an image of a run's size, a results file speaks of the original's pixels. Cut there, at the original size, an
outline is smooth; cut at the network's size and enlarged it keeps the steps of its pixels. So do the published
implementations. A large original has room for one of its masks, hardly for a hundred: only the part of each that can be set
is computed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from comics.padding import Size

THRESHOLD = 0.5


@dataclass(frozen=True)
class Part:
    """The rectangle outside of which a mask has no pixel.

    Attributes:
        mask: (h, w) bool.
        top: row of its first pixel in the image.
        left: column of it.
    """

    mask: Tensor
    top: int
    left: int


class SoftMasks(ABC):
    """The masks of the detections of one image."""

    size: Size
    """Of the image that the network saw, (height, width) px without padding."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: Tensor) -> Self:
        """Those of some detections."""

    @abstractmethod
    def parts(self, size: Size) -> Iterator[Part]:
        """Each mask, cut in the image resized to `size`."""

    def at(self, size: Size) -> Tensor:
        """All masks in the image resized to `size`, (N, height, width) bool."""
        return torch.stack([*self.each(size)]) if len(self) else self._blank(0, *size)

    def each(self, size: Size) -> Iterator[Tensor]:
        """Each mask in the image resized to `size`, (height, width) bool."""
        for part in self.parts(size):
            mask = self._blank(*size)
            height, width = part.mask.shape
            mask[part.top : part.top + height, part.left : part.left + width] = part.mask
            yield mask

    @abstractmethod
    def _blank(self, *shape: int) -> Tensor:
        """No pixel is set: `shape`, bool, where the masks are."""


@dataclass(frozen=True)
class PastedMasks(SoftMasks):
    """Masks of boxes, bilinearly resized to their place in the image.

    Bilinear sampling is separable: each axis is a matrix of hat functions, and only the pixels of the box are computed.

    Args:
        probabilities: (N, S, S); a pixel at or above 0.5 belongs to the face.
        boxes: (N, 4) xyxy px, inside the image.
        size: of the image.
    """

    probabilities: Tensor
    boxes: Tensor
    size: Size

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Tensor) -> PastedMasks:
        return PastedMasks(self.probabilities[index], self.boxes[index], self.size)

    def _blank(self, *shape: int) -> Tensor:
        return self.boxes.new_zeros(shape, dtype=torch.bool)

    def parts(self, size: Size) -> Iterator[Part]:
        (height, width), device = size, self.boxes.device
        across, down = width / self.size[1], height / self.size[0]
        side = self.probabilities.shape[-1]
        cells = torch.arange(side, device=device)
        scale = self.boxes.new_tensor([across, down, across, down])
        for mask, box in zip(self.probabilities, (self.boxes * scale).tolist(), strict=True):
            left, top, right, bottom = box
            x0, y0 = max(math.floor(left), 0), max(math.floor(top), 0)
            x1, y1 = max(x0, min(math.ceil(right), width)), max(y0, min(math.ceil(bottom), height))
            x = (torch.arange(x0, x1, device=device) + 0.5 - left) * (side / max(right - left, 1e-6)) - 0.5
            y = (torch.arange(y0, y1, device=device) + 0.5 - top) * (side / max(bottom - top, 1e-6)) - 0.5
            columns = (1 - (x[:, None] - cells).abs()).clamp(min=0)
            rows = (1 - (y[:, None] - cells).abs()).clamp(min=0)
            with torch.autocast(device.type, enabled=False):
                yield Part(rows @ mask.float() @ columns.T >= THRESHOLD, y0, x0)


@dataclass(frozen=True)
class MapMasks(SoftMasks):
    """Masks of the whole image at a fraction of its size, bilinearly enlarged to it, and from there to another size.

    Interpolation never exceeds its neighbours, so each mask is enlarged only around its cells above the threshold.

    Args:
        probabilities: (N, h, w); a pixel above 0.5 belongs to the face.
        size: of the image; what lies outside of it, in the padding, is cut off.
        stride: px between cells.
        aligned: cell j stands for the pixel j * stride + stride // 2, not for the middle of its stride pixels.
        direct: enlarged to another size at once, not over the size that the network saw.
    """

    probabilities: Tensor
    size: Size
    stride: int
    aligned: bool = False
    direct: bool = False

    def __len__(self) -> int:
        return len(self.probabilities)

    def __getitem__(self, index: Tensor) -> MapMasks:
        return MapMasks(self.probabilities[index], self.size, self.stride, self.aligned, self.direct)

    def _blank(self, *shape: int) -> Tensor:
        return self.probabilities.new_zeros(shape, dtype=torch.bool)

    def _steps(self, axis: int, length: int) -> list[Tensor]:
        """Along one axis, for the pixels of each enlargement: where they lie among those before it, the cells first."""
        device, own = self.probabilities.device, self.size[axis]
        over_own = not self.direct and length != own
        pixels = _centres(own, own if over_own else length, device)
        shift = -(self.stride // 2) if self.aligned else 0.5 - 0.5 * self.stride
        cells = ((pixels + shift) / self.stride).clamp(0, self.probabilities.shape[1 + axis] - 1)
        return [cells, _centres(own, length, device).clamp(0, own - 1)] if over_own else [cells]

    def parts(self, size: Size) -> Iterator[Part]:
        rows, columns = (self._steps(axis, length) for axis, length in enumerate(size))
        above = self.probabilities > THRESHOLD
        spans = torch.stack([_span(above.any(dim=2)), _span(above.any(dim=1))], dim=1).flatten(1).tolist()
        for probability, (top, bottom, left, right) in zip(self.probabilities, spans, strict=True):
            if bottom < top:
                yield Part(above.new_zeros(0, 0), 0, 0)
                continue
            x, first_row = _enlarged(probability.float(), 0, (top, bottom), rows)
            x, first_column = _enlarged(x, 1, (left, right), columns)
            yield Part(x > THRESHOLD, first_row, first_column)


@dataclass(frozen=True)
class OutlinedMasks(SoftMasks):
    """Masks of polygons whose corners lie in equal angles around a point: the pixels whose centres lie within.

    A pixel is within when, in its direction, the polygon's edge is farther than it.

    Args:
        points: (N, 2) px.
        ends: the corners, from the point on, (N, R, 2) px: the first below it, then towards the right.
        size: of the image.
    """

    points: Tensor
    ends: Tensor
    size: Size

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: Tensor) -> OutlinedMasks:
        return OutlinedMasks(self.points[index], self.ends[index], self.size)

    def _blank(self, *shape: int) -> Tensor:
        return self.points.new_zeros(shape, dtype=torch.bool)

    def parts(self, size: Size) -> Iterator[Part]:
        (height, width), device, rays = size, self.points.device, self.ends.shape[1]
        down, across = height / self.size[0], width / self.size[1]
        corners = self.points[:, None] + self.ends
        limits = torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1).tolist()
        for point, ends, (x0, y0, x1, y1) in zip(self.points, self.ends, limits, strict=True):
            left, top = max(0, math.floor(x0 * across)), max(0, math.floor(y0 * down))
            right, bottom = min(math.ceil(x1 * across), width), min(math.ceil(y1 * down), height)
            x = (torch.arange(left, max(left, right), device=device) + 0.5) / across - point[0]
            y = (torch.arange(top, max(top, bottom), device=device) + 0.5) / down - point[1]
            turn = torch.atan2(x.expand(len(y), -1), y[:, None].expand(-1, len(x))) * (rays / (2 * math.pi)) % rays
            first = turn.floor().long() % rays
            a, b = ends[first], ends[(first + 1) % rays]  # the edge in the pixel's sector
            edge = b - a
            # on the same side of the edge as the point itself
            side = edge[..., 0] * (y[:, None] - a[..., 1]) - edge[..., 1] * (x - a[..., 0])
            origin = edge[..., 1] * a[..., 0] - edge[..., 0] * a[..., 1]
            yield Part(side * origin.sign() >= 0, top, left)


def _span(some: Tensor) -> Tensor:
    """First and last index (N, 2) where `some` (N, K) holds; the last is -1 where it never does."""
    index = torch.arange(some.shape[1], device=some.device)
    first = torch.where(some, index, some.shape[1]).amin(dim=1)
    return torch.stack((first, torch.where(some, index, -1).amax(dim=1)), dim=1)


def _centres(pixels: int, wanted: int, device: torch.device) -> Tensor:
    """Where the middles of `wanted` pixels lie among `pixels` of the same length, (wanted,)."""
    return (torch.arange(wanted, device=device, dtype=torch.float32) + 0.5) * (pixels / wanted) - 0.5


def _enlarged(x: Tensor, axis: int, span: tuple[int, int], steps: list[Tensor]) -> tuple[Tensor, int]:
    """A mask enlarged along one axis, as far as it can be above the threshold, and the first pixel of that.

    Args:
        x: (h, w).
        axis: 0 or 1.
        span: first and last cell above the threshold.
        steps: for the pixels of each enlargement, where they lie among those before it, the cells first.
    """
    first, last = span
    low, high = max(first - 2, 0), min(last + 2, x.shape[axis] - 1)
    x = x.narrow(axis, low, high - low + 1)
    for places in steps:
        near = torch.where((places > first - 1) & (places < last + 1))[0]
        if not len(near):  # it lies in the padding
            return x.narrow(axis, 0, 0), 0
        first, last = int(near[0]), int(near[-1])
        # one more on each side: the next enlargement's lie between
        begin, end = max(first - 1, 0), min(last + 1, len(places) - 1)
        place = (places[begin : end + 1] - low).clamp(0, x.shape[axis] - 1)
        before = place.long()
        share = (place - before).view(-1, 1) if axis == 0 else place - before
        after = (before + 1).clamp(max=x.shape[axis] - 1)
        x = x.index_select(axis, before) * (1 - share) + x.index_select(axis, after) * share
        low = begin
    return x, low
