"""``model.pt``: the trained weights with the digest of the run that made them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from comics.data.canonical.content import content_of
from comics.errors import UserError
from comics.params import ResolvedRun
from comics.provenance import read_sidecar, require_intact, sidecar_path, write_sidecar
from comics.training.tensors import write_tensors
from comics.weights.finite import require_finite


def save_weights(
    path: str | os.PathLike[str],
    model: nn.Module | Mapping[str, Tensor],
    run: ResolvedRun,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Write the weights of `model`, readable by ``torch.load(path, weights_only=True)``, and their sidecar.

    Args:
        path: of the file.
        model: or its state.
        run: that made them.
        data: what it was trained on (`comics.data.canonical.content.Content.facts`).

    Raises:
        UserError: a tensor is not finite; nothing is written.
    """
    tensors = model.state_dict() if isinstance(model, nn.Module) else model
    state = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    require_finite(state, f"{path}: is not written", f"Lower training.lr of run '{run.name}' in params.yaml.")
    facts = {"digest": run.checkpoint_digest, "data": dict(data or {})}
    sidecar_path(path).unlink(missing_ok=True)  # before the file that it is not the sidecar of
    write_tensors(Path(path), {**facts, "description": run.description, "state_dict": state})
    write_sidecar(path, {**facts, "run": run.name, "seed": run.seed})


def load_weights(path: str | os.PathLike[str], run: ResolvedRun) -> dict[str, torch.Tensor]:
    """The weights in `path`, which `run` must have made.

    Raises:
        UserError: the file is absent, damaged, no checkpoint, holds a number that is not finite, or comes from a run that
            has since changed.
    """
    target = run.folder / "model.pt"
    if not Path(path).exists():
        raise UserError(f"{path}: no such checkpoint.", f"Train it with: snakemake {target}")
    renew = f"Train it with: snakemake --force {target}"  # without --force, one that it did not make would do
    require_intact(path, renew)
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
        digest, state = content["digest"], content["state_dict"]
    except Exception as error:
        raise UserError(f"{path}: not a checkpoint of this project ({type(error).__name__}: {error}).", renew) from None
    if digest != run.checkpoint_digest:
        raise UserError(
            f"{path}: its run has changed since ({digest}, params.yaml now gives {run.checkpoint_digest}).", renew
        )
    require_finite(state, str(path), renew)
    return state


def trained_on(path: str | os.PathLike[str], annotations: Path, run: ResolvedRun) -> dict[str, str]:
    """What the weights in `path` were trained on; empty where nothing tells.

    Args:
        path: of ``model.pt``.
        annotations: of the training split, which need not be there.
        run: that made them.

    Raises:
        UserError: the split is there and is another one now.
    """
    told: dict[str, str] = read_sidecar(path).get("data") or {}
    if told and annotations.exists() and (now := content_of(annotations).facts) != told:
        changed = ", ".join(f"{key} ({told.get(key)}, now {now[key]})" for key in now if told.get(key) != now[key])
        raise UserError(
            f"{path}: its training data has changed since: {changed}.",
            f"Train it with: snakemake {run.folder / 'model.pt'} --forcerun {run.folder / 'model.pt'}",
        )
    return told
