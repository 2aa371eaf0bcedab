"""The files of a project beside the package: ``comics init`` writes them, and the build takes them into the wheel.

Nothing but the standard library is imported at the top: setup.py reads `FILES` before anything is installed.
"""

from __future__ import annotations

import re
from pathlib import Path

FILES = (
    "Snakefile",
    "workflow",
    "profiles",
    "params.yaml",
    "dvc.yaml",
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvcignore",
    ".gitignore",
    "reports/README.md",
    "results/README.md",
)
"""Files and folders of the repository that the workflow needs, besides the package."""

SHIPPED = "_project"
"""Folder of the installed package that holds `FILES`; a checkout has none, and its own files are taken."""


def files_below(root: Path) -> list[Path]:
    """Paths of `FILES` under `root`, relative to it, folders opened; without what Python and Snakemake leave in them."""
    found: list[Path] = []
    for name in FILES:
        path = root / name
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        found += [one.relative_to(root) for one in inside if not one.is_dir()]
    return [one for one in found if not {"__pycache__", ".snakemake"} & set(one.parts)]


def source() -> Path:
    """The folder that `FILES` are copied from: the installed package's, or the checkout's."""
    package = Path(__file__).parents[1]
    shipped = package / SHIPPED
    return shipped if shipped.is_dir() else package.parent


def init(folder: Path) -> list[Path]:
    """Write the project of this version into `folder`, which is made; files that are there and equal are left.

    Returns:
        The files that were written, relative to `folder`.

    Raises:
        UserError: `folder` has another file of one of the names, or is one itself; nothing is written then.
    """
    from comics.errors import UserError
    from comics.files import atomic_write

    root = source()
    if not (root / "Snakefile").exists():
        raise UserError(f"{root}: the package is incomplete, it has no Snakefile.", "Install comics-forensics again.")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file.", "Name a folder, which need not exist.")
    wanted = {path: (root / path).read_bytes() for path in files_below(root)}
    stages = Path("dvc.yaml")
    wanted[stages] = without_package(wanted[stages].decode()).encode()
    missing = [path for path in wanted if not (folder / path).exists()]
    other = [path for path in wanted if path not in missing and not same(folder / path, wanted[path])]
    if other:
        raise UserError(
            f"{folder} has other files of these names: {', '.join(map(str, other))}.",
            "Nothing was written. Name another folder, or move them away.",
        )
    for path in missing:
        with atomic_write(folder / path) as beside:
            beside.write_bytes(wanted[path])
    return missing


def same(path: Path, content: bytes) -> bool:
    """Whether `path` is a file of this content."""
    return path.is_file() and path.read_bytes() == content


def without_package(stages: str) -> str:
    """dvc.yaml without the stages' dependencies on the package's files, which are not in the project but installed."""
    return re.sub(r"^ *- comics/.*\n", "", stages, flags=re.MULTILINE)
