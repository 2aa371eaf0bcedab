"""Sidecars: what made a file, in ``<file>.meta.json`` beside it.

The digest of the run that made a checkpoint, prediction or score travels in its sidecar, so that a renderer can refuse
results whose run has since changed, naming the command that renews them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from comics.errors import UserError
from comics.files import read_json, write_json


def sidecar_path(path: str | os.PathLike[str]) -> Path:
    """The sidecar of `path`: ``scores.csv`` has ``scores.csv.meta.json``."""
    return Path(f"{os.fspath(path)}.meta.json")


def write_sidecar(path: str | os.PathLike[str], fields: dict[str, Any]) -> None:
    """Write the sidecar of `path`, sorted by key so that equal content is equal bytes."""
    write_json(sidecar_path(path), dict(sorted(fields.items())), indent=2)


def read_sidecar(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The sidecar of `path`, or an empty dict where there is none (a file of somebody else's, say)."""
    sidecar = sidecar_path(path)
    if not sidecar.exists():
        return {}
    fields = read_json(sidecar)
    if not isinstance(fields, dict):
        raise UserError(f"{sidecar}: expected a JSON object.", f"Remove it and make {path} again.")
    return fields


def require_digest(path: str | os.PathLike[str], digest: str, renew: str) -> dict[str, Any]:
    """The sidecar of `path`, made by the run with `digest`.

    Raises:
        UserError: when the file or its sidecar is missing, or tells another digest; the remedy is the command `renew`.
    """
    if not Path(path).exists():
        raise UserError(f"{path}: no such result.", f"Make it with: {renew}")
    fields = read_sidecar(path)
    if fields.get("digest") != digest:
        raise UserError(
            f"{path}: its run has changed since ({fields.get('digest', 'no digest')}, params.yaml gives {digest}).",
            f"Renew it with: {renew}",
        )
    return fields
