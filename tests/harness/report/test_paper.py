import csv
from pathlib import Path

import pytest
from mopo_bench.algorithms.learning.registry import all_algorithms
from mopo_bench.common.errors import UserError
from mopo_bench.harness.report.paper import HEADINGS, paper_table, swapped_cells, tasks_of

BEYOND = Path(__file__).resolve().parents[3] / "results" / "paper" / "beyond.csv"


def test_the_swapped_cells_are_those_that_the_authors_own_returns_contradict():
    named = {
        ("random", "BC"): (9.8, 1.6),
        ("mixed", "SAC"): (3.5, 1.9),
        ("mixed", "BEAR"): (25.3, 10.8),
        ("mixed", "BRAC-v"): (0.8, 0.9),
    }
    expected = {}
    for (quality, algorithm), (hopper, walker2d) in named.items():
        expected |= {(f"hopper-{quality}", algorithm): hopper, (f"walker2d-{quality}", algorithm): walker2d}
        printed = [paper_table("table1")[f"{domain}-{quality}", algorithm].mean for domain in ("hopper", "walker2d")]
        assert printed == [walker2d, hopper]
    assert swapped_cells() == expected


def test_paper_numbers_read_as_printed():
    assert paper_table("table1")["halfcheetah-random", "MOPO"] == (35.4, 2.5, 6, "S")
    assert paper_table("table1")["halfcheetah-random", "BC"] == (2.1, None, None, "S")
    assert paper_table("table2")["ant-angle", "Batch Max"] == (2311.9, None, None, "S")
    assert (len(paper_table("table1")), len(paper_table("table2"))) == (72, 16)
    with pytest.raises(UserError, match="'table1'"):
        paper_table("table11")


def test_numbers_beyond_the_paper_say_where_they_come_from():
    """Each of an algorithm and a task that there are, under none of the paper's columns, once for each version of the data."""
    rows = list(csv.DictReader(BEYOND.read_text().splitlines()))
    titles = {each.title for each in all_algorithms().values()} - set(HEADINGS.values())
    for row in rows:
        assert row["task"] in tasks_of("table1") and row["algorithm"] in titles and row["data"] in ("v0", "v2"), row
        assert -5 < float(row["mean"]) < 115 and row["source"] and row["certainty"], row
    assert len({(row["task"], row["algorithm"], row["data"]) for row in rows}) == len(rows) == 51
    averages = {"MOReL": 64.42, "CQL": 54.85}  # as printed below the table that they were read from
    for algorithm, printed in averages.items():
        means = [float(row["mean"]) for row in rows if (row["algorithm"], row["data"]) == (algorithm, "v0")]
        assert len(means) == 12 and sum(means) / 12 == pytest.approx(printed, abs=0.005)
