"""Facts about the detectors and the backbones: parameters, operations, and speed on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from comics.detectors.backbone import TimmBody, build_body
from comics.detectors.base import Detector, build
from comics.params import ModelParams


@dataclass(frozen=True)
class Facts:
    """What `measure` found.

    Attributes:
        name: of the detector.
        parameters: trainable or not, without buffers.
        gigaflops: floating-point operations of one image's inference in units of 1e9, a multiply-add counted as two. What
            a fresh detector finds is not typical: two-stage detectors classify and draw as much as they may.
        images_per_second: of the whole inference, masks included.
        has_boxes: False when it predicts masks only.
    """

    name: str
    parameters: int
    gigaflops: float
    images_per_second: float
    has_boxes: bool


BACKBONES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "timm/resnet10t",
    "timm/regnetx_002",
    "timm/regnety_040",
    "timm/mobilenetv4_conv_small",
    "timm/mobilenetv4_conv_medium",
    "timm/efficientnet_b0",
    "timm/efficientvit_b1",
    "timm/fastvit_t8",
    "timm/convnext_atto",
    "timm/convnext_tiny",
    "timm/convnextv2_tiny",
    "timm/pvt_v2_b2",
    "timm/swin_tiny_patch4_window7_224",
    "timm/swinv2_tiny_window8_256",
    "timm/vit_tiny_patch16_224",
    "timm/vit_small_patch14_dinov2",
    "timm/vit_small_patch16_dinov3",
    "timm/vit_base_patch16_dinov3",
)
"""Backbones known to work: of each family of timm, the sizes that suit a detector. Others of these families do, too."""


@dataclass(frozen=True)
class BackboneFacts:
    """What `measure_backbone` found.

    Attributes:
        name: as params.yaml has it.
        pyramid: "FPN", or "ViTDet" for a plain transformer.
        parameters: of the backbone, without its pyramid.
        gigaflops: of one image through the backbone, units of 1e9, a multiply-add counted as two.
    """

    name: str
    pyramid: str
    parameters: int
    gigaflops: float


def measure_backbone(name: str, size: int = 512) -> BackboneFacts:
    """Facts about one backbone, without computing anything: its tensors have shapes only.

    Args:
        name: as params.yaml has it.
        size: side of the square image in px, a multiple of 32.

    Raises:
        UserError: it cannot be a backbone; says why.
    """
    with torch.device("meta"):
        body = build_body(ModelParams(backbone=name)).eval()
        images = torch.empty(1, 3, size, size)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        body(images)
    return BackboneFacts(
        name=name,
        pyramid="ViTDet" if isinstance(body, TimmBody) and body.plain else "FPN",
        parameters=sum(parameter.numel() for parameter in body.parameters()),
        gigaflops=counter.get_total_flops() / 1e9,
    )


def measure(name: str, model: ModelParams, size: int = 512, seconds: float = 2.0, device: str = "cpu") -> Facts:
    """Facts about one detector, freshly initialised.

    Args:
        name: one of `comics.detectors.names()`.
        model: sizes of the network; its weights are not read.
        size: side of the square image in px, a multiple of 32.
        seconds: how long to time it; at least three images are taken.
        device: where.
    """
    torch.manual_seed(0)
    detector = build(name, model.model_copy(update={"weights": "none"})).to(device).eval()
    image = torch.rand(1, 3, size, size, device=device)
    with torch.inference_mode():
        counter = FlopCounterMode(display=False)
        with counter:
            detector.predict(detector(image), [(size, size)])
        rate = _rate(detector, image, seconds)
    return Facts(
        name=name,
        parameters=sum(parameter.numel() for parameter in detector.parameters()),
        gigaflops=counter.get_total_flops() / 1e9,
        images_per_second=rate,
        has_boxes=detector.predicts_boxes,
    )


def _rate(detector: Detector, image: torch.Tensor, seconds: float) -> float:
    sizes = [(image.shape[-2], image.shape[-1])]
    times: list[float] = []
    detector.predict(detector(image), sizes)  # warm-up
    while len(times) < 3 or sum(times) < seconds:
        _synchronise(image.device)
        start = time.perf_counter()
        detector.predict(detector(image), sizes)
        _synchronise(image.device)
        times.append(time.perf_counter() - start)
    return 1 / sorted(times)[len(times) // 2]


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
