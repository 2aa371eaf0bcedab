"""The page, in a real browser: clicks, keys, sorting, a phone's width, no network, no console errors."""

import json
import re

import pytest

from comics import reported
from comics.files import read_json, write_json
from comics.report import page
from comics.report.results import read_run

from .browser import Browser
from .conftest import TABLE_IV


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A rendered page of a whole project, made once."""
    from .conftest import Project

    project = Project(tmp_path_factory.mktemp("page"))
    project.edit("{title: BlendMask}", "{title: Blend & </script><b>Mask}")  # texts are never markup
    project.scores(TABLE_IV)
    project.dataset()
    project.detections(["blendmask", "comics"])
    project.logs(TABLE_IV)
    project.warnings = page.render(project.params, project.root / "reports/index.html", project.root)
    return project


@pytest.fixture(scope="module")
def browser(shared, tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def opened(browser, shared):
    browser.console.clear()
    browser.requests.clear()
    browser.open(shared.root / "reports/index.html")
    yield browser
    assert browser.console == []
    assert all(address.startswith(("file:", "data:")) for address in browser.requests), browser.requests


FIRST_ROWS = "[...document.querySelector('#table_iv table').tBodies[0].rows]"
COLUMN = FIRST_ROWS + ".map(row => Number(row.children[{}].dataset.value))"


def test_a_click_on_a_heading_sorts_with_the_best_on_top_and_a_second_turns_round(opened):
    for column, up in ((3, True), (7, False)):  # AP, oLRP
        selector = f"#table_iv table thead tr:last-child th:nth-child({column + 1}) button"
        opened.click(selector)
        values = opened.run(COLUMN.format(column))
        assert values == sorted(values, reverse=up)
        opened.click(selector)
        values = opened.run(COLUMN.format(column))
        assert values == sorted(values, reverse=not up)
    marked = opened.run("[...document.querySelectorAll('#table_iv table th[aria-sort]')].map(h => h.ariaSort)")
    assert marked.count("descending") == 1
    assert marked.count("ascending") == 0


def test_headings_sort_by_keyboard(opened):
    opened.run("document.querySelector('#table_iv table thead tr:last-child th:nth-child(4) button').focus()")
    opened.press("Enter", 13)
    values = opened.run(COLUMN.format(3))
    assert values == sorted(values, reverse=True)


def test_tab_reaches_the_skip_link_first_and_shows_it(opened):
    opened.press("Tab", 9)
    assert opened.run("document.activeElement.className") == "skip"
    assert opened.run("document.activeElement.getBoundingClientRect().left") >= 0


def test_rows_are_filtered_by_their_components(opened):
    opened.run("document.getElementById('table-filter').focus()")
    opened.write("fea bi-grained")
    assert opened.run(FIRST_ROWS + ".filter(row => !row.hidden).length") == 2
    assert opened.text("#table-status") == "4 of 16 rows"


def test_the_papers_numbers_and_the_differences_can_be_switched(opened):
    def shown(name):
        return opened.run(f"getComputedStyle(document.querySelector('#table_iv .{name}')).display")

    assert (shown("paper"), shown("delta")) == ("block", "none")
    opened.click("#show-paper")
    opened.click("#show-delta")
    assert (shown("paper"), shown("delta")) == ("none", "block")


def test_other_tables_can_be_chosen_and_say_what_is_missing(opened):
    opened.choose("#table-choice", "table_ii")
    assert opened.run("getComputedStyle(document.getElementById('table_iv')).display") == "none"
    assert opened.count("#table_ii tr.reported") == 11
    opened.choose("#table-choice", "table_v")
    assert "snakemake reports/table_v.tex" in opened.text("#table_v .problem")


def test_a_cell_leads_to_the_run_that_made_it(opened, shared):
    opened.click("#table_iv tbody tr:nth-child(2) a.number")
    assert opened.run("location.hash") == "#run-da"
    text = opened.text("#run-da")
    assert shared.params.resolve("da", 0).digest in text
    assert "1 min 32 s" in text
    assert "A Processor, 2 cores" in text
    for file in opened.run("[...document.querySelectorAll('#run-da dd a')].map(a => a.getAttribute('href'))"):
        assert (shared.root / "reports" / file).exists()


def test_the_scatter_follows_its_controls_and_the_keyboard(opened):
    assert opened.count("#scatter-plot .mark") == 8 + 11
    opened.click("#scatter-reported")
    assert opened.count("#scatter-plot .mark") == 8
    opened.run("document.querySelector('#scatter-plot a').focus()")
    assert "measured" in opened.text("#scatter-status")
    opened.choose("#scatter-x", "AP50")
    assert "AP50" in opened.run("document.querySelector('#scatter-plot svg').getAttribute('aria-label')")


def test_the_gallery_switches_masks_boxes_and_scores_and_runs(opened):
    def visible(part):
        return opened.visible(f"#gallery-photos {part}")

    assert opened.count("#gallery-photos figure") == 6
    assert visible(".mask") > 0
    assert visible(".box:not(.wrong)") == 0
    assert visible(".tag") > 0
    for part in ("masks", "boxes", "scores"):
        opened.click(f"#show-{part}")
    assert visible(".mask") == 0
    assert visible(".box:not(.wrong)") > 0
    assert visible(".tag") == 0
    opened.choose("#gallery-run", "truth")
    assert opened.count("#gallery-photos .wrong") == 0
    assert opened.count("#gallery-photos image") == opened.count("#gallery-photos image[href^='data:image/jpeg']") == 6


def test_the_gallery_shows_the_images_with_one_kind_of_error(opened, shared):
    text = (shared.root / "reports/index.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])
    place = next(number for number, one in enumerate(data["gallery"]) if one.get("photos") and one.get("runs"))
    photos, run = data["gallery"][place]["photos"], data["gallery"][place]["runs"][-1]["name"]
    opened.choose("#gallery-choice", str(place))
    counts = {"miss": sum(bool(photo["missed"].get(run)) for photo in photos)}
    for kind in ("wrong class", "false alarm", "found again"):
        counts[kind] = sum(any(face["kind"] == kind for face in photo["found"][run]) for photo in photos)
    assert len({*counts.values()}) > 1
    for kind, count in counts.items():
        opened.choose("#gallery-error", kind)
        assert opened.count("#gallery-photos figure") == count
        assert opened.text("#gallery-status") == f"{count} of {len(photos)} images"
    opened.choose("#gallery-error", "")
    assert opened.count("#gallery-photos figure") == len(photos)


TAGS = """(() => [...document.querySelectorAll('#gallery-photos svg')].map(svg => {
  const boxes = [...svg.querySelectorAll('.tag rect')].map(one => one.getBoundingClientRect());
  let pairs = 0;
  boxes.forEach((a, i) => boxes.slice(i + 1).forEach(b => {
    if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1) pairs += 1;
  }));
  return [boxes.length, pairs];
}))()"""


@pytest.mark.parametrize("width", [320, 1200])
def test_tags_of_one_photograph_do_not_overlap(opened, shared, width):
    text = (shared.root / "reports/index.html").read_text(encoding="utf-8")
    script = re.search(r'(<script type="application/json" id="data">)(.*?)(</script>)', text, re.DOTALL)
    data = json.loads(script[2])
    for one in data["gallery"]:
        for photo in one.get("photos", ()):
            # Six faces in one place, at the bottom, where there is no room further down.
            face = {**photo["truth"][0], "box": [photo["width"] / 2, photo["height"] - 30, 20, 28], "text": "fake 0.93"}
            photo["truth"] = [face] * 6
            photo["found"] = {run: [face] * 6 for run in photo["found"]}
    page_text = text.replace(script[2], json.dumps(data).replace("<", "\\u003c"))
    (shared.root / "reports/crowded.html").write_text(page_text, encoding="utf-8")
    opened.open(shared.root / "reports/crowded.html", width=width, height=740)
    for number, overlapping in opened.run(TAGS):
        assert number >= 6
        assert overlapping == 0


def test_loss_curves_follow_the_chosen_runs(opened):
    assert opened.count("#curve-plot .curve") == 2
    opened.click("#curve-runs label:first-child input")
    assert opened.count("#curve-plot .curve") == 3
    opened.click("#curve-log")
    assert opened.count("#curve-plot .curve") == 3


def test_nothing_is_wider_than_a_phone(opened, shared):
    opened.open(shared.root / "reports/index.html", width=375, height=740)
    assert opened.run("document.documentElement.scrollWidth") <= 375
    assert opened.count("#scatter-plot .mark") > 0


OVERLAPS = """(() => {
  const boxes = [...document.querySelectorAll('#scatter-plot text.name')].map(one => one.getBoundingClientRect());
  let pairs = 0;
  boxes.forEach((a, i) => boxes.slice(i + 1).forEach(b => {
    if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 2 && b.top < a.bottom - 2) pairs += 1;
  }));
  return [boxes.length, pairs];
})()"""


@pytest.mark.parametrize("width", [320, 375, 1200])
def test_names_in_the_scatter_do_not_overlap(opened, shared, width):
    opened.open(shared.root / "reports/index.html", width=width, height=740)
    for split in ("test_dev", "test_challenge"):
        opened.run(f"document.getElementById('scatter-split').value = '{split}'")
        opened.run("document.getElementById('scatter-split').dispatchEvent(new Event('change'))")
        names, overlapping = opened.run(OVERLAPS)
        assert names > 5
        assert overlapping == 0


def test_in_the_dark_everything_is_read_on_a_dark_page(opened, shared):
    def luminance(colour):
        return sum(int(part) for part in re.findall(r"\d+", colour)[:3]) / 3

    def colours(selector):
        style = f"getComputedStyle(document.querySelector('{selector}'))"
        return opened.run(f"[{style}.color, {style}.backgroundColor, {style}.fill]")

    back, ink = colours("body")[1], colours("body")[0]
    assert luminance(back) > 200 > 100 > luminance(ink)
    opened.prefer("dark")
    try:
        back, ink = colours("body")[1], colours("body")[0]
        assert luminance(back) < 60 < 180 < luminance(ink)
        assert luminance(colours("#table_iv tbody th")[1]) < 60
        assert luminance(colours("#scatter-plot text")[2]) > 180
        assert luminance(colours("#scatter-plot .dot.reported")[2]) < 60
    finally:
        opened.prefer("light")


def test_tables_that_are_not_made_show_the_papers_rows(shared):
    gathered = page.gather(shared.params, shared.root)
    table = next(one for one in gathered.tables if one["name"] == "table_viii")
    assert "snakemake reports/table_viii.tex" in table["problem"]
    rows = table["blocks"][0]["rows"]
    assert len(rows) == 3
    assert [row["reported"] for row in rows] == [True, True, False]  # the last is the run comics by another name
    assert rows[0]["cells"][0]["text"] not in ("", "–")


def test_the_first_screen_tells_the_finding_in_three_sentences(shared, project):
    gathered = page.gather(shared.params, shared.root)
    first, second, third = gathered.finding
    scores = {run: read_run(shared.params, run, "test_challenge", shared.root) for run in ("blendmask", "comics")}
    for measured in scores.values():
        assert f"{100 * measured.score('segmentation', 'AP').mean:.1f}" in first
        assert f"{100 * measured.score('segmentation', 'face_ACC').mean:.0f}" in second
    assert reported.printed("III", "test_challenge", "COMICS", "segmentation", "AP") in third
    assert "trained once" in third
    text = (shared.root / "reports/index.html").read_text()
    assert "<code>snakemake claim</code>" in text
    assert text.index('id="finding"') < text.index("<nav")
    assert "Blend &amp; &lt;/script&gt;" in text[text.index('id="finding"') :]
    assert "not measured yet" in page.gather(project.params, project.root).finding[0]


def test_links_lead_nowhere_outside_the_file(shared):
    text = (shared.root / "reports/index.html").read_text()
    assert {link[0] for link in re.findall(r'href="([^"]*)"', text)} <= {"#", "d"}  # an anchor, or data:


def test_every_field_has_a_label_and_ids_are_unique(opened):
    assert opened.run("[...document.querySelectorAll('select, input')].every(one => one.labels.length === 1)")
    assert opened.run(
        "(ids => new Set(ids).size === ids.length)([...document.querySelectorAll('[id]')].map(e => e.id))"
    )
    targets = opened.run("[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.getAttribute('href'))")
    assert all(opened.count(target) == 1 for target in set(targets))


def test_the_page_asks_for_nothing_and_is_the_same_each_time(shared):
    text = (shared.root / "reports/index.html").read_text()
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    assert not re.search(r"@import|url\((?!data:)", text)
    page.render(shared.params, shared.root / "again.html", shared.root)
    assert (shared.root / "again.html").read_text() == text
    assert len(shared.warnings) == 7  # tables V to IX and the figures of errors and of curves have no results


def test_titles_are_text_and_never_markup(shared):
    text = (shared.root / "reports/index.html").read_text()
    assert "<b>Mask" not in text
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    assert any("</script><b>Mask" in run["title"] for one in data["gallery"] for run in one["runs"])


def test_an_empty_project_gives_a_page_that_says_what_to_do(project):
    warnings = page.render(project.params, project.root / "reports/index.html", project.root)
    assert any("snakemake reports/table_iv.tex" in warning for warning in warnings)
    text = (project.root / "reports/index.html").read_text()
    assert "snakemake reports/figures/figure_11.pdf" in text
    assert "not trained" in text


def test_durations_are_read_easily():
    assert [page.duration(seconds) for seconds in (45, 200, 3720)] == ["45 s", "3 min 20 s", "1 h 02 min"]


def test_energy_is_shown_where_it_was_measured(project):
    assert [page.energy(joules) for joules in (150, 44280, 3.59e6, 4.5e6)] == [
        "0.0417 Wh",
        "12.3 Wh",
        "997 Wh",
        "1.25 kWh",
    ]
    project.logs(["comics"])
    (run,) = (run for run in page.gather(project.params).runs if run["name"] == "comics")
    facts = dict(run["seeds"][0]["facts"])
    assert (facts["Training time"], facts["Energy"]) == ("1 min 32 s", "not measured")

    path = project.root / project.params.resolve("comics").folder / "run.json"
    sources = {"whole GPU (NVML)": 36000.0, "whole processor (RAPL)": 3600.0}
    write_json(path, {**read_json(path), "seconds": None, "energy_joules": 39600.0, "energy_sources": sources})
    (run,) = (run for run in page.gather(project.params).runs if run["name"] == "comics")
    facts = dict(run["seeds"][0]["facts"])
    assert facts["Training time"] == "not recorded"
    assert facts["Energy"] == "11 Wh, whole GPU (NVML) and whole processor (RAPL)"
