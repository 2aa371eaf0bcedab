"""pycocotools, the reference implementation of COCO's evaluation."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from comics.evaluation.coco import AREAS, IOU_THRESHOLDS, IOU_TYPES, MAX_DETECTIONS, RECALL_THRESHOLDS, Task
from comics.evaluation.engines.entries import coco_ground_truth, coco_results, with_objects
from comics.evaluation.engines.pairs import Pairs, Told, table
from comics.evaluation.inputs import Detections, GroundTruth


def match(truth: GroundTruth, found: Detections, tasks: Sequence[Task], detailed: bool, areas: Sequence[str]) -> Told:
    """Match a category after the other, once a task."""
    from pycocotools import mask as rle
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    gt, dt = COCO(), COCO()
    gt.dataset = coco_ground_truth(truth)
    with contextlib.redirect_stdout(io.StringIO()):
        gt.createIndex()
    for number, category in with_objects(truth):
        chosen = np.flatnonzero(found.category_ids == category)
        results = coco_results(truth, found, chosen)
        for index, one in enumerate(results, start=1):
            # As `COCO.loadRes` does: the area is the box's where there is one.
            area = one["bbox"][2] * one["bbox"][3] if "bbox" in one else float(rle.area(one["segmentation"]))
            one.update(id=index, iscrowd=0, area=area)
        dt.dataset = {**gt.dataset, "annotations": results}
        for task in tasks:
            with contextlib.redirect_stdout(io.StringIO()):
                dt.createIndex()
                evaluator = COCOeval(gt, dt, IOU_TYPES[task])
                params = evaluator.params
                params.imgIds, params.catIds = list(range(1, len(truth.image_ids) + 1)), [number]
                params.iouThrs, params.recThrs = IOU_THRESHOLDS, RECALL_THRESHOLDS
                params.areaRng, params.areaRngLbl = [list(AREAS[area]) for area in areas], list(areas)
                params.maxDets = [MAX_DETECTIONS]
                evaluator.evaluate()
                evaluator.accumulate()
            pairs = table(evaluator.evalImgs, np.arange(1, len(chosen) + 1), areas)
            pairs = replace(pairs, detections=chosen[pairs.detections])
            if not detailed:
                counted = ~pairs.ignored[0, 0]
                pairs = Pairs(
                    pairs.detections[counted],
                    pairs.matched[:1, :1, counted],
                    pairs.ignored[:1, :1, counted],
                    pairs.partners[:1, counted],
                    pairs.everywhere[:1, counted],
                )
            yield category, task, np.asarray(evaluator.eval["precision"])[:, :, 0, :, -1], pairs
