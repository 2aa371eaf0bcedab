"""All breakdowns and curves of a result, as CSV files and a figure in one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from comics.evaluation import breakdowns
from comics.evaluation.coco import Task
from comics.evaluation.inputs import Detections, GroundTruth
from comics.evaluation.judging import face_verdicts
from comics.evaluation.matching import Matched
from comics.evaluation.scores import Scores, score, write_table


def write_details(folder: Path, truth: GroundTruth, found: Detections, matched: Mapping[Task, Matched]) -> list[Path]:
    """Write every breakdown below `folder`; return the paths.

    Args:
        folder: made if need be.
        truth, found: the inputs.
        matched: detailed matches of each task.
    """
    scores = score(truth, matched)
    tables: dict[str, tuple[Sequence[str], list[list[Any]]]] = {
        "by_size": (breakdowns.SIZE_HEADER, []),
        "by_faces": (breakdowns.FACES_HEADER, []),
        "by_forgery": (breakdowns.GROUP_HEADER, []),
        "by_overlap": (breakdowns.GROUP_HEADER, []),
        "precision_recall": (breakdowns.PRECISION_HEADER, []),
        "lrp": (breakdowns.LRP_HEADER, []),
        "confusion": (breakdowns.CONFUSION_HEADER, []),
        "errors": (breakdowns.ERROR_HEADER, []),
    }
    for task, of_task in matched.items():
        thresholds = {name: scores[task, name, "oLRP_threshold"] for name in truth.categories.values()}
        p_fake = face_verdicts(truth, found, task)
        for name, rows in {
            "by_size": breakdowns.by_size(truth, task, of_task, p_fake),
            "by_faces": breakdowns.by_faces(truth, task, of_task, p_fake),
            "by_forgery": breakdowns.by_forgery(truth, task, of_task, p_fake),
            "by_overlap": breakdowns.by_overlap(truth, task, of_task, p_fake),
            "precision_recall": breakdowns.precision_curves(truth, task, of_task),
            "lrp": breakdowns.lrp_curves(truth, task, of_task),
            "confusion": breakdowns.confusion(truth, found, task, thresholds),
            "errors": breakdowns.errors(truth, found, task),
        }.items():
            tables[name][1].extend(rows)
    paths = []
    for name, (header, rows) in tables.items():
        paths.append(folder / f"{name}.csv")
        write_table(paths[-1], header, rows)
    return [*paths, *draw_curves(folder / "curves.pdf", tables["precision_recall"][1], tables["lrp"][1], scores)]


def draw_curves(output: Path, precision: list[list[Any]], lrp: list[list[Any]], scores: Scores) -> list[Path]:
    """Draw precision over recall and LRP over the score threshold, a row each task; return the paths of the formats.

    Args:
        output: ends in .pdf; the other formats go beside it.
        precision: rows of `breakdowns.precision_curves`.
        lrp: rows of `breakdowns.lrp_curves`.
        scores: whose optima are marked.
    """
    from comics.report.canvas import canvas, save

    tasks = list(dict.fromkeys(row[0] for row in precision))
    with canvas(7.0, 2.6 * max(len(tasks), 1), font_size=8) as figure:
        axes = figure.subplots(max(len(tasks), 1), 2, squeeze=False)
        for (left, right), task in zip(axes, tasks, strict=False):
            left.set(title=task.capitalize(), xlabel="Recall", ylabel="Precision", xlim=(0, 1), ylim=(0, 1.02))
            right.set(title=task.capitalize(), xlabel="Score threshold", ylabel="LRP", ylim=(0, 1.02))
            for index, cls in enumerate(dict.fromkeys(row[1] for row in precision if row[0] == task)):
                colour = f"C{index}"
                points = [row[2:] for row in precision if row[:2] == [task, cls]]
                left.plot([p[0] for p in points], [p[1] for p in points], colour, label=f"{cls}, IoU 0.5")
                left.plot([p[0] for p in points], [p[3] for p in points], colour, ls="--", label=f"{cls}, mean")
                errors = [row[2:] for row in lrp if row[:2] == [task, cls]]
                right.plot([e[0] for e in errors], [e[1] for e in errors], colour, label=cls)
                right.plot(scores[task, cls, "oLRP_threshold"], scores[task, cls, "oLRP"], "o", color=colour)
            left.legend()
            right.legend()
        return save(figure, output, "Precision-recall and LRP curves", {})
