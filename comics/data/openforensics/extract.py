"""Extracting the image archives of a split: safely, wholly or not at all, and going on after an interruption.

An archive is looked through before its first byte is written: names that lead out of the folder, links and other
special files, encrypted entries, and sizes beyond the bounds are refused. Images are extracted to
``Images/.<Split>.partial`` and the folder is renamed to ``Images/<Split>`` when all of the split's archives are in it.
"""

from __future__ import annotations

import errno
import lzma
import os
import shutil
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from comics.data.canonical.frames import IMAGE_SUFFIXES
from comics.data.openforensics.fetch import require_space, show_size
from comics.errors import UserError
from comics.files import atomic_write, read_json, write_json
from comics.progress import Progress, silent

_BLOCK = 1 << 20
_DONE_NAME = ".archives.json"


@dataclass(frozen=True)
class Bounds:
    """What an archive may hold at most.

    Attributes:
        total: bytes of all images of one archive.
        single: bytes of one image.
        ratio: uncompressed to compressed bytes of one image. Photographs hardly compress; a bomb does.
        entries: files in one archive.
    """

    total: int = 100 * 10**9
    single: int = 256 * 10**6
    ratio: float = 50.0
    entries: int = 1_000_000


DEFAULT_BOUNDS = Bounds()


@dataclass(frozen=True)
class Member:
    """An image of an archive and where it goes, below the split's folder."""

    info: zipfile.ZipInfo
    target: PurePosixPath


def _refuse(archive: Path, name: str, reason: str) -> UserError:
    shown = name.encode("unicode_escape").decode("ascii")[:120]
    return UserError(
        f"{archive}: '{shown}' {reason}: refused, nothing of it was extracted.", "Fetch the archive again."
    )


def plan(archive: Path, split_name: str, bounds: Bounds = DEFAULT_BOUNDS) -> list[Member]:
    """The images of an archive, after checking all of its entries.

    Leading folders ``Images`` and `split_name`, once or doubled, are taken off. Entries that are no images (system
    files, read-me's) are left out.

    Args:
        archive: a zip file.
        split_name: the dataset's name of the split, ``Test-Dev``.
        bounds: what it may hold at most.

    Raises:
        UserError: naming the archive and the entry.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            infos = file.infolist()
    except FileNotFoundError:
        raise UserError(f"{archive}: no such archive.", "Fetch it, or put it there by hand.") from None
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise UserError(f"{archive}: no readable zip archive ({error}).", "Fetch it again.") from None
    if len(infos) > bounds.entries:
        raise UserError(f"{archive}: {len(infos)} entries, more than {bounds.entries}: refused.")
    shells = {"images", split_name.casefold()}
    members: list[Member] = []
    targets: set[str] = set()
    total = compressed = 0
    for info in infos:
        path = _safe_path(archive, info)
        compressed += info.compress_size
        if info.is_dir():
            continue
        if info.flag_bits & 0x1:
            raise _refuse(archive, info.filename, "is encrypted")
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
        if hidden or path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if info.file_size > bounds.single:
            raise _refuse(archive, info.filename, f"has {show_size(info.file_size)}, more than one image may have")
        if info.file_size > bounds.ratio * max(info.compress_size, 1) and info.file_size > _BLOCK:
            raise _refuse(archive, info.filename, f"unpacks to more than {bounds.ratio:g} times its size")
        total += info.file_size
        if total > bounds.total:
            raise _refuse(archive, info.filename, f"takes the archive beyond {show_size(bounds.total)}")
        parts = list(path.parts)
        while len(parts) > 1 and parts[0].casefold() in shells:
            parts.pop(0)
        target = PurePosixPath(*parts)
        if str(target).casefold() in targets:
            raise _refuse(archive, info.filename, "stands twice in it")
        targets.add(str(target).casefold())
        members.append(Member(info, target))
    if compressed > archive.stat().st_size:
        raise UserError(f"{archive}: its entries overlap: refused.", "Fetch the archive again.")
    if not members:
        raise UserError(f"{archive}: holds no image.", f"Is it an archive of {split_name}?")
    return members


def _safe_path(archive: Path, info: zipfile.ZipInfo) -> PurePosixPath:
    """The relative path of an entry that stays where it is put."""
    # `filename` ends at a NUL and has the system's separators replaced: the original is what has to be safe.
    name = info.orig_filename
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refuse(archive, name, "is a link or another special file")
    if not name or "\\" in name or any(unicodedata.category(character) in ("Cc", "Cf", "Cs") for character in name):
        raise _refuse(archive, name, "has an odd name")
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise _refuse(archive, name, "leads out of the folder")
    if any(len(part.encode()) > 255 for part in path.parts):
        raise _refuse(archive, name, "has a name of more than 255 bytes")
    return path


def is_extracted(images: Path, split_name: str, archives: Sequence[str]) -> bool:
    """Whether ``images/<split_name>`` is whole and came from the archives of these names."""
    try:
        return set(read_json(images / split_name / _DONE_NAME)) == set(archives)
    except UserError:
        return False


def extract_split(
    archives: Sequence[Path],
    images: Path,
    split_name: str,
    bounds: Bounds = DEFAULT_BOUNDS,
    discard: bool = False,
    progress: Progress = silent,
) -> int:
    """Extract all archives of a split to ``images/<split_name>``.

    Args:
        archives: its zip files.
        images: the raw folder's ``Images``.
        split_name: the dataset's name of the split.
        bounds: what an archive may hold at most.
        discard: delete the archives once the whole split is in place.
        progress: ``progress(task, done, total)`` in bytes.

    Returns:
        number of images extracted; 0 when the split was already whole.

    Raises:
        UserError: naming archive and entry. ``images/<split_name>`` is then as it was before.
    """
    target, partial = images / split_name, images / f".{split_name}.partial"
    names = [archive.name for archive in archives]
    if is_extracted(images, split_name, names):
        _discard(archives, discard)
        return 0
    if target.exists() and any(target.iterdir()) and not (target / _DONE_NAME).exists():
        raise UserError(
            f"{target}: is there, but not of this program's making.",
            "To use images put there by hand, go straight to `comics data convert`; else move the folder away.",
        )
    plans = {archive: plan(archive, split_name, bounds) for archive in archives}
    try:
        done: dict[str, int] = read_json(partial / _DONE_NAME)
    except UserError:
        done = {}
    rest = {archive: members for archive, members in plans.items() if archive.name not in done}
    require_space(
        images, sum(member.info.file_size for members in rest.values() for member in members), "the extraction"
    )
    partial.mkdir(parents=True, exist_ok=True)
    for archive, members in rest.items():
        _extract(archive, members, partial, progress)
        done[archive.name] = len(members)
        write_json(partial / _DONE_NAME, done)
    if target.exists():
        shutil.rmtree(target)
    os.replace(partial, target)
    _discard(archives, discard)
    return sum(done.values())


def _discard(archives: Sequence[Path], discard: bool) -> None:
    for archive in archives:
        if discard:
            archive.unlink(missing_ok=True)


def _extract(archive: Path, members: list[Member], folder: Path, progress: Progress) -> None:
    total, written = sum(member.info.file_size for member in members), 0
    task = f"{archive.name} (extracting)"
    with zipfile.ZipFile(archive) as file:
        for member in members:
            path = folder / member.target
            try:
                if path.is_file() and path.stat().st_size == member.info.file_size and _crc(path) == member.info.CRC:
                    pass  # extracted before an interruption
                elif path.exists():
                    raise _refuse(archive, member.info.filename, "differs from the image of that name already there")
                else:
                    _extract_one(file, member, path)
            except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError) as error:
                raise UserError(
                    f"{archive}: '{member.info.filename}' is damaged ({error}).", "Fetch the archive again."
                ) from None
            except OSError as error:
                if error.errno == errno.EINVAL:  # an offset in the archive that lies before its beginning
                    raise UserError(
                        f"{archive}: '{member.info.filename}' is damaged ({error}).", "Fetch the archive again."
                    ) from None
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise UserError(
                        f"{archive}: the disk is full at '{member.info.filename}'.",
                        "Free some space and run the same command again: it goes on from there.",
                    ) from None
                raise
            written += member.info.file_size
            progress(task, written, total)


def _extract_one(file: zipfile.ZipFile, member: Member, path: Path) -> None:
    """Write one image; reading to its end checks its CRC."""
    with atomic_write(path) as beside, file.open(member.info) as source, beside.open("wb") as sink:
        shutil.copyfileobj(source, sink, _BLOCK)
        if sink.tell() != member.info.file_size:
            raise zipfile.BadZipFile("its size is not the announced one")


def _crc(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            value = zlib.crc32(block, value)
    return value
