"""Small stand-ins of the interfaces of detectron2 that `comics.integrations.detectron2` touches, and toy models on them.

They are written for these tests from the interfaces' documentation: names, shapes and who calls whom. What the real package
does with the same calls is for the tests marked `detectron2`.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import torch
from torch import nn
from torch.nn import functional

NAMES = ("p3", "p4")
STRIDES = (8, 16)
WIDTH = 16


class Boxes:
    def __init__(self, tensor):
        self.tensor = tensor

    def __len__(self):
        return len(self.tensor)


class BitMasks(Boxes):
    pass


class Instances:
    def __init__(self, image_size, **fields):
        self.__dict__.update(fields, image_size=tuple(image_size))

    def has(self, name):
        return name in self.__dict__


class ImageList:
    def __init__(self, tensor, image_sizes):
        self.tensor, self.image_sizes = tensor, image_sizes

    @staticmethod
    def from_tensors(images, step):
        height, width = (-(-max(image.shape[d] for image in images) // step) * step for d in (1, 2))
        padded = [functional.pad(i, (0, width - i.shape[2], 0, height - i.shape[1])) for i in images]
        return ImageList(torch.stack(padded), [tuple(image.shape[1:]) for image in images])


class Registry(dict):
    def register(self, kind):
        assert kind.__name__ not in self
        self[kind.__name__] = kind
        return kind


class Backbone(nn.Module):
    size_divisibility = 16
    padding_constraints: dict = {}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.fine = nn.Conv2d(3, WIDTH, 8, stride=8)
        self.coarse = nn.Conv2d(WIDTH, WIDTH, 2, stride=2)
        self.calls = 0

    def output_shape(self):
        return {n: SimpleNamespace(channels=WIDTH, stride=s) for n, s in zip(NAMES, STRIDES, strict=True)}

    def forward(self, images):
        self.calls += 1
        fine = self.fine(images).relu()
        return {"p3": fine, "p4": self.coarse(fine)}


class Transform:
    """Deltas are what is added to the corners."""

    def apply_deltas(self, deltas, boxes):
        return boxes + deltas


class Anchors(nn.Module):
    """Two boxes a cell, of 2 and of 4 strides, around its centre."""

    def forward(self, features):
        found = []
        for level, stride in zip(features, STRIDES, strict=True):
            height, width = level.shape[-2:]
            y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            centres = (torch.stack([x, y, x, y], dim=2).view(-1, 1, 4) + 0.5) * stride
            side = torch.tensor([[-1.0, -1, 1, 1], [-2, -2, 2, 2]]) * stride
            found.append(Boxes((centres + side).view(-1, 4)))
        return found


class Meta(nn.Module):
    """What meta-architectures share: pixel statistics, padding, one forward for losses and detections."""

    def __init__(self, cfg):
        super().__init__()
        self.backbone = Backbone()
        self.register_buffer("pixel_mean", torch.tensor([100.0, 110.0, 120.0]).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1), persistent=False)

    def preprocess_image(self, inputs):
        images = [(one["image"] - self.pixel_mean) / self.pixel_std for one in inputs]
        return ImageList.from_tensors(images, self.backbone.size_divisibility)

    def forward(self, inputs):
        assert Storage.open or not self.training, "losses are logged to the current storage"
        images = self.preprocess_image(inputs)
        return self.heads_on(images, inputs)

    def heads_on(self, images, inputs):
        maps = self.backbone(images.tensor)
        assert maps["p3"].shape[-2:] == tuple(length // 8 for length in images.tensor.shape[-2:])
        features = [maps[name] for name in NAMES]
        if self.training:
            return self.toy_losses(features, [one["instances"] for one in inputs])
        return [{"instances": self.toy_found(features, n, one)} for n, one in enumerate(inputs)]

    def toy_losses(self, features, instances):
        wanted = torch.stack([torch.tensor(float(len(one.gt_classes))) for one in instances])
        return {
            "loss_count": (self.scores(features).mean(dim=1) - wanted).square().mean(),
            "loss_size": features[1].mean(),
        }

    def toy_found(self, features, number, one):
        """Two detections, worse first; the better one reaches over the image's side."""
        height, width = one["height"], one["width"]
        boxes = torch.tensor([[1.0, 2, 9, 10], [4, 4, width + 30, 20]])
        masks = torch.zeros(2, height, width, dtype=torch.bool)
        masks[1, 4:20, 4:] = True
        more = {"pred_masks": masks} if self.draws else {}
        scores = torch.tensor([0.3, 0.6])
        return Instances(
            (height, width), pred_boxes=Boxes(boxes), scores=scores, pred_classes=torch.tensor([1, 0]), **more
        )


class Normalised(Meta):
    """Losses over a running mean of the faces, a plain number, as detectron2's dense detectors have it."""

    def toy_losses(self, features, instances):
        count = sum(len(one.gt_classes) for one in instances)
        self.loss_normalizer = 0.9 * getattr(self, "loss_normalizer", 100) + 0.1 * max(count, 1)
        return {
            name: value * 100 / self.loss_normalizer for name, value in super().toy_losses(features, instances).items()
        }


class ToyRetina(Normalised):
    draws = False

    def __init__(self, cfg=None):
        super().__init__(cfg)
        self.head_in_features = list(NAMES)
        self.logits, self.deltas = nn.Conv2d(WIDTH, 2, 1), nn.Conv2d(WIDTH, 8, 1)
        self.anchor_generator, self.box2box_transform = Anchors(), Transform()

    def head(self, features):
        return [self.logits(level) for level in features], [self.deltas(level) for level in features]

    def scores(self, features):
        return self.logits(features[0]).flatten(1)


class ToyFCOS(Normalised):
    """detectron2's own FCOS: a dense head with one point a cell; deltas are distances from it."""

    draws = False

    def __init__(self, cfg=None):
        super().__init__(cfg)
        self.head_in_features = list(NAMES)
        self.head = FCOSHead()
        self.anchor_generator, self.box2box_transform = Points(), Distances()

    def scores(self, features):
        return self.head.logits(features[0]).flatten(1)


class Points(nn.Module):
    """A box of one stride around each cell's centre."""

    def forward(self, features):
        return [Boxes(1.5 * boxes.tensor[::2] - 0.5 * boxes.tensor[1::2]) for boxes in Anchors()(features)]


class Distances:
    """To the four sides, in strides of the box that they count from."""

    def apply_deltas(self, deltas, boxes):
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        sides = deltas * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
        return torch.cat([centres - sides[:, :2], centres + sides[:, 2:]], dim=1)


class RCNNParts(nn.Module):
    def __init__(self):
        super().__init__()
        self.in_features = list(NAMES)
        self.anchor_generator, self.box2box_transform = Anchors(), Transform()
        self.logits, self.deltas = nn.Conv2d(WIDTH, 2, 1), nn.Conv2d(WIDTH, 8, 1)

    def rpn_head(self, features):
        return [self.logits(level) for level in features], [self.deltas(level) for level in features]


class MaskHead(nn.Sequential):
    def __init__(self):
        super().__init__()
        self.add_module("mask_fcn1", nn.Conv2d(WIDTH, 12, 3, padding=1))
        self.add_module("deconv", nn.ConvTranspose2d(12, 12, 2, stride=2))
        self.add_module("predictor", nn.Conv2d(12, 2, 1))


class ToyRCNN(Meta):
    draws = True

    def __init__(self, cfg=None):
        super().__init__(cfg)
        self.proposal_generator = RCNNParts()
        self.roi_heads = nn.Module()
        self.roi_heads.mask_head = MaskHead()
        self.roi_heads.mask_in_features = ["p3"]
        self.roi_heads.mask_pooler = self.pool

    @staticmethod
    def pool(features, boxes):
        count = sum(len(box) for box in boxes)
        return features[0].mean(dim=(0, 2, 3)).view(1, -1, 1, 1).expand(count, -1, 14, 14)

    def scores(self, features):
        return self.proposal_generator.logits(features[0]).flatten(1)


class FCOSParts(nn.Module):
    def __init__(self):
        super().__init__()
        self.in_features = list(NAMES)
        self.fcos_head = FCOSHead()


class FCOSHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.logits, self.sides = nn.Conv2d(WIDTH, 2, 1), nn.Conv2d(WIDTH, 4, 1)

    def forward(self, features, top_module=None, yield_proposal=False):
        sides = [self.sides(level).relu() for level in features]
        return [self.logits(level) for level in features], sides, None, None, None


class AdelaiMeta(Meta):
    """AdelaiDet's: pixel statistics inside of a function, images prepared inside of `forward`, a device of its own."""

    def __init__(self, cfg):
        super().__init__(cfg)
        mean, deviation = self.pixel_mean, self.pixel_std
        del self.pixel_mean, self.pixel_std
        self.normalizer = lambda image: (image - mean) / deviation
        self.device = torch.device("cpu")

    preprocess_image = property()  # there is none

    def forward(self, inputs):
        assert Storage.open or not self.training, "losses are logged to the current storage"
        images = [self.normalizer(one["image"].to(self.device)) for one in inputs]
        return self.heads_on(ImageList.from_tensors(images, self.backbone.size_divisibility), inputs)


class Basis(nn.Module):
    loss_on = True

    def __init__(self):
        super().__init__()
        up = nn.Upsample(scale_factor=2)
        self.tower = nn.Sequential(nn.Conv2d(WIDTH, 12, 1), up, nn.Conv2d(12, 4, 1))

    def forward(self, features, targets=None):
        assert not self.training, "its own auxiliary loss wants targets"
        return {"bases": [self.tower(features["p3"])]}, {}


class ToyBlend(AdelaiMeta):
    draws = True

    def __init__(self, cfg=None):
        super().__init__(cfg)
        self.proposal_generator, self.basis_module = FCOSParts(), Basis()
        self.seen = []

    def heads_on(self, images, inputs):
        self.seen = [one["basis_sem"] for one in inputs if "basis_sem" in one]
        return super().heads_on(images, inputs)

    def scores(self, features):
        return self.proposal_generator.fcos_head.logits(features[0]).flatten(1)


class Branch(nn.Module):
    """CondInst's: the map that its kernels are convolved with, and an auxiliary loss in training."""

    def __init__(self):
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(WIDTH, 12, 1), nn.ReLU(), nn.Conv2d(12, 8, 1))

    def forward(self, features, instances=None):
        assert not self.training, "its own auxiliary loss wants instances"
        return self.tower(features["p3"]), {}


class ToyCondInst(AdelaiMeta):
    draws = True

    def __init__(self, cfg=None):
        super().__init__(cfg)
        self.proposal_generator, self.mask_branch = FCOSParts(), Branch()

    def scores(self, features):
        return self.proposal_generator.fcos_head.logits(features[0]).flatten(1)


class MEInstParts(nn.Module):
    def __init__(self):
        super().__init__()
        self.in_features = list(NAMES)
        self.MEInst_head = FCOSHead()


class ToyMEInst(Meta):
    """Masks from codes of each point: there is no map of them. Images are prepared inside of `forward`."""

    draws = True

    def __init__(self, cfg=None):
        super().__init__(cfg)
        self.proposal_generator = MEInstParts()

    preprocess_image = property()  # there is none

    def forward(self, inputs):
        assert Storage.open or not self.training, "losses are logged to the current storage"
        images = [(one["image"] - self.pixel_mean) / self.pixel_std for one in inputs]
        return self.heads_on(ImageList.from_tensors(images, self.backbone.size_divisibility), inputs)

    def scores(self, features):
        return self.proposal_generator.MEInst_head.logits(features[0]).flatten(1)


class InsHead(nn.Module):
    """Kernels and classes of 3 x 3 and of 2 x 2 cells."""

    def __init__(self):
        super().__init__()
        self.classes, self.kernels = nn.Conv2d(WIDTH, 2, 1), nn.Conv2d(WIDTH, 6, 1)

    def forward(self, features):
        cells = [
            functional.interpolate(f, size=grid, mode="bilinear") for f, grid in zip(features, (3, 2), strict=True)
        ]
        return [self.classes(one) for one in cells], [self.kernels(one) for one in cells]


class MaskMap(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(WIDTH, 6, 1)

    def forward(self, features):
        return self.mix(features[0])


class ToySOLO(AdelaiMeta):
    """No boxes, none of its losses without faces, and empty tensors without a size where it finds nothing."""

    draws = True

    def __init__(self, cfg=None):
        super().__init__(cfg)
        self.instance_in_features, self.mask_in_features, self.num_masks = list(NAMES), ["p3"], 6
        self.ins_head, self.mask_head, self.finds = InsHead(), MaskMap(), True

    @staticmethod
    def split_feats(features):
        return features

    def scores(self, features):
        return self.ins_head(features)[0][0].flatten(1)

    def toy_losses(self, features, instances):
        assert all(len(one.gt_classes) for one in instances), "its loss looks at the first face of each image"
        return super().toy_losses(features, instances)

    def toy_found(self, features, number, one):
        if not self.finds:
            none = torch.tensor([])
            return Instances(
                (one["height"], one["width"]), pred_boxes=Boxes(none), scores=none, pred_classes=none, pred_masks=none
            )
        found = super().toy_found(features, number, one)
        found.pred_masks[0, 2:10, 1:9] = True
        found.pred_masks = found.pred_masks.float()
        found.pred_boxes = Boxes(torch.zeros(2, 4))
        return found


class Storage:
    open = 0

    def __init__(self, start):
        pass

    def __enter__(self):
        Storage.open += 1

    def __exit__(self, *_):
        Storage.open -= 1


class Node(dict):
    """A configuration: a dictionary with attributes."""

    __setattr__ = dict.__setitem__

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def merge_from_file(self, path):
        with open(path) as file:
            self.MODEL.META_ARCHITECTURE = file.read().strip()

    def merge_from_list(self, words):
        for key, value in zip(words[::2], words[1::2], strict=True):
            if key != "MODEL.RETINANET.SCORE":
                raise KeyError(key)
            self.MODEL.RETINANET.SCORE = value


def get_cfg():
    fcos = Node(NUM_CLASSES=80, INFERENCE_TH_TEST=0.5, NMS_TH=0.5, POST_NMS_TOPK_TEST=7)
    model = Node(RETINANET=Node(NUM_CLASSES=80, SCORE_THRESH_TEST=0.5), FCOS=fcos, WEIGHTS="none", DEVICE="cuda")
    return Node(MODEL=model, INPUT=Node(FORMAT="BGR"), TEST=Node(DETECTIONS_PER_IMAGE=100))


class LazyConfig:
    """A Python file whose dictionaries are configurations."""

    @staticmethod
    def load(path):
        content = {}
        with open(path) as file:
            exec(file.read(), content)
        return {name: tree(value) for name, value in content.items() if isinstance(value, dict) and name[0] != "_"}

    @staticmethod
    def apply_overrides(config, words):
        for word in words:
            place, _, value = word.partition("=")
            *way, last = place.split(".")
            node = config
            for name in way:
                node = node[name]
            node[last] = float(value)
        return config


def tree(value):
    return Node({key: tree(one) for key, one in value.items()}) if isinstance(value, dict) else value


class Hook:
    trainer = None


ARCHITECTURES = [ToyRetina, ToyFCOS, ToyRCNN, ToyBlend, ToyCondInst, ToyMEInst, ToySOLO]


def install(monkeypatch):
    """The stand-ins as the package `detectron2`; returns what tests look at."""
    registry = Registry()
    for kind in ARCHITECTURES:
        registry.register(kind)
    sets, built = {}, []

    def build_model(cfg):
        built.append(cfg)
        return registry[cfg.MODEL.META_ARCHITECTURE](cfg)

    def instantiate(node):
        built.append(node)
        return registry[node["_target_"]](node)

    modules = {
        "": {},
        "structures": {"Boxes": Boxes, "BitMasks": BitMasks, "ImageList": ImageList, "Instances": Instances},
        "modeling": {"META_ARCH_REGISTRY": registry, "build_model": build_model},
        "config": {"get_cfg": get_cfg, "LazyConfig": LazyConfig, "instantiate": instantiate},
        "data": {"DatasetCatalog": SimpleNamespace(list=lambda: list(sets))},
        "data.datasets": {"register_coco_instances": lambda name, *more: sets.update({name: more})},
        "engine": {"HookBase": Hook},
        "utils": {},
        "utils.events": {"EventStorage": Storage},
        "utils.registry": {"locate": registry.get},
    }
    for name, content in modules.items():
        full = f"detectron2.{name}".rstrip(".")
        module = ModuleType(full)
        module.__dict__.update(content, __path__=[])
        monkeypatch.setitem(sys.modules, full, module)
    return SimpleNamespace(registry=registry, sets=sets, built=built)
