"""Scores beside those of the evaluator of OpenForensics' authors, on ground truth and detections kept here."""

import json
from pathlib import Path

import pytest

from comics.evaluation import evaluate

FIXTURES = Path(__file__).parent / "fixtures" / "evaluation"
METRICS = ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L", "oLRP", "oLRP_Loc", "oLRP_FP", "oLRP_FN")


@pytest.mark.parametrize("engine", ["hotcoco", "pycocotools"])
def test_every_metric_is_the_references(engine: str) -> None:
    expected = json.loads((FIXTURES / "expected.json").read_text())["dev"]
    scores = evaluate(FIXTURES / "gt.json", FIXTURES / "dt.json", engine=engine)
    for task, name in (("detection", "bbox"), ("segmentation", "segm")):
        for metric in METRICS:
            assert scores[task, "all", metric] == pytest.approx(expected[name][metric], abs=1e-9), (task, metric)
