"""Calibrated P(fake): the fit, the thresholds, the reliability diagram, the model card."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from detect_scenes import calibration as made_calibration
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_curve

from comics.errors import UserError
from comics.evaluation.calibration import (
    BINS,
    FoundFaces,
    best_score,
    calibrate,
    equal_error,
    false_alarms,
    fit,
    from_json,
    held,
    match_faces,
    optimal_threshold,
    read_calibration,
    reliability,
)
from comics.evaluation.inputs import read_detections, read_ground_truth
from comics.files import write_json


def drawn(count: int = 4000, seed: int = 0, slope: float = 0.4, bias: float = -1.0):
    """P(fake) that is overconfident and biased in a known way, and what the faces are."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, count)
    fake = rng.random(count) < 1 / (1 + np.exp(-(slope * z + bias)))
    return 1 / (1 + np.exp(-z)), fake


def test_the_fit_finds_temperature_and_bias_that_made_the_data():
    temperature, bias = fit(*drawn(40000))
    assert temperature == pytest.approx(2.5, rel=0.05)
    assert bias == pytest.approx(-1.0, abs=0.05)


def test_the_fit_is_that_of_an_unpenalised_logistic_regression():
    p, fake = drawn(3000, seed=1)
    temperature, bias = fit(p, fake)
    logit = np.log(p / (1 - p))[:, None]
    reference = LogisticRegression(C=np.inf, tol=1e-10).fit(logit, fake)
    assert 1 / temperature == pytest.approx(reference.coef_[0, 0], rel=0.01)  # the targets are Platt's
    assert bias == pytest.approx(reference.intercept_[0], rel=0.01)


def test_the_fit_improves_what_it_is_fitted_to_and_what_it_is_not():
    temperature, bias = fit(*drawn())
    p, fake = drawn(seed=2)
    after = 1 / (1 + np.exp(-(np.log(p / (1 - p)) / temperature + bias)))
    assert reliability(after, fake).ece < 0.03 < reliability(p, fake).ece
    assert reliability(after, fake).brier < reliability(p, fake).brier


@pytest.mark.parametrize("separated", [True, False])
def test_a_handful_of_faces_gives_finite_numbers(separated):
    p = np.array([0.1, 0.2, 0.8, 0.9])
    temperature, bias = fit(
        p, np.array([False, False, True, True]) if separated else np.array([True, True, False, False])
    )
    assert np.isfinite([temperature, bias]).all()
    assert temperature > 0
    assert temperature < 5 if separated else temperature > 10  # what says nothing is made to say little
    assert np.isfinite(fit(np.array([0.0, 1.0]), np.array([False, True]))).all()


def test_the_reliability_diagram_is_scikit_learns():
    p, fake = drawn(2000)
    ours = reliability(p, fake)
    are, said = calibration_curve(fake, p, n_bins=BINS)
    assert [one for one in ours.are if one is not None] == pytest.approx(are)
    assert [one for one in ours.said if one is not None] == pytest.approx(said)
    naive = sum(
        abs(p[(p * BINS).astype(int) == b].mean() - fake[(p * BINS).astype(int) == b].mean())
        * ((p * BINS).astype(int) == b).sum()
        for b in range(BINS)
        if ((p * BINS).astype(int) == b).any()
    ) / len(p)
    assert ours.ece == pytest.approx(naive)
    assert sum(ours.faces) == 2000


def test_of_no_face_and_of_certainty():
    assert reliability(np.zeros(0), np.zeros(0, bool)).ece == 0
    certain = reliability(np.array([0.0, 1.0]), np.array([False, True]))
    assert (certain.ece, certain.brier) == (0, 0)
    assert certain.faces[-1] == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=40))
def test_equal_error_is_the_least_of_the_larger_of_both_errors(values):
    p = np.array([value / 20 for value, _ in values])
    fake = np.array([one for _, one in values])
    if not fake.any() or fake.all():
        return
    threshold = equal_error(p, fake)
    worst = max((p[~fake] >= threshold).mean(), (p[fake] < threshold).mean())
    fpr, tpr, _ = roc_curve(fake, p, drop_intermediate=False)
    assert worst == pytest.approx(np.maximum(fpr, 1 - tpr).min())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.sampled_from([0.01, 0.05, 0.3]))
def test_false_alarms_stay_within_the_rate_and_no_lower_threshold_does(values, rate):
    real = np.array(values) / 50
    threshold = false_alarms(real, rate)
    assert (real >= threshold).mean() <= rate + 1e-12
    lower = [cut for cut in np.unique(real) if cut < threshold]
    if lower:
        assert (real >= lower[-1]).mean() > rate


def test_the_optimal_threshold_is_that_of_a_plain_search():
    rng = np.random.default_rng(3)
    p, fake, ious = rng.random(60).round(1), rng.random(60) < 0.5, rng.uniform(0.5, 1, 60)
    total = int(fake.sum()) + 7

    def lrp(threshold):
        said = p >= threshold
        hit = said & fake
        error = ((1 - ious[hit]) / 0.5).sum() + (said & ~fake).sum() + total - hit.sum()
        return error / (total + (said & ~fake).sum())

    best = min(map(lrp, np.unique(p)))
    assert lrp(optimal_threshold(p, fake, ious, total)) == pytest.approx(best)


def face_file(images: int = 3):
    """Truth with a real and a fake face an image, and detections of both classes on each."""
    truth = {
        "images": [{"id": k + 1, "width": 200, "height": 100, "file_name": f"{k}.png"} for k in range(images)],
        "categories": [{"id": 1, "name": "Real"}, {"id": 2, "name": "Fake"}],
        "annotations": [],
    }
    found = []
    for k in range(images):
        for place, category in ((10, 1), (110, 2)):
            box = [place, 10, 40, 50]
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": k + 1,
                    "category_id": category,
                    "bbox": box,
                    "area": 2000,
                    "iscrowd": 0,
                }
            )
            for said in (1, 2):
                score = 0.9 if said == category else 0.5
                found.append({"image_id": k + 1, "category_id": said, "score": score, "bbox": [place + 2, 10, 40, 50]})
        found.append({"image_id": k + 1, "category_id": 2, "score": 0.3, "bbox": [70, 70, 20, 20]})
    return truth, found


def test_faces_are_matched_whatever_their_class():
    truth, found = face_file()
    faces = match_faces(read_ground_truth(truth), read_detections(found, read_ground_truth(truth)))
    assert faces.truth.tolist().count(-1) == 3
    assert (faces.real, faces.fake) == (3, 3)
    matched = faces.truth >= 0
    assert faces.ious[matched] == pytest.approx(38 / 42)
    assert ((faces.p_fake > 0.5) == (faces.truth == 1))[matched].all()
    assert sorted(faces.annotations[matched].tolist()) == list(range(6))
    assert best_score(faces) == 0.9


def test_faces_on_crowds_alone_are_left_out_and_each_true_face_is_found_once():
    truth, found = face_file(1)
    truth["annotations"][0]["iscrowd"] = 1
    found.append(
        {"image_id": 1, "category_id": 2, "score": 0.2, "bbox": [110, 28, 40, 50]}
    )  # on the fake one, but apart
    source = read_ground_truth(truth)
    faces = match_faces(source, read_detections(found, source))
    assert (faces.real, faces.fake) == (0, 1)
    assert faces.truth.tolist() == [1, -1, -1]


def test_calibrate_from_content_and_files(tmp_path):
    truth, found = face_file()
    made = calibrate(truth, found, digest="d")
    assert (made.images, made.real, made.fake) == (3, 3, 3)
    assert made.after.ece < made.before.ece
    assert 0 < made.thresholds["eer"] < 1
    p = made.apply(np.array([0.3, 0.5, 0.7]))
    assert (np.diff(p) > 0).all()
    write_json(tmp_path / "calibration.json", made.as_json())
    assert read_calibration(tmp_path / "calibration.json") == made
    for path, content in (("truth.json", truth), ("found.json", found)):
        write_json(tmp_path / path, content)
    assert calibrate(tmp_path / "truth.json", tmp_path / "found.json", digest="d") == made


@pytest.mark.parametrize("only", [1, 2])
def test_one_class_alone_is_refused(only):
    truth, found = face_file()
    truth["annotations"] = [one for one in truth["annotations"] if one["category_id"] == only]
    with pytest.raises(UserError, match=f"no {'fake' if only == 1 else 'real'} face"):
        calibrate(truth, found)
    with pytest.raises(UserError, match="was found"):
        calibrate(truth, [])


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other/1"},
        {"temperature": 0},
        {"temperature": float("nan")},
        {"thresholds": None},
        {"extra": 1},
        {"before": 3},
    ],
)
def test_what_is_no_calibration_is_refused(change):
    content = made_calibration().as_json()
    assert from_json(json.loads(json.dumps(content)), "x") == made_calibration()
    with pytest.raises(UserError, match=r"^x: no calibration"):
        from_json({**content, **change}, "x")
    with pytest.raises(UserError):
        from_json([], "x")


def test_how_a_calibration_holds_elsewhere_is_counted_by_hand():
    made = made_calibration(temperature=1.0, bias=0.0, score=0.3, thresholds={"eer": 0.5, "fpr1": 0.8})
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.2, 0.9])
    p = np.array([0.15, 0.65, 0.75, 0.95, 0.95, 0.95])
    truth = np.array([0, 0, 1, 1, 1, -1])  # the last but one is too faint, the last no face
    there = held(made, FoundFaces(scores, p, truth, np.ones(6), np.arange(6), 2, 3))
    assert (there.real, there.fake, there.called_fake) == (2, 2, {"eer": (1, 2), "fpr1": (0, 1)})
    assert there.after.brier == pytest.approx((0.15**2 + 0.65**2 + 0.25**2 + 0.05**2) / 4)
    assert there.after.ece == pytest.approx(there.before.ece)
    assert there.after.ece == pytest.approx((0.15 + 0.65 + 0.25 + 0.05) / 4)
    nothing = held(made, FoundFaces(*(np.zeros(0) for _ in range(4)), np.zeros(0, int), 1, 1))
    assert (nothing.real, nothing.fake, sum(nothing.after.faces)) == (0, 0, 0)


def test_no_face_found_leaves_the_default_score():
    none = np.zeros(0)
    assert 0 < best_score(FoundFaces(none, none, none.astype(int), none, none.astype(int), 1, 1)) < 1


# ---------------------------------------------------------------------------------------------------- commands and card


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose run `comics` has been trained, predicted and scored, by fabricated files."""
    from comics.params import load
    from comics.provenance import write_sidecar

    params_file = Path(__file__).parents[2] / "params.yaml"
    (tmp_path / "params.yaml").write_text(params_file.read_text())
    monkeypatch.chdir(tmp_path)
    run = load().resolve("comics")
    for split in ("val", "test_dev", "test_challenge"):
        truth, found = face_file(4)
        truth["annotations"][1]["forgery"] = "swap"
        for one in [*truth["annotations"], *found]:
            x, y, w, h = one["bbox"]
            one["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        from pycocotools import mask as coco

        for one in found:
            code = coco.frPyObjects(one["segmentation"], 100, 200)[0]
            one["segmentation"] = {"size": code["size"], "counts": code["counts"].decode()}
        write_json(run.annotations(split), truth)
        path = run.folder / f"{split}.detections.json"
        write_json(path, found)
        write_sidecar(path, {"digest": run.digest, "split": split})
    write_json(
        run.folder / "run.json",
        {
            "run": "comics",
            "checkpoint_digest": run.checkpoint_digest,
            "seconds": 100,
            "hardware": {"device": "A processor"},
        },
    )
    return tmp_path, run


def test_the_commands_calibrate_and_write_the_card(project):
    from typer.testing import CliRunner

    from comics.cli import app

    _, run = project
    answer = CliRunner().invoke(app(), ["calibrate", "comics"])
    assert answer.exit_code == 0, answer.output
    made = read_calibration(run.folder / "calibration.json")
    assert made.digest == run.digest
    assert f"{made.after.ece:.3f} after" in answer.output

    answer = CliRunner().invoke(app(), ["card", "comics"], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    text = (run.folder / "README.md").read_text()
    front = YAML(typ="safe").load(text.split("---\n")[1])
    assert front["license"] == "apache-2.0"
    assert front["datasets"] == ["mini"]
    splits = [one["dataset"]["split"] for one in front["model-index"][0]["results"]]
    assert splits == ["test_dev", "test_challenge"]
    assert "no forensic tool" in text
    for heading in ("Intended use", "Out of scope", "Limits", "Data", "Training", "Scores", "Calibration", "Licence"):
        assert f"## {heading}\n" in text
    assert re.search(r"\| real faces \| 4 \| 100 % \(51 to 100\) \|", text)
    assert "| forged by swap | 1 | 100 %" in text
    assert "| medium faces | 8 |" in text
    assert re.search(r"\| AP \| \d+\.\d \(\d+\.\d to \d+\.\d\) \| ", text)
    assert f"{made.thresholds['eer']:.3f}" in text
    assert (run.folder / "reliability.svg").read_text().startswith("<svg")
    assert re.search(r"\| val \(fitted\) \| 8 \| \d\.\d{3} \| ", text)
    assert re.search(r"\| test_challenge \| 8 \| \d\.\d{3} \| ", text)
    assert re.search(r"\| `eer` \| 0\.\d{3} \| 0 % \(0 to 49\) \| 100 % \(51 to 100\) \| ", text)


def test_the_card_is_one_to_hugging_face(project):
    hub = pytest.importorskip("huggingface_hub")
    from typer.testing import CliRunner

    from comics.cli import app

    _, run = project
    for command in ("calibrate", "card"):
        CliRunner().invoke(app(), [command, "comics"], catch_exceptions=False)
    data = hub.ModelCard.load(run.folder / "README.md").data
    assert (data.license, data.library_name, data.pipeline_tag) == (
        *("apache-2.0", "comics-forensics", "image-segmentation"),
    )
    kinds = {(one.dataset_split, one.metric_type) for one in data.eval_results}
    assert {("test_dev", "AP"), ("test_challenge", "AP"), ("test_dev", "face_AUC")} <= kinds
    assert all(0 <= one.metric_value <= 100 for one in data.eval_results)


def test_a_calibration_of_another_version_of_the_run_is_refused(project):
    from comics.detect.card import write_card
    from comics.params import load
    from comics.provenance import write_sidecar

    _, run = project
    write_json(run.folder / "calibration.json", made_calibration("old").as_json())
    write_sidecar(run.folder / "calibration.json", {"digest": "old"})
    with pytest.raises(UserError) as caught:
        write_card(load(), run, ["test_dev"])
    assert "snakemake" in caught.value.remedy


def test_the_page_shows_calibrations_that_are_there(project):
    from typer.testing import CliRunner

    from comics.cli import app
    from comics.params import load
    from comics.report.page import _seed_view

    root, run = project
    assert _seed_view(run, root)["reliability"] == ""
    CliRunner().invoke(app(), ["calibrate", "comics"])
    view = _seed_view(load().resolve("comics"), root)
    assert view["reliability"].startswith("<svg")
    told = dict(view["facts"])["Calibration error"]
    assert "on val, where it was fitted" in told
    assert "test_dev" not in told
    CliRunner().invoke(app(), ["card", "comics"], catch_exceptions=False)
    view = _seed_view(load().resolve("comics"), root)
    told = dict(view["facts"])["Calibration error"]
    assert re.search(r"\d\.\d{3} before, \d\.\d{3} after, on test_challenge", told)
    assert "test_dev, after: " in view["reliability"]


def test_training_data_is_no_split_to_calibrate_on(project):
    from typer.testing import CliRunner

    from comics.cli import app

    for split, words in (("train", "training reads"), ("vla", "no split")):
        answer = CliRunner().invoke(app(), ["calibrate", "comics", "--split", split])
        assert isinstance(answer.exception, UserError)
        assert words in answer.exception.message


def test_load_results_from_the_package(project):
    import comics
    from comics.params import load
    from comics.report.results import scores_path
    from comics.results import load as tidy

    _, run = project
    from typer.testing import CliRunner

    from comics.cli import app

    path = scores_path(run, "test_dev")
    arguments = ["evaluate", str(run.annotations("test_dev")), str(path.with_name("test_dev.detections.json"))]
    answer = CliRunner().invoke(app(), [*arguments, "--output", str(path)], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    table = comics.load_results()
    assert set(table["run"]) >= {"comics"}
    assert len(table) == len(tidy(load()))
