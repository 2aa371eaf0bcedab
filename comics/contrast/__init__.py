"""Bi-grained contrastive learning (sections IV and V of the paper), and the dual one of DCL, which it is compared with.

`momentum` and `memory` hold what lives from step to step; the losses are functions of tensors. Nothing here knows a
detector: it sees pyramid maps, one box per proposal, and mask features of boxes.
"""

from comics.contrast.coarse import CoarseContrast
from comics.contrast.dual import DualContrast
from comics.contrast.fine import fine_losses
from comics.contrast.flatnce import against_queue, flatnce, infonce
from comics.contrast.memory import Memory
from comics.contrast.momentum import MomentumCopy

__all__ = [
    "CoarseContrast",
    "DualContrast",
    "Memory",
    "MomentumCopy",
    "against_queue",
    "fine_losses",
    "flatnce",
    "infonce",
]
