"""Help and mistakes are answered without what only work needs: the libraries of models, numbers and figures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from comics.cli import app

HEAVY = ("torch", "torchvision", "pytorch_lightning", "numpy", "pandas", "scipy", "PIL", "matplotlib", "snakemake")
"""Each takes a tenth of a second or more to import."""

PARAMS = Path(__file__).parents[2] / "params.yaml"

PROGRAM = f"""
import sys
from comics.cli import main

code = 0
try:
    main()
except SystemExit as ended:
    code = ended.code
print(code, *sorted(set({HEAVY}) & set(sys.modules)))
"""


def imported(words: list[str], folder: Path) -> tuple[int, list[str]]:
    """The exit code of ``comics WORDS`` in `folder`, and which of `HEAVY` it imported."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    code, *heavy = ended.stdout.splitlines()[-1].split()
    return int(code), heavy


def commands() -> list[str]:
    return [command.name or command.callback.__name__.replace("_", "-") for command in app().registered_commands]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["nonsense"], 2),
        (["train", "nonsense"], 2),
        (["predict", "nonsense", "--split", "val"], 2),
        (["table", "nonsense"], 2),
        (["figure", "nonsense"], 2),
        (["evaluate", "truth.json", "found.json"], 2),
        (["--nonsense"], 2),
    ],
    ids=str,
)
def test_mistakes_import_nothing_heavy(words: list[str], code: int, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS.read_text(encoding="utf-8"), encoding="utf-8")
    assert imported(words, tmp_path) == (code, [])


def test_a_bad_params_file_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("dataset: mini\nrunz: {}\n", encoding="utf-8")
    assert imported(["train", "comics"], tmp_path) == (2, [])


def test_help_of_every_command_imports_nothing_heavy(tmp_path: Path) -> None:
    program = f"""
import sys
from comics.cli import app

for name in {commands()}:
    try:
        app()([name, "--help"])
    except SystemExit as ended:
        assert not ended.code, name
print(*sorted(set({HEAVY}) & set(sys.modules)), file=sys.stderr)
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ended.stderr.split() == []
