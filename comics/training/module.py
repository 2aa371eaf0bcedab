"""The model as Lightning trains it: losses, optimiser, schedule."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import pytorch_lightning as lightning
import torch
from torch import nn

from comics.data.loading.batches import Batch
from comics.detectors.backbone.layers import is_norm
from comics.errors import UserError
from comics.model import Comics
from comics.params import ResolvedRun, TrainingParams

FINITE_CHECK_STEPS = 20
"""A check waits for the device, so it is not made at every step."""


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


class TrainingModule(lightning.LightningModule):
    """A `Comics` model, SGD, and the paper's step schedule with warm-up.

    Args:
        run: what to train.
        steps_per_epoch: optimiser steps an epoch, which turns milestones into steps.
    """

    def __init__(self, run: ResolvedRun, steps_per_epoch: int) -> None:
        super().__init__()
        self.run = run
        self.steps_per_epoch = steps_per_epoch
        self.model = Comics(run).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

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

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        losses = self.model.losses(batch)
        if batch_idx % FINITE_CHECK_STEPS == 0 and not torch.isfinite(losses.total):
            terms = ", ".join(f"{name} {float(value):.3g}" for name, value in losses.terms.items())
            raise UserError(
                f"{self.run.folder}: the loss is no longer finite at step {self.global_step} ({terms}).",
                f"Lower training.lr of run '{self.run.name}' in params.yaml, or set training.clip_gradient_norm.",
            )
        size = len(batch.targets)
        values = {"loss": losses.total, **losses.terms, **losses.logged}
        self.log_dict({f"train/{name}": value.detach() for name, value in values.items()}, batch_size=size)
        return losses.total

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.model.after_step()

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip directly: Lightning refuses it for fused optimisers, which is about scaled gradients, of which there are none
        in bf16 and float32."""
        if gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), gradient_clip_val)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            self.log("train/lr", group["lr"])
            break

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["comics_digest"] = self.run.checkpoint_digest
