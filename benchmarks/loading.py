"""Images a second on one core, and memory by number of workers, of the loader beside the obvious one.

    python benchmarks/loading.py [--size 1024] [--images 12] [--turns 3] [--workers 0 1 2 4] [--faces 150000]
                                 [--output FILE.json]

Speed: photographs larger than the training size, with polygons, in two settings. `evaluation` decodes, shrinks to the
longest side and rasterises; `training` also rotates, crops and flips. The plain loader does the same as one would write it with
PIL and torchvision: decode, masks at full size, `torchvision.transforms.v2` on image and masks. `training + views` is ours with
the two photometric views, which the plain loader has no counterpart of. The loaders take turns on one thread, and a ratio is
the median over the turns, of processor time, so that what else runs on the machine hits both alike.

Memory: a dataset with as many faces as OpenForensics' training split, whose annotations every worker reads in random order, held
as the flat arrays of `comics.data.loading.samples.Annotations` or as the dictionaries of the JSON file. Shown is the proportional set
size (PSS) of all processes together, in which a shared page counts once (Linux only).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from pycocotools import mask as rle
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from comics.data.loading.samples import Annotations, ForensicsDataset
from comics.params import TrainingParams, ViewsParams

FACES_AN_IMAGE = 4  # OpenForensics has 3.4
POINTS = 60  # of a polygon


def _polygon(rng: np.random.Generator, width: int, height: int) -> list[float]:
    radius = rng.uniform(0.04, 0.14) * height
    x, y = rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)
    angles = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    ring = np.stack([x + 0.8 * radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)
    return [round(float(value), 2) for value in ring.ravel()]


def write_dataset(folder: Path, images: int, width: int, height: int, pictures: bool = True) -> Path:
    """A canonical COCO file, with or without its photographs: smooth colours and noise, JPEG of quality 90."""
    rng = np.random.default_rng(0)
    entries, faces = [], []
    for index in range(images):
        name = f"{index}.jpg"
        entries.append({"id": index + 1, "file_name": name, "width": width, "height": height})
        for _ in range(FACES_AN_IMAGE):
            ring = _polygon(rng, width, height)
            face = {"id": len(faces) + 1, "image_id": index + 1, "category_id": 1 + len(faces) % 2, "iscrowd": 0}
            faces.append({**face, "segmentation": [ring], "bbox": [0, 0, 1, 1], "area": 1.0})
        if pictures:
            coarse = Image.fromarray(rng.integers(0, 256, (height // 32, width // 32, 3), dtype=np.uint8))
            smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
            noisy = smooth + rng.normal(0, 6, smooth.shape)
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / name, quality=90)
    path = folder / "annotations.json"
    path.write_text(json.dumps({"images": entries, "annotations": faces, "categories": []}))
    return path


class Plain(Dataset[Any]):
    """The obvious dataset: dictionaries, PIL, torchvision's transforms on image and masks."""

    def __init__(self, path: Path, size: int, train: bool) -> None:
        content = json.loads(path.read_text())
        self.folder, self.images = path.parent, content["images"]
        self.faces: dict[int, list[dict[str, Any]]] = {}
        for face in content["annotations"]:
            self.faces.setdefault(face["image_id"], []).append(face)
        steps: list[Any] = [v2.Resize(None, max_size=size)]
        if train:
            steps += [v2.RandomRotation(30), v2.RandomHorizontalFlip(0.5)]
        self.transform, self.train = v2.Compose(steps), train

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        entry = self.images[row]
        faces = self.faces.get(entry["id"], [])
        image = tv_tensors.Image(
            v2.functional.pil_to_tensor(Image.open(self.folder / entry["file_name"]).convert("RGB"))
        )
        size = entry["height"], entry["width"]
        decoded = [rle.decode(rle.merge(rle.frPyObjects(face["segmentation"], *size))) for face in faces]
        masks = tv_tensors.Mask(torch.from_numpy(np.stack(decoded)) if faces else torch.zeros((0, *size)))
        image, masks = self.transform(image, masks)
        if self.train:
            crop = v2.RandomCrop([max(1, round(side * np.random.uniform(0.9, 1))) for side in image.shape[-2:]])
            image, masks = crop(image, masks)
        masks = masks.bool()
        keep = masks.flatten(1).any(1)
        labels = torch.tensor([face["category_id"] - 1 for face in faces])[keep]
        masks = masks[keep]
        boxes = torch.zeros(len(masks), 4)
        for box, mask in zip(boxes, masks, strict=True):
            rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
            box[:] = torch.stack([columns[0, 0], rows[0, 0], columns[-1, 0] + 1, rows[-1, 0] + 1])
        return v2.functional.to_dtype(image, torch.float32, scale=True), {
            "boxes": boxes,
            "labels": labels,
            "masks": masks,
        }


def seconds(load: Callable[[int], Any], images: int) -> float:
    """Processor time an image."""
    start = time.process_time()
    for row in range(images):
        load(row)
    return (time.process_time() - start) / images


def speed(args: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    with TemporaryDirectory() as folder:
        width, height = args.source
        path = write_dataset(Path(folder), args.images, width, height)
        annotations = Annotations(path)
        still = TrainingParams(image_size=args.size)
        evaluation = ForensicsDataset(annotations, still)
        training = ForensicsDataset(annotations, still, seed=0)
        viewed = ForensicsDataset(annotations, still, seed=0, views=ViewsParams(), two_views=True)
        for dataset in (training, viewed):
            dataset._cache = None  # a set so small would be decoded once only
        plain = {train: Plain(path, args.size, train) for train in (False, True)}
        loaders: dict[str, tuple[Callable[[int], Any], Callable[[int], Any] | None]] = {
            "evaluation": (evaluation.__getitem__, plain[False].__getitem__),
            "training": (training.__getitem__, plain[True].__getitem__),
            "training + views": (viewed.__getitem__, None),
        }
        print(f"{args.images} photographs of {width} x {height} px to {args.size} px, one thread")
        print(f"{'':<18}{'ours':>10}{'plain':>10}{'ours / plain':>14}   images a second of processor time")
        for name, (ours, theirs) in loaders.items():
            ours(0)
            pairs = [
                (seconds(ours, args.images), seconds(theirs, args.images) if theirs else float("nan"))
                for _ in range(args.turns)
            ]
            row: dict[str, Any] = {"setting": name, "ours": 1 / statistics.median(pair[0] for pair in pairs)}
            line = f"{name:<18}{row['ours']:>10.1f}"
            if theirs:
                row["plain"] = 1 / statistics.median(pair[1] for pair in pairs)
                row["ratio"] = statistics.median(pair[1] / pair[0] for pair in pairs)
                line += f"{row['plain']:>10.1f}{row['ratio']:>14.2f}"
            print(line, flush=True)
            rows.append(row)
    return rows


class Flat(Dataset[int]):
    """Reads the outlines of an image from the flat arrays."""

    def __init__(self, path: Path) -> None:
        self.annotations = Annotations(path)

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, row: int) -> int:
        return sum(len(ring) for face in self.annotations.faces(row) for ring in self.annotations.rings(face))


class Dictionaries(Dataset[int]):
    """Reads the outlines of an image from the objects that JSON made."""

    def __init__(self, path: Path) -> None:
        content = json.loads(path.read_text())
        self.images = content["images"]
        self.faces: dict[int, list[dict[str, Any]]] = {}
        for face in content["annotations"]:
            self.faces.setdefault(face["image_id"], []).append(face)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> int:
        faces = self.faces[self.images[row]["id"]]
        return sum(len(list(ring)) // 2 for face in faces for ring in face["segmentation"])


def total_pss() -> int:
    """Bytes of this process and its children, shared pages counted once."""
    here = psutil.Process()
    return sum(process.memory_full_info().pss for process in (here, *here.children(recursive=True)))


def _report_memory(kind: str, path: Path, workers: int, write: int) -> None:
    """In a process of its own: load the annotations, let all workers read them, write the growth of PSS."""
    torch.set_num_threads(1)
    dataset: Dataset[int] = Flat(path) if kind == "flat" else Dictionaries(path)
    gc.collect()
    loader = DataLoader(dataset, 256, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    for _ in loader:
        pass
    os.write(write, str(total_pss()).encode())  # the persistent workers are still there
    os._exit(0)


def memory(args: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    with TemporaryDirectory() as folder:
        path = write_dataset(Path(folder), args.faces // FACES_AN_IMAGE, 1600, 1200, pictures=False)
        print(
            f"\n{args.faces} faces, PSS of all processes in MB\n{'workers':<10}{'flat arrays':>14}{'dictionaries':>14}"
        )
        for workers in args.workers:
            row: dict[str, Any] = {"workers": workers}
            for kind in ("flat", "dictionaries"):
                read, write = os.pipe()
                if not os.fork():
                    try:
                        _report_memory(kind, path, workers, write)
                    finally:
                        os._exit(1)
                os.close(write)
                answer = os.read(read, 64)
                os.close(read)
                os.wait()
                row[kind] = int(answer)
            print(f"{workers:<10}{row['flat'] / 1e6:>14.0f}{row['dictionaries'] / 1e6:>14.0f}", flush=True)
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="longest side after loading, px")
    parser.add_argument("--source", type=int, nargs=2, default=[1600, 1200], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2, 4], help="none: no memory measurement")
    parser.add_argument("--faces", type=int, default=150_000)
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    # Memory first: what the speed measurement leaves behind would be counted.
    memory_rows = memory(args) if args.workers and sys.platform == "linux" else []
    result = {"speed": speed(args), "memory": memory_rows}
    if args.output:
        args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
