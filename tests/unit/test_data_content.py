"""The digest of what a split is, byte for byte."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from comics.data.canonical import content
from comics.data.canonical.content import CACHE_NAME, content_of
from comics.errors import UserError


@pytest.fixture
def split(tmp_path: Path) -> Path:
    for name in "abc":
        (tmp_path / f"{name}.jpg").write_bytes(name.encode() * 100)
    annotations = tmp_path / "annotations.json"
    annotations.write_text(json.dumps({"images": [{"file_name": f"{name}.jpg"} for name in "abc"], "annotations": []}))
    age(*tmp_path.iterdir())
    return annotations


def age(*paths: Path) -> None:
    """Time stamps of change cannot be set: let all be settled at once."""
    for path in paths:
        os.utime(path, ns=(10**18, 10**18))


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "_SETTLED", -(10**12))


def test_equal_bytes_give_equal_digests_and_one_other_byte_another(split: Path) -> None:
    before = content_of(split)
    assert content_of(split) == before
    image = split.parent / "b.jpg"
    image.write_bytes(b"b" * 50 + b"B" + b"b" * 49)  # of the same size
    age(image)
    after = content_of(split)
    assert after.annotations == before.annotations
    assert after.images != before.images
    image.write_bytes(b"b" * 100)
    assert content_of(split) == before
    split.write_text(split.read_text() + "\n")
    assert content_of(split).annotations != before.annotations


def test_a_second_call_reads_nothing_but_the_cache(split: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = content._hash
    monkeypatch.setattr(content, "_hash", lambda path: (read.append(path.name), real(path))[1])
    before = content_of(split)
    assert sorted(read) == ["a.jpg", "annotations.json", "b.jpg", "c.jpg"]
    read.clear()
    assert content_of(split) == before
    assert read == []
    (split.parent / CACHE_NAME).write_text("{")  # damaged: made again
    assert content_of(split) == before
    assert len(read) == 4


def test_files_that_may_still_change_within_a_tick_are_not_remembered(
    split: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "_SETTLED", 10**19)
    content_of(split)
    assert not (split.parent / CACHE_NAME).exists()


def test_a_missing_image_is_named(split: Path) -> None:
    (split.parent / "c.jpg").unlink()
    with pytest.raises(UserError, match=r"c\.jpg: cannot be read"):
        content_of(split)
