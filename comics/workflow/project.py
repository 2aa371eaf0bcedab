"""The files of a project beside the package: ``comics init`` writes them, and the build takes them into the wheel.

Nothing but the standard library is imported at the top: setup.py reads `FILES` before anything is installed.
"""

from __future__ import annotations

import json
import re
import subprocess
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


BUILT = "_build.json"
"""File of the installed package with its version and commit (`comics.__version__`)."""


def git(folder: Path, *arguments: str) -> str:
    """What git answers in the repository whose top is `folder`; empty without one."""
    if not (folder / ".git").exists():  # not one that the environment happens to lie in
        return ""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def commit_of(package: Path) -> str:
    """The commit that the package was built from, or that is checked out around it; empty where nobody knows."""
    if (package / BUILT).exists():
        return str(json.loads((package / BUILT).read_text(encoding="utf-8"))["commit"])
    return git(package.parent, "rev-parse", "HEAD")


def version_of(described: str, base: str) -> str:
    """The version of a build, after PEP 440.

    Args:
        described: ``git describe --tags --long --match 'v*'`` (such as ``v0.1.0-3-g1a2b3c4``); empty without a tag.
        base: `comics.BASE_VERSION`.

    Raises:
        ValueError: the commit is tagged as another version than the code says.
    """
    found = re.fullmatch(r"v(.+)-(\d+)-g([0-9a-f]+)", described)
    if found is None:
        return base
    tagged, count, commit = found.groups()
    if count == "0":
        if tagged != base:
            raise ValueError(f"the commit is tagged v{tagged}, but comics/__init__.py says {base}")
        return base
    return f"{base}.{'post' if tagged == base else 'dev'}{count}+g{commit}"


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
