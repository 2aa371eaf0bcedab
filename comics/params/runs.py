"""A run: the sizes of its network, its optimisation, its inference."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializeAsAny, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from comics.errors import UserError
from comics.params.backbones import RESNETS, TIMM, check_backbone
from comics.params.block import Block, Name, Probability, partial, stated
from comics.params.detectors import DetectorSettings, is_outside, names, settings_of
from comics.params.objective import AttentionParams, Component, ObjectiveParams, ViewsParams

TWO_PHASE = "two_phase"
"""The detector whose faces another run may find (`comics.params.phases`)."""


def _known_detector(name: str) -> str:
    """`name`, if it is a detector's; with pydantic's own error for a wrong choice otherwise."""
    try:
        settings_of(name)
    except UserError as error:
        if ":" in name:
            raise ValueError(error.message) from None
        choices = ", ".join(f"'{one}'" for one in names())
        raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": choices}) from None
    return name


DetectorName = Annotated[
    str,
    AfterValidator(_known_detector),
    WithJsonSchema({"anyOf": [{"enum": names(), "type": "string"}, {"type": "string"}]}),
]
"""A detector of this package, one from outside as ``module:Class``, or the name of an entry point."""


class _ModelEntry(Block):
    """Beside its fields, settings of detectors from outside, under their names."""

    outside: dict[str, Any] = Field({}, description="Settings of detectors from outside; write them under their names.")

    @model_validator(mode="before")
    @classmethod
    def _outside(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        found = {}
        for key in data:
            if isinstance(key, str) and key not in cls.model_fields and is_outside(key):
                found[key] = stated(partial(settings_of(key)).model_validate(data[key]))
        if not found:
            return data
        return {**{key: value for key, value in data.items() if key not in found}, "outside": found}


Backbone = Annotated[
    str,
    AfterValidator(check_backbone),
    WithJsonSchema({"anyOf": [{"enum": [*RESNETS]}, {"type": "string", "pattern": f"^{TIMM}.+"}]}),
]


Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""What numpy and torch both take."""


class ModelParams(Block):
    """Sizes of the network. The defaults are the paper's base, ResNet-50-FPN."""

    entry_base = _ModelEntry

    backbone: Backbone = "resnet50"
    """resnet18, resnet34, resnet50, resnet101, or `timm/<model>`: any model of timm with feature maps, and plain vision
    transformers (docs/detectors.md)."""
    backbone_width: float = Field(1.0, gt=0, le=4)
    """Factor on the channels of a ResNet, for small networks trained from scratch."""
    weights: str = "none"
    """Initial weights: `none`, `imagenet` (torchvision's or timm's own) or a file's path."""
    start: Name | None = None
    """A run whose trained weights this one starts from, as far as they fit; then `weights` has no meaning."""
    frozen_stages: int = Field(0, ge=0)
    """How many stages, from the stem on, are not trained: a ResNet has 5; of timm's models, what timm calls so."""
    frozen_batchnorm: bool = False
    """Keep the backbone's normalisation layers as loaded: statistics and affine parameters."""
    fpn_channels: int = Field(256, ge=8)
    """Channels of every level of the pyramid."""
    head_channels: int = Field(256, ge=8)
    """Width of the detection towers."""
    head_convs: int = Field(4, ge=0)
    """Convolutions in each detection tower."""
    mask_channels: int = Field(128, ge=8)
    """Width of the mask branch (BlendMask's bottom module and its like)."""
    settings: SerializeAsAny[DetectorSettings] = DetectorSettings()
    """What the run's detector alone needs to know; in params.yaml it stands under the detector's name."""

    @classmethod
    def entry_fields(cls) -> dict[str, Any]:
        fields = super().entry_fields()
        del fields["settings"]
        own = {
            name: (partial(settings_of(name)), Field(None, description=settings_of(name).__doc__)) for name in names()
        }
        return {**fields, **own}

    @model_validator(mode="after")
    def _check(self) -> ModelParams:
        if self.backbone in RESNETS:
            if self.frozen_stages > 5:
                raise ValueError(f"frozen_stages: {self.backbone} has 5 stages, not {self.frozen_stages}")
            if self.backbone_width != 1 and self.weights == "imagenet":
                raise ValueError("backbone_width: there are ImageNet weights for a width of 1 only")
        elif self.backbone_width != 1:
            raise ValueError("backbone_width: is for the ResNets that are not timm's; timm has a model for each width")
        return self


class InferenceParams(Block):
    """From raw outputs to detections; changing these does not retrain."""

    score_threshold: Probability = 0.05
    """Candidates with a lower score are dropped."""
    nms_threshold: Probability = 0.6
    """Of two boxes of one class that overlap by a larger IoU, the one with the lower score is dropped."""
    pre_nms_top: int = Field(1000, ge=1)
    """Candidates kept before non-maximum suppression."""
    max_detections: int = Field(100, ge=1)
    """Detections kept an image."""
    batch_size: int = Field(8, ge=1)
    """Images predicted at a time; no effect on the result."""


class ValidationParams(Block):
    """Scores on the validation split during training. Where they choose nothing, they have no effect on the weights, and are not
    in the digest."""

    every: int = Field(0, ge=0)
    """Epochs from one validation to the next; 0: none. The last epoch is always validated."""
    metric: Literal["segmentation_AP", "segmentation_oLRP", "detection_AP", "detection_oLRP"] = "segmentation_AP"
    """What the best epoch is best in: the mean over the classes."""
    keep: Literal["last", "best"] = "last"
    """The weights that become model.pt: those of the last epoch, or those of the best that was validated."""
    patience: int = Field(0, ge=0)
    """Validations in a row without a better one after which the training stops; 0: it never does."""

    @property
    def decides(self) -> bool:
        """Whether the scores have an effect on the weights."""
        return self.keep == "best" or self.patience > 0

    @model_validator(mode="after")
    def _check(self) -> ValidationParams:
        if self.decides and not self.every:
            raise ValueError("every: keep and patience need validations; say how many epochs lie between two")
        return self


class TrainingParams(Block):
    """The optimisation. The defaults are the paper's; where it is silent, its authors' code's (docs/fidelity.md)."""

    epochs: int = Field(12, ge=1, le=100_000)
    """Passes over the training images."""
    batch_size: int = Field(8, ge=1)
    """Images a step, of all devices together."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """`adamw` learns faster from scratch; the paper's is `sgd`."""
    lr: float = Field(0.01, gt=0)
    """Learning rate after the warm-up."""
    backbone_lr: float = Field(1.0, gt=0)
    """Factor on the learning rate of the backbone (without its pyramid)."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """Factor on the learning rate from a block of the backbone to the one below it."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of SGD; AdamW's first moment."""
    weight_decay: float = Field(1e-4, ge=0)
    """Of all weights but those of normalisation layers."""
    milestones: list[Annotated[float, Field(gt=0)]] = [8, 10]
    """Epochs at which the learning rate is multiplied by `gamma`."""
    gamma: float = Field(0.1, gt=0, le=1)
    """Factor on the learning rate at each milestone."""
    warmup_iterations: int = Field(1000, ge=0)
    """Steps over which the learning rate rises to `lr`."""
    warmup_factor: float = Field(0.001, gt=0, le=1)
    """Share of `lr` that the first step has."""
    clip_gradient_norm: float = Field(0.0, ge=0)
    """Largest norm of the gradient; 0 leaves it alone."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of an exponential moving average of the weights, such as 0.9998, that becomes model.pt in their place; 0: none."""
    validation: ValidationParams = ValidationParams()
    image_size: int = Field(1024, ge=32)
    """Longest side of an image in px, in training and in inference; smaller images are not enlarged."""
    crop: float = Field(0.9, gt=0, le=1)
    """Smallest relative side of the random crop; 1 crops nothing."""
    rotation: float = Field(30.0, ge=0, le=180)
    """Largest rotation in degrees, to both sides."""
    flip: Probability = 0.5
    """Probability of the horizontal flip."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto` takes bf16 where that is faster on this machine, by measurement. Losses that need float32 stay in it."""
    gradient_norms_every: int = Field(100, ge=0, multiple_of=10)
    """Steps between two logs of the gradients that detection and contrast give the extractor; 0: never; no effect on the result."""
    workers: int = Field(4, ge=0)
    """Loader processes; no effect on the result."""
    checkpoint_minutes: float = Field(10.0, gt=0)
    """Between two resumable checkpoints; no effect on the result."""
    devices: Annotated[int, Field(ge=1)] | Literal["auto"] = 1
    """GPUs (or processes, on a processor) that share each batch; `auto` takes the free GPUs. No effect on the result but for
    rounding and what detectors draw at random."""
    accumulate: int = Field(1, ge=1)
    """Parts in which a batch is computed, one after the other, where the device has no memory for all of it."""


class RunParams(Block):
    """Everything that one run is made of. In params.yaml a run states only what differs from the defaults."""

    title: str = ""
    """For people; not part of the digest."""
    detector: DetectorName = "blendmask"
    """One of this package (`comics detectors`), `module:Class`, or an entry point's name."""
    components: list[Component] = []
    """Parts of COMICS that are on: views (DA), attention (FEA), coarse and fine (Bi-grained); or, of `two_phase`, dual (DCL)."""
    model: ModelParams = ModelParams()
    training: TrainingParams = TrainingParams()
    inference: InferenceParams = InferenceParams()
    views: ViewsParams = ViewsParams()
    attention: AttentionParams = AttentionParams()
    objective: ObjectiveParams = ObjectiveParams()
    seeds: list[Seed] = Field([], description="Seeds of this run; empty: those of the file.")
    dataset: Name | None = None
    """The dataset it is trained and tested on; that of the file by default."""
    tests: list[Name] = []
    """Datasets beside its own that it is tested on, for the matrices of `generalisation`."""

    @cached_property
    def as_json(self) -> Mapping[str, Any]:
        """As plain JSON values, to be read only: the seeds of a run share it."""
        return MappingProxyType(self.model_dump(mode="json"))

    @classmethod
    def entry_fields(cls) -> dict[str, Any]:
        grid = Field(
            None,
            min_length=1,
            description="Lists of values by setting: the run stands for one run a point of their product, named after its values. "
            "Settings under one key, separated by commas, change together. `comics.params.expand` writes the runs out.",
        )
        return {**super().entry_fields(), "grid": (dict[str, list[Any]], grid)}

    @model_validator(mode="before")
    @classmethod
    def _of_its_detector(cls, data: Any) -> Any:
        """What a run does not state about inference is its detector's published setting; of the settings of detectors, its
        own are taken."""
        if not isinstance(data, Mapping):
            return data
        name = data.get("detector", cls.model_fields["detector"].default)
        try:
            settings = settings_of(str(name))
        except UserError:
            return data  # the field itself says so
        data = dict(data)
        if isinstance(data.get("inference", {}), Mapping):
            data["inference"] = {**settings.published_inference, **data.get("inference", {})}
        if isinstance(data.get("model", {}), Mapping):
            model = data.get("model", {})
            data["model"] = {key: value for key, value in model.items() if key in ModelParams.model_fields}
            data["model"].setdefault(
                "settings", settings.model_validate(model.get(name) or model.get("outside", {}).get(name, {}))
            )
        return data

    @model_validator(mode="after")
    def _check(self) -> RunParams:
        if len(set(self.components)) != len(self.components):
            raise ValueError("components lists one of them twice")
        if len(set(self.tests)) != len(self.tests):
            raise ValueError("tests lists one of them twice")
        if "views" in self.components and self.views.query == "clean" and not {"coarse", "dual"} & {*self.components}:
            raise ValueError("views.query is clean, which needs the component coarse: no view is left to augment")
        from comics.params.phases import check_phases  # it knows runs

        check_phases(self)
        return self
