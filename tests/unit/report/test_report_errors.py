"""The errors figure, and the gallery of the worst."""

from __future__ import annotations

from typing import Any

import pytest

from comics.errors import UserError
from comics.evaluation.breakdowns import FACES_HEADER, GROUP_HEADER, SIZE_HEADER
from comics.evaluation.scores import write_table
from comics.params import Params
from comics.provenance import write_sidecar
from comics.report import breakdowns, errors, figures, page
from comics.report.results import NotMade, details_path, outdated_file, resolved_runs, scores_path
from comics.report.samples import comparison_samples

COSTS = {"Cls": 0.2, "Loc": 0.04, "Both": 0.01, "Dupe": 0.0, "Bkg": 0.08, "Miss": -0.001, "FP": 0.3, "FN": 0.1}


def details(project: Any, params: Params, run: str, factor: float = 1.0, digest: str = "") -> None:
    resolved = resolved_runs(params, run)[0]
    path = project.root / details_path(resolved, "test_dev", "errors")
    rows = [[task, kind, 3, factor * cost] for task in ("detection", "segmentation") for kind, cost in COSTS.items()]
    write_table(path, ["task", "error", "count", "AP50_lost"], rows)
    write_sidecar(path, {"digest": digest or resolved.digest})


def test_bars_are_as_long_as_what_errors_cost(project, tmp_path):
    params = project.params
    details(project, params, "blendmask")
    details(project, params, "comics", 0.5)
    with figures.canvas(6, 2, 8) as drawing:
        ax = drawing.subplots()
        errors._draw_bars(ax, [[20.0, 4.0, 1.0, 0.0, 8.0, -0.1], [10.0, 2.0, 0.5, 0.0, 4.0, 0.0]])
        widths = [[bar.get_width() for bar in bars] for bars in ax.containers]
        lefts = [[bar.get_x() for bar in bars] for bars in ax.containers]
    assert widths == [[20, 10], [4, 2], [1, 0.5], [0, 0], [8, 4], [0, 0]]
    assert [left[0] for left in lefts] == [0, 20, 24, 25, 25, 33]
    costs = errors.read_errors(resolved_runs(params, "comics")[0], "test_dev", project.root)
    assert costs["segmentation", "Cls"] == pytest.approx(0.1)
    paths = figures.draw(params, "figure_errors", tmp_path / "errors.pdf", project.root)
    assert [path.suffix for path in paths] == [".pdf", ".svg", ".png"]
    chart = next(one for one in page.gather(params, project.root).charts if one["name"] == "figure_errors")
    assert chart["image"].startswith("data:image/svg+xml;base64,")
    assert "TIDE" in chart["caption"]


def test_what_is_missing_or_stale_is_named(project, tmp_path):
    params = project.params
    with pytest.raises(NotMade, match=r"test_dev\.details/errors\.csv: no such result"):
        figures.draw(params, "figure_errors", tmp_path / "errors.pdf", project.root)
    details(project, params, "blendmask")
    details(project, params, "comics", digest="other")
    with pytest.raises(UserError, match="another version") as caught:
        figures.draw(params, "figure_errors", tmp_path / "errors.pdf", project.root)
    assert "--forcerun" in caught.value.remedy


def test_the_worst_are_those_with_most_errors(project):
    project.dataset()
    project.scores(["comics"])
    project.detections(["comics"])
    params = project.params
    (picked,) = comparison_samples(params, params.figures["figure_worst"], project.root).values()
    numbers = [sample.errors("comics") for sample in picked]
    assert len(numbers) == 8
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] > 0


def broken_down(project: Any, run: str, kinds: tuple[str, ...] = ("swap", "inner")) -> None:
    """Breakdowns of `run`: the AP of the n-th group is n tenths."""
    resolved = resolved_runs(project.params, run)[0]
    groups = {
        "by_size": (SIZE_HEADER, ("all", "small", "large")),
        "by_faces": (FACES_HEADER, ("1", "2")),
        "by_forgery": (GROUP_HEADER, kinds),
        "by_overlap": (GROUP_HEADER, ("0", ">0.1")),
    }
    for name, (header, of_name) in groups.items():
        column = breakdowns.BREAKDOWNS[name][0]
        values = [
            {"task": task, "class": cls, column: group, "AP": 0.1 * number, "face_ACC": 0.5 if cls == "all" else None}
            for task in ("detection", "segmentation")
            for cls in ("all", "Fake")
            for number, group in enumerate(of_name)
        ]
        path = project.root / details_path(resolved, "test_dev", name)
        write_table(path, header, [[row.get(key) for key in header] for row in values])
        write_sidecar(path, {"digest": resolved.digest})


def test_breakdowns_are_drawn_by_group_and_stand_in_the_page(project, tmp_path):
    figure = project.params.figures["figure_errors"]
    assert not any("groups" in one["name"] for one in page.gather(project.params, project.root).charts)
    broken_down(project, "blendmask")
    with pytest.raises(NotMade, match=r"comics.*by_size\.csv: no such result"):
        breakdowns.draw(project.params, figure, tmp_path / "groups.pdf", project.root)
    broken_down(project, "comics")
    run = resolved_runs(project.params, "comics")[0]
    read = breakdowns.read_breakdown(run, "test_dev", "segmentation", "by_size", project.root)
    assert list(read) == ["small", "large"]  # not all of them together
    assert read["large"] == pytest.approx({"AP": 0.2, "face_ACC": 0.5})
    with figures.canvas(6, 2, 8) as drawing:
        ax = drawing.subplots()
        breakdowns._bars(ax, ["small", "large", "huge"], [read, {}], "AP", ["a", "b"])
        heights = [[bar.get_height() for bar in bars] for bars in ax.containers]
    assert heights[0][:2] == pytest.approx([10, 20])
    assert all(height != height for height in [heights[0][2], *heights[1]])
    assert len(breakdowns.draw(project.params, figure, tmp_path / "groups.pdf", project.root)) == 3
    (chart,) = (
        one for one in page.gather(project.params, project.root).charts if one["name"] == "figure_errors_groups"
    )
    assert chart["image"].startswith("data:image/svg+xml")
    assert "BlendMask and COMICS" in chart["caption"]


def test_without_kinds_of_forgery_there_is_no_panel_of_them(project, tmp_path, monkeypatch):
    for run in ("blendmask", "comics"):
        broken_down(project, run, kinds=())
    seen = []
    monkeypatch.setattr(breakdowns, "_bars", lambda ax, groups, *rest: seen.append(tuple(groups)))
    breakdowns.draw(project.params, project.params.figures["figure_errors"], tmp_path / "groups.pdf", project.root)
    assert set(seen) == {("small", "large"), ("1", "2"), ("0", ">0.1")}


def test_detections_of_another_version_are_made_anew_for_a_breakdown(project):
    (run,) = resolved_runs(project.params, "blendmask")
    errors_path, across = details_path(run, "test_dev", "errors"), scores_path(run, "test_dev", "crowd")
    broken_down(project, "blendmask")
    for folder in (run.folder, across.parent):
        write_table(project.root / folder / "test_dev.detections.json", ["[]"], [])
        write_sidecar(project.root / folder / "test_dev.detections.json", {"digest": "another"})
    assert outdated_file(errors_path, run, project.root) == run.folder / "test_dev.detections.json"
    assert outdated_file(across, run, project.root) == across.parent / "test_dev.detections.json"
