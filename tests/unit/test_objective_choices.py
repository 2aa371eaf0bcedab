"""Each choice that the paper leaves open, or its authors' code makes otherwise: against plain loops."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from test_contrast_coarse import FACES, grid_boxes
from test_model import FAKE_FACE, REAL_FACE, batch_of, both_classes, fake_detector, fill, model_of  # noqa: F401
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from comics.attention import FrequencyAttention
from comics.contrast import CoarseContrast, Memory, against_queue, fine_losses
from comics.params import AttentionParams, CoarseParams, ObjectiveParams, RunParams, load

ROOT = Path(__file__).parents[2]
TAU = 0.5
WEIGHTS = [0.1, 0.7]


def scene(**choices) -> tuple[CoarseContrast, list[Tensor], list[Tensor], tuple]:
    """A coarse loss after its first batch, in double precision: three faces at level 0, the two of 16 px at level 1."""
    torch.manual_seed(3)
    params = CoarseParams(queue_size=8, level_weights=WEIGHTS, **choices)
    module = CoarseContrast(params, levels=2, channels=5, temperature=TAU).double().train()
    maps = [torch.randn(1, 5, side, side, dtype=torch.float64, requires_grad=True) for side in (4, 2)]
    keys = [torch.randn(1, 5, side, side, dtype=torch.float64) for side in (4, 2)]
    boxes = [grid_boxes(4, 8, 1), grid_boxes(2, 16, 1)]
    small = torch.tensor([[24.0, 0.0, 32.0, 8.0], [0.0, 24.0, 8.0, 32.0], [8.0, 24.0, 16.0, 32.0]])
    faces, labels = [torch.cat([FACES, small])], [torch.tensor([0, 1, 0, 1, 1])]
    arguments = (boxes, boxes, faces, labels)
    module(maps, keys, *arguments)
    module.remember()
    return module, maps, keys, arguments


PLACES = {0: [((0, 3), 0), ((3, 0), 1), ((3, 1), 1)], 1: [((0, 0), 0), ((1, 1), 1)]}
"""Cell and class of the proposals of each level."""


def logarithms(maps: list[Tensor], keys: list[Tensor], project=lambda level, x: x, project_key=lambda level, x: x):
    """L of equation 4 (`comics.contrast.flatnce`) of each proposal, level by level: the queue holds the keys of the scene."""
    found = {}
    for level, places in PLACES.items():
        found[level] = []
        for cell, label in places:
            query = project(level, maps[level][0, :, *cell])
            others = [
                cosine_similarity(query, project_key(level, keys[level][0, :, *other]), dim=0)
                for other, kind in places
                if kind != label
            ]
            own = cosine_similarity(query, project_key(level, keys[level][0, :, *cell]), dim=0)
            found[level].append(torch.logsumexp(torch.stack([(one - own) / TAU for one in others]), 0))
    return found


@pytest.mark.parametrize("loss", ["flatnce", "infonce"])
@pytest.mark.parametrize("reduction", ["level_mean", "proposal_mean", "sum"])
def test_reductions_and_losses_are_plain_sums(reduction: str, loss: str) -> None:
    module, maps, keys, arguments = scene(reduction=reduction, loss=loss)
    value, logged = module(maps, keys, *arguments)
    gradients = torch.autograd.grad(value, maps)

    def of(one: Tensor) -> Tensor:
        return one if loss == "flatnce" else torch.log1p(one.exp())

    found = logarithms(maps, keys)
    sums = [sum(of(one) for one in found[level]) for level in (0, 1)]
    if reduction == "level_mean":
        total = 0.1 * sums[0] / 3 + 0.7 * sums[1] / 2
        expected_value = 0.1 + 0.7
    elif reduction == "proposal_mean":
        total = (0.1 * sums[0] + 0.7 * sums[1]) / (0.1 * 3 + 0.7 * 2)
        expected_value = 1.0
    else:
        total = 0.1 * sums[0] + 0.7 * sums[1]
        expected_value = 0.1 * 3 + 0.7 * 2
    for mine, naive in zip(gradients, torch.autograd.grad(total, maps), strict=True):
        torch.testing.assert_close(mine, naive)
    assert value.item() == pytest.approx(expected_value if loss == "flatnce" else total.item())

    values = [sum(math.log1p(one.exp().item()) for one in found[level]) / len(found[level]) for level in (0, 1)]
    assert logged["coarse_infonce_p3"].item() == pytest.approx(values[0])
    assert logged["coarse_infonce_p4"].item() == pytest.approx(values[1])
    assert logged["coarse_infonce"].item() == pytest.approx((0.1 * values[0] + 0.7 * values[1]) / 0.8)
    assert [logged[f"coarse_proposals{level}"].item() for level in ("", "_p3", "_p4")] == [5, 3, 2]
    assert not any(one.requires_grad for one in logged.values())


def test_infonce_of_levels_without_proposals_does_not_count() -> None:
    module, maps, keys, (query, key, _, _) = scene()
    value, logged = module(maps, keys, query, key, [FACES], [torch.tensor([0, 1])])  # level 1 alone
    assert value.item() == pytest.approx(0.7)
    assert logged["coarse_infonce"].item() == pytest.approx(logged["coarse_infonce_p4"].item())
    assert logged["coarse_infonce"] > 0
    assert logged["coarse_infonce_p3"] == logged["coarse_proposals_p3"] == 0


def test_infonce_lets_go_where_flatnce_pulls() -> None:
    """Far apart already: FlatNCE's gradient is as long as ever, InfoNCE's is nearly gone."""
    queries = torch.tensor([[1.0, 0.1]], dtype=torch.float64).requires_grad_()
    positive, queue = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[-1.0, 0.2]]).double()
    both = against_queue(normalize(queries), positive, normalize(queue), torch.ones(1, dtype=torch.bool), 0.07)
    flat, info = (torch.autograd.grad(one.sum(), queries, retain_graph=True)[0].norm() for one in both)
    assert info < 1e-9 * flat


@pytest.mark.parametrize("reduction", ["level_mean", "proposal_mean", "sum"])
@pytest.mark.parametrize("labels", [[], [0]])
def test_reductions_of_nothing_are_zero_and_connected(reduction: str, labels: list[int]) -> None:
    module, maps, keys, (query, key, _, _) = scene(reduction=reduction, projection=True)
    module.memory.filled.zero_()
    faces, targets = [FACES[: len(labels)]], [torch.tensor(labels, dtype=torch.long)]
    value, logged = module(maps, keys, query, key, faces, targets)
    assert value.item() == 0
    for gradient in torch.autograd.grad(value, [*maps, *module.projection.parameters()]):
        assert torch.equal(gradient, torch.zeros_like(gradient))
    assert logged["coarse_infonce"] == 0


def test_projections_of_each_level_and_their_momentum_copy() -> None:
    module, maps, keys, arguments = scene(projection=True, momentum=0.75)
    with torch.no_grad():
        before = [one.weight.clone() for one in module.key_projection.module]
        for one in module.projection:
            one.weight.add_(torch.randn_like(one.weight))
    value, _ = module(maps, keys, *arguments)
    found = logarithms(
        maps,
        keys,
        lambda level, x: module.projection[level](x),
        lambda level, x: module.key_projection.module[level](x),
    )
    total = 0.1 * sum(found[0]) / 3 + 0.7 * sum(found[1]) / 2
    variables = [*maps, *module.projection.parameters()]
    for mine, naive in zip(torch.autograd.grad(value, variables), torch.autograd.grad(total, variables), strict=True):
        torch.testing.assert_close(mine, naive.detach())
    module.remember()
    for one, copy, old in zip(module.projection, module.key_projection.module, before, strict=True):
        torch.testing.assert_close(copy.weight, 0.75 * old + 0.25 * one.weight)
    assert not any(parameter.requires_grad for parameter in module.key_projection.parameters())


def test_a_batch_can_move_the_prototype_once() -> None:
    memory = Memory(1, 4, 3, 0.9, 5, "batch_mean")
    first, second = torch.randn(4, 3), torch.randn(7, 3)
    memory.update(0, first)
    torch.testing.assert_close(memory.prototype[0], first.mean(0))
    memory.update(0, second)
    torch.testing.assert_close(memory.prototype[0], 0.9 * first.mean(0) + 0.1 * second.mean(0))
    turned = Memory(1, 4, 3, 0.9, 5, "batch_mean")
    for keys in (first, second):
        turned.update(0, keys.flip(0))
    torch.testing.assert_close(turned.prototype, memory.prototype)  # no key of a batch outweighs another


def test_keys_like_the_other_prototype_can_be_pushed() -> None:
    torch.manual_seed(0)
    memory = Memory(2, 4, 3, 0.9, 2)
    keys = torch.randn(6, 3)
    memory.update(0, keys, unlike=1)  # the other class has no prototype yet: its own decides
    plain = Memory(2, 4, 3, 0.9, 2)
    plain.update(0, keys)
    assert torch.equal(memory.queue, plain.queue)
    memory.update(1, torch.randn(3, 3))
    memory.update(0, keys, unlike=1)
    similar = sorted(range(6), key=lambda j: -float(cosine_similarity(keys[j], memory.prototype[1], dim=0)))
    torch.testing.assert_close(memory.queue[0, 2:], normalize(keys[similar[:2]], dim=1))


def test_equation_7_to_the_letter_in_log_space() -> None:
    torch.manual_seed(1)
    features = torch.randn(3, 3, 6, 6, dtype=torch.float64)
    masks = torch.zeros(3, 6, 6, dtype=torch.bool)
    masks[0, 1:3, 1:3] = masks[1, 2:5, 2:4] = masks[2, 1:5, 3:5] = True
    labels = [0, 1, 1]
    units = normalize(features, dim=1)

    def summed(a: int, b: int, inside: bool) -> float:
        first, second = ((masks[i] if inside else ~masks[i]).nonzero().tolist() for i in (a, b))
        return sum(float(units[a, :, i, j] @ units[b, :, k, m]) for i, j in first for k, m in second)

    def own(a: int) -> float:
        first, second = masks[a].nonzero().tolist(), (~masks[a]).nonzero().tolist()
        return sum(float(units[a, :, i, j] @ units[a, :, k, m]) for i, j in first for k, m in second)

    def minus_log_share(alike: list[float], apart: list[float], tau: float) -> float:
        exponentials = [math.exp(one / tau) for one in alike], [math.exp(one / tau) for one in apart]
        return -math.log(sum(exponentials[0]) / (sum(exponentials[0]) + sum(exponentials[1])))

    intra = minus_log_share([own(0)], [own(1), own(2)], 5.0)
    terms = [minus_log_share([summed(0, k, False) for k in (1, 2)], [summed(0, k, True) for k in (1, 2)], 5.0)]
    terms += [minus_log_share([summed(0, k, False)], [summed(0, k, True)], 5.0) for k in (1, 2)]
    losses = fine_losses(features, masks, torch.tensor(labels), 5.0, "all", 2.0, "pair_sum")
    assert [float(loss) for loss in losses] == pytest.approx([intra, sum(terms) / 3])
    features.requires_grad_()
    for which in (0, 1):
        assert torch.autograd.gradcheck(
            lambda x, which=which: fine_losses(x, masks, torch.tensor(labels), 5.0, "all", 2.0, "pair_sum")[which],
            features,
        )
    large = torch.randn(2, 3, 28, 28, requires_grad=True)  # exp of these sums is no number
    disc = torch.zeros(2, 28, 28, dtype=torch.bool)
    disc[:, 8:20, 8:20] = True
    losses = fine_losses(large, disc, torch.tensor([0, 1]), 0.07, similarity="pair_sum")
    assert all(torch.isfinite(one) for one in losses)
    assert torch.isfinite(torch.autograd.grad(sum(losses), large)[0]).all()
    for labels_of_one in ([], [0], [1, 1]):
        part = large[: len(labels_of_one)]
        nothing = fine_losses(
            part, disc[: len(part)], torch.tensor(labels_of_one, dtype=torch.long), 0.7, similarity="pair_sum"
        )
        assert [float(one) for one in nothing] == [0, 0]


def test_the_ramp_is_the_share_of_the_weights() -> None:
    ramp = ObjectiveParams(ramp=(0.25, 0.75))
    assert [ramp.strength(done) for done in (0, 0.25, 0.375, 0.5, 0.75, 1)] == [0, 0, 0.25, 0.5, 1, 1]
    assert [ObjectiveParams().strength(done) for done in (0, 1)] == [1, 1]
    assert [ObjectiveParams(ramp=(0.3, 0.3)).strength(done) for done in (0.29, 0.3)] == [0, 1]
    with pytest.raises(ValidationError, match="ends before it starts"):
        ObjectiveParams(ramp=(0.3, 0.2))
    model = model_of(["coarse", "fine"])
    model.objective = model.objective.model_copy(update={"ramp": (0.2, 0.6)})
    fill(model)
    full = []
    for model.done in (0.6, 0.4, 0.0):
        model.eval()  # queues stay
        full.append(model.losses(both_classes(1)).terms)
    for name in ("loss_coarse", "loss_intra", "loss_inter"):
        torch.testing.assert_close(full[1][name], 0.5 * full[0][name])
        assert full[2][name].item() == 0
        assert full[0][name].item() > 0
    assert torch.equal(full[0]["class"], full[2]["class"])


def test_each_grain_can_have_a_temperature_of_its_own() -> None:
    def terms(**objective) -> dict[str, float]:
        model = model_of(["coarse", "fine"], coarse={"loss": "infonce", **objective.pop("coarse", {})}, **objective)
        fill(model)
        return {name: float(value.detach()) for name, value in model.losses(both_classes(1)).terms.items()}

    usual = terms()
    coarse, fine = terms(coarse={"temperature": 0.07}), terms(fine={"temperature": 0.07})
    assert terms(coarse={"temperature": 0.7}, fine={"temperature": 0.7}) == usual
    assert coarse["loss_coarse"] != usual["loss_coarse"]
    assert coarse["loss_intra"] == usual["loss_intra"]
    assert fine["loss_coarse"] == usual["loss_coarse"]
    assert fine["loss_intra"] != usual["loss_intra"]


def test_the_fine_projection_is_trained() -> None:
    model = model_of(["fine"], fine={"projection": True})
    losses = model.losses(both_classes())
    losses.total.backward()
    assert model.fine_projection.weight.grad.abs().sum() > 0
    plain = model_of(["fine"])
    assert not list(plain.fine_projection.parameters())


@pytest.mark.parametrize("found", [True, False])
def test_faces_can_be_the_best_detections_of_the_true_ones(found: bool) -> None:
    model = model_of(["fine"], fine={"faces": "predicted"})
    batch = batch_of([[REAL_FACE, FAKE_FACE], []], [[1, 0], []])
    near, far = [36.0, 36.0, 53.0, 53.0], [36.0, 36.0, 54.0, 54.0]
    boxes = torch.tensor([far, near, REAL_FACE, [0.0, 0.0, 9.0, 9.0]]) if found else torch.zeros(0, 4)
    masks = torch.arange(len(boxes))[:, None, None].expand(-1, 64, 64) % 2 == 0
    nothing = {"boxes": boxes[:0], "masks": masks[:0], "labels": torch.zeros(0), "scores": torch.zeros(0)}
    model.detector.predict = lambda outputs, sizes: [{**nothing, "boxes": boxes, "masks": masks}, nothing]
    first, second = model._detected(None, batch)
    assert second["boxes"].shape == (0, 4)
    if found:
        assert first["boxes"].tolist() == [REAL_FACE, far]  # in the order of the faces; the better scored of the two
        assert first["labels"].tolist() == [1, 0]
        assert torch.equal(first["masks"], masks[[2, 0]])
    else:
        assert len(first["labels"]) == 0
        losses = model.losses(batch)
        assert losses.terms["loss_intra"].item() == 0


@pytest.mark.parametrize("name", ["blendmask", "mask_rcnn", "solov2"])
def test_detected_faces_are_compared_in_training(name: str) -> None:
    model = model_of(["fine"], name, fine={"faces": "predicted"})
    model.detector.prepare = lambda folder: None
    before = {key: value.clone() for key, value in model.detector.state_dict().items() if "num_batches" in key}
    losses = model.losses(both_classes())
    losses.total.backward()
    assert torch.isfinite(losses.total)
    for key, value in before.items():
        assert model.detector.state_dict()[key] in (value, value + 1), key


def test_the_attention_can_look_at_the_image_alone() -> None:
    torch.manual_seed(1)
    module = FrequencyAttention(8, (8, 16), AttentionParams(channels=(4, 6), inputs="image")).eval()
    assert not any(name.startswith("feature") for name, _ in module.named_parameters())
    images = torch.rand(2, 3, 64, 96)
    levels = [torch.ones(2, 8, 8, 12), torch.ones(2, 8, 4, 6)]
    once, again = (module(images, [factor * level for level in levels]) for factor in (1, 3))
    for one, other in zip(once, again, strict=True):
        torch.testing.assert_close(3 * one, other)  # the map does not depend on the features
    different = module(images.flip(-1) ** 2, levels)
    assert not torch.allclose(different[0], once[0])
    module.train()
    sum(level.sum() for level in module(images, levels)).backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_a_clean_query_needs_a_key_to_augment() -> None:
    with pytest.raises(ValidationError, match=r"views\.query is clean"):
        RunParams(components=["views"], views={"query": "clean"})
    assert RunParams(components=["views", "coarse"], views={"query": "clean"}).views.query == "clean"


def test_the_authors_code_is_a_run() -> None:
    run = load(ROOT / "params.yaml").resolve("authors_code", 0)
    coarse, fine, attention = run.objective.coarse, run.objective.fine, run.attention
    assert coarse.level_weights[1:] == [0, 0, 0, 0]  # P3 alone
    assert (coarse.projection, fine.projection) == (True, True)
    assert (coarse.temperature, fine.temperature or run.objective.temperature) == (0.07, 0.7)
    # 0.2 w, 5 w and 0.5 w with a ramp w that ends at 1 / 2
    assert (coarse.weight, fine.intra_weight, fine.inter_weight) == (0.1, 2.5, 0.25)
    assert (attention.inputs, attention.identity) == ("image", True)
    assert run.objective.strength(0) == 0
    assert run.objective.ramp == (0.5, pytest.approx(11 / 12, abs=1e-3))  # epochs 6 to 11 of 12
