"""Stand-ins of detectron2's catalogues, trainer and COCO evaluator: what an example needs from its first to its last line.

Written, as `detectron2_scenes`, from the interfaces' documentation.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy
import torch
from detectron2_scenes import BitMasks, Boxes, Instances, Node, Storage, ToyRCNN, install
from PIL import Image
from pycocotools import mask as rle

STEPS = 2
CONFIG = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"


class GeneralizedRCNN(ToyRCNN):
    """Mask R-CNN, as its registry calls it."""


class Catalogue:
    """Of datasets: names to records, and to what is known of their classes."""

    def __init__(self):
        self.sets = {}

    def list(self):
        return list(self.sets)

    def register(self, name, metadata, file, root):
        assert name not in self.sets
        self.sets[name] = (metadata, Path(file), Path(root))

    def get(self, name):
        """Records of a COCO file, classes numbered from 0 in the order of its categories."""
        metadata, file, root = self.sets[name]
        content = json.loads(file.read_text())
        numbers = self.numbers(name)
        assert [one["name"] for one in content["categories"]] == metadata["thing_classes"]
        records = []
        for image in content["images"]:
            faces = [one for one in content["annotations"] if one["image_id"] == image["id"]]
            records.append(
                {
                    "file_name": root / image["file_name"],
                    "image_id": image["id"],
                    "height": image["height"],
                    "width": image["width"],
                    "annotations": [{**one, "category_id": numbers[one["category_id"]]} for one in faces],
                }
            )
        return records

    def numbers(self, name):
        categories = json.loads(self.sets[name][1].read_text())["categories"]
        return {one["id"]: number for number, one in enumerate(sorted(categories, key=lambda one: one["id"]))}


def bitmask(segmentation, height, width):
    """Run lengths or polygons as pixels."""
    if isinstance(segmentation, dict):
        return rle.decode(segmentation)
    return rle.decode(rle.merge(rle.frPyObjects(segmentation, height, width)))


def mapped(record):
    """An input of a model: BGR in 0-255, and the faces."""
    pixels = numpy.asarray(Image.open(record["file_name"]).convert("RGB"))[:, :, ::-1].copy()
    faces = record["annotations"]
    boxes = torch.tensor([one["bbox"] for one in faces], dtype=torch.float32).view(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    size = (record["height"], record["width"])
    masks = [bitmask(one["segmentation"], *size) for one in faces]
    instances = Instances(
        size,
        gt_boxes=Boxes(boxes),
        gt_classes=torch.tensor([one["category_id"] for one in faces], dtype=torch.long),
        gt_masks=BitMasks(torch.from_numpy(numpy.stack(masks)).bool() if masks else torch.zeros(0, *size).bool()),
    )
    more = {key: record[key] for key in ("height", "width", "image_id")}
    return {"image": torch.from_numpy(pixels).permute(2, 0, 1).float(), "instances": instances, **more}


def engine(there, catalogue):
    """The class `DefaultTrainer` on a catalogue."""

    class DefaultTrainer:
        def __init__(self, cfg):
            assert cfg.INPUT.MASK_FORMAT == "bitmask"
            torch.manual_seed(0)
            self.cfg, self.hooks, self.seen = cfg, [], []
            self.model = there.registry[cfg.MODEL.META_ARCHITECTURE](cfg)
            assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
            (name,) = cfg.DATASETS.TRAIN
            self.inputs = [mapped(record) for record in catalogue.get(name)]
            self.iter, self.max_iter = 0, STEPS
            there.trainers.append(self)

        def register_hooks(self, hooks):
            for hook in hooks:
                hook.trainer = self
                self.hooks.append(hook)

        def train(self):
            self.model.train()
            optimiser = torch.optim.SGD([p for p in self.model.parameters() if p.requires_grad], 1e-3)
            with Storage(0):
                for step in range(self.max_iter):
                    self.iter = step
                    for hook in self.hooks:
                        hook.before_step()
                    losses = self.model(self.inputs)
                    self.seen.append({name: float(value.detach()) for name, value in losses.items()})
                    optimiser.zero_grad()
                    sum(losses.values()).backward()
                    optimiser.step()
                    for hook in self.hooks:
                        hook.after_step()

        @staticmethod
        @torch.no_grad()
        def test(cfg, model, evaluators):
            model.eval()
            for name, evaluator in zip(cfg.DATASETS.TEST, evaluators, strict=True):
                evaluator.reset()
                for record in catalogue.get(name):
                    inputs = [mapped(record)]
                    evaluator.process(inputs, model(inputs))
                evaluator.evaluate()

    return DefaultTrainer


def evaluator(catalogue):
    class COCOEvaluator:
        def __init__(self, name, output_dir):
            self.back = {number: known for known, number in catalogue.numbers(name).items()}
            self.folder = Path(output_dir)

        def reset(self):
            self.found = []

        def process(self, inputs, outputs):
            for one, found in zip(inputs, outputs, strict=True):
                found = found["instances"]
                for box, score, kind, mask in zip(
                    found.pred_boxes.tensor.tolist(),
                    found.scores.tolist(),
                    found.pred_classes.tolist(),
                    found.pred_masks.numpy(),
                    strict=True,
                ):
                    run = rle.encode(numpy.asfortranarray(mask.astype("u1")))
                    self.found.append(
                        {
                            "image_id": one["image_id"],
                            "category_id": self.back[kind],
                            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                            "score": score,
                            "segmentation": {"size": run["size"], "counts": run["counts"].decode()},
                        }
                    )

        def evaluate(self):
            self.folder.mkdir(exist_ok=True)
            (self.folder / "coco_instances_results.json").write_text(json.dumps(self.found))

    return COCOEvaluator


def install_engine(monkeypatch, folder):
    """`detectron2_scenes.install`, and what is above; `trainers` of what it returns are those that were made."""
    there = install(monkeypatch)
    catalogue = Catalogue()
    there.registry.register(GeneralizedRCNN)
    there.trainers = []
    (folder / "config.yaml").write_text("GeneralizedRCNN")

    def get_config_file(name):
        assert name == CONFIG
        return folder / "config.yaml"

    def get_cfg():
        model = Node(ROI_HEADS=Node(NUM_CLASSES=80), META_ARCHITECTURE="")
        return Node(MODEL=model, INPUT=Node(MASK_FORMAT="polygon"), DATASETS=Node(), OUTPUT_DIR="")

    def register(name, metadata, file, root):
        catalogue.register(name, metadata, file, root)

    more = {
        "model_zoo": {"get_config_file": get_config_file},
        "config": {"get_cfg": get_cfg},
        "data": {"DatasetCatalog": SimpleNamespace(list=catalogue.list, get=catalogue.get)},
        "data.datasets": {"register_coco_instances": register},
        "engine": {"DefaultTrainer": engine(there, catalogue)},
        "evaluation": {"COCOEvaluator": evaluator(catalogue)},
    }
    for name, content in more.items():
        full = f"detectron2.{name}"
        if full not in sys.modules:
            monkeypatch.setitem(sys.modules, full, ModuleType(full))
        module = sys.modules[full]
        module.__dict__.update(content)
        monkeypatch.setattr(sys.modules["detectron2"], name.split(".")[0], module, raising=False)
    return there
