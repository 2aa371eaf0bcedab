"""Weights out: safetensors, which any framework reads and nobody has to trust."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from comics.errors import UserError
from comics.files import atomic_write, read_json
from comics.weights.pickles import read_checkpoint


def write_safetensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors with string metadata; ``format: comics`` says whose names they have.

    Args:
        path: of the file, written whole or not at all.
        tensors: by name; those that share memory are copied.
        metadata: more to say about them.
    """
    from safetensors.torch import save

    owned = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    raw = save(owned, {"format": "comics", **metadata})
    with atomic_write(path) as beside:
        beside.write_bytes(raw)


def export_model(source: str | os.PathLike[str], output: str | os.PathLike[str], *, detector_only: bool = False) -> int:
    """A run's model.pt as safetensors, with its description, digest, name and calibration as metadata.

    Args:
        source: model.pt of a run.
        output: where to write.
        detector_only: leave out what only training needs (momentum copy, queues, projections).

    Returns:
        How many tensors were written.

    Raises:
        UserError: `source` is not a run's model.
    """
    content = read_checkpoint(source)
    if not isinstance(content, Mapping) or "state_dict" not in content or "description" not in content:
        raise UserError(f"{source}: not a run's model.", "Give model.pt of a trained run's folder.")
    tensors = {name: value for name, value in content["state_dict"].items() if isinstance(value, Tensor)}
    if detector_only:
        tensors = {name: value for name, value in tensors.items() if name.startswith(("detector.", "attention."))}
    description = json.dumps(content["description"], sort_keys=True, default=str)
    metadata = {"description": description, "digest": str(content.get("digest", ""))}
    write_safetensors(output, tensors, {**metadata, **_beside(Path(source))})
    return len(tensors)


def _beside(source: Path) -> dict[str, str]:
    """What lies beside a run's model: its name and its calibration."""
    found = {}
    if (path := source.parent / "run.json").exists():
        found["run"] = str(read_json(path).get("run", ""))
    if (path := source.parent / "calibration.json").exists():
        found["calibration"] = json.dumps(read_json(path))
    return found


def default_output(source: str | os.PathLike[str]) -> Path:
    """`source` with the suffix .safetensors."""
    return Path(source).with_suffix(".safetensors")
