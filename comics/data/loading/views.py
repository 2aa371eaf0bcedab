"""The photometric views of section IV-A: what they change is never where a face is.

Four families, each drawn for itself, in the paper's order: colour jitter and grayscale, random blocking, additional noise,
and shrinking with interpolation back. Every function maps an image (3, H, W), float RGB in [0, 1], to one of the same shape;
randomness comes from the `torch.Generator` that it is given.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import functional as transforms

from comics.params import ViewsParams


def _uniform(generator: Generator, low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def adjust_sharpness(image: Tensor, factor: float) -> Tensor:
    """Away from (`factor` > 1) or towards (< 1) the image smoothed by 1 1 1 / 1 5 1 / 1 1 1; the rim of 1 px stays.

    The same as torchvision's, whose general convolution takes most of a view's time: the kernel is a box and a centre.
    """
    if min(image.shape[-2:]) < 3:
        return image
    rows = image[..., :-2, :] + image[..., 1:-1, :] + image[..., 2:, :]
    smooth = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    inner = image[..., 1:-1, 1:-1]
    smooth.add_(inner, alpha=4).div_(13)
    result = image.clone()
    result[..., 1:-1, 1:-1] = torch.lerp(smooth, inner, factor).clamp_(0, 1)
    return result


def colour_jitter(image: Tensor, generator: Generator, probability: float, strength: float) -> Tensor:
    """Brightness, contrast, saturation and sharpness, each with `probability` by a factor in 1 - strength ... 1 + strength."""
    for adjust in (
        transforms.adjust_brightness,
        transforms.adjust_contrast,
        transforms.adjust_saturation,
        adjust_sharpness,
    ):
        if _uniform(generator) < probability:
            image = adjust(image, _uniform(generator, 1 - strength, 1 + strength))
    return image


def grayscale(image: Tensor) -> Tensor:
    """Luma in all three channels."""
    return transforms.rgb_to_grayscale(image, num_output_channels=3)


def random_blocking(image: Tensor, generator: Generator, grid: int, share: tuple[float, float]) -> Tensor:
    """Black out `share` (lowest, highest) of the grid x grid chunks."""
    height, width = image.shape[-2:]
    count = round(_uniform(generator, *share) * grid * grid)
    blocked = torch.zeros(grid * grid, dtype=torch.bool)
    blocked[torch.randperm(grid * grid, generator=generator)[:count]] = True
    rows = torch.arange(height) * grid // height
    columns = torch.arange(width) * grid // width
    return image.masked_fill(blocked.view(grid, grid)[rows][:, columns], 0.0)


def gaussian_noise(image: Tensor, generator: Generator, sigma: float) -> Tensor:
    """Add normal noise of standard deviation `sigma`, clipped to [0, 1]."""
    return (image + sigma * torch.randn(image.shape, generator=generator)).clamp(0, 1)


def salt_and_pepper(image: Tensor, generator: Generator, share: float) -> Tensor:
    """Set `share` of the pixels to black or to white, half of them each."""
    draw = torch.rand(image.shape[-2:], generator=generator)
    return image.masked_fill(draw < share / 2, 0.0).masked_fill(draw > 1 - share / 2, 1.0)


def shrink_and_back(image: Tensor, factor: int) -> Tensor:
    """Shrink to 1/factor a side and interpolate linearly back to the size it had."""
    size = image.shape[-2:]
    small = [max(1, side // factor) for side in size]
    shrunk = interpolate(image[None], size=small, mode="bilinear", align_corners=False, antialias=True)
    return interpolate(shrunk, size=size, mode="bilinear", align_corners=False)[0]


def view(image: Tensor, generator: Generator, params: ViewsParams) -> Tensor:
    """One random view of `image`.

    Args:
        image: (3, H, W) float RGB in [0, 1].
        generator: decides everything; the same state gives the same view.
        params: probabilities and strengths.

    Returns:
        (3, H, W) float in [0, 1]; every pixel is where it was.
    """
    image = colour_jitter(image, generator, params.jitter_probability, params.jitter_strength)
    if _uniform(generator) < params.grayscale_probability:
        image = grayscale(image)
    if _uniform(generator) < params.blocking_probability:
        image = random_blocking(image, generator, params.blocking_grid, params.blocking_range)
    if _uniform(generator) < params.noise_probability:
        if _uniform(generator) < 0.5:
            image = gaussian_noise(image, generator, _uniform(generator, 0, params.gaussian_sigma))
        else:
            image = salt_and_pepper(image, generator, _uniform(generator, 0, params.salt_pepper_share))
    if _uniform(generator) < params.interpolation_probability:
        image = shrink_and_back(image, params.interpolation_factor)
    return image
