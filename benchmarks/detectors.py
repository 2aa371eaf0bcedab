"""Seconds of a training step and of inference, for every detector; some of them side by side with another implementation.

    python benchmarks/detectors.py [--sizes 256 512] [--batch 2] [--threads 2] [--detectors blendmask mask_rcnn]

What is compared is timed in turns, in processor time (times the threads' number: of all threads), and a ratio is that of the
medians, so that what else runs on the machine hits both.

- Mask R-CNN, MS R-CNN, RetinaMask and CenterMask beside torchvision's `maskrcnn_resnet50_fpn`, whose RoIAlign takes 2 x 2
  samples (docs/detectors.md); the last three beside its `fcos_resnet50_fpn`, which has no masks, too.
- BlendMask beside itself computed as the published implementation computes it, in float32: attention maps at every
  location, BatchNorm as a step of its own, channels first. With `--precision bf16` this stays in float32.

All see the same images and targets. With `--frozen`, backbones have two frozen stages and frozen BatchNorm, the paper's.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.detection import fcos_resnet50_fpn, maskrcnn_resnet50_fpn

from comics.detectors import NAMES, Detector, Target, backbone, build
from comics.detectors.fcos import Grid, PointConv, flatten
from comics.params import ModelParams

Step = Callable[[], None]

TORCHVISION = {"maskrcnn": maskrcnn_resnet50_fpn, "fcos": fcos_resnet50_fpn}
BESIDE = {
    "mask_rcnn": ["maskrcnn"],
    "ms_rcnn": ["maskrcnn", "fcos"],
    "retinamask": ["maskrcnn", "fcos"],
    "centermask": ["maskrcnn", "fcos"],
}
"""The models of torchvision that a detector is timed beside."""


def scene(size: int, batch: int) -> tuple[Tensor, list[Target]]:
    """Noise with three elliptic faces an image."""
    torch.manual_seed(0)
    boxes = torch.tensor([[0.1, 0.1, 0.3, 0.4], [0.4, 0.2, 0.65, 0.6], [0.6, 0.6, 0.95, 0.95]]) * size
    left, top, right, bottom = boxes[:, :, None, None].unbind(1)
    y, x = torch.arange(size).view(-1, 1), torch.arange(size).view(1, -1)
    masks = ((x - (left + right) / 2) / (right - left)) ** 2 + ((y - (top + bottom) / 2) / (bottom - top)) ** 2 <= 0.25
    target = Target(boxes=boxes, labels=torch.tensor([0, 1, 0]), masks=masks)
    return torch.rand(batch, 3, size, size), [target] * batch


def ours(detector: Detector, size: int, batch: int, precision: str) -> tuple[Step, Step]:
    """A training step and the inference of one image."""
    images, targets = scene(size, batch)
    optimiser = torch.optim.SGD(detector.parameters(), 1e-4, momentum=0.9)
    half = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")

    def train() -> None:
        detector.train()
        optimiser.zero_grad()
        with half:
            losses = detector.losses(detector(images), targets, [(size, size)] * batch)
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()

    @torch.inference_mode()
    def infer() -> None:
        detector.eval()
        with half:
            detector.predict(detector(images[:1]), [(size, size)])

    return train, infer


def torchvisions(kind: str, size: int, batch: int) -> tuple[Step, Step]:
    """The same of a model of torchvision."""
    images, targets = scene(size, batch)
    model = TORCHVISION[kind](
        weights=None, weights_backbone=None, num_classes=3, min_size=size, max_size=size, trainable_backbone_layers=5
    )
    optimiser = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9)
    wanted = [{**target, "labels": target["labels"] + 1} for target in targets]

    def train() -> None:
        model.train()
        optimiser.zero_grad()
        sum(model(list(images), wanted).values()).backward()
        optimiser.step()

    @torch.inference_mode()
    def infer() -> None:
        model.eval()
        model([images[0]])

    return train, infer


class DenseConv(PointConv):
    """`PointConv` that computes every location and then takes the chosen ones."""

    def at(self, maps: Sequence[Tensor], grid: Grid, images: Tensor, locations: Tensor) -> Tensor:
        return flatten([self(one) for one in maps])[images, locations]


@contextmanager
def separate_norms() -> Iterator[None]:
    """No BatchNorm is folded into a convolution."""
    folding = backbone.conv_norm
    backbone.conv_norm = lambda conv, norm, x: norm(conv(x))
    try:
        yield
    finally:
        backbone.conv_norm = folding


class ChannelsFirst(nn.Module):
    """An extractor fed in the layout of the published implementation."""

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor
        self.channels, self.strides = extractor.channels, extractor.strides

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.extractor(images.contiguous())


def as_published(detector: Detector, size: int, batch: int) -> tuple[Step, Step]:
    """The steps of a copy of BlendMask that computes what `detector` does, as the published implementation does."""
    detector = copy.deepcopy(detector).to(memory_format=torch.contiguous_format)
    detector.attention.__class__ = DenseConv
    detector.extractor = ChannelsFirst(detector.extractor)
    train, infer = ours(detector, size, batch, "fp32")
    return separate_norms()(train), separate_norms()(infer)


def seconds(steps: list[Step], repeats: int) -> list[float]:
    """The median processor time of each step; they take turns, after one warm-up each."""
    times: list[list[float]] = [[] for _ in steps]
    for step in steps:
        step()
    for _ in range(repeats):
        for step, taken in zip(steps, times, strict=True):
            start = time.process_time()
            step()
            taken.append(time.process_time() - start)
    return [statistics.median(taken) for taken in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectors", nargs="+", default=list(NAMES))
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 512])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--frozen", action="store_true", help="two frozen stages and frozen BatchNorm")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    rows = []
    print(f"{'detector':<12}{'px':>6}{'step s':>10}{'image s':>10}  ratios to others: step image")
    for name in options.detectors:
        for size in options.sizes:
            torch.manual_seed(0)
            frozen = {"frozen_stages": 2, "frozen_batchnorm": True} if options.frozen else {}
            detector = build(name, ModelParams(backbone=options.backbone, **frozen))
            train, infer = ours(detector, size, options.batch, options.precision)
            row: dict[str, object] = {"detector": name, "size": size, "batch": options.batch}
            others: dict[str, tuple[Step, Step]] = {}
            if options.backbone == "resnet50" and options.precision == "fp32":
                others = {
                    f"torchvision_{kind}": torchvisions(kind, size, options.batch) for kind in BESIDE.get(name, ())
                }
            if name == "blendmask":
                others["as_published"] = as_published(detector, size, options.batch)
            step = seconds([train, *(other for other, _ in others.values())], options.repeats)
            image = seconds([infer, *(other for _, other in others.values())], options.repeats)
            row |= {"step_seconds": step[0], "image_seconds": image[0]}
            print(f"{name:<12}{size:>6}{step[0]:>10.2f}{image[0]:>10.2f}", end="")
            for index, other in enumerate(others, 1):
                row |= {f"{other}_step_seconds": step[index], f"{other}_image_seconds": image[index]}
                print(f"  {other}: {step[0] / step[index]:.2f} {image[0] / image[index]:.2f}", end="")
            print(flush=True)
            rows.append(row)
    if options.output:
        options.output.write_text(json.dumps({"threads": options.threads, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
