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
from comics.files import atomic_write, exclusive, read_json, write_json, write_text
from comics.provenance import read_sidecar, require_digest, sidecar_path, write_sidecar


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


def test_a_result_of_another_digest_is_refused_with_the_command(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    with pytest.raises(UserError, match="no such result"):
        require_digest(path, "abc", "make it")
    path.touch()
    with pytest.raises(UserError, match="no digest"):
        require_digest(path, "abc", "make it")
    write_sidecar(path, {"digest": "abc", "run": "plain"})
    assert sidecar_path(path).name == "scores.csv.meta.json"
    assert require_digest(path, "abc", "make it")["run"] == "plain"
    with pytest.raises(UserError) as caught:
        require_digest(path, "def", "make it")
    assert "make it" in caught.value.remedy


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
