"""One verdict a face, of one's own pictures, from a file of weights."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from detect_scenes import calibration, picture, run_of, write_model
from detector_scenes import SETTINGS, TINY
from PIL import Image
from pycocotools import mask as coco_mask
from typer.testing import CliRunner

import comics
from comics.cli import app
from comics.detect.backends import Found, Origin
from comics.detect.draw import BLUE, NARROWEST, ORANGE, draw, percent
from comics.detect.files import coco, expand, overlay_path, target_of
from comics.detect.model import MINI_NOTICE, UNCALIBRATED_NOTICE, Model, notice_of
from comics.detect.outcome import Face, Failure, Outcome
from comics.detect.schema import Document, json_schema
from comics.detectors import detector_class
from comics.errors import UserError
from comics.files import write_json
from comics.params.datasets import OpenForensicsDataset
from comics.params.described import from_description
from comics.verdicts import FLOOR


class Fixed:
    """A network that finds the same in every picture."""

    def __init__(self, found: Found, image_size: int = 64, **origin) -> None:
        self.found = found
        facts = {"name": "fixed", "detector": "none", "trained_on": "mini", "kind": "mini", "digest": "0" * 16}
        self.origin = Origin(**{**facts, **origin}, image_size=image_size)
        self.shapes: list[list[tuple[int, ...]]] = []

    def find(self, pictures):
        self.shapes.append([picture.shape for picture in pictures])
        return [self.found for _ in pictures]


def found(*detections: tuple[tuple[float, float, float, float], float, bool]) -> Found:
    masks = []
    for (x1, y1, x2, y2), _, _ in detections:
        masks.append((np.ones((max(1, round(y2 - y1)), max(1, round(x2 - x1))), bool), (round(x1), round(y1))))
    return Found(
        boxes=np.array([box for box, _, _ in detections], float).reshape(-1, 4),
        scores=np.array([score for _, score, _ in detections], float),
        fake=np.array([fake for _, _, fake in detections], bool),
        masks=masks,
    )


BOTH = found(((4, 4, 24, 24), 0.8, False), ((5, 4, 25, 24), 0.6, True), ((40, 10, 60, 30), 0.9, True))


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def model(weights):
    return comics.load(weights, device="cpu")


# ------------------------------------------------------------------------------------------------------------ verdicts


def test_two_detections_of_one_face_are_one_face_with_one_verdict():
    outcome = Model(Fixed(BOTH)).detect(np.zeros((64, 64, 3), np.uint8))
    assert len(outcome.faces) == 2
    second = outcome.faces[1]
    assert second.box == (4, 4, 24, 24)
    assert second.score == 0.8
    assert second.p_fake == pytest.approx((0.6 + FLOOR) / (1.4 + 2 * FLOOR))
    assert [face.verdict for face in outcome.faces] == ["fake", "real"]
    assert outcome.p_all_real == pytest.approx(np.prod(1 - outcome.p_fake))
    assert outcome.p_any_fake == pytest.approx(1 - outcome.p_all_real)
    assert outcome.verdict == "fake"


def test_a_detector_without_boxes_is_judged_by_the_overlap_of_its_masks():
    upper, lower = np.triu(np.ones((20, 20), bool), 1), np.tril(np.ones((20, 20), bool))
    boxes = np.array([(4, 4, 24, 24)] * 3, float)  # two faces whose boxes are the same, the first found in both classes
    masks = [(upper, (4, 4)), (upper[:, 1:], (5, 4)), (lower, (4, 4))]
    three = Found(boxes, np.array([0.9, 0.6, 0.8]), np.array([False, True, True]), masks)
    outcome = Model(Fixed(three, predicts_boxes=False)).detect(np.zeros((64, 64, 3), np.uint8))
    assert [face.verdict for face in outcome.faces] == ["real", "fake"]
    assert outcome.faces[0].p_fake == pytest.approx((0.6 + FLOOR) / (1.5 + 2 * FLOOR))
    assert json.loads(outcome.to_json())["model"]["overlap_of"] == "masks"
    assert len(Model(Fixed(three)).detect(np.zeros((64, 64, 3), np.uint8)).faces) == 1


@pytest.mark.parametrize("detector", ["solov2", "ms_rcnn"])
def test_what_a_detector_says_of_boxes_and_masks_reaches_the_verdict(detector, tmp_path):
    """SOLOv2 has no boxes of its own; MS R-CNN has a score of each mask."""
    settings = detector_class(detector).Settings(**SETTINGS.get(detector, {}))
    run = run_of(detector=detector, model=TINY.model_copy(update={"settings": settings}), score_threshold=0.01)
    model = Model(comics.load(write_model(tmp_path, run), device="cpu").backend, score=0.0)
    outcome = model.detect(picture())
    document = Document.model_validate_json(outcome.to_json())
    assert document.model.overlap_of == ("masks" if detector == "solov2" else "boxes")
    assert outcome.faces
    for face, entry in zip(outcome.faces, document.files[0].faces, strict=True):
        assert (face.score_mask is None) == (detector == "solov2")
        assert entry.score_mask == (None if face.score_mask is None else pytest.approx(face.score_mask, abs=1e-4))
        assert face.score_mask is None or face.score_mask <= face.score
    results, _ = coco(outcome.about, [outcome])
    assert all(("score_mask" in one) == (detector == "ms_rcnn") for one in results)


def test_a_picture_without_faces_has_no_probability():
    outcome = Model(Fixed(found())).detect(np.zeros((64, 64, 3), np.uint8))
    assert (outcome.verdict, outcome.p_any_fake, outcome.p_all_real) == ("no face", None, None)
    assert outcome.boxes.shape == (0, 4)
    assert outcome.masks.shape == (0, 64, 64)
    assert Document.model_validate_json(outcome.to_json()).summary.no_face == 1


def test_faint_detections_are_no_faces_but_weigh_on_their_verdict():
    faint = found(((4, 4, 24, 24), 0.5, True), ((4, 4, 24, 24), 0.25, False), ((40, 40, 60, 60), 0.29, True))
    outcome = Model(Fixed(faint)).detect(np.zeros((64, 64, 3), np.uint8))
    assert len(outcome.faces) == 1
    assert outcome.faces[0].p_fake == pytest.approx(0.55 / 0.85)


def test_calibration_moves_the_probability_and_names_thresholds():
    made = calibration()
    model = Model(Fixed(BOTH, calibration=made), "fpr1")
    outcome = model.detect(np.zeros((64, 64, 3), np.uint8))
    raw = np.array([(0.9 + FLOOR) / (0.9 + 2 * FLOOR), (0.6 + FLOOR) / (1.4 + 2 * FLOOR)])
    expected = 1 / (1 + np.exp(-(np.log(raw / (1 - raw)) / 2 + 0.5)))
    assert outcome.p_fake == pytest.approx(expected)
    assert outcome.about.threshold == 0.9
    assert outcome.about.calibrated
    assert UNCALIBRATED_NOTICE not in outcome.about.notice
    assert Model(Fixed(BOTH, calibration=made)).about.threshold_name == "eer"


def test_thresholds_are_checked():
    with pytest.raises(UserError, match="comes from a calibration"):
        Model(Fixed(BOTH), "eer")
    with pytest.raises(UserError, match="no 'err'") as caught:
        Model(Fixed(BOTH, calibration=calibration()), "err")
    assert "eer" in caught.value.remedy
    with pytest.raises(UserError, match="between 0 and 1"):
        Model(Fixed(BOTH), 1.5)


def test_another_threshold_judges_again_without_looking_again():
    network = Fixed(BOTH)
    model = Model(network)
    outcome = model.detect(np.zeros((64, 64, 3), np.uint8))
    strict = model.judged(outcome, 0.99)
    assert [face.fake for face in strict.faces] == [False, False]
    assert strict.about.threshold == 0.99
    assert len(network.shapes) == 1


@pytest.mark.parametrize(
    ("kind", "trained_on", "words"),
    [("mini", "mini", MINI_NOTICE), ("openforensics", "openforensics", "openforensics"), ("", "", "not known")],
)
def test_a_model_says_what_it_was_trained_on(kind, trained_on, words):
    assert words in notice_of(kind, trained_on, True)
    assert UNCALIBRATED_NOTICE in notice_of(kind, trained_on, False)


# ------------------------------------------------------------------------------------------------------- sizes and tiles


def test_boxes_and_masks_are_in_the_px_of_the_whole_picture():
    outcome = Model(Fixed(BOTH, image_size=64)).detect(np.zeros((256, 192, 3), np.uint8))
    assert outcome.size == (256, 192)
    assert outcome.faces[1].box == pytest.approx((16, 16, 96, 96))
    assert outcome.masks.shape == (2, 256, 192)
    rows, columns = np.nonzero(outcome.masks[1])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((16, 95, 16, 95), abs=2)


def test_the_enlarged_mask_is_that_of_the_whole_frame():
    from torch.nn.functional import interpolate

    from comics.detect.model import _enlarged_mask

    small = torch.zeros(1, 1, 40, 30)
    small[0, 0, 5:21, 7:19] = 1
    small[0, 0, 5, 7] = 0
    whole = interpolate(small, size=(133, 100), mode="bilinear", align_corners=False)[0, 0].numpy() >= 0.5
    crop, (x, y) = _enlarged_mask(small[0, 0, 5:21, 7:19].numpy() > 0, (7, 5), (100 / 30, 133 / 40), (133, 100))
    pasted = np.zeros((133, 100), bool)
    pasted[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
    assert (pasted != whole).mean() < 0.002


def test_tiles_cover_the_picture_and_merge_what_they_share():
    network = Fixed(found(((20, 20, 40, 40), 0.9, True), ((0, 0, 5, 5), 0.9, False)), image_size=64)
    outcome = Model(network).detect(np.zeros((64, 160, 3), np.uint8), tiles=True)
    assert outcome.notes == ("also looked at in 3 tiles",)
    assert len(network.shapes) == 4
    lefts = sorted(round(face.box[0]) for face in outcome.faces if face.fake and face.box[2] - face.box[0] < 21)
    assert lefts == [20, 68, 116]
    # the face in the corner is whole in the first tile, and cut by the edges of the others
    assert sum(not face.fake and face.box[2] - face.box[0] < 6 for face in outcome.faces) == 1


def test_pictures_of_one_size_are_looked_at_together_and_come_back_in_order():
    network = Fixed(BOTH, batch_size=4)
    sizes = [(64, 64), (32, 64), (64, 64), (60, 62), (32, 64), (64, 64)]
    outcomes = Model(network).detect([np.zeros((*size, 3), np.uint8) for size in sizes])
    assert [outcome.size for outcome in outcomes] == sizes
    assert max(map(len, network.shapes)) == 3
    assert sum(map(len, network.shapes)) == len(sizes)


# ------------------------------------------------------------------------------------------------------------- networks


def test_what_is_given_decides_nothing(model, tmp_path):
    image = picture()
    pixels = np.asarray(image)
    image.save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    forms = [tmp_path / "a.png", str(tmp_path / "a.png"), data, io.BytesIO(data), image, pixels, tensor, tensor / 255.0]
    outcomes = [model.detect(form) for form in forms]
    assert len(outcomes[0].faces) > 0
    for outcome in outcomes[1:]:
        assert outcome.p_fake == pytest.approx(outcomes[0].p_fake, abs=1e-5)
        assert outcome.boxes == pytest.approx(outcomes[0].boxes, abs=1e-3)
    assert outcomes[0].file == str(tmp_path / "a.png")


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4, 2)), np.full((4, 4), 300.0), np.zeros((4, 4), int), 7, np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_picture_is_refused(model, bad):
    with pytest.raises(UserError, match="no picture"):
        model.detect(bad)


def test_a_file_that_is_no_picture_is_named(model, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"a\.jpg: not an image"):
        model.detect([tmp_path / "a.jpg"])
    with pytest.raises(UserError, match="the picture: not an image"):
        model.detect(b"no picture")


def test_the_same_detections_as_the_pipelines_step(weights, model, tmp_path):
    from comics.detect.predictor import Predictor
    from comics.detectors.results import coco_results
    from comics.verdicts import faces

    run = run_of()
    (tmp_path / run.folder).mkdir(parents=True)
    (tmp_path / run.folder / "model.pt").write_bytes(weights.read_bytes())
    pixels = np.asarray(picture()).copy()
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    entries = coco_results(Predictor(run, tmp_path)(batch, [(64, 96)])[0], 1)
    boxes = np.array([entry["bbox"] for entry in entries])
    scores = np.array([entry["score"] for entry in entries])
    grouped = faces(boxes, scores, np.array([entry["category_id"] == 2 for entry in entries]))
    outcome = model.detect(pixels)
    kept = grouped.scores >= outcome.about.score
    assert outcome.p_fake == pytest.approx(grouped.p_fake[kept], abs=1e-6)
    for face, leader in zip(outcome.faces, grouped.leaders[kept], strict=True):
        code = entries[leader]["segmentation"]
        assert (face.mask(outcome.size) == coco_mask.decode(code)).all()


def test_safetensors_with_its_description_is_enough(weights, model, tmp_path):
    from comics.weights.export import export_model

    export_model(weights, tmp_path / "alone.safetensors", detector_only=True)
    alone = comics.load(tmp_path / "alone.safetensors", device="cpu")
    assert alone.about.model == "tiny"
    assert alone.about.notice.startswith(MINI_NOTICE)
    assert alone.detect(picture()).p_fake == pytest.approx(model.detect(picture()).p_fake)


def test_a_calibration_travels_with_the_weights(weights, tmp_path):
    from comics.weights.export import export_model

    write_model(tmp_path)
    write_json(tmp_path / "calibration.json", calibration(run_of().digest).as_json())
    assert comics.load(tmp_path).about.calibrated
    export_model(tmp_path / "model.pt", tmp_path / "x.safetensors", detector_only=True)
    assert comics.load(tmp_path / "x.safetensors").calibration == calibration(run_of().digest)
    write_json(tmp_path / "calibration.json", calibration("of an earlier run").as_json())
    assert not comics.load(tmp_path).about.calibrated


def test_a_run_by_name_has_the_inference_that_params_yaml_gives_it_now(tmp_path):
    import comics.params

    text = (Path(__file__).parents[2] / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text)
    run = comics.params.load(tmp_path / "params.yaml").resolve("comics")
    write_model(tmp_path / run.folder, run)
    write_json(tmp_path / run.folder / "calibration.json", calibration(run.digest).as_json())
    model = comics.load("comics", project=tmp_path, device="cpu")
    assert model.about.calibrated
    assert model.about.model == "comics"
    assert model.backend.model.detector.inference == run.inference


def test_a_run_is_one_of_the_file_that_is_named(tmp_path, monkeypatch):
    import comics.params

    (tmp_path / "params.yaml").write_text((Path(__file__).parents[2] / "params.yaml").read_text())
    (tmp_path / "mine.yaml").write_text(
        "extends: params.yaml\nruns:\n  mine: {detector: condinst, components: [views]}\n"
    )
    monkeypatch.chdir(tmp_path)
    run = comics.params.load("mine.yaml").resolve("mine")
    write_model(tmp_path / run.folder, run)
    with pytest.raises(UserError, match="no run 'mine'"):
        comics.load("mine", device="cpu")
    monkeypatch.setenv(comics.params.ENVIRONMENT, "mine.yaml")
    assert comics.load("mine", device="cpu").about.detector == "condinst"


def test_a_description_gives_its_run_back():
    for run in (run_of(), run_of(OpenForensicsDataset())):
        again = from_description(json.loads(json.dumps(run.description)), run.name, "x")
        assert again.digest == run.digest
        assert again.checkpoint_digest == run.checkpoint_digest
    started = run_of().model_copy(update={"start": run_of(detector="condinst")})
    assert "start" in started.description["model"]
    assert (
        from_description(started.description, "tiny", "x").model.model_dump()
        == started.from_checkpoint().model.model_dump()
    )
    for bad in ({}, None, {"dataset": {"name": "x", "kind": "nonsense"}, "seed": 0}, [1]):
        with pytest.raises(UserError, match=r"^x: "):
            from_description(bad, "x", "x")


def test_files_that_are_no_weights_are_refused(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"nothing")
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    (tmp_path / "a.onnx").write_bytes(b"nothing")
    for name in ("a.pt", "a.safetensors", "a.onnx", "absent.pt"):
        with pytest.raises(UserError) as caught:
            comics.load(tmp_path / name)
        assert name in caught.value.message
    with pytest.raises(UserError, match=r"no params\.yaml"):
        comics.load("some_run", project=tmp_path)


def test_importing_the_package_imports_no_torch():
    code = "import sys, comics, comics.detect.model, comics.detect.files; assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_list_detectors():
    assert "blendmask" in comics.list_detectors()


# -------------------------------------------------------------------------------------------------------------- drawing


def outcome_of(faces: list[Face], size: tuple[int, int], **about) -> Outcome:
    model = Model(Fixed(found()))
    return Outcome("a", size, tuple(faces), replace(model.about, **about))


@pytest.mark.parametrize("size", [(32, 32), (200, 300), (3000, 2000)])
def test_overlays_outline_at_any_size(size):
    height, width = size
    box = (width * 0.25, height * 0.25, width * 0.75, height * 0.75)
    crop = np.ones((height // 4, width // 4), bool)
    face = Face(box, 0.9, 0.9, True, crop, (width * 3 // 8, height * 3 // 8))
    drawn = draw(np.zeros((*size, 3), np.uint8), outcome_of([face], size))
    factor = max(1.0, NARROWEST / max(size))
    assert drawn.width == pytest.approx(width * factor, abs=1)
    assert drawn.height > height * factor  # the legend
    pixels = np.asarray(drawn)[: int(height * factor)]
    assert (pixels == ORANGE).all(-1).any()
    assert not (pixels == BLUE).all(-1).any()
    tinted = pixels[int(height * factor * 0.5), int(width * factor * 0.5)]
    assert tinted.tolist() == pytest.approx([round(0.35 * value) for value in ORANGE], abs=1)
    assert (pixels[-1, -1] == 0).all()


def test_a_label_never_leaves_the_picture():
    corner = Face((300, 2, 318, 8), 0.9, 0.1, False, np.ones((2, 2), bool), (300, 2))
    pixels = np.asarray(draw(np.zeros((240, 320, 3), np.uint8), outcome_of([corner], (240, 320))))
    blue = (pixels == BLUE).all(-1)
    assert blue[:240].any(0).sum() > 60  # the label is wider than what is right of the face


# -------------------------------------------------------------------------------------------------------- files and CLI


def test_folders_patterns_and_names_are_expanded_once_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one/a.jpg", "two/a.jpg", "two/deep/b.PNG", "two/.hidden/c.jpg", "two/notes.txt", "clip.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    given = expand(["one/a.jpg", "two", "./one/*.jpg", "two/**/*.PNG", "clip.mp4", "absent.jpg", "no/*.jpg"])
    assert [one.name if not isinstance(one, Failure) else one.error for one in given] == [
        "one/a.jpg",
        "two/a.jpg",
        "two/deep/b.PNG",
        "clip.mp4",
        "no such file",
        "no file matches",
    ]
    assert [one.video for one in given if not isinstance(one, Failure)] == [False, False, False, True]
    with pytest.raises(UserError, match="no such file"):
        expand(["absent.jpg"])


def test_overlays_and_what_lies_beside_pictures_are_left_out_of_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "a.jpg.faces.jpg", "clip.mp4.faces.mp4", "telephone.HEIC", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [one.name for one in expand(["."])] == ["a.jpg", "telephone.HEIC"]
    assert [one.name for one in expand(["*.jpg"])] == ["a.jpg"]
    assert [one.name for one in expand(["a.jpg.faces.jpg"])] == ["a.jpg.faces.jpg"]


def test_a_folder_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("open/a.jpg", "shut/b.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    whole = os.scandir

    def scandir(path="."):
        if Path(path).name == "shut":  # the superuser, who runs tests in containers, may read everything
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr(os, "scandir", scandir)
    given = expand([str(tmp_path)])
    assert sorted(type(one).__name__ for one in given) == ["Failure", "Given"]
    assert [one.error for one in given if isinstance(one, Failure)] == ["the folder cannot be read (Permission denied)"]


def test_two_of_one_target_get_two_overlays(tmp_path, monkeypatch):
    whole = tmp_path / "a.jpg"
    here = tmp_path / "here"
    inside = here / whole.relative_to(whole.anchor)
    inside.parent.mkdir(parents=True)
    monkeypatch.chdir(here)
    for path in (whole, inside, here / "stdin"):
        path.write_bytes(b"")
    given = expand(["-", "stdin", "-", str(whole), str(inside)], io.BytesIO(b"picture"))
    assert [one.name for one in given] == ["stdin", "stdin", str(whole), str(inside)]
    assert len({overlay_path(Path("out"), one) for one in given}) == 4


@pytest.mark.parametrize("letter", ["L", "ü", "😀"])
def test_a_name_as_long_as_they_come_has_an_overlay(pictures, weights, letter):
    count = 250 // len(letter.encode())
    names = [letter * count + f"{number}.png" for number in (1, 2)]
    for name in names:
        os.link("one/a.png", name)
    call(*names, "--weights", str(weights), "--format", "overlay")
    overlays = [path.name for path in Path("detections").iterdir()]
    assert len(overlays) == 2
    assert all(name.endswith(".faces.jpg") for name in overlays)


def test_an_output_that_is_no_folder_is_refused_before_anything_is_looked_at(pictures, weights):
    Path("taken").write_text("a file")
    for output in ("taken", "taken/below"):
        answer = call("one", "--weights", str(weights), "--output", output, code=2)
        assert "--output" in answer.exception.message


def test_names_do_not_steer_the_terminal(pictures, weights):
    os.rename("one/a.png", "one/a\x1b[2J\nb.png")
    answer = call("one", "--weights", str(weights))
    assert "\x1b" not in answer.output
    assert "one/a\\x1b[2J\\nb.png: " in answer.output


def test_no_probability_is_shown_as_certain():
    assert [percent(p) for p in (0.0, 0.004, 0.01, 0.5, 0.99, 0.996, 1.0)] == [
        *("< 1 %", "< 1 %", "1 %", "50 %", "99 %", "> 99 %", "> 99 %")
    ]


def test_targets_keep_their_folders(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert target_of(Path("a/b.jpg")) == Path("a/b.jpg")
    outside = target_of(Path("../a/b.jpg"))
    assert not outside.is_absolute()
    assert ".." not in outside.parts
    assert outside.parts[-2:] == ("a", "b.jpg")


def call(*arguments: str, code: int = 0, stdin: bytes | None = None):
    answer = CliRunner().invoke(app(), ["detect", *arguments], input=stdin)
    if answer.exception is not None and not isinstance(answer.exception, SystemExit):
        if not isinstance(answer.exception, UserError):
            raise answer.exception
        assert code == 2, answer.exception
        return answer
    assert answer.exit_code == code, answer.output
    return answer


@pytest.fixture
def pictures(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for place, name in enumerate(("one/a.png", "two/a.png")):
        (tmp_path / name).parent.mkdir()
        picture(seed=place).save(tmp_path / name)
    (tmp_path / "two" / "broken.jpg").write_bytes(b"no picture")
    return tmp_path


def test_the_command_writes_every_format_and_goes_on_after_a_broken_file(pictures, weights):
    answer = call(
        "one", "two", "--weights", str(weights), "--format", "json,csv,coco,overlay", "--score", "0.1", code=3
    )
    assert MINI_NOTICE in answer.output
    assert "two/broken.jpg: not an image" in answer.output
    text = Path("detections/detections.json").read_text()
    document = Document.model_validate_json(text)
    assert document.notice.startswith(MINI_NOTICE)
    assert [one.file for one in document.files] == ["one/a.png", "two/a.png", "two/broken.jpg"]
    assert document.summary.unreadable == 1
    faces = [face for one in document.files if one.kind == "image" for face in one.faces]
    assert faces

    with open("detections/detections.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len([row for row in rows if row["x"]]) == len(faces)
    assert all(row["notice"].startswith(MINI_NOTICE) for row in rows)
    assert [float(row["p_fake"]) for row in rows if row["x"]] == [face.p_fake for face in faces]

    results = json.loads(Path("detections/detections.coco.json").read_text())
    images = json.loads(Path("detections/detections.coco.images.json").read_text())
    assert [one["file_name"] for one in images["images"]] == ["one/a.png", "two/a.png"]
    assert MINI_NOTICE in images["info"]["description"]
    assert {one["image_id"] for one in results} <= {1, 2}
    for entry, face in zip(results, faces, strict=True):
        assert coco_mask.area(entry["segmentation"]) == face.mask_area
        assert entry["category_id"] == (2 if face.verdict == "fake" else 1)

    for name in ("one/a.png", "two/a.png"):
        with Image.open(f"detections/{name}.faces.jpg") as overlay:
            assert overlay.width == NARROWEST
            assert MINI_NOTICE in overlay.info["comment"].decode()


def test_nothing_is_overwritten_silently(pictures, weights):
    arguments = ("one/a.png", "--weights", str(weights), "--format", "json")
    call(*arguments)
    before = Path("detections/detections.json").read_text()
    answer = call(*arguments, code=2)
    assert "is there already" in answer.exception.message
    call(*arguments, "--overwrite")
    assert Path("detections/detections.json").read_text() == before


def test_exit_codes(pictures, weights):
    base = ("--weights", str(weights), "--output", "-", "--score", "0.01")
    call("one", *base, "--threshold", "0", "--fail-on-fake", code=4)
    call("one", *base, "--threshold", "1", "--fail-on-fake")
    call("one", "two", *base, "--threshold", "0", "--fail-on-fake", code=5)
    call("one", *base, "--threshold", "0")
    call("one", *base, "--threshold", "nonsense", code=2)
    call("one", *base, "--run", "comics", code=2)
    call("one", *base, "--format", "xml", code=2)
    call(*base, code=2)


def test_standard_input_and_output(pictures, weights):
    data = Path("one/a.png").read_bytes()
    answer = call("-", "--weights", str(weights), "--output", "-", stdin=data)
    document = Document.model_validate_json(answer.stdout)
    assert [one.file for one in document.files] == ["stdin"]
    answer = call("-", "--weights", str(weights), "--output", "-", stdin=b"", code=3)
    assert "stdin: not an image" in answer.output
    answer = call("--list", "-", "--weights", str(weights), "--output", "-", stdin=b"one/a.png\ntwo/a.png\n")
    assert Document.model_validate_json(answer.stdout).summary.files == 2
    assert not Path("detections").exists()


def test_names_that_are_no_text_are_read_and_written(pictures, weights):
    name = os.fsdecode(b"one/\xff.png")
    os.rename("one/a.png", name)
    call("one", "--weights", str(weights))
    assert json.loads(Path("detections/detections.json").read_text())["files"][0]["file"] == "one/\\xff.png"
    assert os.path.exists(os.fsdecode(b"detections/one/\xff.png.faces.jpg"))


def test_the_schema_is_printed_and_told_in_the_docs():
    printed = json.loads(call("--schema").stdout)
    assert printed == json_schema()
    assert printed["$id"] in (Path(__file__).parents[2] / "docs" / "detect.md").read_text()


def test_24_megapixels_take_less_than_two_gigabytes(weights, tmp_path):
    picture(6000, 4000).save(tmp_path / "large.jpg")
    code = (
        "import comics; from comics.machine import peak_resident; "
        f"outcome = comics.load({str(weights)!r}, device='cpu').detect({str(tmp_path / 'large.jpg')!r}); "
        "assert outcome.size == (4000, 6000) and outcome.faces; "
        "outcome.to_json(); outcome.draw(); print(peak_resident())"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(answer.stdout) < 2 * 10**9


def test_the_examples_of_the_docs(weights, tmp_path, monkeypatch):
    import doctest

    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.pt").write_bytes(weights.read_bytes())
    picture().save("photo.png")
    result = doctest.testfile(str(Path(__file__).parents[2] / "docs" / "detect.md"), module_relative=False)
    assert result.attempted >= 9
    assert result.failed == 0
