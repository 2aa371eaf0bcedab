"""Dockerfile and apptainer.def, read: there is no builder where the tests run."""

from __future__ import annotations

import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from comics.workflow.project import files_below

ROOT = Path(__file__).parents[2]
HOME = "/opt/comics/"


def instructions() -> list[tuple[str, str]]:
    """Name and text of each instruction of the Dockerfile."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def copied_by_docker() -> dict[str, str]:
    """Source and target of every file or folder that is copied."""
    found = {}
    for name, rest in instructions():
        if name == "COPY":
            *sources, target = shlex.split(rest)
            for source in sources:
                found[source] = target + Path(source).name if target.endswith("/") else target
    return found


def sections() -> dict[str, list[str]]:
    """Lines of each part of apptainer.def; what stands before the first is under ''."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for line in (ROOT / "apptainer.def").read_text().splitlines():
        if line.startswith("%"):
            name = line[1:].strip()
            found[name] = []
        elif line.strip() and not line.startswith("#"):
            found[name].append(line.strip())
    return found


def bases() -> dict[str, str]:
    header = dict(re.split(r":\s+", line, maxsplit=1) for line in sections()[""])
    return {"docker": dict(instructions()[:1])["FROM"], "apptainer": header["From"]}


def commands() -> dict[str, list[str]]:
    return {"docker": [rest for name, rest in instructions() if name == "RUN"], "apptainer": sections()["post"]}


def files() -> dict[str, dict[str, str]]:
    return {"docker": copied_by_docker(), "apptainer": dict(map(shlex.split, sections()["files"]))}


@pytest.mark.parametrize("builder", ["docker", "apptainer"])
def test_the_python_is_one_that_the_package_takes_and_the_packages_are_the_locks(builder: str) -> None:
    wanted = SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"])
    version = re.fullmatch(r"python:(3\.\d+)-slim", bases()[builder])
    assert version is not None
    assert version[1] in wanted
    first, second = (words for line in commands()[builder] if "pip" in (words := shlex.split(line)))
    assert {"--require-hashes", "--requirement"} <= set(first)
    assert first[-1] == HOME + "requirements.lock"
    assert {"--no-deps", "--no-build-isolation"} <= set(second)


@pytest.mark.parametrize("builder", ["docker", "apptainer"])
def test_what_the_package_is_built_of_is_copied_to_where_it_is_built(builder: str) -> None:
    copied = files()[builder]
    assert all(target == HOME + source for source, target in copied.items())
    assert all((ROOT / source).exists() for source in copied)
    needed = [path.as_posix() for path in files_below(ROOT)]
    needed += ["pyproject.toml", "setup.py", "README.md", "LICENSE", "requirements.lock", "comics/cli.py"]
    assert [path for path in needed if not any(path == one or path.startswith(f"{one}/") for one in copied)] == []


def test_docker_is_sent_what_it_copies_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    sent = {line[1:] for line in lines if line.startswith("!")}
    assert sent == set(copied_by_docker())
    assert not any(fnmatch(name, line) for name in sent for line in lines[1:] if not line.startswith("!"))


def test_the_image_is_not_roots() -> None:
    names = [name for name, _ in instructions()]
    user = dict(instructions())["USER"]
    assert user not in ("root", "0")
    assert f"--create-home {user}" in commands()["docker"][-1]
    assert "RUN" not in names[names.index("USER") :]


def test_the_pod_runs_the_image_as_its_user_and_with_as_many_gpus_as_train_at_a_time() -> None:
    from ruamel.yaml import YAML

    job = YAML(typ="safe", pure=True).load(ROOT / "profiles/kubernetes/job.yaml")
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    workdir = dict(instructions())["WORKDIR"]
    uid = int(re.search(r"--uid (\d+)", commands()["docker"][-1])[1])  # type: ignore[index]
    assert pod["securityContext"] == {"runAsNonRoot": True, "runAsUser": uid, "fsGroup": uid}
    assert container["workingDir"] == workdir
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    (command,) = container["args"]
    gpus = re.search(r"--resources gpu=(\d+) -- ", command)
    assert gpus is not None
    assert int(gpus[1]) == container["resources"]["limits"]["nvidia.com/gpu"]
