"""The settings of detectors: each in its own file, in the digest of that detector's runs alone, also from outside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from test_params import SMALL, write

from comics.errors import UserError
from comics.params import RunParams, load
from comics.params.block import field_docs
from comics.params.detectors import _built_in, settings_of

ROOT = Path(__file__).parents[2]

RUNS = """
runs:
  plain: {}
  two_stage: {detector: mask_rcnn}
  grids: {detector: solov2}
"""


def text(models: str, runs: str = RUNS) -> str:
    start, end = SMALL.index("runs:"), SMALL.index("tables:")
    return SMALL[:start].replace("mini: {backbone: resnet18}", models) + runs + SMALL[end:]


def test_a_file_with_settings_is_a_detector() -> None:
    files = {path.stem for path in (ROOT / "comics/detectors").glob("*.py") if "class Settings(" in path.read_text()}
    assert files == set(_built_in()) >= {"blendmask", "condinst", "meinst", "mask_rcnn", "solov2"}


def test_what_is_read_without_the_file_is_what_the_file_says() -> None:
    from comics.detectors import detector_class

    for name in _built_in():  # not those that other tests have registered
        declared, real = settings_of(name), detector_class(name).Settings
        assert declared.model_json_schema() == real.model_json_schema(), name
        assert dict(declared.published_inference) == dict(real.published_inference)
        assert declared.prepared == real.prepared
        assert field_docs(declared).keys() >= declared.model_fields.keys(), name


def test_reading_params_does_not_import_torch() -> None:
    code = (
        "import sys, comics.params; comics.params.load('params.yaml').resolve('comics'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_settings_enter_the_digest_of_their_detectors_runs_alone(tmp_path: Path) -> None:
    before = load(write(tmp_path, text("mini: {backbone: resnet18}")))
    after = load(write(tmp_path, text("mini: {backbone: resnet18, mask_rcnn: {rois: 64}}")))
    changed = [run for run in before.runs if before.resolve(run).digest != after.resolve(run).digest]
    assert changed == ["two_stage"]
    assert after.resolve("two_stage").model.settings.model_dump()["rois"] == 64
    assert after.resolve("two_stage").inference.nms_threshold == 0.5
    assert after.resolve("plain").inference.nms_threshold == 0.6


def test_a_description_gives_the_run_again() -> None:
    run = load(ROOT / "params.yaml").resolve("mask_rcnn_comics")
    fields = {
        key: value for key, value in run.description.items() if key in RunParams.model_fields and key != "dataset"
    }
    again = RunParams.model_validate({**fields, "components": run.params.components})
    assert again.model.settings.model_dump() == run.model.settings.model_dump()
    stated = run.description["model"]["mask_rcnn"]
    assert stated["rois"] == 32
    assert stated == run.model.settings.model_dump()


def test_a_misspelt_setting_is_told_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"models.mini.mask_rcnn.roi: unknown key") as error:
        load(write(tmp_path, text("mini: {mask_rcnn: {roi: 64}}")))
    assert "rois" in error.value.remedy


MODULE = """
from comics.detectors import Detector
from comics.params import DetectorSettings

class Settings(DetectorSettings):
    depth: int = 2

class Mine(Detector):
    Settings = Settings

class Neither:
    pass
"""


def test_a_detector_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outside_one.py").write_text(MODULE)
    name = "outside_one:Mine"
    runs = (
        f'\nruns:\n  mine: {{detector: "{name}"}}\n  more: {{detector: "{name}", model: {{"{name}": {{depth: 5}}}}}}\n'
    )
    table = "tables: {one: {caption: One., rows: [{label: A, run: mine}]}}\n"
    head = text(f'mini: {{"{name}": {{depth: 3}}}}', runs)
    params = load(write(tmp_path, head[: head.index("tables:")] + table))
    assert params.resolve("mine").model.settings.model_dump() == {"depth": 3}
    assert params.resolve("more").model.settings.model_dump() == {"depth": 5}
    assert params.resolve("mine").description["model"][name] == {"depth": 3}
    from comics.detectors.base import detector_class

    assert detector_class(name).__name__ == "Mine"  # now that it is known by its name, too
    for wrong, message in (("absent_module:Mine", "absent_module"), ("outside_one:Neither", "no Settings")):
        with pytest.raises(UserError, match=message):
            load(write(tmp_path, (head[: head.index("tables:")] + table).replace(name, wrong)))


def test_settings_that_came_later_renew_no_run_at_their_default(tmp_path: Path) -> None:
    def stated(settings: str) -> dict[str, object]:
        runs = f"runs:\n  plain: {{detector: solo, model: {{solo: {settings}}}}}\n"
        params = load(write(tmp_path, text("mini: {backbone: resnet18}", runs)))
        return params.resolve("plain").description["model"]["solo"]  # type: ignore[no-any-return]

    assert set(stated("{}")) == {"head", "grids"}
    assert stated("{object_scale: 1.0, mask_prior: 0.01}") == stated("{}")
    assert stated("{object_scale: 0.5}")["object_scale"] == 0.5
