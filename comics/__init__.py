"""COMICS: contrastive multi-face forgery detection - models, experiments and reports.

The rooms: ``comics.data`` (datasets), ``comics.detectors`` (instance segmenters), ``comics.contrast`` and
``comics.attention`` (the paper's additions), ``comics.model`` (where the two meet), ``comics.training``,
``comics.evaluation`` and ``comics.report``. ``docs/`` explains each.
"""

__version__ = "0.1.0"
