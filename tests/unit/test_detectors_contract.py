"""What every detector promises, whatever is inside it."""

from __future__ import annotations

import copy
import io
from contextlib import redirect_stdout

import numpy
import pytest
import torch
from detector_scenes import SETTINGS, TINY, confident, random_boxes, scenes, target_of, tiny
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from comics.detectors import NAMES, build, detector_class, register
from comics.detectors.base import LevelProposals
from comics.errors import UserError
from comics.params import ModelParams

DETECTORS = list(NAMES)

every_detector = pytest.mark.parametrize("name", DETECTORS)


def gradients(detector):
    return [parameter.grad for parameter in detector.parameters() if parameter.grad is not None]


@every_detector
@pytest.mark.parametrize("counts", [[0], [0, 0], [1], [50, 3], [2, 0]])
def test_losses_are_finite_and_reach_every_part(name, counts):
    detector = tiny(name)
    images, targets, sizes = scenes([random_boxes(count, 96, 128, seed) for seed, count in enumerate(counts)], 96, 128)
    losses = detector.losses(detector(images), targets, sizes)
    assert all(value.shape == () and value.isfinite() and value >= 0 for value in losses.values())
    sum(losses.values()).backward()
    assert all(gradient.isfinite().all() for gradient in gradients(detector))
    if sum(counts) > 1:
        unreached = [key for key, value in detector.named_parameters() if value.grad is None]
        assert not unreached


@every_detector
def test_one_pixel_faces(name):
    detector = tiny(name)
    boxes = [[[4.0, 4.0, 5.0, 5.0], [60.5, 20.0, 61.5, 21.0], [0, 0, 1, 1], [127, 95, 128, 96]]]
    images, targets, sizes = scenes(boxes, 96, 128)
    losses = detector.losses(detector(images), targets, sizes)
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(gradient.isfinite().all() for gradient in gradients(detector))


@every_detector
def test_a_face_without_a_pixel(name):
    """A mask that a crop has emptied, and a box without area."""
    detector = tiny(name)
    images, targets, sizes = scenes([[[20, 20, 60, 70], [30, 30, 30, 30]]], 96, 128)
    targets[0]["masks"][:] = False
    losses = detector.losses(detector(images), targets, sizes)
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(gradient.isfinite().all() for gradient in gradients(detector))


def check(prediction, size):
    count = len(prediction["scores"])
    assert prediction["boxes"].shape == (count, 4)
    assert prediction["boxes"].dtype == prediction["scores"].dtype == torch.float32
    assert prediction["labels"].shape == (count,)
    assert prediction["labels"].dtype == torch.int64
    assert prediction["masks"].shape == (count, *size)
    assert prediction["masks"].dtype == torch.bool
    assert torch.equal(prediction["soft"].at(size), prediction["masks"])
    assert prediction["soft"].at((2 * size[0], 3 * size[1])).shape == (count, 2 * size[0], 3 * size[1])
    assert (prediction["scores"].diff() <= 0).all()
    assert ((prediction["scores"] >= 0) & (prediction["scores"] <= 1)).all()
    if "mask_scores" in prediction:
        assert prediction["mask_scores"].shape == (count,)
        assert prediction["mask_scores"].dtype == torch.float32
        assert ((prediction["mask_scores"] >= 0) & (prediction["mask_scores"] <= 1)).all()
    assert set(prediction["labels"].tolist()) <= {0, 1}
    height, width = size
    left, top, right, bottom = prediction["boxes"].unbind(1)
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (right <= width).all()
    assert (bottom <= height).all()
    assert (right > left).all()
    assert (bottom > top).all()


@every_detector
def test_predictions_keep_to_the_size_of_each_image(name):
    detector = confident(tiny(name)).eval()
    sizes = [(96, 128), (50, 128), (96, 33), (1, 1)]
    images, _, _ = scenes([random_boxes(3, 96, 128, seed) for seed in range(4)], 96, 128)
    for image, (height, width) in zip(images, sizes, strict=True):
        image[:, height:] = 0
        image[:, :, width:] = 0
    with torch.no_grad():
        predictions = detector.predict(detector(images), sizes)
    assert any(len(prediction["scores"]) for prediction in predictions)
    for prediction, size in zip(predictions, sizes, strict=True):
        check(prediction, size)


@every_detector
def test_nothing_to_detect(name):
    detector = tiny(name, score_threshold=1.0).eval()
    with torch.no_grad():
        (prediction,) = detector.predict(detector(torch.rand(1, 3, 64, 64)), [(60, 50)])
    assert len(prediction["scores"]) == 0
    check(prediction, (60, 50))


def ranked(prediction):
    """Detections by score, those whose scores rounding may exchange by box."""
    keys = [
        (-round(score, 4), label, *(round(side) for side in box))
        for score, label, box in zip(
            prediction["scores"].tolist(), prediction["labels"].tolist(), prediction["boxes"].tolist(), strict=True
        )
    ]
    order = torch.tensor(sorted(range(len(keys)), key=keys.__getitem__), dtype=torch.int64)
    return {key: value[order] for key, value in prediction.items()}


@every_detector
def test_a_batch_is_its_images_one_at_a_time(name):
    detector = confident(tiny(name)).eval()
    images, _, _ = scenes([random_boxes(count, 96, 128, seed) for seed, count in enumerate((3, 0, 1))], 96, 128)
    sizes = [(96, 128), (90, 100), (64, 128)]
    with torch.no_grad():
        together = detector.predict(detector(images), sizes)
        for index, size in enumerate(sizes):
            (alone,) = detector.predict(detector(images[index : index + 1]), [size])
            alone, whole = ranked(alone), ranked(together[index])
            torch.testing.assert_close(alone["scores"], whole["scores"], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(alone["boxes"], whole["boxes"], rtol=1e-3, atol=1e-2)
            assert torch.equal(alone["labels"], whole["labels"])
            assert (alone["masks"] == whole["masks"]).float().mean() > 0.999


@every_detector
def test_bf16_follows_float32(name):
    detector = tiny(name)
    images, targets, sizes = scenes([random_boxes(3, 96, 128, seed) for seed in range(2)], 96, 128)
    torch.manual_seed(0)
    single = detector.losses(detector(images), targets, sizes)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        half = detector.losses(detector(images), targets, sizes)
    for key, value in single.items():
        assert half[key].dtype == torch.float32
        # two-stage detectors draw a few boxes among proposals that rounding has moved
        relative = 0.4 if "rois" in SETTINGS.get(name, {}) else 0.05
        assert half[key].item() == pytest.approx(value.item(), rel=relative, abs=0.01), key
    sum(half.values()).backward()
    assert all(gradient.isfinite().all() for gradient in gradients(detector))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        predictions = confident(detector).eval().predict(detector(images), sizes)
    for prediction, size in zip(predictions, sizes, strict=True):
        check(prediction, size)


@every_detector
def test_a_seed_decides_everything(name):
    images, targets, sizes = scenes([random_boxes(3, 96, 128, seed) for seed in range(2)], 96, 128)

    def steps():
        detector = tiny(name, seed=5)
        optimizer = torch.optim.SGD(detector.parameters(), 0.01, momentum=0.9)
        torch.manual_seed(7)
        for _ in range(2):
            optimizer.zero_grad()
            loss = sum(detector.losses(detector(images), targets, sizes).values())
            loss.backward()
            optimizer.step()
        return detector.state_dict(), loss.item()

    (one, loss), (other, again) = steps(), steps()
    assert loss == again
    assert all(torch.equal(one[key], other[key]) for key in one)


@every_detector
def test_what_the_contrast_needs(name):
    detector = tiny(name)
    images, targets, _ = scenes([random_boxes(count, 96, 128, seed) for seed, count in enumerate((2, 0, 1))], 96, 128)
    features = detector.extractor(detector.normalise(images))
    assert len(features) == len(detector.strides)
    for level, stride in zip(features, detector.strides, strict=True):
        assert level.shape == (3, detector.channels, -(-96 // stride), -(-128 // stride))
    outputs = detector.forward_heads(features)
    for proposals in (detector.proposals(outputs), detector.propose(features)):
        assert len(proposals) == len(features)
        for one, level in zip(proposals, features, strict=True):
            assert isinstance(one, LevelProposals)
            assert one.boxes.shape == (3, len(one.locations), 4)
            assert one.boxes.dtype == torch.float32
            assert not one.boxes.requires_grad
            assert one.locations.dtype == torch.int64
            assert one.locations.max() < level.shape[2] * level.shape[3]
    crops = detector.roi_mask_features(outputs, [target["boxes"] for target in targets], 14)
    assert crops.shape == (3, detector.mask_channels, 14, 14)
    crops.square().sum().backward()
    assert any(parameter.grad.abs().sum() > 0 for parameter in detector.extractor.parameters())
    none = detector.roi_mask_features(outputs, [target["boxes"][:0] for target in targets], 14)
    assert none.shape == (0, detector.mask_channels, 14, 14)


@every_detector
def test_copies_and_state_dicts(name):
    detector = tiny(name, seed=1).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        clone = copy.deepcopy(detector.extractor)
        for one, other in zip(detector.extractor(images), clone(images), strict=True):
            assert torch.equal(one, other)
        detector.double()
        other = tiny(name, seed=2)
        other.load_state_dict(detector.float().state_dict())
        for key, value in detector.state_dict().items():
            assert torch.equal(value, other.state_dict()[key])


def average_precision(targets, predictions, task):
    """COCO AP over both classes, of boxes or masks."""
    truth: dict = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "Real"}, {"id": 2, "name": "Fake"}],
    }
    results = []
    for image, (target, prediction) in enumerate(zip(targets, predictions, strict=True), 1):
        height, width = target["masks"].shape[1:]
        truth["images"].append({"id": image, "height": height, "width": width})
        for found, container in ((target, truth["annotations"]), (prediction, results)):
            for index, mask in enumerate(found["masks"]):
                left, top, right, bottom = found["boxes"][index].tolist()
                code = rle.encode(numpy.asfortranarray(mask.numpy().astype(numpy.uint8)))
                entry = {
                    "image_id": image,
                    "category_id": int(found["labels"][index]) + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "segmentation": code,
                    "area": float(rle.area(code)),
                    "iscrowd": 0,
                }
                if found is prediction:
                    scores = prediction.get("mask_scores") if task == "segm" else None
                    entry["score"] = float((prediction["scores"] if scores is None else scores)[index])
                else:
                    entry["id"] = len(container) + 1
                container.append(entry)
    with redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), task)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * evaluation.stats[0]


FOUR = [
    [[8, 10, 40, 50], [60, 30, 90, 70]],
    [[30, 20, 62, 60]],
    [[4, 40, 36, 80], [44, 8, 70, 40], [56, 56, 88, 90]],
    [[20, 16, 76, 84]],
]
STEPS = {
    "blendmask": 80,
    "centermask": 80,
    "condinst": 100,
    "meinst": 100,
    "mask_rcnn": 70,
    "ms_rcnn": 70,
    "polarmask": 120,
    "retinamask": 80,
    "solo": 160,
    "solov2": 60,
    "two_phase": 80,
    "yolact": 90,
    "yolact_plus": 80,
}


@every_detector
def test_overfits_four_images(name):
    images, targets, sizes = scenes(FOUR, 96, 96)
    detector = tiny(name)
    optimizer = torch.optim.Adam(detector.parameters(), 2e-3)
    for step in range(STEPS[name]):
        if step == STEPS[name] * 3 // 4:
            optimizer.param_groups[0]["lr"] /= 10
        optimizer.zero_grad()
        sum(detector.losses(detector(images), targets, sizes).values()).backward()
        optimizer.step()
    detector.eval()
    for half in (False, True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            predictions = detector.predict(detector(images), sizes)
        if detector.predicts_boxes:
            assert average_precision(targets, predictions, "bbox") > 80
        assert average_precision(targets, predictions, "segm") > 80


def test_an_unknown_detector_is_told_the_nearest():
    with pytest.raises(UserError, match="blendmask"):
        build("blendmaks", ModelParams())


def test_a_registered_detector_is_built():
    kind = type("TestOnly", (detector_class("blendmask"),), {})
    assert register("test_only")(kind) is kind
    assert type(build("test_only", TINY, 2)) is kind


def test_normalisation_is_that_of_the_weights():
    detector = tiny("blendmask")
    white = detector.normalise(torch.ones(1, 3, 2, 2))
    assert white[0, :, 0, 0].tolist() == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])


def test_the_scene_helper_draws_what_it_says():
    target = target_of([[10, 10, 30, 50]], [1], 64, 64)
    area = target["masks"].sum().item()
    assert area == pytest.approx(3.14159 * 10 * 20, rel=0.02)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_detector
def test_a_gpu_gives_what_the_processor_gives(name):
    images, targets, sizes = scenes([random_boxes(count, 96, 128, seed) for seed, count in enumerate((3, 0))], 96, 128)
    detector = confident(tiny(name)).eval()
    with torch.no_grad():
        expected = detector.proposals(detector(images))
        detector.cuda()
        outputs = detector(images.cuda())
        for one, other in zip(expected, detector.proposals(outputs), strict=True):
            torch.testing.assert_close(one.boxes, other.boxes.cpu(), rtol=0.02, atol=2.0)
            assert torch.equal(one.locations, other.locations.cpu())
        for prediction, size in zip(detector.predict(outputs, sizes), sizes, strict=True):
            check({key: value.cpu() for key, value in prediction.items()}, size)
    moved = [{key: value.cuda() for key, value in target.items()} for target in targets]
    losses = detector.train().losses(detector(images.cuda()), moved, sizes)
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(gradient.isfinite().all() for gradient in gradients(detector))
