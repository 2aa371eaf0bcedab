"""Forged videos with mask videos (``kind: videos``), and their conversion to canonical COCO.

FFIW and FaceForensics++ come as three folders of videos: pristine sources, forged targets, and masks, which say in each
frame of a target what is forged. Every n-th frame becomes an image with the `video_id` of its video; each connected
component of the mask a Fake face, whose `track_id` tells it from frame to frame (`comics.tracks`). Frames are written
without loss, below ``raw/<split>/{source,target}/<video>/``, as they are stored (a rotation that a player would apply is
not). A video whose frames are there is not decoded again.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from comics.classes import category_id
from comics.data.canonical import coco
from comics.data.canonical.convert import Report, convert_coco, remove_folder, replace_folder
from comics.data.canonical.frames import natural_key
from comics.data.canonical.masks import detected_faces, masked_faces, real_faces
from comics.errors import UserError
from comics.files import read_json, write_json
from comics.images import UnreadableImage
from comics.params import VideosDataset
from comics.progress import Progress, silent
from comics.tracks import Tracker
from comics.videos import opened, require_av

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"})
FACES_NAME = "faces.json"
VERSION = 1  # of what is written for a video


@dataclass(frozen=True)
class VideoSource:
    """One split of videos.

    Attributes:
        target: a folder of forged videos.
        mask: a folder of mask videos under the targets' names.
        source: a folder of pristine videos.
        names: which videos are of the split: a text file of names without suffix, one a line, or FaceForensics++' JSON list
            of pairs, where ``["a", "b"]`` stands for the targets ``a_b`` and ``b_a`` and the sources ``a`` and ``b``.
        faces: a COCO file of faces' boxes, whose file names are relative to ``raw/<split>``.
        forgery: what the forged faces are called.
        real_by_mask: the face of a source lies where the mask of its target (the same name, or ``name_...``) says.
        frame_step: every n-th frame is taken, the first included.
        threshold: where foreground begins in a mask's grey values: compressed masks have values between.
        least: components of fewer pixels are left out.
    """

    target: Path
    mask: Path
    source: Path | None = None
    names: Path | None = None
    faces: Path | None = None
    forgery: str | None = None
    real_by_mask: bool = False
    frame_step: int = 10
    threshold: int = 128
    least: int = 64


def decode(path: Path, step: int, mode: str) -> Iterator[tuple[int, Any]]:
    """Every `step`-th frame of a video with its number from 0: (H, W, 3) uint8 for mode ``rgb24``, (H, W) for ``gray``."""
    try:
        with opened(path) as (container, stream):
            for number, frame in enumerate(container.decode(stream)):
                if number % step == 0:
                    yield number, frame.to_ndarray(format=mode)
    except UnreadableImage as error:
        raise UserError(error.message, "Fetch it again, or give a folder of videos.") from None


def videos_in(folder: Path, key: str) -> dict[str, Path]:
    """The videos at or below `folder` by their relative path without suffix, in natural order."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder.", f"Name the split's folder of videos under `{key}`.")
    paths = [path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()]
    named = [(path.relative_to(folder).with_suffix("").as_posix(), path) for path in paths]
    return dict(sorted(named, key=lambda pair: natural_key(pair[0])))


def chosen_names(path: Path) -> set[str]:
    """The names that a list of videos holds; see `VideoSource.names`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}).", "Name a text file or a JSON list of pairs.") from None
    if path.suffix.lower() != ".json":
        return {line.strip() for line in text.splitlines() if line.strip()}
    try:
        pairs = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}).") from None
    if not isinstance(pairs, list):
        raise UserError(f"{path}: expected a list of pairs of names, found {coco.shorten(pairs)}.")
    names: set[str] = set()
    for index, pair in enumerate(pairs):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(name, str) for name in pair):
            raise UserError(f"{path}: [{index}]: expected a pair of names, found {coco.shorten(pair)}.")
        names |= {*pair, f"{pair[0]}_{pair[1]}", f"{pair[1]}_{pair[0]}"}
    return names


def _extract(video: Path, mask: Path | None, label: int, folder: Path, source: VideoSource) -> list[dict[str, Any]]:
    """The sampled frames of a video below `folder`: ``{"name", "width", "height", "faces"}`` of each.

    Where the mask video ends before its video, the frames after its end are left out: nothing is known of them.
    """
    recipe: dict[str, int] = {
        "label": label,
        "version": VERSION,
        "step": source.frame_step,
        "threshold": source.threshold,
        "least": source.least,
    }
    for name, path in (("video", video), ("mask", mask)):
        if path is not None:
            status = path.stat()
            recipe[f"{name}_size"], recipe[f"{name}_time"] = status.st_size, status.st_mtime_ns
    described = folder / FACES_NAME
    if described.is_file():
        known = read_json(described)
        if known.get("recipe") == recipe:
            return list(known["frames"])
    partial = folder.with_name(f".{folder.name}.partial")
    remove_folder(partial)
    partial.mkdir(parents=True)
    frames = []
    with ExitStack() as stack:
        stack.callback(remove_folder, partial)
        masks = decode(mask, source.frame_step, "gray") if mask is not None else None
        for number, pixels in decode(video, source.frame_step, "rgb24"):
            forged = next(masks, None) if masks is not None else (number, np.zeros(pixels.shape[:2], dtype=np.uint8))
            if forged is None:
                break
            if forged[1].shape != pixels.shape[:2]:
                (rows, columns), (height, width) = forged[1].shape, pixels.shape[:2]
                raise UserError(
                    f"{mask}: {columns} x {rows} px, its video {video} {width} x {height}.",
                    "Give the mask of the same size.",
                )
            name = f"{number:06d}.png"
            Image.fromarray(pixels).save(partial / name, compress_level=3)
            frames.append(
                {
                    "name": name,
                    "width": pixels.shape[1],
                    "height": pixels.shape[0],
                    "faces": masked_faces(forged[1], label, False, source.threshold, source.least),
                }
            )
        if not frames:
            raise UserError(f"{mask or video}: has no frame.", "Fetch it again.")
        write_json(partial / FACES_NAME, {"recipe": recipe, "frames": frames})
        folder.parent.mkdir(parents=True, exist_ok=True)
        replace_folder(partial, folder)
    return frames


def _chosen(source: VideoSource) -> list[tuple[str, str, Path, Path | None, int]]:
    """The videos of a split: part, name, file, mask video, and the category of what the mask shows."""
    fake, real = category_id(1), category_id(0)
    wanted = None if source.names is None else chosen_names(source.names)
    masks = videos_in(source.mask, "mask")
    chosen: list[tuple[str, str, Path, Path | None, int]] = []
    for name, path in videos_in(source.target, "target").items():
        if wanted is None or name in wanted:
            if name not in masks:
                raise UserError(
                    f"{source.mask}: has no mask video '{name}' for {path}.", "A mask video has its target's name."
                )
            chosen.append(("target", name, path, masks[name], fake))
    if not chosen:
        raise UserError(f"{source.target}: holds no video of the split.", "Check `target` and `names`.")
    for name, path in (videos_in(source.source, "source") if source.source is not None else {}).items():
        if wanted is None or name in wanted:
            fitting = [mask for other, mask in masks.items() if other == name or other.startswith(f"{name}_")]
            chosen.append(("source", name, path, fitting[0] if source.real_by_mask and fitting else None, real))
    return chosen


class _Tracks:
    """The faces of one video from frame to frame: forged ones and real ones apart, since a track has one truth."""

    def __init__(self) -> None:
        self._of_category: defaultdict[int, Tracker] = defaultdict(Tracker)
        self._numbers: dict[tuple[int, int], int] = {}

    def follow(self, faces: Sequence[Mapping[str, Any]]) -> list[int]:
        """The number in the video, from 1 on, of the track of each face (a COCO annotation) of the next frame."""
        numbers = [0] * len(faces)
        for category in sorted({*self._of_category, *(face["category_id"] for face in faces)}):
            places = [place for place, face in enumerate(faces) if face["category_id"] == category]
            boxes = [
                (x, y, x + width, y + height) for x, y, width, height in (faces[place]["bbox"] for place in places)
            ]
            for place, own in zip(places, self._of_category[category].follow(boxes), strict=True):
                numbers[place] = self._numbers.setdefault((category, own), len(self._numbers) + 1)
        return numbers


def describe(
    source: VideoSource, raw: Path, progress: Progress = silent, task: str = "reading videos"
) -> dict[str, Any]:
    """A split of videos as COCO content, its frames below `raw`.

    Raises:
        UserError: PyAV is not installed, a folder or a mask video is missing, or a video cannot be read.
    """
    require_av()
    boxes = real_faces(source.faces) if source.faces is not None else {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    chosen = _chosen(source)
    for done, (part, name, path, mask, label) in enumerate(chosen, 1):
        tracks = _Tracks()
        for frame in _extract(path, mask, label, raw / part / name, source):
            file_name = f"{part}/{name}/{frame['name']}"
            images.append(
                {
                    "id": len(images) + 1,
                    "file_name": file_name,
                    "width": frame["width"],
                    "height": frame["height"],
                    "video_id": f"{part}/{name}",
                }
            )
            faces = list(frame["faces"])
            if file_name in boxes:
                faces += detected_faces(boxes[file_name], faces, (frame["width"], frame["height"]))
            for face, track in zip(faces, tracks.follow(faces), strict=True):
                forgery = (
                    {"forgery": source.forgery} if source.forgery and face["category_id"] == category_id(1) else {}
                )
                of_frame = {"id": len(annotations) + 1, "image_id": len(images), "track_id": track}
                annotations.append({**of_frame, **face, **forgery})
        progress(task, done, len(chosen))
    unknown = sorted(boxes.keys() - {image["file_name"] for image in images})
    if unknown:
        raise UserError(f"{source.faces}: {unknown[0]} is no frame of the split.", f"Give names relative to {raw}.")
    return {"images": images, "annotations": annotations, "categories": coco.CATEGORIES}


def video_sources(block: VideosDataset, splits: Collection[str]) -> dict[str, VideoSource]:
    """The sources of `splits` that a dataset of params.yaml names."""
    return {
        name: VideoSource(
            target=Path(split.target),
            mask=Path(split.mask),
            source=Path(split.source) if split.source else None,
            names=Path(split.names) if split.names else None,
            faces=Path(split.faces) if split.faces else None,
            forgery=split.forgery,
            real_by_mask=block.real_by_mask,
            frame_step=block.frame_step,
            threshold=block.threshold,
            least=block.min_area,
        )
        for name, split in block.splits.items()
        if name in splits
    }


def convert_videos(
    sources: Mapping[str, VideoSource],
    output: Path,
    strict: bool = False,
    allow_missing: bool = False,
    progress: Progress = silent,
) -> Report:
    """Convert videos, a `VideoSource` a split, to ``output/<split>/``."""
    annotations, images = {}, {}
    for split, source in sources.items():
        images[split] = output / "raw" / split
        content = describe(source, images[split], progress, f"{split}: reading videos")
        annotations[split] = output / "raw" / f"{split}.json"
        write_json(annotations[split], content)
    return convert_coco(annotations, images, output, strict=strict, allow_missing=allow_missing, progress=progress)
