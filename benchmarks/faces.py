"""Time an image against the number of its faces: one phase is flat, two phases grow (the paper's first argument).

    python benchmarks/faces.py                         # BlendMask and the two-phase run of params.yaml, trained before
    python benchmarks/faces.py comics two_phase_dcl --faces 1 4 16 --output build/faces.pdf

A picture of the network's size shows N squares around faces of a test set, on grey. All runs look at it by turns in one process,
and the processor time (on a GPU: the time) of each is the median over the rounds. What counts is how many faces a run finds in it,
and so that is printed and drawn. Beside the figure, its numbers as CSV.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from comics.data.loading.batches import collate
from comics.data.loading.samples import Annotations, ForensicsDataset
from comics.detect.predictor import Predictor
from comics.detectors.base import crop_features
from comics.detectors.two_phase import one_a_face, squares
from comics.evaluation.scores import write_table
from comics.params import load
from comics.report.canvas import canvas, save

GREY, GAP = 0.5, 2


def face_squares(dataset: ForensicsDataset, count: int, side: int) -> torch.Tensor:
    """The first `count` faces of a split, (count, 3, side, side), each in the square around it; again from the first where it has
    fewer."""
    found: list[torch.Tensor] = []
    for row in range(len(dataset)):
        batch = collate([dataset[row]])
        if len(batch.targets[0]["boxes"]):
            found.append(crop_features(batch.images, [squares(batch.targets[0]["boxes"], 0.3)], side, 1.0, samples=0))
        if sum(map(len, found)) >= count:
            break
    faces = torch.cat(found)
    return faces[torch.arange(count) % len(faces)]


def mosaic(faces: torch.Tensor, size: tuple[int, int], most: int) -> torch.Tensor:
    """A picture (1, 3, height, width) of `faces`, in cells that `most` of them would fill."""
    height, width = size
    columns = math.ceil(math.sqrt(most * width / height))
    cell = faces.shape[-1] + GAP
    picture = torch.full((1, 3, height, width), GREY)
    for index, face in enumerate(faces):
        top, left = (index // columns) * cell, (index % columns) * cell
        picture[0, :, top : top + face.shape[-2], left : left + face.shape[-1]] = face
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", default=["blendmask", "two_phase"])
    parser.add_argument("--faces", type=int, nargs="+", default=[0, 1, 2, 4, 8, 12, 16])
    parser.add_argument("--split", default="test_dev")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--score", type=float, default=0.3, help="least score of a face that counts as found")
    parser.add_argument("--output", type=Path, default=Path("reports/figures/time_by_faces.pdf"))
    arguments = parser.parse_args()

    params = load()
    predictors = {name: Predictor(params.resolve(name)) for name in arguments.runs}
    first = next(iter(predictors.values()))
    training, most = first.run.training, max(arguments.faces)
    width = training.image_size // 32 * 32
    size = (width * 3 // 4 // 32 * 32, width)
    rows = math.ceil(most / math.ceil(math.sqrt(most * size[1] / size[0])))
    side = min(size[0] // rows, size[1] // math.ceil(most / rows)) - GAP
    dataset = ForensicsDataset(Annotations(first.run.annotations(arguments.split)), training)
    faces = face_squares(dataset, most, side)
    clock = time.perf_counter if first.device.type == "cuda" else time.process_time

    lines: list[list] = []
    slopes = {}
    for count in arguments.faces:
        picture = mosaic(faces[:count], size, most)
        taken: dict[str, list[float]] = {name: [] for name in predictors}
        found = {}
        for turn in range(arguments.rounds + 1):
            for name, predictor in predictors.items():
                start = clock()
                (prediction,) = predictor(picture, [size])
                if first.device.type == "cuda":
                    torch.cuda.synchronize()
                if turn:  # the first is for warming up
                    taken[name].append(clock() - start)
                kept = one_a_face(prediction, 0.5)
                found[name] = int((kept["scores"] >= arguments.score).sum())
        for name, times in taken.items():
            lines.append([name, count, found[name], 1000 * statistics.median(times)])
            print(f"{name:>16}: {count:3} faces, {found[name]:3} found, {lines[-1][3]:7.1f} ms")
    for name in predictors:
        own = [line for line in lines if line[0] == name]
        slopes[name] = np.polyfit([line[1] for line in own], [line[3] for line in own], 1)
        print(f"{name:>16}: {slopes[name][1]:.1f} ms, and {slopes[name][0]:.2f} ms a face")
    write_table(arguments.output.with_suffix(".csv"), ("run", "faces", "found", "milliseconds"), lines)
    with canvas(3.5, 2.4, 7.5) as drawing:
        ax = drawing.subplots()
        for (name, predictor), marker in zip(predictors.items(), "os^Dvx*", strict=False):
            own = [line for line in lines if line[0] == name]
            label = f"{predictor.run.params.title or name}: {slopes[name][0]:+.2f} ms a face"
            ax.plot([line[1] for line in own], [line[3] for line in own], marker=marker, label=label)
        ax.set_xlabel("faces in the image")
        ax.set_ylabel("ms an image")
        ax.set_ylim(bottom=0)
        ax.legend(frameon=False)
        digests = {f"{name} seed {one.run.seed}": one.run.digest for name, one in predictors.items()}
        for path in save(drawing, arguments.output, "Time an image against the number of its faces", digests):
            print(path)


if __name__ == "__main__":
    main()
