"""The report in a real browser, headless Chromium: it sorts, filters, is reached by keys and fits a phone."""

import shutil
from pathlib import Path

import pytest
from mopo_bench.harness.api import report

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with playwright.sync_playwright() as started:
        try:
            browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"there is no Chromium here (apt-get install chromium): {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return report(tmp_path_factory.mktemp("site"), ROOT / "results" / "published" / "demo")


@pytest.fixture
def opened(browser, site):
    """A page of the site at a width; whatever asks for an address that is no file, or fails in the script, fails the test."""
    asked, wrong, contexts = [], [], []

    def make(page="index.html", width=1280):
        context = browser.new_context(viewport={"width": width, "height": 800}, offline=True)
        contexts.append(context)
        tab = context.new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("requestfailed", lambda request: wrong.append(request.url))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        tab.goto((site.parent / page).as_uri())
        return tab

    yield make
    for context in contexts:
        context.close()
    assert asked and all(url.startswith(("file:", "data:")) for url in asked)
    assert not wrong


def column(tab, number, table=0):
    cells = tab.locator("table").nth(table).locator(f"tbody tr:visible > :nth-child({number})")
    return [text.strip() for text in cells.all_inner_texts()]


def test_a_table_is_sorted_by_a_click_and_by_keys(opened):
    tab = opened()
    head = tab.get_by_role("button", name="Mean", exact=True)
    head.click()
    numbers = list(map(float, column(tab, 4)))
    assert numbers == sorted(numbers) and len(numbers) == 7
    assert tab.locator("th[aria-sort=ascending]").inner_text().strip() == "Mean"
    head.press("Enter")
    assert list(map(float, column(tab, 4))) == sorted(numbers, reverse=True)
    paper = tab.get_by_role("button", name="Paper")
    for _ in range(2):  # what is missing stands last either way
        paper.press("Space")
        assert column(tab, 7)[-4:] == ["–"] * 4


def test_a_table_is_filtered(opened):
    tab = opened()
    tab.get_by_label("Show only rows with").fill("point mopo")
    assert column(tab, 1) == ["point-edge"] and column(tab, 3) == ["MOPO"]
    assert tab.get_by_role("status").inner_text() == "1 of 7 rows"
    tab.get_by_label("Show only rows with").fill("")
    assert len(column(tab, 1)) == 7


def test_every_control_is_reached_by_the_tab_key(opened):
    tab = opened("tasks/halfcheetah-mixed.html")
    wanted = tab.evaluate("document.querySelectorAll('a[href], button, input, summary, [tabindex=\"0\"]').length")
    reached = set()
    for _ in range(wanted):
        tab.keyboard.press("Tab")
        reached.add(tab.evaluate("Array.from(document.querySelectorAll('*')).indexOf(document.activeElement)"))
        assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert len(reached) == wanted


def test_from_the_overview_to_a_task_and_back(opened, site):
    tab = opened()
    tab.get_by_role("link", name="halfcheetah-mixed").first.press("Enter")
    tab.wait_for_url("**/tasks/halfcheetah-mixed.html")
    assert tab.evaluate("Array.from(document.images).every((image) => image.complete && image.naturalWidth > 300)")
    tab.get_by_role("link", name="All tasks").press("Enter")
    tab.wait_for_url("**/index.html")


@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("page", ["index.html", "tasks/halfcheetah-mixed.html"])
def test_nothing_is_wider_than_the_screen_but_tables_that_scroll(opened, page, width):
    tab = opened(page, width)
    for details in tab.locator("summary").all():
        details.click()
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("Array.from(document.images).every((image) => image.clientWidth <= innerWidth)")
    for region in tab.get_by_role("region").all():
        if region.evaluate("each => each.scrollWidth > each.clientWidth"):
            assert region.evaluate("each => (each.scrollLeft = 50, each.scrollLeft)") == 50
