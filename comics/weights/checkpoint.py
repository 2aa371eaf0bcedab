"""Checkpoints: whose a file is, and the images that its weights were trained on.

Eight families of files are known:

- ``caffe2``: Detectron's and MSRA's pickles, ``res2_0_branch2a_w``. BGR images in 0-255, stride in the 1x1 convolution.
- ``detectron2``: detectron2's model zoo and AdelaiDet, ``backbone.bottom_up.res2.0.conv1.weight``. The same images,
  unless the file says otherwise; ``__author__: torchvision`` is its copy of torchvision's ResNet, and of its images.
- ``torchvision``: ``layer1.0.conv1.weight`` or a whole ``maskrcnn_resnet50_fpn``. RGB images in 0-1, stride in the 3x3.
- ``mmdetection``: its Mask R-CNN, MS R-CNN, SOLO and PolarMask, ``neck.lateral_convs.0.conv.weight``. Like torchvision's; where
  the file says that images are BGR (``comics weights export`` writes it, mmdetection does not), its "caffe" style, like
  detectron2's.
- ``yolact``: its authors' files, ``fpn.lat_layers.0.weight``. Images as torchvision's.
- ``timm``: a model of timm, under its own names; told by those of the backbone that it is read into.
- ``authors``: the COMICS authors' files: AdelaiDet's BlendMask, and a training's state beside it (`comics.weights.authors`).
- ``comics``: model.pt of a run, or what ``comics weights import`` and ``export`` wrote.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from comics.detectors.pixels import PIXEL_MEAN, PIXEL_STD
from comics.errors import UserError
from comics.weights import authors

MSRA_MEAN_BGR = (103.53, 116.28, 123.675)  # of images in 0-255, with a deviation of 1
BATCHNORM_EPS = 1e-5


@dataclass
class Checkpoint:
    """A checkpoint's tensors and the images they were trained on.

    Attributes:
        file: where it came from.
        family: "caffe2", "detectron2", "torchvision", "mmdetection", "yolact", "timm", "authors" or "comics".
        tensors: by the names of the file.
        channel_order: "bgr" or "rgb".
        pixel_mean: RGB, of images in [0, 1]; likewise `pixel_std`.
        stride_in_1x1: where a bottleneck halves the resolution: in its first 1x1 convolution, or in the 3x3 one.
        partial: whether somebody has said that it sets a part of a detector only.
        whole: whether `tensors` are of a run's whole model, not of a detector alone (`comics.weights.run`).
    """

    file: str
    family: str
    tensors: dict[str, Tensor]
    channel_order: str = "rgb"
    pixel_mean: tuple[float, ...] = PIXEL_MEAN
    pixel_std: tuple[float, ...] = PIXEL_STD
    stride_in_1x1: bool = False
    partial: bool = False
    whole: bool = False

    def of_detector(self) -> Checkpoint:
        """The same without what a run has beside its detector."""
        if not self.whole:
            return self
        inside = "detector." if self.family == "comics" else ""
        tensors = {
            key.removeprefix(inside): value
            for key, value in self.tensors.items()
            if key.startswith(inside) and authors.beside(key) is None
        }
        return replace(self, tensors=tensors, whole=False)


_FAMILIES = (
    (authors.FAMILY, re.compile(r"^(backbone_k|srm_sa(_post)?)\.")),
    ("mmdetection", re.compile(r"^(neck\.lateral_convs|roi_head\.(bbox|mask)_head)\.")),
    ("yolact", re.compile(r"^fpn\.lat_layers\.")),
    ("caffe2", re.compile(r"(^|_)branch2a_|^conv1_w$")),
    ("detectron2", re.compile(r"(^|\.)(stem\.conv1|res2\.0\.conv1|fpn_lateral\d|proposal_generator|ins_head)\.")),
    ("torchvision", re.compile(r"(^|\.)layer1\.0\.conv1\.weight$")),
)


def recognise(
    content: Any, file: str, channel_order: str = "auto", timm_names: Collection[str] = frozenset()
) -> Checkpoint:
    """Tell the family of a checkpoint from its content.

    Args:
        content: what `read_checkpoint` gave.
        file: for messages.
        channel_order: "bgr", "rgb", or "auto" for the family's own.
        timm_names: of the tensors of the timm model that the checkpoint may be for; it is when it has half of them.

    Raises:
        UserError: it holds no tensors, or names of no known family.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{file}: expected a dictionary of arrays, found {type(content).__name__}.")
    if "description" in content and "state_dict" in content:  # model.pt of a run
        return Checkpoint(file, "comics", _tensors(content["state_dict"], file, inside="detector."))
    metadata = content.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    if metadata.get("format") == "comics":
        whole = metadata.get("whole") == "true"
        found = Checkpoint(file, "comics", _tensors(content["model"], file, inside="" if whole else "detector."))
        found.partial, found.whole = metadata.get("partial") == "true", whole
        return found

    author = content.get("__author__")
    holder = next(
        (content[key] for key in ("model", "state_dict", "blobs") if isinstance(content.get(key), Mapping)), content
    )
    tensors = _tensors(holder, file)
    if timm_names and 2 * len(set(timm_names) & set(tensors)) >= len(timm_names):
        return Checkpoint(file, "timm", tensors)
    family = next((name for name, sign in _FAMILIES if any(sign.search(key) for key in tensors)), "")
    if not family:
        known = ", ".join(list(tensors)[:3])
        raise UserError(
            f"{file}: the tensors' names ({known}, ...) are of no known family.",
            "Known are detectron2's and AdelaiDet's checkpoints, Detectron's and torchvision's, and this project's.",
        )
    found = Checkpoint(file, family, tensors, whole=family == authors.FAMILY)
    if family == "caffe2":
        found.tensors = _unfold_batchnorm(tensors)
    if family in ("caffe2", "detectron2", authors.FAMILY) and author != "torchvision":
        found.channel_order, found.stride_in_1x1 = "bgr", True
        _set_pixels(found, MSRA_MEAN_BGR, (1.0, 1.0, 1.0))
    if "pixel_mean" in tensors and "pixel_std" in tensors:  # old detectron2 files say it themselves
        mean, std = tensors["pixel_mean"].flatten().tolist(), tensors["pixel_std"].flatten().tolist()
        if len(mean) == len(std) == 3:
            found.channel_order = "bgr" if mean[0] < mean[2] else "rgb"
            found.stride_in_1x1 |= family == "mmdetection" and found.channel_order == "bgr"
            _set_pixels(found, mean, std)
    if channel_order != "auto":
        found.channel_order = channel_order
    return found


def _set_pixels(checkpoint: Checkpoint, mean: Any, std: Any) -> None:
    """Set the pixel statistics from those of images in 0-255, in the file's channel order."""
    step = -1 if checkpoint.channel_order == "bgr" else 1
    checkpoint.pixel_mean = tuple(value / 255 for value in mean)[::step]
    checkpoint.pixel_std = tuple(value / 255 for value in std)[::step]


def _tensors(values: Any, file: str, inside: str = "") -> dict[str, Tensor]:
    """The arrays among `values` as tensors, without wrappers' prefixes; only those `inside`, where there are any."""
    found = {}
    for key, value in values.items():
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(value.astype(value.dtype.newbyteorder("="), copy=False))
        if isinstance(key, str) and isinstance(value, Tensor):
            found[key.removeprefix("module.")] = value
    if inside and any(key.startswith(inside) for key in found):
        found = {key.removeprefix(inside): value for key, value in found.items() if key.startswith(inside)}
    if not found:
        raise UserError(f"{file}: holds no arrays.", "Give a checkpoint file of a detector or a backbone.")
    return found


def _unfold_batchnorm(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Detectron's files fold BatchNorm's statistics into its scale and offset: give each a mean and a deviation."""
    found = {key: value for key, value in tensors.items() if not key.endswith("_momentum") and key != "weight_order"}
    for key, value in tensors.items():
        stem = key.removesuffix("_bn_s")
        if stem != key and f"{stem}_bn_rm" not in tensors and f"{stem}_bn_running_mean" not in tensors:
            found[f"{stem}_bn_running_mean"] = torch.zeros_like(value)
            found[f"{stem}_bn_running_var"] = torch.full_like(value, 1 - BATCHNORM_EPS)
    return found


_UNSUPPORTED = (
    (re.compile(r"res\d\.\d+\.conv2_offset\."), "deformable convolutions in its backbone (dcni3)"),
    (re.compile(r"(^|\.)repeated_bifpn\."), "a BiFPN"),
    (re.compile(r"bottom_up\.(base_layer|level0)\."), "a DLA backbone"),
    (re.compile(r"fcos_head\.share(_srm)?_tower(_k)?\."), "convolutions that its towers share (FCOS.NUM_SHARE_CONVS)"),
)


def refuse_unsupported(checkpoint: Checkpoint) -> None:
    """Refuse files whose weights mean something else than the detector would make of them.

    Raises:
        UserError: names what the file has.
    """
    names = checkpoint.tensors
    found = next((what for sign, what in _UNSUPPORTED if any(sign.search(name) for name in names)), "")
    if any(".top_block.p6." in name for name in names) and not any(".top_block.p7." in name for name in names):
        found = found or "a pyramid of four levels (BlendMask 550 and RT)"
    if found:
        raise UserError(
            f"{checkpoint.file}: its detector has {found}, which this project's detectors have not.",
            "Take a checkpoint of the plain ResNet-FPN with P3 to P7.",
        )
