"""Files that must agree with each other, and the set-up script."""

from __future__ import annotations

import ast
import inspect
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import typer
from fabricate import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

import comics
from comics.cli import show_version
from comics.params import json_schema

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()


def test_the_json_schema_is_that_of_the_code() -> None:
    stored = json.loads((ROOT / "workflow/schemas/params.schema.json").read_text())
    assert stored == json_schema(), "make schema"


def test_conda_pins_are_those_of_pyproject() -> None:
    *packages, inner = YAML(typ="safe").load((ROOT / "environment.yml").read_text())["dependencies"]
    assert packages[0] == f"python{PROJECT['requires-python']}"
    expected = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    assert inner["pip"] == [*expected, "-e ."]


def imported(*folders: str) -> set[str]:
    """Names of the distributions that the Python files of `folders` import, without the standard library and our own."""
    modules = set()
    own = {"comics", *(path.stem for folder in ("tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))}
    for path in [path for folder in folders for path in (ROOT / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.split(".")[0])
    distributions = packages_distributions()
    outside = modules - own - sys.stdlib_module_names - {"pydantic_core"}  # pydantic pins it, and documents its errors
    return {canonicalize_name(distributions.get(module, [module])[0]) for module in outside}


def test_what_is_imported_is_required() -> None:
    def names(requirements: list[str]) -> set[str]:
        return {canonicalize_name(Requirement(text).name) for text in requirements}

    extras = PROJECT["optional-dependencies"]
    required, dev = names(PROJECT["dependencies"]), names(extras["dev"])
    # Optional: imported where they are used, with a clear error where they are not installed. detectron2 and AdelaiDet are on no
    # registry, and bring fvcore; HEIC files are read where somebody has installed what reads them.
    unlisted = {"detectron2", "adet", "fvcore", "pillow-heif"}
    optional = names([text for extra in ("video", "app", "onnx", "parquet") for text in extras[extra]]) | unlisted
    assert imported("comics") <= required | optional
    assert optional - unlisted <= dev
    assert imported("tests", "benchmarks") <= required | dev | unlisted


def test_what_is_required_is_imported() -> None:
    required = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    # Called as programs; Lightning's TensorBoard logger imports tensorboard by itself.
    assert required - imported("comics") == {"snakemake", "dvc", "tensorboard"}


def test_every_listed_package_is_used() -> None:
    extras = {
        name: {canonicalize_name(Requirement(text).name) for text in texts}
        for name, texts in PROJECT["optional-dependencies"].items()
    }
    # Called as programs, or by other programs as their plugins.
    programs = {
        "build",
        "import-linter",
        "mkdocs-material",
        "mkdocstrings-python",
        "mypy",
        "pre-commit",
        "ruff",
        "snakefmt",
    }
    plugins = {"ipykernel", "nbclient", "pytest-timeout", "pytest-xdist", "snakemake-executor-plugin-slurm"}
    assert extras["dev"] - imported("comics", "tests", "benchmarks", "scripts") == programs | plugins
    assert set().union(*extras.values()) == extras["dev"]


def test_the_version_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert comics.__version__ == comics.BASE_VERSION
    assert YAML(typ="safe").load((ROOT / "CITATION.cff").read_text())["version"] == comics.BASE_VERSION
    with pytest.raises(typer.Exit):
        show_version(True)
    told = capsys.readouterr().out
    assert re.fullmatch(rf"comics {re.escape(comics.BASE_VERSION)}( \(commit [0-9a-f]{{12}}\))?\n", told)
    if (ROOT / ".git").exists():
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        assert head[:12] in told


def locked() -> dict[str, list[str]]:
    """Versions by package; several where they differ by Python version or platform."""
    versions: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)", LOCK, re.MULTILINE):
        versions.setdefault(canonicalize_name(name), []).append(version)
    return versions


def test_the_lock_serves_pyproject() -> None:
    versions = locked()
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]:
        requirement = Requirement(text)
        found = versions.get(canonicalize_name(requirement.name))
        assert found, f"{text} is not in requirements.lock: make lock"
        assert all(requirement.specifier.contains(version) for version in found), (text, found)
    # The build backend is installed from the lock as well: set-up builds without isolation.
    assert "setuptools" in versions


def test_the_lock_is_hashed_and_names_no_host() -> None:
    entries = re.split(r"^(?=[A-Za-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) > 100
    assert all("--hash=sha256:" in entry for entry in entries)
    assert not re.search(r"https?://|^--|@ *file:", LOCK, re.MULTILINE)


def test_setup_names_an_unsuitable_python(tmp_path: Path) -> None:
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(old), "VENV": str(tmp_path / "venv")}
    done = subprocess.run(["sh", "scripts/setup.sh"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert str(old) in done.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("target", ["setup", "demo", "test"])
def test_make_sets_up_first_and_once(target: str, tmp_path: Path) -> None:
    def plan() -> str:
        command = ["make", "--dry-run", target, f"VENV={tmp_path}/venv"]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    assert "scripts/setup.sh" in plan()
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv/.ready").touch()
    assert "scripts/setup.sh" not in plan()


def test_the_badges_tell_the_truth() -> None:
    supported = [text.rsplit(" ")[-1] for text in PROJECT["classifiers"] if "Python :: 3." in text]
    assert f">{' | '.join(supported)}<" in (ROOT / "docs/images/badges/python.svg").read_text()
    assert f">{PROJECT['license']}<" in (ROOT / "docs/images/badges/licence.svg").read_text()


def test_the_license_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert YAML(typ="safe").load((ROOT / "CITATION.cff").read_text())["license"] == PROJECT["license"] == "Apache-2.0"


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "SECURITY.md", "reports/README.md"]
)
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text()
    targets = [target for target in re.findall(r"\]\(([^)]*)\)", text) if "://" not in target]
    assert targets or name in ("CODE_OF_CONDUCT.md", "reports/README.md")
    for target in targets:
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, target


def test_the_citation_is_the_readme_s() -> None:
    citation = YAML(typ="safe").load((ROOT / "CITATION.cff").read_text())
    bibtex = re.search(r"```bibtex\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert bibtex
    cited = bibtex.group(1).split("@misc")
    for source, entry in zip([citation["preferred-citation"], *citation["references"]], cited, strict=True):
        flat = " ".join(entry.replace("{", "").replace("}", "").split())
        assert source["title"] in flat
        assert " and ".join(f"{one['family-names']}, {one['given-names']}" for one in source["authors"]) in flat
        assert str(source["year"]) in flat
    assert citation["preferred-citation"]["doi"] in cited[0]
    assert citation["references"][0]["identifiers"][0]["value"].removeprefix("arXiv:") in cited[1]


def test_github_runs_what_continuous_integration_runs() -> None:
    jobs = YAML(typ="safe").load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    assert [step["run"] for step in jobs["test"]["steps"] if "run" in step] == [".ci/run"]
    supported = {text.rsplit(" ")[-1] for text in PROJECT["classifiers"] if "Python :: 3." in text}
    assert set(jobs["test"]["strategy"]["matrix"]["python"]) == supported
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_the_documentation_s_api_is_public_and_documented() -> None:
    names = re.findall(r"^::: (\S+)", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    objects = [pkgutil.resolve_name(name) for name in names]
    assert comics in objects
    objects += [getattr(comics, name) for name in comics.__all__]
    assert all(inspect.getdoc(one) for one in objects)
    assert set(re.search(r"members: \[(.*)\]", (ROOT / "docs/api.md").read_text())[1].split(", ")) == set(
        comics.__all__
    )


def test_a_broken_link_fails_the_documentation(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("images"))
    plain = (ROOT / "mkdocs.yml").read_text()
    # Without the API, which takes most of the time, and without pictures, whose links are broken in this copy.
    plain = re.sub(r"(?m)^hooks:.*\n", "", plain)  # nor the reference
    settings = plain[: plain.index("  - mkdocstrings")] + plain[plain.index("markdown_extensions:") :]
    (tmp_path / "mkdocs.yml").write_text(settings)
    (tmp_path / "docs/api.md").write_text("[a](glossary.md#no-such-heading)\n")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no-such-heading" in done.stdout + done.stderr
