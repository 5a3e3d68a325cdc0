"""An algorithm that the package has never heard of: what it says of itself is all that a table needs."""

import pytest
from mopo_bench.harness.report.comparisons import comparisons
from mopo_bench.harness.report.tables import render, scores_table, table1
from scipy import stats

ABOUT = {"model_free": False, "stages": {"worlds": "set of world models"}, "warmup_steps": 0}
VALUES = {"dreams": [10.0, 12.0, 14.0], "dreams-lite": [1.0, 9.0, 2.0]}
TITLES = {"dreams": "Dreams", "dreams-lite": "Dreams (lite)"}


@pytest.fixture
def strangers(records):
    for name, values in VALUES.items():
        records.add(values, algorithm=name, stages={"worlds": "x"}, about={"title": TITLES[name], **ABOUT})
    return records


def test_its_title_stands_over_its_column(strangers):
    assert scores_table(strangers.runs()).columns[3:] == ["Dreams", "Dreams (lite)", "Batch Mean", "Batch Max"]
    assert table1(strangers.runs()).columns[-3:] == ["BRAC-v", "Dreams", "Dreams (lite)"]
    strangers.add([1.0], algorithm="dreams", identity="b", about={"title": "Dreams", **ABOUT}, overrides={"depth": 3})
    assert "Dreams [depth=3]" in scores_table(strangers.runs()).columns


def test_it_is_compared_with_the_others(strangers):
    text = render("scores", strangers.runs(), "f", "csv") + render("scores", strangers.runs(), "f", "markdown")
    assert "**Dreams against the others**" in text
    assert "- No run of mopo gives a number here: the first column, dreams, is compared with the others." in text
    assert "| dreams minus dreams-lite | 3 paired |" in text
    strangers.add([5.0, 7.0])
    beside_mopo = render("scores", strangers.runs(), "f", "markdown")
    assert "**MOPO against the others**" in beside_mopo and "| mopo minus dreams | 2 paired of 2 and 3 |" in beside_mopo


def test_its_comparison_is_paired_by_seed(strangers):
    number = comparisons(strangers.runs()).rows[0][5]
    interval = stats.ttest_rel(*VALUES.values()).confidence_interval()
    scale = 100 / (3234.3 + 20.272305)  # hopper's reference returns
    assert (number.low, number.high) == pytest.approx(tuple(bound * scale for bound in interval))


def test_its_shared_fit_goes_by_its_stage_s_title(strangers):
    said = "One set of world models per seed is shared by dreams and dreams-lite on hopper-medium."
    assert said in scores_table(strangers.runs()).notes


def test_an_older_record_goes_by_its_name(records):
    records.add([1.0], algorithm="dreams")
    records.add([1.0], algorithm="mopo")
    assert scores_table(records.runs()).columns[3:5] == ["MOPO", "dreams"]
