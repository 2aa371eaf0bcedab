"""The parts of COMICS: views, attention, and the bi-grained objective."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from comics.params.block import Block, Probability

Component = Literal["views", "attention", "coarse", "fine"]


class ViewsParams(Block):
    """The paper's four families of augmentation (section IV-A). Geometry is untouched by all of them."""

    jitter_probability: Probability = 0.5
    """Of each of brightness, contrast, saturation and sharpness (the paper's 50 %)."""
    jitter_strength: float = Field(0.4, ge=0, le=1)
    """Each factor is drawn from 1 - strength ... 1 + strength."""
    grayscale_probability: Probability = 0.2
    blocking_probability: Probability = 0.5
    blocking_grid: int = Field(10, ge=1)
    """Chunks a side (the paper's 10 x 10)."""
    blocking_range: tuple[Probability, Probability] = (0.02, 0.06)
    """Share of the chunks that are blocked (the paper's 2-6 %)."""
    noise_probability: Probability = 0.5
    """Of Gaussian or salt-and-pepper noise, one of them at random."""
    gaussian_sigma: float = Field(0.04, ge=0)
    """Largest standard deviation, in units of the full range."""
    salt_pepper_share: Probability = 0.02
    """Largest share of pixels set to black or white."""
    interpolation_probability: Probability = 0.5
    """Of shrinking to 1/`interpolation_factor` and back."""
    interpolation_factor: int = Field(4, ge=1)


class AttentionParams(Block):
    """Frequency enhanced attention (section VI, figure 7)."""

    channels: tuple[int, int] = (32, 64)
    """Of the two convolutions."""
    identity: bool = False
    """False: features x attention, the paper's text. True: features x (1 + attention), its authors' code."""


class CoarseParams(Block):
    """Coarse-grained contrastive learning (section IV, equations 1-5)."""

    weight: float = Field(0.5, ge=0)
    """lambda 1 of equation 9."""
    momentum: Probability = 0.999
    """beta of equation 1."""
    prototype_momentum: Probability = 0.9
    """alpha of equation 2."""
    iou_threshold: Probability = 0.6
    """A proposal is real (fake) when its box overlaps a real (fake) face by more."""
    pushed: int = Field(5, ge=1)
    """Key features pushed a step, level and class: the least similar to their prototype."""
    queue_size: int = Field(1024, ge=1)
    """Slots a level and class; a slot never filled is never a negative."""
    level_weights: list[float] = [0.1, 0.2, 0.4, 0.7, 1.0]
    """omega of equation 5, from the finest level on."""
    multi_scale: bool = True
    """False: one pair of queues over the proposals of all levels (Table V, `w.o. MS`)."""
    negatives: Literal["other_class", "same_class"] = "other_class"
    """Which queue holds the negatives of a proposal; `same_class` is the letter of equation 4's text."""


class FineParams(Block):
    """Fine-grained contrastive learning (section V, equations 6-8)."""

    intra_weight: float = Field(0.1, ge=0)
    """lambda 2 of equation 9."""
    inter_weight: float = Field(0.1, ge=0)
    """lambda 3 of equation 9."""
    size: int = Field(28, ge=4)
    """Mask features and masks are resized to size x size."""
    samples: Literal["far", "close", "all"] = "far"
    """Pixels compared: far from the face's boundary, close to it, or all (Table VI)."""
    margin: float = Field(2.0, ge=0)
    """Pixels within this distance of the boundary are close."""
    similarity: Literal["region_mean", "pixel_pairs"] = "region_mean"
    """Equation 7 as the mean over pixel pairs, or the authors' code's sum of exponentials over them."""


class ObjectiveParams(Block):
    """The bi-grained objective (equation 9)."""

    temperature: float = Field(0.7, gt=0)
    """tau, everywhere."""
    coarse: CoarseParams = CoarseParams()
    fine: FineParams = FineParams()
