"""Padding: what an image's batch is padded to, and with, counts nowhere."""

from __future__ import annotations

import pytest
import torch
from detector_scenes import confident, draw, target_of, tiny
from test_model import model_of, run_of
from torch import Tensor

from comics.attention import FeatureResiduals, FrequencyAttention, ImageResiduals
from comics.data.loading.batches import Batch, padded
from comics.data.loading.loaders import SizeBatches
from comics.detectors import NAMES
from comics.model import Comics
from comics.padding import blank, extend
from comics.params import AttentionParams

SIZES = [(87, 91), (53, 120)]  # no multiple of 32; together 96 x 128
FACES = [[[8.0, 6.0, 44.0, 52.0], [48.0, 40.0, 84.0, 84.0]], [[60.0, 8.0, 100.0, 50.0]]]


def scene(content: float) -> Batch:
    """Two images of different sizes; the padding holds `content`."""
    images = torch.full((2, 3, 96, 128), content)
    targets = []
    for slot, faces, (height, width) in zip(images, FACES, SIZES, strict=True):
        own = target_of(faces, [index % 2 for index in range(len(faces))], height, width)
        slot[:, :height, :width] = draw(own, 3)
        masks = torch.zeros(len(faces), 96, 128, dtype=torch.bool)
        masks[:, :height, :width] = own["masks"]
        targets.append({**own, "masks": masks})
    return Batch(images, None, targets, SIZES, [1, 2], SIZES)


def normalised_then_padded(detector, batch: Batch) -> Tensor:
    """What detectron2 and AdelaiDet (`ImageList.from_tensors`) feed: each image normalised alone, then zeros beside it."""
    result = torch.zeros_like(batch.images)
    for slot, image, (height, width) in zip(result, batch.images, batch.sizes, strict=True):
        own = image[:, :height, :width]
        slot[:, :height, :width] = (own - detector.pixel_mean[0]) / detector.pixel_std[0]
    return result


def test_blank_and_extend_are_plain_loops() -> None:
    maps = torch.arange(2 * 1 * 4 * 6, dtype=torch.float32).view(2, 1, 4, 6) + 1
    sizes = [(9, 31), (16, 24)]  # of 16 x 48 px at stride 8: 2 x 4 and 2 x 3 cells, which is less than 4 x 6
    for image, (rows, columns) in enumerate([(2, 4), (2, 3)]):
        for y in range(4):
            for x in range(6):
                inside = y < rows and x < columns
                value = maps[image, 0, y, x]
                assert blank(maps, sizes, 8)[image, 0, y, x] == (value if inside else 0)
                assert extend(maps, sizes, 8)[image, 0, y, x] == maps[image, 0, min(y, rows - 1), min(x, columns - 1)]
    for same in (None, [(32, 48), (40, 48)]):
        assert blank(maps, same, 8) is maps
        assert extend(maps, same, 8) is maps


@pytest.mark.parametrize("name", NAMES)
def test_networks_see_what_the_references_see_in_training(name: str) -> None:
    detector = tiny(name).train()
    losses = []
    for batch, seen in [
        (scene(0.0), None),
        (scene(9.0), None),
        (scene(0.0), normalised_then_padded(detector, scene(0.0))),
    ]:
        torch.manual_seed(5)  # samplers and tie breaks
        for part in detector.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.reset_running_stats()
        outputs = (
            detector(batch.images, batch.sizes)
            if seen is None
            else detector.look(batch.images, detector.extractor(seen.contiguous(memory_format=torch.channels_last)))
        )
        losses.append(detector.losses(outputs, batch.targets, batch.sizes))
    for term in losses[0]:
        assert torch.isfinite(losses[0][term]), term
        assert torch.equal(losses[1][term], losses[0][term]), term
        torch.testing.assert_close(losses[2][term], losses[0][term], rtol=1e-5, atol=1e-5, msg=term)


@pytest.mark.parametrize("components", [[], ["attention"]], ids=["plain", "attention"])
@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_seen_alike_whoever_its_neighbours_are(name: str, components: list[str]) -> None:
    torch.manual_seed(0)
    model = Comics(run_of(components, name)).eval()
    confident(model.detector)
    both = scene(0.7)
    together = model.predict(both.images, both.sizes)
    for index, (height, width) in enumerate(SIZES):
        alone = torch.rand(1, 3, padded(height), padded(width))
        alone[0, :, :height, :width] = both.images[index, :, :height, :width]
        (found,) = model.predict(alone, [(height, width)])
        assert len(found["scores"]) or name == "mask_rcnn"
        assert len(found["scores"]) == len(together[index]["scores"])
        torch.testing.assert_close(found["boxes"], together[index]["boxes"], rtol=1e-4, atol=1e-2)
        torch.testing.assert_close(found["scores"], together[index]["scores"], rtol=1e-4, atol=1e-5)
        assert found["masks"].shape[1:] == (height, width)
        assert (found["masks"] != together[index]["masks"]).float().mean() < 1e-3 if len(found["masks"]) else True
        seen = normalised_then_padded(model.detector, Batch(alone, None, [], [(height, width)], [1], []))
        torch.testing.assert_close(model.detector.normalise(alone, [(height, width)]), seen, rtol=0, atol=0)


def test_contrast_does_not_see_the_padding_either() -> None:
    terms = []
    for content in (0.0, 1.0):
        model = model_of(["attention", "coarse", "fine"], "blendmask")
        for _ in range(2):
            losses = model.losses(scene(content))
            model.after_step()
        terms.append(losses.terms)
    for name in terms[0]:
        assert torch.equal(terms[0][name], terms[1][name]), name
    assert terms[0]["loss_intra"] > 0


def test_the_end_of_an_image_is_no_residual() -> None:
    flat = torch.zeros(1, 3, 64, 64)
    flat[..., :40, :40] = 0.7
    assert ImageResiduals()(flat).abs().max() > 0.9  # the black edge
    assert ImageResiduals()(flat, [(40, 40)]).abs().max() < 1e-4
    level = torch.full((1, 4, 8, 8), 2.0)
    level[..., :5, :5] = 5.0
    assert FeatureResiduals(4)(level, [(40, 40)], 8).abs().max() < 1e-5

    torch.manual_seed(2)
    image = torch.rand(1, 3, 40, 40)
    inside = ImageResiduals()(image)
    batch = torch.rand(1, 3, 64, 64)
    batch[..., :40, :40] = image
    found = ImageResiduals()(batch, [(40, 40)])
    torch.testing.assert_close(found[..., :40, :40], inside)
    assert found[..., 40:, :].abs().max() == 0
    assert found[..., 40:].abs().max() == 0


def test_gradients_of_residuals_come_from_inside() -> None:
    module = FrequencyAttention(6, (4,), AttentionParams(channels=(4, 4))).double().eval()
    images = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    feature = torch.rand(1, 6, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda level: module(images, [level], [(9, 12)])[0], feature)
    residuals = FeatureResiduals(6).double()(feature, [(9, 12)], 4)
    (gradient,) = torch.autograd.grad(residuals.square().sum(), feature)
    assert gradient[..., 3:, :].abs().max() == 0
    assert gradient[..., 3:].abs().max() == 0
    assert gradient[..., :3, :3].abs().max() > 0


def test_evaluation_batches_hold_one_padded_size() -> None:
    sizes = [(50, 60), (64, 64), (65, 64), (33, 64), (90, 64), (40, 40)]
    batches = SizeBatches(sizes, 2)
    assert list(batches) == [[0, 1], [2, 4], [3, 5]]
    assert len(batches) == 3
    assert list(SizeBatches([], 2)) == []
