"""``comics init``: a project out of the package, of a checkout and of a wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from fabricate import ROOT, Run

import comics
from comics.errors import UserError
from comics.workflow import project


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked, as built from the source distribution, as built from what git would hold."""
    folder = tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "comics", folder / "comics", ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"):
        shutil.copyfile(ROOT / name, folder / name)
    for path in project.files_below(ROOT):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, folder / path)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", "build", "--no-isolation", "."]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as content:
        held = {name.partition("/")[2] for name in content.getnames()}
    assert {str(path) for path in project.files_below(ROOT)} <= held
    (built,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(built) as content:
        content.extractall(folder / "site")
    return folder / "site"


def test_a_project_from_a_wheel_runs_in_an_empty_folder(wheel: Path, tmp_path: Path, run: Run) -> None:
    environment = {"PYTHONPATH": str(wheel)}
    with (wheel / "comics" / project.SHIPPED / "params.yaml").open("a") as file:
        file.write("# of the wheel\n")  # not of the checkout that these tests run from
    told = run("comics", "init", "mine", cwd=tmp_path, **environment).stdout
    made = tmp_path / "mine"
    files = project.files_below(ROOT)
    assert f"mine: {len(files)} files written" in told
    assert {path.relative_to(made) for path in made.rglob("*") if path.is_file()} == set(files)
    assert (made / "params.yaml").read_text() == (ROOT / "params.yaml").read_text() + "# of the wheel\n"
    assert run("comics", "--version", cwd=made, **environment).stdout == f"comics {comics.__version__}\n"
    plan = run("snakemake", "-n", "reports/table_iv.tex", cwd=made, **environment).stdout
    assert all(f"\n{rule} " in plan for rule in ("train", "evaluate", "table")), plan
    subprocess.run(["git", "init", "-q"], cwd=made, check=True)
    stages = run("dvc", "stage", "list", "--name-only", cwd=made, **environment).stdout
    assert "table@table_iv" in stages.split()
    run("dvc", "repro", "inputs", cwd=made, **environment)
    assert (made / "reports/inputs/tables/table_iv.json").exists()


def test_what_is_there_is_never_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    written = project.init(folder)
    assert written == project.files_below(ROOT)
    assert project.init(folder) == []
    (folder / "Snakefile").unlink()
    assert project.init(folder) == [Path("Snakefile")]  # an interrupted call goes on
    (folder / "Snakefile").unlink()
    (folder / "params.yaml").write_text("mine: true\n")
    with pytest.raises(UserError, match=r"other files of these names: params\.yaml"):
        project.init(folder)
    assert (folder / "params.yaml").read_text() == "mine: true\n"
    assert not (folder / "Snakefile").exists()


def test_a_file_is_no_folder(tmp_path: Path, run: Run) -> None:
    (tmp_path / "mine").write_text("")
    assert "mine is a file" in run("comics", "init", "mine", cwd=tmp_path, code=2).stdout


def test_stages_lose_the_package_s_files_alone() -> None:
    stages = (ROOT / "dvc.yaml").read_text().splitlines()
    kept = project.without_package("\n".join(stages)).splitlines()
    assert kept == [line for line in stages if "- comics/" not in line]
    assert len(kept) < len(stages)
