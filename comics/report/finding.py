"""What was found, in three sentences with the numbers, for those who have never heard of average precision."""

from __future__ import annotations

from pathlib import Path

from comics import reported
from comics.errors import UserError
from comics.params import Params
from comics.report import study
from comics.report.results import Measured, is_current, read_run
from comics.report.style import SPLIT_NAMES, plain

OURS, BASELINE = "comics", "blendmask"
"""The runs that the paper is about: its method, and the detector that it adds to."""
TASK, SPLITS = "segmentation", ("test_challenge", "test_dev")
"""What is told of: outlines, on the harder test set where there are results of it."""


def sentences(params: Params, root: Path = Path()) -> list[str]:
    """Three sentences: what was asked and answered, how faces are judged, how sure that is and what the paper says.

    Where nothing is measured they say so, and how to change that.
    """
    if not {OURS, BASELINE} <= set(params.runs):
        return []
    what = "COMICS looks for every face in a picture, says whether it is real or forged, and outlines it"
    for split in SPLITS:
        if all(is_current(params, run, split, root) for run in (OURS, BASELINE)):
            ours, base = (read_run(params, run, split, root) for run in (OURS, BASELINE))
            if _points(ours, "AP") is not None and _points(base, "AP") is not None:
                return [
                    _precision(params, what, split, ours, base),
                    _judged(params, ours, base),
                    _sure(params, split, ours, root),
                ]
    return [
        f"{what}; whether that works better than without its additions is not measured yet on {params.dataset}.",
        f"What stands below is {'what' if params.tables else 'nothing, but for what'} the paper reports, of another dataset, "
        f"{reported.DATASET}.",
        "`make demo` trains and tests it in about ten minutes on a laptop.",
    ]


def _points(measured: Measured, metric: str) -> float | None:
    """Mean over seeds in percent."""
    mean = measured.score(TASK, metric).mean
    return None if mean is None else 100 * mean


def _name(params: Params, run: str) -> str:
    return plain(params.resolve(run).params.title or run)


def _precision(params: Params, what: str, split: str, ours: Measured, base: Measured) -> str:
    where = f"the {SPLIT_NAMES[split].lower()} of {params.dataset}"
    return (
        f"{what}: on {where} it reaches {_points(ours, 'AP'):.1f} of 100 points of average precision, which are all had when every "
        f"face is found, judged rightly and outlined exactly, and {_name(params, BASELINE)}, the detector that it adds to, "
        f"{_points(base, 'AP'):.1f}."
    )


def _judged(params: Params, ours: Measured, base: Measured) -> str:
    right, before = _points(ours, "face_ACC"), _points(base, "face_ACC")
    if right is None or before is None:
        return "How many faces are judged rightly is not measured."
    return (
        f"Of 100 faces it finds and judges {right:.0f} rightly as real or forged, where {_name(params, BASELINE)} does "
        f"{before:.0f} and a coin that sees every face 50."
    )


def _sure(params: Params, split: str, ours: Measured, root: Path) -> str:
    table = "III" if split == "test_challenge" else "II"
    paper = [reported.printed(table, split, row, TASK, "AP") for row in ("COMICS", "BlendMask")]
    says = f"the paper reports {paper[0]} against {paper[1]} on {reported.DATASET}, whose pictures are photographs"
    effect = _effect(params, root)
    if effect is not None:
        difference, low, high, seeds = effect
        verdict = "more than chance explains" if low > 0 or high < 0 else "which chance may explain"
        by, least, most = (f"{value:+.1f}".replace("-", "−") for value in (difference, low, high))
        tried = f"Trained {seeds} times each, they differ by {by} points (95 % interval {least} to {most}), {verdict}"
    elif len(ours.seeds) == 1:
        tried = "Each was trained once, so chance may have its part (`snakemake claim` repeats it)"
    else:
        tried = f"These are means of {len(ours.seeds)} trainings"
    return f"{tried}; {says}."


def _effect(params: Params, root: Path) -> tuple[float, float, float, int] | None:
    """Difference in AP with its interval, and seeds, from a study of the same two things, if one was made."""
    for name, entry in params.studies.items():
        if entry.dataset != params.dataset or entry.rows[-1].label != "COMICS" or entry.rows[0].label != "BlendMask":
            continue
        try:
            effects = study.read_effects(params, name, root)
        except UserError:
            continue
        for one in effects:
            if (one.run, one.task, one.metric) == (entry.rows[-1].run, TASK, "AP") and one.low is not None:
                assert one.difference is not None
                assert one.high is not None
                return one.difference, one.low, one.high, len(params.seeds(entry.rows[-1].run))
    return None
