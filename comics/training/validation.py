"""Scores on the validation split while a run is trained: logged, the best epoch kept, the training stopped when they no longer rise."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as lightning
import torch

from comics.data.loading.loaders import SizeBatches, evaluation_loader
from comics.detectors.results import batch_results
from comics.errors import UserError
from comics.evaluation import TASKS, GroundTruth, match_tasks, read_detections, read_ground_truth, score
from comics.evaluation.inputs import ALL
from comics.evaluation.scores import tasks_of
from comics.params import ResolvedRun
from comics.ranks import gather_objects
from comics.training.checkpoints import Checkpoints
from comics.training.messages import warn
from comics.training.module import TrainingModule

METRICS = ("AP", "oLRP")


class Validation(lightning.Callback):
    """Validates at the end of every so many epochs, and of the last.

    The epoch's checkpoint is written first and says that a validation is due: whatever ends the process meanwhile, the training
    goes on with the validation. What was found, and the weights of the best epoch, are in the next checkpoint.

    Args:
        run: whose `training.validation` it is.
        root: of the project.
        checkpoints: asked between two batches whether to stop.

    Attributes:
        history: (epochs done, steps done, name of a score -> value) of each validation.
        best: epochs done, value of the metric, and weights where those of the best epoch are kept; empty before the first.
    """

    def __init__(self, run: ResolvedRun, root: Path, checkpoints: Checkpoints) -> None:
        self.run, self.root, self.checkpoints = run, root, checkpoints
        self.settings = run.training.validation
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {}
        self.due = False
        self._truth: GroundTruth | None = None

    # -------------------------------------------------------------------------------------------------- when

    def is_due(self, epochs: int) -> bool:
        """Whether a validation follows the epoch that is the `epochs`-th."""
        return epochs % self.settings.every == 0 or epochs == self.run.training.epochs

    def state_dict(self) -> dict[str, Any]:
        return {"due": self.due, "history": self.history, "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.due, self.history, self.best = state_dict["due"], list(state_dict["history"]), dict(state_dict["best"])

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch:  # before the checkpoint of the epoch's end, which is to tell it
            self.due = self.is_due(trainer.current_epoch + 1)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.catch_up(trainer, pl_module)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.catch_up(trainer, pl_module)

    def catch_up(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Validate if it is due, and end the training where it is to end.

        Raises:
            Interrupted: a signal asked for it; the checkpoint says that the validation is due.
        """
        if not self.due:
            return
        assert isinstance(pl_module, TrainingModule)
        epochs = pl_module.global_step // pl_module.steps_per_epoch
        with pl_module.as_kept():
            scores = self.scores(trainer, pl_module)
            self._take(epochs, pl_module, scores)
        self.due = False
        for logger in trainer.loggers:
            logger.log_metrics({f"val/{name}": value for name, value in scores.items()}, pl_module.global_step)
        told = ", ".join(f"{name} {100 * value:.1f}" for name, value in scores.items())
        warn(f"{self.run.folder}: epoch {epochs}, validation: {told or 'nothing is defined'} (percent)")
        if self.is_over:
            if epochs < self.run.training.epochs:
                warn(f"{self.run.folder}: stops after epoch {epochs}: no better one since epoch {self.best['epochs']}")
            trainer.should_stop = True

    # -------------------------------------------------------------------------------------------------- what

    def scores(self, trainer: lightning.Trainer, module: TrainingModule) -> dict[str, float]:
        """AP and oLRP of boxes and masks, means over the classes, as fractions; the same on all ranks. Undefined ones are left out.

        What the training goes on with is as it was: modes of layers, statistics, and random states, which each step sets anew.
        """
        model = module.model
        modes = [(part, part.training) for part in model.modules()]
        loader = evaluation_loader(
            self.run, "val", self.root, trainer.world_size, trainer.global_rank, within_training=True
        )
        entries: list[dict[str, Any]] = []
        dtype = getattr(torch, module.precision_name)
        batches = iter(loader)
        try:
            model.eval()
            # as often on every rank: they ask each other whether to stop
            for _ in range(cast(SizeBatches, loader.batch_sampler).rounds):
                self.checkpoints.stop_if_asked(trainer, module)
                batch = next(batches, None)
                if batch is None:
                    continue
                batch = batch.to(module.device)
                images = batch.images.contiguous(memory_format=torch.channels_last)
                # not inference_mode: what layers remember of it could not be trained on
                with torch.no_grad(), torch.autocast(module.device.type, dtype, enabled=dtype != torch.float32):
                    found = model.predict(images, batch.sizes)
                entries += batch_results(
                    found, batch.sizes, batch.original_sizes, batch.image_ids, model.detector.predicts_boxes
                )
            self.checkpoints.stop_if_asked(trainer, module)
        finally:
            for part, mode in modes:
                part.training = mode
        everyones = [entry for part in gather_objects(entries) for entry in part]
        mine = self._score(everyones) if trainer.global_rank == 0 else {}
        first: dict[str, float] = gather_objects(mine)[0]
        return first

    def _score(self, entries: list[dict[str, Any]]) -> dict[str, float]:
        if self._truth is None:
            self._truth = read_ground_truth(self.root / self.run.annotations("val"))
        entries.sort(key=lambda entry: (entry["image_id"], -entry["score"]))  # whatever ranks there are
        found = read_detections(entries, self._truth)
        scores = score(self._truth, match_tasks(self._truth, found, tasks_of(self._truth, found)))
        values = {f"{task}_{metric}": scores[task, ALL, metric] for task in TASKS for metric in METRICS}
        return {name: float(value) for name, value in values.items() if not math.isnan(value)}

    def _take(self, epochs: int, module: TrainingModule, scores: dict[str, float]) -> None:
        self.history.append({"epochs": epochs, "steps": module.global_step, "scores": scores})
        value = scores.get(self.settings.metric)
        if value is None:
            return
        rises = self.settings.metric.endswith("AP")
        if not self.best or (value > self.best["value"] if rises else value < self.best["value"]):
            self.best = {"epochs": epochs, "value": value}
            if self.settings.keep == "best":
                self.best["weights"] = {
                    name: tensor.detach().cpu().clone() for name, tensor in module.model.state_dict().items()
                }

    @property
    def is_over(self) -> bool:
        """Whether there were `patience` validations since the best one."""
        since = [one for one in self.history if self.best and one["epochs"] > self.best["epochs"]]
        return 0 < self.settings.patience <= len(since)

    def report(self) -> dict[str, Any]:
        """For run.json."""
        best = {key: value for key, value in self.best.items() if key != "weights"}
        kept = self.best["epochs"] if "weights" in self.best else None
        return {**self.settings.model_dump(), "history": self.history, "best": best or None, "kept_epoch": kept}


def require_boxes(run: ResolvedRun, predicts_boxes: bool) -> None:
    """Refuse to choose by boxes what finds none.

    Raises:
        UserError: names the field and what to write.
    """
    metric = run.training.validation.metric
    if run.training.validation.every and metric.startswith("detection") and not predicts_boxes:
        raise UserError(
            f"training.validation.metric: '{metric}' is of boxes, and the detector of run '{run.name}' finds none.",
            f"Write `metric: segmentation_{metric.rpartition('_')[2]}`.",
        )
