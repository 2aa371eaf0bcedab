"""Intervals, paired comparisons, breakdowns and the commands that write them."""

import csv
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_scenes import Entry, box_iou, detection, plain_tide, scene, truth
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from comics.cli import app
from comics.errors import UserError
from comics.evaluation import (
    METRICS,
    PairedTests,
    Scores,
    aggregate,
    bootstrap,
    breakdowns,
    compare,
    evaluate,
    match,
    read_detections,
    read_ground_truth,
    read_scores,
    write_scores,
)
from comics.evaluation.intervals import bca, blocks
from comics.evaluation.judging import face_verdicts
from comics.evaluation.resampling import draws
from comics.provenance import write_sidecar

FACE = [20.0, 20.0, 40.0, 40.0]


def many(images: int, hits: float, seed: int = 0) -> tuple[Entry, list[Entry]]:
    """Images with a face of each class each; a share of `hits` is found, the rest of the detections are beside."""
    rng = np.random.default_rng(seed)
    ids = list(range(1, images + 1))
    faces = [(image, category, FACE) for image in ids for category in (1, 2)]
    found = [
        detection(image, category, FACE if rng.random() < hits else [80.0, 60.0, 40.0, 40.0], float(rng.random()))
        for image, category, _ in faces
    ]
    return truth(faces, ids), found


def distinct(found: list[Entry], step: float) -> list[Entry]:
    """With a score each: among equal ones, repeating images changes the order that COCO ranks them in."""
    return [{**one, "score": (place + step) / 1000} for place, one in enumerate(found)]


def drawn(ground_truth: Entry, found: list[Entry], counts: dict[int, int]) -> Scores:
    """Scores of a set in which each image is there as often as `counts` tells, from a new evaluation."""
    images, annotations, repeated = [], [], []
    for image, count in counts.items():
        for repeat in range(count):
            new = image + 10_000 * repeat
            images += [{**one, "id": new} for one in ground_truth["images"] if one["id"] == image]
            annotations += [{**one, "image_id": new} for one in ground_truth["annotations"] if one["image_id"] == image]
            repeated += [{**one, "image_id": new} for one in found if one["image_id"] == image]
    annotations = [{**one, "id": number} for number, one in enumerate(annotations, start=1)]
    return evaluate({**ground_truth, "images": images, "annotations": annotations}, repeated)


class TestBootstrap:
    def test_intervals_are_those_of_evaluating_every_draw(self) -> None:
        ground_truth, found = scene(7, images=15)
        found = distinct(found, 1)
        checked = read_ground_truth(ground_truth)
        matched = {"segmentation": match(checked, read_detections(found, checked), "segmentation", detailed=True)}
        _, intervals = bootstrap(checked, matched, 12, seed=4)
        ids = checked.image_ids.tolist()
        evaluated, without = (
            [drawn(ground_truth, found, dict(zip(ids, counts.astype(int), strict=True))) for counts in many_counts]
            for many_counts in (draws(len(ids), 12, 4), blocks(len(ids)))
        )
        for one in intervals:
            values, left_out = (
                np.array([scores["segmentation", one.cls, one.metric] for scores in of]) for of in (evaluated, without)
            )
            expected = bca(one.value, values, left_out)
            assert (one.low, one.high) == pytest.approx(expected, abs=1e-9), (one.cls, one.metric)

    def test_contains_the_value_and_repeats(self) -> None:
        ground_truth, found = scene(3, images=20)
        checked = read_ground_truth(ground_truth)
        matched = {"detection": match(checked, read_detections(found, checked), "detection", detailed=True)}
        scores, intervals = bootstrap(checked, matched, 60, seed=1)
        assert bootstrap(checked, matched, 60, seed=1)[1] == intervals
        assert bootstrap(checked, matched, 60, seed=2)[1] != intervals
        told = {(one.cls, one.metric) for one in intervals}
        defined = {(c, m) for c in scores.classes for m in METRICS if not math.isnan(scores["detection", c, m])}
        assert told == defined
        for one in intervals:
            assert one.low <= one.high
            assert one.value == scores["detection", one.cls, one.metric]
            if one.metric in ("AP", "oLRP"):
                assert one.low <= one.value <= one.high

    def test_more_images_make_it_narrower(self) -> None:
        widths = []
        for images in (10, 160):
            checked = read_ground_truth(many(images, 0.7)[0])
            matched = {
                "detection": match(checked, read_detections(many(images, 0.7)[1], checked), "detection", detailed=True)
            }
            widths.append(
                next(one.high - one.low for one in bootstrap(checked, matched, 80, 0)[1] if one.metric == "oLRP")
            )
        assert widths[1] < widths[0] / 2

    def test_undefined_resamples_are_left_out(self) -> None:
        low, high = bca(1.4, np.array([np.nan, 1.0, 2.0, np.nan]), np.array([1.3, np.nan, 1.5]))
        assert 1 <= low <= high <= 2
        assert all(math.isnan(one) for one in bca(1.4, np.array([np.nan]), np.zeros(0)))

    def test_no_image_to_draw(self) -> None:
        with pytest.raises(UserError, match="no images"):
            compare(truth([], []), [], [])
        with pytest.raises(UserError, match="at least one"):
            compare(truth([], [1]), [], [], samples=0)


class TestCompare:
    def test_a_result_does_not_differ_from_itself(self) -> None:
        ground_truth, found = scene(8)
        for one in compare(ground_truth, found, found, samples=30):
            assert (one.difference, one.low, one.high, one.p) == (0, 0, 0, 1)

    def test_a_better_one_is_found(self) -> None:
        ground_truth, worse = many(40, 0.4)
        _, better = many(40, 0.95, seed=1)
        scores = [evaluate(ground_truth, found) for found in (better, worse)]
        differences = {(one.task, one.metric): one for one in compare(ground_truth, better, worse, samples=200)}
        assert set(differences) == {(t, m) for t in ("detection", "segmentation") for m in ("AP", "oLRP")}
        for (task, metric), one in differences.items():
            assert (one.first, one.second) == pytest.approx([of[task, "all", metric] for of in scores])
            assert one.difference == pytest.approx(one.first - one.second)
            assert one.low <= one.difference <= one.high
            assert one.low > 0 if metric == "AP" else one.high < 0
            assert one.p == pytest.approx(1 / 201)

    def test_the_p_value_is_that_of_evaluating_every_swap(self) -> None:
        ground_truth, found = scene(9, images=12)
        one = distinct(found, 1)
        other = distinct(found[::-1], 0.5)
        differences = {
            (d.task, d.metric): d for d in compare(ground_truth, one, other, samples=15, seed=2, tasks=["detection"])
        }
        ids = sorted(image["id"] for image in ground_truth["images"])
        rng = np.random.default_rng((2, 1))
        extreme: Counter[str] = Counter()
        for _ in range(15):
            own = dict(zip(ids, rng.random(len(ids)) < 0.5, strict=True))
            mixed = [
                evaluate(
                    ground_truth,
                    [
                        *(d for d in one if own[d["image_id"]] == first),
                        *(d for d in other if own[d["image_id"]] != first),
                    ],
                )
                for first in (True, False)
            ]
            for metric in ("AP", "oLRP"):
                swapped = mixed[0]["detection", "all", metric] - mixed[1]["detection", "all", metric]
                extreme[metric] += abs(swapped) >= abs(differences["detection", metric].difference) - 1e-12
        for metric in ("AP", "oLRP"):
            assert differences["detection", metric].p == pytest.approx((1 + extreme[metric]) / 16)

    def test_chance_is_not_called_a_difference(self) -> None:
        """Two draws of the same detector: p-values are spread over the unit interval, not near 0."""
        values = []
        for seed in range(12):
            ground_truth, one = many(20, 0.6, seed=2 * seed)
            values.append(
                compare(ground_truth, one, many(20, 0.6, seed=2 * seed + 1)[1], samples=60, tasks=["detection"])[1].p
            )
        assert np.mean(np.array(values) < 0.05) <= 0.25
        assert np.median(values) > 0.15

    def test_swapping_everything_turns_the_sign(self) -> None:
        ground_truth, one = many(15, 0.5)
        _, other = many(15, 0.8, seed=5)
        forth = compare(ground_truth, one, other, samples=20, tasks=["detection"])
        back = compare(ground_truth, other, one, samples=20, tasks=["detection"])
        assert [d.difference for d in forth] == pytest.approx([-d.difference for d in back])

    def test_many_pairs_of_files_read_each_once(self, tmp_path: Path) -> None:
        ground_truth, one = many(12, 0.6)
        _, other = many(12, 0.7, seed=1)
        contents = {"gt": ground_truth, "one": one, "other": other, "nothing": []}
        paths = {name: tmp_path / f"{name}.json" for name in contents}
        for name, content in contents.items():
            paths[name].write_text(json.dumps(content))
        tests = PairedTests(paths["gt"], samples=50, seed=3)
        assert tests(paths["one"], paths["one"], "segmentation") == {"AP": 1, "oLRP": 1}
        paths["one"].unlink()
        differences = compare(ground_truth, one, other, samples=50, seed=3, tasks=["segmentation"])
        found = tests(paths["one"], paths["other"], "segmentation")
        assert found == {difference.metric: difference.p for difference in differences}
        assert found["AP"] > min(tests(paths["nothing"], paths["other"], "segmentation").values()) == 1 / 51

    def test_pairs_need_images_and_what_is_compared(self, tmp_path: Path) -> None:
        ground_truth, found = many(3, 0.6)
        for one in found:
            one.pop("segmentation")
        for name, content in (("gt", ground_truth), ("dt", found)):
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        tests = PairedTests(tmp_path / "gt.json")
        with pytest.raises(UserError, match=r"dt\.json: has nothing to compare in segmentation"):
            tests(tmp_path / "dt.json", tmp_path / "dt.json", "segmentation")
        (tmp_path / "gt.json").write_text(json.dumps({**ground_truth, "images": [], "annotations": []}))
        with pytest.raises(UserError, match="has no images to draw"):
            PairedTests(tmp_path / "gt.json")

    def test_progress_is_told_of_every_resample_and_swap(self) -> None:
        ground_truth, found = many(3, 0.6)
        told: list[tuple[str, int, int]] = []
        compare(ground_truth, found, found, samples=4, tasks=["detection"], progress=lambda *one: told.append(one))
        assert told == [(f"{what} detection", done, 4) for what in ("Resample", "Swap") for done in (1, 2, 3, 4)]


class TestBreakdowns:
    def test_faces_in_the_image_are_those_images_alone(self) -> None:
        ground_truth, found = scene(11, images=30)
        for one in ground_truth["annotations"]:
            one["iscrowd"] = 0
        for place, one in enumerate(found):
            one["score"] = (place + 1) / (len(found) + 1)
        checked = read_ground_truth(ground_truth)
        read = read_detections(found, checked)
        matched = match(checked, read, "detection", detailed=True)
        rows = [
            dict(zip(breakdowns.FACES_HEADER, row, strict=True))
            for row in breakdowns.by_faces(checked, "detection", matched, face_verdicts(checked, read, "detection"))
        ]
        counts = Counter(one["image_id"] for one in ground_truth["annotations"])
        for group, low, high in (("1", 1, 1), ("2", 2, 2), ("3-5", 3, 5)):
            ids = {image for image, count in counts.items() if low <= count <= high}
            part = {
                **ground_truth,
                "images": [one for one in ground_truth["images"] if one["id"] in ids],
                "annotations": [one for one in ground_truth["annotations"] if one["image_id"] in ids],
            }
            scores = evaluate(part, [one for one in found if one["image_id"] in ids])
            for row in rows:
                if row["faces_in_image"] == group:
                    assert row["images"] == len(ids)
                    for metric in breakdowns.MEASURES:
                        expected = scores["detection", row["class"], metric]
                        assert row[metric] == pytest.approx(expected, abs=1e-9, nan_ok=True)
                    for metric in breakdowns.JUDGED if row["class"] == "all" else ():
                        expected = scores["detection", "all", metric]
                        assert row[metric] == pytest.approx(expected, abs=1e-9, nan_ok=True)

    def test_sizes(self) -> None:
        """A small face found, a large one missed."""
        ground_truth = truth([(1, 1, [5.0, 5.0, 10.0, 10.0]), (1, 1, [20.0, 10.0, 100.0, 100.0])], [1])
        found = [detection(1, 1, [5.0, 5.0, 10.0, 10.0], 0.9)]
        checked = read_ground_truth(ground_truth)
        read = read_detections(found, checked)
        matched = match(checked, read, "detection", detailed=True)
        p_fake = face_verdicts(checked, read, "detection")
        rows = {
            (row[1], row[2]): dict(zip(breakdowns.SIZE_HEADER, row, strict=True))
            for row in breakdowns.by_size(checked, "detection", matched, p_fake)
        }
        assert (rows["all", "small"]["face_ACC"], rows["all", "large"]["face_ACC"]) == (1, 0)
        assert (rows["all", "small"]["face_found"], rows["all", "large"]["face_found"]) == (1, 0)
        assert rows["Real", "small"]["oLRP"] == 0
        assert rows["Real", "small"]["faces"] == rows["Real", "large"]["faces"] == 1
        assert rows["Real", "large"]["oLRP"] == rows["Real", "large"]["oLRP_FN"] == 1
        assert rows["Real", "small"]["AP"] == pytest.approx(1)
        assert rows["Real", "large"]["AP"] == 0
        assert math.isnan(rows["Real", "medium"]["oLRP"])
        assert rows["Real", "all"]["oLRP_FN"] == 0.5

    def test_confusion_at_thresholds(self) -> None:
        other = [80.0, 60.0, 40.0, 40.0]
        ground_truth = truth([(1, 1, FACE), (1, 2, other), (2, 2, FACE)], [1, 2])
        found = [
            detection(1, 1, FACE, 0.9),  # right
            detection(1, 1, other, 0.8),  # fake taken for real
            detection(2, 2, other, 0.7),  # nothing there
            detection(2, 2, FACE, 0.2),  # right, but below its class's threshold
        ]
        checked = read_ground_truth(ground_truth)
        rows = breakdowns.confusion(checked, read_detections(found, checked), "detection", {"Real": 0.5, "Fake": 0.5})
        counts = {(row[1], row[2]): row[3] for row in rows if row[3]}
        assert counts == {
            ("Real", "Real"): 1,
            ("Fake", "Real"): 1,
            ("Fake", "none"): 1,
            ("none", "Fake"): 1,
        }

    def test_kinds_of_error(self) -> None:
        other = [80.0, 60.0, 40.0, 40.0]
        ground_truth = truth([(1, 1, FACE), (1, 2, other), (2, 2, FACE)], [1, 2])
        near = [20.0, 20.0, 16.0, 40.0]
        assert 0.1 < box_iou(near, FACE) < 0.5
        found = [
            detection(1, 1, FACE, 0.9),
            detection(1, 1, [21.0, *FACE[1:]], 0.8),
            detection(1, 1, other, 0.8),
            detection(2, 2, near, 0.7),
            detection(2, 1, [110.0, 80.0, 20.0, 20.0], 0.7),
        ]
        checked = read_ground_truth(ground_truth)
        rows = breakdowns.errors(checked, read_detections(found, checked), "detection")
        counts = {row[1]: row[2] for row in rows}
        assert {kind: counts[kind] for kind in ("Dupe", "Cls", "Loc", "Bkg", "Both")} == {
            "Dupe": 1,
            "Cls": 1,
            "Loc": 1,
            "Bkg": 1,
            "Both": 0,
        }

    @given(st.integers(0, 10**6))
    @settings(max_examples=40, deadline=None)
    def test_errors_are_those_of_plain_loops(self, seed: int) -> None:
        """hotcoco's TIDE, number and AP50 of every kind. Scores are distinct: which of equals goes first is convention."""
        ground_truth, found = scene(seed)
        assume(ground_truth["annotations"])
        for face in ground_truth["annotations"]:
            face["iscrowd"] = 0
        for place, one in enumerate(found):
            one["score"] = (place + 1) / (len(found) + 1)
        checked = read_ground_truth(ground_truth)
        rows = breakdowns.errors(checked, read_detections(found, checked), "detection")
        expected = plain_tide(ground_truth, found)
        for _, kind, count, lost in rows:
            assert count == expected[kind][0], kind
            assert lost == pytest.approx(expected[kind][1], abs=1e-9), kind

    def test_kinds_of_forgery_and_overlaps(self) -> None:
        """Of two swaps one is found, of one reenactment none; one of the swaps lies on a real face, hardly covering it."""
        beside, below = [54.0, 20.0, 40.0, 40.0], [20.0, 70.0, 40.0, 40.0]
        ground_truth = truth([(1, 1, FACE), (1, 2, beside), (1, 2, below), (2, 2, FACE)], [1, 2])
        for face, kind in zip(ground_truth["annotations"][1:], ("swap", "reenactment", "swap"), strict=True):
            face["forgery"] = kind
        found = [detection(1, 2, beside, 0.9), detection(1, 1, FACE, 0.8), detection(2, 1, FACE, 0.7)]
        found.append(detection(2, 2, [100.0, 70.0, 20.0, 20.0], 0.6))
        checked = read_ground_truth(ground_truth)
        read = read_detections(found, checked)
        matched = match(checked, read, "detection", detailed=True)
        p_fake = face_verdicts(checked, read, "detection")

        def rows(make: Any) -> dict[tuple[str, str], dict[str, Any]]:
            made = make(checked, "detection", matched, p_fake)
            return {(row[1], row[2]): dict(zip(breakdowns.GROUP_HEADER, row, strict=True)) for row in made}

        kinds = rows(breakdowns.by_forgery)
        assert set(kinds) == {(cls, kind) for cls in ("all", "Real", "Fake") for kind in ("swap", "reenactment")}
        assert kinds["Fake", "swap"]["faces"] == 2
        assert kinds["Fake", "swap"]["AP"] == pytest.approx(51 / 101)
        assert kinds["Fake", "swap"]["oLRP_FN"] == 0.5
        assert kinds["all", "swap"]["face_ACC"] == 0.5
        assert kinds["Fake", "reenactment"]["AP"] == 0
        assert kinds["all", "reenactment"]["face_found"] == 0
        overlaps = rows(breakdowns.by_overlap)
        assert [overlaps["all", group]["faces"] for group in ("0", "0-0.1", ">0.1")] == [2, 0, 2]
        assert overlaps["all", ">0.1"]["face_ACC"] == 1
        assert overlaps["Real", ">0.1"]["AP"] == pytest.approx(1)

    def test_the_lrp_curve_passes_through_the_optimum(self) -> None:
        ground_truth, found = scene(13, images=20)
        checked = read_ground_truth(ground_truth)
        matched = match(checked, read_detections(found, checked), "segmentation", detailed=True)
        scores = evaluate(ground_truth, found)
        rows = breakdowns.lrp_curves(checked, "segmentation", matched)
        for cls in ("Real", "Fake"):
            best = min((row for row in rows if row[1] == cls), key=lambda row: row[3])
            assert best[3] == pytest.approx(scores["segmentation", cls, "oLRP"])
            assert best[4] == pytest.approx(scores["segmentation", cls, "oLRP_Loc"])
            assert best[6] == pytest.approx(scores["segmentation", cls, "oLRP_FN"])
        precision = breakdowns.precision_curves(checked, "segmentation", matched)
        mean = np.mean([row[5] for row in precision if row[1] == "Real"])
        assert mean == pytest.approx(scores["segmentation", "Real", "AP"])


def test_mean_and_deviation_over_seeds(tmp_path: Path) -> None:
    frames = []
    for seed in (1, 2, 3):
        write_scores(tmp_path / f"{seed}.csv", evaluate(*scene(seed, images=12)))
        frames.append(read_scores(tmp_path / f"{seed}.csv"))
    spread = aggregate(frames)["detection", "all", "AP"]
    values = [frame["detection", "all", "AP"] for frame in frames]
    assert (spread.mean, spread.std, spread.seeds) == pytest.approx((np.mean(values), np.std(values, ddof=1), 3))
    nothing = Scores(("all",), {("detection", "all", "AP"): math.nan})
    one = Scores(("all",), {("detection", "all", "AP"): 0.5})
    spread = aggregate([one, nothing])["detection", "all", "AP"]
    assert (spread.mean, spread.seeds) == (0.5, 1)
    assert math.isnan(spread.std)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="not a scores file"):
        read_scores(tmp_path / "other.csv")


class TestCommands:
    def run(self, *arguments: object) -> str:
        result = CliRunner().invoke(app(), [str(argument) for argument in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    def files(self, folder: Path) -> tuple[Path, Path]:
        ground_truth, found = scene(21, images=10)
        (folder / "gt.json").write_text(json.dumps(ground_truth))
        (folder / "dt.json").write_text(json.dumps(found))
        write_sidecar(folder / "dt.json", {"digest": "abc", "seed": 1})
        return folder / "gt.json", folder / "dt.json"

    def test_evaluate_writes_all_it_is_asked_for(self, tmp_path: Path) -> None:
        ground_truth, found = self.files(tmp_path)
        output = tmp_path / "out" / "val.csv"
        details = tmp_path / "details"
        self.run(
            "evaluate", ground_truth, found, "--output", output, "--bootstrap", 5, "--seed", 3, "--details", details
        )
        self.run("evaluate", ground_truth, found, "--output", tmp_path / "plain.csv", "--engine", "pycocotools")
        assert json.loads(Path(f"{output}.meta.json").read_text())["digest"] == "abc"
        one, other = read_scores(output), read_scores(tmp_path / "plain.csv")
        assert list(one.values.values()) == pytest.approx(list(other.values.values()), nan_ok=True)
        with (tmp_path / "out" / "val.intervals.csv").open(newline="") as file:
            assert {row["task"] for row in csv.DictReader(file)} == {"detection", "segmentation"}
        alone = tmp_path / "alone.csv"
        self.run("evaluate", ground_truth, found, "--bootstrap", 5, "--seed", 3, "--intervals", alone)
        assert alone.read_bytes() == (tmp_path / "out" / "val.intervals.csv").read_bytes()
        assert json.loads(Path(f"{alone}.meta.json").read_text())["bootstrap"] == 5
        refused = CliRunner().invoke(app(), ["evaluate", str(ground_truth), str(found), "--intervals", str(alone)])
        assert isinstance(refused.exception, UserError)
        assert "--bootstrap" in refused.exception.remedy
        names = {path.name for path in details.iterdir()}
        sidecars = {name for name in names if name.endswith(".meta.json")}
        assert sidecars == {f"{name}.meta.json" for name in names if name.endswith(".csv")}
        names -= sidecars
        (details / "by_forgery.csv").unlink()  # of faces that tell none: a header alone
        names.discard("by_forgery.csv")
        tables = {
            f"{name}.csv"
            for name in ("by_size", "by_faces", "by_overlap", "precision_recall", "lrp", "confusion", "errors")
        }
        assert names == tables | {f"curves{suffix}" for suffix in (".pdf", ".svg", ".png")}
        for table in tables:
            with (details / table).open(newline="") as file:
                assert list(csv.DictReader(file))

    def test_details_of_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "gt.json").write_text(json.dumps(truth([], [1])))
        (tmp_path / "dt.json").write_text("[]")
        self.run(
            "evaluate",
            tmp_path / "gt.json",
            tmp_path / "dt.json",
            "--output",
            tmp_path / "s.csv",
            "--details",
            tmp_path / "d",
        )

    def test_compare(self, tmp_path: Path) -> None:
        ground_truth, found = self.files(tmp_path)
        output = tmp_path / "differences.csv"
        told = self.run("compare", found, found, "--gt", ground_truth, "--samples", 5, "--output", output)
        assert "oLRP" in told
        with output.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [float(row["p"]) for row in rows] == [1.0] * 4

    @pytest.mark.parametrize("command", ["evaluate", "compare"])
    def test_detections_that_have_changed_are_refused(self, command: str, tmp_path: Path) -> None:
        ground_truth, found = self.files(tmp_path)
        found.write_text(found.read_text().replace('"score": 0.', '"score": 0.9', 1))
        words = {
            "evaluate": ["evaluate", ground_truth, found, "--output", tmp_path / "scores.csv"],
            "compare": ["compare", found, found, "--gt", ground_truth],
        }[command]
        with pytest.raises(UserError, match=r"dt\.json: its bytes have changed"):
            CliRunner().invoke(app(), list(map(str, words)), catch_exceptions=False)
        assert not (tmp_path / "scores.csv").exists()

    def test_a_bad_input_is_a_user_error(self, tmp_path: Path) -> None:
        ground_truth, found = self.files(tmp_path)
        with pytest.raises(UserError, match="order of the arguments"):
            self.run("evaluate", found, ground_truth, "--output", tmp_path / "s.csv")
        assert not (tmp_path / "s.csv").exists()
