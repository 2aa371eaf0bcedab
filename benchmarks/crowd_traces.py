"""What each trace of crowd's forgeries tells by itself: hand-made statistics of each, and a logistic regression on them.

    python benchmarks/crowd_traces.py data/crowd [--seed 0]

Each face of train and val is described by statistics made for one trace: inside of the face against its rim, and of the picture
around it. A logistic regression on one trace's statistics (and their magnitudes and squares), and one on all of them, is fitted
to train and val and scored on test_dev: area under the ROC curve with the 95 % interval of 1,000 resamplings of images. Needs
scikit-learn (in the extra `dev`).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

RADII = (0.35, 0.5, 0.65, 0.8, 0.95)


def _distance(box: list[float], shape: tuple[int, int]) -> np.ndarray:
    """Elliptic distance (H, W) from a face's centre: 1 on the ellipse that its box encloses."""
    x, y, width, height = box
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    return np.hypot((columns - x - width / 2) / (width / 2), (rows - y - height / 2) / (height / 2))


def _log_ratio(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.log((np.mean(a) + 1e-3) / (np.mean(b) + 1e-3))) if len(a) and len(b) else 0.0


def statistics(pixels: np.ndarray, mask: np.ndarray, box: list[float]) -> dict[str, list[float]]:
    """Statistics of one face for each trace: pixels (H, W, 3) in [0, 255], mask (H, W), box x, y, width, height."""
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    distance = _distance(box, mask.shape)
    inner, rim = mask & (distance < 0.6), mask & (distance > 0.75)
    around = ~mask & (distance < 1.6)
    slope_y, slope_x = np.gradient(luma)
    gradient = np.hypot(slope_y, slope_x)
    fine = np.abs(luma[1:-1, 1:-1] * 4 - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:])
    fine = np.pad(fine, 1)
    checker = np.abs(luma[:-1, :-1] - luma[1:, :-1] - luma[:-1, 1:] + luma[1:, 1:])  # of images mostly their noise
    checker = np.pad(checker, ((0, 1), (0, 1)))
    flat = gradient < np.quantile(gradient[mask], 0.5)

    colour = [_log_ratio(pixels[inner, k], pixels[rim, k]) for k in range(3)]
    colour += [
        _log_ratio(pixels[inner, k], pixels[inner].mean(1)) - _log_ratio(pixels[rim, k], pixels[rim].mean(1))
        for k in (0, 2)
    ]
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]]
    left = columns < box[0] + box[2] / 2
    top = rows < box[1] + box[3] / 2
    colour += [_log_ratio(luma[inner & side], luma[inner & ~side]) for side in (left, top)]

    resampling = [
        _log_ratio(fine[inner], gradient[inner]) - _log_ratio(fine[rest], gradient[rest]) for rest in (rim, around)
    ]
    resampling += [_log_ratio(fine[inner], fine[rest]) for rest in (rim, around)]
    noise = [_log_ratio(checker[inner & flat], checker[rest & flat]) for rest in (rim, around)]
    noise += [_log_ratio(checker[inner & flat], checker[inner])]

    # the largest step along any ellipse, beside the usual one
    steps = []
    for radius in RADII:
        ring = mask & (np.abs(distance - radius) < 0.05)
        sides = [mask & (np.abs(distance - radius - offset) < 0.05) for offset in (-0.12, 0.12)]
        if ring.any() and all(side.any() for side in sides):
            steps.append(abs(luma[ring].mean() - np.mean([luma[side].mean() for side in sides])))
    edge = mask & (distance > 0.85)
    boundary = [max(steps, default=0.0), float(np.mean(steps)) if steps else 0.0, _log_ratio(luma[edge], luma[rim])]

    compression = []
    for axis in (0, 1):
        step = np.abs(np.diff(luma, n=1, axis=axis))
        inside = (inner[1:] & inner[:-1]) if axis == 0 else (inner[:, 1:] & inner[:, :-1])
        index = np.broadcast_to(np.arange(step.shape[axis]).reshape((-1, 1) if axis == 0 else (1, -1)), step.shape)
        phases = [
            step[inside & (index % 8 == phase)].mean() if (inside & (index % 8 == phase)).any() else 0.0
            for phase in range(8)
        ]
        middle = float(np.median(phases)) + 1e-2
        compression += [max(phases) / middle, float(np.log(middle))]
    chroma = np.abs(np.diff(pixels[..., 0] - pixels[..., 2], axis=1, append=0))
    compression.append(_log_ratio(chroma[inner], chroma[rim]))
    return {
        "resampling": resampling,
        "noise": noise,
        "boundary": boundary,
        "compression": compression,
        "colour": colour,
    }


def read(folder: Path, split: str) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Statistics by trace (N, n), whether fake (N,), and the image (N,) of all faces of a split."""
    content = json.loads((folder / split / "annotations.json").read_text())
    images = {image["id"]: image for image in content["images"]}
    rows: dict[str, list[list[float]]] = {}
    for face in content["annotations"]:
        image = images[face["image_id"]]
        pixels = np.asarray(Image.open(folder / split / image["file_name"]).convert("RGB"), dtype=float)
        runs = coco_mask.merge(coco_mask.frPyObjects(face["segmentation"], image["height"], image["width"]))
        for name, values in statistics(pixels, coco_mask.decode(runs).astype(bool), face["bbox"]).items():
            rows.setdefault(name, []).append(values)
    fake = np.array([face["category_id"] == 2 for face in content["annotations"]])
    return (
        {name: np.array(values) for name, values in rows.items()},
        fake,
        np.array([f["image_id"] for f in content["annotations"]]),
    )


def widen(values: np.ndarray) -> np.ndarray:
    """Statistics with their magnitudes and squares: a trace may go either way."""
    return np.hstack([values, np.abs(values), values**2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    parts = [read(options.folder, split) for split in ("train", "val")]
    train = {name: np.vstack([part[0][name] for part in parts]) for name in parts[0][0]}
    train_fake = np.concatenate([part[1] for part in parts])
    test, fake, image = read(options.folder, "test_dev")
    rng = np.random.default_rng(options.seed)
    print("| statistics of | AUC on test_dev | 95 % |\n| --- | --- | --- |")
    for name in [*train, "all"]:
        chosen = list(train) if name == "all" else [name]
        model = make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=8, cv=5, max_iter=5000, scoring="roc_auc"))
        model.fit(widen(np.hstack([train[key] for key in chosen])), train_fake)
        score = model.decision_function(widen(np.hstack([test[key] for key in chosen])))
        names = np.unique(image)
        members = {key: np.flatnonzero(image == key) for key in names}
        spread = []
        for _ in range(1000):
            picked = np.concatenate([members[key] for key in rng.choice(names, len(names))])
            if 0 < fake[picked].sum() < len(picked):
                spread.append(roc_auc_score(fake[picked], score[picked]))
        low, high = np.quantile(spread, [0.025, 0.975])
        print(f"| {name} | {roc_auc_score(fake, score):.2f} | {low:.2f} to {high:.2f} |")


if __name__ == "__main__":
    main()
