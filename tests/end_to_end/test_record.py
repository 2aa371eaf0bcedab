"""From a Zenodo record to a verified dataset, over real HTTP on loopback."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
from loopback import RECORD, Record, Server, make_raw, pack

from comics.data.canonical import coco
from comics.data.canonical.verify import verify
from comics.data.openforensics import dataset as openforensics
from comics.data.openforensics import fetch
from comics.data.openforensics.fetch import Retry
from comics.errors import UserError

IMAGES = {"train": 6, "val": 3, "test_dev": 5, "test_challenge": 4}
QUICK = Retry(attempts=3, wait=0.01, longest=0.02, timeout=5)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return pack(make_raw(tmp_path_factory.mktemp("record") / "raw", IMAGES))


@pytest.fixture
def server(packed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server(Record(dict(packed))) as running:
        yield running


def run(server: Server, folder: Path, **options):
    return openforensics.fetch(folder, RECORD, server.url, retry=QUICK, **options)


def whole(folder: Path) -> dict[str, int]:
    """Number of images in each folder of the raw folder that claims to be a whole split."""
    return {path.name: len(list(path.glob("*.jpg"))) for path in (folder / "raw/Images").glob("[!.]*")}


def test_chain(server: Server, tmp_path: Path) -> None:
    """Record, fetch, extract, convert, verify; a second fetch asks for no file."""
    folder = tmp_path / "openforensics"
    report = run(server, folder)
    assert sorted(report.downloaded) == sorted(server.record.files)
    assert report.extracted == IMAGES
    assert report.listed_by == "server"
    assert whole(folder) == {"Train": 6, "Val": 3, "Test-Dev": 5, "Test-Challenge": 4}
    assert not (folder / "downloads/.partial").exists()

    converted = openforensics.convert(folder / "raw", folder)
    assert {name: part.images for name, part in converted.splits.items()} == IMAGES
    ids: list[int] = []
    for split, count in IMAGES.items():
        summary = coco.validate(folder / split / "annotations.json")
        assert (summary.images, summary.faces) == (count, {"Real": count, "Fake": count})
        document = coco.read(folder / split / "annotations.json")
        ids += [item["id"] for item in document["images"]]
    assert len(set(ids)) == len(ids)

    result = verify(folder, openforensics.PAPER_COUNTS)
    assert not result.problems
    assert {(d.split, d.what): (d.expected, d.found) for d in result.differences}["train", "images"] == (44122, 6)
    assert (folder / "card.md").is_file()
    assert (folder / "card.png").is_file()

    before = list(server.record.requests)
    again = run(server, folder)
    assert again.downloaded == []
    assert not any(again.extracted.values())
    assert server.record.requests == before


def test_killed_in_the_middle_goes_on(server: Server, tmp_path: Path) -> None:
    """A fetch killed by SIGKILL leaves what came; the next one asks for the rest only."""
    root = tmp_path / "data"
    params = tmp_path / "params.yaml"
    text = (Path(__file__).parents[2] / "params.yaml").read_text()
    params.write_text(text.replace("kind: openforensics", f"kind: openforensics\n    base_url: {server.url}", 1))
    server.record.pause = 0.1
    command = [sys.executable, "-m", "comics", "data", "fetch", "openforensics", "--jobs", "1", "--split", "train"]
    command += ["--params", str(params), "--root", str(root)]
    partial = root / "openforensics/downloads/.partial"
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    total = sum(len(content) for name, content in server.record.files.items() if name.startswith("Train"))
    while time.monotonic() < deadline and process.poll() is None:
        if sum(path.stat().st_size for path in partial.glob("*.part")) > 0 and server.record.sent.total() > 5000:
            break
        time.sleep(0.005)
    assert process.poll() is None, process.stderr.read()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
    time.sleep(0.1)
    kept = {path.name.removesuffix(".part"): path.stat().st_size for path in partial.glob("*.part")}
    whole_files = {path.name for path in (root / "openforensics/downloads").iterdir() if path.suffix != ".json"}
    whole_files |= {path.name for path in (root / "openforensics/downloads").glob("*_poly.json")}
    kept_bytes = sum(kept.values()) + sum(len(server.record.files.get(name, b"")) for name in whole_files)
    assert 0 < kept_bytes < total
    assert not (root / "openforensics/raw").exists()

    server.record.pause = 0.0
    server.record.sent.clear()
    subprocess.run(command, check=True, capture_output=True)
    assert server.record.sent.total() == total - kept_bytes
    assert whole(root / "openforensics") == {"Train": 6}


def test_broken_line_is_resumed(server: Server, tmp_path: Path) -> None:
    name = "Train_part_1.zip"
    server.record.cut[name] = 5000
    run(server, tmp_path, splits=["train"])
    assert server.record.sent[name] == len(server.record.files[name])
    assert server.record.requests.count(name) == 2


def test_server_without_ranges(server: Server, tmp_path: Path) -> None:
    server.record.ranges = False
    server.record.cut["Val.zip"] = 3000
    run(server, tmp_path, splits=["val"])
    assert server.record.sent["Val.zip"] == 3000 + len(server.record.files["Val.zip"])
    assert whole(tmp_path) == {"Val": 3}


def test_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.record.status["Val.zip"] = [503, 429]
    run(server, tmp_path, splits=["val"])
    assert server.record.requests.count("Val.zip") == 3


def test_server_that_stays_busy(server: Server, tmp_path: Path) -> None:
    """What failed is named with its address and md5; what came stays."""
    server.record.status["Val.zip"] = [503] * 10
    with pytest.raises(UserError, match=r"Val\.zip.*503") as error:
        run(server, tmp_path, splits=["val"])
    assert f"{server.url}/api/records/{RECORD}/files/Val.zip/content" in error.value.remedy
    assert whole(tmp_path) == {}


def test_flipped_byte_is_fetched_once_more(server: Server, tmp_path: Path) -> None:
    server.record.corrupt["Val.zip"] = 1
    run(server, tmp_path, splits=["val"])
    assert server.record.requests.count("Val.zip") == 2
    assert whole(tmp_path) == {"Val": 3}


def test_flipped_byte_is_refused(server: Server, tmp_path: Path) -> None:
    server.record.corrupt["Val.zip"] = 9
    with pytest.raises(UserError, match=r"Val\.zip: came twice with another md5"):
        run(server, tmp_path, splits=["val"])
    assert server.record.requests.count("Val.zip") == 2
    assert not (tmp_path / "downloads/Val.zip").exists()
    assert whole(tmp_path) == {}


def test_evil_archive_of_the_right_md5(server: Server, tmp_path: Path) -> None:
    buffer = io.BytesIO(server.record.files["Val.zip"])
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("../../evil.jpg", b"evil")
    server.record.files["Val.zip"] = buffer.getvalue()
    with pytest.raises(UserError, match=r"Val\.zip: '\.\./\.\./evil\.jpg' leads out of the folder"):
        run(server, tmp_path, splits=["val"])
    assert not (tmp_path / "raw/Images").exists()
    assert not list(tmp_path.rglob("evil*"))


def test_missing_part_of_the_record(server: Server, tmp_path: Path) -> None:
    server.record.files["Train_part_3.zip"] = server.record.files.pop("Train_part_2.zip")
    with pytest.raises(UserError, match=r"part 2 of Train is missing, though Train_part_3\.zip is there"):
        run(server, tmp_path)
    assert server.record.sent.total() == 0


def test_part_that_the_server_lost(server: Server, tmp_path: Path) -> None:
    server.record.status["Train_part_2.zip"] = [404] * 9
    with pytest.raises(UserError, match=r"Train_part_2\.zip: .* answers 404"):
        run(server, tmp_path, splits=["train"])
    assert whole(tmp_path) == {}
    server.record.status.clear()
    run(server, tmp_path, splits=["train"])
    assert whole(tmp_path) == {"Train": 6}


def test_full_disk_before_the_first_byte(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(UserError, match=r"takes .* and 1\.0 kB are free"):
        run(server, tmp_path)
    assert server.record.sent.total() == 0


def test_full_disk_in_the_middle(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the file; with space again, the rest alone is fetched."""
    original = fetch.ResumingDownload._continue

    def full(self, url, start):
        if self.file.name == "Val.zip":
            self.part.write_bytes(server.record.files["Val.zip"][:2000])
            raise OSError(28, "No space left on device")
        return original(self, url, start)

    with monkeypatch.context() as patch:
        patch.setattr(fetch.ResumingDownload, "_continue", full)
        with pytest.raises(UserError, match=r"Val\.zip: the disk is full after 2\.0 kB"):
            run(server, tmp_path, splits=["val"])
    assert whole(tmp_path) == {}
    run(server, tmp_path, splits=["val"])
    assert server.record.sent["Val.zip"] == len(server.record.files["Val.zip"]) - 2000


def test_archives_can_be_discarded(server: Server, tmp_path: Path) -> None:
    run(server, tmp_path, discard_archives=True)
    assert not list((tmp_path / "downloads").glob("*.zip"))
    assert whole(tmp_path) == {"Train": 6, "Val": 3, "Test-Dev": 5, "Test-Challenge": 4}
    before = server.record.sent.total()
    assert run(server, tmp_path, discard_archives=True).downloaded == []
    assert server.record.sent.total() == before


def test_offline_tells_what_to_do_by_hand_and_accepts_it(packed: dict[str, bytes], tmp_path: Path) -> None:
    def offline():
        return openforensics.fetch(tmp_path, RECORD, "http://127.0.0.1:9", splits=["val"], retry=QUICK)

    with pytest.raises(UserError, match="cannot be reached") as error:
        offline()
    assert "Val_poly.json and Val.zip" in error.value.remedy
    assert str(tmp_path / "downloads") in error.value.remedy
    for name in ("Val_poly.json", "Val.zip"):
        (tmp_path / "downloads" / name).write_bytes(packed[name])
    report = offline()
    assert report.listed_by == "hand"
    assert whole(tmp_path) == {"Val": 3}
    assert openforensics.convert(tmp_path / "raw", tmp_path, splits=["val"]).splits["val"].images == 3


def test_file_put_there_by_hand_is_not_fetched(server: Server, tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/Val.zip").write_bytes(server.record.files["Val.zip"])
    assert run(server, tmp_path, splits=["val"]).downloaded == ["Val_poly.json"]
    assert server.record.sent["Val.zip"] == 0


def test_offline_later_uses_the_earlier_answer(server: Server, tmp_path: Path) -> None:
    run(server, tmp_path, splits=["val"])
    report = openforensics.fetch(tmp_path, RECORD, "http://127.0.0.1:9", splits=["val"], retry=QUICK)
    assert (report.listed_by, report.downloaded) == ("earlier answer", [])


def test_malformed_annotation_leaves_nothing(server: Server, tmp_path: Path) -> None:
    run(server, tmp_path, splits=["val"])
    path = tmp_path / "raw/Val_poly.json"
    path.write_text(path.read_text().replace('"category_id": 1', '"category_id": "x"', 1))
    with pytest.raises(UserError, match=r"Val_poly\.json: annotations\[1\]\.category_id: expected a number, found 'x'"):
        openforensics.convert(tmp_path / "raw", tmp_path, splits=["val"])
    assert sorted(item.name for item in tmp_path.iterdir()) == ["downloads", "raw"]
