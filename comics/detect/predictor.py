"""From a trained run to the detections of a whole split, as COCO results: the pipeline's step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as rle
from torch import Tensor
from torch.nn.functional import interpolate

from comics.classes import category_id
from comics.data.loading.batches import evaluation_loader
from comics.detectors.base import Prediction
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


def to_original(prediction: Prediction, size: tuple[int, int], original: tuple[int, int]) -> Prediction:
    """`prediction` made at `size` (height, width), in the pixels of the `original` size."""
    if size == original:
        return prediction
    scale = torch.tensor([original[1] / size[1], original[0] / size[0]], device=prediction["boxes"].device)
    masks = prediction["masks"]
    if len(masks):
        masks = interpolate(masks[:, None].float(), size=original, mode="bilinear", align_corners=False)[:, 0] >= 0.5
    else:
        masks = masks.new_zeros((0, *original))
    return {**prediction, "boxes": prediction["boxes"] * scale.repeat(2), "masks": masks}


def coco_results(prediction: Prediction, image_id: int, boxes: bool = True) -> list[dict[str, Any]]:
    """`prediction` as entries of a COCO results file.

    Args:
        prediction: in the pixels of the original image.
        image_id: the image's id.
        boxes: whether the detector predicts boxes; without, entries have a segmentation only.
    """
    masks = prediction["masks"].to(torch.uint8).cpu().numpy()
    codes = rle.encode(np.asfortranarray(masks.transpose(1, 2, 0))) if len(masks) else []
    corners = prediction["boxes"].double().cpu().numpy()
    entries = []
    mask_scores = prediction["mask_scores"].tolist() if "mask_scores" in prediction else None
    for index, (score, label) in enumerate(
        zip(prediction["scores"].tolist(), prediction["labels"].tolist(), strict=True)
    ):
        x1, y1, x2, y2 = corners[index].tolist()
        entry: dict[str, Any] = {"image_id": image_id, "category_id": category_id(label), "score": score}
        if mask_scores is not None:
            entry["score_mask"] = mask_scores[index]
        if boxes:
            entry["bbox"] = [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)]
        entry["segmentation"] = {"size": list(codes[index]["size"]), "counts": codes[index]["counts"].decode()}
        entries.append(entry)
    return entries


def predict_split(
    predictor: Predictor,
    split: str,
    output: Path,
    root: Path = Path(),
    progress: Progress = silent,
) -> int:
    """Write the detections of a run on `split` as a COCO results file with its sidecar.

    Returns:
        The number of detections.

    Raises:
        UserError: no dataset.
    """
    run = predictor.run
    loader = evaluation_loader(run, split, root)
    entries: list[dict[str, Any]] = []
    has_boxes = predictor.model.detector.predicts_boxes
    for batch in told(loader, len(loader), progress, f"{run.name} on {split}"):
        for prediction, size, original, image_id in zip(
            predictor(batch.images, batch.sizes), batch.sizes, batch.original_sizes, batch.image_ids, strict=True
        ):
            entries += coco_results(to_original(prediction, tuple(size), tuple(original)), image_id, has_boxes)
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
        },
    )
    return len(entries)
