import csv
import io
import json

import numpy as np
import pytest
from mopo_bench.common.errors import UserError
from mopo_bench.harness.report import tables
from mopo_bench.harness.report.comparisons import comparisons
from mopo_bench.harness.report.statistics import METRICS
from mopo_bench.harness.report.tables import scores, scores_table, table1, table2
from mopo_bench.tasks.registry import get_task
from scipy import stats

HOPPER = "hopper-medium"
BUDGET = 1_000_000


def notes(table):
    return "\n".join(table.notes)


def leading(table):
    return [tuple(cell.text for cell in row if not cell.algorithm) for row in table.rows]


def test_layout_is_the_papers_even_without_a_run():
    table = table1([])
    assert table.columns == ["Dataset type", "Environment", "BC", "MOPO", "MBPO", "SAC", "BEAR", "BRAC-v"]
    qualities, domains = ("random", "medium", "mixed", "medium-expert"), ("halfcheetah", "hopper", "walker2d")
    assert leading(table) == [(quality, domain) for quality in qualities for domain in domains]
    assert [line for cell in table.rows[1][2:4] for line in cell.lines()] == ["–", "(1.6)†", "–", "(11.7 ± 0.4)"]
    assert sum(bool(cell.mark) for row in table.rows for cell in row) == 8
    assert "hopper-random BC 9.8" in notes(table)
    second = table2([])
    assert second.columns == ["Environment", "Batch Mean", "Batch Max", "MOPO", "MBPO", "SAC", "BEAR", "BRAC-p", "BRAC-v"]
    assert leading(second) == [("halfcheetah-jump",), ("ant-angle",)]
    assert second.rows[0][3].lines() == ["–", "(4016.6 ± 144.0)"]
    assert "†" not in notes(second)


# --- arithmetic -------------------------------------------------------------------------------------------------------


def test_a_cell_is_numpys_and_scipys_arithmetic(records):
    returns = [900.0, 1000.0, 1400.0]
    records.add(returns)
    cell = records.cell()
    task = get_task(HOPPER)
    assert cell.mean == pytest.approx(np.mean([task.references.score(value) for value in returns]))
    assert cell.std == pytest.approx(task.references.score_std(np.std(returns, ddof=1)))  # no offset, the sample's
    interval = stats.ttest_1samp(returns, 0).confidence_interval()
    assert (cell.low, cell.high) == pytest.approx(tuple(map(task.references.score, interval)))
    assert (cell.seeds, cell.steps, cell.unit) == (3, str(BUDGET), "score")
    assert cell.lines() == ["34.4 ± 8.1", "(28.0 ± 12.4)", f"Δ {cell.mean - 28.0:+.1f}"]


def test_a_true_spread_of_zero_prints_as_zero(records):
    records.add([500.0, 500.0])
    assert records.cell().lines()[0] == "16.0 ± 0.0"


def test_one_seed_has_no_spread(records):
    records.add([500.0])
    cell = records.cell()
    assert (cell.std, cell.low, cell.lines()[0]) == (None, None, "16.0")


def test_table2_is_in_returns_and_shows_the_datasets_episodes(records):
    records.add([4000.0, 4010.0], "halfcheetah-jump", source="regenerated")
    row = table2(records.runs()).rows[0]
    assert [cell.lines()[0] for cell in row[1:4]] == ["1000.0", "3000.0", "4005.0 ± 7.1"]
    assert [cell.bold for cell in row[1:4]] == [False, False, True]
    assert row[2].paper_mean == 1808.6


def test_metrics_choose_among_the_evaluations(records):
    history = [3000.0, *range(100, 1300, 100), 700.0]
    records.add([history])
    task = get_task(HOPPER)
    for metric, value in {"last": 700.0, "best": 3000.0, "mean10": np.mean(history[-10:])}.items():
        assert records.cell(metric=metric).mean == pytest.approx(task.references.score(value))
        assert scores(records.runs(), metric)[0]["return"] == pytest.approx(value)
        assert table1(records.runs(), metric).metric == metric
    assert "hindsight" in notes(table1(records.runs(), "best"))
    with pytest.raises(UserError, match="median"):
        table1([], "median")


def test_the_highest_mean_of_a_row_is_bold(records):
    for algorithm, value in {"mopo": 900.0, "sac": 1100.0, "bc": 1000.0}.items():
        records.add([value, value], algorithm=algorithm)
    assert {name: records.cell(algorithm=name).bold for name in ("mopo", "sac", "bc", "bear")} == {
        "mopo": False, "sac": True, "bc": False, "bear": False,
    }  # fmt: skip
    row = {cell.algorithm: cell for cell in scores_table(records.runs()).rows[0]}
    assert row["batch max"].mean > row["sac"].mean
    assert (row["batch max"].bold, row["sac"].bold) == (False, True)


# --- when a difference is shown ---------------------------------------------------------------------------------------


def test_difference_on_the_papers_data_at_its_budget(records):
    records.add([1000.0, 1000.0])
    cell = records.cell()
    assert cell.difference == pytest.approx(cell.mean - 28.0)
    assert "Δ" in notes(table1(records.runs()))


@pytest.mark.parametrize("source", ["v2", "regenerated", "file"])
def test_no_difference_on_other_data(records, source):
    records.add([1000.0, 1000.0], source=source)
    assert records.cell().mean is not None
    assert records.cell().difference is None
    assert "Δ" not in notes(table1(records.runs()))


def test_no_difference_when_one_seed_is_short(records):
    records.add([1000.0, 1000.0])
    records.add([1000.0], seeds=[2], steps=BUDGET - 1000)
    assert records.cell().seeds == 3
    assert records.cell().difference is None
    assert f"end at different steps, {BUDGET - 1000} to {BUDGET}" in notes(table1(records.runs()))


@pytest.mark.parametrize("state", ["diverged", "failed", "running"])
def test_no_difference_when_one_seed_is_not_done(records, state):
    records.add([1000.0, 1000.0], states=["done", state])
    assert records.cell().difference is None


def test_no_difference_on_a_swapped_cell(records):
    records.add([100.0, 100.0], "hopper-random", "bc")
    records.add([100.0, 100.0], "hopper-random", "sac")
    assert records.cell("hopper-random", "bc").difference is None
    assert records.cell("hopper-random", "sac").difference is not None


def test_no_difference_to_the_last_iteration_from_another_metric(records):
    records.add([1000.0, 1000.0])
    assert records.cell(metric="best").difference is None


# --- what is not averaged ---------------------------------------------------------------------------------------------


def test_states_that_give_no_number(records):
    records.add([1000.0, 5000.0, 7000.0], states=["done", "diverged", "failed"])
    records.add([1000.0, 1100.0], algorithm="sac", states=["done", "running"])
    records.add([[]], algorithm="bc", states=["running"])
    table, task = table1(records.runs()), get_task(HOPPER)
    assert records.cell().mean == pytest.approx(task.references.score(1000.0))
    assert records.cell().lines() == ["31.3", "(28.0 ± 12.4)", "1 diverged"]
    assert records.cell(algorithm="sac").lines()[0].endswith("*")
    assert records.cell(algorithm="bc").lines()[0] == "–"
    assert "Diverged, not in the means: hopper-medium mopo seed 1." in notes(table)
    assert "Failed, not in the means: hopper-medium mopo seed 2." in notes(table)
    assert "* Unfinished: hopper-medium bc seed 0, hopper-medium sac seed 1." in notes(table)


def test_overrides_become_columns_of_their_own(records):
    records.add([1000.0, 1000.0])
    records.add([2000.0, 2000.0], identity="b", overrides={"penalty_coefficient": 5})
    table, task = table1(records.runs()), get_task(HOPPER)
    assert table.columns[-1] == "MOPO [penalty_coefficient=5]"
    assert records.cell().mean == pytest.approx(task.references.score(1000.0))
    variant = records.cell(algorithm="mopo [penalty_coefficient=5]")
    assert variant.mean == pytest.approx(task.references.score(2000.0))
    assert variant.paper_mean is None
    assert "penalty_coefficient=5 for mopo [penalty_coefficient=5] on hopper-medium" in notes(table)


def test_overrides_of_all_stay_out_of_the_name_and_in_the_notes(records):
    for algorithm in ("mbpo", "mopo"):
        records.add([1000.0], algorithm=algorithm, overrides={"dynamics.max_epochs": 15})
    table = table1(records.runs())
    assert table.columns[-1] == "BRAC-v"
    assert "Not at the default: dynamics.max_epochs=15 for mbpo and mopo on hopper-medium." in notes(table)


@pytest.mark.parametrize("better, worse", [("v0", "v2"), ("v2", "regenerated"), ("regenerated", "file")])
def test_paper_tables_show_one_data_and_say_so(records, better, worse):
    records.add([1000.0], source=better)
    records.add([2000.0, 2000.0], source=worse, identity="b")
    table = table1(records.runs())
    assert records.cell().mean == pytest.approx(get_task(HOPPER).references.score(1000.0))
    assert f"Data hopper-medium@{better}: 1,000 rows, window all, from a policy & <more>." in notes(table)
    assert f"not shown: hopper-medium@{worse}." in notes(table)


def test_among_equal_sources_most_seeds_done_are_shown(records):
    records.add([1000.0, 1000.0], source="regenerated", digest="f" * 16, rows=10)
    records.add([2000.0, 2000.0], source="regenerated", digest="e" * 16, identity="b", states=["done", "running"])
    assert records.cell().mean == pytest.approx(get_task(HOPPER).references.score(1000.0))
    assert "not shown: hopper-medium@regenerated (1,000 rows, all, eeeeeeee)." in notes(table1(records.runs()))


def test_data_without_a_result_does_not_hide_another(records):
    records.add([1000.0], source="v2")
    records.add([[]], identity="b", states=["failed"])
    assert records.cell().mean == pytest.approx(get_task(HOPPER).references.score(1000.0))


def test_scores_table_gives_every_data_a_row(records):
    records.add([1000.0, 1000.0], source="v0")
    records.add([2000.0, 2000.0], source="v2", identity="b")
    records.add([3000.0, 3000.0], source="v2", identity="c", rows=7)
    records.add([4.0, 6.0], "point-angle", "sac", source="regenerated")
    table, task = scores_table(records.runs()), get_task(HOPPER)
    kept = {row[1].text: [cell.mean for cell in row if cell.algorithm == "mopo"] for row in table.rows}
    assert kept == {
        "v0": [pytest.approx(task.references.score(1000.0))],
        "v2 (1,000 rows, all, 01234567)": [pytest.approx(task.references.score(2000.0))],
        "v2 (7 rows, all, 01234567)": [pytest.approx(task.references.score(3000.0))],
        "regenerated": [None],
    }
    assert table.columns == ["Task", "Data", "Unit", "MOPO", "SAC", "Batch Mean", "Batch Max"]
    last = [cell.lines(True) for cell in table.rows[-1]]
    low, high = stats.ttest_1samp([4.0, 6.0], 0).confidence_interval()
    assert last == [
        ["point-angle"],
        ["regenerated"],
        ["return"],
        ["–"],
        ["5.0 ± 1.4", f"[{low:.1f}, {high:.1f}]"],
        ["1000.0"],
        ["3000.0"],
    ]


def test_other_algorithms_come_after_the_papers(records):
    for algorithm in ("zeta", "brac-p", "alpha"):
        records.add([1000.0], algorithm=algorithm)
    assert table1(records.runs()).columns[-4:] == ["BRAC-v", "BRAC-p", "alpha", "zeta"]
    assert records.cell(algorithm="brac-p").paper_mean is None


def test_no_runs_is_an_error_that_says_where_and_what_next(tmp_path):
    for build in (scores_table, comparisons):
        with pytest.raises(UserError, match=r"no runs in here/it: `mopo-bench run --results here/it`"):
            build([], folder="here/it")


def test_scores_give_one_object_a_run(records):
    records.add([[1.0, 1000.0], 5.0, []], states=["done", "diverged", "failed"])
    records.add([3.0], "point-angle", steps=8000, source="regenerated")
    rows = scores(records.runs())
    assert rows[0] == {
        "task": HOPPER, "algorithm": "mopo", "seed": 0, "steps": BUDGET, "data": "hopper-medium@v0", "return": 1000.0,
        "score": pytest.approx(31.35, abs=0.01), "state": "done",
    }  # fmt: skip
    assert [(row["return"], row["score"], row["state"]) for row in rows[1:3]] == [
        (None, None, "diverged"),
        (None, None, "failed"),
    ]
    assert (rows[3]["return"], rows[3]["score"], rows[3]["steps"]) == (3.0, None, 8000)


def test_render_knows_every_table_and_format(records):
    records.add([1000.0, 1100.0])
    runs = list(records.runs())
    assert tables.render("table1", runs, "f", "latex") == table1(runs).to_latex()
    assert tables.render("table2", runs, "f", "csv", "best") == table2(runs, "best").to_csv()
    assert json.loads(tables.render("scores", runs, "f", "json")) == scores(runs)
    assert len(list(csv.DictReader(io.StringIO(tables.render("scores", runs, "f", "csv"))))) == 3
    assert tables.render("scores", runs, "f", "html").count("<table>") == 2
    assert [table.title.plain for table in tables.render("scores", runs, "f")] == ["Scores", "MOPO against the others"]
    with pytest.raises(UserError, match=r"'markdwn'.*'markdown'"):
        tables.render("table1", runs, "f", "markdwn")
    with pytest.raises(UserError, match="'table1'"):
        tables.render("tabel1", runs, "f")
    with pytest.raises(UserError, match="no runs in f"):
        tables.render("scores", [], "f", "json")
    with pytest.raises(UserError, match="no runs of beta in f"):
        tables.render("scores", runs, "f", reference="beta")
    with pytest.raises(UserError, match="table1 stands beside the paper's numbers"):
        tables.render("table1", runs, "f", reference="sac")
    records.add([1.0], algorithm="sac")
    assert "SAC against the others" in tables.render("scores", records.runs(), "f", "markdown", reference="sac")


@pytest.mark.parametrize("name", tables.TABLES)
@pytest.mark.parametrize("format", tables.FORMATS)
@pytest.mark.parametrize("metric", METRICS)
def test_every_choice_that_is_offered_works(records, name, format, metric):
    records.add([1000.0, 1100.0])
    assert tables.render(name, records.runs(), "f", format, metric)


def test_headings_that_would_read_the_same_are_told_apart(records):
    records.add([1000.0], algorithm="sac", about={"title": "SAC"})
    records.add([1000.0], algorithm="sac-wide", about={"title": "SAC"})
    assert scores_table(records.runs()).columns[3:5] == ["SAC (sac)", "SAC (sac-wide)"]
