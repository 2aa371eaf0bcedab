"""The detectors that there are, and the settings that each of them declares in its own file.

A detector of this package is a file of ``comics/detectors`` with a class ``Settings(DetectorSettings)``; the file's name is
the detector's. params.yaml is read by every command, and importing torch takes seconds, so only that class is executed
here, not the file: it may use pydantic, typing and `comics.params.block`, imported by lines of the form ``from ... import
...``. A detector from outside is named by its place, ``my_module:MyDetector``, or by an entry point of the group
`ENTRY_POINTS`, and is imported.
"""

from __future__ import annotations
import __future__

import importlib
import linecache
import re
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from comics.errors import UserError, did_you_mean
from comics.params.block import Block

ENTRY_POINTS = "comics.detectors"

_BRIDGES = {"detectron2": "comics.integrations.detectron2:Detectron2Detector"}
"""Detectors of this package that need another one: nobody's import is slower for them, and nothing lists them."""

_FOLDER = Path(__file__).parents[1] / "detectors"
_SETTINGS = re.compile(r"^class Settings\(DetectorSettings\):\n(?:[ \t].*\n|\n)+", re.MULTILINE)
_IMPORT = re.compile(
    r"^from (?:pydantic|typing|comics\.params\.(?:block|detectors)) import (?:\([^)]*\)|.*)\n", re.MULTILINE
)
_registered: dict[str, type[DetectorSettings]] = {}


class DetectorSettings(Block):
    """What one detector alone needs to know. In params.yaml it stands under the detector's name, in a `model`.

    A detector's file subclasses it as ``Settings``, fields with defaults and docstrings as in any `Block`.
    """

    published_inference: ClassVar[Mapping[str, Any]] = {}
    """Where the published inference differs from the defaults of `comics.params.InferenceParams`, which are FCOS's."""
    training_code: ClassVar[int] = 0
    """Raised by hand with a change of the detector that trains other weights: renews its runs alone, where
    `TRAINING_CODE_VERSION` renews all."""
    later: ClassVar[tuple[str, ...]] = ()
    """Settings that runs before them do not know: no part of a digest while they have their default."""
    prepared: ClassVar[tuple[str, ...]] = ()
    """Files of the dataset's folder that training needs beside the images; a step of the workflow makes each."""

    def of_checkpoint(self) -> DetectorSettings:
        """The same for a network that gets its trained weights: no initial ones are read."""
        return self

    def unknown(self) -> set[str]:
        """Those of `later` that have their default."""
        return {name for name in self.later if getattr(self, name) == type(self).model_fields[name].default}

    def contents(self) -> dict[str, str]:
        """Setting -> digest of the content of the file that it names, where that decides the network: part of a run's digest."""
        return {}


@cache
def _built_in() -> dict[str, type[DetectorSettings]]:
    found = {}
    for path in sorted(_FOLDER.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        declared = _SETTINGS.search(source)
        if declared is None:
            continue
        code = "".join(part.group() for part in [*_IMPORT.finditer(source[: declared.start()]), declared])
        # A name of its own, and not the file's: under that one inspect, which finds the docstrings of fields, knows the
        # module that torch comes with.
        name = f"<settings of {path.stem}>"
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        module = ModuleType(f"{__name__}.{path.stem}")
        module.__file__ = name
        sys.modules[module.__name__] = module
        exec(compile(code, name, "exec", __future__.annotations.compiler_flag), module.__dict__)
        found[path.stem] = module.Settings
    return found


def declare(name: str, settings: type[DetectorSettings]) -> None:
    """Make a detector known by `name` for the rest of the process."""
    _registered[name] = settings


def names() -> list[str]:
    """The detectors of this package and those declared since."""
    return [*_built_in(), *(name for name in _registered if name not in _built_in())]


def is_built_in(name: str) -> bool:
    """Whether `name` is that of a file of this package."""
    return name in _built_in()


def settings_of(name: str) -> type[DetectorSettings]:
    """The class of the settings of `name`: a detector of this package, ``module:Class``, or an entry point's name.

    Raises:
        UserError: there is no such detector.
    """
    if name in _built_in():
        return _built_in()[name]
    if name not in _registered:
        declare(name, external(name).Settings)
    return _registered[name]


def is_outside(name: str) -> bool:
    """Whether `name` can only be that of a detector from outside: ``module:Class`` or an entry point's name."""
    return ":" in name or name in _registered or name in _entry_points()


@cache
def _entry_points() -> dict[str, str]:
    from importlib.metadata import entry_points

    return _BRIDGES | {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}


def external(name: str) -> Any:
    """The class of a detector from outside of this package; its module is imported.

    Args:
        name: ``module:Class``, the module in the current folder or installed; or the name of an entry point.

    Raises:
        UserError: it cannot be imported, or is no detector.
    """
    place = name if ":" in name else _entry_points().get(name)
    if place is None:
        raise UserError(f"There is no detector '{name}'.", did_you_mean(name, names()))
    module, _, attribute = place.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        detector = getattr(importlib.import_module(module), attribute)
    except (ImportError, ValueError, AttributeError) as error:
        raise UserError(
            f"detector '{name}': cannot be imported ({error}).",
            "Write module:Class, of a module in the project's folder or installed beside comics.",
        ) from None
    if not (isinstance(getattr(detector, "Settings", None), type) and issubclass(detector.Settings, DetectorSettings)):
        raise UserError(
            f"detector '{name}': {attribute} is no detector, it has no Settings.",
            "docs/add-a-detector.md shows what one is made of.",
        )
    return detector
