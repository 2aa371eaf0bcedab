"""Takes the workflow's files into the wheel, for ``comics init``, and the version from git's tags; all else is in pyproject.toml."""

import json
import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from comics import BASE_VERSION  # noqa: E402
from comics.workflow.project import BUILT, SHIPPED, files_below, git, version_of  # noqa: E402


def built() -> dict[str, str]:
    """Version and commit: git's, or in a source distribution those that it was made with."""
    if (ROOT / BUILT).exists():
        return json.loads((ROOT / BUILT).read_text(encoding="utf-8"))
    described = git(ROOT, "describe", "--tags", "--long", "--match", "v*")
    return {"version": version_of(described, BASE_VERSION), "commit": git(ROOT, "rev-parse", "HEAD")}


FACTS = built()


class DistributeWithVersion(sdist):
    """The source distribution, which has no git to ask, keeps its version and commit."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        (Path(base_dir) / BUILT).write_text(json.dumps(FACTS) + "\n", encoding="utf-8")


class BuildWithProject(build_py):
    """The package, and the project's files in a folder of it. An editable install has the checkout's."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "comics" / SHIPPED
        shutil.rmtree(target, ignore_errors=True)
        for path in files_below(ROOT):
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, target / path)
        (target.parent / BUILT).write_text(json.dumps(FACTS) + "\n", encoding="utf-8")


setup(version=FACTS["version"], cmdclass={"build_py": BuildWithProject, "sdist": DistributeWithVersion})
