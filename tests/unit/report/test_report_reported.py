"""The paper's numbers: complete, as printed, and what cannot be right in them."""

import pytest

from comics import reported
from comics.errors import UserError
from comics.params import load

from .conftest import REPOSITORY


def test_every_row_of_the_shipped_tables_is_a_row_of_the_paper():
    params = load(REPOSITORY / "params.yaml")
    for table in params.tables.values():
        assert {row.paper for row in table.rows if row.paper is not None} == set(reported.rows(table.paper))


def test_values_are_the_printed_ones():
    assert reported.printed("III", "test_challenge", "CenterMask", "detection", "AP") == "0.03"
    assert reported.printed("II", "test_dev", "SOLO", "detection", "AP") == ""
    assert reported.printed("IV", "test_dev", "none", "segmentation", "oLRP_FN") == "6.3"
    assert reported.printed("II", "test_challenge", "COMICS", "detection", "AP") == ""  # Table II is of test-dev alone
    assert reported.printed("II", "test_dev", "COMICS", "detection", "AP50") == ""  # not reported


def test_unknown_names_are_told_with_the_nearest():
    with pytest.raises(UserError, match="BlendMask"):
        reported.printed("II", "test_dev", "BlendMsk", "detection", "AP")
    with pytest.raises(UserError, match="no table"):
        reported.printed("X", "test_dev", "BlendMask", "detection", "AP")


def _implied_olrp(loc: float, fp: float, fn: float) -> float:
    """oLRP from its parts, in fractions: with one ground truth, TP = 1 - FN and FP = TP fp / (1 - fp)."""
    tp = 1 - fn
    false = tp * fp / (1 - fp)
    return (2 * loc * tp + false + fn) / (tp + false + fn)


def test_the_printed_parts_imply_the_printed_olrp_but_for_the_flagged_row():
    strange = []
    for table, split, row, task in reported._rows():
        values = [reported.printed(table, split, row, task, m) for m in ("oLRP", "oLRP_Loc", "oLRP_FP", "oLRP_FN")]
        if all(values):
            olrp, loc, fp, fn = (float(value) / 100 for value in values)
            if abs(_implied_olrp(loc, fp, fn) - olrp) > 0.02:
                strange.append((table, split, row, task))
    assert strange == [("IV", "test_challenge", "FEA+Bi-grained", "detection")]
    assert any("2.3" in slip.text for slip in reported.slips("IV", "test_challenge", "FEA+Bi-grained"))


def test_polarmask_and_yolact_are_flagged_because_they_are_equal():
    for table, split in (("II", "test_dev"), ("III", "test_challenge")):
        rows = [
            [
                reported.printed(table, split, row, task, m)
                for task in ("detection", "segmentation")
                for m in reported.METRICS
            ]
            for row in ("PolarMask", "YOACT++")
        ]
        assert rows[0] == rows[1]
        assert all(reported.slips(table, split, row) for row in ("PolarMask", "YOACT++"))


def test_slips_name_rows_and_values_that_exist():
    for slip in reported.SLIPS:
        assert slip.row in reported.rows(slip.table)
        assert set(slip.metrics) <= set(reported.METRICS)
        assert (slip.task is None) == (not slip.metrics)
