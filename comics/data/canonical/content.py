"""What a split is, byte for byte: one digest of its annotations and one of its images.

Every file is read once: ``<split>/.content.json`` remembers sizes, stamps and hashes, so that a second call asks the file
system only. A file whose stamps have changed is read again.
"""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comics.errors import UserError
from comics.files import read_json, write_json
from comics.progress import Progress, silent, told

CACHE_NAME = ".content.json"
_SETTLED = 2_000_000_000
"""Nanoseconds after its last change from which a file's stamps tell every further change."""
_DIGITS = 16
_THREADS = 4

Stamp = list[int]


@dataclass(frozen=True)
class Content:
    """What a split is.

    Attributes:
        annotations: digest of the annotation file.
        images: digest of the names, sizes and bytes of all images it names.
    """

    annotations: str
    images: str

    @property
    def facts(self) -> dict[str, str]:
        """For checkpoints, sidecars and run.json."""
        return {"annotations": self.annotations, "images": self.images}


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _settled(stamp: Stamp, now: int) -> bool:
    return now - max(stamp[1], stamp[2]) > _SETTLED


def content_of(annotations: Path, progress: Progress = silent) -> Content:
    """The content of the split whose canonical annotation file is `annotations`.

    Raises:
        UserError: the annotation file is not readable, or an image it names is missing.
    """
    folder = annotations.parent
    cache: dict[str, Any] = {}
    with suppress(UserError):
        read = read_json(folder / CACHE_NAME)
        cache = read if isinstance(read, dict) and isinstance(read.get("files"), dict) else {}
    known: dict[str, list[Any]] = dict(cache.get("files", {}))
    now = time.time_ns()
    files: dict[str, list[Any]] = {}

    def entry(name: str) -> list[Any]:
        path = folder / name
        try:
            stamp = _stamp(path)
            seen = known.get(name)
            return seen if seen is not None and seen[0] == stamp else [stamp, _hash(path)]
        except OSError as error:
            raise UserError(
                f"{path}: cannot be read ({error.strerror}).", "Check the dataset with `comics data verify`."
            ) from None

    files[annotations.name] = entry(annotations.name)
    if files[annotations.name] == known.get(annotations.name):
        names = [name for name in known if name != annotations.name]
    else:
        try:
            names = sorted({str(image["file_name"]) for image in read_json(annotations)["images"]})
        except (KeyError, TypeError):
            raise UserError(f"{annotations}: not a canonical COCO file.", "Make it again.") from None
    with ThreadPoolExecutor(_THREADS) as pool:
        entries = told(pool.map(entry, names), len(names), progress, f"reading {folder}")
        files.update(zip(names, entries, strict=True))
    if files != known:
        settled = {name: one for name, one in files.items() if _settled(one[0], now)}
        if annotations.name in settled and len(settled) < len(files):
            del settled[annotations.name]  # it vouches for the list of names, which would not be whole
        with suppress(OSError):  # a dataset that may not be written to is read each time
            if settled and os.access(folder, os.W_OK):
                write_json(folder / CACHE_NAME, {"files": settled})
    lines = "\n".join(f"{files[name][1]} {files[name][0][0]} {name}" for name in sorted(names))
    return Content(files[annotations.name][1][:_DIGITS], hashlib.sha256(lines.encode()).hexdigest()[:_DIGITS])
