"""Sidecars: what made a file, in ``<file>.meta.json`` beside it.

The digest of the run that made a checkpoint, prediction or score travels in its sidecar, so that a renderer can refuse
results whose run has since changed, naming the command that renews them. So does the SHA-256 of the file itself: what a
disk, a copy or a hand has changed since it was written is refused where it is read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comics.errors import UserError
from comics.files import file_digest, read_json, write_json


def sidecar_path(path: str | os.PathLike[str]) -> Path:
    """The sidecar of `path`: ``scores.csv`` has ``scores.csv.meta.json``."""
    return Path(f"{os.fspath(path)}.meta.json")


def write_sidecar(path: str | os.PathLike[str], fields: dict[str, Any]) -> None:
    """Write the sidecar of `path`, which is there: `fields` and the file's SHA-256 and size.

    Sorted by key, so that equal content is equal bytes.
    """
    sealed = {**fields, "sha256": file_digest(path), "bytes": os.path.getsize(path)}
    write_json(sidecar_path(path), dict(sorted(sealed.items())), indent=2)


def made_by(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The sidecar of `path` without what it tells of the file itself: for the sidecar of what is made from it."""
    return {key: value for key, value in read_sidecar(path).items() if key not in ("sha256", "bytes")}


def made_elsewhere(path: str | os.PathLike[str]) -> dict[str, Any]:
    """For the sidecar of what is made from `path`, a file of somebody else's, without a sidecar: its name, SHA-256 and digest,
    the first sixteen digits of that."""
    digest = file_digest(path)
    return {"detections": os.fspath(path), "detections_sha256": digest, "digest": digest[:16]}


def read_sidecar(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The sidecar of `path`, or an empty dict where there is none (a file of somebody else's, say)."""
    sidecar = sidecar_path(path)
    if not os.path.exists(sidecar):
        return {}
    fields = read_json(sidecar)
    if not isinstance(fields, dict):
        raise UserError(f"{sidecar}: expected a JSON object.", f"Remove it and make {path} again.")
    return fields


def is_intact(path: str | os.PathLike[str]) -> bool:
    """Whether `path`, which is there, is byte for byte what its sidecar was written for.

    Without a sidecar nothing is known against it; a sidecar that tells no SHA-256 is no sidecar of this version.
    """
    return fits(path, read_sidecar(path))


def fits(path: str | os.PathLike[str], fields: Mapping[str, Any]) -> bool:
    """As `is_intact`, where the sidecar has been read: `fields`."""
    if not fields:
        return True
    # The size is told by the file system; a file of another size need not be read.
    return fields.get("bytes") == os.path.getsize(path) and fields.get("sha256") == file_digest(path)


def require_intact(path: str | os.PathLike[str], remedy: str) -> None:
    """Refuse `path` where it is no longer what its sidecar was written for.

    Args:
        path: a file that is there.
        remedy: how to make it again.

    Raises:
        UserError: its bytes have changed.
    """
    if not is_intact(path):
        told = read_sidecar(path).get("sha256", "none")
        raise UserError(
            f"{path}: its bytes have changed since it was written (SHA-256 {file_digest(path)[:16]}, its sidecar "
            f"{sidecar_path(path).name} tells {str(told)[:16]}).",
            remedy,
        )
