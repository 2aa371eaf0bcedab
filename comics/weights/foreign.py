"""Weights for other projects: a detector of ours under the names of detectron2, AdelaiDet or mmdetection.

The tables are those of `comics.weights.names`, read from right to left; a test holds that one undoes the other, so that a
file written here and read again gives the same tensors, bit for bit.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from comics.classes import CLASSES
from comics.detectors.base import Detector, build
from comics.errors import UserError
from comics.files import atomic_write
from comics.params.described import from_description
from comics.weights.names import CLASS_LAYERS
from comics.weights.pickles import read_checkpoint
from comics.weights.transfer import STRIDES

Format = Literal["detectron2", "adelaidet", "mmdetection"]
FORMATS: tuple[str, ...] = get_args(Format)

DETECTORS: Mapping[str, tuple[str, ...]] = {
    "detectron2": ("mask_rcnn", "centermask"),
    "adelaidet": ("blendmask", "condinst", "meinst", "solov2"),
    "mmdetection": ("mask_rcnn", "ms_rcnn", "polarmask", "solo"),
}
"""The detectors that each project, or a well-known one on it, has a counterpart of whose names are known here: CenterMask is
centermask2's, PolarMask its authors'."""

Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]


def _rules(*lines: tuple[str, str | Callable[[re.Match[str]], str]]) -> list[Rule]:
    return [(re.compile(pattern), target) for pattern, target in lines]


_BODY, _STEM = r"extractor\.body\.", "backbone.bottom_up."


def _stage(match: re.Match[str]) -> str:
    return f"{_STEM}res{int(match[1]) + 1}.{match[2]}"


_DETECTRON2 = _rules(
    (_BODY + r"conv1\.weight", _STEM + "stem.conv1.weight"),
    (_BODY + r"bn1\.(\w+)", _STEM + r"stem.conv1.norm.\1"),
    (_BODY + r"layer(\d)\.(\d+)\.conv(\d)\.weight", lambda m: f"{_stage(m)}.conv{m[3]}.weight"),
    (_BODY + r"layer(\d)\.(\d+)\.bn(\d)\.(\w+)", lambda m: f"{_stage(m)}.conv{m[3]}.norm.{m[4]}"),
    (_BODY + r"layer(\d)\.(\d+)\.downsample\.0\.weight", lambda m: f"{_stage(m)}.shortcut.weight"),
    (_BODY + r"layer(\d)\.(\d+)\.downsample\.1\.(\w+)", lambda m: f"{_stage(m)}.shortcut.norm.{m[3]}"),
    (r"extractor\.fpn\.(p[67])\.(\w+)", r"backbone.top_block.\1.\2"),
)
_MMDETECTION = _rules(
    (_BODY + r"((?:conv1|bn1|layer\d)\..+)", r"backbone.\1"),
    (r"extractor\.fpn\.lateral\.(\d)\.(\w+)", r"neck.lateral_convs.\1.conv.\2"),
    (r"extractor\.fpn\.output\.(\d)\.(\w+)", r"neck.fpn_convs.\1.conv.\2"),
)
_MM_MASK_RCNN = _rules(
    (r"rpn\.head\.conv\.0\.0\.(\w+)", r"rpn_head.rpn_conv.\1"),
    (r"rpn\.head\.cls_logits\.(\w+)", r"rpn_head.rpn_cls.\1"),
    (r"rpn\.head\.bbox_pred\.(\w+)", r"rpn_head.rpn_reg.\1"),
    (r"roi_heads\.box_head\.fc([67])\.(\w+)", lambda m: f"roi_head.bbox_head.shared_fcs.{int(m[1]) - 6}.{m[2]}"),
    (r"roi_heads\.box_predictor\.cls_score\.(\w+)", r"roi_head.bbox_head.fc_cls.\1"),
    (r"roi_heads\.box_predictor\.bbox_pred\.(\w+)", r"roi_head.bbox_head.fc_reg.\1"),
    (r"roi_heads\.mask_head\.(\d)\.0\.(\w+)", r"roi_head.mask_head.convs.\1.conv.\2"),
    (r"roi_heads\.mask_predictor\.conv5_mask\.(\w+)", r"roi_head.mask_head.upsample.\1"),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits\.(\w+)", r"roi_head.mask_head.conv_logits.\1"),
)
_MM_MS_RCNN = _rules(
    (r"mask_iou_head\.convs\.(\d)\.(\w+)", r"roi_head.mask_iou_head.convs.\1.\2"),
    (r"mask_iou_head\.linears\.(\d)\.(\w+)", r"roi_head.mask_iou_head.fcs.\1.\2"),
    (r"mask_iou_head\.iou\.(\w+)", r"roi_head.mask_iou_head.fc_mask_iou.\1"),
)
_MM_SOLO = _rules(
    (r"mask_tower\.(\d)\.0\.(\w+)", r"mask_head.mask_convs.\1.conv.\2"),
    (r"mask_tower\.(\d)\.1\.(\w+)", r"mask_head.mask_convs.\1.gn.\2"),
    (r"category_tower\.(\d)\.0\.(\w+)", r"mask_head.cls_convs.\1.conv.\2"),
    (r"category_tower\.(\d)\.1\.(\w+)", r"mask_head.cls_convs.\1.gn.\2"),
    (r"masks\.(\d)\.(\w+)", r"mask_head.conv_mask_list.\1.\2"),
    (r"categories\.(\w+)", r"mask_head.conv_cls.\1"),
)


def _polar_layer(tower: str) -> Callable[[re.Match[str]], str]:
    """Towers listed as convolution, normalisation, ReLU, ..., to a module a layer."""
    return lambda m: f"bbox_head.{tower}.{int(m[1]) // 3}.{'gn' if int(m[1]) % 3 else 'conv'}.{m[2]}"


_MM_POLARMASK = _rules(
    (r"extractor\.fpn\.p([67])\.(\w+)", lambda m: f"neck.fpn_convs.{int(m[1]) - 3}.conv.{m[2]}"),
    (r"head\.cls_tower\.(\d+)\.(\w+)", _polar_layer("cls_convs")),
    (r"head\.bbox_tower\.(\d+)\.(\w+)", _polar_layer("reg_convs")),
    (r"mask_tower\.(\d+)\.(\w+)", _polar_layer("mask_convs")),
    (r"head\.cls_logits\.(\w+)", r"bbox_head.polar_cls.\1"),
    (r"head\.bbox_pred\.(\w+)", r"bbox_head.polar_reg.\1"),
    (r"head\.ctrness\.(\w+)", r"bbox_head.polar_centerness.\1"),
    (r"rays\.(\w+)", r"bbox_head.polar_mask.\1"),
    (r"head\.scales\.(\d)\.scale", r"bbox_head.scales_bbox.\1.scale"),
    (r"ray_scales\.(\d)\.scale", r"bbox_head.scales_mask.\1.scale"),
)
_MASK_RCNN = _rules(
    (r"rpn\.head\.conv\.0\.0\.(\w+)", r"proposal_generator.rpn_head.conv.\1"),
    (r"rpn\.head\.cls_logits\.(\w+)", r"proposal_generator.rpn_head.objectness_logits.\1"),
    (r"rpn\.head\.bbox_pred\.(\w+)", r"proposal_generator.rpn_head.anchor_deltas.\1"),
    (r"roi_heads\.box_head\.fc([67])\.(\w+)", lambda m: f"roi_heads.box_head.fc{int(m[1]) - 5}.{m[2]}"),
    (r"(roi_heads\.box_predictor\..+)", r"\1"),
    (r"roi_heads\.mask_head\.(\d)\.0\.(\w+)", lambda m: f"roi_heads.mask_head.mask_fcn{int(m[1]) + 1}.{m[2]}"),
    (r"roi_heads\.mask_predictor\.conv5_mask\.(\w+)", r"roi_heads.mask_head.deconv.\1"),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits\.(\w+)", r"roi_heads.mask_head.predictor.\1"),
)
_SOLOV2 = _rules(
    (r"cell_head\.category_tower\.(\d)\.(\d)\.(\w+)", lambda m: f"ins_head.cate_tower.{_third(m)}.{m[3]}"),
    (r"cell_head\.kernel_tower\.(\d)\.(\d)\.(\w+)", lambda m: f"ins_head.kernel_tower.{_third(m)}.{m[3]}"),
    (r"cell_head\.categories\.(\w+)", r"ins_head.cate_pred.\1"),
    (r"cell_head\.kernels\.(\w+)", r"ins_head.kernel_pred.\1"),
    (r"mask_branch\.levels\.(\d)\.(\d)\.(\d)\.(\w+)", r"mask_head.convs_all_levels.\1.conv\2.\3.\4"),
    (r"mask_branch\.mix\.(\d)\.(\w+)", r"mask_head.conv_pred.\1.\2"),
)
_BLENDMASK = _rules(
    (r"attention\.(\w+)", r"top_layer.\1"),
    (r"bottom\.(refine|tower)\.(\d)\.(\d)\.(\w+)", r"basis_module.\1.\2.\3.\4"),
    (r"bottom\.fine\.(\d)\.(\w+)", r"basis_module.tower.4.\1.\2"),
    (r"bottom\.bases\.(\w+)", r"basis_module.tower.5.\1"),
    (r"bottom\.semantic\.2\.(\w+)", r"basis_module.seg_head.6.\1"),
    (r"bottom\.semantic\.([01])\.(\d)\.(\w+)", lambda m: f"basis_module.seg_head.{_third(m)}.{m[3]}"),
)
_CONDINST = _rules(
    (r"controller\.(\w+)", r"controller.\1"),
    (r"branch\.(refine|tower)\.(\d)\.(\d)\.(\w+)", r"mask_branch.\1.\2.\3.\4"),
    (r"branch\.maps\.(\w+)", r"mask_branch.tower.4.\1"),
)
_CENTERMASK = _rules(
    (r"mask_head\.(\d)\.0\.(\w+)", lambda m: f"roi_heads.mask_head.mask_fcn{int(m[1]) + 1}.{m[2]}"),
    (r"attention\.conv\.(\w+)", r"roi_heads.mask_head.spatialAtt.conv.\1"),
    (r"mask_predictor\.conv5_mask\.(\w+)", r"roi_heads.mask_head.deconv.\1"),
    (r"mask_predictor\.mask_fcn_logits\.(\w+)", r"roi_heads.mask_head.predictor.\1"),
    (r"mask_iou_head\.convs\.(\d)\.(\w+)", lambda m: f"roi_heads.maskiou_head.maskiou_fcn{int(m[1]) + 1}.{m[2]}"),
    (r"mask_iou_head\.linears\.(\d)\.(\w+)", lambda m: f"roi_heads.maskiou_head.maskiou_fc{int(m[1]) + 1}.{m[2]}"),
    (r"mask_iou_head\.iou\.(\w+)", r"roi_heads.maskiou_head.maskiou.\1"),
)
_MEINST = _rules(
    (r"mask_tower\.(.+)", r"proposal_generator.MEInst_head.mask_tower.\1"),
    (r"code\.(\w+)", r"proposal_generator.MEInst_head.mask_pred.\1"),
    (r"components", "proposal_generator.mask_encoding.components"),
    (r"variances", "proposal_generator.mask_encoding.explained_variances"),
    (r"mean", "proposal_generator.mask_encoding.means"),
)


def _third(match: re.Match[str]) -> int:
    """Layer and part to a position in a list of convolution, normalisation, ReLU, ..."""
    return 3 * int(match[1]) + int(match[2])


def _fcos(head: str) -> list[Rule]:
    return _rules((r"head\.(.+)", rf"proposal_generator.{head}.\1"))


_HEADS: Mapping[str, list[Rule]] = {
    "mask_rcnn": _MASK_RCNN,
    "solov2": _SOLOV2,
    "blendmask": [*_fcos("fcos_head"), *_BLENDMASK],
    "condinst": [*_fcos("fcos_head"), *_CONDINST],
    "meinst": [*_fcos("MEInst_head"), *_MEINST],
    "centermask": [*_fcos("fcos_head"), *_CENTERMASK],
}
_MM_HEADS: Mapping[str, list[Rule]] = {
    "mask_rcnn": _MM_MASK_RCNN,
    "ms_rcnn": [*_MM_MASK_RCNN, *_MM_MS_RCNN],
    "solo": _MM_SOLO,
    "polarmask": _MM_POLARMASK,
}
_OURS_ALONE = re.compile(r"(.*\.)?num_batches_tracked|pixel_(mean|std)|anchors|" + re.escape(STRIDES))
"""No weights: what the file says in another way, or what is computed there."""


def _pyramid(finest: int) -> list[Rule]:
    return _rules(
        (r"extractor\.fpn\.lateral\.(\d)\.(\w+)", lambda m: f"backbone.fpn_lateral{finest + int(m[1])}.{m[2]}"),
        (r"extractor\.fpn\.output\.(\d)\.(\w+)", lambda m: f"backbone.fpn_output{finest + int(m[1])}.{m[2]}"),
    )


def foreign_name(form: str, detector: str, ours: str, finest: int = 3) -> str:
    """The name that `form` has for a tensor of a detector of ours; "" where there is none.

    Args:
        form: one of `FORMATS`.
        detector: the kind of detector.
        ours: name in its state dict.
        finest: the first level of its pyramid: 3 for P3.
    """
    theirs = [*_MMDETECTION, *_MM_HEADS.get(detector, [])]
    table = theirs if form == "mmdetection" else [*_DETECTRON2, *_pyramid(finest), *_HEADS[detector]]
    for pattern, target in table:
        if match := pattern.fullmatch(ours):
            return match.expand(target) if isinstance(target, str) else target(match)
    return ""


_WITH_BACKGROUND = {"mask_rcnn": ("roi_heads.",), "ms_rcnn": ("roi_heads.", "mask_iou_head.")}
"""Where class layers count the background."""


@dataclass
class Exported:
    """A detector as another project has it.

    Attributes:
        content: of the file.
        tensors: its weights, by the other project's names.
        config: what that project's configuration has to say for these weights to mean the same.
        left_out: tensors of the run that belong to no detector: attention, momentum copy, queues.
    """

    content: dict[str, Any]
    tensors: dict[str, Tensor]
    config: dict[str, Any]
    left_out: list[str] = field(default_factory=list)


def translate(detector: Detector, name: str, form: str) -> Exported:
    """`detector` (of the kind `name`) in the form of another project.

    The background's row comes last among the classes and has no box and no mask, as there. A detector whose bottlenecks
    halve the resolution in their first convolution came from BGR weights, and its first convolution is turned back.

    Args:
        detector: whose weights to take.
        name: its kind.
        form: one of `FORMATS`.

    Raises:
        UserError: the project has no such detector, or the detector has tensors (of a timm backbone, say) without
            counterpart, or other anchors than the project's.
    """
    if name not in DETECTORS[form]:
        homes = [other for other in FORMATS if name in DETECTORS[other]]
        raise UserError(
            f"--format {form}: the names that it has for a {name} are not known; it has {', '.join(DETECTORS[form])}.",
            f"--format {' or '.join(homes)} has one." if homes else "Without --format, safetensors are written.",
        )
    finest = detector.strides[0].bit_length() - 1
    state = detector.state_dict()
    bgr = bool(state[STRIDES]) if STRIDES in state else False
    deformable = {key.removesuffix(".offsets.weight") for key in state if key.endswith(".offsets.weight")}
    tensors: dict[str, Tensor] = {}
    unknown = []
    for ours, tensor in state.items():
        if _OURS_ALONE.fullmatch(ours):
            continue
        theirs = foreign_name(form, name, ours, finest)
        if not theirs:
            unknown.append(ours)
            continue
        layer, _, part = ours.rpartition(".")
        if layer.removesuffix(".offsets") in deformable:  # a module of two convolutions there
            theirs = (
                theirs.replace(".offsets.", ".offset.")
                if layer.endswith(".offsets")
                else f"{theirs[: -len(part)]}conv.{part}"
            )
        if CLASS_LAYERS.search(ours) and ours.startswith(_WITH_BACKGROUND.get(name, ())):
            tensor = _their_rows(ours, tensor)
        if bgr and ours == "extractor.body.conv1.weight":
            tensor = tensor.flip(1)
        tensors[theirs] = tensor.detach().cpu().contiguous().clone()
    if unknown:
        raise UserError(
            f"--format {form}: {len(unknown)} tensors of this {name} have no counterpart ({', '.join(unknown[:3])}, ...).",
            "ResNets have names there, and Mask R-CNN in mmdetection with the pyramid p2-p6. Without --format, safetensors are written.",
        )
    if "anchors" in state and not torch.equal(state["anchors"], detector.implied("detectron2")["anchors"]):
        raise UserError(
            f"--format {form}: the anchors of this {name} are not eight strides a side, which its files imply.",
            "Train it with `pyramid: p2-p6`, or from weights of that project. Without --format, safetensors are written.",
        )
    mean, std = (_statistics(state[f"pixel_{part}"], bgr) for part in ("mean", "std"))
    # In double precision: divided by 255 again, they are the same single-precision numbers.
    tensors |= {"pixel_mean": mean.view(3, 1, 1), "pixel_std": std.view(3, 1, 1)}
    config = _config(form, mean, std, bgr)
    if form == "adelaidet" and any(key.startswith("head.scales.") for key in state):
        config[f"MODEL.{'MEInst' if name == 'meinst' else 'FCOS'}.USE_SCALE"] = True
    if (form, name) == ("mmdetection", "polarmask"):
        config["bias=True of the ConvModules of cls_convs, reg_convs and mask_convs"] = True
    if form == "mmdetection":
        return Exported({"meta": {"config": config}, "state_dict": tensors}, tensors, config)
    return Exported({"model": tensors, "__author__": "comics" if bgr else "torchvision"}, tensors, config)


def _their_rows(ours: str, tensor: Tensor) -> Tensor:
    """Rows of a class layer, the background last, or none (`comics.weights.names.class_rows` the other way)."""
    if "cls_score" in ours:
        return torch.cat([tensor[1:], tensor[:1]])
    return tensor[4 if "bbox_pred" in ours else 1 :]


def _statistics(values: Tensor, bgr: bool) -> Tensor:
    found = values.detach().cpu().double().flatten() * 255
    return found.flip(0) if bgr else found


def _config(form: str, mean: Tensor, std: Tensor, bgr: bool) -> dict[str, Any]:
    means, stds = ([round(value, 4) for value in part.tolist()] for part in (mean, std))
    if form == "mmdetection":
        processor = {"mean": means, "std": stds, "bgr_to_rgb": not bgr}
        return {"model.backbone.style": "caffe" if bgr else "pytorch", "model.data_preprocessor": processor}
    return {
        "INPUT.FORMAT": "BGR" if bgr else "RGB",
        "MODEL.PIXEL_MEAN": means,
        "MODEL.PIXEL_STD": stds,
        "MODEL.RESNETS.STRIDE_IN_1X1": bgr,
    }


def write_foreign(path: str | os.PathLike[str], exported: Exported) -> None:
    """Write it as ``torch.save`` does, which is what all three read; whole or not at all."""
    with atomic_write(path) as beside:
        torch.save(exported.content, beside)


def export_foreign(source: str | os.PathLike[str], output: str | os.PathLike[str], form: str) -> Exported:
    """The detector in a run's model.pt, in the form of another project.

    Args:
        source: model.pt of a run.
        output: where to write.
        form: one of `FORMATS`.

    Returns:
        What was written; `Exported.left_out` names what the run has beside its detector.

    Raises:
        UserError: `source` is not a run's model, or `form` has no such detector.
    """
    content = read_checkpoint(source)
    if not isinstance(content, Mapping) or "state_dict" not in content or "description" not in content:
        raise UserError(f"{source}: not a run's model.", "Give model.pt of a trained run's folder.")
    run = from_description(content["description"], "", str(source))
    detector = build(run.detector, run.model.model_copy(update={"weights": "none"}), len(CLASSES), run.inference)
    inside = "detector."
    state = {key.removeprefix(inside): value for key, value in content["state_dict"].items() if key.startswith(inside)}
    detector.load_state_dict(state)
    exported = translate(detector, run.detector, form)
    exported.left_out = [key for key in content["state_dict"] if not key.startswith(inside)]
    write_foreign(output, exported)
    return exported
