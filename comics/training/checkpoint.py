"""``model.pt``: the trained weights with the digest of the run that made them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from comics.errors import UserError
from comics.files import atomic_write
from comics.params import ResolvedRun


def save_weights(path: str | os.PathLike[str], model: nn.Module, run: ResolvedRun) -> None:
    """Write the weights of `model`, readable by ``torch.load(path, weights_only=True)``."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    content = {"digest": run.checkpoint_digest, "description": run.description, "state_dict": state}
    with atomic_write(path) as beside:
        torch.save(content, beside)


def load_weights(path: str | os.PathLike[str], run: ResolvedRun) -> dict[str, torch.Tensor]:
    """The weights in `path`, which `run` must have made.

    Raises:
        UserError: the file is absent, is no checkpoint, or comes from a run that has since changed.
    """
    target = run.folder / "model.pt"
    if not Path(path).exists():
        raise UserError(f"{path}: no such checkpoint.", f"Train it with: snakemake {target}")
    renew = f"Train it with: snakemake --force {target}"  # without --force, one that it did not make would do
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
        digest, state = content["digest"], content["state_dict"]
    except Exception as error:
        raise UserError(f"{path}: not a checkpoint of this project ({type(error).__name__}: {error}).", renew) from None
    if digest != run.checkpoint_digest:
        raise UserError(
            f"{path}: its run has changed since ({digest}, params.yaml now gives {run.checkpoint_digest}).", renew
        )
    return state
