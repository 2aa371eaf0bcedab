"""Perturbations that make a challenging test set, after the description of OpenForensics' Test-Challenge.

The paper's test-challenge images "are processed by many operations such as block-wise distortion, color manipulation,
and random noise" (section VII-A, figure 8); the dataset's authors list colour manipulation, edge manipulation,
block-wise distortion, image corruption, convolution masks and external effects (weather). Every operation here is a
function ``(image, strength, generator) -> image`` in `OPERATIONS`:

- ``image`` is a (H, W, 3) uint8 RGB array of any size, and so is the result, which is a new array;
- ``strength`` in [0, 1] goes from the mildest to the strongest that the operation's range knows;
- ``generator`` is the only source of chance.

None of them moves a pixel by more than the blur it is, so that boxes and masks stay right. The operations of `WARPS`
do move pixels: they give sampling positions, by which image, masks and boxes are changed alike.

`perturb` chooses and applies operations in four levels, as the authors' description does:

1. one or two of: one to three colour operations; noise, blur or sharpening; JPEG or weather;
2. colour and then blur or edge, or one or two of corruption and weather;
3. one or two of colour and blur or edge, then at most two of corruption and weather;
4. as 3 with corruption and weather always, and with inversion, solarising, shot noise and zoom blur among the choices.

The description does not say which level made Test-Challenge, so by default the level is drawn for every image.
Block-wise distortion counts as corruption and convolution masks count as edge manipulation.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from scipy import ndimage

from comics.errors import UserError

Pixels = NDArray[np.uint8]
Operation = Callable[[Pixels, float, np.random.Generator], Pixels]
Warp = Callable[[tuple[int, int], float, np.random.Generator], NDArray[np.float32]]

LEVELS = (1, 2, 3, 4)

OPERATIONS: dict[str, Operation] = {}
FAMILIES: dict[str, list[str]] = {}
"""Names of the operations of each family: colour, edge, convolution, block, corruption, weather."""
WARPS: dict[str, Warp] = {}

# Choices of level 4 alone.
_HARSH = frozenset({"invert", "solarize", "shot_noise", "zoom_blur"})


def _operation(family: str) -> Callable[[Operation], Operation]:
    def register(function: Operation) -> Operation:
        OPERATIONS[function.__name__] = function
        FAMILIES.setdefault(family, []).append(function.__name__)
        return function

    return register


def _warp(function: Warp) -> Warp:
    WARPS[function.__name__] = function
    return function


def _between(low: float, high: float, strength: float) -> float:
    return low + (high - low) * strength


def _factor(strength: float, generator: np.random.Generator, widest: float) -> float:
    """A factor around 1, up or down with equal chance: 1 + s or 1 / (1 + s), s from a fifth of `widest` to `widest`."""
    factor = 1 + _between(widest / 5, widest, strength)
    return factor if generator.random() < 0.5 else 1 / factor


def _pixels(values: NDArray[np.floating] | NDArray[np.integer]) -> Pixels:
    """Rounded to the nearest of 0 ... 255."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _array(image: Image.Image) -> Pixels:
    return np.array(image.convert("RGB"))


def _clouds(
    shape: tuple[int, int], generator: np.random.Generator, coarsest: int, octaves: int = 4
) -> NDArray[np.float32]:
    """Smooth random values in [0, 1] of `shape`: bilinear noise whose cells halve from octave to octave."""
    height, width = shape
    total = np.zeros(shape, dtype=np.float32)
    cell, weight = float(max(coarsest, 1)), 1.0
    for _ in range(octaves):
        grid = (max(2, round(height / cell) + 1), max(2, round(width / cell) + 1))
        noise = Image.fromarray(generator.random(grid, dtype=np.float32))
        total += weight * np.asarray(noise.resize((width, height), Image.Resampling.BILINEAR))
        cell, weight = cell / 2, weight / 2
    total -= total.min()
    highest = total.max()
    return total / highest if highest > 0 else total


# ----------------------------------------------------------------------------------------------------------- colour


@_operation("colour")
def brightness(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Multiply by 1.1 ... 1.5 or its inverse."""
    return _array(ImageEnhance.Brightness(Image.fromarray(image)).enhance(_factor(strength, generator, 0.5)))


@_operation("colour")
def contrast(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Spread around the mean grey by 1.12 ... 1.6 or its inverse."""
    return _array(ImageEnhance.Contrast(Image.fromarray(image)).enhance(_factor(strength, generator, 0.6)))


@_operation("colour")
def saturation(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Multiply the distance to grey by 1.2 ... 2 or its inverse."""
    return _array(ImageEnhance.Color(Image.fromarray(image)).enhance(_factor(strength, generator, 1.0)))


@_operation("colour")
def hue(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Turn the hue by 4 ... 40 of 256 steps, either way."""
    shift = round(_between(4, 40, strength)) * (1 if generator.random() < 0.5 else -1)
    bands = list(Image.fromarray(image).convert("HSV").split())
    bands[0] = bands[0].point([(value + shift) % 256 for value in range(256)])
    return _array(Image.merge("HSV", bands))


@_operation("colour")
def gamma(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Raise to the power of 1.16 ... 1.8 or its inverse, in units of the full range."""
    table = _pixels(255 * (np.arange(256) / 255) ** _factor(strength, generator, 0.8))
    return table[image]


@_operation("colour")
def temperature(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Warm (red up, blue down) or cool the colours by 4 ... 18 %."""
    change = _between(0.04, 0.18, strength) * (1 if generator.random() < 0.5 else -1)
    return _pixels(image * np.array([1 + change, 1, 1 - change]))


@_operation("colour")
def channel_shift(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Add up to 8 ... 40 grey levels to each channel, or take them away."""
    bound = _between(8, 40, strength)
    return _pixels(image + generator.uniform(-bound, bound, 3))


@_operation("colour")
def grayscale(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Blend with the image's luma, by 60 ... 100 %."""
    return _array(ImageEnhance.Color(Image.fromarray(image)).enhance(1 - _between(0.6, 1.0, strength)))


@_operation("colour")
def posterize(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Keep 5 ... 3 bits a channel."""
    return _array(ImageOps.posterize(Image.fromarray(image), round(_between(5, 3, strength))))


@_operation("colour")
def equalize(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Blend with the histogram-equalised image, by 30 ... 100 %."""
    original = Image.fromarray(image)
    return _array(Image.blend(original, ImageOps.equalize(original), _between(0.3, 1.0, strength)))


@_operation("colour")
def invert(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """The negative; from strength 1/2 on of all channels, below of one."""
    result = image.copy()
    channels = slice(None) if strength >= 0.5 else int(generator.integers(3))
    result[..., channels] = 255 - result[..., channels]
    return result


@_operation("colour")
def solarize(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Invert what is brighter than 224 ... 112."""
    return _array(ImageOps.solarize(Image.fromarray(image), round(_between(224, 112, strength))))


# ------------------------------------------------------------------------------------------------------------- edge


@_operation("edge")
def sharpen(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Unsharp mask of radius 2 px, by 80 ... 300 %."""
    mask = ImageFilter.UnsharpMask(radius=2, percent=round(_between(80, 300, strength)), threshold=0)
    return _array(Image.fromarray(image).filter(mask))


@_operation("edge")
def edge_enhance(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Subtract 0.2 ... 0.8 of the Laplacian."""
    values = image.astype(np.float32)
    laplacian = np.stack([ndimage.laplace(values[..., channel], mode="nearest") for channel in range(3)], axis=-1)
    return _pixels(values - _between(0.2, 0.8, strength) * laplacian)


@_operation("edge")
def edge_soften(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Blur (sigma 1 ... 2.5 px) where the gradient is strong, and leave flat parts."""
    blurred = _array(Image.fromarray(image).filter(ImageFilter.GaussianBlur(_between(1.0, 2.5, strength))))
    grey = np.asarray(Image.fromarray(image).convert("L"), dtype=np.float32)
    steep = np.abs(ndimage.sobel(grey, 0, mode="nearest")) + np.abs(ndimage.sobel(grey, 1, mode="nearest"))
    weight = ndimage.uniform_filter(np.minimum(steep / 160, 1.0), 3, mode="nearest")[..., None]
    return _pixels(weight * blurred + (1 - weight) * image)


@_operation("edge")
def edge_overlay(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Blend with the image of its own edges, by 15 ... 50 %."""
    original = Image.fromarray(image)
    return _array(Image.blend(original, original.filter(ImageFilter.FIND_EDGES), _between(0.15, 0.5, strength)))


# ------------------------------------------------------------------------------------------------ convolution masks


def _convolve(image: Pixels, kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    values = image.astype(np.float64)
    return np.stack([ndimage.correlate(values[..., channel], kernel, mode="nearest") for channel in range(3)], axis=-1)


@_operation("convolution")
def emboss(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Add 0.3 ... 1 of the slope along a diagonal: a relief lit from a random corner."""
    kernel = np.array([[-1.0, -1.0, 0.0], [-1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    kernel = np.rot90(kernel, int(generator.integers(4)))
    return _pixels(image + _between(0.3, 1.0, strength) * _convolve(image, kernel))


@_operation("convolution")
def box_filter(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Mean over a square of 3 or 5 px."""
    side = 3 if strength < 0.5 else 5
    return _pixels(_convolve(image, np.full((side, side), 1 / side**2)))


@_operation("convolution")
def random_filter(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """A random mask of 3 x 3 that keeps the mean, blended in by 30 ... 80 %."""
    noise = generator.uniform(-0.1, 0.3, (3, 3))
    noise[1, 1] += 1.0  # so that the sum is at least 0.1
    kernel = noise / noise.sum()
    amount = _between(0.3, 0.8, strength)
    return _pixels((1 - amount) * image + amount * _convolve(image, kernel))


# ------------------------------------------------------------------------------------------------------------ block


def _blocks(
    shape: tuple[int, ...], share: float, grid: int, generator: np.random.Generator
) -> list[tuple[slice, slice]]:
    """Randomly chosen chunks of a `grid` x `grid` division that cover `share` of the image, one at least."""
    rows = np.linspace(0, shape[0], grid + 1).round().astype(int)
    columns = np.linspace(0, shape[1], grid + 1).round().astype(int)
    chosen = generator.choice(grid * grid, max(1, round(share * grid * grid)), replace=False)
    return [
        (slice(rows[i // grid], rows[i // grid + 1]), slice(columns[i % grid], columns[i % grid + 1])) for i in chosen
    ]


@_operation("block")
def block_fill(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Fill 2 ... 6 % of 10 x 10 chunks, each with one random colour: block-wise distortion."""
    result = image.copy()
    for rows, columns in _blocks(image.shape, _between(0.02, 0.06, strength), 10, generator):
        result[rows, columns] = generator.integers(0, 256, 3, dtype=np.uint8)
    return result


@_operation("block")
def block_dropout(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Blacken 4 ... 8 % of 24 x 24 chunks: coarse dropout."""
    result = image.copy()
    for rows, columns in _blocks(image.shape, _between(0.04, 0.08, strength), 24, generator):
        result[rows, columns] = 0
    return result


@_operation("block")
def block_noise(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Replace 4 ... 8 % of 16 x 16 chunks by pixels of the same chunk in random order."""
    result = image.copy()
    for rows, columns in _blocks(image.shape, _between(0.04, 0.08, strength), 16, generator):
        chunk = image[rows, columns]
        result[rows, columns] = generator.permutation(chunk.reshape(-1, 3)).reshape(chunk.shape)
    return result


# ------------------------------------------------------------------------------------------------------- corruption


@_operation("corruption")
def gaussian_blur(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Gaussian blur of sigma 0.5 ... 2 px."""
    return _array(Image.fromarray(image).filter(ImageFilter.GaussianBlur(_between(0.5, 2.0, strength))))


@_operation("corruption")
def motion_blur(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Mean along a line of 3 ... 9 px in a random direction."""
    length = 2 * round(_between(1, 4, strength)) + 1
    angle = generator.uniform(0, np.pi)
    kernel = np.zeros((length, length))
    steps = np.linspace(-(length // 2), length // 2, 4 * length)
    kernel[
        np.rint(length // 2 + steps * np.sin(angle)).astype(int),
        np.rint(length // 2 + steps * np.cos(angle)).astype(int),
    ] = 1
    return _pixels(_convolve(image, kernel / kernel.sum()))


@_operation("corruption")
def zoom_blur(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Mean of the image and its centred enlargements up to 1.02 ... 1.08 times."""
    height, width = image.shape[:2]
    original = Image.fromarray(image)
    largest = _between(1.02, 1.08, strength)
    total = np.zeros(image.shape, dtype=np.float64)
    zooms = np.linspace(1.0, largest, 6)
    for zoom in zooms:
        dx, dy = width * (1 - 1 / zoom) / 2, height * (1 - 1 / zoom) / 2
        box = (dx, dy, width - dx, height - dy)
        total += np.asarray(original.resize((width, height), Image.Resampling.BILINEAR, box=box))
    return _pixels(total / len(zooms))


@_operation("corruption")
def gaussian_noise(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Add normal noise of standard deviation 4 ... 20 grey levels, to each channel or to all alike."""
    shape = image.shape if generator.random() < 0.5 else (*image.shape[:2], 1)
    noise = generator.standard_normal(shape, dtype=np.float32) * np.float32(_between(4, 20, strength))
    return _pixels(image + noise)


@_operation("corruption")
def shot_noise(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Count 60 ... 12 photons at full white (Poisson)."""
    photons = _between(60, 12, strength)
    return _pixels(generator.poisson(image * (photons / 255)) * (255 / photons))


@_operation("corruption")
def salt_and_pepper(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Set 0.5 ... 4 % of the pixels to black or white."""
    result = image.copy()
    chance = generator.random(image.shape[:2])
    share = _between(0.005, 0.04, strength)
    result[chance < share / 2] = 0
    result[chance > 1 - share / 2] = 255
    return result


@_operation("corruption")
def jpeg(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """JPEG of quality 30 ... 8."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=round(_between(30, 8, strength)))
    return _array(Image.open(buffer))


@_operation("corruption")
def pixelate(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Shrink to 1/2 ... 1/4 and enlarge again without smoothing."""
    height, width = image.shape[:2]
    divisor = _between(2, 4, strength)
    small = (max(1, round(width / divisor)), max(1, round(height / divisor)))
    shrunk = Image.fromarray(image).resize(small, Image.Resampling.BOX)
    return _array(shrunk.resize((width, height), Image.Resampling.NEAREST))


# ---------------------------------------------------------------------------------------------------------- weather


@_operation("weather")
def fog(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Blend with light grey clouds, by 25 ... 65 % where they are densest."""
    clouds = _clouds(image.shape[:2], generator, max(image.shape[:2]) // 2)
    amount = (_between(0.25, 0.65, strength) * (0.35 + 0.65 * clouds))[..., None]
    return _pixels((1 - amount) * image + amount * generator.integers(200, 241))


@_operation("weather")
def snow(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Bright flakes on 1 ... 4 % of the pixels, falling aslant, in front of a slightly whitened image."""
    height, width = image.shape[:2]
    flakes = (generator.random((height, width)) < _between(0.004, 0.016, strength)).astype(np.float32)
    size = max(1.0, max(height, width) / 400)
    flakes = np.asarray(ndimage.gaussian_filter(flakes, size * 0.6, mode="nearest"))
    flakes = _streaks(flakes, max(2, round(3 * size)), generator.uniform(0.9, 2.2))
    bright = np.minimum(flakes * (4.0 * size * size), 1.0)[..., None]
    pale = image + (255.0 - image) * _between(0.05, 0.2, strength)
    return _pixels(pale * (1 - bright) + 250 * bright)


@_operation("weather")
def rain(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Thin light streaks over a darkened, slightly blurred image."""
    height, width = image.shape[:2]
    drops = (generator.random((height, width)) < _between(0.001, 0.004, strength)).astype(np.float32)
    length = max(5, max(height, width) // 25)
    streaks = np.minimum(_streaks(drops, length, generator.uniform(1.35, 1.8)) * length * 0.45, 0.6)[..., None]
    dark = _array(Image.fromarray(image).filter(ImageFilter.GaussianBlur(0.6))) * _between(0.95, 0.75, strength)
    return _pixels(dark * (1 - streaks) + 215 * streaks)


def _streaks(values: NDArray[np.float32], length: int, angle: float) -> NDArray[np.float32]:
    """The mean of `values` along a line of `length` px at `angle` (radians from the x axis, downwards)."""
    total = np.zeros_like(values)
    for step in range(length):
        shift = (round(step * float(np.sin(angle))), round(step * float(np.cos(angle))))
        total += ndimage.shift(values, shift, order=0, mode="constant")
    return (total / length).astype(np.float32)


# --------------------------------------------------------------------------------------------------------- geometry


def _grid(shape: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    return y, x


@_warp
def flip(shape: tuple[int, int], strength: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """Mirror left and right."""
    y, x = _grid(shape)
    return np.stack([y, shape[1] - 1 - x])


@_warp
def rotate(shape: tuple[int, int], strength: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """Turn about the centre by 3 ... 20 degrees, either way."""
    angle = np.deg2rad(_between(3, 20, strength)) * (1 if generator.random() < 0.5 else -1)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    y, x = _grid(shape)
    cy, cx = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    positions = np.stack([cy + sine * (x - cx) + cosine * (y - cy), cx + cosine * (x - cx) - sine * (y - cy)])
    return positions.astype(np.float32)


@_warp
def elastic(shape: tuple[int, int], strength: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """Move pixels smoothly by at most 1 ... 4 % of the longest side."""
    reach = _between(0.01, 0.04, strength) * max(shape)
    y, x = _grid(shape)
    cell = max(shape) // 3
    dy, dx = (2 * _clouds(shape, generator, cell, octaves=2) - 1 for _ in range(2))
    return np.stack([y + np.float32(reach) * dy, x + np.float32(reach) * dx])


def warp_image(image: Pixels, positions: NDArray[np.float32]) -> Pixels:
    """Sample an image bilinearly; black outside.

    Args:
        image: (H, W, 3) uint8.
        positions: (2, H, W) row and column, in pixel indices, where each pixel of the result comes from.
    """
    channels = [
        ndimage.map_coordinates(image[..., channel].astype(np.float32), positions, order=1, mode="constant")
        for channel in range(3)
    ]
    return _pixels(np.stack(channels, axis=-1))


def warp_mask(mask: NDArray[np.uint8], positions: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Sample a mask (H, W) of zeros and ones at the nearest pixels; zero outside."""
    rows, columns = np.rint(positions).astype(np.int64)
    inside = (rows >= 0) & (rows < mask.shape[0]) & (columns >= 0) & (columns < mask.shape[1])
    result = np.zeros(rows.shape, dtype=np.uint8)
    result[inside] = mask[rows[inside], columns[inside]]
    return result


# ------------------------------------------------------------------------------------------------------ composition


@dataclass(frozen=True)
class Perturbed:
    """A perturbed image.

    Attributes:
        image: (H, W, 3) uint8.
        level: the level that chose the operations.
        operations: names of the operations, in the order they were applied.
        positions: (2, H, W) rows and columns of the original that the pixels come from, when the geometry changed:
            masks change with `warp_mask`.
    """

    image: Pixels
    level: int
    operations: tuple[str, ...]
    positions: NDArray[np.float32] | None = None


def generator_for(seed: int, name: str) -> np.random.Generator:
    """The source of chance of one image: it depends on the seed and the image's name alone."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def _choose(generator: np.random.Generator, level: int) -> list[str]:
    """Names of operations for one image; see the module's docstring for the levels."""

    def members(*families: str) -> list[str]:
        names = [name for family in families for name in FAMILIES[family]]
        return names if level == 4 else [name for name in names if name not in _HARSH]

    def one(names: list[str]) -> str:
        return names[int(generator.integers(len(names)))]

    def colours(most: int = 3) -> list[str]:
        names = members("colour")
        chosen = generator.choice(len(names), int(generator.integers(1, most + 1)), replace=False)
        return [names[i] for i in chosen]

    def some(groups: list[Callable[[], list[str]]], fewest: int, most: int) -> list[str]:
        """The operations of `fewest` to `most` of the groups, in the order of the groups."""
        count = int(generator.integers(fewest, most + 1))
        chosen = sorted(generator.choice(len(groups), count, replace=False)) if count else []
        return [name for i in chosen for name in groups[i]()]

    def corruption() -> list[str]:
        return [one(members("corruption", "block"))]

    def weather() -> list[str]:
        return [one(members("weather"))]

    def blur_or_edge() -> list[str]:
        return [one([*members("edge", "convolution"), "gaussian_blur", "motion_blur"])]

    if level == 1:
        noise_or_blur = ["gaussian_noise", "salt_and_pepper", "gaussian_blur", "motion_blur", "sharpen", "block_fill"]
        return some(
            [colours, lambda: [one(noise_or_blur)], lambda: [one(["jpeg", *members("weather")])]],
            1,
            2,
        )
    if level == 2:
        if generator.random() < 0.5:
            return colours() + blur_or_edge()
        return some([corruption, weather], 1, 2)
    first = some([colours, blur_or_edge], 1, 2)
    return first + (corruption() + weather() if level == 4 else some([corruption, weather], 0, 2))


@dataclass(frozen=True)
class Plan:
    """What will happen to an image: see `Perturbed`; `generator` stands where applying the operations begins."""

    level: int
    operations: tuple[str, ...]
    positions: NDArray[np.float32] | None
    generator: np.random.Generator


def plan(
    shape: tuple[int, int], *, seed: int = 0, name: str = "", level: int | None = None, geometry: bool = False
) -> Plan:
    """Choose what `perturb` does to an image of `shape` (height, width), without needing its pixels.

    Raises:
        UserError: for a level that is not one of `LEVELS`.
    """
    if level is not None and level not in LEVELS:
        raise UserError(f"level: expected one of {', '.join(map(str, LEVELS))}, found {level}.")
    generator = generator_for(seed, name)
    drawn = int(generator.integers(LEVELS[0], LEVELS[-1] + 1))
    level = drawn if level is None else level
    names = _choose(generator, level)
    positions = None
    if geometry:
        warps = sorted(WARPS)
        chosen = warps[int(generator.integers(len(warps)))]
        positions = WARPS[chosen](shape, generator.random(), generator)
        names = [chosen, *names]
    return Plan(level, tuple(names), positions, generator)


def perturb(
    image: Pixels, *, seed: int = 0, name: str = "", level: int | None = None, geometry: bool = False
) -> Perturbed:
    """Perturb one image, always in the same way for the same seed and name.

    Args:
        image: (H, W, 3) uint8 RGB.
        seed: of the whole set.
        name: of the image.
        level: 1 ... 4, or None to draw it.
        geometry: also flip, rotate or bend the image, one of them; `Perturbed.positions` then says how.

    Raises:
        UserError: for a level that is not one of `LEVELS`.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"expected a (H, W, 3) uint8 array, found {image.shape} {image.dtype}")
    planned = plan(image.shape[:2], seed=seed, name=name, level=level, geometry=geometry)
    if planned.positions is not None:
        image = warp_image(image, planned.positions)
    for operation in planned.operations:
        if operation in OPERATIONS:
            image = OPERATIONS[operation](image, planned.generator.random(), planned.generator)
    return Perturbed(image, planned.level, planned.operations, planned.positions)
