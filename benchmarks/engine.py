"""What the training engine costs a step: a training beside a bare loop over the same batches, by turns in one process.

    python benchmarks/engine.py [--run blendmask] [--steps 20] [--turns 4] [--output FILE.json]

The engine's turn is `comics.training.fit.train` as it is: Lightning, checks of losses and gradients, logs, status file, time and
energy. The bare loop is losses, backward pass, clipping, optimiser, schedule and the momentum extractor's update. A step lasts from
one batch's handing out to the next one's. The cost is the median, over all steps of all turns but the first two of each, of the
difference between the two for the same batch, in processor time; the time of a checkpoint is given for itself, and is spread
over the steps between two of them. Needs the dataset of params.yaml (``data/<dataset>/train``).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytorch_lightning as lightning
import torch

from comics.data.loading.batches import Batch
from comics.data.loading.loaders import TrainingLoader, training_loader
from comics.params import ResolvedRun, load
from comics.training import fit
from comics.training.checkpoints import Checkpoints
from comics.training.devices import device
from comics.training.hardware import autocast_dtype
from comics.training.module import TrainingModule, seed_step


class Timed:
    """The first `steps` batches of a loader; `moments` are the processor's and the clock's when each was asked for."""

    def __init__(self, loader: TrainingLoader, steps: int) -> None:
        self.loader, self.steps = loader, steps
        self.sampler = loader.order  # whose epoch Lightning sets
        self.moments: list[tuple[float, float]] = []

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self.loader)
        for _ in range(self.steps):
            batch = next(batches)
            self.moments.append((time.process_time(), time.perf_counter()))
            yield batch

    def seconds(self, clock: int) -> list[float]:
        """Of each step but the first two and the last one."""
        taken = [moments[clock] for moments in self.moments]
        return [later - earlier for earlier, later in pairwise(taken[2:])]


def bare(run: ResolvedRun, root: Path, steps: int) -> Timed:
    """Train `run` for `steps` with nothing but what training is."""
    lightning.seed_everything(run.seed, verbose=False)
    loader = Timed(training_loader(run, root), steps)
    module = TrainingModule(run, steps)
    model, on = module.model.to(device()).train(), device()
    configured = module.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    half = autocast_dtype(run.training.precision, on) == torch.bfloat16
    for step, batch in enumerate(loader):
        seed_step(run.seed, step)
        model.done = step / steps
        with torch.autocast(on.type, torch.bfloat16) if half else nullcontext():
            losses = model.losses(batch.to(on))
        losses.total.backward()
        if run.training.clip_gradient_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), run.training.clip_gradient_norm)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        model.after_step()
    return loader


def engine(run: ResolvedRun, root: Path, steps: int) -> tuple[Timed, float]:
    """Train `run` for `steps` as ``comics train`` does; and the seconds of its checkpoint."""
    made: list[Timed] = []
    checkpoints: list[float] = []
    save = Checkpoints._save

    def timed_loader(*arguments: Any) -> Timed:
        made.append(Timed(training_loader(*arguments), steps))
        return made[-1]

    def timed_save(self: Checkpoints, trainer: Any) -> None:
        start = time.perf_counter()
        save(self, trainer)
        checkpoints.append(time.perf_counter() - start)

    fit.training_loader, Checkpoints._save = timed_loader, timed_save  # type: ignore[assignment, method-assign]
    try:
        fit.train(run, root)
    finally:
        fit.training_loader, Checkpoints._save = training_loader, save  # type: ignore[method-assign]
    return made[-1], max(checkpoints)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--run", default="blendmask")
    parser.add_argument("--steps", type=int, default=20, help="of a turn, at most an epoch's")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    args = parser.parse_args()

    params = load(args.params)
    found = params.resolve(args.run)
    training = found.training.model_copy(update={"epochs": 1, "workers": 0})
    run = found.model_copy(update={"start": None, "params": found.params.model_copy(update={"training": training})})
    data = args.params.absolute().parent / "data"
    times: dict[str, list[list[float]]] = {"engine": [[], []], "bare": [[], []]}
    checkpoints = []
    for turn in range(args.turns):
        with TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "data").symlink_to(data)
            for name in ("engine", "bare") if turn % 2 else ("bare", "engine"):
                if name == "bare":
                    taken = bare(run, root, args.steps)
                else:
                    taken, seconds = engine(run, root, args.steps)
                    checkpoints.append(seconds)
                for clock in (0, 1):
                    times[name][clock] += taken.seconds(clock)
    step, cost = (
        statistics.median(times["bare"][0]),
        statistics.median(a - b for a, b in zip(times["engine"][0], times["bare"][0], strict=True)),
    )
    checkpoint = statistics.median(checkpoints)
    often = 60 * found.training.checkpoint_minutes
    result = {
        "run": args.run,
        "steps": len(times["bare"][0]),
        "bare_step": step,
        "engine_step": statistics.median(times["engine"][0]),
        "cost": cost,
        "cost_share": cost / step,
        "wall_bare_step": statistics.median(times["bare"][1]),
        "wall_engine_step": statistics.median(times["engine"][1]),
        "checkpoint": checkpoint,
        "checkpoint_share": checkpoint / often,
        "load": os.getloadavg()[0],
    }
    print(f"{args.run}: {result['steps']} steps each, load {result['load']:.1f}; processor time of a step:")
    print(f"  bare loop {1000 * step:.1f} ms, engine {1000 * result['engine_step']:.1f} ms")
    print(f"  the engine costs {1000 * cost:.2f} ms a step, {cost / step:.2%}")
    print(f"a checkpoint takes {checkpoint:.2f} s by the clock: every {often / 60:g} minutes, {checkpoint / often:.3%}")
    if args.output:
        args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
