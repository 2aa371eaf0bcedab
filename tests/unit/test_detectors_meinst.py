"""MEInst: principal components against a singular value decomposition, codes there and back, and the loss."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from detector_scenes import confident, random_boxes, scenes, tiny
from pycocotools import mask as rle
from torch.nn import functional
from typer.testing import CliRunner

from comics import cli
from comics.detectors.fcos import crop_masks, flatten
from comics.detectors.mask_codec import (
    FILE,
    SIDE,
    crop,
    encode_masks,
    fit,
    load,
    logits_of,
    reconstruction,
)
from comics.detectors.meinst import cosine_basis
from comics.errors import UserError
from comics.provenance import read_sidecar


def ellipses(count, seed=0):
    random = np.random.default_rng(seed)
    grid = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    tilt, flat = random.uniform(-0.5, 0.5, (2, count, 1, 1))
    x, y = np.meshgrid(grid, grid)
    return (x + tilt * y) ** 2 + ((1 + flat) * y) ** 2 < 0.2


@pytest.mark.parametrize("count", [40, 1500])
def test_components_are_those_of_the_singular_value_decomposition(count):
    masks = ellipses(count)
    codec = fit([masks[:17], masks[17:]], seed=3)
    random = np.random.default_rng(3)
    logits = np.concatenate([logits_of(part.reshape(-1, SIDE**2), random) for part in (masks[:17], masks[17:])])
    np.testing.assert_allclose(codec.mean, logits.mean(axis=0), atol=1e-9)
    _, singular, vectors = np.linalg.svd(logits - logits.mean(axis=0), full_matrices=False)
    length = 5
    np.testing.assert_allclose(codec.variances[:length], (singular**2 / (count - 1))[:length], rtol=1e-6)
    products = np.abs((codec.components[:length] * vectors[:length]).sum(axis=1))
    np.testing.assert_allclose(products, 1, atol=1e-6)
    codes = codec.encode(logits, length)
    np.testing.assert_allclose(codes.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(codes.var(axis=0, ddof=1), 1, rtol=1e-6)


def test_all_components_lose_nothing_and_few_lose_little():
    masks = ellipses(300)
    codec = fit([masks])
    assert reconstruction(codec, masks, SIDE**2) == 1
    assert reconstruction(codec, ellipses(50, seed=9), 20) > 0.9


def test_one_mask_is_too_few():
    with pytest.raises(ValueError, match="two masks"):
        fit([ellipses(1)])


def test_polygons_and_rle_are_cropped_alike():
    ring = [40.0, 10.0, 90.0, 30.0, 70.0, 90.0, 30.0, 60.0]
    box = [30.0, 10.0, 60.0, 80.0]
    (code,) = rle.frPyObjects([ring], 120, 160)
    uncompressed = {"size": [120, 160], "counts": _counts(rle.decode(code))}
    polygon = crop({"bbox": box, "segmentation": [ring]}, (120, 160))
    assert polygon.shape == (SIDE, SIDE)
    for segmentation in (code, uncompressed):
        other = crop({"bbox": box, "segmentation": segmentation}, (120, 160))
        assert (polygon & other).sum() / (polygon | other).sum() > 0.9


def _counts(mask):
    flat, counts, value = mask.ravel(order="F"), [0], 0
    for pixel in flat.tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def write_training_split(folder, faces):
    annotations = [
        {
            "id": index + 1,
            "image_id": 1,
            "category_id": 1,
            "bbox": [10, 10, 20 + index, 30],
            "segmentation": [[10, 10, 30 + index, 10, 30 + index, 40 - index % 7, 12 + index % 5, 40]],
            "area": 500,
            "iscrowd": 0,
        }
        for index in range(faces)
    ]
    folder.mkdir(parents=True)
    content = {
        "categories": [{"id": 1, "name": "Real"}, {"id": 2, "name": "Fake"}],
        "images": [{"id": 1, "file_name": "images/1.jpg", "height": 100, "width": 160}],
        "annotations": annotations,
    }
    (folder / "annotations.json").write_text(json.dumps(content))


def test_the_pipeline_step_and_what_the_detector_reads(tmp_path):
    write_training_split(tmp_path / "train", 80)
    count, quality = encode_masks(tmp_path / "train" / "annotations.json", tmp_path / FILE)
    assert count == 80
    assert 0.9 < quality[60] <= 1
    first = (tmp_path / FILE).read_bytes()
    encode_masks(tmp_path / "train" / "annotations.json", tmp_path / FILE)
    assert (tmp_path / FILE).read_bytes() == first
    assert read_sidecar(tmp_path / FILE)["masks"] == 80

    codec = load(tmp_path / FILE)
    detector = tiny("meinst")
    detector.prepare(tmp_path)
    masks = torch.from_numpy(ellipses(10)).float()
    torch.manual_seed(2)
    codes = detector.encode(masks)
    torch.manual_seed(2)
    outside = torch.rand_like(masks).mul(0.05).clamp(min=0.01).double().logit().numpy()
    logits = np.where(masks.numpy() > 0.5, -outside, outside).reshape(10, -1)
    np.testing.assert_allclose(codes.numpy(), codec.encode(logits, 60), rtol=1e-2, atol=1e-2)
    decoded = 1 / (1 + np.exp(-codec.decode(codes.double().numpy())))
    np.testing.assert_allclose(detector.decode(codes).flatten(1).numpy(), decoded, atol=1e-3)

    other = tiny("meinst", seed=3)
    other.load_state_dict(detector.state_dict())
    assert torch.equal(other.components, detector.components)


def test_the_command(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text(
        "dataset: mini\ndatasets: {mini: {kind: mini}}\nseeds: [0]\ntraining: {openforensics: {}}\n"
        "models: {openforensics: {}}\nruns: {plain: {detector: meinst}}\n"
    )
    monkeypatch.chdir(tmp_path)
    write_training_split(tmp_path / "data" / "mini" / "train", 30)
    result = CliRunner().invoke(cli.app(), ["data", "encode-masks"])
    assert result.exit_code == 0, result.output
    assert "30 masks" in result.output
    assert (tmp_path / "data" / "mini" / FILE).exists()


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match="encode-masks"):
        tiny("meinst").prepare(tmp_path)
    (tmp_path / FILE).write_text("no codec")
    with pytest.raises(UserError, match="not a mask code"):
        load(tmp_path / FILE)
    with pytest.raises(UserError, match="no such file"):
        encode_masks(tmp_path / "train" / "annotations.json", tmp_path / FILE)
    write_training_split(tmp_path / "train", 0)
    with pytest.raises(UserError, match="two are needed"):
        encode_masks(tmp_path / "train" / "annotations.json", tmp_path / FILE)


def test_the_cosine_basis_is_orthonormal():
    basis = cosine_basis(SIDE, SIDE**2)
    torch.testing.assert_close(basis @ basis.T, torch.eye(SIDE**2), atol=1e-5, rtol=0)
    torch.testing.assert_close(basis[0], torch.full((SIDE**2,), 1 / SIDE))


def test_mask_loss_is_that_of_plain_loops():
    detector = confident(tiny("meinst"))
    images, targets, sizes = scenes(
        [random_boxes(count, 96, 128, seed) for seed, count in enumerate((2, 0, 3))], 96, 128
    )
    outputs = detector(images)
    torch.manual_seed(4)
    loss = detector.losses(outputs, targets, sizes)["mask"].item()
    matches = detector.match(outputs, targets)
    torch.manual_seed(4)
    wanted = detector.encode(crop_masks(targets, SIDE))
    codes = flatten(
        [functional.conv2d(one, detector.code.weight, detector.code.bias, padding=1) for one in outputs.mask_towers]
    )
    total = weight = 0.0
    for image, location, face, centre in zip(
        *(part.tolist() for part in (matches.images, matches.locations, matches.faces, matches.centerness)), strict=True
    ):
        error = sum((a - b) ** 2 for a, b in zip(codes[image, location].tolist(), wanted[face].tolist(), strict=True))
        total += centre * error
        weight += centre
    assert loss == pytest.approx(total / max(60 * weight, 1), rel=1e-4)


def test_the_threshold_is_for_the_class_probability_alone():
    detector = tiny("meinst", score_threshold=0.5).eval()
    torch.nn.init.constant_(detector.head.cls_logits.bias, 2.0)
    torch.nn.init.constant_(detector.head.ctrness.bias, -5.0)
    torch.nn.init.constant_(detector.head.bbox_pred.bias, 1.0)
    with torch.no_grad():
        (prediction,) = detector.predict(detector(torch.rand(1, 3, 64, 64)), [(64, 64)])
    assert len(prediction["scores"]) > 0
    assert prediction["scores"].max() < 0.5
