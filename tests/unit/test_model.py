"""Where a detector meets the components of COMICS: on a detector of a few lines, and on each of the real ones."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from detector_scenes import TINY, scenes
from torch import Tensor, nn

from comics.data.loading.batches import Batch
from comics.detectors import NAMES, Detector, LevelProposals, Prediction
from comics.detectors.base import _CLASSES, register
from comics.model import Comics
from comics.params import ResolvedRun, detectors, load
from comics.training.checkpoint import save_weights

ROOT = Path(__file__).parents[2]
ALL = ["attention", "coarse", "fine"]
REAL_FACE, FAKE_FACE = [4.0, 4.0, 20.0, 20.0], [36.0, 36.0, 52.0, 52.0]


@dataclass
class FakeOutputs:
    features: list[Tensor]
    scores: list[Tensor]
    masks: Tensor


class FakeExtractor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, 8, 1), nn.BatchNorm2d(6), nn.ReLU())
        self.second = nn.Conv2d(6, 6, 3, 2, 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = self.first(images)
        return [fine, self.second(fine)]


class FakeDetector(Detector):
    """Every location proposes a square of 16 px around its centre; the masks are made from the finest map."""

    strides, channels, mask_channels = (8, 16), 6, 5

    def __init__(self) -> None:
        super().__init__()
        self.extractor = FakeExtractor()
        self.score = nn.Conv2d(6, 2, 1)
        self.mask = nn.Conv2d(6, 5, 1)
        self.calls = {"heads": 0, "propose": 0}

    @classmethod
    def from_params(cls, params: Any, settings: Any, num_classes: int, inference: Any) -> FakeDetector:
        return cls()

    def forward_heads(self, features: list[Tensor]) -> FakeOutputs:
        self.calls["heads"] += 1
        return FakeOutputs(features, [self.score(level) for level in features], self.mask(features[0]))

    def losses(self, outputs: FakeOutputs, targets: list[Any], sizes: Any) -> dict[str, Tensor]:
        return {"class": sum(level.square().mean() for level in outputs.scores), "mask": outputs.masks.square().mean()}

    def predict(self, outputs: FakeOutputs, sizes: Any) -> list[Prediction]:
        return [
            Prediction(
                boxes=torch.tensor([REAL_FACE]),
                scores=level[:1, 0, 0].sigmoid(),
                labels=torch.tensor([0]),
                masks=torch.ones(1, *size, dtype=torch.bool),
            )
            for level, size in zip(outputs.scores[0], sizes, strict=True)
        ]

    def proposals(self, outputs: FakeOutputs) -> list[LevelProposals]:
        return self.propose(outputs.features)

    def propose(self, features: list[Tensor]) -> list[LevelProposals]:
        self.calls["propose"] += 1
        found = []
        for stride, level in zip(self.strides, features, strict=True):
            height, width = level.shape[-2:]
            y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            centres = (torch.stack([x, y], -1).view(-1, 2) + 0.5) * stride
            boxes = torch.cat([centres - 8, centres + 8], dim=1)
            found.append(LevelProposals(boxes.expand(len(level), -1, -1), torch.arange(height * width)))
        return found

    def mask_map(self, outputs: FakeOutputs) -> tuple[Tensor, int]:
        return outputs.masks, 8


@pytest.fixture(autouse=True)
def fake_detector():
    register("fake")(FakeDetector)
    yield
    del _CLASSES["fake"], detectors._registered["fake"]


def run_of(components: list[str], detector: str = "fake", **objective: Any) -> ResolvedRun:
    """A run with small queues, which `objective` changes further: ``coarse={...}, fine={...}``."""
    run = load(ROOT / "params.yaml").resolve("comics", 0)
    params = run.params
    blocks = {"coarse": {"queue_size": 16}, "fine": {"size": 14}}
    settings = params.objective.model_copy(
        update={
            name: getattr(params.objective, name).model_copy(update={**blocks[name], **objective.get(name, {})})
            for name in blocks
        }
    )
    changed = params.model_copy(
        update={"components": components, "detector": detector, "model": TINY, "objective": settings}
    )
    return run.model_copy(update={"params": changed})


def model_of(components: list[str], detector: str = "fake", **objective: Any) -> Comics:
    torch.manual_seed(0)
    return Comics(run_of(components, detector, **objective)).train()


def batch_of(faces: list[list[list[float]]], labels: list[list[int]] | None = None, seed: int = 0) -> Batch:
    """Images of 64 x 64 px; the labels of an image alternate unless given. The key view differs from the query."""
    images, targets, sizes = scenes(faces, 64, 64)
    for target, own in zip(targets, labels or [], strict=bool(labels)):
        target["labels"] = torch.tensor(own, dtype=torch.int64)
    keys = (images + 0.05 * torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))).clamp(0, 1)
    count = len(images)
    return Batch(images, keys, targets, sizes, list(range(1, count + 1)), sizes)


def both_classes(seed: int = 0) -> Batch:
    return batch_of([[REAL_FACE, FAKE_FACE], [REAL_FACE, FAKE_FACE]], seed=seed)


def fill(model: Comics) -> None:
    """Take a batch into the queues, as a step does."""
    model.losses(both_classes())
    model.after_step()


@pytest.mark.parametrize(
    "components",
    [[], ["attention"], ["coarse"], ["fine"], ["coarse", "fine"], ALL],
    ids=lambda c: "+".join(c) or "none",
)
def test_each_component_adds_its_terms_and_every_parameter_gets_a_gradient(components: list[str]) -> None:
    model = model_of(components)
    fill(model)
    losses = model.losses(both_classes(1))
    expected = {"class", "mask"}
    expected |= {"loss_coarse"} if "coarse" in components else set()
    expected |= {"loss_intra", "loss_inter"} if "fine" in components else set()
    assert set(losses.terms) == expected
    torch.testing.assert_close(losses.total, sum(losses.terms.values()))
    losses.total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != name.startswith("momentum."), name
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
        else:
            assert parameter.grad is None, name
    if "coarse" in components:
        assert losses.logged["coarse_proposals"] > 0
        assert losses.logged["coarse_infonce"] > 0
        assert not any(value.requires_grad for value in losses.logged.values())


@pytest.mark.parametrize(
    ("faces", "labels"),
    [
        ([[], []], [[], []]),
        ([[REAL_FACE], []], [[0], []]),
        ([[REAL_FACE, FAKE_FACE], [REAL_FACE]], [[1, 1], [1]]),
        ([[[30.0, 2.0, 33.0, 40.0], [1.0, 1.0, 2.0, 2.0]], []], [[0, 1], []]),  # no proposal, faces of a pixel
    ],
    ids=["no face", "one real face", "fake only", "no proposal"],
)
@pytest.mark.parametrize("multi_scale", [True, False])
def test_batches_with_nothing_to_compare(faces: Any, labels: Any, multi_scale: bool) -> None:
    model = model_of(ALL, coarse={"multi_scale": multi_scale})
    for _ in range(2):
        losses = model.losses(batch_of(faces, labels))
        for name in ("loss_coarse", "loss_intra", "loss_inter"):
            assert losses.terms[name].item() == 0.0, name
        model.zero_grad()
        losses.total.backward()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, name
                assert torch.isfinite(parameter.grad).all(), name
        model.after_step()


def test_one_class_after_both_is_compared_with_the_queue() -> None:
    model = model_of(["coarse"])
    fill(model)
    losses = model.losses(batch_of([[REAL_FACE]], [[0]]))
    assert losses.logged["coarse_proposals"] > 0
    assert losses.terms["loss_coarse"].item() > 0


def test_weights_of_equation_9() -> None:
    weights = {"coarse": {"weight": 1.0}, "fine": {"intra_weight": 0.7, "inter_weight": 0.0}}
    usual, other = model_of(ALL), model_of(ALL, **weights)
    for model in (usual, other):
        fill(model)
    ours, theirs = usual.losses(both_classes(1)).terms, other.losses(both_classes(1)).terms
    torch.testing.assert_close(theirs["loss_coarse"], 2 * ours["loss_coarse"])
    torch.testing.assert_close(theirs["loss_intra"], 7 * ours["loss_intra"])
    assert theirs["loss_inter"].item() == 0


def test_the_key_view_is_seen_by_the_momentum_extractor_and_the_box_branch_alone() -> None:
    model = model_of(ALL)
    assert isinstance(model.detector, FakeDetector)
    seen = []
    model.momentum.module.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    batch = both_classes()
    model.losses(batch)
    assert model.detector.calls == {"heads": 1, "propose": 2}  # of the key, and of the query by way of `proposals`
    assert torch.equal(seen[0], batch.keys)
    batch.keys = None
    model.losses(batch)
    assert torch.equal(seen[1], batch.images)


def test_the_momentum_extractor_moves_once_an_optimiser_step() -> None:
    model = model_of(ALL, coarse={"momentum": 0.75})
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    before = {name: value.clone() for name, value in model.momentum.module.state_dict().items()}
    for part in range(2):  # two batches for one step
        model.losses(both_classes(part)).total.backward()
    for name, value in model.momentum.module.state_dict().items():
        assert torch.equal(value, before[name]), name
    optimiser.step()
    model.after_step()
    extractor = {f"extractor.{name}": value for name, value in model.detector.extractor.state_dict().items()}
    attention = {f"attention.{name}": value for name, value in model.attention.state_dict().items()}
    moved = 0
    for name, source in {**extractor, **attention}.items():
        value = model.momentum.module.state_dict()[name]
        expected = 0.75 * before[name] + 0.25 * source if source.is_floating_point() else source
        torch.testing.assert_close(value, expected, msg=name)
        moved += not torch.equal(value, before[name])
    assert moved > 10


def test_evaluation_changes_nothing() -> None:
    model = model_of(ALL)
    fill(model)
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model.losses(both_classes(1))
        model.predict(both_classes().images, [(64, 64)] * 2)
    model.after_step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_checkpoint_goes_on_exactly() -> None:
    model, other = model_of(ALL), model_of(ALL)
    for seed in range(3):
        model.losses(both_classes(seed)).total.backward()
        with torch.no_grad():
            for parameter in model.detector.parameters():
                parameter.add_(0.01)
        model.after_step()
    other.load_state_dict(model.state_dict())
    names = list(model.state_dict())
    assert any("queue" in name for name in names)
    assert any(name.startswith("momentum.") for name in names)
    for seed in (3, 4):
        ours, theirs = model.losses(both_classes(seed)), other.losses(both_classes(seed))
        for name, value in ours.terms.items():
            assert torch.equal(value, theirs.terms[name]), name
        for name, value in ours.logged.items():
            assert torch.equal(value, theirs.logged[name]), name


def test_a_copy_of_the_model_has_a_momentum_extractor_of_its_own() -> None:
    model = model_of(["coarse"], coarse={"momentum": 0.0})
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.detector.extractor.parameters():
            parameter.fill_(1.0)
    other.after_step()
    model.after_step()
    assert all((parameter == 1).all() for parameter in other.momentum.module.parameters())
    assert not all((parameter == 1).all() for parameter in model.momentum.module.parameters())


def test_predictions_do_not_depend_on_the_objective() -> None:
    model = model_of(ALL).eval()
    plain = model_of(["attention"]).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    images = both_classes().images
    ours, theirs = (each.predict(images, [(64, 64), (64, 48)]) for each in (model, plain))
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine["scores"], other["scores"])
    assert ours[1]["masks"].shape == (1, 64, 48)


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", NAMES)
def test_every_detector_takes_every_component(name: str, bf16: bool) -> None:
    model = model_of(ALL, name)
    model.detector.prepare = lambda folder: None  # type: ignore[method-assign]
    batch = batch_of([[[4.0, 4.0, 40.0, 44.0], FAKE_FACE], [REAL_FACE]], [[0, 1], [1]])
    norms = {
        name: value.clone()
        for name, value in model.detector.state_dict().items()
        if name.endswith("num_batches_tracked")
    }
    for step in range(2):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            losses = model.losses(batch)
        losses.total.backward()
        for parameter_name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, parameter_name
                assert torch.isfinite(parameter.grad).all(), parameter_name
        for term in ("loss_coarse", "loss_intra", "loss_inter"):
            assert losses.terms[term].dtype == torch.float32
        for norm, count in norms.items():  # the key view leaves no trace in the detector's statistics
            assert model.detector.state_dict()[norm] in (count, count + step + 1), norm
        model.after_step()
    assert losses.terms["loss_intra"].item() > 0
    assert losses.terms["loss_inter"].item() > 0


def test_a_run_starts_from_another_detector(tmp_path: Path) -> None:
    """What both have is taken, though it is less than a file of weights must set."""
    text = """
dataset: mini
datasets: {mini: {kind: mini}}
training: {mini: {epochs: 1, lr: 0.1, image_size: 64}}
models: {mini: {backbone: resnet18, weights: none, fpn_channels: 32, head_channels: 32, head_convs: 1, mask_channels: 16}}
runs:
  first: {title: First}
  other: {title: Other, detector: polarmask, model: {start: first}}
"""
    (tmp_path / "params.yaml").write_text(text)
    params = load(tmp_path / "params.yaml")
    first = Comics(params.resolve("first"))
    path = tmp_path / params.resolve("first").weights_file
    path.parent.mkdir(parents=True)
    save_weights(path, first, params.resolve("first"))
    other = Comics(params.resolve("other").from_start(tmp_path)).detector.state_dict()
    for key, tensor in first.detector.state_dict().items():
        if key.startswith(("extractor.", "head.")):
            assert torch.equal(other[key], tensor), key
