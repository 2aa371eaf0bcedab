"""The page to try a model with, in a real browser."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
from detect_scenes import calibration, picture
from typer.testing import CliRunner

from comics.cli import app as command_line
from comics.detect import app
from comics.detect.backends import Found, Origin
from comics.detect.model import Model
from comics.errors import UserError

from .browser import Browser


class Two:
    """Finds a face that may be fake, and one that is."""

    def __init__(self, name: str, first: float) -> None:
        self.origin = Origin(name, "none", "mini", "mini", "0" * 16, image_size=256, calibration=calibration())
        self.first = first

    def find(self, pictures):
        boxes = np.array([(10, 10, 60, 60), (10, 10, 60, 60), (70, 10, 120, 60)], float)
        masks = [(np.ones((30, 30), bool), (int(x) + 10, 20)) for x, *_ in boxes]
        found = Found(boxes, np.array([0.9, self.first, 0.95]), np.array([False, True, True]), masks)
        return [found for _ in pictures]


@pytest.fixture
def models():
    return [Model(Two("first", 0.5)), Model(Two("second", 0.2))]


def test_faces_and_verdicts_follow_the_threshold(models, tmp_path):
    picture(200, 120).save(tmp_path / "a.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    looked, problems = app.look(models[0], [str(tmp_path / "a.png"), str(tmp_path / "broken.jpg")])
    assert [outcome.file for outcome, _ in looked] == ["a.png"]
    assert problems == ["broken.jpg: broken.jpg: not an image of a kind that can be read."]
    p = sorted(looked[0][0].p_fake)
    assert [row[3] for row in app.rows(models[0], looked, 0.0)] == ["fake", "fake"]
    assert sorted(row[3] for row in app.rows(models[0], looked, (p[0] + p[1]) / 2)) == ["fake", "real"]
    assert [caption for _, caption in app.drawn(models[0], looked, 1.0)] == ["a.png: real"]


def test_pixels_and_files_are_bounded(models, tmp_path, monkeypatch):
    monkeypatch.setattr(app, "MAX_MEGAPIXELS", 0.01)
    monkeypatch.setattr(app, "MAX_FILES", 2)
    for name in "abc":
        picture(200, 120).save(tmp_path / f"{name}.png")
    looked, problems = app.look(models[0], [str(tmp_path / f"{name}.png") for name in "abc"])
    assert looked == []
    assert "megapixels" in problems[0]
    assert "first 2 of 3" in problems[-1]


def until(browser: Browser, expression: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not browser.run(expression):
        assert time.monotonic() < deadline, (expression, browser.run("document.body.innerText"), browser.console)
        time.sleep(0.2)


def test_in_a_browser(models, tmp_path):
    picture(200, 120).save(tmp_path / "a.png")
    page = app.launch(models, wait=False)
    folder = Path(page.comics_folder.name)
    browser = Browser(tmp_path / "profile")
    try:
        assert page.local_url.startswith("http://127.0.0.1:")
        browser.call("Page.navigate", url=page.local_url)
        until(browser, "!!document.querySelector('#given input[type=file]')")
        text = "document.body.innerText"
        until(browser, f"{text}.split('no forensic tool').length === 3")  # one a model
        root = browser.call("DOM.getDocument")["root"]["nodeId"]
        field = browser.call("DOM.querySelector", nodeId=root, selector="#given input[type=file]")["nodeId"]
        browser.call("DOM.setFileInputFiles", nodeId=field, files=[str(tmp_path / "a.png")])
        for number in (0, 1):
            until(browser, f"document.querySelectorAll('#faces-{number} img').length >= 1")
            until(browser, f"document.querySelector('#table-{number}').innerText.includes('face 2')")
        fakes = "document.querySelector('#table-{}').innerText.split(/\\s+/).filter(word => word === 'fake').length"
        assert browser.run(fakes.format(0)) >= 1
        slider = "document.querySelector('#threshold-0 input[type=number]')"
        browser.run(
            f"(one => {{ one.value = 1; one.dispatchEvent(new Event('input', {{bubbles: true}}));"
            f" one.dispatchEvent(new Event('change', {{bubbles: true}})); }})({slider})"
        )
        until(browser, f"{fakes.format(0)} === 0", 40)
        assert browser.run(fakes.format(1)) >= 1  # the other keeps its own
        until(browser, "!!document.querySelector('#json-0') && !document.querySelector('#json-0').disabled")
        outside = [one for one in browser.requests if one.startswith("http") and not one.startswith(page.local_url)]
        assert outside == []
        assert any(folder.rglob("a.png"))
    finally:
        browser.close()
        page.close()
        page.comics_folder.cleanup()
    assert not folder.exists()


def test_without_gradio_the_extra_is_named(models, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError) as caught:
        app.build(models)
    assert "[app]" in caught.value.remedy


def test_three_models_are_too_many():
    answer = CliRunner().invoke(command_line(), ["app", "a", "b", "c"])
    assert isinstance(answer.exception, UserError)
