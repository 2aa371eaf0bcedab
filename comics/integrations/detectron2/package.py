"""The one place that imports detectron2."""

from __future__ import annotations

import importlib
from typing import Any

from comics.errors import UserError


def part(name: str = "") -> Any:
    """The module ``detectron2.<name>``, or one of AdelaiDet where `name` begins with ``adet``.

    Raises:
        UserError: the package is not installed, or does not import.
    """
    root = "adet" if name.split(".")[0] == "adet" else "detectron2"
    module = name if root == "adet" else f"detectron2.{name}".rstrip(".")
    try:
        return importlib.import_module(module)
    except ImportError as error:
        project = "AdelaiDet" if root == "adet" else "detectron2"
        raise UserError(
            f"{project} is needed here and cannot be imported ({error}).",
            f"It is on no package registry: install it from its source beside comics, as {project}'s INSTALL file says, with "
            f"the torch that is here; docs/interplay.md.",
        ) from None
