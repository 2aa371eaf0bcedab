"""Takes the workflow's files into the wheel, for ``comics init``; everything else stands in pyproject.toml."""

import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from comics.workflow.project import SHIPPED, files_below  # noqa: E402


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


setup(cmdclass={"build_py": BuildWithProject})
