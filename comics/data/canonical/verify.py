"""Verifying a converted dataset: counts, readability, duplicates and statistics, a dataset card and a figure.

Images are decoded and hashed once: ``<dataset>/.hashes.json`` remembers them by size and time, so that an interrupted
verification goes on and a second one is quick.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from comics.classes import CLASSES, class_label
from comics.data.canonical import coco
from comics.data.canonical.coco import SPLITS
from comics.data.canonical.convert import ANNOTATIONS_NAME, REPORT_NAME
from comics.errors import UserError
from comics.files import atomic_write, read_json, write_json, write_text
from comics.progress import Progress, silent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CARD_NAME = "card.md"
FIGURE_NAME = "card.png"
RESULT_NAME = "verification.json"
_CACHE_NAME = ".hashes.json"
# COCO's bounds between small, medium and large, in pixels of area.
SIZE_BOUNDS = (32**2, 96**2)
SIZE_NAMES = ("small", "medium", "large")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_COLOURS = {"Real": "#56B4E9", "Fake": "#E69F00"}
_SPLIT_COLOURS = ("#332288", "#44AA99", "#DDCC77", "#AA4499")
_SHOWN = 20  # duplicates named in the card


@dataclass
class SplitStatistics:
    """What a split holds.

    Attributes:
        images: number of images.
        faces: number of faces, by class name.
        faces_per_image: how many images have how many faces.
        sizes: faces by COCO's small, medium, large.
        side_quantiles: of the square root of the mask area in px, at `QUANTILES`.
        fill: mean share of the box that the mask covers.
        mixed_images: number of images with a real and a fake face.
        unreadable: images that cannot be decoded.
        repairs: defects that the conversion repaired, by kind; empty where it left no report.
    """

    images: int = 0
    faces: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CLASSES, 0))
    faces_per_image: dict[int, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIZE_NAMES, 0))
    side_quantiles: list[float] = field(default_factory=list)
    fill: float = 0.0
    mixed_images: int = 0
    unreadable: list[str] = field(default_factory=list)
    repairs: dict[str, int] = field(default_factory=dict)


@dataclass
class Difference:
    """A count that is not the expected one."""

    split: str
    what: str
    expected: int
    found: int


@dataclass
class Verification:
    """The result of `verify`.

    Attributes:
        splits: statistics of each split.
        differences: counts that are not the expected ones.
        duplicates: groups of images (``split/images/x.jpg``) of equal pixels.
        leaks: those groups that join the training or validation split with a test split.
    """

    splits: dict[str, SplitStatistics] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    duplicates: list[list[str]] = field(default_factory=list)
    leaks: list[list[str]] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """What makes the dataset untrustworthy, a sentence each."""
        found = [
            f"{split}: {len(statistics.unreadable)} unreadable images, {statistics.unreadable[0]} first"
            for split, statistics in self.splits.items()
            if statistics.unreadable
        ]
        if self.leaks:
            found.append(
                f"{len(self.leaks)} images are both in training and in test: {' = '.join(self.leaks[0])} first"
            )
        return found


@dataclass
class _Faces:
    """Sides (square roots of mask areas, in px) and class indices of a split's faces, for the figure."""

    sides: NDArray[np.float32]
    labels: NDArray[np.int8]


def verify(
    folder: Path,
    expected: Mapping[str, Mapping[str, int]] | None = None,
    splits: Sequence[str] | None = None,
    jobs: int = 4,
    progress: Progress = silent,
) -> Verification:
    """Verify a dataset and write ``card.md``, ``card.png`` and ``verification.json`` into its folder.

    Args:
        folder: of the dataset.
        expected: ``images``, ``Real`` and ``Fake`` counts of each split, where they are known.
        splits: which splits; those that are there by default.
        jobs: threads that decode images.
        progress: ``progress(task, done, total)`` in images.

    Raises:
        UserError: when a split's annotations are not canonical.
    """
    chosen = [split for split in SPLITS if (folder / split / ANNOTATIONS_NAME).is_file()] if splits is None else splits
    if not chosen:
        raise UserError(
            f"{folder}: holds no converted split.", "Run `comics data make` or `comics data convert` first."
        )
    result = Verification()
    faces: dict[str, _Faces] = {}
    cache = _HashCache(folder / _CACHE_NAME)
    owners: dict[str, list[str]] = {}
    for split in chosen:
        path = folder / split / ANNOTATIONS_NAME
        coco.validate(path)
        statistics, faces[split], names = _measure(path)
        statistics.repairs = _repairs(folder / split / REPORT_NAME)
        result.splits[split] = statistics
        keys = [f"{split}/{name}" for name in names]
        try:
            with ThreadPoolExecutor(max(1, jobs)) as pool:
                digests = pool.map(lambda key: cache.digest(folder / key, key), keys)
                for done, (key, digest) in enumerate(zip(keys, digests, strict=True), 1):
                    if digest is None:
                        statistics.unreadable.append(key)
                    else:
                        owners.setdefault(digest, []).append(key)
                    progress(f"{split}: decoding images", done, len(keys))
        finally:
            cache.save()
    result.duplicates = [sorted(group) for group in owners.values() if len(group) > 1]
    result.leaks = [group for group in result.duplicates if _leaks(group)]
    result.differences = _differences(result.splits, expected or {})
    write_json(folder / RESULT_NAME, asdict(result), indent=1)
    draw(folder, result, faces)
    write_text(folder / CARD_NAME, card(folder.name, result, expected or {}))
    return result


class _HashCache:
    """Hashes of decoded images, remembered by the files' size and time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, list[Any]] = {}
        with suppress(UserError):
            known = read_json(path) if path.exists() else {}
            self._known = known if isinstance(known, dict) else {}

    def digest(self, path: Path, key: str) -> str | None:
        """Hash of an image's size and pixels, or None when it cannot be decoded. Safe to call from several threads."""
        try:
            status = path.stat()
            stamp = [status.st_size, status.st_mtime_ns]
            known = self._known.get(key)
            if isinstance(known, list) and known[:2] == stamp:
                return known[2]
            with Image.open(path) as image:
                pixels = image.convert("RGB")
            digest = hashlib.blake2b(f"{pixels.size}".encode() + pixels.tobytes(), digest_size=16).hexdigest()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            return None
        self._known[key] = [*stamp, digest]
        return digest

    def save(self) -> None:
        write_json(self._path, self._known)


def _leaks(group: Sequence[str]) -> bool:
    splits = {key.split("/", 1)[0] for key in group}
    return bool(splits & {"train", "val"}) and bool(splits & {"test_dev", "test_challenge"})


def _measure(path: Path) -> tuple[SplitStatistics, _Faces, list[str]]:
    """Statistics of a canonical file, its faces, and the file names of its images."""
    names: dict[int, str] = {}
    count: Counter[int] = Counter()
    seen: dict[int, int] = {}  # bit set of the class indices in each image
    sides, labels, fills = [], [], []
    for key, index, item in coco.stream(path):
        if index < 0:
            continue
        if key == "images":
            names[item["id"]] = item["file_name"]
        elif key == "annotations":
            label = class_label(item["category_id"])
            count[item["image_id"]] += 1
            seen[item["image_id"]] = seen.get(item["image_id"], 0) | (1 << label)
            sides.append(item["area"] ** 0.5)
            labels.append(label)
            fills.append(item["area"] / (item["bbox"][2] * item["bbox"][3]))
    faces = _Faces(np.array(sides, dtype=np.float32), np.array(labels, dtype=np.int8))
    areas = faces.sides.astype(np.float64) ** 2
    kinds = np.digitize(areas, SIZE_BOUNDS)
    per_image = Counter(count[identity] for identity in names)
    statistics = SplitStatistics(
        images=len(names),
        faces={name: int((faces.labels == label).sum()) for label, name in enumerate(CLASSES)},
        faces_per_image=dict(sorted(per_image.items())),
        sizes={name: int((kinds == kind).sum()) for kind, name in enumerate(SIZE_NAMES)},
        side_quantiles=[round(float(value), 2) for value in np.quantile(faces.sides, QUANTILES)] if sides else [],
        fill=round(float(np.mean(fills)), 4) if fills else 0.0,
        mixed_images=sum(bits == 0b11 for bits in seen.values()),
    )
    return statistics, faces, list(names.values())


def _repairs(path: Path) -> dict[str, int]:
    if not path.exists():
        return {}
    changes = read_json(path).get("changes", {})
    return {kind: change["count"] for kind, change in changes.items() if change["defect"]}


def _differences(splits: Mapping[str, SplitStatistics], expected: Mapping[str, Mapping[str, int]]) -> list[Difference]:
    found: list[Difference] = []
    for split, statistics in splits.items():
        counts = {"images": statistics.images, **statistics.faces}
        for what, number in expected.get(split, {}).items():
            if counts[what] != number:
                found.append(Difference(split, what, number, counts[what]))
    return found


# ------------------------------------------------------------------------------------------------------- the card


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def card(name: str, result: Verification, expected: Mapping[str, Mapping[str, int]]) -> str:
    """The dataset card: counts beside the expected ones, sizes, duplicates, repairs, and the figure."""
    lines = [
        f"# Dataset card: {name}",
        "",
        "Multi-face forgery detection and segmentation: every face has a box, a mask and a class, "
        f"{' or '.join(CLASSES)}. Canonical COCO, written by `comics data verify`.",
        "",
        f"![Faces per image, face sizes, class balance and examples]({FIGURE_NAME})",
        "",
        "## Counts",
        "",
        "Expected are the paper's counts, or those that params.yaml asks for; nothing where neither is known.",
        "",
        _row("Split", "What", "Found", "Expected", "Difference"),
        _row("---", "---", "---:", "---:", "---:"),
    ]
    for split, statistics in result.splits.items():
        for what, found in {"images": statistics.images, **statistics.faces}.items():
            number = expected.get(split, {}).get(what)
            shown = ("", "") if number is None else (f"{number:,}", f"{found - number:+,}" if found != number else "0")
            lines.append(_row(split, what, f"{found:,}", *shown))
    lines += [
        "",
        "## Faces",
        "",
        "Side is the square root of the mask's area; small is below 32 x 32 px, large above 96 x 96 px of area. "
        "Mixed images hold real and fake faces.",
        "",
        _row(
            "Split",
            "Faces per image (mean, most)",
            "Side in px (5, 50, 95 %)",
            *SIZE_NAMES,
            "Mask / box",
            "Mixed images",
        ),
        _row("---", "---", "---", "---:", "---:", "---:", "---:", "---:"),
    ]
    for split, statistics in result.splits.items():
        total = sum(statistics.faces.values())
        mean = f"{total / statistics.images:.2f}" if statistics.images else "-"
        most = max(statistics.faces_per_image, default=0)
        sides = [f"{statistics.side_quantiles[i]:.0f}" for i in (0, 2, 4)] if statistics.side_quantiles else ["-"]
        shares = [f"{100 * statistics.sizes[size] / total:.1f} %" if total else "-" for size in SIZE_NAMES]
        lines.append(
            _row(split, f"{mean}, {most}", ", ".join(sides), *shares, f"{statistics.fill:.2f}", statistics.mixed_images)
        )
    lines += ["", "## Trust", ""]
    for split, statistics in result.splits.items():
        lines.append(f"- {split}: {statistics.images - len(statistics.unreadable):,} images decode.")
        lines += [f"  - unreadable: `{key}`" for key in statistics.unreadable[:_SHOWN]]
        if statistics.repairs:
            listed = ", ".join(f"{kind} {count:,}" for kind, count in statistics.repairs.items())
            lines.append(f"  - repaired by the conversion (`{split}/{REPORT_NAME}`): {listed}.")
    lines.append(
        f"- Images of equal pixels: {len(result.duplicates):,} groups, "
        f"{len(result.leaks):,} of them across training and test."
    )
    for group in [*result.leaks, *(group for group in result.duplicates if group not in result.leaks)][:_SHOWN]:
        lines.append(f"  - {' = '.join(f'`{key}`' for key in group)}{' (leak)' if group in result.leaks else ''}")
    return "\n".join(lines) + "\n"


# ----------------------------------------------------------------------------------------------------- the figure


def draw(folder: Path, result: Verification, faces: Mapping[str, _Faces], columns: int = 6) -> None:
    """``card.png``: faces per image, face sizes, class balance, and a contact sheet of a row a split.

    The sheet shows images spread evenly over each split, with outlines of real (solid) and fake (dashed) faces.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    splits = list(result.splits)
    figure = Figure(figsize=(10, 2.6 + 1.45 * len(splits)), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subfigures(2, 1, height_ratios=[2.6, 1.45 * len(splits)])  # type: ignore[misc]
    charts = upper.subplots(1, 3)
    _draw_counts(charts[0], result.splits)
    _draw_sizes(charts[1], faces)
    _draw_balance(charts[2], result.splits)
    sheet = lower.subplots(len(splits), columns, squeeze=False)
    for row, split in zip(sheet, splits, strict=True):
        _draw_row(row, folder / split, split)
    with atomic_write(folder / FIGURE_NAME) as beside:
        figure.savefig(beside, dpi=110, metadata={"Software": None})


def _draw_counts(axes: Axes, splits: Mapping[str, SplitStatistics]) -> None:
    most = max((max(s.faces_per_image, default=0) for s in splits.values()), default=0)
    width = 0.8 / max(1, len(splits))
    for i, (split, statistics) in enumerate(splits.items()):
        shares = [100 * statistics.faces_per_image.get(n, 0) / max(1, statistics.images) for n in range(most + 1)]
        at = np.arange(most + 1) + (i - (len(splits) - 1) / 2) * width
        axes.bar(at, shares, width, label=split, color=_SPLIT_COLOURS[i % len(_SPLIT_COLOURS)])
    axes.set(xlabel="faces in an image", ylabel="images (%)", title="Faces per image")
    axes.legend(fontsize=7, frameon=False)


def _draw_sizes(axes: Axes, faces: Mapping[str, _Faces]) -> None:
    sides = np.concatenate([split.sides for split in faces.values()])
    labels = np.concatenate([split.labels for split in faces.values()])
    if len(sides):
        low, high = np.floor(np.log2(max(1.0, float(sides.min())))), np.ceil(np.log2(float(sides.max()) + 1))
        bins = np.geomspace(2**low, 2**high, int(6 * (high - low)) + 1).tolist()
        for label, name in enumerate(CLASSES):
            style = "-" if label == 0 else "--"
            axes.hist(sides[labels == label], bins, histtype="step", color=_COLOURS[name], label=name, linestyle=style)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        for bound in SIZE_BOUNDS:
            axes.axvline(bound**0.5, color="0.7", linewidth=0.8, linestyle=":")
        axes.set_xlim(2**low, 2**high)
        axes.legend(fontsize=7, frameon=False)
    axes.set(xlabel="square root of mask area (px)", ylabel="faces", title="Face sizes")


def _draw_balance(axes: Axes, splits: Mapping[str, SplitStatistics]) -> None:
    left = np.zeros(len(splits))
    for name in CLASSES:
        shares = np.array([100 * s.faces[name] / max(1, sum(s.faces.values())) for s in splits.values()])
        axes.barh(list(splits), shares, left=left, color=_COLOURS[name], label=name)
        left += shares
    axes.set(xlabel="faces (%)", title="Class balance")
    axes.set_ylim(len(splits) - 0.4, -1.1)
    axes.legend(fontsize=7, frameon=False, loc="upper center", ncols=2)


def _draw_row(row: Sequence[Axes], folder: Path, split: str) -> None:
    images = {}
    picked: dict[int, list[dict[str, Any]]] = {}
    for key, index, item in coco.stream(folder / ANNOTATIONS_NAME):
        if key == "images" and index >= 0:
            images[item["id"]] = item
        elif key == "annotations" and index >= 0:
            if not picked:
                identities = sorted(images)
                at = np.linspace(0, len(identities) - 1, min(len(row), len(identities))).round().astype(int)
                picked = {identities[i]: [] for i in at}
            if item["image_id"] in picked:
                picked[item["image_id"]].append(item)
    for axes in row:
        axes.set_axis_off()
    for axes, (identity, faces) in zip(row, picked.items(), strict=False):
        with suppress(OSError, SyntaxError), Image.open(folder / images[identity]["file_name"]) as file:
            picture = file.convert("RGB")
            picture.thumbnail((320, 320))
            scale = picture.width / images[identity]["width"]
            axes.imshow(np.asarray(picture))
            for face in faces:
                name = CLASSES[class_label(face["category_id"])]
                x, y, width, height = face["bbox"]
                rings = face["segmentation"]
                if not isinstance(rings, list):
                    rings = [[x, y, x + width, y, x + width, y + height, x, y + height]]
                for ring in rings:
                    points = np.array([*ring, *ring[:2]]).reshape(-1, 2) * scale - 0.5
                    axes.plot(*points.T, color=_COLOURS[name], linewidth=1.1, linestyle="-" if name == "Real" else "--")
    row[0].set_title(split, fontsize=8, loc="left", pad=2)
