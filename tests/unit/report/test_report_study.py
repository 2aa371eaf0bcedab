"""Studies: what was computed is rendered as table and figure, while it is of the runs as they now are."""

import csv
import json

import pytest
from typer.testing import CliRunner

from comics.cli import app
from comics.errors import UserError
from comics.evaluation.intervals import seed_noise, seeds_needed
from comics.evaluation.seeds import Gain, compare_runs
from comics.report import paper, study
from comics.report.page import gather, to_html
from comics.report.results import read_run

ARMS = ("claim_blendmask", "claim_da", "claim_fea", "claim_bi_grained", "claim_comics", "claim_authors_code")
FEWER = "&eight [0, 1, 2, 3, 4, 5, 6, 7]", "&eight [0, 1, 2]"
"""Seeds of the study, for tests that need no eight."""


@pytest.fixture
def studied(project):
    """A project with detections of the study's runs, and few resamples."""
    project.edit("caption: Do the components of COMICS help?", "caption: Do they help?\n    samples: 20")
    project.edit(*FEWER)
    project.dataset(6)
    project.detections(ARMS, ["test_challenge"])
    return project


def test_computed_from_detections_and_rendered(studied):
    assert study.compute(studied.params, "claim", compare_runs) == 5 * 2 * 2
    paths = study.render(studied.params, "claim", studied.root / "reports/studies")
    assert [path.suffix for path in paths] == [".tex", ".md", ".csv", ".pdf", ".svg", ".png"]
    assert all(path.stat().st_size for path in paths)
    with paths[2].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows if (row["task"], row["metric"]) == ("detection", "AP")] == list(ARMS)
    gains = json.loads((studied.root / study.effects_path(studied.params, "claim")).read_text())["gains"]
    for row in rows:
        gain = next((one for one in gains if all(one[key] == row[key] for key in ("run", "task", "metric"))), None)
        if row["run"] == ARMS[0]:
            assert gain is None
            assert row["difference"] == row["verdict"] == ""
        else:
            assert float(row["difference"]) == pytest.approx(100 * gain["difference"])
            assert float(row["mean"]) == pytest.approx(100 * sum(gain["values"]) / 3)


def test_verdicts_are_compared_like_ap(studied):
    studied.edit("samples: 20", "samples: 20\n    metrics: [face_ACC, pixel_F1]")
    compared = [("detection", "face_ACC"), ("segmentation", "face_ACC"), ("segmentation", "pixel_F1")]
    assert study.compute(studied.params, "claim", compare_runs) == (len(ARMS) - 1) * len(compared)
    effects = study.read_effects(studied.params, "claim", studied.root)
    assert study.columns(effects) == compared
    studied.edit("metrics: [face_ACC, pixel_F1]", "metrics: [face_ACC]")
    with pytest.raises(UserError, match="other versions"):
        study.read_effects(studied.params, "claim", studied.root)


def test_equal_results_give_equal_bytes(studied):
    study.compute(studied.params, "claim", compare_runs)
    first = [path.read_bytes() for path in study.render(studied.params, "claim", studied.root / "one")]
    second = [path.read_bytes() for path in study.render(studied.params, "claim", studied.root / "two")]
    assert first == second


def test_power_is_told_from_the_seeds_that_there_are(project, monkeypatch):
    monkeypatch.chdir(project.root)
    result = CliRunner().invoke(app(), ["power"])
    assert isinstance(result.exception, UserError)
    assert "no run has current results of two seeds" in result.exception.message
    project.edit(*FEWER)
    project.scores(ARMS)  # three seeds each
    project.scores(["comics"])  # one
    result = CliRunner().invoke(app(), ["power", "--difference", "5", "--metric", "face_AUC"])
    assert result.exit_code == 0, result.output
    runs = [one for one in ARMS if one in result.output]
    assert runs == list(ARMS)
    scores = [
        [100 * one["segmentation", "all", "face_AUC"] for one in read_run(project.params, run, "test_challenge").scores]
        for run in ARMS
    ]
    absent = CliRunner().invoke(app(), ["power", "--params", "mine.yaml"])
    assert isinstance(absent.exception, UserError)
    assert "mine.yaml" in absent.exception.message
    noise = seed_noise(scores)
    assert f"between seeds {noise.deviation:.2f} points (12 degrees of freedom" in result.output
    assert f"by {seeds_needed(5, noise.deviation)} seeds of each run" in " ".join(result.output.split())


def fabricated(low, high, metric="AP"):
    """`compare_runs` that finds one difference for every arm."""

    def compare(truth, baseline, runs, samples, metrics, progress):
        return [Gain(run, "detection", metric, (0.5, 0.52), (0.4, 0.44), (low + high) / 2, low, high) for run in runs]

    return compare


def test_the_page_shows_what_was_found_and_else_says_how_to_make_it(studied):
    assert "Make it with <code>snakemake claim</code>" in to_html(studied.params, gather(studied.params, studied.root))
    study.compute(studied.params, "claim", fabricated(0.01, 0.03))
    view, *others = gather(studied.params, studied.root).studies
    assert [other["view"] for other in others] == [None] * (len(studied.params.studies) - 1)  # not made
    first, second, *_ = view["view"]["rows"]
    assert view["view"]["headings"] == ["Detection, AP"]
    assert (first["label"], first["cells"][0]["bar"]) == ("BlendMask", [])
    assert second["cells"] == [
        {"mean": "51.0 ± 1.4", "difference": "+2.0 [+1.0, +3.0] ▲", "verdict": "better", "bar": [66, 82, 98]}
    ]
    page = to_html(studied.params, gather(studied.params, studied.root))
    assert 'd="M66.0 4H98.0"' in page
    assert 'href="#run-claim_da"' in page
    path = studied.root / study.effects_path(studied.params, "claim")
    path.write_text(path.read_text().replace('"samples": 20', '"samples": 21'))
    gathered = gather(studied.params, studied.root)
    assert gathered.studies[0]["view"] is None
    assert "snakemake claim" in gathered.studies[0]["problem"]


def test_the_paper_holds_the_studies_that_are_rendered(studied):
    study.compute(studied.params, "claim", compare_runs)
    folder = studied.root / "reports"
    study.render(studied.params, "claim", folder / "studies")
    (folder / "table_iv.tex").write_text("")
    text, _ = paper.to_latex(studied.params, folder)
    assert r"\input{studies/claim.tex}" in text
    assert r"\includegraphics[width=\textwidth]{studies/claim.pdf}" in text
    (folder / "studies/claim.pdf").unlink()
    assert "claim" not in paper.to_latex(studied.params, folder)[0]


@pytest.mark.parametrize(
    ("low", "high", "metric", "verdict", "mark"),
    [
        (0.02, 0.16, "AP", "better", "▲"),
        (-0.16, -0.02, "AP", "worse", "▼"),
        (-0.01, 0.2, "AP", "", ""),
        (0.02, 0.16, "oLRP", "worse", "▼"),
        (-0.16, -0.02, "oLRP", "better", "▲"),
    ],
)
def test_an_interval_that_leaves_out_zero_is_marked(studied, low, high, metric, verdict, mark):
    study.compute(studied.params, "claim", fabricated(low, high, metric))
    effects = study.read_effects(studied.params, "claim")
    assert [effect.verdict for effect in effects] == ["", *[verdict] * 5]
    text = study.to_markdown(studied.params, "claim", effects)
    line = next(line for line in text.splitlines() if line.startswith("| COMICS"))
    assert f"[{100 * low:+.1f}, {100 * high:+.1f}]".replace("-", "−") in line
    assert (mark in line) if mark else ("▲" not in line and "▼" not in line)
    assert "| BlendMask | 42.0 ± 2.8 |  |" in text


def test_latex_keeps_to_its_characters(studied):
    study.compute(studied.params, "claim", fabricated(-0.1, 0.2))
    text = study.to_latex(studied.params, "claim", study.read_effects(studied.params, "claim"))
    assert text.isascii()
    assert text.count(r"\\") >= 6
    assert r"$+$" not in text
    assert "seeds 0, 1 and 2" in text


def test_nothing_computed_and_runs_that_changed_are_refused(studied):
    with pytest.raises(UserError, match="no such result") as missing:
        study.render(studied.params, "claim", studied.root)
    assert missing.value.remedy == "Renew with: snakemake results/mini/studies/claim.json"
    study.compute(studied.params, "claim", fabricated(0.1, 0.2))
    studied.edit("&longer {epochs: 3, milestones", "&longer {epochs: 4, milestones")
    with pytest.raises(UserError, match="other versions of its runs"):
        study.render(studied.params, "claim", studied.root)
    with pytest.raises(UserError, match="claim_blendmask/seed0"):
        study.compute(studied.params, "claim", fabricated(0.1, 0.2))


def test_another_dataset_or_name_is_refused(studied):
    with pytest.raises(UserError, match="no study 'clam'") as unknown:
        study.study_params(studied.params, "clam")
    assert "claim" in unknown.value.remedy
    studied.edit("dataset: mini            #", "dataset: openforensics  #")
    with pytest.raises(UserError, match="about the dataset 'mini', not 'openforensics'"):
        study.study_params(studied.params, "claim")


def test_a_study_names_runs_that_there_are(project):
    later = '\n      - {label: "COMICS, authors\' code", run: claim_authors_code}\n  claim_clean'
    project.edit("{label: COMICS, run: claim_comics}" + later, "{label: COMICS, run: claim_comic}" + later)
    with pytest.raises(UserError, match=r"studies\.claim\.rows\[4\]\.run: there is no run 'claim_comic'") as error:
        _ = project.params
    assert "claim_comics" in error.value.remedy
