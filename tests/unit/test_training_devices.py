"""Choosing GPUs: faked lists of devices, real locks, real processes."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from comics.errors import UserError
from comics.training import devices
from comics.training.devices import claimed, respect_slurm

_context = multiprocessing.get_context("forkserver")


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(devices, "SECONDS", 0.02)
    monkeypatch.setattr(devices, "folder", lambda: tmp_path / "locks")
    return tmp_path / "locks"


def _hold(place: Path, names: list[str], count: Any, pipe: Any) -> None:
    devices.SECONDS = 0.02
    devices.folder = lambda: place
    devices.gpus = lambda: names
    with claimed(count, 8, lambda text: None) as found:
        pipe.send([names[index] for index in found])
        pipe.recv()  # until it is told to end


class Process:
    """A process that claims GPUs, and holds them until it is told to end, or killed."""

    def __init__(self, place: Path, names: list[str], count: Any = 1) -> None:
        self.pipe, theirs = _context.Pipe()
        self.process = _context.Process(target=_hold, args=(place, names, count, theirs))
        self.process.start()

    def has(self, seconds: float = 60) -> list[str] | None:
        return self.pipe.recv() if self.pipe.poll(seconds) else None

    def end(self, kill: bool = False) -> None:
        self.process.kill() if kill else self.pipe.send(None)
        self.process.join()


def test_no_two_processes_have_the_same_and_a_dead_one_gives_its_back(machine: Path) -> None:
    names = ["GPU-a", "GPU-b", "GPU-c"]
    three = [Process(machine, names) for _ in names]
    had = [process.has() for process in three]
    assert sorted(map(tuple, had)) == [("GPU-a",), ("GPU-b",), ("GPU-c",)]
    fourth = Process(machine, names[::-1])  # other numbers for the same devices
    assert fourth.has(0.3) is None
    three[1].end(kill=True)
    assert fourth.has() == had[1]
    for process in (three[0], three[2], fourth):
        process.end()


def test_a_run_on_two_takes_two_or_waits_without_holding_one(machine: Path) -> None:
    names = ["GPU-a", "GPU-b"]
    first = Process(machine, names)
    had = first.has()
    both = Process(machine, names, 2)
    assert both.has(0.3) is None
    second = Process(machine, names)  # the one that `both` does not hold meanwhile
    assert second.has() == [name for name in names if [name] != had]
    first.end()
    second.end()
    assert both.has() == names
    both.end()


def test_auto_takes_what_is_free_and_divides_the_batch(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: list("abcde"))
    with claimed("auto", 8, print) as found:
        assert found == [0, 1, 2, 3]
    other = Process(machine, list("abcde"))
    assert other.has() == ["a"]
    with claimed("auto", 9, print) as found:
        assert found == [1, 2, 3]
    other.end()


def test_waiting_is_told_once_and_too_many_are_refused(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: ["a"])
    with pytest.raises(UserError, match=r"training\.devices: 2 GPUs are wanted, 1 are visible"), claimed(2, 8, print):
        pass
    other, told = Process(machine, ["a"]), []
    assert other.has() == ["a"]

    def tell(text: str) -> None:
        told.append(text)
        other.end()

    with claimed(1, 8, tell) as found:
        assert found == [0]
    assert told == ["Waiting for 1 of 1 GPUs: other trainings have them."]


def test_without_a_gpu_there_is_nothing_to_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", list)
    with claimed(2, 8, print) as found:
        assert found == []


def test_what_slurm_allots_bounds_what_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("SLURM_JOB_GPUS", "2,3")
    respect_slurm()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    respect_slurm()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
