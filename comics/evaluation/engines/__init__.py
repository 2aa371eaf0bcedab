"""The libraries that match detections with ground truth as COCO does."""

from comics.evaluation.engines import hotcoco, pycocotools

ENGINES = {"hotcoco": hotcoco.match, "pycocotools": pycocotools.match}
"""By name."""
