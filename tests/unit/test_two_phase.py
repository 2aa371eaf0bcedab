"""Two phases: crops, classes taken as one, runs whose faces another run finds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detector_scenes import COLOURS, confident, scenes, tiny

from comics.data.loading.batches import Batch
from comics.detectors import Prediction
from comics.detectors.two_phase import TwoPhase, jittered, one_a_face, squares
from comics.errors import UserError
from comics.model import Comics
from comics.params import ResolvedRun, load
from comics.params.described import from_description
from comics.training.checkpoint import save_weights

SMALL = """
dataset: mini
datasets: {mini: {kind: mini}}
training: {mini: {epochs: 1}}
models:
  mini: &model
    backbone: resnet18
    backbone_width: 0.25
    fpn_channels: 16
    head_channels: 16
    head_convs: 1
    mask_channels: 16
    two_phase: {classifier: resnet18, classifier_width: 0.25, crop: 64}
runs:
  finds: {detector: condinst, components: [attention], inference: {nms_threshold: 0.4}}
  plain: {detector: two_phase, model: {two_phase: {faces: finds}}}
  dcl: {detector: two_phase, components: [views, dual], model: {two_phase: {faces: finds}}, objective: {dual: {queue_size: 8}}}
  own: {detector: two_phase}
"""


def params_of(folder: Path, text: str = SMALL):
    path = folder / "params.yaml"
    path.write_text(text)
    return load(path)


def every_run(folder: Path, text: str) -> None:
    params = params_of(folder, text)
    for run in params.runs:
        params.resolve(run)


def test_squares_keep_to_the_face() -> None:
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    assert squares(boxes, 0.5).tolist() == [[-10.0, 10.0, 50.0, 70.0]]
    torch.manual_seed(0)
    many = jittered(squares(boxes, 0.5).expand(200, 4), 0.1)
    side, centre = many[:, 2] - many[:, 0], (many[:, :2] + many[:, 2:]) / 2
    torch.testing.assert_close(side, many[:, 3] - many[:, 1])
    assert 53.99 < side.min() < side.max() < 66.01
    assert (centre - torch.tensor([20.0, 40.0])).abs().max() < 6.01
    torch.testing.assert_close(jittered(squares(boxes, 0.5), 0.0), squares(boxes, 0.5))


def test_two_classes_of_a_face_are_one() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [30, 30, 40, 40]])
    found = Prediction(
        boxes=boxes,
        scores=torch.tensor([0.9, 0.8, 0.4]),
        labels=torch.tensor([0, 1, 1]),
        masks=torch.zeros(3, 50, 50, dtype=torch.bool),
    )
    one = one_a_face(found, 0.5)
    assert one["scores"].tolist() == pytest.approx([0.9, 0.4])
    assert torch.equal(one["boxes"], boxes[[0, 2]])


def test_each_face_is_told_by_its_own_crop() -> None:
    """The classifier, trained alone on faces of two colours, tells them apart wherever they are."""
    detector = tiny("two_phase")
    images, targets, sizes = scenes([[[8, 10, 40, 50], [60, 30, 90, 70]], [[30, 20, 62, 60], [2, 60, 30, 90]]], 96, 96)
    optimizer = torch.optim.Adam(detector.classifier.parameters(), 2e-3)
    for _ in range(12):
        optimizer.zero_grad()
        detector.losses(detector.look(images, detector.extractor(images)), targets, sizes)["class"].backward()
        optimizer.step()
    detector.eval()
    image = torch.full((1, 3, 64, 96), 0.45)
    image[0, :, 10:40, 8:38] = COLOURS[1][:, None, None]
    image[0, :, 20:50, 55:85] = COLOURS[0][:, None, None]
    boxes = torch.tensor([[8.0, 10, 38, 40], [55.0, 20, 85, 50]])
    with torch.no_grad():
        logits = detector.classifier.logits(detector.classifier(image, [squares(boxes, 0.3)], [(64, 96)]))
    assert logits.argmax(dim=1).tolist() == [1, 0]


def test_both_classes_share_the_score_of_a_face() -> None:
    detector = confident(tiny("two_phase", score_threshold=0.0, max_detections=200)).eval()
    assert isinstance(detector, TwoPhase)
    images, _, sizes = scenes([[[8, 10, 40, 50]]], 96, 96)
    with torch.no_grad():
        outputs = detector(images, sizes)
        (found,) = detector.predict(outputs, sizes)
        (faces,) = detector.faces.predict(outputs.found, sizes)
    faces = one_a_face(faces, detector.inference.nms_threshold)
    assert len(found["scores"]) == min(200, 2 * len(faces["scores"])) > 2
    mine = (found["boxes"] == found["boxes"][0]).all(dim=1)
    match = (faces["boxes"] == found["boxes"][0]).all(dim=1).nonzero()[0, 0]
    assert set(found["labels"][mine].tolist()) == {0, 1}
    assert found["scores"][mine].sum().item() == pytest.approx(faces["scores"][match].item(), rel=1e-4)


def test_what_finds_the_faces_decides_the_run(tmp_path: Path) -> None:
    params = params_of(tmp_path)
    run, finds = params.resolve("plain"), params.resolve("finds")
    assert run.start == finds
    assert "finds" in params.starts
    assert run.model.settings.detector == "condinst"
    assert run.inference.nms_threshold == 0.4
    assert run.components == {"attention"}
    assert (
        run.description["model"]["start"] == run.description["model"]["two_phase"]["faces"] == finds.checkpoint_digest
    )
    other = params_of(tmp_path, SMALL.replace("head_convs: 1", "head_convs: 2")).resolve("plain")
    assert other.checkpoint_digest != run.checkpoint_digest
    slower = params_of(tmp_path, SMALL.replace("nms_threshold: 0.4", "nms_threshold: 0.5")).resolve("plain")
    assert slower.checkpoint_digest == run.checkpoint_digest  # found otherwise, trained alike
    assert slower.digest != run.digest
    back = from_description(run.description, "plain", "model.pt")
    assert isinstance(back, ResolvedRun)
    assert back.description["model"]["two_phase"] == run.description["model"]["two_phase"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("faces: finds}}}", "faces: find}}}", r"runs\.plain\.model\.two_phase\.faces: there is no run 'find'"),
        ("faces: finds}}}", "faces: own}}}", "'own' has two phases itself"),
        (
            "{two_phase: {faces: finds}}}",
            "{backbone: resnet34, two_phase: {faces: finds}}}",
            r"model\.backbone: has no",
        ),
        ("plain: {", "plain: {components: [coarse], ", r"components: coarse has no effect"),
        ("own: {detector: two_phase}", "own: {components: [dual]}", "dual compares crops"),
        ("classifier: resnet18", "classifier: resnet17", "classifier"),
        ("crop: 64}", "crop: 64, detector: meinst}", "meinst needs files"),
        ("crop: 64}", "crop: 64, detector_settings: {sides: 3}}", r"detector_settings\.sides"),
    ],
)
def test_what_does_not_go_together_is_told(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        every_run(tmp_path, SMALL.replace(old, new, 1))


def batch_of(boxes: list[list[list[float]]]) -> Batch:
    images, targets, sizes = scenes(boxes, 64, 64)
    return Batch(images, images.flip(0) * 0.9, targets, sizes, [*range(len(boxes))], sizes)


def test_the_faces_stay_and_the_classifier_learns(tmp_path: Path) -> None:
    params = params_of(tmp_path)
    torch.manual_seed(0)
    first = Comics(params.resolve("finds"))
    file = tmp_path / params.resolve("finds").weights_file
    file.parent.mkdir(parents=True)
    save_weights(file, first, params.resolve("finds"))
    model = Comics(params.resolve("dcl").from_start(tmp_path)).train()
    state = {name.replace("detector.", "detector.faces.", 1): one for name, one in first.state_dict().items()}
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], 0.01)
    before = model.detector.classifier.head.weight.clone()
    for boxes in ([[[8.0, 8, 40, 40], [30, 30, 60, 60]], []], [[], []], [[[8.0, 8, 40, 40], [30, 30, 60, 60]], []]):
        optimizer.zero_grad()
        losses = model.losses(batch_of(boxes))
        assert set(losses.terms) == {"class", "loss_dual_inter", "loss_dual_intra"}
        assert losses.total.isfinite()
        losses.total.backward()
        optimizer.step()
        model.after_step()
    assert losses.terms["loss_dual_inter"].item() > 0
    assert not torch.equal(model.detector.classifier.head.weight, before)
    after = model.state_dict()
    assert set(state) <= set(after)
    assert all(torch.equal(after[name], one) for name, one in state.items())
    model.eval()
    again = Comics(from_description(params.resolve("dcl").description, "dcl", "model.pt").from_checkpoint()).eval()
    again.load_state_dict(model.state_dict())
    images, sizes = batch_of([[[8.0, 8, 40, 40]]]).images, [(64, 64)]
    with torch.no_grad():
        one, other = model.predict(images, sizes)[0], again.predict(images, sizes)[0]
    assert torch.equal(one["scores"], other["scores"])
