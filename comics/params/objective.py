"""The parts of COMICS: views, attention, and the bi-grained objective; and DCL, which it is compared with."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from comics.params.block import Block, Probability

Component = Literal["views", "attention", "coarse", "fine", "dual"]


class ViewsParams(Block):
    """The paper's four families of augmentation (section IV-A). Geometry is untouched by all of them."""

    jitter_probability: Probability = 0.5
    """Of each of brightness, contrast, saturation and sharpness (the paper's 50 %)."""
    jitter_strength: float = Field(0.4, ge=0, le=1)
    """Each factor is drawn from 1 - strength ... 1 + strength."""
    grayscale_probability: Probability = 0.2
    """Of a view without colours."""
    blocking_probability: Probability = 0.5
    """Of blackened chunks."""
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
    """A view is shrunk to one part in so many a side, and enlarged again."""
    query: Literal["augmented", "clean"] = "augmented"
    """`clean`: the detector learns from images as they are, and only the key view of the contrast is augmented."""


class AttentionParams(Block):
    """Frequency enhanced attention (section VI, figure 7)."""

    channels: tuple[int, int] = (32, 64)
    """Of the two convolutions."""
    inputs: Literal["image_and_features", "image"] = "image_and_features"
    """What SRM filters look at: the image and the features, the paper's text, or the image alone, its authors' code."""
    identity: bool = False
    """False: features x attention, the paper's text. True: features x (1 + attention), its authors' code."""
    design: Literal["levels", "code"] = "levels"
    """`levels`: a map for each level. `code`: the layers of the authors' code, whose checkpoints it takes; with `inputs: image` and
    `identity: true`."""

    @model_validator(mode="after")
    def _one_design(self) -> AttentionParams:
        if self.design == "code" and not (self.inputs == "image" and self.identity):
            raise ValueError(
                "design is code: it looks at the image and adds the identity (inputs: image, identity: true)"
            )
        return self


class CoarseParams(Block):
    """Coarse-grained contrastive learning (section IV, equations 1-5)."""

    weight: float = Field(0.5, ge=0)
    """lambda 1 of equation 9."""
    temperature: float | None = Field(None, gt=0)
    """tau of equation 4, where it is not `objective.temperature`."""
    loss: Literal["flatnce", "infonce"] = "flatnce"
    """FlatNCE (equation 4) pulls with the same strength however far the classes are apart; InfoNCE lets go."""
    reduction: Literal["level_mean", "proposal_mean", "sum"] = "level_mean"
    """Over proposals: the mean of each level, weighted; the mean of all proposals, weighted by level; the weighted sum."""
    projection: bool = False
    """A 1x1 projection of each level's features before they are compared, with a momentum copy for the keys."""
    momentum: Probability = 0.999
    """beta of equation 1."""
    prototype_momentum: Probability = 0.9
    """alpha of equation 2."""
    prototype_update: Literal["sequential", "batch_mean"] = "sequential"
    """Equation 2 once a key, where the last keys of a batch outweigh the first, or once a batch with the keys' mean."""
    pushed_by: Literal["least_own", "most_other"] = "least_own"
    """Which keys are pushed: the least similar to their own prototype, or the most similar to the other class's (authors' code)."""
    iou_threshold: Probability = 0.6
    """A proposal is real (fake) when its box overlaps a real (fake) face by more."""
    pushed: int = Field(5, ge=1)
    """Key features pushed a step, level and class."""
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
    temperature: float | None = Field(None, gt=0)
    """tau of equations 6 and 8, where it is not `objective.temperature`."""
    faces: Literal["truth", "predicted"] = "truth"
    """Boxes and masks of the faces as annotated, or of the best detection of each face."""
    projection: bool = False
    """A 1x1 projection of the mask features before pixels are compared."""
    samples: Literal["far", "close", "all"] = "far"
    """Pixels compared: far from the face's boundary, close to it, or all (Table VI)."""
    margin: float = Field(2.0, ge=0)
    """Pixels within this distance of the boundary are close."""
    similarity: Literal["region_mean", "pair_sum", "pixel_pairs"] = "region_mean"
    """Equation 7 as the mean over pixel pairs, to the letter as their sum, or the authors' code's sum of exponentials over them."""


class DualParams(Block):
    """DCL (Sun et al., AAAI 2022): dual contrastive learning on the crops of the two-phase detector."""

    weight: float = Field(1.0, ge=0)
    """Of both losses, beside the cross-entropy's 1."""
    intra_weight: float = Field(0.1, ge=0)
    """Of the intra-instance loss beside the inter-instance one."""
    real_weight: float = Field(0.01, ge=0)
    """Of real faces in the intra-instance loss, beside the fake ones' 1."""
    temperature: float = Field(0.07, gt=0)
    """tau of both losses."""
    dim: int = Field(128, ge=2)
    """Of an embedding."""
    momentum: Probability = 0.99
    """Of the momentum encoder."""
    prototype_momentum: Probability = 0.9
    """Of a class's prototype, the running mean of its keys."""
    pushed: int = Field(5, ge=1)
    """Hard crops that enter a class's queue a step: those most similar to the other class's prototype."""
    queue_size: int = Field(65_536, ge=1)
    """Slots a class; a slot never filled is never a negative."""


class ObjectiveParams(Block):
    """The bi-grained objective (equation 9), and DCL's."""

    temperature: float = Field(0.7, gt=0)
    """tau, everywhere."""
    ramp: tuple[Probability, Probability] = (0.0, 0.0)
    """Shares of the training's epochs between which the weights of the contrastive terms rise from 0 to their value; 0, 0: they
    never change."""
    coarse: CoarseParams = CoarseParams()
    fine: FineParams = FineParams()
    dual: DualParams = DualParams()

    @model_validator(mode="after")
    def _check(self) -> ObjectiveParams:
        if self.ramp[1] < self.ramp[0]:
            raise ValueError("ramp ends before it starts")
        return self

    def strength(self, done: float) -> float:
        """The share of the contrastive weights that is active when `done`, in [0, 1], of the training is."""
        start, end = self.ramp
        return float(done >= start) if end <= start else min(max((done - start) / (end - start), 0.0), 1.0)
