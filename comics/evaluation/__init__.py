"""Average precision, oLRP and verdict metrics of detections and masks, against COCO ground truth.

>>> from comics.evaluation import evaluate
>>> scores = evaluate("annotations.json", "detections.json")
>>> scores["segmentation", "all", "oLRP"]

Plain functions over numpy arrays; nothing here imports a deep learning framework.
"""

from comics.evaluation.inputs import Detections, GroundTruth, read_detections, read_ground_truth
from comics.evaluation.judging import judged
from comics.evaluation.lrp import Lrp, lrp_curve, optimal_lrp
from comics.evaluation.matching import Matched, Matches, match, match_tasks
from comics.evaluation.resampling import Difference, Interval, PairedTests, bootstrap, compare
from comics.evaluation.scores import (
    METRICS,
    TASKS,
    Scores,
    Spread,
    aggregate,
    evaluate,
    read_scores,
    score,
    write_scores,
)

__all__ = [
    "METRICS",
    "TASKS",
    "Detections",
    "Difference",
    "GroundTruth",
    "Interval",
    "Lrp",
    "Matched",
    "Matches",
    "PairedTests",
    "Scores",
    "Spread",
    "aggregate",
    "bootstrap",
    "compare",
    "evaluate",
    "judged",
    "lrp_curve",
    "match",
    "match_tasks",
    "optimal_lrp",
    "read_detections",
    "read_ground_truth",
    "read_scores",
    "score",
    "write_scores",
]
