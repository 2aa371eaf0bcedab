"""What the machine can compute in, and what it is called."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from comics.machine import cores
from comics.training.devices import device as device
from comics.training.precision import Measured, computes_bf16, measured

PACKAGES = (
    "torch",
    "torchvision",
    "pytorch-lightning",
    "numpy",
    "pandas",
    "pycocotools",
    "hotcoco",
    "snakemake",
    "dvc",
)


def autocast_dtype(precision: str, on: torch.device) -> torch.dtype:
    """The dtype that `precision` (``auto``, ``bf16`` or ``fp32``) means on device `on`."""
    if precision == "bf16":
        return torch.bfloat16
    found = precision_measured(on) if precision == "auto" else None
    return torch.float32 if found is None else found.dtype


def precision_measured(on: torch.device) -> Measured | None:
    """How long float32 and bf16 take on `on`; None where it does not compute in bf16 at all."""
    return measured(on, device_name(on)) if computes_bf16(on) else None


def device_name(on: torch.device) -> str:
    """What people call `on`."""
    return torch.cuda.get_device_name(on) if on.type == "cuda" else _processor()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def hardware(on: torch.device) -> dict[str, str | int]:
    """Name and size of what `on` is, for run.json and ``comics doctor``."""
    facts: dict[str, str | int] = {
        "device": device_name(on),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if on.type == "cuda":
        facts["device_memory"] = torch.cuda.get_device_properties(on).total_memory
    return facts


def gpu_uuid(on: torch.device) -> str | None:
    """The name by which NVIDIA's tools know the GPU `on`; None for anything else."""
    if on.type != "cuda" or torch.version.hip:
        return None
    return str(torch.cuda.get_device_properties(on).uuid)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide numbers; those that are missing are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state(package: Path = Path(__file__).parents[1]) -> dict[str, Any]:
    """The commit of the code and whether files differ from it, for run.json only: a digest never depends on it.

    Args:
        package: its folder. One that no git has (installed, though in an environment within some repository) has no commit.

    Returns:
        ``commit`` and ``uncommitted_changes``: of tracked files of the whole project, or new files in the package.
    """

    def git(*arguments: str) -> str | None:
        try:
            answer = subprocess.run(["git", *arguments], cwd=package, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return answer.stdout.strip() if answer.returncode == 0 else None

    commit = git("rev-parse", "HEAD") if git("ls-files", "--error-unmatch", "__init__.py") else None
    if not commit:
        return {"commit": None, "uncommitted_changes": None}
    found = [git("status", "--porcelain", "--untracked-files=no"), git("status", "--porcelain", "--", ".")]
    return {"commit": commit, "uncommitted_changes": None if None in found else any(found)}
