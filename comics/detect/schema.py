"""The JSON file's schema (`comics detect --schema`), from which tests check what is written."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from comics.detect.outcome import SCHEMA

Probability = Annotated[float, Field(ge=0, le=1)]
Verdict = Literal["real", "fake"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Mask(_Strict):
    """COCO's compressed run lengths."""

    size: Annotated[list[PositiveInt], Field(min_length=2, max_length=2, description="Height and width in px.")]
    counts: str


class Face(_Strict):
    """A face, or in a video a face in one frame."""

    box: Annotated[list[float], Field(min_length=4, max_length=4, description="x, y, width, height in px.")]
    score: Annotated[Probability, Field(description="How sure the detector is that there is a face.")]
    score_mask: (
        Annotated[Probability, Field(description="How sure it is of the mask; only where it says so.")] | None
    ) = None
    p_fake: Annotated[
        Probability, Field(description="How likely it is forged; a mere score where model.calibrated is false.")
    ]
    verdict: Verdict
    mask_area: NonNegativeInt
    mask: Mask


class VideoFace(Face):
    """A face in one frame of a video."""

    frame: NonNegativeInt
    time: Annotated[float, Field(ge=0, description="Seconds.")]
    track: PositiveInt


class Track(_Strict):
    """A face over the frames of a video."""

    track: PositiveInt
    p_fake: Probability
    verdict: Verdict
    frames: PositiveInt
    first_frame: NonNegativeInt
    last_frame: NonNegativeInt


class _Seen(_Strict):
    file: str
    height: PositiveInt
    width: PositiveInt
    notes: list[str]
    verdict: Literal["real", "fake", "no face"]
    p_any_fake: Probability | None
    p_all_real: Probability | None


class Image(_Seen):
    """A picture that was looked at."""

    kind: Literal["image"]
    faces: list[Face]


class Video(_Seen):
    """A video that was looked at."""

    kind: Literal["video"]
    rate: Annotated[float, Field(ge=0, description="Frames a second.")]
    frames: NonNegativeInt
    step: PositiveInt
    tracks: list[Track]
    faces: list[VideoFace]


class Unreadable(_Strict):
    """A file that could not be read."""

    kind: Literal["error"]
    file: str
    verdict: Literal["unreadable"]
    error: str


class Model(_Strict):
    """What looked."""

    model: str
    detector: str
    trained_on: str
    notice: str
    calibrated: bool
    threshold: float
    threshold_name: str
    score: Probability
    overlap: Probability
    overlap_of: Literal["boxes", "masks"]
    digest: str


class Summary(_Strict):
    """How many of what."""

    files: NonNegativeInt
    fake: NonNegativeInt
    real: NonNegativeInt
    no_face: NonNegativeInt
    unreadable: NonNegativeInt
    faces: NonNegativeInt
    fake_faces: NonNegativeInt


class Document(_Strict):
    """What ``comics detect`` writes as detections.json."""

    schema_: Annotated[Literal["comics-detections/1"], Field(alias="schema")]
    notice: str
    model: Model
    summary: Summary
    files: list[Annotated[Image | Video | Unreadable, Field(discriminator="kind")]]


def json_schema() -> dict[str, Any]:
    """JSON Schema of the file."""
    return {"$id": SCHEMA, **Document.model_json_schema()}
