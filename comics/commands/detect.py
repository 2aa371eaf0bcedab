"""``comics detect | export | app``: faces of one's own pictures and videos; a run as a graph, and as a page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from comics.commands.bars import bars
from comics.errors import UserError

UNREADABLE, FAKE = 3, 4
"""Exit codes: a file could not be read; with --fail-on-fake a face is taken for fake; both add 5."""


def detect(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            help="Pictures, videos, folders, patterns; - is a picture on standard input.", metavar="PATH..."
        ),
    ] = None,
    run: Annotated[str, typer.Option(help="A trained run of params.yaml; `comics` by default.")] = "",
    weights: Annotated[Path | None, typer.Option(help="A file instead: model.pt, .safetensors or .onnx.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run; its first one by default.", min=0)] = None,
    output: Annotated[str, typer.Option(help="Folder for what is written; - prints the JSON.")] = "detections",
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="json, csv, coco, overlay; again, or with commas. [json,csv,overlay]"),
    ] = None,
    threshold: Annotated[
        str, typer.Option(help="P(fake) from which on a face is fake: eer, fpr1, fpr5, olrp or a number. [eer, or 0.5]")
    ] = "",
    score: Annotated[float | None, typer.Option(help="Least score of a face.", min=0, max=1)] = None,
    fail_on_fake: Annotated[
        bool, typer.Option("--fail-on-fake", help="Exit with 4 if a file is taken for fake.")
    ] = False,
    step: Annotated[int, typer.Option(help="Of videos, look at every so many frames.", min=1)] = 10,
    tiles: Annotated[bool, typer.Option("--tiles", help="Look at large pictures part by part as well.")] = False,
    listed: Annotated[
        Path | None, typer.Option("--list", help="A file with a path a line; - is standard input.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, bf16 or fp32.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of detections.json, and nothing else.")
    ] = False,
) -> None:
    """Find the faces of pictures and videos, and say which are fake.

    Exit codes: 0 done, 2 wrong use, 3 a file could not be read (the others are done), 4 a file is taken for fake (with
    --fail-on-fake), 5 both.
    """
    if schema:
        import json

        from comics.detect.schema import json_schema

        print(json.dumps(json_schema(), indent=2))
        return
    from comics.detect.files import (
        as_text,
        check_formats,
        expand,
        look,
        outputs,
        refuse_existing,
        require_folder,
        write_results,
    )
    from comics.detect.model import Model, load
    from comics.detect.outcome import Failure, Outcome, summary

    if run and weights is not None:
        raise UserError("--run and --weights: give one of them.")
    if precision not in ("auto", "bf16", "fp32"):
        raise UserError(f"--precision: there is no '{precision}'.", "Valid: auto, bf16, fp32.")
    names = [*(paths or []), *(_listed(listed) if listed is not None else [])]
    if not names:
        raise UserError("There is nothing to look at.", "Give pictures, videos or folders.")
    printing = output == "-"
    chosen = check_formats(formats or ["json,csv,overlay"])
    given = expand(names)
    folder = Path(output)
    files = {} if printing else outputs(folder, chosen, given)
    if not overwrite:
        refuse_existing(files)
    model = load(weights if weights is not None else run or "comics", seed=seed, device=device, precision=precision)
    model = Model(model.backend, threshold or None, score)
    if not printing:
        require_folder(folder)
    notes = sys.stderr if printing else sys.stdout
    print(model.about.notice, file=sys.stderr)
    found: list[Outcome | Failure] = []
    with bars() as progress:
        overlays = folder if "overlay" in files else None
        for outcome, overlay in look(model, given, overlays, step=step, tiles=tiles, progress=progress):
            found.append(outcome)
            print(_line(outcome, overlay), file=sys.stderr if isinstance(outcome, Failure) else notes)
    if printing:
        print(as_text(model.about, found))
    write_results(files, model.about, found)
    counts = summary(found)
    print(
        f"{counts['files']} files: {counts['fake']} fake, {counts['real']} real, {counts['no_face']} without a face, "
        f"{counts['unreadable']} unreadable; {counts['faces']} faces, {counts['fake_faces']} of them fake.",
        file=notes,
    )
    for kind in ("json", "csv", "coco"):
        for path in files.get(kind, []):
            print(path, file=notes)
    code = FAKE if fail_on_fake and counts["fake"] else 0
    if counts["unreadable"]:
        code = code + 1 if code else UNREADABLE
    if code:
        raise typer.Exit(code)


def _line(outcome: object, overlay: Path | None) -> str:
    from comics.detect.draw import legend_lines
    from comics.detect.outcome import Failure, Outcome
    from comics.images import shown

    if isinstance(outcome, Failure):
        return f"{outcome.file}: {outcome.error}"
    assert isinstance(outcome, Outcome)
    text = legend_lines(outcome)[0].split(": ", 1)[1]
    notes = f" ({'; '.join(outcome.notes)})" if outcome.notes else ""
    return f"{outcome.file}: {outcome.verdict}; {text}{notes}" + (f" -> {shown(overlay)}" if overlay else "")


def _listed(path: Path) -> list[str]:
    if str(path) == "-":
        text = sys.stdin.buffer.read()
    else:
        try:
            text = path.read_bytes()
        except OSError as error:
            raise UserError(f"--list: {path}: cannot be read ({error.strerror}).") from None
    import os

    return [os.fsdecode(line) for line in text.splitlines() if line.strip()]


def export(
    model: Annotated[
        str, typer.Argument(help="A trained run of params.yaml, model.pt or .safetensors.", metavar="MODEL")
    ],
    onnx: Annotated[Path | None, typer.Option("--onnx", help="ONNX file to write.")] = None,
    torch_export: Annotated[
        Path | None, typer.Option("--torch-export", help="Program of torch.export to write.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run; its first one by default.", min=0)] = None,
) -> None:
    """Write MODEL as one graph with its post-processing, of dynamic batch and size, checked against the detector."""
    if onnx is None and torch_export is None:
        raise UserError("There is nothing to write.", "Give --onnx FILE, --torch-export FILE, or both.")
    from comics.detect.backends import TorchBackend
    from comics.detect.export import export_onnx, export_torch
    from comics.detect.model import load

    backend = load(model, seed=seed, device="cpu", precision="fp32").backend
    if not isinstance(backend, TorchBackend):
        raise UserError(f"{model}: is an export already.", "Give model.pt or .safetensors.")
    if torch_export is not None:
        export_torch(backend, torch_export)
        print(torch_export)
    if onnx is not None:
        worst = export_onnx(backend, onnx)
        print(f"{onnx}: within {worst:.1e} of the detector, in onnxruntime.")


def app(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="One model, or two to compare: runs or files. [comics]", metavar="MODEL..."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; the default is this machine's own.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Default: a free one from 7860 on.", min=1, max=65535)] = None,
    threshold: Annotated[str, typer.Option(help="As of `comics detect`, to begin with.")] = "",
    browser: Annotated[bool, typer.Option("--browser", help="Open a browser.")] = False,
) -> None:
    """Show a page to try models with: drop pictures or a video, move the threshold, compare two side by side."""
    from comics.detect.app import launch
    from comics.detect.model import load

    names = models or ["comics"]
    if len(names) > 2:
        raise UserError(f"MODEL: {len(names)} are given.", "One is shown, or two are compared.")
    loaded = [load(name, threshold=threshold or None) for name in names]
    for model in loaded:
        print(model.about.notice, file=sys.stderr)
    launch(loaded, host, port, browser)


def register(root: typer.Typer) -> None:
    """Add this group to the command line."""
    for command in (detect, export, app):
        root.command()(command)
