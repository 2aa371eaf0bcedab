"""Fetching the files of a Zenodo record: listed, resumed, retried, verified, and renamed into place.

The record's own answer says which files there are, how large they are and what their md5 is; nothing of it is written
down here. pooch verifies and places the files; `ResumingDownload` is the downloader it is given, which goes on where an
interrupted one stopped. Files put into the download folder by hand are taken like fetched ones.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3

from comics.errors import UserError
from comics.files import read_json, write_json
from comics.progress import Progress, silent

RECORD_NAME = "record.json"
_STATE_NAME = "verified.json"
_BLOCK = 1 << 20
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_SIZE_UNITS = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a record: its name, address, size in bytes and md5 (32 hexadecimal digits)."""

    name: str
    url: str
    size: int
    md5: str


@dataclass(frozen=True)
class Retry:
    """How often a failing request is repeated, and after which seconds: `wait`, then twice as long, at most `longest`.

    A download that went on since the last failure starts counting anew.
    """

    attempts: int = 6
    wait: float = 1.0
    longest: float = 60.0
    timeout: float = 60.0

    def seconds(self, attempt: int) -> float:
        """The pause after failure number `attempt`, from 0."""
        return min(self.wait * 2**attempt, self.longest)


DEFAULT_RETRY = Retry()


class Unreachable(Exception):
    """The server could not be asked; the message says why, for a reader."""


class Interrupted(Exception):
    """Another download failed or the user interrupted: this one stops where it is."""


def show_size(size: float) -> str:
    """A number of bytes for a reader: ``1.5 GB``."""
    unit = 0
    while size >= 1000 and unit < len(_SIZE_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.0f} {_SIZE_UNITS[unit]}" if unit == 0 else f"{size:.1f} {_SIZE_UNITS[unit]}"


def parse_record(document: Any, base_url: str, where: str) -> list[RemoteFile]:
    """The files that a record's answer lists.

    Args:
        document: Zenodo's answer to ``/api/records/<number>``.
        base_url: address of the server; the files' addresses are moved to it, so that a mirror may repeat Zenodo's
            answer word for word.
        where: names the answer in messages.

    Raises:
        UserError: when the answer is not such a list, naming the field.
    """
    entries = document.get("files") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{where}: files: the answer lists none.", "Check the record's number and base_url.")
    files: dict[str, RemoteFile] = {}
    for index, entry in enumerate(entries):
        place = f"{where}: files[{index}]"
        if not isinstance(entry, dict):
            raise UserError(f"{place}: expected an object.")
        name, size, checksum = entry.get("key"), entry.get("size"), entry.get("checksum")
        links = entry.get("links")
        if not isinstance(name, str) or not re.fullmatch(r"[\w][\w .()+-]*", name) or name in files:
            raise UserError(f"{place}.key: {name!r} is no file name, or stands twice.")
        if type(size) is not int or size < 0:
            raise UserError(f"{place}.size: expected a number of bytes, found {size!r}.")
        if not isinstance(checksum, str) or not re.fullmatch(r"(md5:)?[0-9a-fA-F]{32}", checksum):
            raise UserError(f"{place}.checksum: expected md5:<32 digits>, found {checksum!r}.")
        link = links.get("self") if isinstance(links, dict) else None
        if not isinstance(link, str):
            raise UserError(f"{place}.links.self: expected an address, found {link!r}.")
        files[name] = RemoteFile(name, _at(base_url, link), size, checksum[-32:].lower())
    return list(files.values())


def _at(base_url: str, link: str) -> str:
    """`link` on the server of `base_url`."""
    base = base_url.rstrip("/")
    if link.startswith(f"{base}/"):
        return link
    parts = urlsplit(link)
    return base + parts.path + (f"?{parts.query}" if parts.query else "")


def read_record(base_url: str, record: str, retry: Retry = DEFAULT_RETRY) -> dict[str, Any]:
    """The server's answer about a record.

    Raises:
        Unreachable: when there is no answer, or a refusal.
    """
    url = f"{base_url.rstrip('/')}/api/records/{record}"
    for attempt in range(retry.attempts):
        try:
            answer = requests.get(url, timeout=retry.timeout, headers={"Accept": "application/json"})
            if answer.status_code == 200:
                return answer.json()
            reason = f"{url} answers {answer.status_code} {answer.reason}"
            if answer.status_code not in _TRANSIENT:
                break
        except requests.exceptions.JSONDecodeError:
            reason = f"{url} does not answer in JSON"
            break
        except requests.exceptions.InvalidURL as error:
            reason = f"{url} is no address ({error})"
            break
        except requests.exceptions.RequestException as error:
            reason = f"{url} cannot be reached ({_cause(error)})"
            if isinstance(error, requests.exceptions.ConnectionError) and attempt >= 1:
                break  # offline: waiting a minute will not help
        if attempt < retry.attempts - 1:
            time.sleep(retry.seconds(attempt))
    raise Unreachable(reason)


def _cause(error: BaseException) -> str:
    """The innermost reason of a requests error, without the object addresses that its message is full of."""
    while error.__context__ is not None or (error.args and isinstance(error.args[0], BaseException)):
        inner = error.args[0] if error.args and isinstance(error.args[0], BaseException) else error.__context__
        if inner is None:
            break
        error = inner
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__


class ResumingDownload:
    """A downloader for pooch that keeps what it has in ``<folder>/<name>.part`` and asks for the rest only.

    Args:
        file: what to download.
        part: where to keep the part that is there.
        retry: what to do when the server or the line fails.
        progress: ``progress(name, done, size)`` in bytes.
        stop: downloading ends with `Interrupted` when it is set.
    """

    def __init__(self, file: RemoteFile, part: Path, retry: Retry, progress: Progress, stop: threading.Event) -> None:
        self.file, self.part, self._retry, self._progress, self._stop = file, part, retry, progress, stop

    def __call__(self, url: str, output_file: str | os.PathLike[str], pooch: Any = None) -> None:
        """Make the part whole and give it, as a hard link, to pooch, which verifies it."""
        attempt = 0
        while (before := self._size()) != self.file.size:
            if before > self.file.size:  # not of this file
                self.part.unlink()
                continue
            failure = self._continue(url, before)
            if failure is None:
                continue
            attempt = 0 if self._size() > before else attempt + 1
            if attempt >= self._retry.attempts:
                raise Unreachable(f"{self.file.name}: {failure}")
            if self._stop.wait(self._retry.seconds(attempt)):
                raise Interrupted
        self._progress(self.file.name, self.file.size, self.file.size)
        if self.file.size == 0:
            self.part.touch()
        output = Path(output_file)
        output.unlink(missing_ok=True)
        try:
            os.link(self.part, output)
        except OSError:
            shutil.copyfile(self.part, output)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _continue(self, url: str, start: int) -> str | None:
        """Append what comes from byte `start` on; the reason when it may be worth another try."""
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        try:
            with requests.get(url, headers=headers, stream=True, timeout=self._retry.timeout) as answer:
                if answer.status_code in _TRANSIENT:
                    self._pause(answer)
                    return f"{url} answers {answer.status_code} {answer.reason}"
                if answer.status_code == 416:
                    self.part.unlink(missing_ok=True)
                    return f"{url} has no byte {start}"
                if answer.status_code not in (200, 206):
                    raise UserError(
                        f"{self.file.name}: {url} answers {answer.status_code} {answer.reason}.",
                        f"Download it by hand to {self.part.parent.parent / self.file.name}, or try again later.",
                    )
                resumed = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(
                    f"bytes {start}-"
                )
                done = start if resumed else 0  # a server that knows no ranges sends everything again
                # Unbuffered, and by what each read gives: bytes that have come are kept when line or process break off.
                with self.part.open("ab" if resumed else "wb", buffering=0) as file:
                    while block := answer.raw.read1(_BLOCK):
                        rest = memoryview(block)
                        while rest:
                            rest = rest[file.write(rest) :]
                        done += len(block)
                        self._progress(self.file.name, min(done, self.file.size), self.file.size)
                        if self._stop.is_set():
                            raise Interrupted
                        if done > self.file.size:
                            break
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
            return f"{url} broke off ({_cause(error)})"
        if done > self.file.size:
            self.part.unlink()
            return f"{url} sends more than the {self.file.size} bytes that the record tells"
        return None if done == self.file.size else f"{url} ended after {done} of {self.file.size} bytes"

    def _pause(self, answer: requests.Response) -> None:
        """Wait as long as a busy server asks, within the longest pause."""
        asked = answer.headers.get("Retry-After", "")
        if asked.isdecimal():
            self._stop.wait(min(float(asked), self._retry.longest))


class Downloads:
    """A folder of downloaded files, and which of them are known to be right.

    A file is hashed once: `verified.json` remembers its size, time and md5.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._state_path = folder / _STATE_NAME
        self._lock = threading.Lock()

    def path(self, name: str) -> Path:
        return self.folder / name

    def is_right(self, file: RemoteFile, progress: Progress = silent) -> bool:
        """Whether `file` is there with the record's size and md5."""
        path = self.path(file.name)
        try:
            status = path.stat()
        except OSError:
            return False
        if status.st_size != file.size:
            return False
        stamp = [status.st_size, status.st_mtime_ns, file.md5]
        if self._state().get(file.name) == stamp:
            return True
        digest, done = hashlib.md5(usedforsecurity=False), 0
        with path.open("rb") as content:
            while block := content.read(_BLOCK):
                digest.update(block)
                done += len(block)
                progress(f"{file.name} (verifying)", done, file.size)
        if digest.hexdigest() != file.md5:
            return False
        self.remember(file)
        return True

    def remember(self, file: RemoteFile) -> None:
        """Note that the file that is there now is right."""
        status = self.path(file.name).stat()
        with self._lock:
            state = self._state()
            state[file.name] = [status.st_size, status.st_mtime_ns, file.md5]
            write_json(self._state_path, dict(sorted(state.items())), indent=1)

    def _state(self) -> dict[str, Any]:
        try:
            state = read_json(self._state_path)
        except UserError:
            return {}
        return state if isinstance(state, dict) else {}


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Raise `UserError` unless `needed` bytes are free on the disk of `folder`."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: {purpose} takes {show_size(needed)}, and {show_size(free)} are free.",
            "Free some space, fetch fewer splits (--split), or keep data/ on another disk.",
        )


def fetch_files(
    files: Sequence[RemoteFile],
    folder: Path,
    jobs: int = 4,
    retry: Retry = DEFAULT_RETRY,
    reserve: int = 0,
    progress: Progress = silent,
) -> list[str]:
    """Download the files of a record that are not there yet.

    Args:
        files: as `parse_record` lists them.
        folder: where they go; parts of unfinished ones are below ``.partial``.
        jobs: how many at a time.
        retry: what to do when the server or the line fails.
        reserve: bytes that will be needed beside the downloads.
        progress: ``progress(name, done, size)`` in bytes, from several threads.

    Returns:
        names of the files that were downloaded now.

    Raises:
        UserError: no space (before the first byte), a file that comes with another md5 twice, or that is refused.
        Unreachable: the server or the line failed for good. What has come stays, to go on with.
    """
    downloads = Downloads(folder)
    parts = folder / ".partial"
    parts.mkdir(parents=True, exist_ok=True)
    for stale in parts.glob("*.pooch"):  # of a process that was killed while verifying
        shutil.rmtree(stale, ignore_errors=True)
    missing = [file for file in files if not downloads.is_right(file, progress)]
    there = sum(min(_size(parts / f"{file.name}.part"), file.size) for file in missing)
    require_space(folder, sum(file.size for file in missing) - there + reserve, "the download")
    stop = threading.Event()
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        futures = [pool.submit(_fetch_one, file, downloads, parts, retry, progress, stop) for file in missing]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
            for future in futures:
                future.cancel()
    failures = [future.exception() for future in futures if not future.cancelled()]
    for failure in failures:
        if failure is not None and not isinstance(failure, Interrupted):
            raise failure
    with suppress(OSError):
        parts.rmdir()
    return [file.name for file in missing]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fetch_one(
    file: RemoteFile, downloads: Downloads, parts: Path, retry: Retry, progress: Progress, stop: threading.Event
) -> None:
    """Download one file with pooch; a wrong md5 is fetched once more and then refused."""
    import pooch

    pooch.get_logger().setLevel("ERROR")
    if stop.is_set():
        raise Interrupted
    part, inbox = parts / f"{file.name}.part", parts / f"{file.name}.pooch"
    download = ResumingDownload(file, part, retry, progress, stop)
    try:
        for last in (False, True):
            try:
                pooch.retrieve(file.url, f"md5:{file.md5}", fname=file.name, path=inbox, downloader=download)
                break
            except ValueError:  # pooch's word for another hash
                part.unlink(missing_ok=True)
                if last:
                    raise UserError(
                        f"{file.name}: came twice with another md5 than the record's {file.md5}.",
                        f"Something on the way changes it. Put a right copy at {downloads.path(file.name)}.",
                    ) from None
        os.replace(inbox / file.name, downloads.path(file.name))
        downloads.remember(file)
        part.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"{file.name}: the disk is full after {show_size(_size(part))} of {show_size(file.size)}.",
                "Free some space and run the same command again: it goes on from there.",
            ) from None
        raise
    finally:
        shutil.rmtree(inbox, ignore_errors=True)
