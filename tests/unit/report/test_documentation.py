"""The documentation's search in a real browser, from the disk, without a server."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .browser import Browser

ROOT = Path(__file__).parents[3]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    browser = Browser(tmp_path / "profile")
    yield browser
    browser.close()


def test_the_search_works_from_the_disk(browser: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    (folder / "docs/assets").mkdir(parents=True)
    for name in ("glossary.md", "assets/iframe-worker.js"):
        (folder / "docs" / name).write_text((ROOT / "docs" / name).read_text())
    (folder / "docs/index.md").write_text("# Start\n\nNothing here.\n")
    settings = (ROOT / "mkdocs.yml").read_text()
    # Theme and search as they are, of two pages: the API and the reference take most of the time.
    settings = (
        settings[: settings.index("  - mkdocstrings")]
        + settings[settings.index("extra:\n") : settings.index("validation:")]
    )
    (folder / "mkdocs.yml").write_text(re.sub(r"(?m)^(hooks|strict):.*\n", "", settings))
    command = [sys.executable, "-m", "mkdocs", "build", "-q"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    browser.requests.clear()
    browser.open(folder / "build/site/index.html")
    browser.run("document.querySelector('[data-md-component=search-query]').focus()")
    browser.write("steganalysis")
    deadline = time.monotonic() + 60
    while not browser.count(".md-search-result__item") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert browser.count(".md-search-result__item") == 1, browser.console
    assert "SRM" in browser.text(".md-search-result__list")
    assert [address for address in browser.requests if not address.startswith(("file:", "about:", "data:"))] == []
