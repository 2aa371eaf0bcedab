"""What was found, as plain dataclasses of numbers and arrays: faces with one verdict each, pictures, videos.

Boxes are (left, top, right, bottom) in px of the picture as it is meant to be seen (turned by its EXIF orientation).
numpy and pillow only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SCHEMA = "comics-detections/1"
"""Raised with every change of `Outcome.as_dict` that a reader could stumble over (docs/detect.md)."""

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

REAL, FAKE, NO_FACE, UNREADABLE = "real", "fake", "no face", "unreadable"


@dataclass(frozen=True)
class Face:
    """One face.

    Attributes:
        box: left, top, right, bottom in px.
        score: how sure the detector is that there is a face, in [0, 1].
        p_fake: how likely the face is forged, calibrated if the model is.
        fake: the verdict: whether `p_fake` reaches the threshold.
        crop: (h, w) bool, the mask's part around the face.
        corner: x, y in px of the crop's first pixel.
        frame: number of the frame in a video, from 0.
        time: of that frame, in seconds.
        track: number of the face over a video's frames, from 1.
        score_mask: how sure the detector is of the mask, in [0, 1]; None where it says nothing of it.
    """

    box: tuple[float, float, float, float]
    score: float
    p_fake: float
    fake: bool
    crop: Mask = field(repr=False)
    corner: tuple[int, int] = (0, 0)
    frame: int | None = None
    time: float | None = None
    track: int | None = None
    score_mask: float | None = None

    @property
    def verdict(self) -> str:
        return FAKE if self.fake else REAL

    @property
    def mask_area(self) -> int:
        """Pixels of the mask."""
        return int(self.crop.sum())

    def mask(self, size: tuple[int, int]) -> Mask:
        """The mask (height, width) in a picture of `size`."""
        whole = np.zeros(size, bool)
        (x, y), (h, w) = self.corner, self.crop.shape
        whole[y : y + h, x : x + w] = self.crop
        return whole

    def rle(self, size: tuple[int, int]) -> dict[str, Any]:
        """The mask as COCO's compressed run lengths."""
        from pycocotools import mask as coco

        code = coco.encode(np.asfortranarray(self.mask(size).astype(np.uint8)))
        return {"size": list(code["size"]), "counts": code["counts"].decode()}

    def as_dict(self, size: tuple[int, int]) -> dict[str, Any]:
        """As an entry of the JSON file."""
        left, top, right, bottom = self.box
        entry: dict[str, Any] = {
            "box": [round(value, 2) for value in (left, top, right - left, bottom - top)],
            "score": round(self.score, 4),
            "p_fake": round(self.p_fake, 4),
            "verdict": self.verdict,
            "mask_area": self.mask_area,
            "mask": self.rle(size),
        }
        if self.score_mask is not None:
            entry["score_mask"] = round(self.score_mask, 4)
        if self.frame is not None:
            entry |= {"frame": self.frame, "time": round(self.time or 0.0, 3), "track": self.track}
        return entry


@dataclass(frozen=True)
class About:
    """What the model is, for every file that holds its verdicts.

    Attributes:
        model: name of the run, or of the file.
        detector: its kind.
        trained_on: name of the dataset; empty where it is not known.
        notice: what whoever reads a verdict has to know.
        calibrated: whether `p_fake` is a probability learnt on a split of its own, or only a score.
        threshold: P(fake) from which on a face is called fake.
        threshold_name: as the user chose it: eer, fpr1, fpr5, olrp, or the number.
        score: least score of a face.
        overlap: IoU from which on detections are the same face.
        overlap_of: `boxes`, or `masks` of a detector that predicts no boxes: whose IoU it is.
        digest: of the weights' run.
    """

    model: str
    detector: str
    trained_on: str
    notice: str
    calibrated: bool
    threshold: float
    threshold_name: str
    score: float
    overlap: float
    overlap_of: str = "boxes"
    digest: str = ""

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Outcome:
    """A picture with its faces, by descending score.

    Attributes:
        file: its name, empty where it came as pixels.
        size: (height, width) in px.
        faces: what was found.
        about: the model.
        notes: how it was read, where that matters.
        picture: (h, w, 3) uint8 RGB, perhaps smaller than `size`; what `draw` draws on where no other is given.
    """

    file: str
    size: tuple[int, int]
    faces: tuple[Face, ...]
    about: About
    notes: tuple[str, ...] = ()
    picture: NDArray[np.uint8] | None = field(default=None, repr=False)
    kind = "image"

    @property
    def boxes(self) -> Floats:
        """(N, 4) left, top, right, bottom in px."""
        return np.array([face.box for face in self.faces], np.float64).reshape(-1, 4)

    @property
    def scores(self) -> Floats:
        """(N,) how sure the detector is of each face."""
        return np.array([face.score for face in self.faces], np.float64)

    @property
    def p_fake(self) -> Floats:
        """(N,) how likely each face is forged."""
        return np.array([face.p_fake for face in self.faces], np.float64)

    @property
    def masks(self) -> Mask:
        """(N, height, width) bool; made when asked for, because it is large."""
        whole = [face.mask(self.size) for face in self.faces]
        return np.stack(whole) if whole else np.zeros((0, *self.size), bool)

    @property
    def p_all_real(self) -> float | None:
        """How likely no face is forged, the faces taken as independent of each other; None without a face."""
        return float(np.prod(1 - self.p_fake)) if self.faces else None

    @property
    def p_any_fake(self) -> float | None:
        """How likely at least one face is forged: 1 - `p_all_real`."""
        return None if self.p_all_real is None else 1 - self.p_all_real

    @property
    def verdict(self) -> str:
        """`fake` where a face is called fake, `real` where there are faces and none is, else `no face`."""
        if not self.faces:
            return NO_FACE
        return FAKE if any(face.fake for face in self.faces) else REAL

    def as_dict(self) -> dict[str, Any]:
        """As an entry of the JSON file."""
        return {
            "file": self.file,
            "kind": self.kind,
            "height": self.size[0],
            "width": self.size[1],
            "notes": list(self.notes),
            "verdict": self.verdict,
            "p_any_fake": rounded(self.p_any_fake),
            "p_all_real": rounded(self.p_all_real),
            "faces": [face.as_dict(self.size) for face in self.faces],
        }

    def to_json(self, indent: int | None = 2) -> str:
        """This picture as a whole JSON document of its own (docs/detect.md)."""
        return json.dumps(document(self.about, [self]), indent=indent, allow_nan=False)

    def draw(self, picture: Any = None) -> Image.Image:
        """The picture with its faces outlined and a legend below.

        Args:
            picture: what to draw on, as pixels or PIL image; by default what was looked at.
        """
        from comics.detect.draw import draw

        ground = self.picture if picture is None else picture
        if ground is None:
            raise ValueError("the outcome holds no picture: give one to draw on")
        return draw(ground, self)


@dataclass(frozen=True)
class Track:
    """One face over the frames of a video.

    Attributes:
        number: from 1.
        p_fake: over its frames, the mean in log-odds: frames look alike, so that none counts as further evidence.
        fake: the verdict.
        frames: in how many of the sampled frames it was seen.
        first, last: the first and last of them.
    """

    number: int
    p_fake: float
    fake: bool
    frames: int
    first: int
    last: int

    def as_dict(self) -> dict[str, Any]:
        return {
            "track": self.number,
            "p_fake": round(self.p_fake, 4),
            "verdict": FAKE if self.fake else REAL,
            "frames": self.frames,
            "first_frame": self.first,
            "last_frame": self.last,
        }


@dataclass(frozen=True)
class VideoOutcome(Outcome):
    """A video: `faces` of all sampled frames, in their order, each with the number of its track.

    Attributes:
        tracks: the faces over the frames; verdict and probabilities of the video are those of its tracks.
        rate: frames a second.
        frames: how many frames were seen.
        step: every how many one was looked at.
    """

    tracks: tuple[Track, ...] = ()
    rate: float = 0.0
    frames: int = 0
    step: int = 1
    kind = "video"

    @property
    def p_all_real(self) -> float | None:
        return float(np.prod([1 - track.p_fake for track in self.tracks])) if self.tracks else None

    @property
    def verdict(self) -> str:
        if not self.tracks:
            return NO_FACE
        return FAKE if any(track.fake for track in self.tracks) else REAL

    def as_dict(self) -> dict[str, Any]:
        whole = super().as_dict()
        faces = whole.pop("faces")
        return whole | {
            "rate": round(self.rate, 3),
            "frames": self.frames,
            "step": self.step,
            "tracks": [track.as_dict() for track in self.tracks],
            "faces": faces,
        }


@dataclass(frozen=True)
class Failure:
    """A file that could not be read."""

    file: str
    error: str
    verdict = UNREADABLE

    def as_dict(self) -> dict[str, Any]:
        return {"file": self.file, "kind": "error", "verdict": UNREADABLE, "error": self.error}


def rounded(value: float | None) -> float | None:
    """For JSON: four digits are more than a verdict has."""
    return None if value is None else round(value, 4)


def summary(outcomes: Sequence[Outcome | Failure]) -> dict[str, int]:
    """How many files came out how."""
    verdicts = [outcome.verdict for outcome in outcomes]
    faces = [face for outcome in outcomes if isinstance(outcome, Outcome) for face in outcome.faces]
    return {
        "files": len(outcomes),
        "fake": verdicts.count(FAKE),
        "real": verdicts.count(REAL),
        "no_face": verdicts.count(NO_FACE),
        "unreadable": verdicts.count(UNREADABLE),
        "faces": len(faces),
        "fake_faces": sum(face.fake for face in faces),
    }


def document(about: About, outcomes: Sequence[Outcome | Failure]) -> dict[str, Any]:
    """The whole JSON file."""
    return {
        "schema": SCHEMA,
        "notice": about.notice,
        "model": about.as_dict(),
        "summary": summary(outcomes),
        "files": [outcome.as_dict() for outcome in outcomes],
    }
