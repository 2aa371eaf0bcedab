"""Average precision and oLRP of detections and masks, against COCO ground truth.

>>> from comics.evaluation import evaluate
>>> scores = evaluate("annotations.json", "detections.json")
>>> scores["segmentation", "all", "oLRP"]

Plain functions over numpy arrays; nothing here imports a deep learning framework.
"""

from comics.evaluation.inputs import Detections, GroundTruth, read_detections, read_ground_truth
from comics.evaluation.lrp import Lrp, lrp_curve, optimal_lrp
from comics.evaluation.scores import METRICS, TASKS, Scores, evaluate, write_scores

__all__ = [
    "METRICS",
    "TASKS",
    "Detections",
    "GroundTruth",
    "Lrp",
    "Scores",
    "evaluate",
    "lrp_curve",
    "optimal_lrp",
    "read_detections",
    "read_ground_truth",
    "write_scores",
]
