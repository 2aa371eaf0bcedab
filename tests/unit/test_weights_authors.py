"""The COMICS authors' checkpoints: names and shapes as their code (commit 4f8e437) makes them, at small widths."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from detector_scenes import random_boxes, scenes
from safetensors import safe_open
from test_weights_transfer import SMALL, Names, blendmask_names
from torch import nn
from torch.nn import functional
from typer.testing import CliRunner

from comics.attention import CodeAttention
from comics.cli import app
from comics.errors import UserError
from comics.model import Comics
from comics.params import AttentionParams, load
from comics.weights.checkpoint import recognise
from comics.weights.run import load_run
from comics.weights.transfer import UNKNOWN, load_into, read

ROOT = Path(__file__).parents[2]
WIDTH, SLOTS = 32, 16
OUTPUTS = "proposal_generator.fcos_outputs"


def conv_norms(names: Names, where: str, *layers: tuple[int, int, int]) -> None:
    """Convolutions without offset, each with BatchNorm, listed as convolution, normalisation, ReLU, ..."""
    for index, (outputs, inputs, side) in enumerate(layers):
        names.add(f"{where}.{3 * index}.weight", outputs, inputs, side, side)
        names.norm(f"{where}.{3 * index + 1}", outputs)
        names[f"{where}.{3 * index + 1}.num_batches_tracked"] = torch.tensor(7)


def checkpoint() -> Names:
    """All that their training writes: some 700 tensors."""
    names = blendmask_names(2)
    names.generator.manual_seed(1)
    for key in [key for key in names if key.startswith("backbone.")]:
        names.add(key.replace("backbone.", "backbone_k."), *names[key].shape)
    names.add("srm_sa.srm.kernel", 3, 3, 5, 5)
    conv_norms(names, "srm_sa.conv", (32, 3, 3), (64, 32, 3))
    conv_norms(names, "srm_sa.conv1", (64, 64, 3), (64, 64, 3))
    names.add("srm_sa.pa.conv.weight", 1, 2, 7, 7)
    names.add("srm_sa.pa1.conv.weight", 1, 2, 7, 7)
    for post in ("srm_sa_post", "srm_sa_post_k"):
        for level in range(5):
            names.norm(f"{post}.{level}.0", WIDTH)
            names[f"{post}.{level}.0.num_batches_tracked"] = torch.tensor(7)
    for unused in ("SRMlayer_basis", "SRMlayer_basis_k", "proposal_generator.SRMFeature_FCOS"):
        for level in range(1, 6):
            names.layer(f"{unused}.erb_db_{level}.conv1", WIDTH, WIDTH, 1, 1)
            names.norm(f"{unused}.erb_db_{level}.bn", WIDTH)
            names.add(f"{unused}.srm_conv{level}.kernel", 3 * WIDTH, 1, 5, 5)
    for unused in ("fine", "fine_srm"):
        for index in (0, 2, 4):
            names.layer(f"proposal_generator.{unused}.{index}", WIDTH, WIDTH, 1, 1)
    for refine in ("refine", "refine_k"):
        for level in range(5):
            names.layer(f"proposal_generator.fcos_head.{refine}.{level}", WIDTH, WIDTH, 1, 1)
    names.layer("blender.conv_layer", WIDTH, WIDTH, 1, 1)
    for kind in ("real", "ancor"):
        names.add(f"{OUTPUTS}.{kind}_queue", WIDTH)
        for level in range(5):
            names.add(f"{OUTPUTS}.{kind}_queue_{level}", WIDTH)
    for kind in ("real", "fake"):
        for level in range(5):
            names.add(f"{OUTPUTS}.hard_{kind}_queue_{level}", WIDTH, SLOTS + 8)
            names[f"{OUTPUTS}.{kind}_queue_ptr_hard_{level}"] = torch.tensor([level + (5 if kind == "fake" else 0)])
    return names


def run_of(slots: int = SLOTS, weights: str = "none", name: str = "authors_code", **more):
    run = load(ROOT / "params.yaml").resolve(name)
    objective = run.params.objective
    coarse = objective.coarse.model_copy(update={"queue_size": slots})
    update = {
        "model": SMALL.model_copy(update={"weights": weights}),
        "objective": objective.model_copy(update={"coarse": coarse}),
        **more,
    }
    return run.model_copy(update={"params": run.params.model_copy(update=update)})


@pytest.fixture
def file(tmp_path):
    names = checkpoint()
    torch.save({"model": dict(names), "iteration": 4999}, tmp_path / "model_final.pth")
    return names, tmp_path / "model_final.pth"


def test_every_key_is_accounted_for(file):
    names, path = file
    model = Comics(run_of())
    report = load_run(model, "blendmask", read(path, detector=model.detector))
    assert [entry.source for entry in report.entries] == list(names)
    assert not report.of("mismatched", "replaced")
    unused = report.of("skipped")
    assert all(entry.note not in ("", UNKNOWN) for entry in unused)
    made_in_vain = ("SRMlayer_basis", "proposal_generator.SRMFeature_FCOS", "proposal_generator.fine", "srm_sa.srm")
    made_in_vain += ("srm_sa.pa1", "srm_sa.conv1", *(f"srm_sa_post{k}.{level}" for k in ("", "_k") for level in (3, 4)))
    made_in_vain += (f"{OUTPUTS}.real_queue", f"{OUTPUTS}.ancor_queue")
    assert {entry.source for entry in unused} == {
        name
        for name in names
        if name.startswith(made_in_vain) and not name.startswith((f"{OUTPUTS}.real_queue_", f"{OUTPUTS}.ancor_queue_"))
    }
    assert report.missing == []
    assert report.complete


def test_values_end_where_they_should(file):
    names, path = file
    model = Comics(run_of(weights=str(path)))  # as a training begins
    state = model.state_dict()

    def same(ours: str, theirs: str) -> None:
        torch.testing.assert_close(state[ours], names[theirs].reshape(state[ours].shape), rtol=0, atol=0)

    # the detector as AdelaiDet's, BGR turned
    torch.testing.assert_close(
        state["detector.extractor.body.conv1.weight"], names["backbone.bottom_up.stem.conv1.weight"].flip(1)
    )
    same("detector.attention.weight", "top_layer.weight")
    same("detector.bottom.bases.bias", "basis_module.tower.5.bias")
    assert (255 * state["detector.pixel_mean"]).flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    # its momentum copy is theirs, not a copy of ours
    torch.testing.assert_close(
        state["momentum.module.extractor.body.conv1.weight"], names["backbone_k.bottom_up.stem.conv1.weight"].flip(1)
    )
    same("momentum.module.extractor.fpn.output.1.bias", "backbone_k.fpn_output4.bias")
    assert bool(state["momentum.module.extractor.body.stride_in_1x1"])
    # the attention; the copy's convolutions, of which there are none there, begin as the attention's
    same("attention.branch.0.weight", "srm_sa.conv.0.weight")
    same("attention.branch.4.running_var", "srm_sa.conv.4.running_var")
    same("attention.spatial.weight", "srm_sa.pa.conv.weight")
    same("attention.post.2.running_mean", "srm_sa_post.2.0.running_mean")
    same("momentum.module.attention.post.1.weight", "srm_sa_post_k.1.0.weight")
    same("momentum.module.attention.branch.3.weight", "srm_sa.conv.3.weight")
    # projections
    same("coarse.projection.4.weight", "proposal_generator.fcos_head.refine.4.weight")
    same("coarse.key_projection.module.0.bias", "proposal_generator.fcos_head.refine_k.0.bias")
    same("fine_projection.weight", "blender.conv_layer.weight")
    # queues: levels first, real before fake; full from the beginning
    memory = model.coarse.memory
    for level in range(5):
        for label, (kind, prototype) in enumerate((("real", "real"), ("fake", "ancor"))):
            group = 2 * level + label
            assert torch.equal(memory.queue[group], names[f"{OUTPUTS}.hard_{kind}_queue_{level}"][:, :SLOTS].T)
            assert torch.equal(memory.prototype[group], names[f"{OUTPUTS}.{prototype}_queue_{level}"])
            assert memory.head[group] == names[f"{OUTPUTS}.{kind}_queue_ptr_hard_{level}"]
    assert memory.filled.tolist() == [SLOTS] * 10
    assert memory.has_prototype.all()
    # and it goes on from there
    batch_norm = model.attention.post[0]
    assert batch_norm.num_batches_tracked == 7
    with torch.no_grad():
        assert len(model.eval().predict(torch.rand(1, 3, 64, 64), [(64, 64)])) == 1


def test_training_goes_on_from_it(file):
    """Two steps of `authors_code`: every part learns or follows, queues move on from where they were."""
    _, path = file
    model = Comics(run_of(weights=str(path))).train()
    model.done = 0.95  # behind its ramp
    images, targets, sizes = scenes([random_boxes(n, 64, 96, n, 12) for n in (2, 3)], 64, 96)
    for target in targets:
        target["labels"] = torch.arange(len(target["labels"])) % 2
    batch = SimpleNamespace(images=images, keys=None, targets=targets, sizes=sizes)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-6)
    for _ in range(2):
        result = model.losses(batch)
        assert result.total.isfinite()
        optimiser.zero_grad()
        result.total.backward()
        optimiser.step()
        model.after_step()
    after = model.state_dict()
    for name in ("attention.branch.0.weight", "attention.spatial.weight", "attention.post.0.running_mean"):
        assert not torch.equal(after[name], before[name]), name
        assert not torch.equal(after[f"momentum.module.{name}"], before[f"momentum.module.{name}"]), name
    assert not torch.equal(after["fine_projection.weight"], before["fine_projection.weight"])


def test_an_unknown_key_is_reported_by_name(file, tmp_path):
    names, _ = file
    torch.save({"model": {**names, "srm_sa.more.weight": torch.zeros(3)}}, tmp_path / "more.pth")
    model = Comics(run_of())
    report = load_run(model, "blendmask", read(tmp_path / "more.pth", detector=model.detector))
    (unknown,) = [entry for entry in report.entries if entry.note == UNKNOWN]
    assert unknown.source == "srm_sa.more.weight"


def test_what_a_run_lacks_is_named(file):
    _, path = file
    model = Comics(run_of(slots=20))
    report = load_run(model, "blendmask", read(path, detector=model.detector))
    lost = {entry.source: entry.note for entry in report.entries if "queue" in entry.source}
    assert "queue_size" in lost[f"{OUTPUTS}.hard_real_queue_0"]
    assert "queue that is not taken" in lost[f"{OUTPUTS}.real_queue_ptr_hard_0"]
    assert not model.coarse.memory.filled.any()
    assert model.coarse.memory.has_prototype.all()

    bare = Comics(run_of(components=["attention"]))
    report = load_run(bare, "blendmask", read(path, detector=bare.detector))
    notes = {entry.source: entry.note for entry in report.of("skipped")}
    assert "coarse contrast" in notes["backbone_k.bottom_up.stem.conv1.weight"]
    assert "objective.fine.projection" in notes["blender.conv_layer.weight"]
    assert report.missing == []

    for attention in (AttentionParams(inputs="image", identity=True), AttentionParams()):
        other = run_of(attention=attention)
        with pytest.raises(UserError, match="trained with an attention"):
            Comics(run_of(attention=attention, weights=str(path)))
        load_run(Comics(other), "blendmask", read(path), partial=True)


def test_a_detector_alone_is_a_part(file):
    _, path = file
    model = Comics(run_of(components=[]))
    report = load_into(model.detector, "blendmask", path)
    assert report.share == 1
    assert len(report.entries) == len(blendmask_names(2))


def test_shared_towers_are_refused_by_name(file, tmp_path):
    names, _ = file
    names.layer("proposal_generator.fcos_head.share_srm_tower.0", WIDTH, WIDTH, 3, 3)
    torch.save({"model": dict(names)}, tmp_path / "shared.pth")
    with pytest.raises(UserError, match="NUM_SHARE_CONVS"):
        Comics(run_of(weights=str(tmp_path / "shared.pth")))


def test_command(file, tmp_path, monkeypatch):
    """The imported file is the run's whole model again, for `weights:` and for `comics detect`."""
    from comics.detect import backends

    _, path = file
    words = ["weights", "import", str(path)]
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    entry = """
  small_code:
    components: [attention, coarse, fine]
    attention: {inputs: image, identity: true, design: code}
    objective: {coarse: {projection: true, queue_size: 16}, fine: {projection: true}}
    model: {start: null, backbone_width: 1, fpn_channels: 32, head_channels: 32}
"""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(text.replace("\nruns:\n", "\nruns:" + entry, 1), encoding="utf-8")
    refused = CliRunner().invoke(app(), [*words, "--backbone", "resnet18"])
    assert isinstance(refused.exception, UserError)
    assert "of a whole run" in str(refused.exception)
    result = CliRunner().invoke(app(), [*words, "--run", "small_code"])
    assert result.exit_code == 0, result.output
    assert "srm_sa_post.3.0.weight and " in result.output
    assert "0 mismatched" in result.output
    output = tmp_path / "model_final.blendmask.safetensors"
    with safe_open(output, framework="pt") as opened:
        assert opened.metadata()["whole"] == "true"
    run = load("params.yaml").resolve("small_code")
    direct, through = (
        Comics(run.model_copy(update={"params": run.params.model_copy(update={"model": model})}))
        for model in (run.model.model_copy(update={"weights": str(one)}) for one in (path, output))
    )
    for key, value in direct.state_dict().items():
        assert torch.equal(value, through.state_dict()[key]), key
    found = backends.open_backend(output, "cpu")
    assert torch.equal(found.model.state_dict()["attention.spatial.weight"], direct.attention.spatial.weight.cpu())


# ---------------------------------------------------------------------------------------------------- the attention


def naive_attention(module: CodeAttention, images: torch.Tensor, features: list[torch.Tensor]) -> list[torch.Tensor]:
    """The authors' attention written out: three filters over three colours each, evaluation mode."""

    def norm(x: torch.Tensor, layer: nn.Module) -> torch.Tensor:
        mean, var = layer.running_mean[:, None, None], layer.running_var[:, None, None]
        return (x - mean) / (var + layer.eps).sqrt() * layer.weight[:, None, None] + layer.bias[:, None, None]

    kernels = module.kernel.repeat(1, 3, 1, 1)
    seen = functional.conv2d(images, kernels, padding=2).clamp(-3, 3)
    seen = norm(functional.conv2d(seen, module.branch[0].weight, stride=2), module.branch[1]).clamp(min=0)
    seen = norm(functional.conv2d(seen, module.branch[3].weight), module.branch[4]).clamp(min=0)
    pooled = torch.stack([seen.mean(1), seen.max(1).values], dim=1)
    found = functional.conv2d(pooled, module.spatial.weight, padding=3).sigmoid()
    result = []
    for index, level in enumerate(features):
        own = functional.interpolate(found, size=level.shape[2:], mode="bilinear", align_corners=True)
        level = own * level + level
        result.append(norm(level, module.post[index]).clamp(min=0) if index < 3 else level)
    return result


def attention_of(channels: int = 6, levels: int = 5) -> CodeAttention:
    torch.manual_seed(0)
    module = CodeAttention(
        channels, levels, AttentionParams(channels=(4, 5), inputs="image", identity=True, design="code")
    )
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) - 0.3 * (tensor.ndim > 1))
    return module.double().eval()


def test_the_attention_of_their_code():
    module = attention_of()
    images = 40 * torch.randn(2, 3, 64, 96, dtype=torch.float64)
    features = [torch.randn(2, 6, 64 // s or 1, 96 // s or 1, dtype=torch.float64) for s in (8, 16, 32, 64, 128)]
    for ours, theirs in zip(module(images, features), naive_attention(module, images, features), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert module.train()(images, features)[0].isfinite().all()


def test_the_gradient_of_the_attention_of_their_code():
    module = attention_of(2, 1)
    feature = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    images = torch.randn(1, 3, 20, 20, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda level: module(images, [level])[0], feature)
    module(images, [feature])[0].sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_a_design_says_what_it_is():
    with pytest.raises(ValueError, match="design is code"):
        AttentionParams(design="code")
    assert "design" not in load(ROOT / "params.yaml").resolve("comics").description["attention"]
    assert run_of().description["attention"]["design"] == "code"


def test_files_of_adelaidet_are_no_files_of_theirs():
    assert recognise({"model": dict(blendmask_names(2))}, "x.pth").family == "detectron2"
    assert recognise({"model": dict(checkpoint())}, "x.pth").family == "authors"
