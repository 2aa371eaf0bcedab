"""Names: which tensor of whose checkpoint is which tensor of ours.

The mapping goes through regular expressions, one line a layer, so that the table can be read and checked against a file's list of
names. The families are those of `comics.weights.checkpoint`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from comics.weights import authors

CLASS_LAYERS = re.compile(
    r"^(head\.cls_logits|bottom\.semantic\.2|cell_head\.categories"
    r"|roi_heads\.box_predictor\.(cls_score|bbox_pred)|(roi_heads\.)?mask_predictor\.mask_fcn_logits"
    r"|mask_iou_head\.iou|categories|cls_logits|semantic)\.(weight|bias)$"
)
"""Layers of ours with one row (or four) a class."""


# ------------------------------------------------------------------------------------------------------------ tables

Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str], str]
"""Pattern of the whole name in the file, our name (or how to make it; "" for a tensor without use here), and a note."""

_BODY = "extractor.body"
_FPN = "extractor.fpn"
_IMAGENET = "the classifier of ImageNet"


def _rules(*lines: tuple[Any, ...]) -> list[Rule]:
    return [(re.compile(line[0]), line[1], line[2] if len(line) > 2 else "") for line in lines]


def _third(start: str) -> Callable[[re.Match[str]], str]:
    """Towers listed as convolution, normalisation, ReLU, ...: the position in the list to ours, (layer, part)."""
    return lambda match: f"{start}.{int(match[1]) // 3}.{int(match[1]) % 3}.{match[2]}"


_CAFFE2 = _rules(
    (r"conv1_w", f"{_BODY}.conv1.weight"),
    (r"conv1_b", "", "BatchNorm follows: the convolution has no offset"),
    (r"res_conv1_bn_(\w+)", lambda match: f"{_BODY}.bn1.{_bn(match[1])}"),
    (r"res(\d)_(\d+)_branch2([abc])_w", lambda match: f"{_block(match)}.conv{_abc(match)}.weight"),
    (r"res(\d)_(\d+)_branch2([abc])_bn_(\w+)", lambda match: f"{_block(match)}.bn{_abc(match)}.{_bn(match[4])}"),
    (r"res(\d)_(\d+)_branch1_w", lambda match: f"{_block(match)}.downsample.0.weight"),
    (r"res(\d)_(\d+)_branch1_bn_(\w+)", lambda match: f"{_block(match)}.downsample.1.{_bn(match[3])}"),
    (r"(fc1000|pred)_[wb]", "", _IMAGENET),
)


def _block(match: re.Match[str]) -> str:
    return f"{_BODY}.layer{int(match[1]) - 1}.{match[2]}"


def _abc(match: re.Match[str]) -> int:
    return "abc".index(match[3]) + 1


def _bn(name: str) -> str:
    """Caffe2's name of a BatchNorm's tensor in PyTorch's words."""
    words = {"s": "weight", "gamma": "weight", "b": "bias", "beta": "bias", "rm": "running_mean", "riv": "running_var"}
    return words.get(name, name)


_BACKBONE = r"(?:backbone\.)?(?:bottom_up\.)?"
_DETECTRON2 = _rules(
    (_BACKBONE + r"stem\.conv1\.weight", f"{_BODY}.conv1.weight"),
    (_BACKBONE + r"stem\.conv1\.norm\.(\w+)", rf"{_BODY}.bn1.\1"),
    (_BACKBONE + r"stem\.fc\.\w+", "", _IMAGENET),
    (_BACKBONE + r"res(\d)\.(\d+)\.conv(\d)\.weight", lambda match: f"{_block(match)}.conv{match[3]}.weight"),
    (_BACKBONE + r"res(\d)\.(\d+)\.conv(\d)\.norm\.(\w+)", lambda match: f"{_block(match)}.bn{match[3]}.{match[4]}"),
    (_BACKBONE + r"res(\d)\.(\d+)\.shortcut\.weight", lambda match: f"{_block(match)}.downsample.0.weight"),
    (_BACKBONE + r"res(\d)\.(\d+)\.shortcut\.norm\.(\w+)", lambda match: f"{_block(match)}.downsample.1.{match[3]}"),
    (r"backbone\.top_block\.(p[67])\.(\w+)", rf"{_FPN}.\1.\2"),
    (r"(.*\.)?anchor_generator\.cell_anchors\.\d+", "", "anchors are computed"),
    (r"pixel_(mean|std)", "", "read as the statistics of the file's images"),
    (r"bi_grained\..+", "", "of the objective, which only training needs"),  # docs/interplay.md
)
_TORCHVISION = _rules(
    (r"(?:backbone\.body\.)?((?:conv1|bn1|layer\d)\..+)", rf"{_BODY}.\1"),
    (r"fc\.\w+", "", _IMAGENET),
)
_MMDETECTION = _rules(
    (r"backbone\.((?:conv1|bn1|layer\d)\..+)", rf"{_BODY}.\1"),
    (r"neck\.lateral_convs\.(\d)\.conv\.(\w+)", rf"{_FPN}.lateral.\1.\2"),
    (r"neck\.fpn_convs\.([0-3])\.conv\.(\w+)", rf"{_FPN}.output.\1.\2"),
    (r"rpn_head\.rpn_conv\.(\w+)", r"rpn.head.conv.0.0.\1"),
    (r"rpn_head\.rpn_cls\.(\w+)", r"rpn.head.cls_logits.\1"),
    (r"rpn_head\.rpn_reg\.(\w+)", r"rpn.head.bbox_pred.\1"),
    (r"roi_head\.bbox_head\.shared_fcs\.([01])\.(\w+)", lambda m: f"roi_heads.box_head.fc{int(m[1]) + 6}.{m[2]}"),
    (r"roi_head\.bbox_head\.fc_cls\.(\w+)", r"roi_heads.box_predictor.cls_score.\1"),
    (r"roi_head\.bbox_head\.fc_reg\.(\w+)", r"roi_heads.box_predictor.bbox_pred.\1"),
    (r"roi_head\.mask_head\.convs\.(\d)\.conv\.(\w+)", r"roi_heads.mask_head.\1.0.\2"),
    (r"roi_head\.mask_head\.upsample\.(\w+)", r"roi_heads.mask_predictor.conv5_mask.\1"),
    (r"roi_head\.mask_head\.conv_logits\.(\w+)", r"roi_heads.mask_predictor.mask_fcn_logits.\1"),
    (r"pixel_(mean|std)", "", "read as the statistics of the file's images"),
)


def _pyramid(finest: int) -> list[Rule]:
    """FPN levels `finest` to 5, in detectron2's words and in torchvision's (whose first level is P2)."""
    lines: list[tuple[str, str, str]] = []
    for level in range(2, 6):
        target = f".{level - finest}." if level >= finest else ""
        note = "" if target else f"P{level} is not in this detector's pyramid"
        for ours, theirs, modern in (("lateral", "fpn_lateral", "inner"), ("output", "fpn_output", "layer")):
            to = rf"{_FPN}.{ours}{target}\1" if target else ""
            lines.append((rf"backbone\.{theirs}{level}\.(\w+)", to, note))
            lines.append((rf"backbone\.fpn\.{modern}_blocks\.{level - 2}\.(?:0\.)?(\w+)", to, note))
    return _rules(*lines)


_MASK_RCNN = _rules(
    (r"proposal_generator\.rpn_head\.conv\.(\w+)", r"rpn.head.conv.0.0.\1"),
    (r"proposal_generator\.rpn_head\.objectness_logits\.(\w+)", r"rpn.head.cls_logits.\1"),
    (r"proposal_generator\.rpn_head\.anchor_deltas\.(\w+)", r"rpn.head.bbox_pred.\1"),
    (r"roi_heads\.box_head\.fc1\.(\w+)", r"roi_heads.box_head.fc6.\1"),
    (r"roi_heads\.box_head\.fc2\.(\w+)", r"roi_heads.box_head.fc7.\1"),
    (r"roi_heads\.mask_head\.mask_fcn(\d)\.(\w+)", lambda m: f"roi_heads.mask_head.{int(m[1]) - 1}.0.{m[2]}"),
    (r"roi_heads\.mask_head\.deconv\.(\w+)", r"roi_heads.mask_predictor.conv5_mask.\1"),
    (r"roi_heads\.mask_head\.predictor\.(\w+)", r"roi_heads.mask_predictor.mask_fcn_logits.\1"),
    (r"rpn\.head\.conv\.(weight|bias)", r"rpn.head.conv.0.0.\1"),  # torchvision before 0.13
    (r"((?:rpn|roi_heads)\..+)", r"\1"),
)
_SOLOV2 = _rules(
    (r"ins_head\.cate_tower\.(\d+)\.(\w+)", _third("cell_head.category_tower")),
    (r"ins_head\.kernel_tower\.(\d+)\.(\w+)", _third("cell_head.kernel_tower")),
    (r"ins_head\.cate_pred\.(\w+)", r"cell_head.categories.\1"),
    (r"ins_head\.kernel_pred\.(\w+)", r"cell_head.kernels.\1"),
    (r"mask_head\.convs_all_levels\.(\d)\.conv(\d)\.(\d)\.(\w+)", r"mask_branch.levels.\1.\2.\3.\4"),
    (r"mask_head\.conv_pred\.(\d)\.(\w+)", r"mask_branch.mix.\1.\2"),
)

_YOLACT_FILES = _rules(
    (r"backbone\.(conv1|bn1)\.(\w+)", rf"{_BODY}.\1.\2"),
    (r"backbone\.layers\.(\d)\.(.+)", lambda m: f"{_BODY}.layer{int(m[1]) + 1}.{m[2]}"),
    (r"fpn\.lat_layers\.(\d)\.(\w+)", lambda m: f"{_FPN}.lateral.{2 - int(m[1])}.{m[2]}"),  # from C5 on
    (r"fpn\.pred_layers\.(\d)\.(\w+)", lambda m: f"{_FPN}.output.{2 - int(m[1])}.{m[2]}"),
    (r"fpn\.downsample_layers\.(\d)\.(\w+)", lambda m: f"{_FPN}.p{6 + int(m[1])}.{m[2]}"),
)


def _mm_towers(theirs: str, ours: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """mmdetection's convolutions with GroupNorm."""
    return (
        (rf"{theirs}\.(\d)\.conv\.(\w+)", rf"{ours}.\1.0.\2"),
        (rf"{theirs}\.(\d)\.gn\.(\w+)", rf"{ours}.\1.1.\2"),
    )


_SOLO = _rules(  # its authors' names, on an old mmdetection, and mmdetection's own
    *_mm_towers(r"(?:bbox_head\.ins_convs|mask_head\.mask_convs)", "mask_tower"),
    *_mm_towers(r"(?:bbox_head\.cate_convs|mask_head\.cls_convs)", "category_tower"),
    (r"(?:bbox_head\.solo_ins_list|mask_head\.conv_mask_list)\.(\d)\.(\w+)", r"masks.\1.\2"),
    (r"(?:bbox_head\.solo_cate|mask_head\.conv_cls)\.(\w+)", r"categories.\1"),
)


def _polar_tower(theirs: str, ours: str) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """mmdetection's towers, a module a layer, to ours, listed as convolution, normalisation, ReLU, ..."""
    return (
        (rf"bbox_head\.{theirs}\.(\d)\.conv\.(\w+)", lambda m: f"{ours}.{3 * int(m[1])}.{m[2]}"),
        (rf"bbox_head\.{theirs}\.(\d)\.gn\.(\w+)", lambda m: f"{ours}.{3 * int(m[1]) + 1}.{m[2]}"),
    )


_POLARMASK = _rules(
    (r"neck\.fpn_convs\.([34])\.conv\.(\w+)", lambda m: f"{_FPN}.p{3 + int(m[1])}.{m[2]}"),
    *_polar_tower("cls_convs", "head.cls_tower"),
    *_polar_tower("reg_convs", "head.bbox_tower"),
    *_polar_tower("mask_convs", "mask_tower"),
    (r"bbox_head\.polar_cls\.(\w+)", r"head.cls_logits.\1"),
    (r"bbox_head\.polar_reg\.(\w+)", r"head.bbox_pred.\1"),
    (r"bbox_head\.polar_centerness\.(\w+)", r"head.ctrness.\1"),
    (r"bbox_head\.polar_mask\.(\w+)", r"rays.\1"),
    (r"bbox_head\.scales_bbox\.(\d)\.scale", r"head.scales.\1.scale"),
    (r"bbox_head\.scales_mask\.(\d)\.scale", r"ray_scales.\1.scale"),
)
_MASK_IOU = _rules(
    (r"roi_head\.mask_iou_head\.convs\.(\d)\.(\w+)", r"mask_iou_head.convs.\1.\2"),
    (r"roi_head\.mask_iou_head\.fcs\.(\d)\.(\w+)", r"mask_iou_head.linears.\1.\2"),
    (r"roi_head\.mask_iou_head\.fc_mask_iou\.(\w+)", r"mask_iou_head.iou.\1"),
)
_YOLACT = _rules(
    (r"proto_net\.([024])\.(\w+)", lambda m: f"protonet.convs.{int(m[1]) // 2}.{m[2]}"),
    (r"proto_net\.8\.(\w+)", r"protonet.fine.\1"),
    (r"proto_net\.10\.(\w+)", r"protonet.prototypes.\1"),
    (r"prediction_layers\.0\.upfeature\.0\.(\w+)", r"shared.\1"),
    (r"prediction_layers\.0\.bbox_layer\.(\w+)", r"bbox_pred.\1"),
    (r"prediction_layers\.0\.conf_layer\.(\w+)", r"cls_logits.\1"),
    (r"prediction_layers\.0\.mask_layer\.(\w+)", r"coefficients.\1"),
    (r"semantic_seg_conv\.(\w+)", r"semantic.\1"),
)
_CENTERMASK = _rules(
    (r"roi_heads\.mask_head\.mask_fcn(\d)\.(\w+)", lambda m: f"mask_head.{int(m[1]) - 1}.0.{m[2]}"),
    (r"roi_heads\.mask_head\.spatialAtt\.conv\.(\w+)", r"attention.conv.\1"),
    (r"roi_heads\.mask_head\.deconv\.(\w+)", r"mask_predictor.conv5_mask.\1"),
    (r"roi_heads\.mask_head\.predictor\.(\w+)", r"mask_predictor.mask_fcn_logits.\1"),
    (r"roi_heads\.maskiou_head\.maskiou_fcn(\d)\.(\w+)", lambda m: f"mask_iou_head.convs.{int(m[1]) - 1}.{m[2]}"),
    (r"roi_heads\.maskiou_head\.maskiou_fc(\d)\.(\w+)", lambda m: f"mask_iou_head.linears.{int(m[1]) - 1}.{m[2]}"),
    (r"roi_heads\.maskiou_head\.maskiou\.(\w+)", r"mask_iou_head.iou.\1"),
)
_FCOS = _rules(  # the towers are listed alike in both projects
    (r"proposal_generator\.(?:fcos_head|MEInst_head)\.((?:cls|bbox)_tower\.\d+\.\w+)", r"head.\1"),
    (r"proposal_generator\.MEInst_head\.((?:cls|bbox)_tower\.\d+)\.conv\.(\w+)", r"head.\1.\2"),  # deformable
    (r"proposal_generator\.MEInst_head\.((?:cls|bbox)_tower\.\d+)\.offset\.(\w+)", r"head.\1.offsets.\2"),
    (r"proposal_generator\.MEInst_head\.(mask_tower\.\d+)\.conv\.(\w+)", r"\1.\2"),
    (r"proposal_generator\.MEInst_head\.(mask_tower\.\d+)\.offset\.(\w+)", r"\1.offsets.\2"),
    (r"proposal_generator\.(?:fcos_head|MEInst_head)\.((?:cls_logits|bbox_pred|ctrness)\.\w+)", r"head.\1"),
    (r"proposal_generator\.(?:fcos_head|MEInst_head)\.(scales\.\d\.scale)", r"head.\1"),
)
_BLENDMASK = _rules(
    (r"top_layer\.(\w+)", r"attention.\1"),
    (r"basis_module\.refine\.(\d)\.(\d)\.(\w+)", r"bottom.refine.\1.\2.\3"),
    (r"basis_module\.tower\.([012])\.(\d)\.(\w+)", r"bottom.tower.\1.\2.\3"),
    (r"basis_module\.tower\.4\.(\d)\.(\w+)", r"bottom.fine.\1.\2"),  # 3 doubles the size and has no weights
    (r"basis_module\.tower\.5\.(\w+)", r"bottom.bases.\1"),
    (r"basis_module\.seg_head\.([0134])\.(\w+)", lambda m: f"bottom.semantic.{int(m[1]) // 3}.{int(m[1]) % 3}.{m[2]}"),
    (r"basis_module\.seg_head\.6\.(\w+)", r"bottom.semantic.2.\1"),
)
_CONDINST = _rules(
    (r"controller\.(\w+)", r"controller.\1"),
    (r"mask_branch\.refine\.(\d)\.(\d)\.(\w+)", r"branch.refine.\1.\2.\3"),
    (r"mask_branch\.tower\.([0123])\.(\d)\.(\w+)", r"branch.tower.\1.\2.\3"),
    (r"mask_branch\.tower\.4\.(\w+)", r"branch.maps.\1"),
    (r"mask_branch\.(?:seg_head|logits)\..+", "", "an auxiliary task that this detector does not have"),
    (r"mask_head\.(?:sizes_of_interest|_iter)", "", "a constant"),
)
_MEINST = _rules(
    (r"proposal_generator\.MEInst_head\.mask_tower\.(\d+\.\w+)", r"mask_tower.\1"),
    (r"proposal_generator\.MEInst_head\.mask_pred\.(\w+)", r"code.\1"),
    (r"proposal_generator\.mask_encoding\.components", "components"),
    (r"proposal_generator\.mask_encoding\.explained_variances", "variances"),
    (r"proposal_generator\.mask_encoding\.means", "mean"),
)
_HEADS: dict[str, list[Rule]] = {
    "mask_rcnn": _MASK_RCNN,
    "solov2": _SOLOV2,
    "blendmask": [*_FCOS, *_BLENDMASK],
    "condinst": [*_FCOS, *_CONDINST],
    "meinst": [*_FCOS, *_MEINST],
    "centermask": [*_FCOS, *_CENTERMASK],
    "ms_rcnn": [*_MASK_RCNN, *_MASK_IOU],
    "polarmask": [*_FCOS, *_POLARMASK],
    "solo": _SOLO,
    "yolact": _YOLACT,
}
_FAMILY_RULES = {
    authors.FAMILY: [*((pattern, "", "of a run, beside its detector") for pattern, _ in authors.BESIDE), *_DETECTRON2],
    "caffe2": _CAFFE2,
    "detectron2": _DETECTRON2,
    "torchvision": _TORCHVISION,
    "mmdetection": _MMDETECTION,
    "yolact": _YOLACT_FILES,
}


@cache
def _table(detector: str, family: str, finest: int) -> tuple[Rule, ...]:
    pyramid = _pyramid(finest)
    return (*_HEADS.get(detector, []), *_FAMILY_RULES[family], *pyramid)  # heads first: levels have other names in some


def rename(detector: str, family: str, source: str, finest: int = 3) -> tuple[str, str]:
    """Our name of a file's tensor, and a note.

    Args:
        detector: the kind of detector that the tensors are for.
        family: of the file.
        source: the name in the file.
        finest: the first level of the detector's pyramid: 3 for P3.

    Returns:
        The name in the detector's state dict ("" for a tensor without counterpart) and a note for the report.
    """
    if family == "comics":
        return source, ""
    if family == "timm":
        return f"{_BODY}.model.model.{source}", ""
    for pattern, target, note in _table(detector, family, finest):
        match = pattern.fullmatch(source)
        if match:
            return (match.expand(target) if isinstance(target, str) else target(match)), note
    return "", ""


def class_rows(family: str, target: str, tensor: Tensor) -> tuple[Tensor, str]:
    """The rows of a class layer in our order: the background comes first here, last or not at all in detectron2 and mmdetection."""
    if family == "mmdetection" and target.startswith("mask_iou_head."):
        return torch.cat([torch.zeros_like(tensor[:1]), tensor]), "background added, as zeros"
    if family not in ("detectron2", "mmdetection") or not target.startswith("roi_heads."):
        return tensor, ""
    if "cls_score" in target:
        return torch.cat([tensor[-1:], tensor[:-1]]), "background moved to the front"
    rows = 4 if "bbox_pred" in target else 1
    return torch.cat([torch.zeros_like(tensor[:rows]), tensor]), "background added, as zeros"
