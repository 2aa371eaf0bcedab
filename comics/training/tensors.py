"""Writing tensors: what the disk says is told as it said it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

import torch

from comics.files import atomic_write


class _Listening:
    """A file that remembers why it could not be written: `torch.save` tells of a position instead."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        left = memoryview(content)
        try:
            while left:
                left = left[self.file.write(left) :]
        except OSError as error:
            self.error = error
            raise
        return len(content)

    def flush(self) -> None:
        self.file.flush()


def write_tensors(path: Path, content: Any, durable: bool = False) -> None:
    """Write `content` atomically, readable by ``torch.load(path, weights_only=True)``.

    Args:
        path: of the file.
        content: tensors, numbers and texts in dicts and lists.
        durable: wait until it is on the disk before it is renamed.

    Raises:
        OSError: it cannot be written; names `path`.
    """
    with atomic_write(path) as beside, beside.open("wb", buffering=0) as file:
        listening = _Listening(file)  # type: ignore[arg-type]
        try:
            torch.save(content, listening)  # type: ignore[arg-type]
        except (RuntimeError, OSError):
            if listening.error is None:
                raise
            raise OSError(listening.error.errno, listening.error.strerror, str(path)) from None
        if durable:
            os.fsync(file.fileno())
