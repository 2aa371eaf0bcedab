"""A camera: from linear light to sRGB, with its lens, its sensor's noise and its JPEG file."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from comics.data.rendering.shapes import Array, noise_field

Pixels = NDArray[np.uint8]

# sRGB's transfer curve as a table: a power's last bit depends on the processor, a rounded table's entries do not
_CURVE_STEPS = 4096
_linear = np.arange(_CURVE_STEPS + 1) / _CURVE_STEPS
_CURVE = np.round(np.where(_linear <= 0.0031308, 12.92 * _linear, 1.055 * _linear ** (1 / 2.4) - 0.055), 6).astype(
    np.float32
)


@dataclass(frozen=True)
class Camera:
    """Exposure, read noise and shot noise (in sRGB units), grain size in px, vignetting, blur and JPEG quality."""

    exposure: float
    read_noise: float
    shot_noise: float
    grain: float
    vignette: float
    blur: float
    quality: int


def random_camera(
    rng: np.random.Generator, noise: tuple[float, float], exposure: tuple[float, float], blur: float, quality: int
) -> Camera:
    """A phone or a compact camera in good to poor light.

    Args:
        rng: what draws it.
        noise: bounds of the noise's strength.
        exposure: bounds of the exposure.
        blur: most blur, px.
        quality: least JPEG quality.
    """
    strength = rng.uniform(*noise)
    return Camera(
        exposure=rng.uniform(*exposure),
        read_noise=0.007 * strength,
        shot_noise=0.022 * strength,
        grain=rng.uniform(1.0, 1.6),
        vignette=rng.uniform(0.0, 0.35),
        blur=rng.uniform(0.0, blur),
        quality=int(rng.integers(quality, 96)),
    )


def encode_srgb(linear: Array) -> Array:
    """Linear light to sRGB, both in [0, 1]; nearest entry of a table, whose steps sensor noise hides."""
    return _CURVE[(np.clip(linear, 0, 1) * np.float32(_CURVE_STEPS) + np.float32(0.5)).astype(np.int32)]


def expose(linear: Array, camera: Camera) -> Array:
    """What the lens and a sensor without noise make of linear light (H, W, 3): sRGB in [0, 1]."""
    height, width = linear.shape[:2]
    rows = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height * 2 - 1
    columns = (np.arange(width, dtype=np.float32)[None, :] + 0.5) / width * 2 - 1
    falloff = 1 - np.float32(camera.vignette * 0.5) * (rows * rows + columns * columns)
    picture = encode_srgb(linear * (np.float32(camera.exposure) * falloff)[..., None])
    if camera.blur:
        picture = blurred(picture, camera.blur)
    return picture


def blurred(picture: Array, radius: float) -> Array:
    """A picture in [0, 1] under a Gaussian blur of `radius` px, in steps of 1/255."""
    return to_picture(Image.fromarray(to_pixels(picture)).filter(ImageFilter.GaussianBlur(radius)))


def grain(rng: np.random.Generator, camera: Camera, picture: Array) -> Array:
    """The sensor's noise (H, W, 3) on a picture in sRGB: of luma and, half as strong, of each channel."""
    height, width = picture.shape[:2]
    luma = noise_field(rng, (height, width), (camera.grain, camera.grain))
    chroma = rng.standard_normal((height, width, 3), dtype=np.float32)
    level = np.float32(camera.read_noise) + np.float32(camera.shot_noise) * np.sqrt(picture * (1 - picture * 0.7))
    return level * (luma[..., None] + np.float32(0.5) * chroma)


def to_pixels(picture: Array) -> Pixels:
    """[0, 1] to 0 ... 255."""
    return (np.clip(picture, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def to_picture(pixels: Pixels | Image.Image) -> Array:
    """0 ... 255 to [0, 1]."""
    return np.asarray(pixels, dtype=np.float32) / np.float32(255)


def compress(pixels: Pixels, quality: int) -> bytes:
    """A JPEG file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def recompress(pixels: Pixels, quality: int) -> Pixels:
    """What is left of pixels (H, W, 3) after a JPEG of `quality`."""
    with Image.open(io.BytesIO(compress(pixels, quality))) as file:
        return np.asarray(file.convert("RGB"))
