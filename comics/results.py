"""All scores as one tidy table: `load` gives a pandas data frame, a row a number.

Tables, figures and the page read the same files by the same functions (`comics.report.results`), each file once a process.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comics.errors import UserError
from comics.params import SPLITS, Params
from comics.params import load as load_params
from comics.report.results import read_scores, resolved_runs, scores_path, state

if TYPE_CHECKING:
    import pandas

COLUMNS = ("dataset", "run", "seed", "test", "split", "task", "class", "metric", "value", "digest", "state")
"""``dataset`` is what a run was trained on, ``test`` what it was tested on: the same, or one of its `tests`. ``value`` is a
fraction, and empty (NaN) where a metric is undefined; ``state`` is `current` or `stale`."""


def load(params: Params | str | Path | None = None, root: str | Path = ".") -> pandas.DataFrame:
    """The scores of every run of params.yaml that has some.

    Args:
        params: what there is; by default the params.yaml of the folder `root`.
        root: the project's folder, which holds ``results/``.

    Returns:
        A data frame with `COLUMNS`, sorted as the file has its runs. Runs that come out the same share their results: each has
        rows of its own. Scores of a run that has since changed are there, with ``state`` `stale`; damaged files are refused.

    Raises:
        UserError: params.yaml or a file of scores is not what it should be.

    Example:
        The mean over seeds of the current box AP, by run and split::

            scores = comics.results.load()
            scores = scores[(scores.metric == "AP") & (scores.task == "detection") & (scores["class"] == "all")]
            scores[scores.state == "current"].pivot_table(index="run", columns="split", values="value")
    """
    import pandas

    root = Path(root)
    if not isinstance(params, Params):
        params = load_params(params if params is not None or root == Path() else root / "params.yaml")
    frame = pandas.DataFrame(_lines(params, root), columns=list(COLUMNS))
    return frame.astype({"seed": "int64", "value": "float64"})


def _lines(params: Params, root: Path) -> Iterator[tuple[Any, ...]]:
    for name in params.runs:
        for run in resolved_runs(params, name):
            tested = [run.dataset_name, *(one for one in run.params.tests if one != run.dataset_name)]
            for test, split in itertools.product(tested, SPLITS):
                path = scores_path(run, split, test)
                found = state(path, run.digest, root)
                if found == "missing":
                    continue
                if found == "damaged":
                    raise UserError(
                        f"{path}: its bytes have changed since it was written, its SHA-256 is another.",
                        f"Make it anew: snakemake --forcerun {path}",
                    )
                for (task, kind, metric), value in read_scores(root / path).items():
                    yield run.dataset_name, name, run.seed, test, split, task, kind, metric, value, run.digest, found
