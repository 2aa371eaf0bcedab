"""What COCO's evaluation compares, and at which thresholds."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Task = Literal["detection", "segmentation"]

IOU_THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
RECALL_THRESHOLDS: Floats = np.linspace(0, 1, 101)
"""Exactly COCO's, to the last bit: a recall of 0.35 is below its threshold 0.35000000000000003."""
AREAS: dict[str, tuple[float, float]] = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
"""Ranges of object areas in px^2."""
MAX_DETECTIONS = 100
"""Of a class in an image, those with the highest scores."""

IOU_TYPES = {"detection": "bbox", "segmentation": "segm"}
