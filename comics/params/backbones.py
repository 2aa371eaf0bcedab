"""The names that `backbone:` takes, told without importing a model."""

from __future__ import annotations

import difflib
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
TIMM = "timm/"


@cache
def timm_models() -> frozenset[str]:
    """Every model that timm registers, read from its source: importing it takes seconds."""
    spec = find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    folder = Path(next(iter(spec.submodule_search_locations))) / "models"
    registered = re.compile(r"^@register_model\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)
    return frozenset(name for file in folder.glob("*.py") for name in registered.findall(file.read_text("utf-8")))


def check_backbone(name: str) -> str:
    """`name`, where a backbone has it. The tag of timm's weights behind a dot (``vit_tiny_patch16_224.augreg_in21k``) is left
    to timm.

    Raises:
        ValueError: no backbone has this name.
    """
    if name in RESNETS:
        return name
    if name.startswith(TIMM) and name.removeprefix(TIMM).split(".")[0] in timm_models():
        return name
    valid = RESNETS if TIMM not in name else [TIMM + model for model in timm_models()]
    near = difflib.get_close_matches(name.split(".")[0], valid, n=1, cutoff=0.5)
    hint = f"Did you mean '{near[0]}'?" if near else "`comics detectors --backbones` lists those known to work."
    raise ValueError(f"there is no backbone '{name}'. {hint}")
