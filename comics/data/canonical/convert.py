"""From any COCO file with the categories Real and Fake to one split in canonical form (see `comics.data.canonical.coco`).

A split is written into a folder beside its place and renamed into it when all of it is right, so that there is never
half a split; an earlier conversion stays until then. A split whose annotation file has not changed is not converted
again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from comics.classes import CLASSES, category_id
from comics.data.canonical import coco
from comics.data.canonical.coco import SPLITS
from comics.data.canonical.repair import Notes, repair_face
from comics.errors import UserError, did_you_mean
from comics.files import read_json, write_json
from comics.progress import Progress, silent

# Ids of split k run from k * ID_STRIDE + 1: unique across splits, the same whichever splits are converted, below 2**31.
ID_STRIDE = 100_000_000
REPORT_NAME = "conversion.json"
ANNOTATIONS_NAME = "annotations.json"
# Raised by hand when the conversion gives other files for the same input: splits are then converted again.
VERSION = 3


@dataclass(frozen=True)
class Source:
    """Where a split comes from.

    Attributes:
        annotations: a COCO file.
        images: the folder that its file names are relative to.
        search: folders to look for an image in by its bare name, when it is not where the file says.
        prefer: a folder name that decides between several images of one name found so.
        frame_step: keep every n-th image of each folder (a video's frames) only.
    """

    annotations: Path
    images: Path
    search: tuple[Path, ...] = ()
    prefer: str = ""
    frame_step: int = 1


@dataclass(frozen=True)
class SplitReport:
    """What a conversion made of a split.

    Attributes:
        split: its name.
        images: number of images written.
        faces: number of faces written, by class name.
        changes: every normalisation and repair by kind: count, meaning, whether a defect, examples.
        fresh: False when an earlier conversion of the same file was kept.
    """

    split: str
    images: int
    faces: dict[str, int]
    changes: dict[str, dict[str, Any]]
    fresh: bool = True

    @property
    def repairs(self) -> dict[str, int]:
        """Number of defects repaired, by kind."""
        return {kind: change["count"] for kind, change in self.changes.items() if change["defect"]}


@dataclass
class Report:
    """What a conversion made of a dataset: one `SplitReport` a split. Each is also in ``<split>/conversion.json``."""

    output: Path
    splits: dict[str, SplitReport] = field(default_factory=dict)


class ImageFinder:
    """Finds image files by the names that annotations give them, in doubled or otherwise moved folders too."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._index: dict[str, list[Path]] | None = None

    def _by_name(self, name: str) -> list[Path]:
        if self._index is None:
            self._index = {}
            for root in dict.fromkeys(self._source.search):
                for folder, folders, files in os.walk(root):
                    folders.sort()
                    for file in files:
                        self._index.setdefault(file, []).append(Path(folder, file))
        found = self._index.get(name, [])
        wanted = self._source.prefer.casefold()
        preferred = [path for path in found if wanted in (part.casefold() for part in path.parent.parts)]
        return preferred if wanted else found

    def find(self, name: Any, where: str) -> tuple[Path | None, bool]:
        """The image called `name`, and whether it was found elsewhere than the name says.

        Raises:
            UserError: when the name leads out of the folder, or several different files have it.
        """
        relative = coco.require_file_name(name, where)
        exact = self._source.images / relative
        if exact.is_file():
            return exact, False
        found = self._by_name(relative.name)
        if len({path.stat().st_size for path in found}) > 1:
            listed = ", ".join(str(path) for path in found[:3])
            raise UserError(f"{where}: '{name}' may be any of {listed}.", "Remove those that are not of this split.")
        return (found[0], True) if found else (None, False)


def convert_split(
    source: Source,
    output: Path,
    split: str,
    strict: bool = False,
    allow_missing: bool = False,
    progress: Progress = silent,
) -> SplitReport:
    """Convert one split to ``output/<split>/{annotations.json,images/,conversion.json}``.

    Args:
        source: where the split comes from.
        output: folder of the dataset.
        split: one of `SPLITS`.
        strict: refuse the first defect instead of repairing it.
        allow_missing: drop images that are not there, and count them, instead of refusing.
        progress: told how far the work is.

    Raises:
        UserError: when the annotations are malformed, an image is missing or unreadable, or the disk is full; nothing
            of the split is then written, and an earlier conversion stays.
    """
    if split not in SPLITS:
        raise UserError(f"'{split}' is no split.", did_you_mean(split, SPLITS))
    target = output / split
    recipe = {
        "version": VERSION,
        "annotations_sha256": _sha256(source.annotations, f"{split}: checking", progress),
        "frame_step": source.frame_step,
    }
    finder = ImageFinder(source)
    kept = _kept(target, recipe, strict, allow_missing, finder)
    if kept is not None:
        return kept
    partial = output / f".{split}.partial"
    output.mkdir(parents=True, exist_ok=True)
    remove_folder(partial)
    try:
        report = _write_split(source, finder, partial, split, recipe, strict, allow_missing, progress)
        replace_folder(partial, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"{output}: the disk is full; the conversion of '{split}' was undone.", "Free some space and run again."
            ) from None
        raise UserError(f"{error.filename or output}: {error.strerror or error}.") from None
    finally:
        remove_folder(partial)
    return report


def _sha256(path: Path, task: str, progress: Progress) -> str:
    digest = hashlib.sha256()
    try:
        total, done = path.stat().st_size, 0
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
                done += len(block)
                progress(task, done, total)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.", "Fetch the dataset first, or put the file there by hand.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    return digest.hexdigest()


def remove_folder(folder: Path) -> None:
    """Remove `folder` with what is in it; of a link, the link alone."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def replace_folder(partial: Path, target: Path) -> None:
    """Put `partial` in the place of `target`; a folder cannot be renamed over a full one, so the old steps aside."""
    old = target.with_name(f".{target.name}.old")
    remove_folder(old)
    if target.exists() or target.is_symlink():
        os.replace(target, old)
    try:
        os.replace(partial, target)
    except OSError:
        if old.exists():
            os.replace(old, target)
        raise
    remove_folder(old)


def _kept(
    target: Path, recipe: dict[str, Any], strict: bool, allow_missing: bool, finder: ImageFinder
) -> SplitReport | None:
    """The report of an earlier conversion when it is whole and of the same annotations and images, or None."""
    annotations, report = target / ANNOTATIONS_NAME, target / REPORT_NAME
    if not annotations.is_file() or not report.is_file():
        return None
    try:
        document = read_json(report)
        if document["recipe"] != recipe:
            return None
        kept = SplitReport(target.name, document["images"], document["faces"], document["changes"], fresh=False)
        if (strict and kept.repairs) or (not allow_missing and "image_missing" in kept.changes):
            return None
        for name, published in document["files"].items():
            image = target / "images" / name
            original, _ = finder.find(published, "file_name")
            if not image.is_file():
                return None
            if original is not None and not image.samefile(original) and not _same_bytes(image, original):
                return None
    except (UserError, KeyError, TypeError, AttributeError, OSError):
        return None
    return kept


def _same_bytes(a: Path, b: Path) -> bool:
    return a.stat().st_size == b.stat().st_size and a.read_bytes() == b.read_bytes()


@dataclass
class _ImageEntry:
    """An image of the source while its split is converted."""

    number: int
    published: str
    path: Path
    width: int
    height: int
    name: str = ""
    video_id: int | str | None = None


def _write_split(
    source: Source,
    finder: ImageFinder,
    partial: Path,
    split: str,
    recipe: dict[str, Any],
    strict: bool,
    allow_missing: bool,
    progress: Progress,
) -> SplitReport:
    notes = Notes(strict=strict, root=f"{source.images}{os.sep}")
    first_id = SPLITS.index(split) * ID_STRIDE + 1
    path = source.annotations
    images, dropped, labels = _read_images(source, finder, notes, allow_missing, f"{split}: reading images", progress)
    _check_headers(images, path, notes, f"{split}: checking images", progress)
    _name(images, notes, path)
    (partial / "images").mkdir(parents=True)
    for done, entry in enumerate(images.values(), 1):
        _link(entry.path, partial / "images" / entry.name)
        progress(f"{split}: linking images", done, len(images))

    faces = dict.fromkeys(CLASSES, 0)
    number_of = {}
    total, done = path.stat().st_size, 0

    def on_read(size: int) -> None:
        nonlocal done
        done += size
        progress(f"{split}: converting faces", min(done, total), total)

    with coco.Writer(partial / ANNOTATIONS_NAME, description=f"{split}, canonical form") as writer:
        for order, (identity, entry) in enumerate(images.items()):
            number_of[identity] = first_id + order
            if identity != first_id + order:
                notes.add("image_id_renumbered", f"{path}: images[{entry.number}].id")
            writer.image(
                {
                    "id": first_id + order,
                    "file_name": f"images/{entry.name}",
                    "width": entry.width,
                    "height": entry.height,
                    "source_id": identity,
                    **({} if entry.video_id is None else {"video_id": entry.video_id}),
                }
            )
        written = 0
        seen: set[int] = set()
        tracked: set[bool] = set()
        for key, index, item in coco.stream(path, on_read):
            if index < 0:
                coco.require_section(key, item, path)
            if key != "annotations" or index < 0:
                continue
            where = f"{path}: annotations[{index}]"
            face = coco.require_object(item, where)
            identity = coco.require_integer(face.get("id"), f"{where}.id")
            if identity in seen:
                raise UserError(f"{where}.id: {identity} stands twice.")
            seen.add(identity)
            image_id = coco.require_integer(face.get("image_id"), f"{where}.image_id")
            category = coco.require_integer(face.get("category_id"), f"{where}.category_id")
            if category not in labels:
                raise UserError(f"{where}.category_id: the file has no category {category}.")
            if image_id in dropped:
                continue
            if image_id not in images:
                raise UserError(f"{where}.image_id: the file has no image {image_id}.")
            entry = images[image_id]
            repaired = repair_face(face, entry.width, entry.height, where, notes)
            if repaired is None:
                continue
            track = coco.require_membership(face, "track_id", where)
            tracked.add(track is not None)
            if len(tracked) > 1:
                raise UserError(f"{where}.track_id: of some faces only.", "Give it to all faces, or to none.")
            label = labels[category]
            faces[CLASSES[label]] += 1
            if category != category_id(label):
                notes.add("category_renumbered", where)
            if identity != first_id + written:
                notes.add("face_id_renumbered", where)
            writer.annotation(
                {
                    "id": first_id + written,
                    "image_id": number_of[image_id],
                    "category_id": category_id(label),
                    **repaired,
                    **_kind_of_forgery(face, where),
                    **({} if track is None else {"track_id": track}),
                    "source_id": identity,
                }
            )
            written += 1
        progress(f"{split}: converting faces", total, total)
    report = SplitReport(split, len(images), faces, notes.as_json())
    document = {
        "split": split,
        "recipe": recipe,
        "images": report.images,
        "faces": report.faces,
        "changes": report.changes,
        "files": {entry.name: entry.published for entry in images.values()},
    }
    write_json(partial / REPORT_NAME, document, indent=1)
    return report


def _kind_of_forgery(face: dict[str, Any], where: str) -> dict[str, str]:
    """A face's `forgery`, the name of how it was forged, where the source has one."""
    kind = face.get("forgery")
    if kind is None:
        return {}
    if not isinstance(kind, str):
        raise UserError(f"{where}.forgery: expected the name of a kind of forgery, found {coco.shorten(kind)}.")
    return {"forgery": kind}


def _read_images(
    source: Source, finder: ImageFinder, notes: Notes, allow_missing: bool, task: str, progress: Progress
) -> tuple[dict[int, _ImageEntry], set[int], dict[int, int]]:
    """The images of a COCO file by id, the ids left out, and the class index of each of its category ids."""
    path = source.annotations
    images: dict[int, _ImageEntry] = {}
    categories: list[Any] = []
    sections: set[str] = set()
    missing: list[str] = []
    dropped: set[int] = set()
    total, done = path.stat().st_size, 0

    def on_read(size: int) -> None:
        nonlocal done
        done += size
        progress(task, min(done, total), total)

    for key, index, item in coco.stream(path, on_read):
        if key == "annotations" and {"images", "categories"} <= sections:
            break  # the rest is for the second pass
        sections.add(key)
        if index < 0:
            coco.require_section(key, item, path)
            continue
        where = f"{path}: {key}[{index}]"
        if key == "categories":
            categories.append(coco.require_object(item, where))
        elif key == "images":
            image = coco.require_object(item, where)
            identity = coco.require_integer(image.get("id"), f"{where}.id")
            if identity in images or identity in dropped:
                raise UserError(f"{where}.id: {identity} stands twice.")
            name = image.get("file_name")
            found, elsewhere = finder.find(name, f"{where}.file_name")
            if found is None:
                missing.append(str(name))
                dropped.add(identity)
                if allow_missing:
                    notes.add("image_missing", f"{where}: {name}")
                continue
            if elsewhere:
                notes.add("file_found_elsewhere", f"{where}: {found}")
            # A size that is absent or odd is the header's to say; 0 never agrees with it.
            width, height = (value if type(value := image.get(side)) is int else 0 for side in ("width", "height"))
            video = coco.require_membership(image, "video_id", where)
            images[identity] = _ImageEntry(index, str(name), found, width, height, video_id=video)
    for section in ("images", "annotations"):
        if section not in sections and not (section == "annotations" and categories):
            raise UserError(f"{path}: '{section}' is missing.", "Is it a COCO annotation file?")
    if missing and not allow_missing:
        raise UserError(
            f"{path}: {len(missing)} of {len(images) + len(missing)} images are not there, {missing[0]} first.",
            "Fetch the missing parts or put the files there; --allow-missing leaves such images out and counts them.",
        )
    if len({entry.video_id is None for entry in images.values()}) > 1:
        raise UserError(f"{path}: images: some have a video_id, others none.", "Give it to all images, or to none.")
    if source.frame_step > 1:
        images, skipped = _every_nth(images, source.frame_step)
        dropped |= skipped
    return images, dropped, _labels(categories, path)


def _labels(categories: list[dict[str, Any]], path: Path) -> dict[int, int]:
    """Class index of each category id, by name; OpenForensics' numbering where the file names no categories."""
    if not categories:
        return dict(enumerate(range(len(CLASSES))))
    by_name = {name.casefold(): label for label, name in enumerate(CLASSES)}
    labels = {}
    for index, category in enumerate(categories):
        where = f"{path}: categories[{index}]"
        name = category.get("name")
        if not isinstance(name, str) or name.casefold() not in by_name:
            raise UserError(
                f"{where}.name: expected Real or Fake, found {coco.shorten(name)}.", "Rename the categories."
            )
        identity = coco.require_integer(category.get("id"), f"{where}.id")
        if identity in labels:
            raise UserError(f"{where}.id: {identity} stands twice.")
        labels[identity] = by_name[name.casefold()]
    return labels


def _every_nth(images: dict[int, _ImageEntry], step: int) -> tuple[dict[int, _ImageEntry], set[int]]:
    """Every `step`-th image of each folder, in the natural order of names, and the ids of the others."""
    from comics.data.canonical.frames import natural_key

    folders: dict[Path, list[tuple[int, _ImageEntry]]] = {}
    for identity, entry in images.items():
        folders.setdefault(entry.path.parent, []).append((identity, entry))
    chosen: set[int] = set()
    for entries in folders.values():
        entries.sort(key=lambda pair: natural_key(pair[1].path.name))
        chosen.update(identity for identity, _ in entries[::step])
    return {identity: entry for identity, entry in images.items() if identity in chosen}, set(images) - chosen


def image_size(path: Path, where: str) -> tuple[int, int]:
    """Width and height from an image's header; a UserError that names `where` when it has none."""
    try:
        with Image.open(path) as image:
            return image.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{where}: {path} is no readable image ({error}).", "Fetch or extract it again.") from None


def _check_headers(images: dict[int, _ImageEntry], path: Path, notes: Notes, task: str, progress: Progress) -> None:
    """Set the sizes of all images to those of their headers."""
    entries = list(images.values())

    def header(entry: _ImageEntry) -> tuple[int, int]:
        return image_size(entry.path, f"{path}: images[{entry.number}].file_name")

    with ThreadPoolExecutor(8) as pool:  # waiting for the disk, mostly
        for done, (entry, size) in enumerate(zip(entries, pool.map(header, entries), strict=True), 1):
            if size != (entry.width, entry.height):
                found = f"{path}: images[{entry.number}]: {entry.width} x {entry.height}, header {size[0]} x {size[1]}"
                notes.add("image_size_corrected", found)
                entry.width, entry.height = size
            progress(task, done, len(entries))


def _name(images: dict[int, _ImageEntry], notes: Notes, path: Path) -> None:
    """Give every image its name below ``images/``: its own, preceded by its folders where two have the same."""
    count: dict[str, int] = {}
    for entry in images.values():  # folded, since some disks know no case
        key = entry.path.name.casefold()
        count[key] = count.get(key, 0) + 1
    taken: set[str] = set()
    for entry in images.values():
        name = entry.path.name
        if count[name.casefold()] > 1:
            name = "__".join(coco.require_file_name(entry.published, f"{path}: images[{entry.number}].file_name").parts)
        if name.casefold() in taken:
            raise UserError(f"{path}: images[{entry.number}].file_name: '{entry.published}' stands twice.")
        taken.add(name.casefold())
        entry.name = name
        if f"images/{name}" != entry.published:
            notes.add("file_name_relative", f"{path}: images[{entry.number}]: {entry.published}")


def _link(source: Path, target: Path) -> None:
    """Hard link, or copy where the disk cannot link."""
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        shutil.copyfile(source, target)


def convert_coco(
    annotations: Mapping[str, Path],
    images: Mapping[str, Path],
    output: Path,
    frame_step: int = 1,
    strict: bool = False,
    allow_missing: bool = False,
    progress: Progress = silent,
) -> Report:
    """Convert a user's own COCO files, one a split.

    Args:
        annotations: COCO file of each split, with the categories Real and Fake.
        images: image folder of each split.
        output: folder of the dataset.
        frame_step: keep every n-th image of each folder (a video's frames) only.
        strict: refuse the first defect instead of repairing it.
        allow_missing: drop images that are not there instead of refusing.
        progress: told how far the work is.
    """
    report = Report(output)
    for split, path in annotations.items():
        if split not in images:
            raise UserError(f"no image folder for the split '{split}'.", "Name it in params.yaml under 'images'.")
        source = Source(Path(path), Path(images[split]), frame_step=frame_step)
        report.splits[split] = convert_split(source, output, split, strict, allow_missing, progress)
    return report


__all__ = [
    "ANNOTATIONS_NAME",
    "ID_STRIDE",
    "REPORT_NAME",
    "Report",
    "Source",
    "SplitReport",
    "convert_coco",
    "convert_split",
]
