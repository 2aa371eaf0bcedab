"""Settings: params.yaml from anywhere"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from injection import HANGS, ROOT, environment, message_of

from comics.errors import UserError
from comics.params import load
from comics.params.bounded import DEEPEST, LARGEST, read_yaml
from comics.params.resolve import REPORTS, RULES

PARAMS = (ROOT / "params.yaml").read_text(encoding="utf-8")


def refusal(folder: Path, text: str | bytes) -> str:
    path = folder / "params.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        load(path)
    assert caught.value.message.startswith(str(path))
    assert len(str(caught.value)) < 5000
    return str(caught.value).removeprefix(str(path))


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.injects(
    "aliases of aliases (10^9 values), 3,000-deep nesting, 100 MB, an alias within itself, 500 kB of brackets",
    "refused in under 30 s of processor time and 300 MB, with the line, code 2",
)
def test_what_is_large_or_deep_is_refused_in_bounded_time_and_memory(tmp_path: Path) -> None:
    huge = tmp_path / "huge.yaml"
    with huge.open("wb") as file:
        file.truncate(100_000_000)
    contents = {
        "bomb": (bomb(10), "values"),
        "deep": ("a: " + "[" * 3000 + "]" * 3000, "deep"),
        "deep_blocks": ("".join(" " * level + "a:\n" for level in range(900)), "deep"),
        "brackets": ("[" * (LARGEST - 1), "deep"),
        "itself": ("a: &a [*a]", "within itself"),
    }
    for name, (text, _) in contents.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    code = (
        "import sys\nfrom comics.params import load\nfrom comics.errors import UserError\n"
        "for path in sys.argv[1:]:\n"
        "    try: load(path)\n"
        "    except UserError as error: print(error.message)\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import resource; resource.setrlimit(resource.RLIMIT_DATA, (3 * 10**8, 3 * 10**8))\n" + code,
        ]
        + [str(tmp_path / f"{name}.yaml") for name in (*contents, "huge")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=HANGS,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 30
    messages = done.stdout.splitlines()
    assert len(messages) == len(contents) + 1, done.stdout + done.stderr
    for message, part in zip(messages, [*(part for _, part in contents.values()), "larger than"], strict=True):
        assert part in message


@pytest.mark.injects("no file, a folder, a device, no text, no YAML, a key twice", "refused by name, code 2")
def test_what_is_no_settings_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, Path("/dev/zero"), tmp_path / "absent.yaml"):
        with pytest.raises(UserError, match=re.escape(str(path))):
            load(path)
    for text in (b"\xff\xfe", b"a: \0", "a: [", "a: 1\na: 2", "- 1", "a: !!python/object:os.system [x]", "? [a]\n: b"):
        refusal(tmp_path, text)


@pytest.mark.injects(
    "`lr: .inf`, `.nan`, integers of 2^53 and of 5,000 digits, dates that do not exist", "refused by key, code 2"
)
@pytest.mark.parametrize(
    "value", [".inf", "-.inf", ".nan", str(2**53), "9" * 5000, "2001-13-45", "!!int x", "!!binary '@'"]
)
def test_numbers_that_are_none_are_refused(tmp_path: Path, value: str) -> None:
    text, count = re.subn(r"\blr: [0-9.e-]+", f"lr: {value}", PARAMS)
    assert count
    refusal(tmp_path, text)


@pytest.mark.injects(
    "studies named like a rule, tables named like another report, a dataset whose rule would be another's",
    "refused by name when params.yaml is read, code 2",
)
def test_names_that_the_workflow_has_taken_are_refused(tmp_path: Path) -> None:
    study = re.search(r"^studies:\n(?:  #.*\n)*  (\w+):$", PARAMS, re.MULTILINE)
    assert study
    for name in sorted(RULES):
        assert f"'{name}' is taken" in refusal(tmp_path, PARAMS.replace(f"\n  {study[1]}:\n", f"\n  {name}:\n"))
    own = "    kind: coco\n    annotations: {train: a.json}\n    images: {train: a}\n"
    assert "convert_dataset" in refusal(tmp_path, PARAMS.replace("datasets:\n", f"datasets:\n  dataset:\n{own}", 1))
    text = PARAMS.replace("datasets:\n", f"datasets:\n  own:\n{own}", 1)
    assert "'convert_own' is taken" in refusal(tmp_path, text.replace(f"\n  {study[1]}:\n", "\n  convert_own:\n"))
    table = re.search(r"^tables:\n(?:  #.*\n)*  (\w+):$", PARAMS, re.MULTILINE)
    assert table
    for name in REPORTS:
        assert f"'{name}' is taken" in refusal(tmp_path, re.sub(rf"\b{table[1]}\b", name, PARAMS))


def test_the_names_are_those_of_the_rules() -> None:
    files = [ROOT / "Snakefile", *(ROOT / "workflow" / "rules").glob("*.smk")]
    found = {
        name
        for file in files
        for name in re.findall(r"^ *(?:use )?rule (?:\w+ as )?(\w+)(?::| with)", file.read_text(), re.M)
    }
    assert found == RULES


SNIPPETS = st.sampled_from(
    ["&a ", "*a", "!!", "<<: ", "- ", "? ", "{", "}", "[", "]", "|\n", ">", "'", '"', "#", "\t", "\0", "é"]
)


@pytest.mark.injects("bytes of params.yaml changed, cut and put in at random places", "read, or refused with a message")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, len(PARAMS)), cut=st.integers(0, 40), put=st.lists(SNIPPETS, max_size=4))
def test_no_text_escapes(tmp_path: Path, place: int, cut: int, put: list[str]) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS[:place] + "".join(put) + PARAMS[place + cut :], encoding="utf-8")
    started = time.process_time()
    message = message_of(lambda: load(path))
    assert message is None or str(path) in message
    assert time.process_time() - started < 5


def test_a_whole_file_is_read_as_before(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("base: &b {lr: 1}\nnested: " + "[" * (DEEPEST - 2) + "]" * (DEEPEST - 2) + "\nother: *b\n")
    assert read_yaml(path)["other"] == {"lr": 1}
