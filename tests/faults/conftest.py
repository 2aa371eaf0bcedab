"""The suite of injected faults: what a test injects and what must come of it stands in its mark, and in docs/reliability.md.

    @pytest.mark.injects("a bit of model.pt is flipped", "refused before it is loaded, code 2")

`make test-faults` runs all of it and writes the table; `make test` leaves out what is marked `faults`. Random moments and
bytes follow from FAULT_SEED, which is printed.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TABLE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- written by make test-faults -->\n", "<!-- until here -->\n"
SEED = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(2**32))

_outcomes: dict[tuple[str, str, str], list[str]] = {}


def pytest_report_header() -> str:
    return f"faults: FAULT_SEED={SEED}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests here have the time that a busy machine needs; what hangs is bounded in each of them."""
    for item in items:
        if HERE in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1800))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = (yield).get_result()
    mark = item.get_closest_marker("injects")
    if mark is not None and (report.when == "call" or report.skipped):
        kind = str(sys.modules[item.module.__name__].__doc__).split("\n")[0].rstrip(".")
        _outcomes.setdefault((kind, *mark.args), []).append(report.outcome)


def pytest_sessionfinish(exitstatus: int) -> None:
    if os.environ.get("FAULTS_TABLE") and exitstatus == 0:
        text = TABLE.read_text(encoding="utf-8")
        before, _, rest = text.partition(BEGIN)
        after = rest.partition(END)[2]
        TABLE.write_text(before + BEGIN + table(_outcomes) + END + after, encoding="utf-8")


def table(outcomes: dict[tuple[str, str, str], list[str]]) -> str:
    """The outcomes as Markdown, a heading a kind of fault."""
    lines: list[str] = []
    kinds = list(dict.fromkeys(kind for kind, *_ in outcomes))
    for kind in kinds:
        lines += ["", f"**{kind}**", "", "| injected | what comes of it | tried |", "|---|---|---|"]
        for (of, fault, outcome), results in outcomes.items():
            if of == kind:
                tried = results.count("passed")
                shown = f"{tried} times" if tried > 1 else "once" if tried else "not on this machine"
                lines.append(f"| {fault} | {outcome} | {shown} |".replace("\n", " "))
    return "\n".join([*lines, "", ""])


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random moments and bytes, another sequence a test, all of them from the printed seed."""
    return random.Random(f"{SEED} {request.node.nodeid}")
