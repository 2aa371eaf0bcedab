"""``comics detectors`` and ``comics weights import | export``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from comics.errors import UserError

if TYPE_CHECKING:
    from comics.weights.transfer import Report

_STATUSES = ("used", "replaced", "mismatched", "skipped")
_MANY = 8

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def detectors(
    names: Annotated[list[str] | None, typer.Argument(help="Which; all of them by default.")] = None,
    size: Annotated[int, typer.Option(help="Side of the image in px, a multiple of 32.", min=32)] = 512,
    seconds: Annotated[float, typer.Option(help="Time spent on each detector.", min=0)] = 2.0,
    backbone: Annotated[str, typer.Option(help="resnet18, 34, 50, 101 or timm/<model>.")] = "resnet50",
    backbones: Annotated[bool, typer.Option("--backbones", help="List backbones instead of detectors.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """List the detectors, or the backbones known to work, with parameters and operations; detectors also with images a second
    on this machine."""
    from dataclasses import asdict

    import torch
    from pydantic import ValidationError

    from comics.detectors.zoo import measure
    from comics.params import ModelParams
    from comics.params.detectors import names as every_name

    if size % 32:
        raise UserError(f"--size: {size} is not a multiple of 32.", f"Try {size // 32 * 32 or 32}.")
    if backbones:
        _list_backbones(names or (), size, as_json)
        return
    try:
        model = ModelParams.model_validate({"backbone": backbone})
    except ValidationError as error:
        raise UserError(f"--backbone: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    facts = [measure(name, model, size, seconds, device) for name in names or every_name()]
    if as_json:
        print(json.dumps([asdict(fact) for fact in facts], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{backbone}, one image of {size} x {size} px, {device}")
    table.add_column("detector")
    for column in ("parameters (M)", "GFLOP", "images/s"):
        table.add_column(column, justify="right")
    table.add_column("predicts")
    for fact in facts:
        table.add_row(
            fact.name,
            f"{fact.parameters / 1e6:.1f}",
            f"{fact.gigaflops:.1f}",
            f"{fact.images_per_second:.2f}",
            "boxes, masks" if fact.has_boxes else "masks",
        )
    Console().print(table)


def _list_backbones(names: Sequence[str], size: int, as_json: bool) -> None:
    from dataclasses import asdict

    from comics.commands.bars import bars
    from comics.detectors.zoo import BACKBONES, measure_backbone
    from comics.params.backbones import check_backbone
    from comics.progress import told

    try:
        wanted = [check_backbone(name) for name in names or BACKBONES]
    except ValueError as error:
        raise UserError(f"comics detectors --backbones: {error}") from None
    with bars() as progress:
        facts = [measure_backbone(name, size) for name in told(wanted, len(wanted), progress, "backbones")]
    if as_json:
        print(json.dumps([asdict(fact) for fact in facts], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Backbones, one image of {size} x {size} px")
    table.add_column("backbone")
    for column in ("parameters (M)", "GFLOP"):
        table.add_column(column, justify="right")
    table.add_column("pyramid")
    for fact in facts:
        table.add_row(fact.name, f"{fact.parameters / 1e6:.1f}", f"{fact.gigaflops:.1f}", fact.pyramid)
    Console().print(table)


def import_weights(
    file: Annotated[Path, typer.Argument(help="A checkpoint of detectron2, AdelaiDet, Detectron, torchvision, ...")],
    detector: Annotated[str, typer.Option(help="The kind of detector it is for.")] = "blendmask",
    output: Annotated[Path | None, typer.Option(help="Default: beside FILE, <name>.<detector>.safetensors.")] = None,
    run: Annotated[str, typer.Option(help="A run of params.yaml: its detector and its sizes.")] = "",
    backbone: Annotated[str, typer.Option(help="Without --run: the backbone.")] = "resnet50",
    channels: Annotated[
        Literal["auto", "bgr", "rgb"], typer.Option(help="Order of the channels that FILE expects.")
    ] = "auto",
    verbose: Annotated[bool, typer.Option(help="List every tensor, not only what was not used.")] = False,
    partial: Annotated[bool, typer.Option("--partial", help="FILE may set less than 95 % of the detector.")] = False,
) -> None:
    """Translate FILE's weights into DETECTOR's names, and account for every tensor in it.

    The result goes into params.yaml as `weights:` of a model; beside it lies a report, <output>.report.json.
    """
    from comics.detectors import build
    from comics.files import write_json
    from comics.model import Comics
    from comics.params import ModelParams, load
    from comics.weights.export import write_safetensors
    from comics.weights.run import require_whole, transfer_run
    from comics.weights.transfer import read, require_used, transfer

    resolved = load().resolve(run) if run else None
    if resolved is not None:
        detector, model = resolved.params.detector, resolved.params.model
    else:
        model = ModelParams.model_validate({"backbone": backbone})
    built = build(detector, model.model_copy(update={"weights": "none"}))
    checkpoint = read(file, channels, built)
    metadata = {"detector": detector, "source": file.name}
    if checkpoint.whole and resolved is not None:
        whole = Comics(resolved.from_checkpoint())
        tensors, report = transfer_run(whole, detector, checkpoint)
        _show(report, verbose)
        require_whole(report, partial)
        tensors = {**whole.state_dict(), **tensors}  # all that `comics detect` builds, by the description
        described = json.dumps(resolved.description, sort_keys=True, default=str)
        metadata |= {"whole": "true", "description": described, "run": run}
    elif checkpoint.whole and not partial:
        raise UserError(
            f"{file}: is of a whole run: its detector was trained with an attention.",
            "Give --run, a run of params.yaml that has one; --partial takes the detector alone.",
        )
    else:
        tensors, report = transfer(built, detector, checkpoint.of_detector())
        _show(report, verbose)
        require_used(report, partial)
    if not report.complete or (partial and checkpoint.whole):
        metadata["partial"] = "true"
    output = output or file.with_suffix(f".{detector}.safetensors")
    write_safetensors(output, tensors, metadata)
    write_json(f"{output}.report.json", report.as_json(), indent=2)
    print(f"{output}: {len(report.of('used'))} of {len(report.entries)} tensors. In params.yaml: weights: {output}")


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(str(length) for length in shape) or "scalar"


def _show(report: Report, verbose: bool) -> None:
    """The account; many tensors that are left for one known reason are one line of it, those of unknown names never."""
    from comics.weights.transfer import UNKNOWN

    reasons = Counter(entry.note for entry in report.of("skipped"))
    for entry in report.entries:
        if entry.status == "skipped" and reasons[entry.note] > _MANY and entry.note != UNKNOWN and not verbose:
            continue
        if verbose or entry.status != "used":
            shape = _times(entry.shape)
            misfit = entry.status in ("replaced", "mismatched") and entry.expected is not None
            expected = f" (here {_times(entry.expected or ())})" if misfit else ""
            target = f" -> {entry.target}" if entry.target else ""
            print(
                f"{entry.status:<10} {entry.source}{target} {shape}{expected}{': ' if entry.note else ''}{entry.note}"
            )
    for note, count in reasons.items():
        if count > _MANY and note != UNKNOWN and not verbose:
            first = next(entry.source for entry in report.of("skipped") if entry.note == note)
            print(f"{'skipped':<10} {first} and {count - 1} more: {note}")
    for name in report.missing:
        print(f"{'fresh':<10} {name}: not in the file")
    counts = ", ".join(f"{len(report.of(status))} {status}" for status in _STATUSES)  # type: ignore[arg-type]
    strides = "1x1" if report.stride_in_1x1 else "3x3"
    print(
        f"{report.file}: {report.family}, {report.channel_order.upper()} images, strides in the {strides} convolution."
    )
    state = "complete" if report.complete else "not complete"
    print(
        f"{counts}; {len(report.missing)} of the detector stay fresh. {state}: {100 * report.share:.1f} % of the {report.whole} or more."
    )


def export_weights(
    file: Annotated[Path, typer.Argument(help="model.pt of a run.")],
    output: Annotated[
        Path | None, typer.Option(help="Default: beside FILE, with the suffix .safetensors, or .<format>.pth.")
    ] = None,
    detector_only: Annotated[bool, typer.Option(help="Leave out what only training needs.")] = False,
    form: Annotated[
        Literal["detectron2", "adelaidet", "mmdetection"] | None,
        typer.Option("--format", help="Whose names and file to write, the detector's weights alone."),
    ] = None,
) -> None:
    """Write a trained run's weights as safetensors, with its description in the metadata; or as another project has them."""
    if form is not None:
        from comics.weights.foreign import export_foreign

        output = output or file.with_suffix(f".{form}.pth")
        exported = export_foreign(file, output, form)
        print(f"{output}: {len(exported.tensors)} tensors. The configuration has to say:")
        for name, value in exported.config.items():
            print(f"  {name}: {json.dumps(value)}")
        if attention := [name for name in exported.left_out if name.startswith("attention.")]:
            print(f"Left out: {len(attention)} tensors of the attention, for which {form} has no place.")
        return
    from comics.weights.export import default_output, export_model

    output = output or default_output(file)
    count = export_model(file, output, detector_only=detector_only)
    print(f"{output}: {count} tensors.")


def register(root: typer.Typer) -> None:
    """Add ``detectors`` and the ``weights`` group to the command line."""
    root.command()(detectors)
    weights = typer.Typer(help="Weights from and for other projects.", no_args_is_help=True)
    weights.command("import")(import_weights)
    weights.command("export")(export_weights)
    root.add_typer(weights, name="weights")
