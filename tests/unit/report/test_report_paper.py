"""The paper: compiled where a LaTeX is installed, told clearly where not."""

import shutil
import subprocess

import pytest

from comics.errors import UserError
from comics.evaluation.seeds import Gain
from comics.report import figures, paper, study, tables

from .conftest import TABLE_IV, Project


@pytest.fixture(scope="module")
def rendered_once(tmp_path_factory):
    """A project with Tables II and IV, Figure 9 and a study rendered."""
    project = Project(tmp_path_factory.mktemp("rendered"))
    project.scores(TABLE_IV)
    for name in ("table_ii", "table_iv"):
        tables.write(tables.build(project.params, name, project.root), project.root / f"reports/{name}.tex")
    figures.draw(project.params, "figure_9", project.root / "reports/figures/figure_9.pdf", project.root)
    project.dataset(2)
    project.detections([row.run for row in project.params.studies["claim"].rows], ["test_challenge"])

    def compare(truth, baseline, runs, **_):
        return [Gain(run, "detection", "AP", (0.5, 0.52), (0.4, 0.44), 0.09, -0.01, 0.2) for run in runs]

    study.compute(project.params, "claim", compare, project.root)
    study.render(project.params, "claim", project.root / "reports/studies", project.root)
    return project.root


@pytest.fixture
def rendered(rendered_once, project):
    """A copy of it, to spoil."""
    shutil.copytree(rendered_once, project.root, dirs_exist_ok=True)
    return project


def latex():
    if not (shutil.which("latexmk") and shutil.which("pdflatex")):
        pytest.skip("no latexmk or pdflatex is installed (apt-get install latexmk texlive-latex-extra)")
    style = subprocess.run(["kpsewhich", "adjustbox.sty", "microtype.sty"], capture_output=True, text=True)
    if style.returncode:
        pytest.skip("this LaTeX lacks adjustbox or microtype (apt-get install texlive-latex-extra)")


def test_the_document_includes_what_is_rendered_and_says_what_is_not(rendered):
    text, missing = paper.to_latex(rendered.params, rendered.root / "reports")
    assert r"\input{table_iv.tex}" in text
    assert r"\includegraphics[width=\textwidth]{figures/figure_9.pdf}" in text
    assert "table_v" not in text
    assert f"{rendered.root}/reports/table_v.tex" in missing
    assert f"{rendered.root}/reports/figures/figure_11.pdf" in missing
    for label in ("tab:table_ii", "tab:table_iv", "fig:figure_9", "tab:claim", "fig:study-claim"):
        assert rf"\ref{{{label}}}" in text


def test_it_compiles_without_overfull_boxes_or_missing_references_to_equal_bytes(rendered):
    latex()
    compiled, _ = paper.render(rendered.params, rendered.root / "reports/paper.pdf")
    assert compiled.complaints == []
    first = compiled.pdf.read_bytes()
    assert first.startswith(b"%PDF")
    paper.render(rendered.params, rendered.root / "reports/paper.pdf")
    assert compiled.pdf.read_bytes() == first
    left = {path.name for path in (rendered.root / "reports").iterdir()}
    assert not {name for name in left if name.endswith((".aux", ".log", ".fls", ".fdb_latexmk"))}


def test_tables_fit_with_several_seeds_and_as_differences(rendered):
    latex()
    rendered.edit("seeds: [0] ", "seeds: [0, 1] ")
    rendered.scores(TABLE_IV)
    params = rendered.params
    tables.write(tables.build(params, "table_iv"), rendered.root / "reports/table_iv.tex")
    compiled, _ = paper.render(params, rendered.root / "reports/paper.pdf")
    assert compiled.complaints == []
    difference = tables.to_latex(tables.build(params, "table_iv", delta=True)).replace("table_iv:delta", "table_iv")
    (rendered.root / "reports/table_iv.tex").write_text(difference)
    compiled, _ = paper.render(params, rendered.root / "reports/paper.pdf")
    assert compiled.complaints == []


def test_complaints_are_found(rendered):
    latex()
    path = rendered.root / "reports/table_iv.tex"
    path.write_text(path.read_text() + "\n\\noindent\\rule{30cm}{1pt} See Table~\\ref{tab:nowhere}.\n")
    compiled, _ = paper.render(rendered.params, rendered.root / "reports/paper.pdf")
    assert any(text.startswith("Overfull") for text in compiled.complaints)
    assert any("tab:nowhere" in text for text in compiled.complaints)


def test_an_error_is_told_with_its_place_and_leaves_no_pdf(rendered):
    latex()
    (rendered.root / "reports/table_iv.tex").write_text("\\nosuchcommand\n")
    with pytest.raises(UserError, match=r"table_iv\.tex:1: Undefined control sequence"):
        paper.render(rendered.params, rendered.root / "reports/paper.pdf")
    assert not (rendered.root / "reports/paper.pdf").exists()


def test_without_latex_the_tex_is_there_and_the_message_says_what_to_install(rendered, monkeypatch):
    monkeypatch.setenv("PATH", str(rendered.root))
    with pytest.raises(UserError, match="latexmk is not installed") as caught:
        paper.render(rendered.params, rendered.root / "reports/paper.pdf")
    assert "apt-get install latexmk" in caught.value.remedy
    assert (rendered.root / "reports/paper.tex").exists()


def test_nothing_rendered_is_told(project):
    with pytest.raises(UserError, match="no table and no figure"):
        paper.render(project.params, project.root / "reports/paper.pdf")


def test_numbers_are_the_papers():
    assert [paper.number(name) for name in ("table_iv", "table_ix", "figure_11", "mine", "table_mine")] == [
        4,
        9,
        11,
        None,
        None,
    ]


def test_captions_say_dataset_marks_and_rule(project):
    assert "hollow: reported in the paper, on OpenForensics; star: COMICS" in paper.figure_caption(
        project.params, "figure_9"
    )
    assert "differ most, in either's favour" in paper.figure_caption(project.params, "figure_11")
    assert "evenly spread" in paper.figure_caption(project.params, "figure_8")
