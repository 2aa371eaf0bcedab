"""``comics init``: a project out of the package, of a checkout and of a wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from fabricate import ROOT, Run
from packaging.metadata import Metadata
from packaging.version import Version

import comics
from comics.errors import UserError
from comics.workflow import project


def test_versions_are_those_of_git_s_tags() -> None:
    assert project.version_of("", "0.2.0") == "0.2.0"
    assert project.version_of("v0.2.0-0-g1a2b3c4", "0.2.0") == "0.2.0"
    between = [project.version_of(told, "0.2.0") for told in ("v0.1.0-3-g1a2b3c4", "v0.2.0-3-g1a2b3c4")]
    assert between == ["0.2.0.dev3+g1a2b3c4", "0.2.0.post3+g1a2b3c4"]
    assert Version("0.1.0") < Version(between[0]) < Version("0.2.0") < Version(between[1])
    with pytest.raises(ValueError, match=r"tagged v0\.3\.0, but .* says 0\.2\.0"):
        project.version_of("v0.3.0-0-g1a2b3c4", "0.2.0")


@dataclass(frozen=True)
class Installed:
    """An environment of its own with the wheel in it.

    Attributes:
        python: its interpreter.
        package: the folder of the installed package.
        commit: that the wheel was built from.
    """

    python: Path
    package: Path
    commit: str

    def run(self, *arguments: str, cwd: Path) -> str:
        """The output of a command of the environment (``run("comics", "init")``), or of ``python -m`` for others' programs."""
        script = self.python.with_name(arguments[0])
        command = [str(script)] if script.exists() else [str(self.python), "-m", arguments[0]]
        inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        path = os.pathsep.join([str(self.python.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
        done = subprocess.run(
            [*command, *arguments[1:]],
            cwd=cwd,
            env={**inherited, "PATH": path, "NO_COLOR": "1", "DVC_NO_ANALYTICS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


def git(folder: Path, *arguments: str) -> str:
    """Run git as nobody in particular."""
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
    return subprocess.run(
        ["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel, as built from the source distribution, as built from a commit after a tag, installed into an empty environment.

    What it needs is not installed again: the environment sees the packages of this one, but not its `comics`."""
    folder = tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "comics", folder / "comics", ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"):
        shutil.copyfile(ROOT / name, folder / name)
    for path in project.files_below(ROOT):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, folder / path)
    with (folder / "params.yaml").open("a") as file:
        file.write("# of the wheel\n")  # not of the checkout that these tests run from
    git(folder, "init", "-q")
    git(folder, "add", "-A", "-f")
    git(folder, "commit", "-qm", "one")
    git(folder, "tag", "v0.0.1")
    git(folder, "commit", "-qm", "two", "--allow-empty")
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
        (metadata,) = (name for name in content.namelist() if name.endswith(".dist-info/METADATA"))
        described = Metadata.from_email(content.read(metadata), validate=True)
    assert described.description_content_type == "text/markdown"
    assert "Apache" in str(described.license_expression)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv/bin/python"
    (site,) = (folder / "venv/lib").glob("python3*/site-packages")
    command = [str(python), "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(built)]
    subprocess.run(command, check=True, env=environment)
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")  # in which .pth files are not read again
    return Installed(python, site / "comics", git(folder, "rev-parse", "HEAD"))


def test_a_project_from_a_wheel_runs_in_an_empty_folder(installed: Installed, tmp_path: Path) -> None:
    told = installed.run("comics", "init", "mine", cwd=tmp_path)
    made = tmp_path / "mine"
    files = project.files_below(ROOT)
    assert f"mine: {len(files)} files written" in told
    assert {path.relative_to(made) for path in made.rglob("*") if path.is_file()} == set(files)
    assert (made / "params.yaml").read_text() == (ROOT / "params.yaml").read_text() + "# of the wheel\n"
    short = installed.commit[:12]
    version = installed.run("comics", "--version", cwd=made)
    assert re.fullmatch(rf"comics {comics.BASE_VERSION}\.dev1\+g{short[:7]}\w* \(commit {short}\)\n", version)
    where = installed.run("python", "-c", "import comics; print(comics.__file__)", cwd=made)
    assert Path(where.strip()).parent == installed.package
    plan = installed.run("snakemake", "-n", "reports/table_iv.tex", cwd=made)
    assert all(f"\n{rule} " in plan for rule in ("train", "evaluate", "table")), plan
    git(made, "init", "-q")
    stages = installed.run("dvc", "stage", "list", "--name-only", cwd=made)
    assert "table@table_iv" in stages.split()
    installed.run("dvc", "repro", "inputs", cwd=made)
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
