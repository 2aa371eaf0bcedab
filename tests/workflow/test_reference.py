"""The documentation's reference pages, made from the code: whole, and an end to the build where something is not explained."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from fabricate import ROOT

from comics.params import json_schema, load
from comics.params.block import Block


@pytest.fixture(scope="module")
def reference() -> Any:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts/reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["reference"] = module  # its dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(reference: Any) -> dict[str, str]:
    return reference.pages()


def test_every_command_and_option_is_there(pages: dict[str, str]) -> None:
    text = pages["cli.md"]
    section = text.partition("\n## comics data make\n")[2].partition("\n## ")[0]
    assert "comics data make [OPTIONS] [DATASET]" in section
    assert "| `--root` | path | `data` | Folder of all datasets. |" in section
    assert "| `--seed` | integer | `0` | Of the resamples. |" in text
    assert "`--verdicts` `--no-verdicts`" in text
    assert "`--params`" not in text  # of no command its own: it is said once, on top


def test_every_key_is_there_with_its_default_and_an_example(pages: dict[str, str]) -> None:
    text = pages["params.md"]
    keys = {
        key
        for block in [json_schema(), *json_schema()["$defs"].values()]
        for key in block.get("properties", {})
        if key not in ("extends", "outside")  # of the file as it is written; explained in the text
    }
    assert len(keys) > 100
    assert [key for key in sorted(keys) if f"`{key}`" not in text and f".{key}\n" not in text] == []
    training = text.partition("\n## training.NAME\n")[2].partition("\n## ")[0]
    line = re.search(r"\| `lr` \| number > 0 \| `0\.01` \| (.*) \| Learning rate after the warm-up\. \|\n", training)
    assert line is not None
    assert {"`0.001`", "`0.002`"} <= set(line[1].split(", "))  # examples of params.yaml
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert len(headings) == len(set(headings))


def test_the_columns_are_those_of_the_code(pages: dict[str, str]) -> None:
    from comics.evaluation.scores import METRICS

    section = pages["files.md"].partition("&lt;split>.csv")[2].partition("\n### ")[0]
    assert [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")] == [
        "task",
        "class",
        *METRICS,
    ]


def test_what_is_not_explained_ends_the_build(reference: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import comics.cli
    from comics.params import file

    (tmp_path / "mute").mkdir()
    (tmp_path / "mute/__init__.py").write_text(
        "def told():\n    'Yes.'\n\n\ndef mute():\n    pass\n\n\ndef _own(): ...\n"
    )
    assert reference.silent_names(tmp_path / "mute") == ["mute.__init__", "mute.__init__.mute"]

    def silent(loud: Annotated[bool, typer.Option()] = False) -> None:
        pass

    small = typer.Typer()
    small.command("hush")(silent)
    small.command("other")(silent)
    monkeypatch.setattr(comics.cli, "app", lambda: small)
    assert reference.command_page().undocumented[:2] == ["comics hush", "comics hush `--loud` `--no-loud`"]

    class Silent(Block):
        key: int = 1

    monkeypatch.setattr(file, "ParamsFile", Silent)
    assert "params.yaml: The file: key" in reference.params_page().undocumented
    monkeypatch.delitem(reference.COLUMNS, "recall")
    assert reference.files_page().undocumented[0].endswith("precision_recall.csv: column recall")
    with pytest.raises(ValueError, match=r"Not documented: .*comics hush"):
        reference.pages()


def shell_lines() -> list[tuple[str, list[str]]]:
    """(file, words) of every command line in the documentation: code blocks, and `comics ...` within a line."""
    found = []
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    for path in pages:
        text = path.read_text()
        blocks = re.findall(r"^```(?:sh)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        lines += [line for line in text.splitlines() if line.startswith("    ")]
        lines += re.findall(r"`((?:comics|make) [^`]+)`", text)
        for line in lines:
            for part in re.split(r"&&|;|\|", re.sub(r"(?:^|\s)#.*", "", line)):
                words = part.replace("[", " ").replace("]", " ").split()
                while words and re.match(r"^\w+=", words[0]):
                    words = words[1:]
                if words and words[0] in ("comics", "make"):
                    found.append((path.name, words))
    return found


def test_commands_of_the_documentation_exist(reference: Any) -> None:
    known = {
        words: {option for one in command.params for option in [*one.opts, *one.secondary_opts]}
        for words, command, _ in reference.commands()
    }
    groups = {words.rsplit(" ", 1)[0] for words in known} - {"comics"}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    lines = shell_lines()
    assert len(lines) > 100
    wrong = []
    for name, words in lines:
        if words[0] == "make":
            wrong += [(name, word) for word in words[1:2] if re.fullmatch("[a-z-]+", word) and word not in targets]
            continue
        if words[1].startswith("-"):
            wrong += [(name, words[1])] * (words[1] not in ("--version", "--help"))
            continue
        length = 3 if " ".join(words[:2]) in groups else 2
        command = " ".join(words[:length])
        if not all(re.fullmatch("[a-z-]+", word) for word in words[1:length]):
            continue  # `comics COMMAND --help`, `comics data make|fetch`
        options = {
            word.split("=")[0].rstrip(".,:") for word in words[length:] if word.startswith("--") and len(word) > 2
        }
        if command not in known:
            wrong.append((name, command))
        else:
            wrong += [(name, f"{command} {option}") for option in options - known[command] - {"--help"}]
    assert not wrong


def test_files_of_the_documentation_are_read(tmp_path: Path) -> None:
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    read = []
    for path in sorted((ROOT / "docs").glob("*.md")):
        for name, text in re.findall(r"^```yaml\n# (\w+\.yaml)\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE):
            (tmp_path / name).write_text(text)
            params = load(str(tmp_path / name))
            assert all(params.resolve(run, params.seeds(run)[0]).digest for run in params.runs)
            read.append(name)
    assert {"tutorial.yaml", "mine.yaml", "sweep.yaml"} <= set(read)
