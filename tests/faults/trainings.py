"""Tiny trainings in processes of their own, to be killed: forked from one that has imported everything."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from injection import HANGS

PARAMS = """
dataset: mini
datasets:
  mini: {kind: mini, width: 96, height: 64, train: 10, val: 2, test_dev: 2, test_challenge: 2}
training:
  mini:
    epochs: 4
    batch_size: 3
    milestones: [3]
    warmup_iterations: 2
    image_size: 96
    crop: 0.9
    rotation: 10
    workers: 0
    precision: fp32
    checkpoint_minutes: 0.00001
models:
  mini: {backbone: resnet18, backbone_width: 0.125, fpn_channels: 8, head_channels: 8, head_convs: 1, mask_channels: 8}
runs:
"""
RUNS = {
    "plain": "{}",
    "comics": "{components: [views, attention, coarse, fine]}",
    "mask_rcnn": "{detector: mask_rcnn, components: [views, coarse, fine]}",
    "meinst": "{detector: meinst}",
    "condinst": "{detector: condinst}",
    "solov2": "{detector: solov2}",
    "two_phase": "{detector: two_phase, components: [views, dual], model: {two_phase: {faces: plain, crop: 64, classifier_width: 0.125}}}",
}
STEPS = 12

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["comics.training.fit"])


def write_params(folder: Path, runs: dict[str, str], **training: Any) -> None:
    """``params.yaml`` of a tiny dataset in `folder`; `training` overrides."""
    lines = PARAMS
    for key, value in training.items():
        start = lines.index(f"    {key}:") if f"    {key}:" in lines else None
        line = f"    {key}: {json.dumps(value)}\n"
        if start is None:
            lines = lines.replace("    epochs: 4\n", f"    epochs: 4\n{line}")
        else:
            lines = lines[:start] + line + lines[lines.index("\n", start) + 1 :]
    (folder / "params.yaml").write_text(lines + "".join(f"  {name}: {block}\n" for name, block in runs.items()))


def _comics(folder: str, arguments: list[str], log: str, before: Callable[[], None] | None) -> None:
    os.setsid()
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.chdir(folder)
    torch.set_num_threads(1)
    if before is not None:
        before()
    sys.argv = ["comics", *arguments]
    from comics.cli import main

    main()


def comics(folder: Path, *arguments: str, code: int = 0) -> str:
    """The output of a command that ends with `code`."""
    log = folder / "comics.log"
    log.unlink(missing_ok=True)
    process = _context.Process(target=_comics, args=(str(folder), list(arguments), str(log), None))
    process.start()
    process.join(HANGS)
    assert process.exitcode == code, log.read_text()
    return log.read_text()


@contextmanager
def training(folder: Path, run: str, before: Callable[[], None] | None = None) -> Iterator[Any]:
    """``comics train RUN`` in `folder`, as a process that is at work; `before` is called in it first.

    Its output is appended to ``<folder>/<run>.log``.
    """
    process = _context.Process(target=_comics, args=(str(folder), ["train", run], str(folder / f"{run}.log"), before))
    process.start()
    try:
        yield process
    finally:
        process.join(HANGS)
        if process.is_alive():
            process.kill()
            process.join()


def slowly() -> None:
    """A step takes a fifth of a second more: what is to meet a training at work meets it on a fast machine too."""
    from comics.training.checkpoints import Checkpoints

    original = Checkpoints.on_train_batch_end

    def slow(self, *arguments):
        time.sleep(0.2)
        original(self, *arguments)

    Checkpoints.on_train_batch_end = slow


def train(folder: Path, run: str, before: Callable[[], None] | None = None) -> tuple[int, str]:
    """Exit code and output of a training that nobody disturbs."""
    log = folder / f"{run}.log"
    log.unlink(missing_ok=True)
    with training(folder, run, before) as process:
        pass
    return code_of(process), log.read_text()


def code_of(process: Any) -> int:
    """The exit code as a shell tells it."""
    code = process.exitcode
    return 128 - code if code < 0 else code


def weights(folder: Path, run: str) -> dict[str, torch.Tensor]:
    return torch.load(folder / f"results/mini/{run}/seed0/model.pt", weights_only=True)["state_dict"]


def require_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different, different


def wait_for(condition: Callable[[], bool], process: Any, seconds: float = HANGS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def steps_of(folder: Path, run: str) -> list[int]:
    """Steps whose checkpoints are whole."""
    found = (folder / f"results/mini/{run}/seed0/checkpoints").glob("step-*.ckpt.meta.json")
    return sorted(int(path.name[5:13]) for path in found)
