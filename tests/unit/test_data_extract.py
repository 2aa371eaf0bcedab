"""Extraction of image archives: evil, damaged and interrupted ones."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from comics.data.openforensics import extract
from comics.data.openforensics.extract import Bounds, extract_split, is_extracted, plan
from comics.errors import UserError

CONTENT = bytes(range(256)) * 40


def make_zip(path: Path, entries: dict[str, bytes], **attributes: int) -> Path:
    """A zip whose entries have exactly these names, whatever zipfile would make of them."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo("x")
            info.filename = name
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = attributes.get("external_attr", 0)
            archive.writestr(info, content)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return tmp_path / "raw/Images"


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd.jpg",
        "../evil.jpg",
        "Val/../../evil.jpg",
        "Val\\..\\..\\evil.jpg",
        "C:/evil.jpg",
        "C:evil.jpg",
        "Val/a\x00b.jpg",
        "Val/a\nb.jpg",
        "Val/\u202egpj.exe.jpg",
        f"Val/{'x' * 300}.jpg",
        "..",
    ],
)
def test_evil_names(name: str, tmp_path: Path, images: Path) -> None:
    """Nothing is written, not even the good entry before the evil one."""
    archive = make_zip(tmp_path / "Val.zip", {"Val/a.jpg": CONTENT, name: CONTENT})
    with pytest.raises(UserError, match=r"Val\.zip: '.*refused") as error:
        extract_split([archive], images, "Val")
    assert "\n" not in error.value.message
    assert everything(tmp_path) == ["Val.zip"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_special_files(kind: int, tmp_path: Path, images: Path) -> None:
    archive = make_zip(tmp_path / "Val.zip", {"Val/a.jpg": b"/etc/passwd"}, external_attr=(kind | 0o777) << 16)
    with pytest.raises(UserError, match="is a link or another special file"):
        extract_split([archive], images, "Val")
    assert everything(tmp_path) == ["Val.zip"]


def test_bombs(tmp_path: Path) -> None:
    bomb = make_zip(tmp_path / "bomb.zip", {"a.jpg": b"\0" * 5_000_000})
    with pytest.raises(UserError, match=r"bomb\.zip: 'a\.jpg' unpacks to more than 50 times its size"):
        plan(bomb, "Val")
    many = make_zip(tmp_path / "many.zip", {f"{i}.jpg": CONTENT for i in range(9)})
    with pytest.raises(UserError, match=r"takes the archive beyond 50\.0 kB"):
        plan(many, "Val", Bounds(total=50_000))
    with pytest.raises(UserError, match=r"more than one image may have"):
        plan(many, "Val", Bounds(single=1000))
    with pytest.raises(UserError, match=r"9 entries, more than 5"):
        plan(many, "Val", Bounds(entries=5))


def test_size_that_lies(tmp_path: Path, images: Path) -> None:
    """A directory that announces fewer bytes than the entry has does not get more written."""
    archive = make_zip(tmp_path / "Val.zip", {"Val/a.jpg": CONTENT})
    data = bytearray(archive.read_bytes())
    directory = data.rfind(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = struct.pack("<I", 100)
    archive.write_bytes(data)
    with pytest.raises(UserError, match=r"'Val/a\.jpg' is damaged"):
        extract_split([archive], images, "Val")
    assert not (images / "Val").exists()
    assert [name for name in everything(images) if name.endswith(".jpg")] == []


def test_overlapping_entries(tmp_path: Path) -> None:
    """Many directory entries that point at the same compressed bytes."""
    archive = make_zip(tmp_path / "Val.zip", {"Val/a.jpg": os.urandom(20_000), "Val/b.jpg": os.urandom(20_000)})
    data = bytearray(archive.read_bytes())
    first = data.find(b"PK\x01\x02")
    second = data.find(b"PK\x01\x02", first + 4)
    for offset in (20, 24):  # announced sizes, grown to twice the archive
        data[second + offset : second + offset + 4] = struct.pack("<I", 45_000)
    archive.write_bytes(data)
    with pytest.raises(UserError, match="its entries overlap"):
        plan(archive, "Val")


def test_same_name_twice(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "Val.zip", {"Val/a.jpg": CONTENT, "Images/Val/A.JPG": CONTENT})
    with pytest.raises(UserError, match="stands twice"):
        plan(archive, "Val")


def test_encrypted(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "Val.zip", {"a.jpg": CONTENT})
    data = bytearray(archive.read_bytes())
    data[data.find(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    with pytest.raises(UserError, match="is encrypted"):
        plan(archive, "Val")


def test_no_archive_no_zip_no_image(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Val\.zip: no such archive"):
        plan(tmp_path / "Val.zip", "Val")
    (tmp_path / "Val.zip").write_bytes(b"PK but no zip")
    with pytest.raises(UserError, match=r"Val\.zip: no readable zip archive"):
        plan(tmp_path / "Val.zip", "Val")
    with pytest.raises(UserError, match="holds no image"):
        plan(make_zip(tmp_path / "Val.zip", {"readme.txt": b"", ".hidden/a.jpg": b"x"}), "Val")


def test_flipped_byte(tmp_path: Path, images: Path) -> None:
    archive = make_zip(tmp_path / "Val.zip", {"Val/a.jpg": CONTENT, "Val/b.jpg": os.urandom(5000)})
    data = bytearray(archive.read_bytes())
    data[data.find(b"PK\x01\x02") - 100] ^= 1
    archive.write_bytes(data)
    with pytest.raises(UserError, match=r"Val\.zip: 'Val/b\.jpg' is damaged"):
        extract_split([archive], images, "Val")
    assert not (images / "Val").exists()
    assert not is_extracted(images, "Val", ["Val.zip"])


@pytest.mark.parametrize("shell", ["", "Test-Dev/", "Test-Dev/Test-Dev/", "Images/Test-Dev/", "images/test-dev/"])
def test_shells_are_taken_off(shell: str, tmp_path: Path, images: Path) -> None:
    archive = make_zip(tmp_path / "x.zip", {f"{shell}a.jpg": CONTENT, f"{shell}sub/a.png": CONTENT})
    assert extract_split([archive], images, "Test-Dev") == 2
    assert [name for name in everything(images) if "archives" not in name] == ["Test-Dev/a.jpg", "Test-Dev/sub/a.png"]
    assert (images / "Test-Dev/a.jpg").read_bytes() == CONTENT


def test_parts_that_disagree(tmp_path: Path, images: Path) -> None:
    """The same image in two parts is fine; another image of that name is not."""
    one = make_zip(tmp_path / "1.zip", {"a.jpg": CONTENT, "b.jpg": b"b"})
    two = make_zip(tmp_path / "2.zip", {"a.jpg": CONTENT, "c.jpg": b"c"})
    assert extract_split([one, two], images, "Val") == 4
    three = make_zip(tmp_path / "3.zip", {"a.jpg": CONTENT[::-1]})
    with pytest.raises(UserError, match=r"3\.zip: 'a\.jpg' differs"):
        extract_split([one, three], images, "Val")
    assert (images / "Val/a.jpg").read_bytes() == CONTENT
    assert is_extracted(images, "Val", ["1.zip", "2.zip"])


def test_interruption_and_resumption(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archives = [make_zip(tmp_path / f"{i}.zip", {f"{i}{j}.jpg": CONTENT for j in range(3)}) for i in range(2)]
    written: list[str] = []
    original = extract._extract_one

    def counting(file, member, path):
        if len(written) == 4 and "stop" in os.environ:
            raise KeyboardInterrupt
        original(file, member, path)
        written.append(path.name)

    monkeypatch.setattr(extract, "_extract_one", counting)
    monkeypatch.setenv("stop", "1")
    with pytest.raises(KeyboardInterrupt):
        extract_split(archives, images, "Val")
    assert not (images / "Val").exists()
    monkeypatch.delenv("stop")
    assert extract_split(archives, images, "Val", discard=True) == 6
    assert sorted(written) == ["00.jpg", "01.jpg", "02.jpg", "10.jpg", "11.jpg", "12.jpg"]
    assert not any(archive.exists() for archive in archives)
    assert extract_split(archives, images, "Val") == 0


def test_full_disk(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_zip(tmp_path / "Val.zip", {"a.jpg": CONTENT})
    with monkeypatch.context() as patch:
        usage = namedtuple("usage", "total used free")
        patch.setattr(shutil, "disk_usage", lambda path: usage(9, 9, 9))
        with pytest.raises(UserError, match=r"the extraction takes 10\.2 kB, and 9 B are free"):
            extract_split([archive], images, "Val")
        assert not images.exists()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(extract, "_extract_one", full)
    with pytest.raises(UserError, match=r"Val\.zip: the disk is full at 'a\.jpg'"):
        extract_split([archive], images, "Val")
    assert not (images / "Val").exists()


def test_images_put_there_by_hand_are_not_replaced(tmp_path: Path, images: Path) -> None:
    (images / "Val").mkdir(parents=True)
    (images / "Val/mine.jpg").write_bytes(b"x")
    archive = make_zip(tmp_path / "Val.zip", {"a.jpg": CONTENT})
    with pytest.raises(UserError, match="not of this program's making"):
        extract_split([archive], images, "Val")
    assert everything(images) == ["Val/mine.jpg"]
