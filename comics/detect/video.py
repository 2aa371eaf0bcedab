"""Videos: frames looked at in steps, faces followed over them by overlap, one verdict a track and a video.

Needs PyAV (``pip install 'comics-forensics[video]'``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from comics.detect.draw import draw
from comics.detect.model import Model
from comics.detect.outcome import Face, Failure, Outcome, Track, VideoOutcome
from comics.files import atomic_write
from comics.images import Pixels, UnreadableImage, shown
from comics.progress import Progress, silent
from comics.tracks import Tracker
from comics.videos import opened

TICKS = 60000
"""Of the annotated video's clock a second: 30000/1001 frames a second are whole ticks, and MPEG-4 takes no more than 65535."""
VIDEO_SIDE = 1280
"""Longest side of the annotated video in px."""


def frames(path: Path) -> Iterator[tuple[int, float, Any]]:
    """Number, time in seconds and frame of every frame that can be decoded."""
    with opened(path) as (container, stream):
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        for number, frame in enumerate(container.decode(stream)):
            time = float(frame.time) if frame.time is not None else number / rate
            yield number, max(0.0, time), frame


def upright(frame: Any) -> Pixels:
    """A frame (H, W, 3) in uint8 RGB, turned as the camera says."""
    pixels = frame.to_ndarray(format="rgb24")
    turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def detect_video(model: Model, path: Path, step: int = 10, progress: Progress = silent) -> VideoOutcome:
    """The faces of every `step`-th frame, followed over the frames.

    A video that breaks off is judged by what could be read, and says so in its notes.

    Raises:
        UnreadableImage: no frame of it can be read.
    """
    name = shown(path)
    seen = {"frames": 0}
    notes: list[str] = []
    times: list[tuple[int, float]] = []
    with opened(path) as (_, stream):
        total, rate = int(stream.frames or 0), float(stream.average_rate or stream.guessed_rate or 0)

    def sampled() -> Iterator[tuple[str, Any]]:
        try:
            for number, time, frame in frames(path):
                seen["frames"] = number + 1
                progress(f"{name}: frames", number + 1, max(total, number + 1))
                if number % step == 0:
                    times.append((number, time))
                    yield f"{name}#{number}", upright(frame)
        except UnreadableImage as error:
            if not times:
                raise
            notes.append(f"breaks off after frame {seen['frames'] - 1} ({error.message.removeprefix(f'{name}: ')})")

    looked: list[Outcome] = []
    for outcome in model.stream(sampled(), readers=1):
        if isinstance(outcome, Failure):
            raise UnreadableImage(f"{name}: {outcome.error}")
        looked.append(replace(outcome, picture=None))
    if not looked:
        raise UnreadableImage(f"{name}: has no frame that can be read.")
    tracker = Tracker()
    faces = [
        face
        for (number, time), outcome in zip(times, looked, strict=True)
        for face in _followed(tracker, outcome.faces, number, time)
    ]
    return VideoOutcome(
        file=name,
        size=looked[0].size,
        faces=tuple(faces),
        about=model.about,
        notes=tuple(notes),
        tracks=tracks_of(faces, model.about.threshold),
        rate=rate,
        frames=seen["frames"],
        step=step,
    )


def _followed(tracker: Tracker, faces: Sequence[Face], frame: int, time: float) -> list[Face]:
    """The faces of the next frame with their tracks."""
    numbers = tracker.follow([face.box for face in faces])
    return [replace(face, frame=frame, time=time, track=number) for face, number in zip(faces, numbers, strict=True)]


def tracks_of(faces: Sequence[Face], threshold: float) -> tuple[Track, ...]:
    """A verdict a track, from the faces of all frames: the mean of their log-odds."""
    result = []
    for number in sorted({face.track for face in faces if face.track is not None}):
        mine = [face for face in faces if face.track == number]
        p = np.clip([face.p_fake for face in mine], 1e-6, 1 - 1e-6)
        p_fake = float(1 / (1 + np.exp(-np.mean(np.log(p) - np.log1p(-p)))))
        numbers = [face.frame or 0 for face in mine]
        result.append(Track(number, p_fake, p_fake >= threshold, len(mine), min(numbers), max(numbers)))
    return tuple(result)


def faces_at(outcome: VideoOutcome, frame: int) -> tuple[Face, ...]:
    """Where the tracks are in any frame: between two sampled frames their boxes move evenly, masks are those of the
    nearest. Each has the verdict of its track."""
    verdicts = {track.number: track for track in outcome.tracks}
    shown_faces = []
    for number, track in verdicts.items():
        mine = [face for face in outcome.faces if face.track == number]
        before = [face for face in mine if (face.frame or 0) <= frame]
        after = [face for face in mine if (face.frame or 0) >= frame]
        if not before:
            continue
        low = before[-1]
        if not after:
            if frame - (low.frame or 0) >= outcome.step:
                continue
            high = low
        else:
            high = after[0]
        span = (high.frame or 0) - (low.frame or 0)
        share = (frame - (low.frame or 0)) / span if span else 0.0
        x1, y1, x2, y2 = (a + (b - a) * share for a, b in zip(low.box, high.box, strict=True))
        box = (x1, y1, x2, y2)
        nearest = low if share < 0.5 else high
        origin = nearest.box
        corner = (
            round(nearest.corner[0] + (box[0] + box[2] - origin[0] - origin[2]) / 2),
            round(nearest.corner[1] + (box[1] + box[3] - origin[1] - origin[3]) / 2),
        )
        corner = (max(0, corner[0]), max(0, corner[1]))
        shown_faces.append(replace(nearest, box=box, corner=corner, p_fake=track.p_fake, fake=track.fake))
    return tuple(shown_faces)


def write_video(target: Path, source: Path, outcome: VideoOutcome, progress: Progress = silent) -> None:
    """The video with its faces outlined and the legend below, at the pace of the original, without sound."""
    import av

    name = shown(source)
    with atomic_write(target) as beside, av.open(str(beside), "w", format="mp4") as sink:
        sink.metadata["comment"] = outcome.about.notice
        stream: Any = None
        try:
            last = -1
            for number, time, frame in frames(source):
                image = Image.fromarray(upright(frame))
                image.thumbnail((VIDEO_SIDE, VIDEO_SIDE))
                drawn = draw(image, outcome, faces_at(outcome, number))
                if stream is None:
                    size = (drawn.width // 2 * 2, drawn.height // 2 * 2)  # what the codec asks for
                    rate = Fraction(outcome.rate or 25).limit_denominator(1001)
                    stream = sink.add_stream(_codec(), rate=rate)
                    stream.width, stream.height = size
                    stream.pix_fmt = "yuv420p"
                    stream.codec_context.time_base = Fraction(1, TICKS)
                encoded = av.VideoFrame.from_image(drawn.crop((0, 0, *size)))
                encoded.time_base, encoded.pts = Fraction(1, TICKS), max(last + 1, round(time * TICKS))
                last = encoded.pts
                for packet in stream.encode(encoded):
                    sink.mux(packet)
                progress(f"{name}: drawing", number + 1, outcome.frames)
        except UnreadableImage:
            if stream is None:
                raise
        for packet in stream.encode(None):
            sink.mux(packet)


def _codec() -> str:
    """H.264 where this PyAV can write it."""
    import av

    return "libx264" if "libx264" in av.codecs_available else "mpeg4"
