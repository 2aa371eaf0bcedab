"""Files that are either whole or absent: written beside, then renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from comics.errors import UserError

_digests: dict[str, tuple[tuple[int, ...], str]] = {}
_SETTLED = 2_000_000_000
"""Nanoseconds after its last change from which a file's time stamps tell every further change."""
_SMALL = 2**18


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, as hexadecimal digits; computed once a process, until the file's stamps change."""
    key = os.path.abspath(path)
    with open(path, "rb") as opened:
        status = os.fstat(opened.fileno())
        stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known = _digests.get(key)
        if known is not None and known[0] == stamp:
            return known[1]
        if status.st_size <= _SMALL:  # `file_digest` clears a quarter of a megabyte for its buffer first
            digest = hashlib.sha256(opened.read()).hexdigest()
        else:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED:
        _digests[key] = stamp, digest
    return digest


_LONG_NAME, _CUT = 240, 50
"""Bytes of a name that leave no room for what a temporary name has more, of 255; characters that are left of its stem."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a write is told where there is no room for it: on the disk, for the user, in a file."""


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends well, remove it otherwise.

    Folders on the way are made. The temporary name keeps the suffix, for writers that choose a format by it.

    Raises:
        OSError: of `FULL` where there is no room, also where the writer in the block told it in another way; it names
            `path` and how much was needed at least.
    """
    target, written = Path(path), 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        stem = target.stem if len(os.fsencode(target.name)) < _LONG_NAME else target.stem[:_CUT]
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{stem}.", suffix=target.suffix)
        os.close(handle)
        beside = Path(name)
        try:
            yield beside
            umask = os.umask(0)
            os.umask(umask)
            beside.chmod(0o666 & ~umask)  # mkstemp makes files private; results are to be shared
            os.replace(beside, target)
        except BaseException:
            with suppress(OSError):
                written = beside.stat().st_size
            beside.unlink(missing_ok=True)
            raise
    except Exception as error:
        full = _no_room(target, written, error)
        if full is None:
            raise
        raise full from error


def _no_room(target: Path, written: int, error: Exception) -> OSError | None:
    """The error that tells of a full disk, where `error` of writing `target` comes of one."""
    try:
        free = shutil.disk_usage(target.parent).free + written  # what was written is removed again
    except OSError:
        return None
    if isinstance(error, OSError):
        code = error.errno if error.errno in FULL else None
    else:  # some writers have their own errors for everything
        code = errno.ENOSPC if free <= written + 4096 and not isinstance(error, UserError) else None
    if code is None:
        return None
    why = f"{os.strerror(code)}: more than {max(written, 1):,} bytes are needed, {free:,} are free"
    return OSError(code, why, os.fspath(target))


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` (UTF-8, newlines as given) atomically."""
    with atomic_write(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="")


def write_json(path: str | os.PathLike[str], value: Any, indent: int | None = None) -> None:
    """Write `value` as JSON atomically; NaN and infinity are refused, because JSON has no such numbers."""
    with atomic_write(path) as beside, beside.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=indent, allow_nan=False)
        file.write("\n")


def require_file(path: str | os.PathLike[str]) -> None:
    """Refuse what would be waited for, or read, for ever: a device, or a named pipe that nobody writes to.

    What a shell gives for ``<(command)`` is taken.

    Raises:
        OSError: `path` is not there.
        UserError: it is no file.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not (stat.S_ISFIFO(mode) and os.fspath(path).startswith(("/dev/fd/", "/proc/"))):
        raise UserError(f"{path}: not a file.", "Give the file itself.")


def _absent(path: str | os.PathLike[str]) -> UserError:
    return UserError(f"{path}: no such file.", "Check the path, or run the step that makes it.")


def require_there(path: str | os.PathLike[str]) -> None:
    """Raise the `UserError` of `read_json` where `path` is not there: before what reads it is imported."""
    if not os.path.exists(path):
        raise _absent(path)


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
        UserError: when the file is absent, unreadable or not JSON (truncated, say); the message names the place.
    """
    try:
        require_file(path)
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        raise _absent(path) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    return parsed_json(path, content)


def parsed_json(path: str | os.PathLike[str], content: bytes) -> Any:
    """What `content`, read from `path`, says as JSON.

    Raises:
        UserError: it is not JSON (truncated, say); the message names the place.
    """
    try:
        return json.loads(content)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error}).", "It may be truncated: make or fetch it again.") from None


@contextmanager
def exclusive(path: str | os.PathLike[str], doing: str, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path`, which is made and stays, while the block runs; a killed process holds it no longer.

    Args:
        path: in a folder that exists.
        doing: what the process that holds it is doing, for the message: ``results/a: is being trained``.
        wait: until the other process has ended, which is said on standard error.

    Raises:
        UserError: another process holds it, and `wait` is off; the message names that process.
    """
    import fcntl

    with open(path, "a+", encoding="utf-8") as file:
        try:
            # Not flock: processes that load data would inherit its lock, and outlive a killed training by seconds.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read().strip() or "another process"
            if not wait:
                raise UserError(f"{doing} by {holder}.", "Wait until it has ended.") from None
            print(f"{doing} by {holder}; waiting for it to end.", file=sys.stderr, flush=True)
            fcntl.lockf(file, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks must not stop the work
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield


def is_held(path: str | os.PathLike[str]) -> bool:
    """Whether another process holds the lock file `path` of `exclusive`."""
    import fcntl

    try:
        with open(path, "r+", encoding="utf-8") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given back when the file is closed
    except (BlockingIOError, PermissionError):
        return True
    except OSError:
        return False
    return False
