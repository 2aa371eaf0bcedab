"""DVC renders again what changed, compares, and never trains. Datasets under DVC: tests/end_to_end/test_dvc_data.py."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from fabricate import ROOT, Run, edit, fabricate_scores, planned

from comics.params import load
from comics.provenance import made_by, write_sidecar


def git(*arguments: str, cwd: Path) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=cwd, check=True, capture_output=True, text=True)
    return done.stdout


def commit(folder: Path) -> None:
    """The project as a repository of its own, with everything that git does not ignore committed."""
    (folder / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    git("init", "--quiet", cwd=folder)
    git("add", ".", cwd=folder)
    git("commit", "--quiet", "--message", "Results", cwd=folder)


def stages(text: str) -> list[str]:
    """The stages that ran."""
    return re.findall(r"^Running stage '(.*)':", text, re.MULTILINE)


def test_repro_renders_what_changed_and_nothing_else(made_project: Path, run: Run) -> None:
    names = [f"table@{name}" for name in ("table_iv", "table_v")] + ["figure@figure_9"]
    params = made_project / "params.yaml"
    commit(made_project)
    run("dvc", "repro", *names, cwd=made_project)
    rendered = [*(made_project / "reports").glob("table_*"), *(made_project / "reports/figures").iterdir()]
    assert len(rendered) == 9
    first = {path: path.read_bytes() for path in rendered}

    # A row of the figure in another colour touches the figure alone.
    edit(
        params,
        "    split: test_dev\n    table: table_ii\n",
        "    split: test_dev\n    table: table_ii\n    style: {reported: '#000000'}\n",
    )
    done = run("dvc", "repro", *names, cwd=made_project)
    assert stages(done.stdout) == ["inputs", "figure@figure_9"]

    # A result whose run has since changed is refused, with the command; other tables are none the worse for it.
    edit(params, "    style: {reported: '#000000'}\n", "")
    edit(params, "{inter_weight: 0}", "{inter_weight: 0.05}")
    done = run("dvc", "repro", "--keep-going", *names, cwd=made_project, code=None)
    assert done.returncode != 0
    assert sorted(stages(done.stdout)) == ["figure@figure_9", "inputs", "table@table_v"]
    assert "snakemake results/mini/intra/seed0/test_dev.csv" in done.stdout

    # Deleted, all comes back as it was, and nothing else in results/ has moved.
    edit(params, "{inter_weight: 0.05}", "{inter_weight: 0}")
    before = {path: path.stat().st_mtime_ns for path in (made_project / "results").rglob("*")}
    for path in rendered:
        path.unlink()
    done = run("dvc", "repro", *names, cwd=made_project)
    assert set(names) <= set(stages(done.stdout))
    assert {path: path.read_bytes() for path in rendered} == first
    assert {path: path.stat().st_mtime_ns for path in (made_project / "results").rglob("*")} == before


def test_a_run_that_was_never_made_shows_the_papers_row(project: Path, run: Run) -> None:
    run("dvc", "repro", "--single-item", "inputs", "table@table_v", cwd=_without_git(project))
    assert (project / "reports/table_v.md").stat().st_size > 0


def test_what_can_be_rendered_is_and_snakemake_makes_the_rest(project: Path, run: Run) -> None:
    """A checkout with the scores of Table IV's runs, and nothing else."""
    params = load("params.yaml")
    for row in params.tables["table_iv"].rows:
        fabricate_scores(params, project, row.run or "")
    done = run("dvc", "repro", cwd=_without_git(project))
    assert len(stages(done.stdout)) == 1 + len(params.tables) + len(params.figures) + 2
    assert "Traceback" not in done.stdout
    assert "Make it with: snakemake reports/figures/figure_8.pdf" in done.stdout
    assert "Not made yet: samples_all, samples_close. Make them with: snakemake reports/table_vi.tex" in done.stdout
    assert "Make it with: snakemake reports/figures/figure_11.pdf" in done.stdout
    assert all((project / f"reports/figures/{name}.png").stat().st_size for name in params.figures)
    assert "up to date" in run("dvc", "status", cwd=project).stdout

    def plan(*targets: str) -> dict[str, int]:
        return planned(run("snakemake", "-n", *targets, cwd=project).stdout)

    assert plan("reports/table_iv.tex", "reports/figures/figure_9.pdf") == {}
    # The third run is comics, whose scores are there, but the dataset is made anew; the fourth is the start of all.
    made = {"make_dataset": 1, "make_other_splits": 1, "train": 4, "predict": 3, "evaluate": 3}
    assert plan("reports/table_vi.tex") == {**made, "table": 1}
    assert plan("reports/figures/figure_8.png") == {"make_other_splits": 1, "figure": 1}


def test_nothing_made_is_no_error(project: Path, run: Run) -> None:
    done = run("dvc", "repro", "metrics", "page", cwd=_without_git(project))
    assert set(stages(done.stdout)) == {"inputs", "metrics", "page"}


def test_a_figure_whose_results_have_gone_is_kept(project: Path, run: Run) -> None:
    paths = [project / f"reports/figures/figure_8{suffix}" for suffix in (".pdf", ".svg", ".png")]
    paths[0].parent.mkdir(parents=True)
    for path in paths:
        path.write_text("drawn")
    times = [path.stat().st_mtime_ns for path in paths]
    done = run("comics", "figure", "figure_8", "--available", cwd=project)
    assert "data/mini/test_dev/annotations.json: no such file." in done.stdout
    assert [path.read_text() for path in paths] == ["drawn"] * 3
    assert [path.stat().st_mtime_ns for path in paths] == times
    assert "no such file" in run("comics", "figure", "figure_8", cwd=project, code=2).stdout


def _without_git(folder: Path) -> Path:
    (folder / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    return folder


def test_comparisons_are_legible(made_project: Path, run: Run) -> None:
    run("dvc", "repro", "metrics", cwd=_without_git(made_project))
    (made_project / ".dvc/config").write_text((ROOT / ".dvc/config").read_text())
    commit(made_project)
    scores = made_project / "results/mini/da/seed0/test_dev.csv"
    scores.write_text(scores.read_text().replace("all,0.", "all,0.1", 1))
    write_sidecar(scores, made_by(scores))
    edit(made_project / "params.yaml", "{inter_weight: 0}", "{inter_weight: 0.05}")

    shown = run("dvc", "metrics", "show", "--md", cwd=made_project).stdout
    lines = [line for line in shown.splitlines() if "reports/metrics/" in line]
    params = load("params.yaml")
    here = [run for run in params.runs if params.dataset_of(run) == params.dataset]
    assert len(lines) == len(set(map(params.canonical, here)))
    assert "test_dev.detection.AP" in shown

    run("dvc", "repro", "metrics", cwd=made_project)
    differences = run("dvc", "metrics", "diff", "--md", cwd=made_project).stdout
    assert "reports/metrics/da.json" in differences
    assert "reports/metrics/fea.json" not in differences

    parameters = run("dvc", "params", "diff", "--md", cwd=made_project).stdout
    assert re.search(r"runs\.intra\.objective\.fine\.inter_weight *\| *0 *\| *0\.05", parameters)
    assert parameters.count("params.yaml") == 1

    run("dvc", "plots", "show", "--out", "page", "reports/scores.csv", cwd=made_project)
    page = (made_project / "page/index.html").read_text()
    assert "vega" in page
    assert "test_challenge" in page


def test_experiments_of_what_is_rendered(made_project: Path, run: Run) -> None:
    """`dvc exp run -S` as docs/workflow.md tells: a caption is rendered, a training's setting refused with the command."""
    page = (ROOT / "docs/workflow.md").read_text()
    (setting, stage) = re.findall(r"`dvc exp run -S '(\S+)' (\S+)`", page)[0]
    commit(made_project)
    for name, value in (("user.name", "Test"), ("user.email", "test@example.org")):
        git("config", name, value, cwd=made_project)
    run("dvc", "repro", "metrics", stage, cwd=made_project)
    git("add", ".", cwd=made_project)
    git("commit", "--quiet", "--message", "Rendered", cwd=made_project)
    runs = load("params.yaml").runs
    done = run("dvc", "exp", "run", "-S", setting, stage, cwd=made_project)
    assert stages(done.stdout) == ["inputs", stage]
    assert "Another" in (made_project / "reports/table_iv.tex").read_text()
    assert load("params.yaml").runs == runs  # rewritten by DVC, with the same content
    name = re.search(r"Ran experiment\(s\): (\S+)", done.stdout)
    assert name
    shown = run("dvc", "exp", "show", "--csv", cwd=made_project).stdout
    assert name[1] in shown
    assert "reports/metrics/comics.json:test_dev.detection.AP" in shown
    (refused,) = re.findall(r"`-S (training\S+)` ends", page)
    done = run("dvc", "exp", "run", "-S", refused, stage, cwd=made_project, code=None)
    assert done.returncode != 0
    assert "Renew with: snakemake" in done.stdout
