"""A tiny model that finds a lot, as a run's file, for the tests of detection on one's own pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from detector_scenes import TINY, confident
from PIL import Image

from comics.evaluation.calibration import Calibration, Reliability
from comics.files import write_json
from comics.model import Comics
from comics.params import InferenceParams, ModelParams, ResolvedRun, RunParams, TrainingParams
from comics.params.datasets import Dataset, MiniDataset, OpenForensicsDataset
from comics.training.checkpoint import save_weights

SIDE = 128
"""Longest side that the model takes, in px."""


def run_of(
    dataset: Dataset | None = None,
    detector: str = "blendmask",
    model: ModelParams = TINY,
    image_size: int = SIDE,
    **inference,
) -> ResolvedRun:
    return ResolvedRun(
        name="tiny",
        place="tiny",
        seed=0,
        dataset_name="openforensics" if isinstance(dataset, OpenForensicsDataset) else "mini",
        dataset=dataset or MiniDataset(),
        params=RunParams(
            detector=detector,
            model=model,
            training=TrainingParams(image_size=image_size, precision="fp32"),
            inference=InferenceParams(**{"max_detections": 12, **inference}),
        ),
    )


def write_model(folder: Path, run: ResolvedRun | None = None) -> Path:
    """``model.pt`` and ``run.json`` of a run whose detector is `confident`."""
    run = run or run_of()
    torch.manual_seed(0)
    model = Comics(run)
    confident(model.detector)
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / "model.pt", model, run)
    write_json(folder / "run.json", {"run": run.name, "checkpoint_digest": run.checkpoint_digest})
    return folder / "model.pt"


def calibration(digest: str = "", **changes) -> Calibration:
    none = Reliability([None] * 10, [None] * 10, [0] * 10, 0.0, 0.0)
    made = Calibration(
        temperature=2.0,
        bias=0.5,
        score=0.2,
        thresholds={"eer": 0.5, "fpr1": 0.9, "fpr5": 0.8, "olrp": 0.4},
        overlap=0.5,
        floor=0.05,
        split="val",
        images=4,
        real=3,
        fake=5,
        before=none,
        after=none,
        digest=digest,
    )
    return dataclasses.replace(made, **changes)


def picture(width: int = 96, height: int = 64, seed: int = 0) -> Image.Image:
    """Coloured noise in blocks: something for a detector of random weights to be excited about."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, 256, (3, -(-height // 8), -(-width // 8)), generator=generator, dtype=torch.uint8)
    pixels = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :height, :width]
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
