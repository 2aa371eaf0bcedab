"""Files are whole or absent; sidecars tell what made them; errors end with code 2."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from comics.errors import UserError, did_you_mean
from comics.files import atomic_write, exclusive, file_digest, read_json, write_json, write_text
from comics.provenance import is_intact, made_by, read_sidecar, require_intact, sidecar_path, write_sidecar


def test_a_failed_write_leaves_the_old_file_and_nothing_beside(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_json(target, {"kept": 1})
    with pytest.raises(ZeroDivisionError), atomic_write(target) as beside:
        beside.write_text(f"half{1 / 0}")
    assert read_json(target) == {"kept": 1}
    assert list(tmp_path.iterdir()) == [target]


def test_not_a_number_is_refused_rather_than_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", float("nan"))
    assert list(tmp_path.iterdir()) == []


def test_written_files_can_be_read_by_others(tmp_path: Path) -> None:
    write_text(tmp_path / "deep" / "a.txt", "text\n")
    mode = stat.S_IMODE((tmp_path / "deep" / "a.txt").stat().st_mode)
    (tmp_path / "plain").touch()
    assert mode == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("content", ["", "{", '{"a": ', b"\xff\xfe\x00".decode("latin-1")])
def test_a_truncated_json_names_its_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "cut.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"cut\.json"):
        read_json(path)


def test_a_file_is_known_by_its_bytes_from_its_sidecar_on(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_bytes(b"0.988\n")
    write_sidecar(path, {"digest": "abc", "run": "plain"})
    assert sidecar_path(path).name == "scores.csv.meta.json"
    assert made_by(path) == {"digest": "abc", "run": "plain"}
    require_intact(path, "make it")
    for content in (b"0.989\n", b"0.98", b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"scores\.csv: its bytes have changed") as caught:
            require_intact(path, "make it")
        assert caught.value.remedy == "make it"
    path.write_bytes(b"0.988\n")
    assert is_intact(path)
    write_json(sidecar_path(path), {"digest": "abc"})
    assert not is_intact(path)


def test_a_file_that_changes_under_its_old_time_stamp_is_hashed_again(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"a" * 100)
    os.utime(path, ns=(10**18, 10**18))
    first = file_digest(path)
    path.write_bytes(b"b" * 100)
    os.utime(path, ns=(10**18, 10**18))
    assert file_digest(path) != first  # the time of its last change of any kind cannot be set back


def test_a_settled_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"a" * 100)
    monkeypatch.setattr("comics.files._SETTLED", -1)
    first = file_digest(path)
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("hashed again"))
    assert file_digest(path) == first


def test_a_file_without_sidecar_has_no_provenance(tmp_path: Path) -> None:
    assert read_sidecar(tmp_path / "foreign.json") == {}


def test_names_far_from_all_get_the_whole_list() -> None:
    assert did_you_mean("blendmsk", ["blendmask", "solov2"]) == "Did you mean 'blendmask'?"
    assert did_you_mean("xyz", ["blendmask", "solov2"]) == "Valid names: blendmask, solov2."


HOLDER = """
import os, sys, time
from comics.files import exclusive
with exclusive(sys.argv[1], "a: is being made"):
    child = os.fork()  # as processes that load data are
    if child:
        print(child, flush=True)
    time.sleep(120)
"""


def test_one_process_at_a_time_and_none_that_is_dead(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            message = rf"^a: is being made by process {process.pid} on "
            with pytest.raises(UserError, match=message) as caught, exclusive(lock, "a: is being made"):
                pass
            assert caught.value.remedy
            process.kill()
            process.wait()
            with exclusive(lock, "a: is being made"):  # although the child is still there
                assert lock.read_text().startswith(f"process {os.getpid()} on ")
        finally:
            process.kill()
            os.kill(child, signal.SIGKILL)
