"""Scatters: what is drawn, labels without overlap, equal bytes."""

import random

import numpy as np
import pytest

from comics.errors import UserError
from comics.report import canvas, figures
from comics.report.labels import Box, anchor, centred, place

from .conftest import REPOSITORY


def overlapping(boxes):
    return [(i, j) for i, one in enumerate(boxes) for j, other in enumerate(boxes[:i]) if one.overlaps(other)]


@pytest.mark.parametrize("seed", range(4))
def test_labels_overlap_neither_each_other_nor_markers_and_stay_inside(seed):
    rng = random.Random(seed)
    frame = Box(0, 0, 250, 200)
    points = [(rng.gauss(125, 15), rng.gauss(100, 12)) for _ in range(13)]
    points[1] = points[0]  # two systems at the same place
    markers = [centred(point, 6, 6) for point in points]
    boxes = place(markers, [(45.0, 8.0)] * 13, frame)
    assert overlapping(boxes) == []
    assert all(box.inside(frame) for box in boxes)
    assert not any(box.overlaps(marker) for box in boxes for marker in markers)


def test_a_lone_label_is_right_beside_its_point():
    (box,) = place([centred((50, 50), 6, 6)], [(20, 8)], Box(0, 0, 100, 100))
    assert 50 < box.left < 56
    assert box.centre()[1] == pytest.approx(50)


def test_a_label_rather_leaves_other_lines_alone():
    (box,) = place([centred((50, 50), 6, 6)], [(20, 8)], Box(0, 0, 100, 100), [((50, 50), (90, 50))])
    assert not (box.bottom < 50 < box.top and box.right > 50)


def test_no_point_no_label():
    assert place([], [], Box(0, 0, 10, 10)) == []


def test_a_full_frame_still_gives_every_label_a_place():
    markers = [centred((5, 5), 6, 6), centred((6, 5), 6, 6)]
    assert len(place(markers, [(20, 8), (20, 8)], Box(0, 0, 10, 10))) == 2


def test_labels_rather_cover_markers_than_each_other():
    frame = Box(0, 0, 60, 30)
    boxes = place([centred((20, 15), 20, 24), centred((42, 15), 20, 24)], [(28, 10), (28, 10)], frame)
    assert overlapping(boxes) == []
    assert all(box.inside(frame) for box in boxes)


def test_points_are_measured_filled_and_reported_hollow(project):
    project.scores(["blendmask", "comics"], AP=0.4, oLRP=0.6)
    figure = project.params.figures["figure_9"]
    points = figures.scatter_points(project.params, figure, "detection", project.root)
    measured = [point for point in points if point.measured]
    assert [(point.label, point.x, point.y) for point in measured] == [("BlendMask", 60, 40), ("COMICS", 60, 40)]
    assert len([point for point in points if not point.measured]) == 11  # two of the paper's thirteen have no boxes
    assert [point.label for point in points if point.highlighted] == ["COMICS", "COMICS"]


@pytest.mark.parametrize("name", ["figure_9", "figure_10"])
def test_labels_of_the_papers_scatters_overlap_neither_each_other_nor_leader_lines(project, name, monkeypatch):
    project.scores(["blendmask", "comics"])
    placed, pierced = [], []

    def spy(markers, *arguments):
        placed.append(boxes := place(markers, *arguments))
        for index, (marker, box) in enumerate(zip(markers, boxes, strict=True)):
            point = marker.centre()
            line = np.linspace(point, anchor(box, point), 200)
            for other in [*boxes[:index], *boxes[index + 1 :]]:
                inside = (line > (other.left, other.bottom)) & (line < (other.right, other.top))
                pierced.append(inside.all(axis=1).any())
        return boxes

    monkeypatch.setattr(canvas, "place", spy)
    figures.draw(project.params, name, project.root / "figure.pdf", project.root)
    assert [len(boxes) for boxes in placed] == [13, 15]
    assert all(overlapping(boxes) == [] for boxes in placed)
    assert sum(pierced) == 0


def test_equal_results_give_equal_bytes_and_another_colour_others(project):
    project.scores(["blendmask", "comics"])
    digest = project.params.resolve("comics", 0).digest.encode()
    written = figures.draw(project.params, "figure_9", project.root / "a.pdf", project.root)
    again = figures.draw(project.params, "figure_9", project.root / "b.pdf", project.root)
    assert [path.suffix for path in written] == [".pdf", ".svg", ".png"]
    for one, other in zip(written, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert digest in written[1].read_bytes()
    assert digest in written[2].read_bytes()
    project.edit(
        "    split: test_dev\n    table: table_ii\n",
        '    split: test_dev\n    table: table_ii\n    style: {reported: "#112233", width: 5}\n',
    )
    styled = figures.draw(project.params, "figure_9", project.root / "c.pdf", project.root)
    assert b"#112233" in styled[1].read_bytes()
    assert b"#112233" not in written[1].read_bytes()


def test_wrong_names_are_told(project):
    with pytest.raises(UserError, match="no figure 'figure_99'"):
        figures.draw(project.params, "figure_99", project.root / "a.pdf", project.root)
    with pytest.raises(UserError, match=r"\.pdf"):
        figures.draw(project.params, "figure_9", project.root / "a.png", project.root)
    project.edit("table: table_iii", "table: table_iiii")
    with pytest.raises(UserError, match=r"figures\.figure_10\.table.*table_iiii"):
        _ = project.params


def test_a_misspelt_kind_is_told_with_the_nearest(project):
    project.edit("figure_11:\n    kind: comparison", "figure_11:\n    kind: comparisn")
    with pytest.raises(UserError, match=r"figures\.figure_11\.kind: 'comparisn'") as caught:
        _ = project.params
    assert "comparison" in caught.value.remedy


def test_the_shipped_figures_are_the_papers():
    from comics.params import load

    assert {"figure_8", "figure_9", "figure_10", "figure_11"} <= set(load(REPOSITORY / "params.yaml").figures)
