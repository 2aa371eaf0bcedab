"""Files in and files out: which pictures and videos are meant, and what is written of them where.

Names keep their folders, so that two files of one name do not meet; what exists is overwritten only when asked for.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from PIL import Image

from comics.classes import CLASSES, category_id
from comics.detect.draw import draw
from comics.detect.model import Model
from comics.detect.outcome import About, Failure, Outcome, VideoOutcome, document, rounded
from comics.errors import UserError, did_you_mean
from comics.files import atomic_write, write_json
from comics.images import UnreadableImage, read, shown
from comics.progress import Progress, silent

FORMATS = ("json", "csv", "coco", "overlay")
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".3gp", ".wmv", ".flv"}
)
OVERLAY_SIDE = 2048
"""Longest side of an overlay in px."""
OVERLAY_ENDS = (".faces.jpg", ".faces.mp4")
"""What overlays end in; folders and patterns leave such files out, so that no overlay is looked at in its turn."""
LONGEST_NAME = 255
"""Bytes of a file's name that file systems take."""
STDIN = "-"
STDIN_BYTES = 1 << 30
"""More is not read from standard input."""

CSV_COLUMNS = (
    *("file", "kind", "frame", "time", "track", "x", "y", "width", "height", "score", "p_fake", "verdict", "mask_area"),
    *("model", "notice"),
)


@dataclass(frozen=True)
class Given:
    """A picture or video to look at.

    Attributes:
        name: as it is shown and written.
        source: path, or the bytes of a file.
        target: where its outputs go below the output folder, without their own suffix.
        video: whether it is one, by its suffix.
    """

    name: str
    source: Path | bytes
    target: Path
    video: bool = False


def image_suffixes() -> frozenset[str]:
    """Suffixes of files that pillow reads."""
    known = Image.registered_extensions()
    readable = frozenset(suffix for suffix, kind in known.items() if kind in Image.OPEN)
    # HEIC is read where pillow-heif is installed, and named as unreadable where it is not
    return (readable | {".heic", ".heif", ".hif"}) - {".pdf", ".eps", ".ps", ".mpg", ".mpeg"}


def expand(paths: Iterable[str], stdin: IO[bytes] | None = None) -> list[Given | Failure]:
    """Files, folders (with all below them), patterns and ``-`` (a picture on standard input) as files, each once.

    What folders hold beside pictures and videos is left alone, and so are overlays of ours, also where a pattern means them;
    a file named by itself is always tried. What is not there, and a folder that cannot be read, is a `Failure`, so that
    the rest goes on.

    Raises:
        UserError: nothing at all is left.
    """
    given: list[Given | Failure] = []
    seen: set[str] = set()
    targets: set[Path] = set()
    suffixes = image_suffixes() | VIDEO_SUFFIXES

    def add(name: str, source: Path | bytes, target: Path, video: bool = False) -> None:
        free, number = target, 1
        while free in targets:  # two of one name, such as /a.jpg and ./a.jpg
            number += 1
            free = target.with_name(f"{target.name}.{number}")
        targets.add(free)
        given.append(Given(name, source, free, video))

    def add_file(path: Path) -> None:
        whole = os.path.abspath(path)
        if whole not in seen:
            seen.add(whole)
            add(shown(path), path, target_of(path), path.suffix.lower() in VIDEO_SUFFIXES)

    def add_match(path: Path) -> bool:
        files = [one for one in _below(path, given) if one.suffix.lower() in suffixes] if path.is_dir() else [path]
        wanted = [one for one in files if not one.name.endswith(OVERLAY_ENDS)]
        for one in wanted:
            add_file(one)
        return bool(wanted)

    for text in paths:
        if text == STDIN:
            if STDIN in seen:
                continue
            seen.add(STDIN)
            data = (stdin or sys.stdin.buffer).read(STDIN_BYTES + 1)
            if len(data) > STDIN_BYTES:
                raise UserError("standard input: more than 1 GiB.", "Give a file.")
            add("stdin", data, Path("stdin"))
        elif os.path.isdir(text):
            before = len(given)
            if not add_match(Path(text)) and len(given) == before:
                given.append(Failure(shown(text), "the folder holds no pictures and no videos"))
        elif os.path.lexists(text):
            add_file(Path(text))
        elif glob.has_magic(text):
            matches = [Path(match) for match in sorted(glob.glob(text, recursive=True))]
            some = [add_match(match) for match in matches]
            if not any(some):
                given.append(Failure(shown(text), "no file matches"))
        else:
            given.append(Failure(shown(text), "no such file"))
    if not any(isinstance(one, Given) for one in given):
        first = given[0] if given else None
        raise UserError(
            f"{first.file}: {first.error}." if isinstance(first, Failure) else "There is nothing to look at."
        )
    return given


def _below(folder: Path, failures: list[Given | Failure]) -> Iterator[Path]:
    """Files below a folder, in order; hidden ones left out. Folders that cannot be read are told in `failures`."""

    def failed(error: OSError) -> None:
        failures.append(Failure(shown(error.filename), f"the folder cannot be read ({error.strerror})"))

    for current, folders, files in os.walk(folder, onerror=failed):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(current) / name


def target_of(path: Path) -> Path:
    """Where below the output folder the outputs of `path` go: its path from here, or from the root where it is elsewhere."""
    whole = Path(os.path.abspath(path))
    here = Path.cwd()
    return whole.relative_to(here if whole.is_relative_to(here) else whole.anchor)


def overlay_path(folder: Path, given: Given) -> Path:
    """Where the overlay of `given` goes below the output folder; a name that would be too long is cut."""
    name, suffix = given.target.name, OVERLAY_ENDS[given.video]
    if len(os.fsencode(name + suffix)) > LONGEST_NAME:
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
        while len(os.fsencode(f"{name}~{digest}{suffix}")) > LONGEST_NAME:
            name = name[:-1]
        name = f"{name}~{digest}"
    return folder / given.target.with_name(name + suffix)


def outputs(folder: Path, formats: Sequence[str], given: Sequence[Given | Failure]) -> dict[str, list[Path]]:
    """The files that will be written, by format."""
    files: dict[str, list[Path]] = {}
    if "json" in formats:
        files["json"] = [folder / "detections.json"]
    if "csv" in formats:
        files["csv"] = [folder / "detections.csv"]
    if "coco" in formats:
        files["coco"] = [folder / "detections.coco.json", folder / "detections.coco.images.json"]
    if "overlay" in formats:
        files["overlay"] = [overlay_path(folder, one) for one in given if isinstance(one, Given)]
    return files


def check_formats(formats: Iterable[str]) -> list[str]:
    """Formats by name, each once.

    Raises:
        UserError: there is no such format.
    """
    chosen = list(dict.fromkeys(part.strip() for one in formats for part in one.split(",")))
    for one in chosen:
        if one not in FORMATS:
            raise UserError(f"--format: there is no '{one}'.", did_you_mean(one, FORMATS))
    return chosen


def require_folder(folder: Path) -> None:
    """Make the output folder; raise `UserError` where that cannot be, before anything is looked at."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = "is a file" if isinstance(error, FileExistsError) else f"cannot be made ({error.strerror})"
        raise UserError(f"--output: {shown(folder)}: {why}.", "Give a folder.") from None


def refuse_existing(files: dict[str, list[Path]]) -> None:
    """Raise `UserError` where a file that will be written is there already."""
    there = [path for paths in files.values() for path in paths if os.path.lexists(path)]
    if there:
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise UserError(f"{shown(there[0])}: is there already{more}.", "Give another --output, or --overwrite.")


def look(
    model: Model,
    given: Sequence[Given | Failure],
    folder: Path | None = None,
    *,
    step: int = 10,
    tiles: bool = False,
    progress: Progress = silent,
) -> Iterator[tuple[Outcome | Failure, Path | None]]:
    """Look at everything, in order; write overlays into `folder` unless that is None.

    Yields:
        What was found, without its picture, and the overlay.
    """
    done, total = 0, len(given)
    for images, run in _runs(given):
        stream: Iterator[Outcome | Failure]
        if images:
            stream = model.stream(((one.name, one.source) for one in run), tiles=tiles)
        else:
            stream = (_single(model, one, folder, step, progress) for one in run)
        for one, outcome in zip(run, stream, strict=True):
            overlay: Path | None = None
            if folder is not None and isinstance(one, Given) and isinstance(outcome, Outcome):
                overlay = overlay_path(folder, one)
                if not isinstance(outcome, VideoOutcome):
                    _write_overlay(overlay, one, outcome)
            done += 1
            progress("files", done, total)
            if isinstance(outcome, Outcome):
                outcome = replace(outcome, picture=None)
            yield outcome, overlay


def _runs(given: Sequence[Given | Failure]) -> Iterator[tuple[bool, list[Any]]]:
    """Stretches of pictures, and everything else one by one."""
    stretch: list[Given] = []
    for one in given:
        if isinstance(one, Given) and not one.video:
            stretch.append(one)
            continue
        if stretch:
            yield True, stretch
            stretch = []
        yield False, [one]
    if stretch:
        yield True, stretch


def _single(
    model: Model, one: Given | Failure, folder: Path | None, step: int, progress: Progress
) -> Outcome | Failure:
    if isinstance(one, Failure):
        return one
    from comics.detect.video import detect_video, write_video

    assert isinstance(one.source, Path)
    try:
        outcome = detect_video(model, one.source, step, progress)
        if folder is not None:
            write_video(overlay_path(folder, one), one.source, outcome, progress)
    except UnreadableImage as error:
        return Failure(one.name, error.message.removeprefix(f"{one.name}: "))
    return outcome


def _write_overlay(path: Path, given: Given, outcome: Outcome) -> None:
    assert outcome.picture is not None
    picture = outcome.picture
    if picture.shape[:2] != outcome.size and max(picture.shape[:2]) < OVERLAY_SIDE:
        picture = read(given.source, OVERLAY_SIDE).pixels
    with atomic_write(path) as beside:
        draw(picture, outcome).save(beside, quality=92, subsampling=0, comment=outcome.about.notice.encode())


def write_results(files: dict[str, list[Path]], about: About, found: Sequence[Outcome | Failure]) -> None:
    """JSON, CSV and COCO results, those that `files` names."""
    if "json" in files:
        write_json(files["json"][0], document(about, found), indent=1)
    if "csv" in files:
        with atomic_write(files["csv"][0]) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            write_csv(file, about, found)
    if "coco" in files:
        results, images = coco(about, found)
        write_json(files["coco"][0], results)
        write_json(files["coco"][1], images, indent=1)


def write_csv(file: IO[str], about: About, found: Sequence[Outcome | Failure]) -> None:
    """A row a face; a file without a face, or that could not be read, has a row without a box."""
    writer = csv.DictWriter(file, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for one in found:
        common = {"file": one.file, "model": about.model, "notice": about.notice}
        if not isinstance(one, Outcome):
            writer.writerow({**common, "kind": "error", "verdict": one.verdict})
            continue
        if not one.faces:
            writer.writerow({**common, "kind": one.kind, "verdict": one.verdict})
        for face in one.faces:
            left, top, right, bottom = face.box
            box = {"x": left, "y": top, "width": right - left, "height": bottom - top}
            writer.writerow(
                {
                    **common,
                    "kind": one.kind,
                    **{key: round(value, 2) for key, value in box.items()},
                    "frame": "" if face.frame is None else face.frame,
                    "time": "" if face.time is None else round(face.time, 3),
                    "track": face.track or "",
                    "score": rounded(face.score),
                    "p_fake": rounded(face.p_fake),
                    "verdict": face.verdict,
                    "mask_area": face.mask_area,
                }
            )


def coco(about: About, found: Sequence[Outcome | Failure]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """COCO results, one entry a face with the category of its verdict, and the images that their ids mean.

    Frames of a video are images of their own, ``clip.mp4#12``.
    """
    results, images = [], []
    ids: dict[str, int] = {}
    for one in found:
        if not isinstance(one, Outcome):
            continue
        names = [one.file] if not isinstance(one, VideoOutcome) else []
        names += [f"{one.file}#{face.frame}" for face in one.faces if face.frame is not None]
        for name in dict.fromkeys(names):
            ids[name] = len(ids) + 1
            images.append({"id": ids[name], "file_name": name, "height": one.size[0], "width": one.size[1]})
        for face in one.faces:
            left, top, right, bottom = face.box
            results.append(
                {
                    "image_id": ids[one.file if face.frame is None else f"{one.file}#{face.frame}"],
                    "category_id": category_id(int(face.fake)),
                    "score": face.score,
                    "bbox": [round(value, 3) for value in (left, top, right - left, bottom - top)],
                    "segmentation": face.rle(one.size),
                    "p_fake": rounded(face.p_fake),
                    **({} if face.score_mask is None else {"score_mask": face.score_mask}),
                }
            )
    categories = [{"id": category_id(label), "name": name} for label, name in enumerate(CLASSES)]
    info = {"description": about.notice, "model": about.model, "digest": about.digest}
    return results, {"info": info, "images": images, "annotations": [], "categories": categories}


def as_text(about: About, found: Sequence[Outcome | Failure]) -> str:
    """The JSON document, for standard output."""
    return json.dumps(document(about, found), indent=1, allow_nan=False)
