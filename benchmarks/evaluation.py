"""Seconds and memory of `comics evaluate` beside pycocotools, whole processes from file to file; then of more work.

    python benchmarks/evaluation.py [--images 5000] [--detections 100000] [--grow 9] [--repeat 3] [--verdicts]

pycocotools computes AP of boxes and masks; ours AP and oLRP of both, and checks its inputs; then with the verdicts,
too. Beside them hotcoco alone, the library below ours, with the files as they are: what it takes ours cannot save. They
run in turns, so that what else runs on the machine hits all; the ratios are of the medians. Then the same images are
repeated `--grow` times, with new ids, and ours runs once more, with `--verdicts` verdicts and all: time and memory should
grow no faster than the work.

The images have one to four faces of 16 to 300 px, as outlines; half of the detections lie near a face, half anywhere, as
run lengths.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

HEIGHT, WIDTH = 768, 1024
ANGLES = np.linspace(0, 2 * np.pi, 24, endpoint=False)

PYCOCOTOOLS = "from pycocotools.coco import COCO; from pycocotools.cocoeval import COCOeval"
HOTCOCO = "from hotcoco import COCO, COCOeval"
AVERAGE_PRECISION = """
import sys
truth = COCO(sys.argv[1])
found = truth.loadRes(sys.argv[2])
for kind in ("bbox", "segm"):
    evaluator = COCOeval(truth, found, kind)
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
"""
"""The same for both libraries."""


@dataclass(frozen=True)
class Cost:
    """Of a process."""

    seconds: float
    processor_seconds: float
    megabytes: float
    """Peak of the resident memory."""


def outline(box: list[float]) -> list[float]:
    """An ellipse in `box` (x, y, width, height) as a polygon."""
    x, y, width, height = box
    points = [x + width / 2 * (1 + np.cos(ANGLES)), y + height / 2 * (1 + np.sin(ANGLES))]
    return np.round(np.stack(points, axis=1).ravel(), 1).tolist()


def scenes(images: int, detections: int) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Faces and detections of one image after the other, without ids."""
    rng = np.random.default_rng(0)
    counts = np.diff(np.linspace(0, detections, images + 1).astype(int))
    for count in counts:
        faces = []
        for _ in range(rng.integers(1, 5)):
            side = float(np.exp(rng.uniform(np.log(16), np.log(300))))
            box = [float(rng.uniform(0, WIDTH - side)), float(rng.uniform(0, HEIGHT - 1.2 * side)), side, 1.2 * side]
            area = float(np.pi / 4 * box[2] * box[3])
            category = int(rng.integers(1, 3))
            faces.append(
                {"category_id": category, "bbox": box, "area": area, "iscrowd": 0, "segmentation": [outline(box)]}
            )
        found = []
        for index in range(count):
            face = faces[index % len(faces)]
            x, y, width, height = face["bbox"]
            if rng.random() < 0.5:
                dx, dy = rng.normal(0, 0.1, 2)
                wider, higher = np.exp(rng.normal(0, 0.1, 2))
                box = [x + width * dx, y + height * dy, width * wider, height * higher]
                score = rng.uniform(0.3, 1)
            else:
                box = [rng.uniform(0, WIDTH - width), rng.uniform(0, HEIGHT - height), width, height]
                score = rng.uniform(0, 0.6)
            box = [float(value) for value in box]
            mask = rle.merge(rle.frPyObjects([outline(box)], HEIGHT, WIDTH))
            category = face["category_id"] if rng.random() < 0.8 else 3 - face["category_id"]
            segmentation = {"size": [HEIGHT, WIDTH], "counts": mask["counts"].decode()}
            found.append({"category_id": category, "bbox": box, "score": float(score), "segmentation": segmentation})
        yield faces, found


def generate(folder: Path, images: int, detections: int, copies: int) -> tuple[Path, Path]:
    """Write ground truth and detections of `copies` times the same images below `folder`."""
    drawn = list(scenes(images, detections))
    truth, found = folder / f"truth_{copies}.json", folder / f"found_{copies}.json"
    total = images * copies
    entries = [{"id": i, "width": WIDTH, "height": HEIGHT, "file_name": f"{i}.jpg"} for i in range(1, total + 1)]
    annotations = []
    with found.open("w") as file:
        separator = "["
        for image in range(1, total + 1):
            faces, detected = drawn[(image - 1) % images]
            annotations += [{"id": len(annotations) + k, "image_id": image, **one} for k, one in enumerate(faces, 1)]
            for one in detected:
                file.write(separator + json.dumps({"image_id": image, **one}))
                separator = ","
        file.write("]")
    categories = [{"id": 1, "name": "Real"}, {"id": 2, "name": "Fake"}]
    truth.write_text(json.dumps({"images": entries, "annotations": annotations, "categories": categories}))
    return truth, found


def generated(*arguments: Any) -> tuple[Path, Path]:
    """`generate` in a process of its own: on Linux a child's peak memory begins at the size of who started it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        return apart.submit(generate, *arguments).result()


def cost(command: list[str]) -> Cost:
    """Run `command` to its end."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{command}: ended with {os.waitstatus_to_exitcode(status)}")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit)


def median(costs: list[Cost]) -> Cost:
    """Of each measure."""
    return Cost(
        *(
            statistics.median(getattr(one, name) for one in costs)
            for name in ("seconds", "processor_seconds", "megabytes")
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100_000)
    parser.add_argument("--grow", type=int, default=9, help="times the work, 1 for none")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--verdicts", action="store_true", help="also of the grown work")
    arguments = parser.parse_args()

    def ours(truth: Path, found: Path, verdicts: bool = False) -> list[str]:
        output = str(truth.with_suffix(".csv"))
        command = [sys.executable, "-m", "comics", "evaluate", str(truth), str(found), "--output", output]
        return command if verdicts else [*command, "--no-verdicts"]

    def row(name: str, one: Cost) -> None:
        print(
            f"{name:34s} {one.seconds:8.2f} s {one.processor_seconds:8.2f} s CPU {one.megabytes:8.0f} MiB", flush=True
        )

    with tempfile.TemporaryDirectory() as name:
        files = generated(Path(name), arguments.images, arguments.detections, 1)
        runs: tuple[list[Cost], list[Cost], list[Cost], list[Cost]] = ([], [], [], [])
        for _ in range(arguments.repeat):
            runs[0].append(cost([sys.executable, "-c", PYCOCOTOOLS + AVERAGE_PRECISION, *map(str, files)]))
            runs[1].append(cost([sys.executable, "-c", HOTCOCO + AVERAGE_PRECISION, *map(str, files)]))
            runs[2].append(cost(ours(*files)))
            runs[3].append(cost(ours(*files, verdicts=True)))
        theirs, library, own, judging = map(median, runs)
        row("pycocotools, AP", theirs)
        row("hotcoco, AP", library)
        row("ours, AP and oLRP", own)
        row("ours, with the verdicts", judging)
        times = theirs.seconds / own.seconds
        processor = theirs.processor_seconds / own.processor_seconds
        print(
            f"ours is {times:.1f} times faster ({processor:.1f} in CPU time), with {own.megabytes / theirs.megabytes:.2f} of the memory"
        )
        if arguments.grow > 1:
            more = generated(Path(name), arguments.images, arguments.detections, arguments.grow)
            grown, once = cost(ours(*more, verdicts=arguments.verdicts)), judging if arguments.verdicts else own
            row(f"ours, {arguments.grow} times the work", grown)
            seconds, memory = grown.processor_seconds / once.processor_seconds, grown.megabytes / once.megabytes
            print(f"{arguments.grow} times the work: {seconds:.1f} times the CPU time, {memory:.1f} times the memory")


if __name__ == "__main__":
    main()
