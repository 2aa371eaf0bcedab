"""Names of the COMICS authors' checkpoints beside their detector, which has AdelaiDet's, as commit 4f8e437 of their code gives them.

Their code writes all that a training needs: momentum copies, projections, queues, and layers that are made and never called.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

FAMILY = "authors"

SLACK = 8
"""Columns of a queue beyond its length, into which its code writes where a push does not fit."""

NEVER_CALLED = "made by the authors' code and never called"


@dataclass(frozen=True)
class Place:
    """Where a tensor belongs in a run's model.

    Attributes:
        target: the name in its state dict; "" for a tensor without use here.
        note: why there is none, or what was changed on the way.
        row: of `target`, where it holds one of many.
        convert: to the shape that `target`, or its row, has.
    """

    target: str
    note: str = ""
    row: int | None = None
    convert: Callable[[Tensor], Tensor] = lambda tensor: tensor


def _linear(tensor: Tensor) -> Tensor:
    """A 1x1 convolution (O, I, 1, 1), or its offset (O,), as of a linear layer."""
    return tensor.flatten(1) if tensor.ndim == 4 else tensor


def _queue(tensor: Tensor) -> Tensor:
    """(C, K + SLACK) to (K, C)."""
    return tensor[:, :-SLACK].T if tensor.ndim == 2 else tensor


def _one(tensor: Tensor) -> Tensor:
    return tensor.reshape(()) if tensor.numel() == 1 else tensor


_CLASS = {"real": 0, "ancor": 1, "fake": 1}


def _group(level: str, kind: str) -> int:
    """Row of a level and class in the memory: levels first."""
    return 2 * int(level) + _CLASS[kind]


_OUTPUTS = r"proposal_generator\.fcos_outputs\."
_HEAD = r"proposal_generator\.fcos_head\."
_MEMORY = "coarse.memory"

Rule = tuple[re.Pattern[str], Callable[[re.Match[str]], Place]]


def _rules(lines: Iterable[tuple[str, Callable[[re.Match[str]], Place]]]) -> list[Rule]:
    return [(re.compile(pattern), place) for pattern, place in lines]


BESIDE = _rules(
    [
        (r"backbone_k\.(.+)", lambda m: Place(f"momentum.module.extractor.{m[1]}")),
        (r"srm_sa\.conv\.([0134])\.(\w+)", lambda m: Place(f"attention.branch.{m[1]}.{m[2]}")),
        (r"srm_sa\.pa\.conv\.weight", lambda m: Place("attention.spatial.weight")),
        (r"srm_sa\.srm\.kernel", lambda m: Place("", "a constant: the three filters")),
        (r"srm_sa\.(pa1|conv1)\..+", lambda m: Place("", "of a second map, which is made and not used")),
        (r"srm_sa_post\.([0-2])\.0\.(\w+)", lambda m: Place(f"attention.post.{m[1]}.{m[2]}")),
        (r"srm_sa_post_k\.([0-2])\.0\.(\w+)", lambda m: Place(f"momentum.module.attention.post.{m[1]}.{m[2]}")),
        (r"srm_sa_post(_k)?\.[34]\..+", lambda m: Place("", NEVER_CALLED)),
        (r"SRMlayer_basis(_k)?\..+", lambda m: Place("", NEVER_CALLED)),
        (r"proposal_generator\.(SRMFeature_FCOS|fine|fine_srm)\..+", lambda m: Place("", NEVER_CALLED)),
        (_HEAD + r"refine\.(\d)\.(\w+)", lambda m: Place(f"coarse.projection.{m[1]}.{m[2]}", convert=_linear)),
        (
            _HEAD + r"refine_k\.(\d)\.(\w+)",
            lambda m: Place(f"coarse.key_projection.module.{m[1]}.{m[2]}", convert=_linear),
        ),
        (r"blender\.conv_layer\.(\w+)", lambda m: Place(f"fine_projection.{m[1]}")),
        (
            _OUTPUTS + r"hard_(real|fake)_queue_(\d)",
            lambda m: Place(f"{_MEMORY}.queue", row=_group(m[2], m[1]), convert=_queue),
        ),
        (
            _OUTPUTS + r"(real|fake)_queue_ptr_hard_(\d)",
            lambda m: Place(f"{_MEMORY}.head", row=_group(m[2], m[1]), convert=_one),
        ),
        (_OUTPUTS + r"(real|ancor)_queue_(\d)", lambda m: Place(f"{_MEMORY}.prototype", row=_group(m[2], m[1]))),
        (_OUTPUTS + r"(real|ancor)_queue", lambda m: Place("", "of a function that is never called")),
    ]
)


def beside(source: str) -> Place | None:
    """Where a tensor that is not the detector's belongs; None for one of the detector, or unknown."""
    for pattern, place in BESIDE:
        if match := pattern.fullmatch(source):
            return place(match)
    return None


def wanted(target: str) -> str:
    """What of a run has the tensor `target`, for the account of one that has not."""
    for start, what in (
        ("attention.", "the attention of their code (attention: {inputs: image, identity: true, design: code})"),
        ("momentum.module.attention.", "the attention of their code, and coarse contrast"),
        ("momentum.", "coarse contrast"),
        ("coarse.projection.", "objective.coarse.projection"),
        ("coarse.key_projection.", "objective.coarse.projection"),
        ("coarse.", "coarse contrast of that level"),
        ("fine_projection.", "objective.fine.projection"),
    ):
        if target.startswith(start):
            return f"the run has not {what}"
    return "the run has no such tensor"
