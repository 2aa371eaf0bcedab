"""Gradients of a batch in parts are the mean of the parts', all compared with the queues as they were before."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as lightning
import torch
from detector_scenes import confident
from test_training_ranks import PARAMS, batch, close
from torch.utils.data import DataLoader

from comics.model import Comics
from comics.params import ResolvedRun, load
from comics.training.module import TrainingModule, seed_step

PARTS = [range(2), range(2, 4)]


class Kept(lightning.Callback):
    """The gradients that the optimiser is about to use."""

    def on_before_optimizer_step(self, trainer: object, pl_module: TrainingModule, optimizer: object) -> None:
        self.gradients = {
            name: one.grad.clone() for name, one in pl_module.model.named_parameters() if one.grad is not None
        }


def whole(run: ResolvedRun, module: TrainingModule | None = None) -> Comics:
    """A model that is the same at each call, into `module` if there is one."""
    torch.manual_seed(0)
    model = Comics(run).train()
    confident(model.detector)
    if module is not None:
        module.model.load_state_dict(model.state_dict())
    return model


@pytest.mark.parametrize("detector", ["blendmask", "mask_rcnn"])
def test_gradients_of_parts_are_averaged(tmp_path: Path, detector: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(PARAMS.format(detector=detector, extra=", training: {accumulate: 2, clip_gradient_norm: 0}"))
    run = load(file).resolve("one")
    module, kept = TrainingModule(run, 1, tmp_path), Kept()
    model = whole(run, module)
    module.train()
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        accumulate_grad_batches=run.training.accumulate,
        callbacks=[kept],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, DataLoader([batch(rows, 1) for rows in PARTS], batch_size=None))
    assert trainer.global_step == 1

    sums = {name: torch.zeros_like(one) for name, one in model.named_parameters() if one.requires_grad}
    for part, rows in enumerate(PARTS):
        seed_step(run.seed, 0, part)
        model.zero_grad()
        losses = model.losses(batch(rows, 1))
        assert not any(one.any() for name, one in model.named_buffers() if name.endswith("memory.queue"))
        losses.total.backward()
        for name, one in model.named_parameters():
            if one.grad is not None:
                sums[name] += one.grad / len(PARTS)
    assert {name for name, one in sums.items() if one.any()} <= kept.gradients.keys()
    close({name: sums[name] for name in kept.gradients}, kept.gradients, 1e-3)  # sums of float32
    model.after_step()
    queues = {name: one for name, one in model.named_buffers() if name.endswith("memory.queue")}
    assert any(one.any() for one in queues.values())
    ours = dict(module.model.named_buffers())
    close({name: ours[name] for name in queues}, queues)
