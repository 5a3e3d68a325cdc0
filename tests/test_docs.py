"""The tables in the documentation are those of the committed files that the commands wrote."""

import csv
import re
from pathlib import Path

import pytest
from mopo_bench.algorithms.learning.registry import get_algorithm
from mopo_bench.harness.cli.options import markdown

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "docs" / "data.md"
SOURCES = {"batches": ("batches-seed0.csv", "batches-seed1.csv"), "actors": ("actors.csv",)}


def shown(name):
    return re.search(rf"<!-- {name} -->\n(.*?)<!-- end of {name} -->", DATA.read_text(), re.DOTALL)[1].strip()


def made(name):
    rows = []
    for file in SOURCES[name]:
        with (ROOT / "results" / "collection" / file).open() as lines:
            rows += csv.DictReader(lines)
    return markdown(rows)


@pytest.mark.parametrize("name", SOURCES)
def test_tables_of_the_data_page(name):
    assert shown(name) == made(name)


# whose settings a page lists, and where those are that it leaves out
PAGES = {
    "bc": ("bc",),
    "sac": ("sac",),
    "mbpo": ("mbpo", "sac"),
    "mopo": ("mopo", "mbpo", "sac"),
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


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.stem)
def test_links(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


if __name__ == "__main__":  # fills them in
    text = DATA.read_text()
    for name in SOURCES:
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)",
            lambda m, name=name: m[1] + made(name) + "\n" + m[2],
            text,
            flags=re.DOTALL,
        )
    DATA.write_text(text)
