"""The model as Lightning trains it: losses, optimiser, schedule."""

from __future__ import annotations

import math
from bisect import bisect_right
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from torch import nn

from comics.data.loading.batches import Batch
from comics.detectors.backbone.layers import is_norm
from comics.errors import UserError
from comics.gradients import gradient_norms
from comics.model import Comics, LossTerms
from comics.params import ResolvedRun, TrainingParams
from comics.ranks import gather_objects, mean_over_ranks, world
from comics.training.average import WeightAverage
from comics.training.finite import LossWatch, broken_gradients, broken_terms, gradient_norm, save_for_inspection
from comics.training.messages import warn
from comics.weights.finite import some

LOG_EVERY = 10
"""Steps from one whose values are logged to the next."""


def learning_rate_factor(step: int, steps_per_epoch: int, training: TrainingParams) -> float:
    """Factor on the base learning rate at optimiser step `step`: linear warm-up times the drops at the milestones.

    Milestones are epochs and may be fractions of one.
    """
    warmup = 1.0
    if step < training.warmup_iterations:
        done = step / training.warmup_iterations
        warmup = training.warmup_factor * (1 - done) + done
    drops = bisect_right(sorted(training.milestones), step / steps_per_epoch)
    return warmup * training.gamma**drops


def parameter_groups(model: nn.Module, training: TrainingParams, body: nn.Module | None = None) -> list[dict[str, Any]]:
    """Trainable parameters in groups of one learning rate and one weight decay each.

    Those of normalisation layers are not decayed (detectron2's default), nor what `body` spares. The parameters of `body`,
    the backbone, have `backbone_lr` times the learning rate, and `layer_decay` times that of the block above them.
    """
    spared = {
        id(parameter) for module in model.modules() if is_norm(module) for parameter in module.parameters(recurse=False)
    }
    factors: dict[int, float] = {}
    if body is not None:
        named = dict(body.named_parameters())
        spared |= {id(named[name]) for name in body.undecayed() if name in named}  # type: ignore[operator]
        factors = dict.fromkeys(map(id, named.values()), training.backbone_lr)
        if training.layer_decay != 1:
            depths = body.depths()  # type: ignore[operator]
            top = max(depths.values())
            factors = {
                id(named[name]): training.backbone_lr * training.layer_decay ** (top - depth)
                for name, depth in depths.items()
            }
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {(1.0, False): [], (1.0, True): []}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault((factors.get(id(parameter), 1.0), id(parameter) in spared), []).append(parameter)
    return [
        {"params": members, "lr": training.lr * factor, "weight_decay": 0.0 if norm else training.weight_decay}
        for (factor, norm), members in groups.items()
        if members
    ]


def seed_step(seed: int, step: int, part: int = 0, rank: int = 0) -> None:
    """Begin the random numbers of a step, of its `part` where gradients are accumulated, on `rank`."""
    key = np.random.SeedSequence((seed, step, part, rank))
    torch.manual_seed(int(key.generate_state(1, np.uint64)[0] >> np.uint64(1)))


class TrainingModule(lightning.LightningModule):
    """A `Comics` model, SGD, and the paper's step schedule with warm-up.

    Args:
        run: what to train.
        steps_per_epoch: optimiser steps an epoch, which turns milestones into steps.
        folder: the run's own; a batch that goes wrong is saved below it.
        precision: what the run computes in, for checkpoints.

    Attributes:
        loss: of the last batch.
        average: of the weights, which is kept in their place; None where there is none.
    """

    def __init__(
        self,
        run: ResolvedRun,
        steps_per_epoch: int,
        folder: Path = Path(),
        precision: str = "float32",
    ) -> None:
        super().__init__()
        self.run = run
        self.folder, self.precision_name = folder, precision
        self.watch = LossWatch()
        self.loss = math.nan
        self._last: tuple[Batch, LossTerms] | None = None
        self.steps_per_epoch = steps_per_epoch
        self.model = Comics(run).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = WeightAverage(self.model, run.training.ema) if run.training.ema else None

    def as_kept(self) -> AbstractContextManager[None]:
        """While the block runs, the model has the weights that are evaluated and kept: the average, where there is one."""
        return nullcontext() if self.average is None else self.average.applied()

    def configure_optimizers(self) -> Any:
        training = self.run.training
        body = getattr(self.model.detector.extractor, "body", None)  # a detector of one's own may have none
        groups = parameter_groups(self.model, training, body if hasattr(body, "depths") else None)
        optimizer: torch.optim.Optimizer
        if training.optimizer == "adamw":
            optimizer = torch.optim.AdamW(groups, lr=training.lr, betas=(training.momentum, 0.999), fused=True)
        else:
            optimizer = torch.optim.SGD(groups, lr=training.lr, momentum=training.momentum, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, self.steps_per_epoch, training)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch.to(device)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """What a step draws follows from seed, step and rank alone, wherever a training was interrupted."""
        part = batch_idx % self.trainer.accumulate_grad_batches
        seed_step(self.run.seed, self.global_step, part, self.global_rank)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        self.model.done = self.global_step / max(1, self.steps_per_epoch * self.run.training.epochs)
        losses = self.model.losses(batch)
        every = self.run.training.gradient_norms_every
        if every and self.model.contrasts and (self.global_step + 1) % every == 0:
            losses.logged.update(gradient_norms(losses.terms, self.model.detector.extractor))
        total = losses.total
        size = len(batch.targets)
        values = {name: value.detach() for name, value in {"loss": total, **losses.terms, **losses.logged}.items()}
        if world() > 1:  # what is logged, and judged, is the whole batch's
            means = mean_over_ranks(torch.stack([value.float() for value in values.values()]))
            values = dict(zip(values, means, strict=True))
        if self._is_logged():
            self.log_dict({f"train/{name}": value for name, value in values.items()}, batch_size=size)
        self._last = batch, LossTerms({name: values[name] for name in losses.terms}, losses.logged)
        return total

    def _is_logged(self) -> bool:
        """Whether Lightning writes the values of this step. It drops those of the others, at half a millisecond a name."""
        return (self.global_step + 1) % LOG_EVERY == 0

    def terms(self) -> dict[str, float]:
        """The weighted terms of the last batch's loss."""
        return {} if self._last is None else {name: float(value) for name, value in self._last[1].terms.items()}

    def on_after_backward(self) -> None:
        """One wait for the device a batch, when all of it has been asked for: what comes back decides whether the step is
        taken."""
        assert self._last is not None
        batch, losses = self._last
        self.loss = float(losses.total)
        if not math.isfinite(self.loss):
            self._refuse("the loss", broken_terms(losses), batch, losses)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        assert self._last is not None
        batch, losses = self._last
        self._norm = gradient_norm(self.model.parameters())
        norm = float(self._norm)
        if not math.isfinite(norm):
            self._refuse("the gradient", broken_gradients(self.model), batch, losses)
        if self._is_logged():
            self.log_dict({"train/lr": optimizer.param_groups[0]["lr"], "train/gradient_norm": norm})
        if spike := self.watch.take(self.loss):
            terms = ", ".join(f"{name} {float(value):.3g}" for name, value in losses.terms.items())
            warn(
                f"{self.run.folder}: step {self.global_step}: the loss is {spike.loss:.3g}, about {spike.usual:.3g} before "
                f"({terms}; images {', '.join(map(str, batch.image_ids))})"
            )

    def _refuse(self, what: str, names: list[str], batch: Batch, losses: LossTerms) -> None:
        """End the training before the optimiser's step."""
        suffix = f"-rank{self.global_rank}" if self.global_rank else ""
        path = self.folder / "not_finite" / f"step-{self.global_step:08}{suffix}.pt"
        save_for_inspection(path, batch, losses)
        image_ids = [str(one) for ids in gather_objects(list(batch.image_ids)) for one in ids]
        terms = ", ".join(f"{name} {float(value):.3g}" for name, value in losses.terms.items())
        raise UserError(
            f"{self.run.folder}: {what} is not finite at step {self.global_step}: {some(names)} (terms: {terms}; image ids "
            f"{', '.join(image_ids)}). The step was not taken; the batch is in {path}.",
            f"Lower training.lr of run '{self.run.name}' in params.yaml, or set training.clip_gradient_norm; with the "
            "same settings the same command comes to the same step again.",
        )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.model.after_step()
        if self.average is not None:
            self.average.update()

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip directly: Lightning refuses it for fused optimisers, which is about scaled gradients, of which there are none
        in bf16 and float32. The norm is known already."""
        if gradient_clip_val:
            torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), gradient_clip_val, self._norm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["comics_precision"] = self.precision_name
        checkpoint["comics_watch"] = self.watch.state()
        if self.average is not None:
            checkpoint["comics_average"] = self.average.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.watch.load(checkpoint["comics_watch"])
        if self.average is not None:
            self.average.load(checkpoint["comics_average"])
