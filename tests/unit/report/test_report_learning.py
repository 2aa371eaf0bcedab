"""Learning curves: read from a log, drawn as a figure, shown in the page."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from comics.errors import UserError
from comics.files import read_json, write_json
from comics.report import canvas, figures, learning, page
from comics.report.results import NotMade, resolved_runs


@pytest.fixture
def trained(project: Any) -> Any:
    """BlendMask and COMICS with logs, COMICS with a term and a validation of its own."""
    project.logs(["blendmask", "comics"])
    for run in ("blendmask", "comics"):
        folder = project.root / resolved_runs(project.params, run)[0].folder
        (folder / "model.pt").write_bytes(b"weights")
        if run == "comics":
            log = folder / "logs/metrics.csv"
            header, *lines = log.read_text().splitlines()
            lines = [f"{line},," for line in lines] + ["100,1,,,,0.5,", "100,1,,,,,0.25", "200,3,,,,,0.75"]
            log.write_text("\n".join([f"{header},train/loss_coarse,val/segmentation_AP", *lines]) + "\n")
    return project


def test_a_log_gives_terms_by_their_names_thinned_by_averaging(tmp_path):
    path = tmp_path / "metrics.csv"
    lines = [f"{step},{step / 10},," for step in range(1000)] + ["999,,0.5,nan"]
    path.write_text("\n".join(["step,train/loss,val/detection_AP,train/box", *lines]) + "\n")
    curves = learning.read_curves(path)
    assert set(curves) == {"loss", "val/detection_AP"}
    assert len(curves["loss"]) == 200
    assert curves["loss"][0] == (4, pytest.approx(0.2))
    assert curves["val/detection_AP"] == [(999, 0.5)]
    assert learning.read_curves(tmp_path / "none.csv") == {}


def test_the_figure_has_a_panel_a_term_and_a_line_a_run(trained, tmp_path, monkeypatch):
    panels = []
    monkeypatch.setattr(
        learning,
        "save",
        lambda drawing, *rest: (
            panels.extend(ax for ax in drawing.axes if ax.get_visible()) or canvas.save(drawing, *rest)
        ),
    )
    paths = figures.draw(trained.params, "figure_curves", tmp_path / "curves.pdf", trained.root)
    assert [path.suffix for path in paths] == [".pdf", ".svg", ".png"]
    lines = {ax.get_title(): [line.get_xydata().tolist() for line in ax.lines] for ax in panels}
    assert list(lines) == ["loss", "box", "loss coarse", "AP of masks, val"]  # what nobody logged is left out
    assert [len(line) for line in lines["loss"]] == [20, 20]
    assert lines["loss coarse"] == [[], [[100, 0.5]]]
    assert lines["AP of masks, val"] == [[], [[100, 0.25], [200, 0.75]]]
    chart = next(one for one in page.gather(trained.params, trained.root).charts if one["name"] == "figure_curves")
    assert chart["image"].startswith("data:image/svg+xml;base64,")
    assert learning.CURVES_RULE in chart["caption"]


def test_the_page_shows_validation_among_the_curves(trained):
    curves = page.gather(trained.params, trained.root).data["curves"]
    assert curves["comics seed 0"]["val/segmentation_AP"] == [(100, 0.25), (200, 0.75)]


def test_what_is_not_trained_or_of_another_version_is_named(trained, tmp_path):
    params = trained.params
    comics = trained.root / resolved_runs(params, "comics")[0].folder
    output = tmp_path / "curves.pdf"
    described = read_json(comics / "run.json")
    write_json(comics / "run.json", {**described, "checkpoint_digest": "other"})
    with pytest.raises(UserError, match=r"comics/seed0/model\.pt: out of date") as caught:
        figures.draw(params, "figure_curves", output, trained.root)
    assert "--forcerun" in caught.value.remedy
    write_json(comics / "run.json", described)
    shutil.rmtree(comics / "logs")
    with pytest.raises(NotMade, match=r"metrics\.csv: no such log"):
        figures.draw(params, "figure_curves", output, trained.root)
    (comics / "run.json").unlink()
    with pytest.raises(NotMade, match="not trained"):
        figures.draw(params, "figure_curves", output, trained.root)
    assert not output.exists()


def test_terms_that_nobody_logged_are_an_error_that_names_those_there_are(trained, tmp_path):
    trained.edit("    kind: curves\n", "    kind: curves\n    terms: [los]\n")
    with pytest.raises(UserError, match="none of los was logged") as caught:
        figures.draw(trained.params, "figure_curves", tmp_path / "curves.pdf", trained.root)
    assert "loss, lr, box, loss_coarse, val/segmentation_AP" in caught.value.remedy
