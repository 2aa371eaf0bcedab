"""Running commands that are expected to fail well."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from comics.errors import UserError

ROOT = Path(__file__).parents[2]
HANGS = 600
"""Seconds after which a command is held to hang: far more than a busy machine needs for one."""


def environment(**more: str) -> dict[str, str]:
    """This process's, with the environment's programs and the package under test."""
    inherited = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    python = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {**inherited, "PATH": path, "PYTHONPATH": python, "NO_COLOR": "1", "COLUMNS": "200", **more}


def comics(*words: object, cwd: Path, timeout: float = HANGS, **more: str) -> subprocess.CompletedProcess[str]:
    """Run ``comics`` in a process of its own, bounded in time; output of both streams in one text."""
    return subprocess.run(
        [sys.executable, "-m", "comics", *map(str, words)],
        cwd=cwd,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )


def message_of(call: Callable[[], object]) -> str | None:
    """What a `UserError` of `call` says; None where it goes well. Anything else escapes."""
    try:
        call()
    except UserError as error:
        return str(error)
    return None


def refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """The command ended with code 2, a message that names all `parts`, and no traceback."""
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stdout, done.stdout
    for part in parts:
        assert part in done.stdout, done.stdout
