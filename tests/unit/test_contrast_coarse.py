"""Momentum, memory, FlatNCE and the coarse loss against plain loops."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from comics.contrast import CoarseContrast, Memory, MomentumCopy, against_queue, flatnce, infonce
from comics.contrast.coarse import IGNORED, label_proposals
from comics.params import CoarseParams

FACES = torch.tensor([[0.0, 0.0, 16.0, 16.0], [16.0, 16.0, 32.0, 32.0]])


# --------------------------------------------------------------------------------------------------------- momentum


def test_the_copy_follows_parameters_and_buffers_by_equation_1() -> None:
    source = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    copy = MomentumCopy(source, 0.9)
    before = {name: value.clone() for name, value in copy.module.state_dict().items()}
    with torch.no_grad():
        for value in [*source.parameters(), source[1].running_mean]:
            value.add_(1.0)
        source[1].num_batches_tracked.add_(3)
    copy.update()
    for name, value in copy.module.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.9 * before[name] + 0.1 * source.state_dict()[name])
    assert copy.module[1].num_batches_tracked == 3


def test_the_copy_is_never_trained_and_stays_in_evaluation_mode() -> None:
    source = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    copy = MomentumCopy(source, 0.9).train()
    before = copy.module[1].running_mean.clone()
    output = copy(torch.randn(2, 3, 8, 8))
    assert not output.requires_grad
    assert not any(parameter.requires_grad for parameter in copy.parameters())
    assert torch.equal(copy.module[1].running_mean, before)
    assert len(list(copy.parameters())) == len(list(source.parameters()))  # the source is not held twice


# ---------------------------------------------------------------------------------------------------------- flatnce


def naive_log_sum(positive: Tensor, negatives: Tensor, valid: Tensor, tau: float) -> list[float]:
    result = []
    for i in range(len(positive)):
        total = sum(
            math.exp((float(negatives[i, h]) - float(positive[i])) / tau)
            for h in range(negatives.shape[1])
            if valid[i, h]
        )
        result.append(math.log(total) if total else float("nan"))
    return result


@pytest.mark.parametrize("tau", [0.07, 0.7])
def test_flatnce_is_one_and_infonce_tells_the_value(tau: float) -> None:
    torch.manual_seed(0)
    positive, negatives = torch.rand(5, dtype=torch.float64), torch.rand(5, 7, dtype=torch.float64)
    valid = torch.rand(5, 7) < 0.6
    valid[2] = False
    naive = naive_log_sum(positive, negatives, valid, tau)
    flat, info = flatnce(positive, negatives, valid, tau), infonce(positive, negatives, valid, tau)
    for i, value in enumerate(naive):
        assert float(flat[i]) == (0.0 if math.isnan(value) else 1.0)
        assert float(info[i]) == pytest.approx(0.0 if math.isnan(value) else math.log1p(math.exp(value)))


@pytest.mark.parametrize("tau", [0.07, 0.7])
def test_flatnces_gradient_is_that_of_the_log_sum(tau: float) -> None:
    torch.manual_seed(1)
    positive = torch.rand(3, dtype=torch.float64, requires_grad=True)
    negatives = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)
    valid = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)
    gradients = torch.autograd.grad(flatnce(positive, negatives, valid, tau).sum(), [positive, negatives])

    def total(p: Tensor, n: Tensor) -> float:
        return sum(value for value in naive_log_sum(p, n, valid, tau) if not math.isnan(value))

    step = 1e-6
    for which, gradient in enumerate(gradients):
        for index in range(gradient.numel()):
            values = []
            for sign in (1, -1):
                moved = [positive.detach().clone(), negatives.detach().clone()]
                moved[which].view(-1)[index] += sign * step
                values.append(total(*moved))
            assert float(gradient.reshape(-1)[index]) == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-6)


def test_extreme_similarities_stay_finite() -> None:
    positive = torch.tensor([-1.0], requires_grad=True)
    loss = flatnce(positive, torch.ones(1, 1000), torch.ones(1000, dtype=torch.bool), 0.001)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(positive.grad).all()


@pytest.mark.parametrize("block", [3, 10**6])
@pytest.mark.parametrize("tau", [0.01, 0.7])
def test_a_queue_gives_what_its_similarities_give(monkeypatch: pytest.MonkeyPatch, block: int, tau: float) -> None:
    monkeypatch.setattr(importlib.import_module("comics.contrast.flatnce"), "BLOCK", block)
    torch.manual_seed(4)
    queries, positives, queue = (normalize(torch.randn(n, 6, dtype=torch.float64)) for n in (7, 7, 5))
    valid = torch.tensor([True, True, False, True, False])
    queries.requires_grad_()
    positives.requires_grad_()
    wanted = torch.arange(1.0, 8.0, dtype=torch.float64)  # the gradient of each query is its own

    similarities = (queries * positives).sum(1), queries @ queue.T, valid, tau
    expected = torch.autograd.grad(flatnce(*similarities) @ wanted, [queries, positives])
    loss, value = against_queue(queries, positives, queue, valid, tau)
    torch.testing.assert_close(loss, torch.ones_like(loss))
    torch.testing.assert_close(value, infonce(*similarities).detach())
    queue.zero_()  # a push before the backward pass
    for mine, naive in zip(torch.autograd.grad(loss @ wanted, [queries, positives]), expected, strict=True):
        torch.testing.assert_close(mine, naive)


def test_a_queue_without_negatives_gives_zero() -> None:
    queries = normalize(torch.randn(3, 4)).requires_grad_()
    loss, value = against_queue(queries, queries.detach(), torch.zeros(5, 4), torch.zeros(5, dtype=torch.bool), 0.7)
    assert loss.tolist() == value.tolist() == [0, 0, 0]
    assert torch.equal(torch.autograd.grad(loss.sum(), queries)[0], torch.zeros(3, 4))


# ----------------------------------------------------------------------------------------------------------- memory


def naive_memory(batches: list[Tensor], size: int, alpha: float, pushed: int) -> tuple[list[Tensor], Tensor]:
    """Slot by slot and key by key."""
    slots: list[Tensor | None] = [None] * size
    head, prototype = 0, None
    for keys in batches:
        for key in keys:
            prototype = key if prototype is None else alpha * prototype + (1 - alpha) * key
        similar = sorted(range(len(keys)), key=lambda j: float(cosine_similarity(keys[j], prototype, dim=0)))
        for j in similar[: min(pushed, size)]:
            slots[head] = normalize(keys[j], dim=0)
            head = (head + 1) % size
    return slots, prototype


@pytest.mark.parametrize("counts", [[1], [3, 0, 2], [9, 9, 9], [5, 5, 5, 5, 1], [40]])
@pytest.mark.parametrize("size", [4, 7])
def test_the_memory_is_a_ring_of_the_least_similar_keys(counts: list[int], size: int) -> None:
    torch.manual_seed(2)
    batches = [torch.randn(count, 6) for count in counts]
    memory = Memory(groups=2, size=size, channels=6, momentum=0.9, pushed=5)
    for keys in batches:
        memory.update(1, keys)
    slots, prototype = naive_memory([keys for keys in batches if len(keys)], size, 0.9, 5)
    bank, valid = memory.negatives(1)
    assert valid.tolist() == [slot is not None for slot in slots]
    for mine, naive in zip(bank, slots, strict=True):
        if naive is not None:
            torch.testing.assert_close(mine, naive)
    torch.testing.assert_close(memory.prototype[1], prototype)
    assert not memory.negatives(0)[1].any()  # the other group is untouched


def test_the_memory_travels_with_the_state() -> None:
    memory, other = (Memory(2, 4, 3, 0.9, 5) for _ in range(2))
    memory.update(0, torch.randn(3, 3, requires_grad=True))
    assert not memory.queue.requires_grad
    other.load_state_dict(memory.state_dict())
    memory.update(0, torch.ones(3, 3))
    other.update(0, torch.ones(3, 3))
    assert torch.equal(memory.queue, other.queue)


# ----------------------------------------------------------------------------------------------------- the loss


def test_proposals_are_labelled_by_more_than_the_threshold() -> None:
    boxes = torch.tensor([[[0, 0, 16, 16], [0, 0, 16, 10], [0, 0, 16, 9.6], [16, 16, 32, 32], [40, 40, 50, 50]]])
    labels = label_proposals(boxes.float(), [FACES], [torch.tensor([0, 1])], 0.6)
    assert labels.tolist() == [[0, 0, IGNORED, 1, IGNORED]]  # 9.6 / 16 is 0.6, not more
    none = label_proposals(boxes.float(), [torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.long)], 0.6)
    assert (none == IGNORED).all()


def grid_boxes(size: int, stride: int, batch: int) -> tuple[Tensor, Tensor]:
    """One box of `stride` px a cell."""
    ys, xs = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    corner = torch.stack([xs, ys], -1).reshape(-1, 2).float() * stride
    return torch.cat([corner, corner + stride], 1).expand(batch, -1, -1), torch.arange(size * size)


def coarse(multi_scale: bool = True, negatives: str = "other_class") -> CoarseContrast:
    params = CoarseParams(multi_scale=multi_scale, negatives=negatives, queue_size=8, level_weights=[0.1, 0.7])
    return CoarseContrast(params, levels=2, channels=5, temperature=0.7).train()


def run(module: CoarseContrast, maps: list[Tensor], keys: list[Tensor], labels: list[Tensor], faces: list[Tensor]):
    boxes = [grid_boxes(4, 8, len(labels)), grid_boxes(2, 16, len(labels))]
    result = module(maps, keys, boxes, boxes, faces, labels)
    module.remember()
    return result


def test_the_loss_is_equation_5_against_the_other_classs_queue() -> None:
    torch.manual_seed(3)
    module = coarse()
    maps = [torch.randn(1, 5, 4, 4, requires_grad=True), torch.randn(1, 5, 2, 2, requires_grad=True)]
    keys = [torch.randn(1, 5, 4, 4), torch.randn(1, 5, 2, 2)]
    faces, labels = [FACES], [torch.tensor([0, 1])]
    empty, logged = run(module, maps, keys, labels, faces)
    assert empty.item() == 0.0  # no negatives yet
    assert logged["coarse_proposals"] == 0

    # level 1 has cells of 16 px that are the faces themselves; level 0's of 8 px overlap them by a quarter only
    value, logged = run(module, maps, keys, labels, faces)
    assert logged["coarse_proposals"] == 2
    assert float(value) == pytest.approx(0.7)  # FlatNCE is 1, the level's weight 0.7
    gradient = torch.autograd.grad(value, maps[1])[0]

    query = maps[1].detach().clone().requires_grad_()
    total = torch.zeros(())
    for cell, other in (((0, 0), (1, 1)), ((1, 1), (0, 0))):
        positive = cosine_similarity(query[0, :, *cell], keys[1][0, :, *cell], dim=0)
        negative = cosine_similarity(query[0, :, *cell], keys[1][0, :, *other], dim=0)
        total = total + (negative - positive) / 0.7 / 2
    expected = torch.autograd.grad(0.7 * total, query)[0]
    torch.testing.assert_close(gradient, expected)
    assert float(logged["coarse_infonce"]) > 0


def test_the_letter_of_equation_4_can_be_chosen() -> None:
    torch.manual_seed(3)
    maps, keys = [torch.randn(1, 5, 4, 4), torch.randn(1, 5, 2, 2)], [torch.randn(1, 5, 4, 4), torch.randn(1, 5, 2, 2)]
    module = coarse(negatives="same_class")
    run(module, maps, keys, [torch.tensor([0])], [FACES[:1]])
    same, _ = run(module, maps, keys, [torch.tensor([0])], [FACES[:1]])
    other = coarse()
    run(other, maps, keys, [torch.tensor([0])], [FACES[:1]])
    none, _ = run(other, maps, keys, [torch.tensor([0])], [FACES[:1]])
    assert (float(same), float(none)) == (pytest.approx(0.7), 0.0)


def test_one_scale_fuses_all_levels_without_level_weights() -> None:
    module = coarse(multi_scale=False)
    maps, keys = [torch.randn(1, 5, 4, 4), torch.randn(1, 5, 2, 2)], [torch.randn(1, 5, 4, 4), torch.randn(1, 5, 2, 2)]
    run(module, maps, keys, [torch.tensor([0, 1])], [FACES])
    value, _ = run(module, maps, keys, [torch.tensor([0, 1])], [FACES])
    assert float(value) == pytest.approx(1.0)
    assert module.memory.queue.shape[0] == 2


@pytest.mark.parametrize("labels", [[], [0], [1], [0, 0]])
def test_a_batch_with_nothing_to_compare_gives_zero_and_finite_gradients(labels: list[int]) -> None:
    module = coarse()
    maps = [torch.randn(2, 5, 4, 4, requires_grad=True), torch.randn(2, 5, 2, 2, requires_grad=True)]
    keys = [level.detach() for level in maps]
    faces = [FACES[: len(labels)], torch.zeros(0, 4)]
    targets = [torch.tensor(labels, dtype=torch.long), torch.zeros(0, dtype=torch.long)]
    for _ in range(2):
        value, _ = run(module, maps, keys, targets, faces)
        assert float(value) == 0.0
        for level, gradient in zip(maps, torch.autograd.grad(value, maps), strict=True):
            assert torch.equal(gradient, torch.zeros_like(level))


def test_evaluation_leaves_the_memory_alone() -> None:
    module = coarse().eval()
    maps = [torch.randn(1, 5, 4, 4), torch.randn(1, 5, 2, 2)]
    run(module, maps, maps, [torch.tensor([0, 1])], [FACES])
    assert not module.memory.filled.any()
