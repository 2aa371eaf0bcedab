"""Tensors of a checkpoint into a detector, with an account of every one of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from comics.detectors.backbone import TimmBody
from comics.detectors.base import Detector
from comics.errors import UserError
from comics.weights.checkpoint import Checkpoint, recognise, refuse_unsupported
from comics.weights.finite import require_finite
from comics.weights.names import CLASS_LAYERS, class_rows, rename
from comics.weights.pickles import read_checkpoint

STRIDES = "extractor.body.stride_in_1x1"  # the buffer that says where a bottleneck halves the resolution

COMPLETE = 0.95
"""Least share of a detector's numbers, or of its backbone's where the file is one's, that a complete file sets."""

UNKNOWN = "no counterpart"
"""The note of a tensor whose name is in no table."""

Status = Literal["used", "replaced", "mismatched", "skipped"]


@dataclass(frozen=True)
class Entry:
    """What became of one tensor of the file.

    Attributes:
        source: its name in the file.
        target: the name it has in the detector, or "" where it has no counterpart.
        status: used; replaced (a class layer of another class count: the detector keeps its fresh one); mismatched
            (another shape); skipped (no counterpart).
        shape: in the file.
        expected: in the detector.
        note: why, or what was changed on the way.
    """

    source: str
    target: str
    status: Status
    shape: tuple[int, ...]
    expected: tuple[int, ...] | None = None
    note: str = ""


@dataclass
class Report:
    """The account of one import.

    Attributes:
        file: what was read.
        family: whose form it has: see `comics.weights.checkpoint`.
        detector: what it was read into.
        channel_order: of the images that the file's first convolution expects; the import turns it to RGB.
        pixel_mean: of the file, RGB, for images in [0, 1]; likewise `pixel_std`.
        entries: one a tensor of the file, in its order.
        missing: parameters and buffers of the detector that the file did not set.
        whole: what the file is taken for: "detector", or "backbone" where it has nothing else.
        share: of its numbers that are set, of the backbone or of the rest, whichever is less; layers of another number of
            classes count as set.
        partial: whether the file says itself that it is a part.
    """

    file: str
    family: str
    detector: str
    channel_order: str
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    stride_in_1x1: bool
    entries: list[Entry] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    whole: str = "detector"
    share: float = 1.0
    partial: bool = False

    @property
    def complete(self) -> bool:
        """Whether `share` is at least `COMPLETE`."""
        return self.share >= COMPLETE

    def of(self, *statuses: Status) -> list[Entry]:
        """The entries with one of `statuses`."""
        return [entry for entry in self.entries if entry.status in statuses]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def transfer(detector: Detector, name: str, checkpoint: Checkpoint) -> tuple[dict[str, Tensor], Report]:
    """The tensors of `checkpoint` that `detector` (of the kind `name`) can take, under its own names.

    Nothing is written into the detector. The first convolution's channels are turned to RGB, and the file's pixel mean
    and deviation become the detector's, so that its images in [0, 1] mean what the file's meant.

    Raises:
        UserError: the file is of a detector with parts that there are none of here, or none in `detector`.
    """
    refuse_unsupported(checkpoint)
    state = detector.state_dict()
    report = Report(
        file=checkpoint.file,
        family=checkpoint.family,
        detector=name,
        channel_order=checkpoint.channel_order,
        pixel_mean=checkpoint.pixel_mean,
        pixel_std=checkpoint.pixel_std,
        stride_in_1x1=checkpoint.stride_in_1x1,
    )
    taken: dict[str, Tensor] = {}
    for source, original in checkpoint.tensors.items():
        target, note = rename(name, checkpoint.family, source, detector.strides[0].bit_length() - 1)
        tensor = original
        if target and CLASS_LAYERS.search(target):
            tensor, extra = class_rows(checkpoint.family, target, original)
            note = note or extra
        if tensor.ndim == 0 and target in state and state[target].shape == (1,):  # mmdetection's scales of levels
            tensor = tensor.view(1)
        entry = _judge(source, target, note, tensor, original, state, taken)
        if entry.status == "used":
            if target.endswith("conv1.weight") and tensor.ndim == 4 and tensor.shape[1] == 3:
                tensor, entry = _to_rgb(tensor, entry, checkpoint.channel_order)
            taken[target] = tensor.to(state[target].dtype).contiguous()
        if target.endswith("offsets.weight") and entry.status != "used":
            raise UserError(
                f"{checkpoint.file}: has deformable layers ({source}) that this {name} has not, or of another kind.",
                f"Import it for a run with `model: {{{name}: {{deformable: {'v2' if len(tensor) == 27 else 'v1'}}}}}`.",
            )
        report.entries.append(entry)
    if checkpoint.family not in ("comics", "timm") and taken:
        taken["pixel_mean"] = torch.tensor(checkpoint.pixel_mean).view_as(state["pixel_mean"])
        taken["pixel_std"] = torch.tensor(checkpoint.pixel_std).view_as(state["pixel_std"])
        taken[STRIDES] = torch.tensor(checkpoint.stride_in_1x1)
    if any(key.startswith("rpn.") for key in taken):
        taken |= detector.implied(checkpoint.family)
    report.missing = [key for key in state if key not in taken and not key.endswith("num_batches_tracked")]
    _measure(report, state, checkpoint.partial)
    return taken, report


def _measure(report: Report, state: dict[str, Tensor], partial: bool) -> None:
    """Set `whole`, `share` and `partial` of a report from its entries."""
    body = "extractor.body."
    done = {entry.target for entry in report.of("used", "replaced")}
    heads = any(not target.startswith((body, "pixel_")) for target in done)
    report.whole, report.partial = ("detector" if heads or not done else "backbone"), partial
    missing = {*report.missing} - done
    counts = {True: [0, 0], False: [0, 0]}  # of the backbone, of the rest: all and missing numbers
    for name, tensor in state.items():
        if tensor.is_floating_point():
            counts[name.startswith(body)][0] += tensor.numel()
            counts[name.startswith(body)][1] += tensor.numel() if name in missing else 0
    parts = (True, False) if report.whole == "detector" else (True,)
    report.share = min(1 - counts[part][1] / max(counts[part][0], 1) for part in parts)


def _judge(
    source: str,
    target: str,
    note: str,
    tensor: Tensor,
    original: Tensor,
    state: dict[str, Tensor],
    taken: Iterable[str],
) -> Entry:
    shape = tuple(original.shape)
    if not target:
        return Entry(source, "", "skipped", shape, None, note or UNKNOWN)
    if target not in state:
        return Entry(source, target, "skipped", shape, None, "the detector has no such tensor")
    if target in taken:
        return Entry(source, target, "skipped", shape, None, "another tensor of the file came first")
    expected = tuple(state[target].shape)
    if tuple(tensor.shape) == expected:
        return Entry(source, target, "used", shape, expected, note)
    if CLASS_LAYERS.search(target) and tensor.shape[1:] == state[target].shape[1:]:
        return Entry(source, target, "replaced", shape, expected, "another number of classes")
    return Entry(source, target, "mismatched", shape, expected, "another shape")


def _to_rgb(tensor: Tensor, entry: Entry, order: str) -> tuple[Tensor, Entry]:
    if order == "rgb":
        return tensor, entry
    turned = Entry(entry.source, entry.target, entry.status, entry.shape, entry.expected, "channels turned, BGR to RGB")
    return tensor.flip(1), turned


def read(path: str | os.PathLike[str], channel_order: str = "auto", detector: Detector | None = None) -> Checkpoint:
    """A checkpoint of any known family.

    Args:
        path: the file.
        channel_order: "bgr", "rgb", or "auto" to take what its family uses.
        detector: which it is for: a file of timm is known by the names of its backbone.

    Raises:
        UserError: the file cannot be read, holds no tensors, or one with a number that is not finite.
    """
    body = getattr(getattr(detector, "extractor", None), "body", None)
    names = list(body.inner.state_dict()) if isinstance(body, TimmBody) else []
    checkpoint = recognise(read_checkpoint(path), os.fspath(path), channel_order, names)
    require_finite(
        checkpoint.tensors, os.fspath(path), "Its training went wrong, or the file is damaged: take another."
    )
    return checkpoint


def load_into(
    detector: Detector,
    name: str,
    path: str | os.PathLike[str],
    channel_order: str = "auto",
    partial: bool = False,
) -> Report:
    """Initialise `detector` (of the kind `name`) from a checkpoint file; what the file lacks keeps its fresh values.

    Raises:
        UserError: the file cannot be read, nothing in it fits, or it sets less than a complete file would and neither
            `partial` nor the file itself says that this is meant.
    """
    return load_checkpoint(detector, name, read(path, channel_order, detector).of_detector(), partial)


def load_checkpoint(detector: Detector, name: str, checkpoint: Checkpoint, partial: bool = False) -> Report:
    """`load_into` of a checkpoint that was read."""
    taken, report = transfer(detector, name, checkpoint)
    require_used(report, partial)
    detector.load_state_dict(taken, strict=False)
    return report


def require_used(report: Report, partial: bool = False) -> None:
    """Refuse a checkpoint of which nothing fits, or, unless `partial`, too little.

    Raises:
        UserError: the report has no used entry, or is not complete.
    """
    if all(entry.target.startswith("pixel_") for entry in report.of("used")):
        names = ", ".join(entry.source for entry in report.entries[:3]) or "none"
        raise UserError(
            f"{report.file}: none of its {len(report.entries)} tensors ({names}, ...) fits a {report.detector}.",
            "Check that the file belongs to this detector or to its backbone, and the width of the run's model; a run that the preset "
            "has start from another (`start:`) takes `start: null`.",
        )
    if not (report.complete or partial or report.partial):
        lacking = ", ".join(report.missing[:3])
        raise UserError(
            f"{report.file}: sets {100 * report.share:.1f} % of a part of a {report.detector}'s {report.whole}; not {lacking}, ...",
            "If that is meant: `comics weights import --partial` writes a file that says so, for `weights:`.",
        )
