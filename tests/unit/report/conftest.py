"""A project in a temporary folder: the repository's params.yaml and fabricated results."""

from __future__ import annotations

import csv
import json
import math
import random
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from comics import params as params_module
from comics.files import write_json
from comics.params import METRICS, TASKS, TEST_SPLITS, Params
from comics.provenance import write_sidecar
from comics.report.results import detections_path, resolved_runs, scores_path

REPOSITORY = Path(__file__).parents[3]
TABLE_IV = ("blendmask", "da", "fea", "bi_grained", "da_fea", "fea_bi", "da_bi", "comics")


class Project:
    """A folder that looks like a checkout with results in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copy(REPOSITORY / "params.yaml", root / "params.yaml")

    @property
    def params(self) -> Params:
        return params_module.load(self.root / "params.yaml")

    def edit(self, old: str, new: str) -> None:
        """Replace one text of params.yaml."""
        text = (self.root / "params.yaml").read_text()
        assert text.count(old) == 1, old
        (self.root / "params.yaml").write_text(text.replace(old, new))

    def scores(self, runs: Iterable[str], **fixed: float | None) -> None:
        """Fabricate scores of `runs`: random, but equal from call to call; `fixed` metrics as given."""
        for run in runs:
            for resolved in resolved_runs(self.params, run):
                for split in TEST_SPLITS:
                    rng = random.Random(f"{resolved.name} {resolved.seed} {split}")
                    path = self.root / scores_path(resolved, split)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with path.open("w", newline="") as file:
                        writer = csv.writer(file)
                        writer.writerow(["task", "class", *METRICS, "oLRP_threshold"])
                        for task in TASKS:
                            for cls in ("all", "Real", "Fake"):
                                drawn = {metric: rng.uniform(0.2, 0.7) for metric in METRICS} | fixed
                                values = ["" if value is None else value for value in drawn.values()]
                                writer.writerow([task, cls, *values, 0.4])
                    write_sidecar(
                        path,
                        {
                            "digest": resolved.digest,
                            "run": resolved.name,
                            "dataset": resolved.dataset_name,
                            "seed": resolved.seed,
                            "split": split,
                        },
                    )

    def dataset(self, images: int = 8, size: tuple[int, int] = (160, 120), splits: Iterable[str] = TEST_SPLITS) -> None:
        """Draw `images` photographs a split: ovals for faces, one to three each, polygons for masks."""
        for number, split in enumerate(splits):
            rng = random.Random(split)
            folder = self.root / "data" / self.params.dataset / split
            (folder / "images").mkdir(parents=True, exist_ok=True)
            categories = [{"id": 1, "name": "Real"}, {"id": 2, "name": "Fake"}]
            content: dict[str, list] = {"images": [], "annotations": [], "categories": categories}
            for index in range(images):
                identity = 1000 * number + index + 1
                photo = Image.effect_noise(size, 40).convert("RGB")
                draw = ImageDraw.Draw(photo)
                for face in range(1 + index % 3):
                    x, y = 8 + face * size[0] // 3, rng.randint(10, size[1] // 3)
                    width, height = size[0] // 5, size[1] // 2
                    draw.ellipse((x, y, x + width, y + height), fill=(200, 160 + 20 * face, 140))
                    angles = [2 * math.pi * step / 24 for step in range(24)]
                    ring = [
                        coordinate
                        for angle in angles
                        for coordinate in (
                            x + width / 2 * (1 + math.cos(angle)),
                            y + height / 2 * (1 + math.sin(angle)),
                        )
                    ]
                    content["annotations"].append(
                        {
                            "id": 10 * identity + face,
                            "image_id": identity,
                            "category_id": 1 + (index + face) % 2,
                            "bbox": [x, y, width, height],
                            "area": math.pi * width * height / 4,
                            "iscrowd": 0,
                            "segmentation": [ring],
                        }
                    )
                photo.save(folder / "images" / f"{index:03d}.jpg", quality=90)
                content["images"].append(
                    {"id": identity, "file_name": f"images/{index:03d}.jpg", "width": size[0], "height": size[1]}
                )
            (folder / "annotations.json").write_text(json.dumps(content))

    def detections(self, runs: Iterable[str], splits: Iterable[str] = TEST_SPLITS) -> None:
        """Detections of `runs`: the ground truth, with some faces missed, mistaken or made up, more in earlier runs."""
        for place, run in enumerate(runs):
            for resolved in resolved_runs(self.params, run):
                for split in splits:
                    annotations = json.loads(
                        (self.root / "data" / self.params.dataset / split / "annotations.json").read_text()
                    )
                    sizes = {image["id"]: (image["height"], image["width"]) for image in annotations["images"]}
                    rng = random.Random(f"{run} {split}")
                    found = []
                    for face in annotations["annotations"]:
                        drawn = rng.random() * (1 + place)
                        if drawn < 0.25:
                            continue
                        rle = coco_mask.merge(coco_mask.frPyObjects(face["segmentation"], *sizes[face["image_id"]]))
                        rle["counts"] = rle["counts"].decode()
                        category = face["category_id"] if drawn > 0.4 else 3 - face["category_id"]
                        box = list(face["bbox"]) if drawn > 0.5 else [2, 2, 20, 20]
                        found.append(
                            {
                                "image_id": face["image_id"],
                                "category_id": category,
                                "bbox": box,
                                "score": round(0.45 + rng.random() / 2, 3),
                                "segmentation": rle,
                            }
                        )
                    path = self.root / detections_path(resolved, split)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(json.dumps(found))
                    write_sidecar(path, {"digest": resolved.digest})

    def logs(self, runs: Iterable[str]) -> None:
        """run.json and logs/metrics.csv of `runs`."""
        for run in runs:
            for resolved in resolved_runs(self.params, run):
                folder = self.root / resolved.folder
                (folder / "logs").mkdir(parents=True, exist_ok=True)
                lines = [f"{step},{step // 50},{3 / (1 + step / 40):.4f},,0.02" for step in range(0, 200, 10)]
                lines += [f"{step},{step // 50},,{1 / (1 + step / 40):.4f}," for step in range(0, 200, 10)]
                table = ["step,epoch,train/loss,train/box,train/lr", *lines]
                (folder / "logs" / "metrics.csv").write_text("\n".join(table) + "\n")
                write_json(
                    folder / "run.json",
                    {
                        "run": resolved.name,
                        "seed": resolved.seed,
                        "digest": resolved.digest,
                        "checkpoint_digest": resolved.checkpoint_digest,
                        "description": resolved.description,
                        "hardware": {"device": "A Processor", "cores": 2, "threads": 2, "system": "Linux x86_64"},
                        "precision": "bfloat16",
                        "versions": {"python": "3.11.9", "torch": "2.14.0"},
                        "commit": None,
                        "steps": 200,
                        "seconds": 91.5,
                        "resumed": False,
                    },
                )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An empty project, which is also the working folder."""
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)
