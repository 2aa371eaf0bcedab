"""AdelaiDet itself, where it is installed beside detectron2: its families behind our contract, our objective in their trainings, and
our weights in them (docs/interplay.md has what that gave)."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch
from detector_scenes import random_boxes, scenes
from detectron2_runs import assert_the_same_found, evaluated, make_dataset, trained_interrupted_and_resumed, write_run

from comics.detectors import build
from comics.integrations.detectron2 import Detectron2Detector, add_bi_grained, after_step_hook
from comics.params import InferenceParams, ModelParams
from comics.params import detectors as known
from comics.weights.foreign import translate

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.skipif(importlib.util.find_spec("adet") is None, reason="AdelaiDet is not installed"),
]

CPU = ["MODEL.BASIS_MODULE.NORM", "BN"]  # SyncBN wants a GPU
CODES = "components_60.npz"
FAMILIES = {
    "fcos": ("FCOS-Detection/R_50_1x.yaml", []),
    "blendmask": ("BlendMask/R_50_1x.yaml", CPU),
    "condinst": ("CondInst/MS_R_50_1x.yaml", []),
    "meinst": ("MEInst-InstanceSegmentation/MEInst_R_50_1x.yaml", ["MODEL.MEInst.USE_DEFORMABLE", "False"]),
    "solov2": ("SOLOv2/R50_3x.yaml", []),
}


def file_and_options(name, folder):
    """The configuration of a family, beside the package, and what it needs on a CPU and without COCO's mask codes."""
    import adet

    file, options = FAMILIES[name]
    path = Path(adet.__file__).parents[1] / "configs" / file
    if not path.exists():
        pytest.skip(f"{path} is not beside the package")
    if name == "meinst":
        random = numpy.random.default_rng(0)
        numpy.savez(
            folder / CODES,
            components_c=numpy.linalg.qr(random.normal(size=(784, 60)))[0].T[None],
            explained_variance_c=random.random((1, 60)) + 0.1,
            mean_c=random.random((1, 784)),
        )
        options = [*options, "MODEL.MEInst.PATH_COMPONENTS", str(folder / CODES)]
    return str(path), options


def detector_of(name, folder, inference=None, more=()):
    file, options = file_and_options(name, folder)
    settings = Detectron2Detector.Settings(config=file, weights="none", project="adelaidet", options=[*options, *more])
    torch.manual_seed(0)
    return Detectron2Detector.from_params(
        ModelParams(), settings, 2, inference or InferenceParams(score_threshold=0.0, max_detections=10)
    )


def trained(name, inference):
    """A detector of ours whose numbers are those of no initialisation: it finds something, and draws it."""
    torch.manual_seed(0)
    ours = build(name, ModelParams(), 2, inference).eval()
    for key, tensor in ours.state_dict().items():
        if key.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif key.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif re.search(r"cls_logits|categories|^attention|bases|components|^code", key):
            tensor.normal_(0, 0.05 if "cls" in key or "categ" in key else 0.3)
    return ours


@pytest.mark.parametrize("name", ["blendmask", "condinst", "meinst", "solov2"])
def test_our_weights_find_the_same_there(name, tmp_path):
    """Exported, all of AdelaiDet's own tensors are set; maps, boxes, scores and masks of both agree."""
    inference = InferenceParams(score_threshold=0.02, max_detections=20)
    ours = trained(name, inference)
    exported = translate(ours, name, "adelaidet")
    more = [str(one) for pair in exported.config.items() for one in pair]
    theirs = detector_of(name, tmp_path, inference, more).eval()
    stand_in, theirs.model.backbone = theirs.model.backbone, theirs.extractor.backbone
    found = theirs.model.load_state_dict(exported.tensors, strict=False)
    theirs.model.backbone = stand_in
    assert set(found.unexpected_keys) <= {"pixel_mean", "pixel_std"}
    assert set(found.missing_keys) <= {"mask_head._iter", "mask_head.sizes_of_interest"}
    assert assert_the_same_found(ours, theirs, 15) > 10


@pytest.mark.parametrize("name", FAMILIES)
def test_contract(name, tmp_path):
    detector = detector_of(name, tmp_path).train()
    images, targets, sizes = scenes([random_boxes(n, 96, 128, n, 24) for n in (2, 0)], 96, 128)
    losses = detector.losses(detector(images), targets, sizes)
    assert all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    outputs = detector(images)
    for features, level in zip(outputs.features, detector.proposals(outputs), strict=True):
        assert level.locations.max() < features.shape[-2] * features.shape[-1]
        assert level.boxes.isfinite().all()
    crops = detector.roi_mask_features(outputs, [target["boxes"] for target in targets], 14)
    assert crops.shape == (2, detector.mask_channels, 14, 14)
    for found, size in zip(detector.eval().predict(detector(images), sizes), sizes, strict=True):
        assert found["masks"].shape[1:] == size
        assert (found["scores"].diff() <= 0).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_its_training_with_our_objective(name, tmp_path):
    from adet.config import get_cfg
    from detectron2.modeling import build_model
    from detectron2.structures import BitMasks, Boxes, Instances
    from detectron2.utils.events import EventStorage

    file, options = file_and_options(name, tmp_path)
    config = get_cfg()
    config.merge_from_file(file)
    config.merge_from_list([*options, "MODEL.DEVICE", "cpu"])
    config.MODEL.META_ARCHITECTURE = add_bi_grained(config.MODEL.META_ARCHITECTURE)
    torch.manual_seed(0)
    model = build_model(config).train()
    inputs = []
    images, targets, _ = scenes([random_boxes(n, 96, 128, n, 24) for n in (2, 3)], 96, 128)
    for image, target in zip(images, targets, strict=True):
        faces = Instances((96, 128))
        faces.gt_boxes, faces.gt_classes = Boxes(target["boxes"]), target["labels"]
        faces.gt_masks = BitMasks(target["masks"])
        segmentation = (target["masks"].long() * (target["labels"][:, None, None] + 1)).amax(0)
        inputs.append({"image": image * 255, "instances": faces, "height": 96, "width": 128, "basis_sem": segmentation})
    hook = after_step_hook()
    hook.trainer = SimpleNamespace(model=model, iter=0, max_iter=2)
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    with EventStorage(0):
        for _ in range(2):
            hook.before_step()
            losses = model(inputs)
            assert {"loss_coarse", "loss_intra", "loss_inter"} <= set(losses)
            assert all(value.isfinite() for value in losses.values())
            optimiser.zero_grad()
            sum(losses.values()).backward()
            optimiser.step()
            hook.after_step()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_run_is_trained_resumed_and_evaluated(name, dataset, tmp_path, monkeypatch):
    import adet.modeling
    from fvcore.nn import sigmoid_focal_loss

    assert adet.modeling
    for module in [module for place, module in sys.modules.items() if place.startswith("adet.modeling.")]:
        if hasattr(module, "sigmoid_focal_loss_jit"):  # compiled while it runs, it rounds differently after some calls
            monkeypatch.setattr(module, "sigmoid_focal_loss_jit", sigmoid_focal_loss)
    monkeypatch.setattr(known, "_registered", dict(known._registered))
    (tmp_path / "data").symlink_to(dataset)
    monkeypatch.chdir(tmp_path)
    file, options = file_and_options(name, tmp_path)
    settings = {"config": file, "options": options, "project": "adelaidet", "weights": "none"}
    write_run(json.dumps(settings), lr=1e-7)
    run = trained_interrupted_and_resumed(monkeypatch)
    assert {row["task"] for row in evaluated(run)} == {"detection", "segmentation"}
