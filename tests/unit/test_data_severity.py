"""Severities: what is left of an image is as stated, and what becomes of pictures that are passed on."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from comics.data.perturb.operations import OPERATIONS, WARPS, generator_for
from comics.data.perturb.severity import FAMILY_OF, PSNR, as_json, calibrate, changed, from_json, psnr, ssim
from comics.data.perturb.social import SOCIAL


@pytest.fixture(scope="module")
def photos():
    """Two smooth scenes with edges, (72, 96, 3)."""
    found = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        values = ndimage.gaussian_filter(rng.random((72, 96, 3)), (6, 6, 0))
        values = (values - values.min()) / (values.max() - values.min()) * 200 + 20
        values[20:50, 30:60] = values[20:50, 30:60] * 0.5 + 90
        found.append(values.astype(np.uint8))
    return found


def test_similarities_are_scikit_images(photos):
    other = changed(photos[0], "gaussian_noise", 0.7, generator_for(0, "x"))
    assert psnr(photos[0], other) == pytest.approx(peak_signal_noise_ratio(photos[0], other))
    assert ssim(photos[0], other) == pytest.approx(structural_similarity(photos[0], other, channel_axis=2))
    assert psnr(photos[0], photos[0]) == 60
    assert ssim(photos[0], photos[0]) == pytest.approx(1)
    assert 0 < ssim(photos[0][:5, :5], other[:5, :5]) <= 1  # smaller than a window


@pytest.mark.parametrize("name", ["brightness", "invert", "gaussian_noise", "block_fill", "salt_and_pepper", "fog"])
def test_a_severity_means_its_psnr(photos, name):
    severities = calibrate(photos, name)
    reached = [one.psnr for one in severities]
    assert reached == pytest.approx(PSNR, abs=1.5)
    again = [changed(one, name, severities[2].amount, generator_for(0, f"{name}:{k}")) for k, one in enumerate(photos)]
    assert np.mean([psnr(a, b) for a, b in zip(photos, again, strict=True)]) == pytest.approx(severities[2].psnr)
    assert severities[0].ssim > severities[4].ssim


def test_what_cannot_be_reached_says_how_far_it_came(photos):
    """JPEG hardly changes what it has compressed: 18 dB are out of its reach."""
    severities = calibrate(photos, "jpeg", (34.0, 5.0))
    assert severities[0].psnr == pytest.approx(34, abs=1.5)
    assert severities[1].psnr > 12


def test_amounts_below_nought_blend_and_above_one_repeat(photos):
    image = photos[0]
    assert (changed(image, "emboss", -1.0, generator_for(0, "x")) == image).all()
    mildest = changed(image, "emboss", 0.0, generator_for(0, "x"))
    half = changed(image, "emboss", -0.5, generator_for(0, "x"))
    assert np.abs(half.astype(float) - (image.astype(float) + mildest) / 2).max() <= 1
    generator = generator_for(0, "x")
    twice = OPERATIONS["gaussian_blur"](OPERATIONS["gaussian_blur"](image, 1.0, generator), 0.5, generator)
    assert (changed(image, "gaussian_blur", 1.5, generator_for(0, "x")) == twice).all()


def test_every_operation_has_a_family_and_files_hold_severities(photos):
    assert set(FAMILY_OF) == {*OPERATIONS, *WARPS, *SOCIAL}
    severities = {name: calibrate(photos[:1], name, (30.0,)) for name in ("rotate", "upload")}
    assert severities["rotate"][0].psnr is None
    assert from_json(as_json(severities)) == severities


@pytest.mark.parametrize("name", SOCIAL)
def test_passing_on_keeps_the_size_and_hurts_more_the_stronger(photos, name):
    operation = SOCIAL[name]
    image = np.array(Image.fromarray(photos[0]).resize((95, 71)))
    results = [operation(image, strength, generator_for(4, name)) for strength in (0.0, 1.0, 1.0)]
    assert all(result.shape == image.shape and result.dtype == np.uint8 for result in results)
    assert (results[1] == results[2]).all()  # the generator is the only source of chance
    assert psnr(image, results[1]) < psnr(image, results[0]) < 60
    tiny = np.full((1, 3, 3), 100, np.uint8)
    assert operation(tiny, 1.0, generator_for(0, name)).shape == tiny.shape
