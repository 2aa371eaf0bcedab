"""params.yaml of the project, shrunk until a job takes seconds: the DAG keeps its shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

TRAINING = {
    "epochs": 2,
    "batch_size": 4,
    "milestones": [1],
    "warmup_iterations": 2,
    "image_size": 96,
    "workers": 0,
    "precision": "fp32",
    "checkpoint_minutes": 0.02,
}


def shrink(path: Path, rows: int | None = None, figures: dict[str, Any] | None = None, **training: Any) -> None:
    """Keep the embedded dataset, small, and Table IV, with its first `rows` runs; `figures` in place of all, `training` overrides."""
    content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    content["datasets"]["mini"] |= {
        "width": 96,
        "height": 64,
        "train": 16,
        "val": 2,
        "test_dev": 4,
        "test_challenge": 4,
    }
    content["training"]["mini"] = (content["training"].get("mini") or {}) | TRAINING | training
    content["models"]["mini"] = (content["models"].get("mini") or {}) | {
        "backbone_width": 0.125,
        "fpn_channels": 8,
        "head_channels": 8,
        "head_convs": 1,
        "mask_channels": 8,
    }
    table = content["tables"]["table_iv"]
    table["rows"] = [row for row in table["rows"] if "run" in row][:rows]
    content |= {"tables": {"table_iv": table}, "figures": figures or {}, "studies": {}}
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")  # JSON is YAML
