"""The same against detectron2 itself, where it is installed (docs/interplay.md has what that gave)."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch
from detector_scenes import random_boxes, scenes
from detectron2_runs import (
    PARAMS,
    assert_the_same_found,
    blocks_of,
    comics,
    evaluated,
    make_dataset,
    rows_of,
    trained_interrupted_and_resumed,
    write_run,
)
from pycocotools import mask as rle
from test_weights_foreign import shaken

from comics.detectors import build
from comics.integrations.detectron2 import Detectron2Detector, add_bi_grained, after_step_hook, register_datasets
from comics.params import InferenceParams, ModelParams
from comics.params import detectors as known
from comics.weights.foreign import translate, write_foreign

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.skipif(importlib.util.find_spec("detectron2") is None, reason="detectron2 is not installed"),
]

ZOO = {
    "mask_rcnn": "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml",
    "retinanet": "COCO-Detection/retinanet_R_50_FPN_3x.yaml",
}
EVERY = {**ZOO, "fcos": "COCO-Detection/fcos_R_50_FPN_1x.py"}


def detector_of(name, *options, inference=None):
    from detectron2 import model_zoo

    file = model_zoo.get_config_file(EVERY[name])
    settings = Detectron2Detector.Settings(config=file, weights="none", options=list(options))
    return Detectron2Detector.from_params(ModelParams(), settings, 2, inference or InferenceParams(score_threshold=0.0))


@pytest.mark.parametrize("name", EVERY)
def test_contract(name):
    torch.manual_seed(0)
    detector = detector_of(name)
    assert detector.bgr
    if name == "fcos":
        assert (detector.model.num_classes, detector.model.test_score_thresh) == (2, 0)
    images, targets, sizes = scenes([random_boxes(n, 96, 128, n) for n in (2, 0)], 96, 128)
    losses = detector.losses(detector(images), targets, sizes)
    assert all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    outputs = detector(images)
    levels = detector.proposals(outputs)
    for features, level, stride in zip(outputs.features, levels, detector.strides, strict=True):
        cells = features.shape[-2] * features.shape[-1]
        assert level.locations.max() == cells - 1
        assert level.boxes.shape[1] % cells == 0
        assert features.shape[-1] == -(-128 // stride)
    crops = detector.roi_mask_features(outputs, [target["boxes"] for target in targets], 14)
    assert crops.shape == (2, detector.mask_channels, 14, 14)
    for found, size in zip(detector.eval().predict(detector(images), sizes), sizes, strict=True):
        assert found["masks"].shape[1:] == size
        assert (found["scores"].diff() <= 0).all()


def test_exported_weights_are_all_its_own(tmp_path):
    from detectron2.checkpoint import DetectionCheckpointer

    ours = shaken("mask_rcnn", params=ModelParams(backbone="resnet50", head_channels=256, head_convs=4))
    write_foreign(tmp_path / "ours.pth", translate(ours, "mask_rcnn", "detectron2"))
    theirs = detector_of("mask_rcnn", "MODEL.RESNETS.STRIDE_IN_1X1", "False")
    theirs.model.backbone = theirs.extractor.backbone
    found = DetectionCheckpointer(theirs.model).load(str(tmp_path / "ours.pth"))
    assert not found.get("unexpected_keys", [])
    assert not [key for key in found.get("missing_keys", []) if "anchor" not in key and "pixel" not in key]


def test_our_mask_rcnn_finds_the_same_there():
    """Exported: maps, boxes, scores and masks of both agree."""
    inference = InferenceParams(score_threshold=0.05, nms_threshold=0.5, max_detections=20)
    torch.manual_seed(0)
    params = ModelParams(backbone="resnet50")
    ours = build("mask_rcnn", params, 2, inference).eval()
    for key, tensor in ours.state_dict().items():
        if key.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif key.endswith("running_var"):
            tensor.uniform_(2, 4)
        elif re.search(r"rpn.head.(cls|bbox)|cls_score|bbox_pred", key):
            tensor.normal_(0, 0.01)
        elif "mask_fcn_logits" in key:
            tensor.normal_(0, 0.1)
    exported = translate(ours, "mask_rcnn", "detectron2")
    options = [str(one) for pair in exported.config.items() for one in pair]
    theirs = detector_of("mask_rcnn", *options, inference=inference).eval()
    stand_in, theirs.model.backbone = theirs.model.backbone, theirs.extractor.backbone
    theirs.model.load_state_dict({key: value for key, value in exported.tensors.items() if "pixel" not in key})
    theirs.model.backbone = stand_in
    assert assert_the_same_found(ours, theirs, 5, rtol=1e-3, atol=1e-2, masks=0.98) > 5


@pytest.mark.parametrize("name", ZOO)
def test_its_training_with_our_objective(name):
    from detectron2 import model_zoo
    from detectron2.modeling import build_model
    from detectron2.structures import BitMasks, Boxes, Instances
    from detectron2.utils.events import EventStorage

    torch.manual_seed(0)
    config = model_zoo.get_config(ZOO[name])
    plain = config.MODEL.META_ARCHITECTURE
    config.MODEL.META_ARCHITECTURE = add_bi_grained(plain)
    config.MODEL.DEVICE, config.MODEL.ROI_HEADS.NUM_CLASSES, config.MODEL.RETINANET.NUM_CLASSES = "cpu", 2, 2
    model = build_model(config).train()
    inputs = []
    images, targets, _ = scenes([random_boxes(n, 96, 128, n) for n in (2, 1)], 96, 128)
    for image, target in zip(images, targets, strict=True):
        faces = Instances((96, 128))
        faces.gt_boxes, faces.gt_classes = Boxes(target["boxes"]), target["labels"]
        faces.gt_masks = BitMasks(target["masks"])
        inputs.append({"image": image * 255, "instances": faces, "height": 96, "width": 128})
    hook = after_step_hook()
    hook.trainer = SimpleNamespace(model=model, iter=0, max_iter=2)
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    with EventStorage(0):
        for _ in range(2):
            hook.before_step()
            losses = model(inputs)
            assert {"loss_coarse", "loss_intra", "loss_inter", "loss_cls"} <= set(losses)
            assert all(value.isfinite() for value in losses.values())
            optimiser.zero_grad()
            sum(losses.values()).backward()
            optimiser.step()
            hook.after_step()
    assert set(model.eval()(inputs)[0]) == {"instances"}


def test_its_evaluator_and_ours_agree(tmp_path):
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.detection_utils import annotations_to_instances
    from detectron2.evaluation import COCOEvaluator
    from detectron2.structures import Boxes, Instances
    from PIL import Image

    from comics.evaluation import match_tasks, score
    from comics.evaluation.scores import read_inputs, tasks_of

    random = numpy.random.default_rng(0)
    folder = tmp_path / "data" / "tiny" / "test_dev"
    (folder / "images").mkdir(parents=True)
    images, annotations, found = [], [], []
    _, targets, _ = scenes([random_boxes(4, 96, 128, n) for n in range(6)], 96, 128)
    for number, target in enumerate(targets, 1):
        name = f"images/{number}.png"
        Image.new("RGB", (128, 96)).save(folder / name)
        images.append({"id": number, "file_name": name, "width": 128, "height": 96})
        for box, label, mask in zip(target["boxes"].tolist(), target["labels"].tolist(), target["masks"], strict=True):
            run = rle.encode(numpy.asfortranarray(mask.numpy().astype("u1")))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": label + 1,
                    "iscrowd": 0,
                    "area": float(mask.sum()),
                    "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                    "segmentation": {"size": [96, 128], "counts": run["counts"].decode()},
                }
            )
        count = len(target["boxes"])
        one = Instances((96, 128))
        one.pred_boxes = Boxes(target["boxes"] + torch.from_numpy(random.normal(0, 3, (count, 4))).float())
        one.scores = torch.from_numpy(random.random(count))
        one.pred_classes = torch.from_numpy(random.integers(0, 2, count))
        one.pred_masks = target["masks"].roll(int(random.integers(-3, 4)), 2)
        found.append(one)
    categories = [{"id": 1, "name": "Real"}, {"id": 2, "name": "Fake"}]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(truth))
    (name,) = register_datasets(SimpleNamespace(dataset="tiny"), tmp_path)
    records = DatasetCatalog.get(name)
    assert MetadataCatalog.get(name).thing_classes == ["Real", "Fake"]
    assert [len(record["annotations"]) for record in records] == [len(target["boxes"]) for target in targets]
    for record, target in zip(records, targets, strict=True):  # its own mapper reads our masks
        faces = annotations_to_instances(record["annotations"], (96, 128), mask_format="bitmask")
        assert torch.equal(faces.gt_masks.tensor, target["masks"])
        assert faces.gt_classes.tolist() == target["labels"].tolist()
    evaluator = COCOEvaluator(name, output_dir=str(tmp_path / "theirs"), distributed=False, use_fast_impl=False)
    evaluator.reset()
    for record, one in zip(records, found, strict=True):
        evaluator.process([record], [{"instances": one}])
    theirs = evaluator.evaluate()
    inputs = read_inputs(folder / "annotations.json", tmp_path / "theirs" / "coco_instances_results.json")
    ours = {
        (task, cls): dict(zip(("AP", "AP50"), values, strict=False))
        for task, cls, values in score(inputs[0], match_tasks(*inputs, tasks_of(*inputs))).rows()
    }
    for task, their_task in (("detection", "bbox"), ("segmentation", "segm")):
        assert 0 < theirs[their_task]["AP"] < 100
        assert 100 * ours[task, "all"]["AP"] == pytest.approx(theirs[their_task]["AP"], abs=1e-9)
        assert 100 * ours[task, "Fake"]["AP"] == pytest.approx(theirs[their_task]["AP-Fake"], abs=1e-9)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.mark.parametrize("name", EVERY)
def test_a_run_is_trained_resumed_and_evaluated(name, dataset, tmp_path, monkeypatch):
    from detectron2 import model_zoo
    from detectron2.modeling.meta_arch import fcos, retinanet
    from fvcore.nn import sigmoid_focal_loss

    for module in (fcos, retinanet):  # what is compiled while it runs rounds differently after some calls
        monkeypatch.setattr(module, "sigmoid_focal_loss_jit", sigmoid_focal_loss)
    monkeypatch.setattr(known, "_registered", dict(known._registered))
    (tmp_path / "data").symlink_to(dataset)
    monkeypatch.chdir(tmp_path)
    write_run(
        f"{{config: {model_zoo.get_config_file(EVERY[name])}, weights: none}}", lr=1e-7
    )  # fresh weights behind frozen BatchNorm
    run = trained_interrupted_and_resumed(monkeypatch)
    assert {row["task"] for row in evaluated(run)} == {"detection", "segmentation"}


def test_the_whole_example_of_the_docs(dataset, tmp_path, monkeypatch):
    """As it is written, but for what two steps on a CPU without a download take."""
    from detectron2 import engine

    class Trainer(engine.DefaultTrainer):
        def __init__(self, cfg):
            cfg.merge_from_list(
                [
                    *[
                        "MODEL.DEVICE",
                        "cpu",
                        "SOLVER.MAX_ITER",
                        "2",
                        "SOLVER.IMS_PER_BATCH",
                        "2",
                        "SOLVER.BASE_LR",
                        "1e-4",
                    ]
                ]
            )
            cfg.merge_from_list(
                [
                    *[
                        "DATALOADER.NUM_WORKERS",
                        "0",
                        "INPUT.MIN_SIZE_TEST",
                        "64",
                        "MODEL.ROI_HEADS.SCORE_THRESH_TEST",
                        "0.0",
                    ]
                ]
            )
            cfg.MODEL.WEIGHTS, cfg.INPUT.MIN_SIZE_TRAIN = "", (64,)
            super().__init__(cfg)

    monkeypatch.setattr(engine, "DefaultTrainer", Trainer)
    (tmp_path / "data").symlink_to(dataset)
    monkeypatch.chdir(tmp_path)
    Path("theirs").mkdir()
    Path("params.yaml").write_text(PARAMS + "  comics: {}\n")
    (_, program), (_, command) = blocks_of("A whole example")
    content = {"__name__": "__main__"}
    exec(compile(program, "docs/interplay.md", "exec"), content)
    logged = content["trainer"].storage.latest()
    assert {"loss_coarse", "loss_intra", "loss_inter"} <= set(logged)
    _, *words = shlex.split(command)
    comics(*words)
    assert {(row["task"], row["class"]) for row in rows_of(words[-1])} >= {("detection", "Fake")}
