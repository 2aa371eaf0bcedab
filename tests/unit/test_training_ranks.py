"""Two ranks with half of a batch each are one rank with all of it: losses, gradients, queues, prototypes, statistics."""

from __future__ import annotations

import multiprocessing
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from detector_scenes import confident, scenes
from torch import nn

from comics.data.loading.batches import Batch
from comics.data.loading.loaders import EpochSampler
from comics.model import Comics
from comics.params import load
from comics.ranks import as_of_all, gather_lists, gather_rows, mean_over_ranks
from comics.training.norms import over_ranks

ALL = ["views", "attention", "coarse", "fine"]
PARAMS = """
dataset: mini
datasets:
  mini: {{kind: mini}}
training:
  mini: {{batch_size: 4}}
models:
  mini: {{backbone: resnet18, backbone_width: 0.25, fpn_channels: 16, head_channels: 16, head_convs: 1, mask_channels: 16}}
objectives:
  mini: {{coarse: {{queue_size: 16, iou_threshold: 0.05, momentum: 0.5}}, fine: {{size: 14, margin: 1}}}}
runs:
  one: {{detector: {detector}, components: [views, attention, coarse, fine]{extra}}}
"""
FACES = [  # the ranks have different numbers of faces, and one of its classes is missing on the second
    [[4.0, 6.0, 40.0, 44.0], [44.0, 10.0, 90.0, 60.0]],
    [[10.0, 10.0, 60.0, 60.0], [50.0, 4.0, 80.0, 40.0], [70.0, 40.0, 94.0, 62.0]],
    [[20.0, 8.0, 70.0, 58.0]],
    [],
]
STEPS = 2

_context = multiprocessing.get_context("forkserver")


def batch(rows: range, seed: int) -> Batch:
    images, targets, sizes = scenes(FACES, 64, 96)
    keys = (images + 0.05 * torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))).clamp(0, 1)
    some = slice(rows.start, rows.stop)
    return Batch(images[some], keys[some], targets[some], sizes[some], list(rows), sizes[some])


def all_double() -> None:
    """In this process float32 is float64, also where code asks for it: what is left of a difference is then no rounding."""
    torch.set_default_dtype(torch.float64)
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]


def steps(file: str, rank: int, ranks: int) -> dict[str, Any]:
    """What two steps of SGD on this rank's share leave. To be called in a process of its own."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    run = load(file).resolve("one")
    if run.detector == "mask_rcnn":  # torchvision's heads mix no types
        all_double()
    model = Comics(run).train()
    if run.detector == "mask_rcnn":  # its samples are drawn at random: let it take all
        model.detector.rpn.fg_bg_sampler.batch_size_per_image = 10**6
        model.detector.roi_heads.fg_bg_sampler.batch_size_per_image = 10**6
    over_ranks(model)
    confident(model.detector)
    model = model.to(torch.float64)
    share = len(FACES) // ranks
    losses = []
    for step in range(STEPS):
        mine = batch(range(rank * share, (rank + 1) * share), step)
        mine.images, mine.keys = mine.images.to(torch.float64), mine.keys.to(torch.float64)
        found = model.losses(mine)
        model.zero_grad()
        found.total.backward()
        losses.append({name: float(mean_over_ranks(value.detach())) for name, value in found.terms.items()})
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                    parameter.grad = mean_over_ranks(gradient)
                    parameter -= 1e-6 * parameter.grad
        model.after_step()
    gradients = {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    return {"losses": losses, "gradients": gradients, "state": state}


def _rank(work: Any, arguments: tuple[Any, ...], rank: int, ranks: int, port: int, pipe: Any) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    pipe.send(work(*arguments, rank, ranks))
    dist.destroy_process_group()


def on_ranks(work: Any, *arguments: Any, ranks: int = 2) -> list[Any]:
    """What `work(*arguments, rank, ranks)` gives on each of some processes that know each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes, processes = [], []
    for rank in range(ranks):
        ours, theirs = _context.Pipe()
        process = _context.Process(target=_rank, args=(work, arguments, rank, ranks, port, theirs))
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    found = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join()
    return found


def close(ours: dict[str, Any], theirs: dict[str, Any], tolerance: float = 1e-5) -> None:
    """Equal to `tolerance` of the largest number of each tensor: losses are taken in float32."""
    assert ours.keys() == theirs.keys()
    differences = {}
    for name, value in theirs.items():
        expected, found = torch.as_tensor(value).double(), torch.as_tensor(ours[name]).double()
        scale = max(1e-2, float(expected.abs().max())) if expected.numel() else 1.0
        difference = float((found - expected).abs().max()) / scale if expected.numel() else 0.0
        if not difference < tolerance:
            differences[name] = difference
    assert not differences, differences


@pytest.mark.parametrize(
    ("detector", "extra"),
    [
        ("blendmask", ""),
        ("mask_rcnn", ""),
        pytest.param("condinst", "", marks=pytest.mark.faults),
        pytest.param("blendmask", ", objective: {coarse: {multi_scale: false}}", marks=pytest.mark.faults),
        pytest.param("blendmask", ", objective: {fine: {similarity: pixel_pairs}}", marks=pytest.mark.faults),
    ],
)
def test_two_ranks_are_one_with_the_whole_batch(tmp_path: Path, detector: str, extra: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(PARAMS.format(detector=detector, extra=extra))
    first, second = on_ranks(steps, str(file))
    (whole,) = on_ranks(steps, str(file), ranks=1)
    assert any(value.any() for name, value in whole["state"].items() if name.endswith("memory.queue"))
    assert all(loss["loss_intra"] != 0 for loss in whole["losses"])
    for rank in (first, second):
        for ours, theirs in zip(rank["losses"], whole["losses"], strict=True):
            close(ours, theirs)
        # In float32 Mask R-CNN's gradients agree to 1.3 % alone: rounding, which BatchNorm of small batches magnifies.
        tolerance = 1e-9 if detector == "mask_rcnn" else 1e-5
        close(rank["gradients"], whole["gradients"], tolerance)
        close(rank["state"], whole["state"], tolerance)
    for name, value in first["state"].items():
        assert (second["state"][name] == value).all(), name  # to the last bit


def _sums(rank: int, ranks: int) -> Any:
    rows = torch.arange(3.0 * (rank + 1)).view(-1, 3).requires_grad_()
    gathered = gather_rows(rows)
    (gathered.square().sum()).backward()
    empty = gather_rows(torch.zeros(0 if rank else 2, 4))
    lists = gather_lists([torch.full((rank, 2), 1.0 + rank), torch.full((1, 2), 5.0 + rank)])
    loss = as_of_all(torch.tensor(2.0 if rank else 0.0), 3 if rank else 0)
    return gathered.tolist(), rows.grad.tolist(), len(empty), [one.tolist() for one in lists], float(loss)


def test_rows_come_in_the_order_of_ranks_with_the_gradient_of_ones_own() -> None:
    (rows, first, empty, lists, loss), (again, second, _, _, other) = on_ranks(_sums)
    assert rows == again == [[0, 1, 2], [0, 1, 2], [3, 4, 5]]
    assert first == [[0, 4, 8]]  # 2 x, times the number of ranks
    assert second == [[0, 4, 8], [12, 16, 20]]
    assert empty == 2
    assert lists == [[[2, 2]], [[5, 5], [6, 6]]]
    assert (loss + other) / 2 == 2.0  # the mean over three items


def test_a_batch_norm_of_one_process_is_torchs(tmp_path: Path) -> None:
    ours, theirs = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    over_ranks(ours)
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.running_var, theirs.running_var)


@pytest.mark.parametrize(("parts", "ranks"), [(1, 2), (2, 1), (2, 2), (1, 4)])
def test_a_step_sees_the_same_images_however_they_are_shared(parts: int, ranks: int) -> None:
    whole = list(EpochSampler(35, 3, batch=8))
    assert len(whole) == 32
    shares = [list(EpochSampler(35, 3, 8, parts, ranks, rank)) for rank in range(ranks)]
    size = 8 // parts // ranks
    joined: list[Any] = []
    for start in range(0, 32 // ranks, size):
        for share in shares:
            joined += share[start : start + size]
    assert joined == whole
    late = EpochSampler(35, 3, 8, parts, ranks, 0)
    late.set_epoch(0, size * parts)
    assert list(late) == shares[0][size * parts :]
