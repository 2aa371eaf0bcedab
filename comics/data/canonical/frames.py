"""Videos as folders of frames: which frames to look at.

Decoding is left to tools made for it (``ffmpeg -i clip.mp4 frames/clip/%06d.png``), which keeps the package free of a
video library; sampling every n-th frame is the same for every dataset.
"""

from __future__ import annotations

import re
from pathlib import Path

from comics.errors import UserError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sorting key under which ``frame_9`` comes before ``frame_10``."""
    parts = re.findall(r"\d+|\D+", name)
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts)


def sample(folder: Path, step: int) -> list[Path]:
    """Every `step`-th image of each folder at or below `folder`, the first one included.

    Args:
        folder: a video's frames, or a folder of such folders.
        step: of 1 or more; 1 takes every frame.

    Returns:
        image paths, folder by folder, in natural order of their names.
    """
    if step < 1:
        raise UserError(f"frame_step: expected 1 or more, found {step}.")
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder.", "Give a folder of frames, or of folders of frames.")
    folders: dict[Path, list[Path]] = {}
    for path in folder.rglob("*"):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            folders.setdefault(path.parent, []).append(path)
    chosen: list[Path] = []
    for name in sorted(folders, key=lambda path: natural_key(str(path))):
        chosen += sorted(folders[name], key=lambda path: natural_key(path.name))[::step]
    return chosen
