"""Joules from a made-up RAPL folder and a made-up NVML; sums over interrupted trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from comics.training import energy
from comics.training.energy import GPU, PROCESSOR, Counter, EnergyMeter, Expense, nvml_counters, rapl_counters


def zone(folder: Path, name: str, kind: str, microjoules: int, wraps_at: int = 1_000_000_000) -> Path:
    """A zone of RAPL; returns its counter."""
    path = folder / name
    path.mkdir(parents=True)
    (path / "name").write_text(f"{kind}\n")
    (path / "max_energy_range_uj").write_text(f"{wraps_at}\n")
    (path / "energy_uj").write_text(f"{microjoules}\n")
    return path / "energy_uj"


def test_packages_are_added_and_zones_within_them_are_not(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    core = zone(tmp_path, "intel-rapl:0:0", "core", 1_000_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 900_000_000)
    whole = zone(tmp_path, "intel-rapl:2", "psys", 0)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0)
    meter = EnergyMeter(rapl_counters(tmp_path))
    assert meter.joules == {PROCESSOR: 0.0}
    first.write_text("7500000\n")
    core.write_text("9000000\n")
    whole.write_text("9000000\n")
    second.write_text("900250000\n")
    meter.update()
    assert meter.joules == pytest.approx({PROCESSOR: 2.75})


def test_a_counter_that_starts_again_from_zero(tmp_path: Path) -> None:
    path = zone(tmp_path, "intel-rapl:0", "package-0", 990_000_000)
    meter = EnergyMeter(rapl_counters(tmp_path))
    for microjoules in (10_000_000, 500_000_000, 4_000_000):
        path.write_text(str(microjoules))
        meter.update()
    assert meter.joules == pytest.approx({PROCESSOR: 20.0 + 490.0 + 504.0})


@pytest.mark.parametrize("defect", ["absent", "unreadable", "not a number", "no range"])
def test_rapl_that_cannot_be_read_is_not_known(tmp_path: Path, defect: str) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    path = zone(tmp_path, "intel-rapl:1", "package-1", 1)
    if defect == "unreadable":
        path.unlink()
        path.mkdir()  # an OSError for root, too
    elif defect == "not a number":
        path.write_text("")
    elif defect == "no range":
        (path.parent / "max_energy_range_uj").unlink()
    assert rapl_counters(tmp_path / "none" if defect == "absent" else tmp_path) == []


def test_a_source_that_fails_later_is_not_known_although_others_are(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    path = zone(tmp_path, "intel-rapl:1", "package-1", 1)
    meter = EnergyMeter([*rapl_counters(tmp_path), *nvml_counters("a", Nvml())])
    path.unlink()
    for _ in range(2):
        meter.update()
    assert set(meter.joules) == {GPU}


class Nvml:
    """NVML with one GPU that takes 2 J between two readings."""

    def __init__(self, init: int = 0, found: int = 0, counts: int = 0) -> None:
        self.status = {"init": init, "found": found, "counts": counts}
        self.millijoules = 2**40
        self.asked = b""

    def nvmlInit_v2(self) -> int:
        return self.status["init"]

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:
        self.asked = uuid
        return self.status["found"]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, energy: Any) -> int:
        self.millijoules += 2000
        energy._obj.value = self.millijoules
        return self.status["counts"]


def test_the_gpu_is_asked_by_its_name() -> None:
    for uuid in ("12-34", "GPU-12-34"):
        nvml = Nvml()
        (counter,) = nvml_counters(uuid, nvml)
        assert nvml.asked == b"GPU-12-34"
    meter = EnergyMeter([counter])
    meter.update()
    meter.update()
    assert meter.joules == pytest.approx({GPU: 4.0})
    nvml.millijoules = 0  # the driver was loaded anew: what it took before is lost
    meter.update()
    meter.update()
    assert meter.joules == {}


@pytest.mark.parametrize("nvml", [Nvml(init=9), Nvml(found=6), Nvml(counts=3), object()])
def test_a_gpu_that_does_not_count_is_not_known(nvml: Any) -> None:
    assert nvml_counters("12-34", nvml) == []


def test_a_missing_driver_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(energy.ctypes, "CDLL", absent)
    assert nvml_counters("12-34") == []


class Clock:
    """time.monotonic by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(energy.time, "monotonic", lambda: self.now)


def counting(source: str, *readings: float) -> Counter:
    values = iter(readings)
    return Counter(source, lambda: next(values))


def stretch(*counters: Counter, resumes: bool = False, state: dict[str, Any] | None = None) -> Expense:
    """An `Expense` as the trainer brings it to the start of a stretch. It reads each counter twice until then."""
    expense = Expense(counters, resumes)
    expense.setup(None, None, "fit")  # type: ignore[arg-type]
    if state is not None:
        expense.load_state_dict(state)
    return expense


def test_stretches_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    first = stretch(counting("a", 0, 0, 5, 9), counting("b", 0, 0, 1, 1))
    clock.now += 30
    saved = first.state_dict()
    assert saved == {"seconds": 30, "joules": {"a": 5, "b": 1}}
    clock.now += 7  # lost with the process
    second = stretch(counting("a", 0, 0, 2.5), counting("c", 0, 0, 8), resumes=True, state=saved)
    clock.now += 12
    assert second.report() == {"seconds": 42, "energy_joules": 7.5, "energy_sources": {"a": 7.5}}


def test_what_an_earlier_stretch_did_not_tell_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    unknown = {"seconds": None, "energy_joules": None, "energy_sources": {}}
    assert stretch(counting("a", 0, 0, 1), resumes=True).report() == unknown
    assert stretch(resumes=False).report() == {**unknown, "seconds": 0}
    state = stretch(counting("a", 0, 0, 1), resumes=True).state_dict()
    assert stretch(counting("a", 0, 0, 1), resumes=True, state=state).report() == unknown


def test_counters_are_read_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, read = Clock(monkeypatch), []
    expense = stretch(Counter("a", lambda: read.append(clock.now) or 0.0))
    read.clear()
    for _ in range(300):
        clock.now += 1
        expense.on_train_batch_end(None, None, None, None, 0)  # type: ignore[arg-type]
    assert read == [160, 220, 280, 340, 400]
