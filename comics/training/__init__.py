"""Training on Lightning: `comics.training.fit.train` takes a resolved run from its dataset to ``model.pt``.

Nothing is imported here, so that `comics.training.hardware` stays quick to ask.
"""
