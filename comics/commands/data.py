"""``comics data``: make, fetch, convert, verify and perturb datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from comics.commands.bars import bars
from comics.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from comics.data.canonical.convert import Report
    from comics.params import Dataset

DatasetArgument = Annotated[str | None, typer.Argument(help="A dataset of params.yaml; the one it uses by default.")]
SplitOption = Annotated[list[str] | None, typer.Option("--split", help="Only this split; may be repeated.")]
RootOption = Annotated[Path, typer.Option("--root", help="Folder of all datasets.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="Refuse the first defect instead of repairing it.")]
JobsOption = Annotated[int, typer.Option(min=1, help="How many at a time.")]

ROOT = Path("data")


def _dataset(name: str | None) -> tuple[str, Dataset]:
    from comics.params import load

    loaded = load()
    name = name or loaded.dataset
    if name not in loaded.file.datasets:
        raise UserError(
            f"{loaded.path}: datasets: there is no dataset '{name}'.", did_you_mean(name, loaded.file.datasets)
        )
    return name, loaded.file.datasets[name]


def _splits(chosen: list[str] | None) -> list[str]:
    from comics.params import SPLITS

    for split in chosen or []:
        if split not in SPLITS:
            raise UserError(f"--split: there is no split '{split}'.", did_you_mean(split, SPLITS))
    return [split for split in SPLITS if not chosen or split in chosen]


def _show(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("split", "images", "Real", "Fake", "repairs", ""):
        table.add_column(heading, justify="left" if heading in ("split", "") else "right")
    for split, part in report.splits.items():
        table.add_row(
            split,
            f"{part.images:,}",
            f"{part.faces['Real']:,}",
            f"{part.faces['Fake']:,}",
            f"{sum(part.repairs.values()):,}",
            "" if part.fresh else "was there already",
        )
    Console(highlight=False).print(table)
    for split, part in report.splits.items():
        for kind, count in part.repairs.items():
            print(f"{split}: {count:,} x {part.changes[kind]['meaning']}, such as {part.changes[kind]['examples'][0]}")
    print(f"Canonical COCO files and conversion.json are in {report.output}/<split>/.")


def make(dataset: DatasetArgument = None, root: RootOption = ROOT) -> None:
    """Render an embedded dataset from its seed and convert it."""
    from comics.data.openforensics.dataset import convert as convert_raw
    from comics.params import EmbeddedDataset

    name, spec = _dataset(dataset)
    if not isinstance(spec, EmbeddedDataset):
        raise UserError(f"datasets.{name}: is not made but fetched or given.", "Use fetch and convert.")
    if spec.kind == "mini":
        from comics.data.mini.dataset import make as render
    else:
        from comics.data.crowd.dataset import make as render  # type: ignore[assignment]
    from comics.files import exclusive

    (root / name).mkdir(parents=True, exist_ok=True)
    with exclusive(root / name / ".lock", f"{root / name}: is being made", wait=True), bars() as progress:
        render(spec, root / name / "raw", progress=progress)  # type: ignore[arg-type]
        report = convert_raw(root / name / "raw", root / name, progress=progress)
    _show(report)


def fetch(
    dataset: DatasetArgument = None,
    split: SplitOption = None,
    jobs: JobsOption = 4,
    discard_archives: Annotated[
        bool, typer.Option("--discard-archives", help="Delete each split's archives once its images are extracted.")
    ] = False,
    root: RootOption = ROOT,
) -> None:
    """Download OpenForensics from its record and extract it; an interrupted fetch goes on where it was."""
    from comics.data.openforensics.dataset import fetch as fetch_record
    from comics.data.openforensics.extract import Bounds
    from comics.params import OpenForensicsDataset

    name, spec = _dataset(dataset)
    if not isinstance(spec, OpenForensicsDataset):
        raise UserError(f"datasets.{name}: has no record to fetch.", "Use `comics data make` or `convert`.")
    with bars(in_bytes=True) as progress:
        report = fetch_record(
            root / name,
            spec.record,
            spec.base_url,
            splits=_splits(split),
            jobs=jobs,
            bounds=Bounds(total=round(spec.archive_gb * 1e9), ratio=spec.archive_ratio),
            discard_archives=discard_archives,
            progress=progress,
        )
    if report.listed_by == "hand":
        print(
            "The record was not reached: the files put there by hand are taken, unverified but for their own checksums."
        )
    elif report.listed_by != "server":
        print("The record was not reached: its earlier answer is used.")
    print(f"{len(report.downloaded)} files downloaded.")
    for part, count in report.extracted.items():
        print(f"{part}: {f'{count:,} images extracted' if count else 'was extracted already'}.")
    print(f"Next: comics data convert {name}")


def convert(
    dataset: DatasetArgument = None,
    split: SplitOption = None,
    strict: StrictOption = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave out (and count) images that are not there.")
    ] = False,
    root: RootOption = ROOT,
) -> None:
    """Bring a dataset into canonical COCO form, repairing and reporting what is wrong."""
    from comics.data.canonical.convert import convert_coco
    from comics.data.canonical.masks import convert_masks, mask_sources
    from comics.data.canonical.videos import convert_videos, video_sources
    from comics.data.openforensics.dataset import convert as convert_raw
    from comics.params import CustomDataset, MasksDataset, VideosDataset

    name, spec = _dataset(dataset)
    chosen = _splits(split)
    with bars() as progress:
        if isinstance(spec, CustomDataset):
            report = convert_coco(
                {part: Path(path) for part, path in spec.annotations.items() if part in chosen},
                {part: Path(path) for part, path in spec.images.items()},
                root / name,
                frame_step=spec.frame_step,
                strict=strict,
                allow_missing=allow_missing,
                progress=progress,
            )
        elif isinstance(spec, MasksDataset):
            report = convert_masks(mask_sources(spec, chosen), root / name, strict, allow_missing, progress)
        elif isinstance(spec, VideosDataset):
            report = convert_videos(video_sources(spec, chosen), root / name, strict, allow_missing, progress)
        else:
            report = convert_raw(
                root / name / "raw",
                root / name,
                splits=chosen,
                strict=strict,
                allow_missing=allow_missing,
                progress=progress,
            )
    _show(report)


def verify(
    dataset: DatasetArgument = None,
    split: SplitOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Differing counts are an error, too.")] = False,
    jobs: JobsOption = 4,
    root: RootOption = ROOT,
) -> None:
    """Check counts, images and duplicates of a converted dataset; write its card and figure."""
    from comics.data.canonical.verify import CARD_NAME, FIGURE_NAME
    from comics.data.canonical.verify import verify as check
    from comics.data.openforensics.dataset import PAPER_COUNTS
    from comics.params import SPLITS, EmbeddedDataset, OpenForensicsDataset

    name, spec = _dataset(dataset)
    expected = {}
    if isinstance(spec, OpenForensicsDataset):
        expected = PAPER_COUNTS
    elif isinstance(spec, EmbeddedDataset):
        expected = {part: {"images": getattr(spec, part)} for part in SPLITS}
    with bars() as progress:
        result = check(root / name, expected, splits=_splits(split) if split else None, jobs=jobs, progress=progress)
    for part, statistics in result.splits.items():
        faces = ", ".join(f"{count:,} {kind}" for kind, count in statistics.faces.items())
        print(f"{part}: {statistics.images:,} images, {faces}")
    for difference in result.differences:
        print(f"{difference.split}: {difference.found:,} {difference.what}, expected {difference.expected:,}")
    print(f"{len(result.duplicates)} groups of equal images, {len(result.leaks)} across training and test.")
    print(f"Card: {root / name / CARD_NAME}, figure: {root / name / FIGURE_NAME}")
    problems = result.problems
    if strict:
        problems += [f"{d.split}: {d.found:,} {d.what} instead of {d.expected:,}" for d in result.differences]
    if problems:
        raise UserError(f"{root / name}: {'; '.join(problems)}.", f"All are listed in {root / name / CARD_NAME}.")


def perturb(
    dataset: DatasetArgument = None,
    source: Annotated[str, typer.Option("--from", help="Split to perturb.")] = "test_dev",
    target: Annotated[str, typer.Option("--to", help="Split to write.")] = "test_challenge",
    into: Annotated[str | None, typer.Option(help="Dataset to write into; the same by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides, with each image's name, what happens to it.")] = 0,
    level: Annotated[int | None, typer.Option(min=1, max=4, help="1 to 4; drawn for every image by default.")] = None,
    geometry: Annotated[bool, typer.Option("--geometry", help="Also flip, rotate or bend images and masks.")] = False,
    png: Annotated[bool, typer.Option("--png", help="Write PNG instead of JPEG of quality 95.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a split that is there.")] = False,
    jobs: JobsOption = 2,
    root: RootOption = ROOT,
) -> None:
    """Make a test-challenge split from another split, the same for the same seed."""
    from comics.data.perturb.split import REPORT_NAME, perturb_split
    from comics.params import SPLITS

    name = dataset or _dataset(None)[0]
    for option, split in (("--from", source), ("--to", target)):
        if split not in SPLITS:
            raise UserError(f"{option}: there is no split '{split}'.", did_you_mean(split, SPLITS))
    output = root / (into or name) / target
    if output.exists() and not overwrite:
        raise UserError(f"{output}: is there already.", "Add --overwrite, or write into another dataset with --into.")
    with bars() as progress:
        report = perturb_split(
            root / name / source / "annotations.json", output, seed, level, geometry, png, jobs, progress
        )
    print(f"{output}: {report.images:,} images, {report.faces:,} faces, {report.lost:,} left the picture.")
    used = ", ".join(f"{operation} {count:,}" for operation, count in report.operations.most_common(8))
    print(f"Most used: {used}. What each image got is in {output / REPORT_NAME}.")


def examples(
    image: Annotated[Path, typer.Argument(help="Any photograph.")],
    output: Annotated[Path, typer.Option(help="Folder of the pictures.")] = Path("docs/images/perturbations"),
) -> None:
    """One example picture of every perturbation."""
    from comics.data.perturb.split import write_examples

    print(f"{output}: {len(write_examples(image, output))} pictures.")


def encode_masks(
    dataset: DatasetArgument = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the small differences between cells.")] = 0,
    root: RootOption = ROOT,
) -> None:
    """Fit the code by which the detector meinst stands for masks to the training split."""
    from comics.detectors.mask_codec import FILE
    from comics.detectors.mask_codec import encode_masks as fit

    name, _ = _dataset(dataset)
    output = root / name / FILE
    count, quality = fit(root / name / "train" / "annotations.json", output, seed)
    print(f"{output}: fitted to {count:,} masks.")
    for length, iou in quality.items():
        print(f"Codes of {length} numbers keep masks at a mean IoU of {100 * iou:.1f} %.")


def register(root: typer.Typer) -> None:
    """Add the ``data`` group to the command line."""
    data = typer.Typer(help="Make, fetch, convert, verify and perturb datasets.", no_args_is_help=True)
    for command in (make, fetch, convert, verify, perturb, examples, encode_masks):
        data.command()(command)
    root.add_typer(data, name="data")
