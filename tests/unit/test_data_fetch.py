"""What a record's answer may say, and which of its files a split needs. The downloads are in tests/end_to_end."""

from __future__ import annotations

import copy

import pytest

from comics.data.openforensics.dataset import select
from comics.data.openforensics.fetch import Downloads, RemoteFile, parse_record, show_size
from comics.errors import UserError

ANSWER = {
    "files": [
        {
            "key": "Val.zip",
            "size": 5,
            "checksum": "md5:0123456789ABCDEF0123456789abcdef",
            "links": {"self": "https://zenodo.org/api/records/1/files/Val.zip/content"},
        }
    ]
}


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://zenodo.org", "https://zenodo.org/api/records/1/files/Val.zip/content"),
        ("https://zenodo.org/", "https://zenodo.org/api/records/1/files/Val.zip/content"),
        ("http://mirror:81", "http://mirror:81/api/records/1/files/Val.zip/content"),
        ("http://mirror/zenodo/", "http://mirror/zenodo/api/records/1/files/Val.zip/content"),
    ],
)
def test_addresses_move_to_the_mirror(base: str, url: str) -> None:
    assert parse_record(ANSWER, base, "x") == [RemoteFile("Val.zip", url, 5, "0123456789abcdef" * 2)]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("key", "../../evil.zip", r"files\[0\]\.key"),
        ("key", "a/b.zip", r"files\[0\]\.key"),
        ("key", ".hidden", r"files\[0\]\.key"),
        ("key", None, r"files\[0\]\.key"),
        ("size", -1, r"files\[0\]\.size"),
        ("size", "5", r"files\[0\]\.size"),
        ("checksum", "sha256:abc", r"files\[0\]\.checksum"),
        ("links", {}, r"files\[0\]\.links\.self"),
    ],
)
def test_malformed_answers_are_named(field: str, value: object, message: str) -> None:
    answer = copy.deepcopy(ANSWER)
    answer["files"][0][field] = value
    with pytest.raises(UserError, match=message):
        parse_record(answer, "https://zenodo.org", "record 1")


@pytest.mark.parametrize("answer", [None, [], {}, {"files": []}, {"files": 3}, {"files": [3]}])
def test_answers_without_files(answer: object) -> None:
    with pytest.raises(UserError, match=r"record 1: files"):
        parse_record(answer, "https://zenodo.org", "record 1")


def test_select() -> None:
    names = ["Train_poly.json", *(f"Train_part_{i}.zip" for i in (10, 2, 1, *range(3, 10))), "readme.txt", "Val.zip"]
    chosen = select(names, "train", "x")
    assert chosen.archives == tuple(f"Train_part_{i}.zip" for i in range(1, 11))
    assert select(["Test-Dev_poly.json", "Test-Dev.zip"], "test_dev", "x").archives == ("Test-Dev.zip",)
    with pytest.raises(UserError, match=r"x: Val_poly\.json is missing"):
        select(names, "val", "x")
    with pytest.raises(UserError, match=r"no archive of Val"):
        select(["Val_poly.json", "Val_old.zip"], "val", "x")
    with pytest.raises(UserError, match=r"part 4 of Train is missing, though Train_part_10\.zip is there"):
        select([name for name in names if "_4." not in name], "train", "x")


def test_a_file_is_hashed_once_and_again_when_it_changes(tmp_path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"hello")
    file = RemoteFile("a", "", 5, "5d41402abc4b2a76b9719d911017c592")
    hashed = []

    def progress(task: str, done: int, total: int) -> None:
        hashed.append(done)

    assert Downloads(tmp_path).is_right(file, progress)
    assert Downloads(tmp_path).is_right(file, progress)
    assert hashed == [5]
    path.write_bytes(b"hallo")
    assert not Downloads(tmp_path).is_right(file, progress)
    path.write_bytes(b"hell")
    assert not Downloads(tmp_path).is_right(file, progress)
    path.unlink()
    assert not Downloads(tmp_path).is_right(file, progress)


def test_show_size() -> None:
    assert [show_size(size) for size in (0, 999, 1500, 2.5e9, 7e15)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "2.5 GB",
        "7000.0 TB",
    ]
