"""The tables in the documentation are those of the committed files that the commands wrote."""

import csv
import re
from pathlib import Path

import pytest
from mopo_bench.harness.terminal import markdown

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


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
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
