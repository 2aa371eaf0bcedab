"""detectron2 beside us, on stand-ins of its interfaces (`detectron2_scenes`)."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from detector_scenes import random_boxes, scenes
from detectron2_scenes import (
    ARCHITECTURES,
    STRIDES,
    Boxes,
    Instances,
    Storage,
    ToyBlend,
    ToyFCOS,
    ToyRetina,
    ToySOLO,
    install,
)

from comics.bigrained import BiGrained
from comics.detectors import build
from comics.errors import UserError
from comics.integrations.detectron2 import Detectron2Detector, add_bi_grained, after_step_hook, register_datasets
from comics.model import Comics
from comics.params import ModelParams, ObjectiveParams, load
from comics.params import detectors as known
from comics.params.described import from_description

ROOT = Path(__file__).parents[2]


@pytest.fixture
def there(monkeypatch):
    monkeypatch.setattr(known, "_registered", dict(known._registered))  # reading params.yaml makes its detectors known
    return install(monkeypatch)


@pytest.fixture
def absent(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("detectron2.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "detectron2", None)


def run_of(tmp_path, architecture="ToyRetina", components=("attention", "coarse", "fine"), **more):
    (tmp_path / "toy.yaml").write_text(architecture)
    run = load(ROOT / "params.yaml").resolve("comics")
    settings = {"config": str(tmp_path / "toy.yaml"), **more}
    model = run.model.model_copy(update={"settings": Detectron2Detector.Settings(**settings), "weights": "none"})
    params = run.params.model_copy(update={"model": model, "detector": "detectron2", "components": list(components)})
    return run.model_copy(update={"params": params})


def batch_of(height=64, width=96):
    images, targets, sizes = scenes([random_boxes(count, height, width, count) for count in (2, 3)], height, width)
    return SimpleNamespace(images=images, keys=None, targets=targets, sizes=sizes)


def test_without_the_package_it_is_named(absent, tmp_path):
    for call in (
        after_step_hook,
        lambda: add_bi_grained("RetinaNet"),
        lambda: register_datasets(load(ROOT / "params.yaml")),
        lambda: Comics(run_of(tmp_path)),
    ):
        with pytest.raises(UserError, match="detectron2 is needed here"):
            call()


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_component_trains_on_it(there, tmp_path, kind):
    torch.manual_seed(0)
    model = Comics(run_of(tmp_path, kind.__name__)).train()
    assert isinstance(model.detector, Detectron2Detector)
    names = [name for name, _ in model.named_parameters()]
    assert len(names) == len(set(names))
    assert not any("model.backbone" in name for name in names)  # the extractor has it, once
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(2):
        result = model.losses(batch_of())
        assert {"count", "size", "loss_coarse", "loss_intra", "loss_inter"} <= set(result.terms)
        optimiser.zero_grad()
        result.total.backward()
        gradient = model.detector.extractor.backbone.fine.weight.grad
        assert gradient.isfinite().all()
        assert gradient.any()
        optimiser.step()
        model.after_step()
    assert not Storage.open
    assert model.training


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_losses_are_the_models_own(there, kind):
    """With its backbone's own maps the detector says what the model says alone."""
    torch.manual_seed(0)
    alone = kind().train()
    torch.manual_seed(0)
    detector = Detectron2Detector(kind(), bgr=True)
    batch = batch_of()
    pixels = [{"image": (image * 255).flip(0), "instances": SimpleNamespace(gt_classes=target["labels"])}
              for image, target in zip(batch.images, batch.targets, strict=True)]  # fmt: skip
    with Storage(0):
        expected = alone(pixels)
    found = detector.losses(detector(batch.images), batch.targets, batch.sizes)
    assert found.keys() == {"count", "size"}
    for name, value in found.items():
        torch.testing.assert_close(value, expected[f"loss_{name}"], rtol=1e-4, atol=1e-4)


def test_images_are_as_the_model_takes_them(there):
    detector = Detectron2Detector(ToyRetina(), bgr=True)
    images = torch.rand(1, 3, 32, 32)
    bgr = images.flip(1) * 255
    wanted = (bgr - torch.tensor([100.0, 110, 120]).view(3, 1, 1)) / torch.tensor([1.0, 2, 4]).view(3, 1, 1)
    torch.testing.assert_close(detector.normalise(images), wanted, rtol=1e-4, atol=1e-3)
    plain = Detectron2Detector(ToyRetina(), bgr=False).normalise(images)
    assert not torch.allclose(plain, wanted, atol=1)


@pytest.mark.parametrize("canvas", [(64, 96), (96, 128)])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_detections_are_ranked_and_in_the_image(there, kind, canvas):
    detector = Detectron2Detector(kind()).eval()
    sizes = [(60, 90), (41, 33)]
    found = detector.predict(detector(torch.rand(2, 3, *canvas)), sizes)
    for one, (height, width) in zip(found, sizes, strict=True):
        assert one["scores"].tolist() == pytest.approx([0.6, 0.3])
        assert one["labels"].tolist() == [0, 1]
        assert one["boxes"][0].tolist() == [4, 4, width, 20]
        assert one["masks"].shape == (2, height, width)
        assert one["masks"][0, 4:20, 4:].all()
        assert one["masks"][0].sum() == 16 * (width - 4)


def test_boxes_of_an_anchor_head_against_loops(there):
    torch.manual_seed(0)
    detector = Detectron2Detector(ToyRetina())
    features = detector.extractor(torch.rand(2, 3, 32, 48))
    for level, stride, proposals in zip(features, STRIDES, detector.propose(features), strict=True):
        deltas = detector.model.deltas(level)
        _, _, height, width = deltas.shape
        row = 0
        for y in range(height):
            for x in range(width):
                for anchor, reach in enumerate((1, 2)):
                    centre = torch.tensor([x, y, x, y]) * stride + stride / 2
                    box = centre + reach * stride * torch.tensor([-1, -1, 1, 1])
                    wanted = box + deltas[:, 4 * anchor : 4 * anchor + 4, y, x]
                    torch.testing.assert_close(proposals.boxes[:, row], wanted.detach())
                    assert proposals.locations[row] == y * width + x
                    row += 1
        assert not proposals.boxes.requires_grad


def test_boxes_of_points_against_loops(there):
    torch.manual_seed(0)
    detector = Detectron2Detector(ToyBlend())
    features = detector.extractor(torch.rand(1, 3, 32, 48))
    for level, stride, proposals in zip(features, STRIDES, detector.propose(features), strict=True):
        sides = detector.model.proposal_generator.fcos_head.sides(level).relu()[0]
        _, height, width = sides.shape
        for y in range(height):
            for x in range(width):
                left, top, right, bottom = (sides[:, y, x] * stride).tolist()
                px, py = x * stride + stride / 2, y * stride + stride / 2
                wanted = [px - left, py - top, px + right, py + bottom]
                assert proposals.boxes[0, y * width + x].tolist() == pytest.approx(wanted, abs=1e-4)


def test_blendmask_gets_the_segmentation_that_its_loss_wants(there):
    detector = Detectron2Detector(ToyBlend()).train()
    batch = batch_of()
    detector.losses(detector(batch.images), batch.targets, batch.sizes)
    for seen, target in zip(detector.model.seen, batch.targets, strict=True):
        expected = torch.zeros(64, 96, dtype=torch.long)
        for y in range(64):
            for x in range(96):
                over = [int(k) + 1 for k, mask in zip(target["labels"], target["masks"], strict=True) if mask[y, x]]
                expected[y, x] = max(over, default=0)
        assert torch.equal(seen, expected)
    detector.losses(detector(batch.images[:1]), [none_of(batch.targets[0])], batch.sizes[:1])
    assert not detector.model.seen[0].any()


def none_of(target):
    return {key: value[:0] for key, value in target.items()}


def test_solov2_trains_on_images_with_faces_and_has_the_boxes_of_its_masks(there):
    torch.manual_seed(0)
    detector = Detectron2Detector(ToySOLO()).train()
    assert (detector.mask_channels, detector.strides) == (6, STRIDES)
    batch = batch_of()
    alone = detector.losses(detector(batch.images[1:]), batch.targets[1:], batch.sizes[1:])
    with_another = detector.losses(detector(batch.images), [none_of(batch.targets[0]), batch.targets[1]], batch.sizes)
    for name, value in alone.items():
        torch.testing.assert_close(with_another[name], value)
    nothing = detector.losses(detector(batch.images), [none_of(one) for one in batch.targets], batch.sizes)
    assert sum(nothing.values()).item() == 0
    sum(nothing.values()).backward()
    outputs = detector(batch.images)
    crops = detector.roi_mask_features(outputs, [target["boxes"] for target in batch.targets], 4)
    assert crops.shape == (5, 6, 4, 4)
    levels = detector.proposals(outputs)
    assert [level.boxes.shape for level in levels] == [(2, 9, 4), (2, 4, 4)]
    assert [level.locations.max() < f[0, 0].numel() for level, f in zip(levels, outputs.features, strict=True)] == [
        True,
        True,
    ]
    detector.eval()
    found = detector.predict(detector(batch.images), batch.sizes)[0]
    assert found["boxes"].tolist() == [[4, 4, 96, 20], [1, 2, 9, 10]]
    detector.model.finds = False
    nothing = detector.predict(detector(batch.images), batch.sizes)[0]
    assert nothing["masks"].shape == (0, 64, 96)
    assert nothing["boxes"].shape == (0, 4)


def test_boxes_of_cells_are_those_of_the_masks_that_they_draw(there):
    torch.manual_seed(0)
    detector = Detectron2Detector(ToySOLO())
    features = detector.extractor(torch.rand(1, 3, 48, 96))
    solo, levels = detector.model, detector.propose(features)
    maps = solo.mask_head([features[0]])[0]  # stride 8, the proposals' own
    drawn = 0
    for level, kernels in zip(levels, solo.ins_head(features)[1], strict=True):
        grid = kernels.shape[-1]
        for cell in range(grid * grid):
            row, column = divmod(cell, grid)
            weights = kernels[0, :, row, column]
            mask = torch.einsum("d,dhw->hw", weights, maps) > 0
            square = [column * 96 / grid, row * 48 / grid, (column + 1) * 96 / grid, (row + 1) * 48 / grid]
            y, x = torch.where(mask)
            if len(y):
                box = [8 * int(x.min()), 8 * int(y.min()), 8 * int(x.max()) + 8, 8 * int(y.max()) + 8]
                middle = (square[0] + square[2]) / 2, (square[1] + square[3]) / 2
                if box[0] <= middle[0] < box[2] and box[1] <= middle[1] < box[3]:
                    square, drawn = box, drawn + 1
            assert level.boxes[0, cell].tolist() == pytest.approx(square)
    assert drawn


def test_mask_features_of_a_branch_are_cut_where_the_box_is(there):
    detector = Detectron2Detector(ToyBlend()).train()
    assert detector.mask_channels == 12
    features = detector.extractor(torch.rand(2, 3, 32, 64))
    outputs = detector.forward_heads(features)
    boxes = [torch.tensor([[4.0, 4.0, 28.0, 20.0]]), torch.zeros(0, 4)]
    crops = detector.roi_mask_features(outputs, boxes, 6)
    assert crops.shape == (1, 12, 6, 6)
    whole = detector.model.basis_module.tower[:2](features[0])  # twice as fine as P3
    assert crops[0, :, 0, 0].detach().tolist() == pytest.approx(whole[0, :, 1, 1].tolist(), abs=0.5)
    crops.sum().backward()
    assert detector.extractor.backbone.fine.weight.grad.any()
    none = detector.roi_mask_features(outputs, [torch.zeros(0, 4)] * 2, 6)
    assert none.shape == (0, 12, 6, 6)


def test_the_configurations_content_is_in_the_digest(there, tmp_path):
    def digest():
        return run_of(tmp_path, components=()).digest

    first = digest()
    assert digest() == first
    (tmp_path / "base.yaml").write_text("A: 1\n")
    run = run_of(tmp_path, components=())
    (tmp_path / "toy.yaml").write_text('_BASE_: "base.yaml"\nB: 2\n')
    with_base = again(run).digest
    assert with_base != first
    (tmp_path / "base.yaml").write_text("A: 2\n")
    assert again(run).digest not in (first, with_base)
    (tmp_path / "base.yaml").write_text("A: 1\n")
    assert again(run).digest == with_base
    (tmp_path / "base.yaml").unlink()
    assert again(run).description["model"]["contents"] == {"config": "missing"}
    assert from_description(again(run).description, "theirs", "model.pt").model.settings == run.model.settings


def again(run):
    """Digests are computed once a run."""
    return run.model_copy(update={"seed": run.seed})


def test_configuration(there, tmp_path):
    model = Comics(run_of(tmp_path, components=())).detector
    config = there.built[0]
    assert config.MODEL.RETINANET.NUM_CLASSES == 2
    assert config.MODEL.RETINANET.SCORE_THRESH_TEST < 0.5
    assert config.TEST.DETECTIONS_PER_IMAGE == config.MODEL.FCOS.POST_NMS_TOPK_TEST == 100
    assert config.MODEL.DEVICE == "cpu"
    assert model.bgr
    with pytest.raises(UserError, match=r"nowhere\.yaml: no such file"):
        Comics(run_of(tmp_path, config="nowhere.yaml"))
    with pytest.raises(UserError, match="not a configuration"):
        Comics(run_of(tmp_path, options=["MODEL.NONE", "1"]))


def test_a_trained_network_reads_no_initial_weights(there, tmp_path, monkeypatch):
    read = []
    checkpointer = SimpleNamespace(DetectionCheckpointer=lambda model: SimpleNamespace(load=read.append))
    monkeypatch.setitem(sys.modules, "detectron2.checkpoint", checkpointer)
    run = run_of(tmp_path, components=(), weights="theirs.pth")
    Comics(run)
    assert read == ["theirs.pth"]
    trained = run.from_checkpoint()
    Comics(trained)
    assert read == ["theirs.pth"]
    assert from_description(run.description, "theirs", "model.pt").from_checkpoint().model.settings.weights == "none"


LAZY = """
from .models.fcos import model

model = {"_target_": "ToyFCOS", "num_classes": 80, "test_score_thresh": 0.5, "input_format": "RGB"}
train = {"init_checkpoint": "none"}
"""


def test_a_python_configuration(there, tmp_path):
    """detectron2's own FCOS has no other; the files that it imports count, too."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "fcos.py").write_text("model = {}")
    (tmp_path / "fcos.py").write_text(LAZY.replace("from .models.fcos import model", ""))
    run = run_of(tmp_path, config=str(tmp_path / "fcos.py"), options=["model.more", "3"])
    model = Comics(run).detector
    assert isinstance(model.model, ToyFCOS)
    assert not model.bgr
    (node,) = there.built
    assert (node.num_classes, node.test_score_thresh, node.more) == (2, run.inference.score_threshold, 3)
    assert "max_detections_per_image" not in node  # its class does not take it

    (tmp_path / "fcos.py").write_text(LAZY)
    first = again(run).digest
    (tmp_path / "models" / "fcos.py").write_text("model = {1: 2}")
    assert again(run).digest != first
    (tmp_path / "models" / "fcos.py").unlink()
    assert again(run).description["model"]["contents"] == {"config": "missing"}
    (tmp_path / "fcos.py").write_text("1 / 0")
    with pytest.raises(UserError, match="division by zero"):
        Comics(run)


def test_a_start_of_which_nothing_fits_is_refused(there, tmp_path):
    """mini's runs start from one of a detector of ours: its pixel statistics alone are no start, and not a model of theirs' own."""
    run = run_of(tmp_path, components=())
    ours = build("blendmask", ModelParams(backbone="resnet18", fpn_channels=8, head_channels=8, mask_channels=8))
    state = {f"detector.{key}": value for key, value in ours.state_dict().items()}
    torch.save({"state_dict": state, "description": {}}, tmp_path / "model.pt")
    model = run.params.model.model_copy(update={"weights": str(tmp_path / "model.pt")})
    started = run.model_copy(update={"params": run.params.model_copy(update={"model": model}), "start": run})
    with pytest.raises(UserError, match="none of its") as caught:
        Comics(started)
    assert "start: null" in caught.value.remedy


def test_params_yaml_names_it(there, tmp_path):
    """`detector: detectron2` and its settings in params.yaml resolve to the class, without detectron2 being imported."""
    text = (ROOT / "params.yaml").read_text(encoding="utf-8").replace("\nruns:\n", "\nruns:\n" + ENTRY, 1)
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    run = load(tmp_path / "params.yaml").resolve("theirs")
    assert isinstance(run.model.settings, Detectron2Detector.Settings)
    assert run.model.settings.config == "theirs.yaml"


ENTRY = """  theirs:
    detector: detectron2
    components: [attention, coarse, fine]
    model: {detectron2: {config: theirs.yaml}}
"""


def test_unknown_architectures_are_refused(there):
    model = ToyRetina()
    del model.head_in_features
    model.box2box_transform = None
    del model.box2box_transform
    with pytest.raises(UserError, match="no adapter knows"):
        Detectron2Detector(model)


def inputs_of(batch):
    found = []
    for image, target in zip(batch.images, batch.targets, strict=True):
        faces = Instances(image.shape[1:], gt_boxes=Boxes(target["boxes"]), gt_classes=target["labels"])
        faces.gt_masks = Boxes(target["masks"])
        found.append({"image": image * 255, "instances": faces, "height": 64, "width": 96})
    return found


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_their_training_with_our_objective(there, kind):
    torch.manual_seed(0)
    name = add_bi_grained(kind.__name__, ObjectiveParams(ramp=(0.0, 0.5)))
    assert name == f"BiGrained{kind.__name__}"
    assert add_bi_grained(kind.__name__) == name
    model = there.registry[name](None).train()
    assert {key for key, _ in kind().named_parameters()} <= {key for key, _ in model.named_parameters()}
    trainer = SimpleNamespace(model=model, iter=25, max_iter=100)
    hook = after_step_hook()
    hook.trainer = trainer
    hook.before_step()
    assert model.bi_grained.strength == pytest.approx(0.5)
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    key = model.bi_grained.momentum.module.fine.weight
    before = key.clone()
    with Storage(0):
        for _ in range(2):
            calls = model.backbone.calls
            losses = model(inputs_of(batch_of()))
            assert model.backbone.calls == calls + 1  # losses and objective see the same maps
            assert {"loss_count", "loss_size", "loss_coarse", "loss_intra", "loss_inter"} == set(losses)
            optimiser.zero_grad()
            sum(losses.values()).backward()
            optimiser.step()
            hook.after_step()
    assert not torch.equal(key, before)
    found = model.eval()(inputs_of(batch_of()))
    assert set(found[0]) == {"instances"}


def test_the_objective_is_the_one_of_a_run(there, tmp_path):
    """`BiGrained` and `comics.model.Comics` give the same terms on the same maps."""
    torch.manual_seed(0)
    run = run_of(tmp_path, "ToyBlend", ("coarse", "fine"))
    ours = Comics(run).train()
    batch = batch_of()
    detector = ours.detector
    alone = BiGrained(detector.extractor, 2, detector.channels, detector.mask_channels, run.objective)
    alone.coarse.load_state_dict(ours.coarse.state_dict())
    for _ in range(2):
        terms = ours.losses(batch).terms
        images = detector.normalise(batch.images, batch.sizes)
        features, keys = detector.extractor(images), alone.keys(images)
        faces, labels, masks = ([one[key] for one in batch.targets] for key in ("boxes", "labels", "masks"))
        places = [[(p.boxes, p.locations) for p in detector.propose(maps)] for maps in (features, keys)]
        found = alone.coarse_terms(features, keys, *places, faces, labels)
        crops = detector.roi_mask_features(detector.forward_heads(features), faces, run.objective.fine.size)
        found |= alone.fine_terms(crops, masks, faces, labels)
        for name, value in found.items():
            torch.testing.assert_close(value, terms[name])
        ours.after_step()
        alone.after_step()


def test_datasets(there, tmp_path):
    params = load(ROOT / "params.yaml")
    with pytest.raises(UserError, match="no split is there"):
        register_datasets(params, tmp_path)
    annotations = tmp_path / "data" / params.dataset / "train" / "annotations.json"
    annotations.parent.mkdir(parents=True)
    annotations.write_text("{}")
    for _ in range(2):  # again does nothing
        assert register_datasets(params, tmp_path) == [f"comics_{params.dataset}_train"]
    metadata, file, folder = there.sets[f"comics_{params.dataset}_train"]
    assert metadata == {"thing_classes": ["Real", "Fake"]}
    assert (file, folder) == (str(annotations), str(annotations.parent))
