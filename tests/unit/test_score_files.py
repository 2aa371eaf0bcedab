"""Scores are believed only whole, and only as fractions."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comics.errors import UserError
from comics.score_files import MEASURED, read_score_file

HEADER = ",".join(("task", "class", *MEASURED))
LINES = [
    HEADER,
    *(
        f"{task},{name}," + ",".join("0.25" if metric != "AP_S" else "" for metric in MEASURED)
        for task in ("detection", "segmentation")
        for name in ("all", "Real", "Fake")
    ),
]
TEXT = "\n".join(LINES) + "\n"


def read(folder: Path, text: str | bytes) -> dict[tuple[str, str, str], float | None]:
    path = folder / "scores.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_score_file(path)


def test_fractions_and_empty_cells(tmp_path: Path) -> None:
    for text in (TEXT, TEXT.replace("\n", "\r\n")):
        scores = read(tmp_path, text)
        assert len(scores) == 6 * len(MEASURED)
        assert scores["segmentation", "Fake", "AP"] == 0.25
        assert scores["detection", "all", "AP_S"] is None


@pytest.mark.parametrize("cell", ["nan", "inf", "-inf", "98.8", "123", "-0.1", "1e9", "0.2.5", "x", "0x1", "0,25"])
def test_a_cell_that_is_no_fraction_is_refused_by_line(tmp_path: Path, cell: str) -> None:
    with pytest.raises(UserError, match=r"scores\.csv: line 4"):
        read(tmp_path, TEXT.replace("detection,Fake,0.25", f"detection,Fake,{cell}"))


@given(st.integers(0, len(TEXT) - 1))
def test_a_file_cut_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    with pytest.raises(UserError, match=r"scores\.csv"):
        read(tmp_path_factory.mktemp("cut", numbered=True), TEXT[:length])


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEADER + "\n",
        TEXT.replace(",AP50", ""),
        TEXT.replace("detection,Real", "detection,all"),
        TEXT.replace("detection,Real", "boxes,Real"),
        TEXT.replace("segmentation,Real", "segmentation,Unknown"),
        b"\x00\xff\xfe",
        b"\x00" * len(TEXT),
    ],
)
def test_what_is_no_scores_file_is_refused(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(UserError, match=r"scores\.csv"):
        read(tmp_path, text)
