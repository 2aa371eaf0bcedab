"""A run as one graph: it finds what the detector finds, and tells what it is."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detect_scenes import calibration, picture, run_of, write_model
from typer.testing import CliRunner

import comics
from comics.attention import _averaging
from comics.cli import app
from comics.detect.backends import TorchBackend, open_backend
from comics.detect.export import TOLERANCE, _same, export_onnx, program_of
from comics.errors import UserError
from comics.files import write_json
from comics.padding import blank, extend


def with_attention(run):
    return run.model_copy(update={"params": run.params.model_copy(update={"components": ["attention"]})})


@pytest.fixture(scope="module", autouse=True)
def _quiet():
    """torch traces every step of an export into the log, which pytest would keep."""
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """The folder of a run of BlendMask, and its ONNX file beside it."""
    folder = tmp_path_factory.mktemp("run")
    run = run_of(image_size=320)
    write_model(folder, run)
    write_json(folder / "calibration.json", calibration(run.digest).as_json())
    answer = CliRunner().invoke(
        app(), ["export", str(folder / "model.pt"), "--onnx", str(folder / "x.onnx")], catch_exceptions=False
    )
    assert answer.exit_code == 0, answer.output
    assert "of the detector" in answer.output
    return folder


@pytest.mark.parametrize("size", [(200, 300), (161, 170), (800, 500)])
def test_onnx_finds_the_same_faces_in_pictures_of_any_size(exported, size):
    ours = comics.load(exported / "x.onnx").detect(picture(size[1], size[0], seed=3))
    theirs = comics.load(exported, device="cpu", precision="fp32").detect(picture(size[1], size[0], seed=3))
    assert ours.about.calibrated
    assert ours.about == theirs.about
    assert theirs.faces
    assert ours.boxes == pytest.approx(theirs.boxes, abs=0.05)
    assert ours.p_fake == pytest.approx(theirs.p_fake, abs=1e-4)
    assert [face.fake for face in ours.faces] == [face.fake for face in theirs.faces]
    assert (ours.masks != theirs.masks).mean() < 1e-3


def test_onnx_needs_no_torch(exported, tmp_path):
    picture(200, 180).save(tmp_path / "a.png")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        f"import comics; outcome = comics.load({str(exported / 'x.onnx')!r}).detect({str(tmp_path / 'a.png')!r})\n"
        "assert outcome.faces; print(outcome.about.notice)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "no forensic tool" in answer.stdout


def test_batches_of_other_lengths_and_sizes_than_the_example(exported):
    session = comics.load(exported / "x.onnx").backend.session
    backend = open_backend(exported, "cpu", "fp32")
    worst = _same(
        backend,
        lambda pixels, sizes: session.run(
            ["boxes", "scores", "labels", "images", "masks"], {"pixels": pixels.numpy(), "sizes": sizes.numpy()}
        ),
    )
    assert worst < TOLERANCE
    black = np.zeros((3, 3, 160, 160), np.float32)
    boxes, _, _, owners, masks = session.run(None, {"pixels": black, "sizes": np.array([[160, 160]] * 3)})
    assert boxes.shape[1] == 4
    assert masks.shape[1:] == (160, 160)
    assert set(owners.tolist()) <= {0, 1, 2}


def test_a_program_of_a_network_with_attention(tmp_path):
    run = with_attention(run_of())
    backend = open_backend(write_model(tmp_path, run), "cpu", "fp32")
    module = program_of(backend).module()
    assert _same(backend, lambda pixels, sizes: [one.detach().numpy() for one in module(pixels, sizes)]) < TOLERANCE


def test_an_export_that_finds_something_else_is_not_written(exported):
    backend = open_backend(exported, "cpu", "fp32")
    assert isinstance(backend, TorchBackend)

    def nothing(pixels, sizes):
        height, width = pixels.shape[2:]
        return np.zeros((0, 4)), np.zeros(0), np.zeros(0), np.zeros(0), np.zeros((0, height, width), bool)

    with pytest.raises(UserError, match="finds 0 faces"):
        _same(backend, nothing)


@pytest.mark.parametrize("detector", ["mask_rcnn", "solov2"])
def test_others_are_refused_by_name(detector, tmp_path):
    backend = open_backend(write_model(tmp_path, run_of(detector=detector)), "cpu", "fp32")
    with pytest.raises(UserError, match=detector):
        export_onnx(backend, tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


def test_the_command_asks_for_something_to_write(exported):
    for arguments in (["model.pt"], [str(exported / "x.onnx"), "--onnx", "y.onnx"]):
        answer = CliRunner().invoke(app(), ["export", *arguments])
        assert isinstance(answer.exception, UserError)


@pytest.mark.parametrize(("cells", "pooled"), [(14, 7), (7, 4), (5, 2), (3, 3)])
def test_averaging_is_adaptive_pooling(cells, pooled):
    x = torch.rand(1, 2, cells, cells)
    matrix = _averaging(cells, pooled, x.device)
    assert torch.allclose(matrix @ x @ matrix.T, torch.nn.functional.adaptive_avg_pool2d(x, pooled), atol=1e-6)


@pytest.mark.parametrize("stride", [1, 8])
def test_sizes_may_be_a_tensor(stride):
    maps = torch.rand(2, 3, 40 // stride, 64 // stride)
    sizes = [(33, 64), (40, 50)]
    for function in (blank, extend):
        assert torch.equal(function(maps, torch.tensor(sizes), stride), function(maps, sizes, stride))
