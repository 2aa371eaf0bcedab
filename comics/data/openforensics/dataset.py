"""OpenForensics (Le et al., ICCV 2021) as its Zenodo record serves it, and its conversion to canonical COCO.

The record holds one annotation file a split and the images in one or more zip archives a split. `SPLIT_NAMES` gives
the dataset's own names; archives unpack to ``Images/<Split>/...`` below the raw folder, some to a doubled folder
(``Test-Dev/Test-Dev``), which the conversion looks through.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from comics.data.canonical.coco import SPLITS
from comics.data.canonical.convert import Report, Source, SplitReport, convert_split
from comics.data.openforensics.extract import DEFAULT_BOUNDS, Bounds, extract_split, is_extracted
from comics.data.openforensics.fetch import (
    DEFAULT_RETRY,
    RECORD_NAME,
    Downloads,
    RemoteFile,
    Retry,
    Unreachable,
    fetch_files,
    parse_record,
    read_record,
    require_space,
    show_size,
)
from comics.errors import UserError, did_you_mean
from comics.files import atomic_write, exclusive, read_json, write_json
from comics.progress import Progress, silent

SPLIT_NAMES: dict[str, str] = {
    "train": "Train",
    "val": "Val",
    "test_dev": "Test-Dev",
    "test_challenge": "Test-Challenge",
}
"""The dataset's own name of each split."""

CATEGORIES: list[dict[str, object]] = [
    {"id": 0, "name": "Real", "supercategory": "face"},
    {"id": 1, "name": "Fake", "supercategory": "face"},
]
"""The dataset's own categories."""

PAPER_COUNTS: dict[str, dict[str, int]] = {
    "train": {"images": 44_122, "Real": 85_392, "Fake": 65_972},
    "val": {"images": 7_308, "Real": 4_786, "Fake": 10_566},
    "test_dev": {"images": 18_895, "Real": 21_071, "Fake": 28_670},
    "test_challenge": {"images": 45_000, "Real": 49_218, "Fake": 68_452},
}
"""Images and faces of each split according to the COMICS paper (section VII-A)."""


def annotation_name(split: str) -> str:
    """The annotation file of `split` in the raw folder: ``Test-Dev_poly.json`` for ``test_dev``."""
    return f"{SPLIT_NAMES[split]}_poly.json"


def annotation_path(raw: Path, split: str) -> Path:
    """Where the annotation file of `split` is below `raw`: at the top or, put there by hand, one folder deeper."""
    name = annotation_name(split)
    direct = raw / name
    if direct.is_file():
        return direct
    found = sorted(raw.glob(f"*/{name}"))
    return found[0] if found else direct


def source(raw: Path, split: str) -> Source:
    """Where the conversion finds `split` below `raw`."""
    if split not in SPLIT_NAMES:
        raise UserError(f"'{split}' is no split.", did_you_mean(split, SPLITS))
    return Source(annotation_path(raw, split), raw, search=(raw,), prefer=SPLIT_NAMES[split])


def convert(
    raw: Path,
    output: Path,
    splits: Iterable[str] = SPLITS,
    strict: bool = False,
    allow_missing: bool = False,
    progress: Progress = silent,
) -> Report:
    """Convert OpenForensics' own form to canonical COCO.

    Args:
        raw: folder with ``{Train,Val,Test-Dev,Test-Challenge}_poly.json`` and the images, at ``Images/<Split>/x.jpg``
            or anywhere in a folder called like the split.
        output: folder of the dataset; ``output/<split>/{annotations.json,images/,conversion.json}`` is written.
        splits: which splits, by our names.
        strict: refuse the first defect instead of repairing it.
        allow_missing: leave out images that are not there instead of refusing.
        progress: ``progress(task, done, total)`` is told how far the work is.

    Raises:
        UserError: see `comics.data.canonical.convert.convert_split`. Splits already converted stay.
    """
    report = Report(Path(output))
    for split in splits:
        report.splits[split] = convert_split(
            source(Path(raw), split), Path(output), split, strict, allow_missing, progress
        )
    return report


@dataclass(frozen=True)
class SplitFiles:
    """Names of a split's files: its annotations and its image archives, in the order of their parts."""

    annotations: str
    archives: tuple[str, ...]


def select(names: Iterable[str], split: str, where: str) -> SplitFiles:
    """Which of `names` are those of `split`: ``Val_poly.json``, ``Val.zip`` or ``Train_part_1.zip`` and so on.

    Raises:
        UserError: when the annotations, all archives, or a part in the middle are missing, naming what.
    """
    own, names = SPLIT_NAMES[split], list(names)
    if annotation_name(split) not in names:
        raise UserError(f"{where}: {annotation_name(split)} is missing.", "Put it there, or check the record.")
    pattern = re.compile(rf"{re.escape(own)}(?:_part_?(\d+))?\.zip", re.IGNORECASE)
    found = {int(match[1] or 0): name for name in names if (match := pattern.fullmatch(name))}
    if not found:
        raise UserError(f"{where}: there is no archive of {own} ({own}.zip or {own}_part_*.zip).", "Put it there.")
    parts = [number for number in sorted(found) if number]
    for number in range(1, max(parts, default=0)):
        if number not in found and not (number == 1 and 0 in found):
            last = found[parts[-1]]
            raise UserError(f"{where}: part {number} of {own} is missing, though {last} is there.", "Put it there.")
    return SplitFiles(annotation_name(split), tuple(found[number] for number in sorted(found)))


@dataclass
class FetchReport:
    """What `fetch` did: files downloaded now, images extracted now by split, and where the list of files was from.

    ``listed_by`` is ``server``, ``earlier answer`` (the server was not reached) or ``hand`` (neither: the archives put
    there were taken as they are, checked by their own checksums only).
    """

    downloaded: list[str] = field(default_factory=list)
    extracted: dict[str, int] = field(default_factory=dict)
    listed_by: str = "server"


def fetch(
    folder: Path,
    record: str,
    base_url: str,
    splits: Sequence[str] = SPLITS,
    jobs: int = 4,
    bounds: Bounds = DEFAULT_BOUNDS,
    discard_archives: bool = False,
    retry: Retry = DEFAULT_RETRY,
    progress: Progress = silent,
) -> FetchReport:
    """From a Zenodo record to ``raw/{Split}_poly.json`` and ``raw/Images/<Split>/``, going on where it was interrupted.

    Args:
        folder: of the dataset; archives go to ``downloads``, the rest to ``raw``.
        record: number of the record.
        base_url: address of the server, ``https://zenodo.org`` or a mirror's.
        splits: which splits.
        jobs: downloads at a time.
        bounds: what an archive may hold at most.
        discard_archives: fetch split by split and delete its archives once it is extracted.
        retry: what to do when the server or the line fails.
        progress: ``progress(task, done, total)`` in bytes, from several threads.

    Raises:
        UserError: when something is missing, damaged or does not fit on the disk; what to do by hand is told.
    """
    downloads, raw = folder / "downloads", folder / "raw"
    report = FetchReport()
    downloads.mkdir(parents=True, exist_ok=True)
    with exclusive(downloads / ".lock", f"{downloads}: is being fetched into"):
        remote, report.listed_by, reason = _list_files(downloads, record, base_url, retry)
        names = remote if remote is not None else [path.name for path in downloads.iterdir() if path.is_file()]
        where = f"record {record}" if remote is not None else str(downloads)
        try:
            chosen = {split: select(names, split, where) for split in splits}
        except UserError as error:
            if remote is None:
                raise UserError(f"{reason}; {error.message}", _by_hand(splits, downloads, record, base_url)) from None
            raise
        groups = [[split] for split in splits] if discard_archives else [list(splits)]
        if remote is not None:
            _require_space_for_all(chosen, remote, downloads, raw, discard_archives)
        for group in groups:
            if remote is not None:
                wanted = [remote[name] for split in group for name in _needed(chosen[split], split, raw)]
                try:
                    report.downloaded += fetch_files(wanted, downloads, jobs, retry, progress=progress)
                except Unreachable as failure:
                    raise UserError(
                        f"{failure}.",
                        "Run the same command again to go on from there. " + _by_address(wanted, downloads),
                    ) from None
            for split in group:
                _place(downloads / chosen[split].annotations, raw / chosen[split].annotations)
                archives = [downloads / name for name in chosen[split].archives]
                report.extracted[split] = extract_split(
                    archives, raw / "Images", SPLIT_NAMES[split], bounds, discard_archives, progress
                )
    return report


def _list_files(
    downloads: Path, record: str, base_url: str, retry: Retry
) -> tuple[dict[str, RemoteFile] | None, str, str]:
    """The record's files by name (None when nobody can tell), who told, and why the server did not."""
    cache = downloads / RECORD_NAME
    try:
        answer = read_record(base_url, record, retry)
        listed = {file.name: file for file in parse_record(answer, base_url, f"record {record}")}
        write_json(cache, {"record": record, "answer": answer}, indent=1)
        return listed, "server", ""
    except Unreachable as failure:
        reason = str(failure)
    if cache.exists():
        earlier = read_json(cache)
        if isinstance(earlier, dict) and earlier.get("record") == record:
            listed = {file.name: file for file in parse_record(earlier.get("answer"), base_url, str(cache))}
            return listed, "earlier answer", reason
    return None, "hand", reason


def _needed(files: SplitFiles, split: str, raw: Path) -> list[str]:
    """The files of a split that have to be downloaded: not the archives of a split that is extracted."""
    if is_extracted(raw / "Images", SPLIT_NAMES[split], files.archives):
        return [files.annotations]
    return [files.annotations, *files.archives]


def _require_space_for_all(
    chosen: dict[str, SplitFiles], remote: dict[str, RemoteFile], downloads: Path, raw: Path, discard: bool
) -> None:
    """Check the disk for all splits before the first byte; photographs take as much room extracted as archived."""
    to_come, extracted = {}, {}
    state = Downloads(downloads)
    for split, files in chosen.items():
        names = _needed(files, split, raw)
        to_come[split] = sum(remote[name].size for name in names if _size(state.path(name)) != remote[name].size) - sum(
            min(_size(downloads / ".partial" / f"{name}.part"), remote[name].size) for name in names
        )
        extracted[split] = sum(remote[name].size for name in names if name != files.annotations)
    downloading = max(to_come.values(), default=0) if discard else sum(to_come.values())
    require_space(downloads, downloading + sum(extracted.values()), "the download with its extraction")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _place(source: Path, target: Path) -> None:
    """Put a downloaded annotation file into the raw folder; a hard link where the disk can."""
    if target.is_file() and (target.samefile(source) or _equal(target, source)):
        return
    with atomic_write(target) as beside:
        beside.unlink()
        try:
            os.link(source, beside)
        except OSError:
            shutil.copyfile(source, beside)


def _equal(a: Path, b: Path) -> bool:
    import filecmp

    return filecmp.cmp(a, b, shallow=False)


def _by_hand(splits: Iterable[str], downloads: Path, record: str, base_url: str) -> str:
    wanted = ", ".join(
        f"{annotation_name(split)} and {SPLIT_NAMES[split]}.zip or {SPLIT_NAMES[split]}_part_*.zip" for split in splits
    )
    return (
        f"Download by hand from {base_url.rstrip('/')}/records/{record}: {wanted}. "
        f"Put them into {downloads} and run the same command again."
    )


def _by_address(files: Iterable[RemoteFile], downloads: Path) -> str:
    missing = [file for file in files if not Downloads(downloads).is_right(file)]
    listed = "\n".join(f"  {file.url} ({show_size(file.size)}, md5 {file.md5})" for file in missing)
    return f"Or download by hand into {downloads}:\n{listed}"


__all__ = [
    "CATEGORIES",
    "PAPER_COUNTS",
    "SPLIT_NAMES",
    "FetchReport",
    "Report",
    "SplitReport",
    "annotation_name",
    "annotation_path",
    "convert",
    "fetch",
    "select",
    "source",
]
