"""Tables in terminals of any width."""

import io
import re

import pytest
from mopo_bench.harness.report.tables import render
from rich.console import Console


def printed(tables, width):
    stream = io.StringIO()
    Console(file=stream, width=width).print(*tables, sep="\n")
    return stream.getvalue()


@pytest.fixture
def shown(records):
    for index, algorithm in enumerate(("bc", "mopo", "mbpo", "sac", "bear", "brac-v", "brac-p")):
        for task in ("point-angle", "walker2d-medium-expert"):
            records.add([1000.0 + index, 1100.0, 1234.5 * index], task, algorithm, source="regenerated")
    return render("scores", records.runs(), "f")


@pytest.mark.parametrize("width", [160, 100, 80, 60])
def test_no_word_and_no_number_is_broken(shown, width):
    text = printed(shown, width)
    cells = {
        cell.strip().removeprefix("**").removesuffix("**") for line in text.splitlines() for cell in re.split("[│┃]", line)
    }
    assert max(map(len, text.splitlines())) <= width
    whole = {each for table in shown for row in table.rows for lines, _, number in row for each in lines if number}
    assert whole <= cells
    words = {word for cell in cells for word in re.split(r"[ ,]+|(?<=-)", cell)}
    assert {"regenerated", "Comparison", "Difference", "point-", "walker2d-"} - words <= {"point-", "walker2d-"}
    assert text.count("Nothing corrects") == 1  # the notes stand once, below the last block


def test_a_wide_terminal_has_one_block(shown):
    assert printed(shown[:1], 200).count("┏") == 1
    assert printed(shown[:1], 80).count("┏") > 1


def test_words_at_the_left_lead_every_block(shown):
    blocks = printed(shown[:1], 60).split("┏")[1:]
    assert len(blocks) > 2 and all("Task," in each and "regenerated" in each for each in blocks)


def test_even_a_narrow_terminal_gets_everything(shown):
    assert "MOPO" in printed(shown, 20)


def test_bold_is_marked_where_there_are_no_styles(records):
    """A pipe had "Bold: the best mean" under a table in which nothing was."""
    for algorithm, returns in {"mopo": [30.0, 31.0, 32.0], "bc": [20.0, 21.0, 20.5]}.items():
        records.add(returns, "point-angle", algorithm, source="regenerated")
    tables = render("scores", records.runs(), "f")
    assert "**31.0 ± 1.0**" in printed(tables, 160) and "Bold is written **so**" in printed(tables, 160)
    stream = io.StringIO()
    Console(file=stream, width=160, force_terminal=True, color_system="standard").print(*tables)
    assert "**" not in stream.getvalue() and "31.0 ± 1.0" in stream.getvalue()
