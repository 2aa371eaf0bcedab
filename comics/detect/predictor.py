"""From a trained run to the detections of a whole split, as COCO results: the pipeline's step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from comics.data.loading.loaders import evaluation_loader
from comics.detectors.base import Prediction
from comics.detectors.results import batch_results
from comics.files import write_json
from comics.model import Comics
from comics.params import ResolvedRun
from comics.progress import Progress, silent, told
from comics.provenance import write_sidecar
from comics.training.checkpoint import load_weights, trained_on
from comics.training.devices import device, settle
from comics.training.hardware import autocast_dtype


class Predictor:
    """A trained run, ready to find faces.

    Args:
        run: the run whose ``model.pt`` is loaded.
        root: folder that holds ``results/``.

    Raises:
        UserError: no checkpoint, one of another description, or one whose training data has changed since.
    """

    def __init__(self, run: ResolvedRun, root: Path = Path()) -> None:
        self.run = run
        path = root / run.folder / "model.pt"
        self.data = trained_on(path, root / run.annotations("train"), run)
        settle()
        self.device = device()
        self.dtype = autocast_dtype(run.training.precision, self.device)
        model = Comics(run.from_checkpoint())
        model.load_state_dict(load_weights(path, run))
        self.model = model.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    @torch.inference_mode()
    def __call__(self, images: Tensor, sizes: list[tuple[int, int]]) -> list[Prediction]:
        """Detections of a batch.

        Args:
            images: (B, 3, H, W) RGB in [0, 1], padded on the right and below with zeros to multiples of 32 px.
            sizes: height and width of each image before padding.

        Returns:
            One `Prediction` an image; boxes and masks in the pixels of `sizes`.
        """
        images = images.to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.model.predict(images, sizes)


def predict_split(
    predictor: Predictor,
    split: str,
    output: Path,
    root: Path = Path(),
    progress: Progress = silent,
    test: str | None = None,
) -> int:
    """Write the detections of a run on `split` as a COCO results file with its sidecar.

    Args:
        predictor: the run.
        split: of its own dataset, or of the dataset `test`.
        output: the file.
        root: folder that holds ``data/``.
        progress: is told of batches.
        test: another dataset than the run's own.

    Returns:
        The number of detections.

    Raises:
        UserError: no dataset.
    """
    run = predictor.run
    loader = evaluation_loader(run, split, root, dataset=test)
    entries: list[dict[str, Any]] = []
    has_boxes = predictor.model.detector.predicts_boxes
    for batch in told(loader, len(loader), progress, f"{run.name} on {test or ''}{' ' if test else ''}{split}"):
        found = predictor(batch.images, batch.sizes)
        entries += batch_results(found, batch.sizes, batch.original_sizes, batch.image_ids, has_boxes)
    write_json(output, entries)
    write_sidecar(
        output,
        {
            "digest": run.digest,
            "run": run.name,
            "dataset": run.dataset_name,
            "split": split,
            "seed": run.seed,
            "data": predictor.data,
            **({} if test is None else {"test": test}),
        },
    )
    return len(entries)
