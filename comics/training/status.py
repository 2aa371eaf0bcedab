"""How far a training is, told from process to process: what `comics runs --watch` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comics.errors import UserError
from comics.files import read_json

STATUS_SECONDS = 2.0
"""Between two renewals of the file."""
STATUS_NAME = ".progress.json"


def clock(seconds: float) -> str:
    """``1:02:03``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def read_status(folder: Path) -> dict[str, Any] | None:
    """How far the training of the run in `folder` is, as its process last told; None where none has told anything."""
    try:
        status = read_json(folder / STATUS_NAME)
    except UserError:
        return None
    return status if isinstance(status, dict) and {"step", "total", "loss", "left"} <= status.keys() else None


def describe_status(status: dict[str, Any]) -> str:
    """``step 120/200, loss 1.234, 12.3 images/s, 0:01:02 left``."""
    speed = status.get("images_per_second")
    rate = f", {speed:.3g} images/s" if speed else ""
    return f"step {status['step']}/{status['total']}, loss {status['loss']:.3f}{rate}, {clock(status['left'])} left"
