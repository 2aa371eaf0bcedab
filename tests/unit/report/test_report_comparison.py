"""The step behind the marks of rows that are not significantly different from the best."""

import pytest

from comics.errors import UserError
from comics.report import comparison, tables
from comics.report.results import read_run

from .conftest import TABLE_IV


def test_the_best_of_each_column_is_compared_with_every_other_and_marks_follow(project):
    project.scores(TABLE_IV)
    project.dataset(2)
    project.detections(TABLE_IV)
    params, asked = project.params, []

    def paired_tests(truth, tasks, metrics):
        def p_values(one, two, task):
            asked.append((truth.parent.name, one.parts[-3], two.parts[-3], task))
            close = {"da", "fea"} & {one.parts[-3], two.parts[-3]}
            return {"AP": 0.3 if close else 0.001, "oLRP": 0.05}

        return p_values

    path = project.root / tables.comparison_path(params, "table_iv")
    assert comparison.write_comparison(params, "table_iv", path, paired_tests, project.root) == 2 * 2 * 2 * 7
    assert len(asked) == len(set(asked))  # a pair is compared once, for both metrics
    table = tables.build(params, "table_iv", project.root)
    for split, lines in table.blocks.items():
        for task in ("detection", "segmentation"):
            scores = {run: read_run(params, run, split).score(task, "AP").mean for run in TABLE_IV}
            best = max(scores, key=scores.get)
            expected = set(TABLE_IV) - {best} if best in ("da", "fea") else {"da", "fea"}
            marked = {line.run for line in lines if line.cell(task, "AP").similar}
            assert marked == expected
            shown_best = {line.run for line in lines if line.cell(task, "oLRP").rank == 1}
            assert {line.run for line in lines if line.cell(task, "oLRP").similar} == set(TABLE_IV) - shown_best
            assert not any(line.cell(task, "AP_S").similar for line in lines)


def test_p_values_of_a_column_are_corrected_for_their_number():
    """Holm's own procedure: the smallest of m times m, the next times m - 1, never less than one before it."""
    assert comparison.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert comparison.holm([0.5, 0.9]) == [1.0, 1.0]
    assert comparison.holm([]) == []
    with_undefined = comparison.holm([0.02, float("nan"), 0.03])
    assert with_undefined[0] == with_undefined[2] == pytest.approx(0.04)
    assert with_undefined[1] != with_undefined[1]


def test_detections_must_be_there_and_of_the_run(project):
    project.scores(TABLE_IV)
    project.dataset(2)
    project.detections([run for run in TABLE_IV if run != "comics"])
    with pytest.raises(UserError, match=r"comics/seed0/test_dev\.detections\.json"):
        comparison.compare_table(project.params, "table_iv", lambda *_: {"AP": 1.0, "oLRP": 1.0}, project.root)


def test_a_table_with_one_measured_run_has_nothing_to_compare(project):
    project.scores(["comics"])
    content = comparison.compare_table(project.params, "table_ii", lambda *_: pytest.fail("asked"), project.root)
    assert content["comparisons"] == content["similar"] == []
