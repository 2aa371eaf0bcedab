"""Videos: sampled frames, faces followed over them, one verdict a track, an annotated video."""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from itertools import permutations
from pathlib import Path

import av
import numpy as np
import pytest
from detect_scenes import write_model
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from comics.cli import app
from comics.detect.backends import Found, Origin
from comics.detect.model import Model
from comics.detect.schema import Document
from comics.detect.video import (
    detect_video,
    faces_at,
    frames,
    tracks_of,
    upright,
    write_video,
)
from comics.errors import UserError
from comics.images import UnreadableImage
from comics.tracks import MISSED, SAME_FACE, Tracker, iou


class Spots:
    """Finds a fake face where it is red and a real one where it is blue."""

    origin = Origin("spots", "none", "mini", "mini", "0" * 16, image_size=128)

    def find(self, pictures):
        result = []
        for picture in pictures:
            boxes, fakes, masks = [], [], []
            for channel, fake in ((0, True), (2, False)):
                spot = (picture[:, :, channel] > 150) & (picture[:, :, 2 - channel] < 100)
                rows, columns = np.flatnonzero(spot.any(1)), np.flatnonzero(spot.any(0))
                if len(rows) > 3:
                    boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
                    fakes.append(fake)
                    masks.append((np.ones((len(rows), len(columns)), bool), (int(columns[0]), int(rows[0]))))
            result.append(
                Found(np.array(boxes, float).reshape(-1, 4), np.full(len(boxes), 0.9), np.array(fakes, bool), masks)
            )
        return result


def write_clip(path: Path, count: int = 30, size: tuple[int, int] = (96, 128)) -> Path:
    """A red square that moves to the right, and a blue one that is there in the second half."""
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = size[1], size[0], "yuv420p"
        stream.bit_rate = 4_000_000
        for number in range(count):
            pixels = np.full((*size, 3), 60, np.uint8)
            pixels[20:50, 10 + number : 40 + number] = (230, 20, 20)
            if number >= count // 2:
                pixels[55:85, 80:110] = (20, 20, 230)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                sink.mux(packet)
        for packet in stream.encode(None):
            sink.mux(packet)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.fixture(scope="module")
def outcome(clip):
    return detect_video(Model(Spots()), clip, step=5)


def test_faces_are_followed_and_judged_by_track(outcome):
    assert (outcome.frames, outcome.step, outcome.size) == (30, 5, (96, 128))
    assert outcome.rate == pytest.approx(10)
    assert [(track.fake, track.frames, track.first, track.last) for track in outcome.tracks] == [
        (True, 6, 0, 25),
        (False, 3, 15, 25),
    ]
    assert {face.frame for face in outcome.faces} == {0, 5, 10, 15, 20, 25}
    assert [face.time for face in outcome.faces][:2] == pytest.approx([0.0, 0.5])
    assert outcome.verdict == "fake"
    p = [track.p_fake for track in outcome.tracks]
    assert outcome.p_any_fake == pytest.approx(1 - (1 - p[0]) * (1 - p[1]))


def test_a_track_is_no_surer_than_its_frames(outcome):
    mine = [face.p_fake for face in outcome.faces if face.track == 1]
    assert min(mine) <= outcome.tracks[0].p_fake <= max(mine) + 1e-12
    assert tracks_of([], 0.5) == ()


def test_the_annotated_video_has_every_frame_and_the_legend(outcome, clip, tmp_path):
    write_video(tmp_path / "out.mp4", clip, outcome)
    drawn = [upright(frame) for _, _, frame in frames(tmp_path / "out.mp4")]
    assert len(drawn) == 30
    assert drawn[0].shape[1] == 320  # small pictures are enlarged so that words fit
    assert drawn[0].shape[0] > 96 * 320 / 128
    assert all(length % 2 == 0 for length in drawn[0].shape[:2])
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert "no forensic tool" in container.metadata["comment"]


def test_the_annotated_video_keeps_the_pace_of_the_original(tmp_path):
    """Of a telephone's video frames come as they please."""
    times = [0.0, 0.1, 0.15, 0.9, 1.0, 2.5]
    with av.open(str(tmp_path / "uneven.mkv"), "w") as sink:
        stream = sink.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for time in times:
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 60, np.uint8), format="rgb24")
            frame.time_base, frame.pts = Fraction(1, 1000), round(1000 * time)
            for packet in stream.encode(frame):
                sink.mux(packet)
        for packet in stream.encode(None):
            sink.mux(packet)
    outcome = detect_video(Model(Spots()), tmp_path / "uneven.mkv", step=2)
    write_video(tmp_path / "out.mp4", tmp_path / "uneven.mkv", outcome)
    assert [time for _, time, _ in frames(tmp_path / "out.mp4")] == pytest.approx(times, abs=0.002)


def test_a_video_without_pictures_or_frames_is_refused(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as sink:
        stream = sink.add_stream("aac", rate=44100)
        for number in range(3):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            sound.rate, sound.pts = 44100, 1024 * number
            for packet in stream.encode(sound):
                sink.mux(packet)
        for packet in stream.encode(None):
            sink.mux(packet)
    with av.open(str(tmp_path / "none.mkv"), "w") as sink:
        stream = sink.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        sink.start_encoding()
    for name in ("sound.mp4", "none.mkv"):
        with pytest.raises(UnreadableImage, match=name):
            detect_video(Model(Spots()), tmp_path / name)


def test_between_sampled_frames_a_face_moves_evenly(outcome):
    def left(frame):
        return [face.box[0] for face in faces_at(outcome, frame) if face.fake]

    assert left(5)[0] < left(7)[0] < left(10)[0]
    assert left(7)[0] == pytest.approx(left(5)[0] + 0.4 * (left(10)[0] - left(5)[0]))
    assert [face.fake for face in faces_at(outcome, 14)] == [True]
    assert len(faces_at(outcome, 29)) == 2
    assert faces_at(outcome, 99) == ()


def box(x: float, y: float = 0.0) -> tuple[float, float, float, float]:
    return (x, y, x + 10, y + 10)


def test_a_track_outlives_few_missed_frames_and_no_more():
    tracker = Tracker()
    assert tracker.follow([box(0)]) == [1]
    for _ in range(MISSED):
        assert tracker.follow([]) == []
    assert tracker.follow([box(1)]) == [1]
    for _ in range(MISSED + 1):
        tracker.follow([])
    assert tracker.follow([box(1)]) == [2]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=4), st.lists(st.integers(0, 40), max_size=4))
def test_pairs_have_the_largest_overlap_in_sum(before, after):
    tracker = Tracker()
    tracker.follow([box(x) for x in before])
    numbers = tracker.follow([box(x) for x in after])
    overlaps = iou([box(x) for x in before], [box(x) for x in after])
    overlaps = np.where(overlaps >= SAME_FACE, overlaps, 0)
    found = sum(overlaps[number - 1, place] for place, number in enumerate(numbers) if number <= len(before))
    slots = list(range(len(before))) + [None] * len(after)
    best = max(
        sum(overlaps[row, place] for place, row in enumerate(order) if row is not None)
        for order in set(permutations(slots, len(after)))
    )
    assert found == pytest.approx(best)
    assert len(set(numbers)) == len(after)


def test_a_video_that_breaks_off_is_judged_by_what_there_is(clip, tmp_path):
    data = clip.read_bytes()
    path = tmp_path / "cut.mkv"
    with av.open(str(clip)) as source, av.open(str(path), "w") as sink:
        stream = sink.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                sink.mux(packet)
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) * 2 // 3])
    outcome = detect_video(Model(Spots()), path, step=5)
    assert 5 <= outcome.frames < 30
    assert outcome.tracks[0].fake
    (tmp_path / "head.mp4").write_bytes(data[:200])
    with pytest.raises(UnreadableImage, match=r"head\.mp4"):
        detect_video(Model(Spots()), tmp_path / "head.mp4")


def test_playlists_and_other_files_are_not_opened(tmp_path):
    secret = write_clip(tmp_path / "secret.mp4", 2)
    texts = {
        "list.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "concat.mp4": f"ffconcat version 1.0\nfile '{secret}'\n",
        "text.mp4": "no video",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(UnreadableImage, match=name):
            list(frames(tmp_path / name))
    with pytest.raises(UnreadableImage, match="no such file"):
        list(frames(tmp_path / "absent.mp4"))


def test_without_pyav_the_extra_is_named(clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError) as caught:
        detect_video(Model(Spots()), clip)
    assert "[video]" in caught.value.remedy


def test_the_command_takes_videos_beside_pictures(tmp_path, monkeypatch):
    weights = write_model(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip.mp4", 12)
    Path("broken.mp4").write_bytes(b"no video")
    answer = CliRunner().invoke(
        app(),
        [
            "detect",
            "clip.mp4",
            "broken.mp4",
            "--weights",
            str(weights),
            "--step",
            "6",
            "--score",
            "0.05",
            "--format",
            "json,csv,coco,overlay",
        ],
    )
    assert answer.exit_code == 3, answer.output
    document = Document.model_validate_json(Path("detections/detections.json").read_text())
    assert [one.kind for one in document.files] == ["video", "error"]
    assert {face.frame for face in document.files[0].faces} <= {0, 6}
    names = [
        one["file_name"] for one in json.loads(Path("detections/detections.coco.images.json").read_text())["images"]
    ]
    assert set(names) <= {"clip.mp4#0", "clip.mp4#6"}
    assert sum(1 for _ in frames(Path("detections/clip.mp4.faces.mp4"))) == 12
