"""A page to try a model with: drop pictures or a video, see faces outlined, move the threshold, compare two models.

Needs gradio (``pip install 'comics-forensics[app]'``). Listens on this machine only, unless told otherwise; uploads are bounded in
bytes and pixels, live in a folder of their own, and are gone when the page is closed or the program ends.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from comics.detect.draw import draw
from comics.detect.files import VIDEO_SUFFIXES
from comics.detect.model import Model
from comics.detect.outcome import Outcome, VideoOutcome, document
from comics.errors import UserError
from comics.images import read

MAX_MEGABYTES = 100
MAX_MEGAPIXELS = 100
MAX_FILES = 20
VIDEO_STEP = 10
FORGET = 600
"""Seconds after which what a page has uploaded and been shown is deleted."""

Looked = list[tuple[Outcome, Any]]
"""What was found in each picture, and the picture it is drawn on."""


def look(model: Model, paths: Sequence[str]) -> tuple[Looked, list[str]]:
    """Everything found in files, and what could not be read."""
    found: Looked = []
    problems = []
    for path in paths[:MAX_FILES]:
        name = Path(path).name
        try:
            if Path(path).suffix.lower() in VIDEO_SUFFIXES:
                from comics.detect.video import detect_video, frames, upright

                video = detect_video(model, Path(path), VIDEO_STEP)
                _, _, first = next(frames(Path(path)))
                found.append((replace(video, file=name), upright(first)))
                continue
            picture = read(path, 2048, MAX_MEGAPIXELS * 10**6)
            outcome = model.detect(picture.pixels)
            found.append((replace(outcome, file=name, notes=picture.notes), picture.pixels))
        except UserError as error:
            problems.append(f"{name}: {error.message.rsplit('/', 1)[-1]}")
    if len(paths) > MAX_FILES:
        problems.append(f"Only the first {MAX_FILES} of {len(paths)} files were looked at.")
    return found, problems


def drawn(model: Model, looked: Looked, threshold: float) -> list[tuple[Any, str]]:
    """Overlays and captions with the verdicts of a threshold."""
    result = []
    for outcome, ground in looked:
        judged = model.judged(outcome, threshold)
        faces = judged.faces
        if isinstance(judged, VideoOutcome):
            tracks = tuple(replace(track, fake=track.p_fake >= threshold) for track in judged.tracks)
            judged = replace(judged, tracks=tracks)
            faces = tuple(face for face in faces if face.frame == 0)
        image = draw(ground, judged, faces)
        result.append((image, f"{judged.file}: {judged.verdict}"))
    return result


def rows(model: Model, looked: Looked, threshold: float) -> list[list[Any]]:
    """A row a face, or of a video a row a track."""
    table: list[list[Any]] = []
    for outcome, _ in looked:
        if isinstance(outcome, VideoOutcome):
            table += [
                [
                    outcome.file,
                    f"track {one.number}",
                    round(one.p_fake, 3),
                    "fake" if one.p_fake >= threshold else "real",
                ]
                for one in outcome.tracks
            ]
            continue
        for number, face in enumerate(model.judged(outcome, threshold).faces, start=1):
            table.append([outcome.file, f"face {number}", round(face.p_fake, 3), face.verdict])
    return table


def build(models: Sequence[Model]) -> Any:
    """The page for one model, or for two side by side.

    Raises:
        UserError: gradio is not installed.
    """
    try:
        import gradio
    except ImportError:
        raise UserError(
            "The app needs gradio, which is not installed.", "pip install 'comics-forensics[app]'"
        ) from None

    with gradio.Blocks(title="COMICS", analytics_enabled=False, delete_cache=(60, FORGET)) as page:
        gradio.Markdown("# COMICS\nDrop pictures or a video: each face is outlined, with how likely it is forged.")
        given = gradio.File(file_count="multiple", label="Pictures or a video", elem_id="given", height=140)
        problems = gradio.Markdown(elem_id="problems")
        with gradio.Row():
            for number, model in enumerate(models):
                with gradio.Column():
                    _column(gradio, model, number, given, problems)
    return page


def _column(gradio: Any, model: Model, number: int, given: Any, problems: Any) -> None:
    """One model's part of the page."""
    about = model.about
    gradio.Markdown(f"## {about.model}\n**{about.notice}**", elem_id=f"notice-{number}")
    state = gradio.State([], time_to_live=FORGET)
    kind = "P(fake)" if about.calibrated else "score (not calibrated)"
    threshold = gradio.Slider(
        0, 1, about.threshold, step=0.01, label=f"Fake from this {kind} on", elem_id=f"threshold-{number}"
    )
    gallery = gradio.Gallery(label="Faces", elem_id=f"faces-{number}", columns=1, height="auto", format="jpeg")
    table = gradio.Dataframe(
        headers=["file", "face", kind, "verdict"], elem_id=f"table-{number}", interactive=False, wrap=True
    )
    download = gradio.DownloadButton("JSON", elem_id=f"json-{number}", interactive=False)

    def show(looked: Looked, at: float) -> tuple[Any, ...]:
        if not looked:
            return [], [], gradio.DownloadButton(interactive=False)
        judged = [model.judged(outcome, at) for outcome, _ in looked]
        return drawn(model, looked, at), rows(model, looked, at), _json(gradio, model, judged)

    def taken(paths: list[str] | None, at: float) -> tuple[Any, ...]:
        looked, wrong = look(model, paths or [])
        return looked, "  \n".join(wrong), *show(looked, at)

    outputs = [gallery, table, download]
    given.change(taken, [given, threshold], [state, problems, *outputs], show_progress="minimal")
    threshold.change(show, [state, threshold], outputs, show_progress="hidden", trigger_mode="always_last")


def _json(gradio: Any, model: Model, judged: Sequence[Outcome]) -> Any:
    """The button with the document to download, in gradio's folder, which is emptied."""
    import json

    folder = tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"])
    path = Path(folder) / "detections.json"
    about = judged[0].about
    path.write_text(json.dumps(document(about, list(judged)), indent=1, allow_nan=False), encoding="utf-8")
    return gradio.DownloadButton(value=str(path), interactive=True)


def launch(
    models: Sequence[Model], host: str = "127.0.0.1", port: int | None = None, browser: bool = False, wait: bool = True
) -> Any:
    """Show the page until interrupted; what it kept meanwhile is deleted.

    Args:
        models: one, or two to compare.
        host: the address to listen on; by default of this machine alone.
        port: a free one from 7860 on by default.
        browser: whether to open one.
        wait: whether to stay here until Ctrl-C; else the running app is given back with its ``close``.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    folder = tempfile.TemporaryDirectory(prefix="comics-app-")
    os.environ["GRADIO_TEMP_DIR"] = folder.name
    page = build(models)
    try:
        page.queue(max_size=20, default_concurrency_limit=1).launch(
            server_name=host,
            server_port=port,
            inbrowser=browser,
            share=False,
            show_error=True,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            run_history=False,
            quiet=True,
            max_file_size=f"{MAX_MEGABYTES}mb",
            prevent_thread_lock=True,
            footer_links=[],
        )
    except OSError as error:
        folder.cleanup()
        raise UserError(
            f"The app cannot listen on {host}:{port or '7860 and more'} ({error}).", "Give another --port."
        ) from None
    if not wait:
        page.comics_folder = folder
        return page
    print(f"{page.local_url}  (Ctrl-C ends it)")
    try:
        page.block_thread()
    finally:
        page.close()
        folder.cleanup()
    return page
