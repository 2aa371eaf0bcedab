"""OpenForensics (Le et al., ICCV 2021) as its Zenodo record serves it, and its conversion to canonical COCO.

The record holds one annotation file a split and the images in one or more zip archives a split. `SPLIT_NAMES` gives
the dataset's own names; archives unpack to ``Images/<Split>/...`` below the raw folder, some to a doubled folder
(``Test-Dev/Test-Dev``), which the conversion looks through.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from comics.data.coco import SPLITS
from comics.data.convert import Progress, Report, Source, SplitReport, convert_split, silent
from comics.errors import UserError, did_you_mean

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
        UserError: see `comics.data.convert.convert_split`. Splits already converted stay.
    """
    report = Report(Path(output))
    for split in splits:
        report.splits[split] = convert_split(
            source(Path(raw), split), Path(output), split, strict, allow_missing, progress
        )
    return report


__all__ = [
    "CATEGORIES",
    "PAPER_COUNTS",
    "SPLIT_NAMES",
    "Progress",
    "Report",
    "SplitReport",
    "annotation_name",
    "annotation_path",
    "convert",
    "silent",
    "source",
]
