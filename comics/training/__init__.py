"""Training on Lightning: `train` takes a resolved run from its dataset to ``model.pt``, and goes on where it was."""

from comics.training.fit import train

__all__ = ["train"]
