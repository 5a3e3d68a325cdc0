"""The documentation says what the code and the committed files say."""

import csv
import html
import re
import runpy
from pathlib import Path

import pytest
from mopo_bench.algorithms.learning.registry import get_algorithm
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
FILL = runpy.run_path(str(ROOT / "docs" / "fill.py"))


@pytest.mark.parametrize("page", FILL["PAGES"], ids=lambda page: page.stem)
def test_tables_are_those_of_the_committed_files(page):
    text = page.read_text(encoding="utf-8")
    assert FILL["filled"](page) == text, "fill them with `python docs/fill.py`"
    begun = [line for line in text.splitlines() if re.match("<!-- (?!end of|not run|plot)", line)]
    assert [block[0].strip() for block in FILL["BLOCK"].findall(text)] == begun  # none without its end


def test_every_line_that_plots_has_its_picture():
    lines = [line for page in FILL["PAGES"] for line in page.read_text(encoding="utf-8").splitlines()]
    assert len(FILL["pictures"]()) == sum(line.startswith("<!-- plot ") for line in lines) > 0


@pytest.mark.parametrize("picture", FILL["pictures"](), ids=lambda picture: picture.name)
def test_pictures_are_of_the_committed_records(picture, tmp_path):
    """With the caption that they would have now, and of the same numbers."""
    FILL["draw"](FILL["pictures"]()[picture], tmp_path / picture.name)
    now, shown = (Image.open(file).info["Description"] for file in (tmp_path / picture.name, picture))
    assert now == shown, "draw it with `python docs/fill.py`"
    assert re.search(r"\nNumbers: [0-9a-f]{12}$", now)


def test_claims_are_judged_by_the_published_records():
    with (ROOT / "results" / "claims.csv").open(encoding="utf-8", newline="") as lines:
        claims = runpy.run_path(str(ROOT / "results" / "claims.py"))
        assert list(csv.DictReader(lines)) == list(claims["rows"]())
    assert f"run or not ({claims['FAMILY']})" in (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def test_every_kind_of_table_is_shown():
    blocks = [block[1] for page in FILL["PAGES"] for block in FILL["BLOCK"].findall(page.read_text(encoding="utf-8"))]
    assert set(blocks) == {"table", "steps", "verdicts", "commands", "reference", "file", *FILL["FILES"]}


# whose settings a page lists, and where those are that it leaves out
PAGES = {
    "bc": ("bc",),
    "sac": ("sac",),
    "mbpo": ("mbpo", "sac"),
    "mopo": ("mopo", "mbpo", "sac"),
    "morel": ("morel", "mbpo", "sac"),
    "cql": ("cql", "sac"),
    "iql": ("iql",),
    "combo": ("combo", "cql", "mbpo", "sac"),
    "rambo": ("rambo", "mbpo", "sac"),
    "bear": ("bear",),
    "brac-v": ("brac", "bc"),
}


def settings_of_page(page):
    """Defaults as written, by name."""
    rows = re.findall(
        r"^\| `([\w.]+)` \| (.*?) \| \S.* \|$", (ROOT / "docs/algorithms" / f"{page}.md").read_text(), re.MULTILINE
    )
    return {name: value.split(", ") if ", " in value else value for name, value in rows}


@pytest.mark.parametrize("name", PAGES)
def test_settings_on_the_page_of_an_algorithm(name):
    """Every setting is listed with the default that the code has."""
    own, *others = PAGES[name]
    defaults, listed = get_algorithm(name).defaults(), settings_of_page(own)
    left_out = {key.removeprefix("behaviour.") for key in defaults if key not in listed}
    assert left_out <= set().union(*map(settings_of_page, others))
    assert listed == {key: spelled(defaults[key]) for key in listed}


def spelled(value):
    if isinstance(value, tuple):
        return [spelled(each) for each in value]
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower()


def pages():
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_links(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_named_files_exist(page):
    """Files of the repository between backticks; within the harness `runs/trial.py` is enough."""
    top = {path.name for path in ROOT.iterdir() if path.is_dir()}
    for name in re.findall(r"`([\w-]+/[\w/.-]+\.(?:py|toml|md|csv|png|json|txt|dot))\b", page.read_text(encoding="utf-8")):
        room, exists = name.split("/")[0], (ROOT / name).exists() or (ROOT / "harness" / name).exists()
        assert exists or room not in {*top, "runs", "report", "cli", "collection"} or "NAME" in name, name


def test_every_room_has_its_line():
    """On the page of the architecture; a room is a folder of the package with an `__init__.py`."""
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rooms = [init.parent for top in ("common", "tasks", "algorithms", "harness") for init in (ROOT / top).rglob("__init__.py")]
    assert len(rooms) > 4
    for room in rooms:
        assert f"\n| `{room.relative_to(ROOT)}/` | " in page, room


def test_the_picture_is_that_of_its_source():
    """Every label of the graph stands in the image; graphviz is not needed to see that one was changed without the other."""
    source, image = ((ROOT / "docs" / f"architecture.{kind}").read_text(encoding="utf-8") for kind in ("dot", "svg"))
    labels = [line.strip() for label in re.findall(r'label="([^"]*)"', source) for line in label.split("\\n")]
    shown = [html.unescape(text).strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", image)]
    assert labels and sorted(labels) == sorted(shown)


def test_how_to_read_tables_is_said_once_a_page_and_what_holds_for_one_under_each():
    said, under_each = set(), "- Score: 100.\n- Steps: 5.\n- Bold: the best.\n- Episodes: 10."
    first, second = (FILL["without_repeats"](under_each, said) for _ in range(2))
    assert first == under_each
    assert second.splitlines() == [FILL["READ_ABOVE"], "- Steps: 5.", "- Episodes: 10."]
    both = FILL["without_repeats"](f"{under_each}\n\n**Another table**\n{under_each}", said)
    assert both.count(FILL["READ_ABOVE"]) == 2
