"""Tables: what stands in them, how it is marked, and what is refused."""

import csv
import re
import statistics
import subprocess
import sys

import pytest

from comics.errors import UserError
from comics.files import write_json
from comics.report import tables
from comics.report.results import resolved_runs, scores_path
from comics.report.style import plain, tex
from comics.score_files import read_score_file

from .conftest import TABLE_IV


def build(project, name, **options):
    return tables.build(project.params, name, project.root, **options)


def test_table_iv_has_ours_over_the_papers_number_in_both_sets_and_tasks(project):
    project.scores(TABLE_IV)
    table = build(project, "table_iv")
    assert list(table.blocks) == ["test_dev", "test_challenge"]
    for split, lines in table.blocks.items():
        assert [line.kind for line in lines] == ["ours", "paper"] * 8
        assert all(len(line.cells) == 16 for line in lines)
        for line in lines[::2]:
            scores = read_score_file(project.root / scores_path(project.params.resolve(line.run, 0), split))
            for cell in line.cells:
                assert cell.text == f"{100 * scores[cell.task, 'all', cell.metric]:.1f}"
    assert table.blocks["test_dev"][1].cell("segmentation", "AP").text == "89.2"
    assert table.blocks["test_challenge"][-1].cell("detection", "oLRP").text == "36.5"


def test_best_is_bold_and_second_underlined_in_the_metrics_own_direction(project):
    project.scores(TABLE_IV)
    table = build(project, "table_iv")
    for lines in table.blocks.values():
        for column in range(16):
            cells = [line.cells[column] for line in lines if line.kind == "ours"]
            up = cells[0].metric.startswith("AP")
            order = sorted({float(cell.text) for cell in cells}, reverse=up)
            assert {float(c.text) for c in cells if c.rank == 1} == {order[0]}
            assert {float(c.text) for c in cells if c.rank == 2} == {order[1]}
            assert all(cell.rank == 0 for line in lines if line.kind == "paper" for cell in line.cells)
    latex = tables.to_latex(table)
    assert latex.count(r"\textbf{") == sum(c.rank == 1 for _, line in tables.table_lines(table) for c in line.cells)
    assert latex.count(r"\underline{") == sum(c.rank == 2 for _, line in tables.table_lines(table) for c in line.cells)


def test_equal_at_the_precision_shown_is_equally_best(project):
    project.scores(TABLE_IV, AP=0.4321)
    line_cells = [line.cell("detection", "AP") for line in build(project, "table_iv").blocks["test_dev"][::2]]
    assert [cell.rank for cell in line_cells] == [1] * 8


def test_undefined_cells_are_dashes_and_never_best(project):
    project.scores(TABLE_IV, AP_S=None)
    table = build(project, "table_iv")
    assert all(line.cell("detection", "AP_S").rank == 0 for line in table.blocks["test_dev"][::2])
    assert " & -- & " in tables.to_latex(table)
    assert "– (32.7)" in tables.to_markdown(table)


def test_caption_names_dataset_and_seeds_and_comments_name_digests(project):
    project.scores(TABLE_IV)
    latex = tables.to_latex(build(project, "table_iv"))
    assert "measured on mini, seed 0" in latex
    assert "OpenForensics" in latex
    for run in TABLE_IV:
        assert f"% {run} seed 0: digest {project.params.resolve(run, 0).digest}\n" in latex


def test_several_seeds_give_mean_and_sample_deviation(project):
    project.edit("seeds: [0] ", "seeds: [0, 1, 2] ")
    project.scores(TABLE_IV)
    table = build(project, "table_iv")
    runs = resolved_runs(project.params, "da")
    assert [run.seed for run in runs] == [0, 1, 2]
    values = [read_score_file(project.root / scores_path(run, "test_dev"))["detection", "all", "AP"] for run in runs]
    cell = table.blocks["test_dev"][2].cell("detection", "AP")
    assert cell.value == pytest.approx(statistics.mean(values))
    assert cell.std == pytest.approx(statistics.stdev(values))
    assert "seeds 0, 1 and 2 (mean and sample standard deviation)" in tables.to_latex(table)
    assert f"± {100 * cell.std:.1f}" in tables.to_markdown(table)


def test_delta_is_ours_minus_the_papers_with_the_colour_of_whom_it_favours(project):
    project.scores(TABLE_IV, AP=0.9, oLRP=0.5, AP_L=0.88)
    table = build(project, "table_iv", delta=True)
    first = table.blocks["test_dev"][0]
    assert first.cell("detection", "AP").text == "+3.0"
    assert first.cell("detection", "AP").better is True
    assert first.cell("detection", "oLRP").text == "+30.5"
    assert first.cell("detection", "oLRP").better is False
    assert first.cell("detection", "AP_L").text == "0.0"
    assert first.cell("detection", "AP_L").better is None
    latex = tables.to_latex(table)
    assert r"\textcolor{comicsbetter}{+3.0}" in latex
    assert r"\textcolor{comicsworse}{+30.5}" in latex
    assert r"\textbf" not in latex
    assert "+3.0 ▲" in tables.to_markdown(table)


def test_optional_rows_are_the_papers_as_reported_until_measured(project):
    table = build(project, "table_ii")
    assert [line.kind for line in table.blocks["test_dev"]] == ["reported"] * 13
    assert r"\textit{Mask R-CNN}}$^\dagger$" in tables.to_latex(table)
    project.scores(["blendmask", "comics"])
    table = build(project, "table_ii")
    kinds = {line.labels[0]: line.kind for line in table.blocks["test_dev"] if line.kind != "paper"}
    assert {label for label, kind in kinds.items() if kind == "ours"} == {"BlendMask", "COMICS"}
    assert len(kinds) == 13
    assert "*Mask R-CNN* †" in tables.to_markdown(table)


def test_slips_of_the_paper_carry_footnotes(project):
    project.scores(TABLE_IV)
    table = build(project, "table_iv")
    cell = next(
        line for line in table.blocks["test_challenge"] if line.paper == "FEA+Bi-grained" and line.kind == "paper"
    )
    (letter,) = cell.cell("detection", "oLRP_FN").notes
    assert "2.3" in table.notes[letter]
    assert rf"2.3}}\rlap{{\textsuperscript{{{letter}}}}}" in tables.to_latex(table)
    text = tables.to_markdown(build(project, "table_iii"))
    assert re.search(r"\*PolarMask\* †<sup>a</sup>", text)
    assert "same sixteen numbers" in text


def test_missing_results_are_refused_with_one_command_that_makes_them_all(project):
    project.scores([run for run in TABLE_IV if run not in ("da", "comics")])
    with pytest.raises(UserError) as caught:
        build(project, "table_iv")
    assert caught.value.remedy == (
        "Renew with: snakemake results/mini/da/seed0/test_dev.csv results/mini/da/seed0/test_challenge.csv "
        "results/mini/comics/seed0/test_dev.csv results/mini/comics/seed0/test_challenge.csv"
    )


def test_results_of_a_changed_run_are_refused_with_the_command(project):
    project.scores(TABLE_IV)
    project.edit(
        "da:         {title: BlendMask + DA, components: [views]}", "da: {components: [views], training: {lr: 0.5}}"
    )
    with pytest.raises(UserError, match="another version of its run") as caught:
        build(project, "table_iv")
    both = "results/mini/da/seed0/test_dev.csv results/mini/da/seed0/test_challenge.csv"
    assert caught.value.remedy == f"Renew with: snakemake {both} --forcerun {both}"


def test_a_table_says_what_its_rows_start_from(project):
    project.scores(TABLE_IV)
    words = "All of ours start from the weights of Common start (8 epochs of the same images)."
    assert words in build(project, "table_iv").remarks
    project.edit("fea:        {title: BlendMask + FEA,", "fea: {title: BlendMask + FEA, model: {start: null},")
    project.scores(["fea"])
    (said,) = [remark for remark in build(project, "table_iv").remarks if "Common start" in remark]
    assert said.startswith("blendmask, da, ")
    assert " fea " not in said.replace(",", " ")


def test_what_is_available_is_shown_without_the_rest(project):
    project.scores([run for run in TABLE_IV if run != "da"])
    (project.root / "results/mini/fea/seed0/test_dev.csv").unlink()  # half of a run is none
    project.edit(
        '      - {label: ["yes", "no", "no"], run: da, paper: DA}\n',
        '      - {label: ["yes", "no", "no"], run: da}\n      - {label: ["no", "yes", "no"], run: fea}\n',
    )
    table = tables.build(project.params, "table_iv", project.root, available=True)
    lines = table.blocks["test_challenge"]
    assert {line.run for line in lines} == {None, *TABLE_IV} - {"da", "fea"}
    assert [line.paper for line in lines if line.kind == "reported"] == ["FEA"]
    assert "Not made yet: yes no no and no yes no." in table.remarks
    with pytest.raises(UserError, match="no such result"):
        build(project, "table_iv")

    project.scores(["da"])
    project.edit(
        "da:         {title: BlendMask + DA, components: [views]}", "da: {components: [views], training: {lr: 0.5}}"
    )
    with pytest.raises(UserError, match="another version of its run"):
        tables.build(project.params, "table_iv", project.root, available=True)


def test_a_table_of_nothing_made_is_still_one(project):
    project.edit(
        "\ntables:\n", "\ntables:\n  mine:\n    caption: C\n    columns: [A]\n    rows: [{label: x, run: da}]\n"
    )
    table = tables.build(project.params, "mine", project.root, available=True)
    assert not any(table.blocks.values())
    assert "Not made yet: x." in tables.to_markdown(table)
    assert "Not made yet: x." in tables.to_latex(table)


def test_runs_that_resolve_to_the_same_share_results(project):
    project.scores(["temperature_007", "temperature_02", "comics"])
    table = build(project, "table_viii")
    assert [line.run for line in table.blocks["test_dev"][::2]] == ["temperature_007", "temperature_02", "comics"]


def test_marks_of_a_comparison_are_used_only_for_the_very_runs_it_compared(project):
    project.scores(TABLE_IV)
    params = project.params
    lines = build(project, "table_iv").blocks["test_dev"]
    other = next(line for line in lines if line.kind == "ours" and line.cell("detection", "AP").rank != 1)
    similar = [{"run": other.run, "split": "test_dev", "task": "detection", "metric": "AP"}]
    digests = {f"{run} seed 0": params.resolve(run, 0).digest for run in TABLE_IV}
    path = project.root / tables.comparison_path(params, "table_iv")
    write_json(path, {"digests": digests, "similar": similar})
    table = build(project, "table_iv")
    marked = [(line.run, cell.metric) for _, line in tables.table_lines(table) for cell in line.cells if cell.similar]
    assert marked == [(other.run, "AP")]
    assert tables.to_latex(table).count(r"\rlap{$^{\approx}$}") == 1
    assert "not significantly different" in tables.to_markdown(table)
    write_json(path, {"digests": digests, "similar": []})
    table = build(project, "table_iv")
    assert "differ significantly" in tables.to_markdown(table)
    assert r"p \textless{} 0.05" in tables.to_latex(table)
    write_json(path, {"digests": digests | {"da seed 0": "0" * 16}, "similar": similar})
    table = build(project, "table_iv")
    assert not any(cell.similar for _, line in tables.table_lines(table) for cell in line.cells)
    assert "significant" not in tables.to_markdown(table)
    write_json(path, {"digests": digests, "similar": similar})
    project.edit("    paper: IV\n", "    paper: IV\n    compare: false\n")
    assert "significant" not in tables.to_markdown(build(project, "table_iv"))


def test_a_single_measured_row_differs_from_nothing(project):
    project.scores(["comics"])
    digests = {"comics seed 0": project.params.resolve("comics", 0).digest}
    write_json(project.root / tables.comparison_path(project.params, "table_ii"), {"digests": digests, "similar": []})
    assert "significant" not in tables.to_markdown(build(project, "table_ii"))


def test_a_table_names_the_metrics_that_it_compares(project):
    project.scores(TABLE_IV)
    digests = {f"{run} seed 0": project.params.resolve(run, 0).digest for run in TABLE_IV}
    write_json(project.root / tables.comparison_path(project.params, "table_iv"), {"digests": digests, "similar": []})
    project.edit("    paper: IV\n", "    paper: IV\n    metrics: [AP50, oLRP]\n")
    assert "oLRP of all others differ significantly" in (text := tables.to_markdown(build(project, "table_iv")))
    assert "AP and oLRP" not in text
    project.edit("    metrics: [AP50, oLRP]\n", "    metrics: [AP50]\n")
    assert "significant" not in tables.to_markdown(build(project, "table_iv"))


def test_csv_keeps_full_precision_and_says_whose_number_it_is(project):
    project.scores(TABLE_IV)
    table = build(project, "table_iv")
    rows = list(csv.DictReader(tables.to_csv(table).splitlines()))
    assert len(rows) == 2 * 8 * 2 * 2
    first = rows[0]
    scores = read_score_file(project.root / scores_path(project.params.resolve("blendmask", 0), "test_dev"))
    assert first["source"] == "ours"
    assert float(first["AP"]) == pytest.approx(100 * scores["detection", "all", "AP"], abs=1e-7)
    paper = next(row for row in rows if row["source"] == "paper")
    assert (paper["AP"], paper["run"]) == ("87.0", "")


def test_a_table_of_ones_own_is_one_entry_of_params_yaml(project):
    project.edit(
        "\nfigures:\n",
        """
  mine:
    caption: Only two & 50 % fewer columns.
    columns: [System, Kind]
    splits: [test_challenge]
    tasks: [segmentation]
    metrics: [AP50, oLRP]
    notes: [A remark.]
    rows:
      - {label: [BlendMask, base], run: blendmask}
      - {label: [COMICS, ours], run: comics}

figures:
""",
    )
    project.scores(["blendmask", "comics"])
    table = build(project, "mine")
    latex = tables.to_latex(table)
    assert r"\begin{table}[t]" in latex
    assert r"Only two \& 50 \% fewer columns." in latex
    assert "A remark." in latex
    assert "AP$_{\\mathrm{50}}$ & oLRP" in latex
    assert [line.kind for line in table.blocks["test_challenge"]] == ["ours", "ours"]
    assert "paper" not in tables.to_markdown(table).lower()


def test_a_row_that_is_not_the_papers_is_named_with_its_place(project):
    project.edit("run: da, paper: DA}", "run: da, paper: DAA}")
    with pytest.raises(UserError, match=r"tables\.table_iv\.rows\[1\].*DAA") as caught:
        build(project, "table_iv")
    assert "DA" in caught.value.remedy


def test_unknown_table_and_wrong_suffix(project):
    with pytest.raises(UserError, match="no table 'table_iiv'") as caught:
        build(project, "table_iiv")
    assert "Did you mean" in caught.value.remedy
    with pytest.raises(UserError, match=r"\.tex"):
        tables.write(build(project, "table_ii"), project.root / "x.pdf")


def test_equal_results_give_equal_bytes(project):
    project.scores(TABLE_IV)
    written = tables.write(build(project, "table_iv"), project.root / "reports/table_iv.tex")
    before = [path.read_bytes() for path in written]
    tables.write(build(project, "table_iv"), project.root / "reports/table_iv.tex")
    assert [path.read_bytes() for path in written] == before


def test_a_broken_scores_file_is_told_with_line_and_column(project):
    project.scores(["comics"])
    path = project.root / scores_path(project.params.resolve("comics", 0), "test_dev")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1].rsplit(",", 1)[0] + ",oops", *lines[2:]]))
    with pytest.raises(UserError, match=r"test_dev\.csv: line 2, column oLRP_threshold: 'oops'"):
        read_score_file(path)


def test_text_for_latex_and_for_people():
    assert tex("50 % of AP_S & oLRP_FN, a_b, $\\lambda_1$") == (
        r"50 \% of AP$_{\mathrm{S}}$ \& oLRP$_{\mathrm{FN}}$, a\_b, $\lambda_1$"
    )
    assert plain("$\\lambda_1$ and $\\tau = 0.7$") == "λ1 and τ = 0.7"


def test_rendering_imports_no_torch(project):
    project.scores(TABLE_IV)
    project.dataset(3)
    project.detections(["blendmask", "comics"])
    code = (
        "import sys; from comics.cli import app\n"
        "for words in (['table', 'table_iv'], ['table', 'table_iv', '--delta'], ['figure', 'figure_9'], ['page'],\n"
        "              ['figure', 'figure_8'], ['figure', 'figure_11', '--output', 'mine/eleven.pdf']):\n"
        "    try: app()(words)\n"
        "    except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("table_iv.csv", "table_iv_delta.md", "figures/figure_9.pdf", "index.html", "../mine/eleven.svg"):
        assert (project.root / "reports" / name).exists()


def test_a_users_mistake_ends_with_code_2_and_without_a_traceback(project):
    command = [sys.executable, "-m", "comics", "table", "table_iv"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Renew with: snakemake results/mini/blendmask/seed0/test_dev.csv" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project.root / "reports").exists()


def test_a_stale_optional_row_is_the_papers_with_a_warning(project):
    project.scores(["comics"])
    project.edit("comics:     {title: COMICS, ", "comics:     {title: COMICS, training: {lr: 0.5}, ")
    done = subprocess.run([sys.executable, "-m", "comics", "table", "table_ii"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "The paper's row stands in for comics" in done.stderr
    assert "snakemake results/mini/comics/seed0/test_dev.csv" in done.stderr
