"""Configuration files of detectron2 and AdelaiDet: what they build with our classes and thresholds, and the digest of what they say."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comics.errors import UserError
from comics.integrations.detectron2.package import part
from comics.params import InferenceParams

MOST_BASES = 64
"""Files that a configuration may be laid on: more are a circle."""

_BASE = re.compile(r"""^_BASE_:[ \t]*["']?([^"'#\n]+?)["']?[ \t]*(?:#.*)?$""", re.MULTILINE)
_RELATIVE = re.compile(r"^from[ \t]+(\.+)([\w.]*)[ \t]+import\b", re.MULTILINE)


def content_of(config: Path) -> str:
    """Digest of a configuration file and of those it is laid on (`_BASE_`, or a Python file's relative imports), ``missing`` where one
    is not there."""
    found: list[str] = []
    seen: list[Path] = []
    waiting = [config]
    while waiting:
        path = waiting.pop(0)
        if path in seen:
            continue
        if not path.is_file() or len(seen) == MOST_BASES:
            return "missing"
        seen.append(path)
        text = path.read_text(encoding="utf-8", errors="replace")
        found.append(hashlib.sha256(text.encode()).hexdigest())
        waiting += _bases(path, text)
    return hashlib.sha256(" ".join(found).encode()).hexdigest()[:16]


def _bases(path: Path, text: str) -> Iterator[Path]:
    """The files that a configuration names."""
    if path.suffix == ".py":
        for dots, name in _RELATIVE.findall(text):
            if not name:
                continue
            folder = path.parent.joinpath(*[".."] * (len(dots) - 1)).resolve()
            yield folder.joinpath(*name.split(".")).with_suffix(".py")
    elif base := _BASE.search(text):
        yield path.parent / Path(base[1]).expanduser()


@dataclass
class Built:
    """What a configuration describes.

    Attributes:
        model: the network, with fresh weights.
        weights: the checkpoint that it asks for; "" for none.
        image_format: ``BGR`` or ``RGB``.
    """

    model: Any
    weights: str
    image_format: str


def built(config: str, project: str, options: Sequence[str], num_classes: int, inference: InferenceParams) -> Built:
    """The model of a YAML file of detectron2 or AdelaiDet (`project`), on which `options` are laid, keys and values by turns.

    Raises:
        UserError: the package is not installed, or the file or an option does not fit.
    """
    found = part("adet.config" if project == "adelaidet" else "config").get_cfg()
    try:
        found.merge_from_file(config)
        found.merge_from_list(list(options))
    except (KeyError, ValueError, AssertionError, OSError) as error:
        raise _unfit(config, project, error) from None
    configure(found, num_classes, inference)
    if project == "adelaidet":
        part("adet.modeling")  # registers its meta-architectures
    return Built(part("modeling").build_model(found), str(found.MODEL.WEIGHTS), str(found.INPUT.FORMAT))


def _unfit(config: str, project: str, error: Exception) -> UserError:
    return UserError(
        f"{config}: not a configuration of {project} ({error}).", "`project: adelaidet` reads AdelaiDet's keys."
    )


def configure(config: Any, num_classes: int, inference: InferenceParams) -> None:
    """Set our number of classes and our thresholds in a `config` of ``get_cfg``, where it has keys for them."""
    for head in ("ROI_HEADS", "RETINANET", "FCOS", "MEInst", "SOLOV2"):
        part_of = getattr(config.MODEL, head, None)
        for key, value in (
            ("NUM_CLASSES", num_classes),
            ("SCORE_THRESH_TEST", inference.score_threshold),
            ("INFERENCE_TH_TEST", inference.score_threshold),
            ("NMS_THRESH_TEST", inference.nms_threshold),
            ("NMS_TH", inference.nms_threshold),
            ("UPDATE_THR", inference.score_threshold),  # SOLOv2's, behind its matrix NMS
            ("MAX_PER_IMG", inference.max_detections),
            ("POST_NMS_TOPK_TEST", inference.max_detections),  # of AdelaiDet's FCOS and MEInst
        ):
            if part_of is not None and hasattr(part_of, key):
                setattr(part_of, key, value)
    if getattr(config.MODEL, "BASIS_MODULE", None) is not None:
        config.MODEL.BASIS_MODULE.NUM_CLASSES = num_classes
    config.TEST.DETECTIONS_PER_IMAGE = inference.max_detections
    config.MODEL.DEVICE = "cpu"  # the trainer moves it


def lazily_built(
    config: str, project: str, options: Sequence[str], num_classes: int, inference: InferenceParams
) -> Built:
    """As `built`, of a Python file (detectron2's ``LazyConfig``), which is executed; its own FCOS has no other.

    The file's `model` is built; `train.init_checkpoint` are its weights.
    """
    package = part("config")
    try:
        found = package.LazyConfig.load(config)
        found = package.LazyConfig.apply_overrides(
            found, [f"{key}={value}" for key, value in zip(options[::2], options[1::2], strict=True)]
        )
        model = found["model"]
    except Exception as error:  # anything may happen in a program
        raise _unfit(config, project, error) from None
    heads = model.get("roi_heads") or {}
    for node in (model, heads, heads.get("box_predictor"), *(heads.get("box_predictors") or ())):
        for key, value in (
            ("num_classes", num_classes),
            ("test_score_thresh", inference.score_threshold),
            ("test_nms_thresh", inference.nms_threshold),
            ("test_topk_per_image", inference.max_detections),
            ("max_detections_per_image", inference.max_detections),
        ):
            if node and (key in node or key in _arguments(node)):
                node[key] = value
    read_as = found.get("dataloader", {}).get("train", {}).get("mapper", {}).get("image_format")
    weights = found.get("train", {}).get("init_checkpoint") or ""
    return Built(package.instantiate(model), str(weights), str(model.get("input_format") or read_as or "BGR"))


def _arguments(node: Any) -> Sequence[str]:
    """What the class of a lazily described object takes."""
    target = node.get("_target_")
    if isinstance(target, str):
        target = part("utils.registry").locate(target)
    return list(inspect.signature(target).parameters) if target is not None else []
