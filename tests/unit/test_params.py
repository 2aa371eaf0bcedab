"""params.yaml: what is accepted, what a mistake says, what a run resolves to."""

from __future__ import annotations

from pathlib import Path

import pytest

from comics.errors import UserError
from comics.params import Params, load

ROOT = Path(__file__).parents[2]

SMALL = """
dataset: mini
datasets:
  mini: {kind: mini}
  own: {kind: coco, annotations: {train: a.json}, images: {train: images}}
training:
  mini: {epochs: 2, lr: 1e-4}
  openforensics: {}
models:
  mini: {backbone: resnet18}
  openforensics: {weights: imagenet}
runs:
  plain: {}
  coarse: {components: [coarse]}
  cold: {components: [coarse], objective: {temperature: 0.07}}
  same: {components: [coarse], objective: {temperature: 0.7}}
tables:
  table_one:
    caption: One.
    rows:
      - {label: Plain, run: plain}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def params(tmp_path: Path) -> Params:
    return load(write(tmp_path, SMALL))


def openforensics(folder: Path) -> Path:
    """The shipped file with the paper's dataset."""
    text = (ROOT / "params.yaml").read_text()
    assert "dataset: mini " in text
    return write(folder, text.replace("dataset: mini ", "dataset: openforensics ", 1))


def test_the_shipped_file_is_valid_and_holds_the_papers_runs(tmp_path: Path) -> None:
    params = load(ROOT / "params.yaml")  # on mini
    counts = {name: len(params.tables[f"table_{name}"].rows) for name in ("iv", "v", "vi", "vii", "viii", "ix")}
    assert counts == {"iv": 8, "v": 7, "vi": 3, "vii": 5, "viii": 3, "ix": 8}
    objective = load(openforensics(tmp_path)).resolve("comics").objective
    assert (objective.temperature, objective.coarse.momentum, objective.coarse.prototype_momentum) == (0.7, 0.999, 0.9)
    assert (objective.coarse.weight, objective.fine.intra_weight, objective.fine.inter_weight) == (0.5, 0.1, 0.1)
    assert objective.coarse.level_weights == [0.1, 0.2, 0.4, 0.7, 1.0]


def test_the_paper_preset_is_the_papers(tmp_path: Path) -> None:
    run = load(openforensics(tmp_path)).resolve("comics")
    training = run.training
    assert (training.epochs, training.batch_size, training.lr, training.gamma) == (12, 8, 0.01, 0.1)
    assert training.milestones == [8, 10]
    assert (run.model.backbone, run.model.weights, run.model.fpn_channels) == ("resnet50", "imagenet", 256)


@pytest.mark.parametrize(
    ("old", "new", "place", "remedy"),
    [
        ("temperature: 0.07", "temprature: 0.07", "runs.cold.objective.temprature", "'temperature'"),
        ("epochs: 2", "epohcs: 2", "training.mini.epohcs", "'epochs'"),
        ("mini: {kind: mini}", "mini: {kind: mini, sed: 3}", "datasets.mini.sed", "'seed'"),
        ("plain: {}", "plain: {detector: blendmsk}", "runs.plain.detector", "'blendmask'"),
        ("plain: {}", "plain: {components: [corse]}", "runs.plain.components[0]", "'coarse'"),
        ("run: plain", "run: plane", "tables.table_one.rows[0].run", "'plain'"),
        ("dataset: mini", "dataset: minni", "dataset", "'mini'"),
        ("label: Plain, run: plain", "label: Plain", "tables.table_one.rows[0]", "run:"),
        ("label: Plain", "label: [a, b]", "tables.table_one.rows[0].label", "Method"),
        ("epochs: 2", "epochs: 0", "training.mini.epochs", ""),
        ("epochs: 2", "epochs: many", "training.mini.epochs", ""),
        ("caption: One.", "captoin: One.", "tables.table_one.captoin", "'caption'"),
        ("plain: {}", "plain: {components: [coarse, coarse]}", "runs.plain", ""),
        ("plain: {}", "plain: {}\n  plain: {}", "duplicate key", ""),
        ("plain: {}", "plain: {", "line", ""),
    ],
)
def test_a_mistake_names_file_key_and_nearest_name(tmp_path: Path, old: str, new: str, place: str, remedy: str) -> None:
    assert old in SMALL
    with pytest.raises(UserError) as caught:
        load(write(tmp_path, SMALL.replace(old, new, 1)))
    assert "params.yaml" in caught.value.message
    assert place in caught.value.message
    assert remedy in caught.value.remedy


def test_an_absent_or_empty_file_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load(tmp_path / "params.yaml")
    with pytest.raises(UserError, match="expected keys"):
        load(write(tmp_path, ""))


def test_exponents_are_numbers(params: Params) -> None:
    assert params.resolve("plain").training.lr == 1e-4


def test_a_run_is_preset_defaults_and_its_own_entry(params: Params) -> None:
    run = params.resolve("cold")
    assert (run.model.backbone, run.training.epochs, run.objective.temperature) == ("resnet18", 2, 0.07)
    assert run.objective.coarse.weight == 0.5


def test_runs_that_resolve_to_the_same_are_one(params: Params) -> None:
    assert params.canonical("same") == "coarse"
    assert params.canonical("cold") == "cold"
    assert params.resolve("same").digest == params.resolve("coarse").digest


def test_a_run_starts_from_another(tmp_path: Path, params: Params) -> None:
    text = SMALL.replace(
        "cold: {components: [coarse], ", "cold: {seeds: [0, 3], components: [coarse], model: {start: plain}, "
    )
    begun = load(write(tmp_path, text.replace("plain: {}", "plain: {seeds: [3, 4]}")))
    assert begun.starts == ["plain"]
    assert begun.resolve("plain").start is None
    run = begun.resolve("cold", 3)
    assert run.start == begun.resolve("plain", 3)  # of the same seed, where there is one
    assert begun.resolve("cold", 0).start == begun.resolve("plain", 3)  # of its first otherwise
    assert run.description["model"]["start"] == run.start.checkpoint_digest
    assert run.from_start(tmp_path).model.weights == str(tmp_path / "results/mini/plain/seed3/model.pt")
    assert run.from_start(tmp_path).digest == run.digest != params.resolve("cold", 3).digest
    other = load(write(tmp_path, text.replace("plain: {}", "plain: {training: {lr: 0.3}, seeds: [3, 4]}")))
    assert other.resolve("cold", 3).digest != run.digest
    assert other.resolve("coarse", 3).digest == begun.resolve("coarse", 3).digest


def test_starts_that_lead_nowhere(tmp_path: Path) -> None:
    absent = SMALL.replace("plain: {}", "plain: {model: {start: cole}}")
    with pytest.raises(UserError, match=r"runs\.plain\.model\.start: there is no run 'cole'") as caught:
        load(write(tmp_path, absent))
    assert "'cold'" in caught.value.remedy
    circle = SMALL.replace("plain: {}", "plain: {model: {start: same}}").replace(
        "same: {", "same: {model: {start: plain}, "
    )
    with pytest.raises(UserError, match="plain <- same <- plain"):
        load(write(tmp_path, circle))
    whole = SMALL.replace("mini: {backbone: resnet18}", "mini: {backbone: resnet18, start: plain}")
    with pytest.raises(UserError, match="start: null"):
        load(write(tmp_path, whole))
    first = load(write(tmp_path, whole.replace("plain: {}", "plain: {model: {start: null}}")))
    assert first.resolve("cold").start == first.resolve("plain")


def test_the_digest_follows_what_matters_and_nothing_else(tmp_path: Path, params: Params) -> None:
    def digest(old: str, new: str, run: str = "plain", seed: int = 0) -> str:
        return load(write(tmp_path, SMALL.replace(old, new, 1))).resolve(run, seed).digest

    before = params.resolve("plain").digest
    assert digest("epochs: 2", "epochs: 3") != before
    assert digest("mini: {kind: mini}", "mini: {kind: mini, seed: 3}") != before
    assert digest("", "", seed=1) != before
    assert digest("epochs: 2", "epochs: 2, workers: 7") == before
    assert digest("plain: {}", "plain: {title: Plain}") == before
    # an objective that is off cannot change a result
    assert digest("plain: {}", "plain: {objective: {temperature: 0.1}}") == before
    assert digest("temperature: 0.07", "temperature: 0.1") == before


def test_inference_settings_change_results_but_not_weights(tmp_path: Path, params: Params) -> None:
    text = SMALL.replace("plain: {}", "plain: {inference: {score_threshold: 0.1}}")
    before, after = params.resolve("plain"), load(write(tmp_path, text)).resolve("plain")
    assert before.digest != after.digest
    assert before.checkpoint_digest == after.checkpoint_digest


def test_seeds_of_a_run_come_before_those_of_the_file(tmp_path: Path) -> None:
    text = SMALL.replace("plain: {}", "plain: {seeds: [4, 5]}").replace("dataset: mini", "dataset: mini\nseeds: [1]", 1)
    params = load(write(tmp_path, text))
    assert params.seeds("plain") == [4, 5]
    assert params.seeds("coarse") == [1]
    assert params.resolve("plain").folder == Path("results/mini/plain/seed4")


def test_a_run_that_is_not_there_is_offered_the_nearest(params: Params) -> None:
    with pytest.raises(UserError) as caught:
        params.resolve("plian")
    assert "'plain'" in caught.value.remedy


def digest(folder: Path, training: str) -> str:
    return load(write(folder, SMALL.replace("plain: {}", f"plain: {{training: {training}}}"))).resolve("plain").digest


def test_an_average_and_validations_that_decide_are_part_of_the_digest_and_others_are_not(tmp_path: Path) -> None:
    usual = digest(tmp_path, "{}")
    assert "ema" not in load(write(tmp_path, SMALL)).resolve("plain").description["training"]
    for nothing in ("{ema: 0}", "{validation: {every: 2}}", "{validation: {every: 1, metric: detection_AP}}"):
        assert digest(tmp_path, nothing) == usual
    others = ["{ema: 0.9}", "{validation: {every: 1, keep: best}}", "{validation: {every: 1, patience: 3}}"]
    others.append("{validation: {every: 2, keep: best}}")
    assert len({usual, *(digest(tmp_path, one) for one in others)}) == 5
    with pytest.raises(UserError, match=r"validation.*keep and patience need validations"):
        load(write(tmp_path, SMALL.replace("{epochs: 2", "{validation: {keep: best}, epochs: 2"))).resolve("plain")


def test_a_copy_of_a_run_has_a_digest_of_its_own(params: Params) -> None:
    run = params.resolve("plain")
    before = run.digest, run.checkpoint_digest
    training = run.training.model_copy(update={"epochs": run.training.epochs + 1})
    copied = run.model_copy(update={"params": run.params.model_copy(update={"training": training})})
    assert copied.description["training"]["epochs"] == run.training.epochs + 1
    assert before[0] != copied.digest
    assert before[1] != copied.checkpoint_digest
    assert (run.digest, run.checkpoint_digest) == before


def test_other_predictions_are_of_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    run = load(ROOT / "params.yaml").resolve("blendmask")
    before = run.digest, run.checkpoint_digest
    monkeypatch.setattr("comics.params.resolve.PREDICTION_CODE_VERSION", 1000)
    run = load(ROOT / "params.yaml").resolve("blendmask")
    assert run.digest != before[0]
    assert run.checkpoint_digest == before[1]
