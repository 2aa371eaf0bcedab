"""The embedded dataset: the same bytes for the same seed, OpenForensics' own form, forgeries inside of faces."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy._core import _multiarray_umath as umath
from PIL import Image, ImageFilter

from comics.data.crowd.dataset import make, render_image
from comics.data.crowd.forgeries import leave_traces, random_traces
from comics.data.crowd.scenes import Face, render_scene
from comics.data.openforensics.dataset import convert
from comics.params import FORGERIES, TRACES, CrowdDataset, ForgeryTraces

SPEC = CrowdDataset(seed=5, width=128, height=96, train=5, val=1, test_dev=2, test_challenge=2)


def scene(index: int, fake_share: float, **traces: float) -> tuple[np.ndarray, list[Face]]:
    pixels, faces, _ = render_scene(np.random.default_rng(index), 96, 128, fake_share, ForgeryTraces(**traces))
    return pixels, faces


def test_a_forgery_changes_its_face_and_nothing_else() -> None:
    checked = 0
    for index in range(6):
        forged, faces = scene(index, 1.0)
        original, same = scene(index, 0.0, innocent=0.0)
        assert all(np.array_equal(a.coverage, b.coverage) for a, b in zip(faces, same, strict=True))
        assert all(face.forgery in FORGERIES for face in faces)
        assert not any(face.forgery for face in same)
        # the camera's own blur carries what changed a few pixels further
        covered = np.zeros((96, 128), bool)
        for face in faces:
            covered |= np.asarray(Image.fromarray(face.coverage > 0).convert("L").filter(ImageFilter.MaxFilter(7))) > 0
        changed = (forged != original).any(-1)
        assert not (changed & ~covered).any()
        assert changed.any() == bool(faces)
        checked += len(faces)
    assert checked > 6


@pytest.mark.parametrize("name", TRACES)
def test_each_trace_can_be_switched_off_and_touches_its_region_only(name: str) -> None:
    rows, columns = np.mgrid[:40, :40]
    inside = np.clip(12 - np.hypot(rows - 20, columns - 20), 0, 1).astype(np.float32)
    rng = np.random.default_rng(3)
    before = rng.uniform(0.3, 0.6, (40, 40, 3)).astype(np.float32)
    grain = rng.normal(0, 0.02, (40, 40, 3)).astype(np.float32)
    for strength in (0.0, 1.0):
        picture, noise = before.copy(), grain.copy()
        traces = dict.fromkeys(TRACES, 0.0) | {name: strength}
        leave_traces(np.random.default_rng(1), picture, noise, inside, traces, 24.0)
        touched, other = (noise, picture) if name == "noise" else (picture, noise)
        start, kept = (grain, before) if name == "noise" else (before, grain)
        assert np.array_equal(other, kept)
        assert np.array_equal(touched[inside == 0], start[inside == 0])
        assert np.array_equal(touched, start) == (strength == 0)


def test_a_region_that_is_hidden_takes_no_trace() -> None:
    picture, noise = np.full((9, 9, 3), 0.5, np.float32), np.ones((9, 9, 3), np.float32)
    everything = dict.fromkeys(TRACES, 1.0)
    leave_traces(np.random.default_rng(0), picture, noise, np.zeros((9, 9), np.float32), everything, 20.0)
    assert (picture == 0.5).all()
    assert (noise == 1).all()


def test_no_trace_alone_tells_a_fake_face_and_all_together_do() -> None:
    draws = {
        fake: np.array(
            [list(random_traces(np.random.default_rng(k), fake, ForgeryTraces()).values()) for k in range(2000)]
        )
        for fake in (False, True)
    }
    carried = {fake: values > 0 for fake, values in draws.items()}
    for number in range(len(TRACES)):
        told = carried[True][:, number].mean() - carried[False][:, number].mean()
        assert 0.4 < told < 0.7  # balanced accuracy of presence alone: (1 + told) / 2
    assert set(carried[True].sum(1)) == {2, 3, 4}
    assert set(carried[False].sum(1)) == {0, 1}


def test_switching_a_trace_off_leaves_the_others_as_they_were() -> None:
    for seed in range(20):
        full = random_traces(np.random.default_rng(seed), True, ForgeryTraces())
        less = random_traces(np.random.default_rng(seed), True, ForgeryTraces(colour=0.0, noise=2.0))
        assert less == full | {"colour": 0.0, "noise": 2 * full["noise"]}


def test_kinds_of_forgery_are_named_survive_the_conversion_and_can_be_held_out(tmp_path: Path) -> None:
    spec = CrowdDataset(
        width=128, height=96, train=8, val=1, test_dev=8, test_challenge=1, held_out=["swap", "synthesis"]
    )
    make(spec, tmp_path / "raw", processes=1)
    convert(tmp_path / "raw", tmp_path)
    kinds = {}
    for split in ("train", "test_dev"):
        faces = json.loads((tmp_path / split / "annotations.json").read_text())["annotations"]
        assert all(("forgery" in face) == (face["category_id"] == 2) for face in faces)
        kinds[split] = {face["forgery"] for face in faces if "forgery" in face}
    assert kinds["train"] == {"inner", "attribute"}
    assert kinds["test_dev"] & {"swap", "synthesis"}


def test_every_processor_gives_the_same_pixels() -> None:
    """numpy picks its loops by what the processor has; without them the bytes are the same."""
    script = (
        "import hashlib; from comics.data.crowd.dataset import render_image; from comics.params import CrowdDataset\n"
        "spec = CrowdDataset(width=128, height=96)\n"
        "print(hashlib.sha256(b''.join(render_image(spec, s, 1)[0] for s in ('train', 'test_challenge'))).hexdigest())"
    )
    if not (optional := umath.__cpu_dispatch__):
        pytest.skip("numpy has one set of loops only here")
    found = set()
    for disabled in ("", " ".join(optional)):
        environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": disabled}
        command = [sys.executable, "-W", "ignore", "-c", script]
        found.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(found) == 1


def test_the_challenge_is_harder_to_read_than_the_scene_it_was_made_of() -> None:
    data, faces = render_image(SPEC, "test_challenge", 0)
    again, _ = render_image(SPEC, "test_challenge", 0)
    assert data == again
    assert Image.open(io.BytesIO(data)).size == (SPEC.width, SPEC.height)
    assert all(face["category_id"] in (0, 1) for face in faces)
