import csv
import io
import json
import re

import numpy as np
import pytest
from mopo_bench.common.errors import UserError
from mopo_bench.harness import api
from mopo_bench.harness.report import tables
from mopo_bench.harness.report.choices import METRICS
from mopo_bench.harness.report.comparisons import comparisons
from mopo_bench.harness.report.tables import render, scores, scores_table, table1, table2
from mopo_bench.harness.runs.records import Store
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
    records.add([4000.0, 4005.0, 4010.0], "halfcheetah-jump", source="regenerated")
    records.add([1.0, 2.0, 3.5], "halfcheetah-jump", "sac", source="regenerated")
    row = table2(records.runs()).rows[0]
    assert [cell.lines()[0] for cell in row[1:4]] == ["1000.0", "3000.0", "4005.0 ± 5.0"]
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


@pytest.mark.parametrize("name", ["scores", "table1"])
def test_two_metrics_stand_beside_each_other(records, name):
    """The mean of the last ten evaluations below the last one, in every format; nothing else changes."""
    histories = [[100.0 * step + seed for step in range(12)] for seed in range(3)]
    records.add(histories)
    score = get_task(HOPPER).references.score
    last, ten = (
        [score(value) for value in values] for values in zip(*((h[-1], np.mean(h[-10:])) for h in histories), strict=True)
    )
    text = render(name, records.runs(), "f", "markdown", beside="mean10")
    line = f"mean10: {np.mean(ten):.1f} ± {np.std(ten, ddof=1):.1f}"
    assert f"{np.mean(last):.1f} ± " in text and line in text
    assert "- mean10: of the same seeds, by the mean of the last 10 evaluations" in text
    without = "\n".join(each for each in text.splitlines() if not each.startswith("- mean10")).replace(f"<br>{line}", "")
    without = re.sub(r"<br>mean10: [-0-9.]+<br>\[[^]]+\]", "", without)  # of the comparison
    assert without == render(name, records.runs(), "f", "markdown")
    rows = csv.DictReader(io.StringIO(render(name, records.runs(), "f", "csv", beside="mean10")))
    (row,) = [row for row in rows if row["beside_metric"]]
    assert (float(row["beside_mean"]), float(row["mean"])) == pytest.approx((np.mean(ten), np.mean(last)))
    assert "beside" not in render(name, records.runs(), "f", "csv")


def test_a_difference_that_two_metrics_read_otherwise_says_so(records):
    """Of three seeds one falls at its last evaluation: by that MOPO is not clearly above SAC, by the last ten it is."""
    ours = [[2000.0 + seed] * 9 + [end] for seed, end in enumerate((2000.0, 2001.0, 0.0))]
    records.add(ours)
    records.add([[900.0] * 10] * 3, algorithm="sac")
    text = render("scores", records.runs(), "f", "markdown", beside="mean10")
    (row,) = [line for line in text.splitlines() if "mopo minus sac" in line]
    score = get_task(HOPPER).references.score_std
    expected = []
    for differences in ([history[-1] - 900 for history in ours], [np.mean(history) - 900 for history in ours]):
        low, high = (score(bound) for bound in stats.ttest_1samp(differences, 0).confidence_interval())
        expected += [f"{score(np.mean(differences)):.1f}<br>[{low:.1f}, {high:.1f}]"]
    assert "<br>mean10: ".join(expected) in row.replace("*", "")
    assert row.endswith("| not clear; by mean10 clear |")


def test_holm_counts_the_comparisons_of_both_metrics(records):
    """Who looks by a second metric tests a second time: what is clear beside one comparison is not beside three."""
    records.add([[1000.0], [1050.0], [1080.0]])
    records.add([[900.0], [910.0], [900.0]], algorithm="sac")
    assert 0.025 < stats.ttest_1samp([100.0, 140.0, 180.0], 0).pvalue < 0.05
    for beside, count, reading in ((None, "2 that", "clear"), ("mean10", "4 that have one by both metrics", "not clear")):
        text = render("scores", records.runs(), "f", "markdown", correct=True, beside=beside)
        (row,) = [line for line in text.splitlines() if "mopo minus sac" in line]
        assert row.endswith(f"| {reading} |") and f"over the {count}" in text


def test_what_has_one_number_takes_no_second_metric(records):
    records.add([1.0])
    for name, format in (("aggregate", "text"), ("scores", "json")):
        with pytest.raises(UserError, match="--beside mean10"):
            render(name, records.runs(), "f", format, beside="mean10")


def test_the_highest_mean_of_a_row_is_bold(records):
    for algorithm, value in {"mopo": 900.0, "sac": 1100.0, "bc": 1000.0}.items():
        records.add([value - 1, value, value + value % 7], algorithm=algorithm)
    assert {name: records.cell(algorithm=name).bold for name in ("mopo", "sac", "bc", "bear")} == {
        "mopo": False, "sac": True, "bc": False, "bear": False,
    }  # fmt: skip
    row = {cell.algorithm: cell for cell in scores_table(records.runs()).rows[0]}
    assert row["batch max"].mean > row["sac"].mean
    assert (row["batch max"].bold, row["sac"].bold) == (False, True)


def bold(records):
    return {cell.algorithm for cell in scores_table(records.runs()).rows[0] if cell.bold}


def test_those_that_are_not_clearly_below_the_best_are_bold_too(records):
    records.add([900.0, 1000.0, 1300.0], algorithm="mopo")
    records.add([950.0, 990.0, 1200.0], algorithm="mbpo")
    records.add([100.0, 130.0, 90.0], algorithm="sac")
    assert bold(records) == {"mopo", "mbpo"}
    records.add([940.0, 990.0, 1350.0], algorithm="mopo", identity="b", overrides={"x": 1}, seeds=[7, 8, 9])  # Welch's
    assert bold(records) == {"mopo", "mbpo", "mopo [x=1]"}
    assert any("clearly below it" in note for note in scores_table(records.runs()).notes)
    records.add(
        [-9000.0, 100.0, 8900.0], algorithm="bear"
    )  # its mean is the lowest: only its spread keeps the interval around 0
    assert bold(records) == {"mopo", "mbpo", "mopo [x=1]"}


def test_a_mean_without_a_rival_is_not_bold(records):
    records.add([1.0, 2.0, 3.0])
    assert bold(records) == set()
    records.add([-10.0, -9.5, -9.0], algorithm="sac")
    assert bold(records) == {"mopo"}


def test_nothing_is_bold_where_the_best_mean_has_fewer_than_three_seeds(records):
    records.add([900.0, 1000.0, 1300.0])
    records.add([1310.0], algorithm="sac")
    assert bold(records) == set()
    records.add([1.0], algorithm="sac", seeds=[1])
    assert bold(records) == {"mopo"}  # two seeds do not stand beside three, either


def test_a_diverged_seed_wins_no_row(records):
    records.add([3000.0, 3100.0, 3200.0, 0.0], algorithm="sac", states=["done"] * 3 + ["diverged"])
    records.add([900.0, 1000.0, 1300.0])
    assert bold(records) == {"mopo"}
    table = scores_table(records.runs())
    assert [cell.lines(True)[-1] for cell in table.rows[0] if cell.algorithm == "sac"] == ["1 of 4 diverged"]
    assert "none diverged" in notes(table)


def test_a_column_without_spread_has_no_interval(records):
    records.add([500.0, 500.0, 500.0])
    cell = records.cell(build=scores_table)
    assert (cell.std, cell.low, cell.high, cell.lines(True)) == (0.0, None, None, ["16.0 ± 0.0"])


def test_two_seeds_are_shown_as_they_are(records):
    records.add([4.0, 6.0], "point-angle", source="regenerated")
    cell = records.cell("point-angle", build=scores_table)
    assert cell.lines(True) == ["5.0 ± 1.4", "4.0 and 6.0"] and cell.low is None
    line = next(csv.DictReader(io.StringIO(scores_table(records.runs()).to_csv())))
    assert (line["mean"], line["low"], line["high"]) == ("5.0", "", "")


# --- a row is a task, its parameters and a dataset ----------------------------------------------------------------------

ANT = {"angle": 30.0, "survive_bonus": 1.0, "healthy_z_range": [0.2, 1.0]}


def test_other_parameters_of_a_task_are_another_row_and_stay_out_of_the_papers_table(records):
    records.add([100.0, 110.0], "ant-angle", source="regenerated", parameters=ANT)
    records.add([5000.0, 5100.0, 5200.0], "ant-angle", "mopo", "b", source="regenerated", parameters={**ANT, "angle": 45.0})
    table = scores_table(records.runs())
    assert [(row[0].text, row[1].text, row[3].mean) for row in table.rows] == [
        ("ant-angle", "regenerated", 105.0),
        ("ant-angle [angle=45.0]", "regenerated", 5100.0),
    ]
    paper = table2(records.runs())
    assert records.cell("ant-angle", build=table2).mean == 105.0
    assert "Runs with other parameters of the task exist and are not shown: ant-angle [angle=45.0]." in paper.notes
    assert [row[0].text for row in comparisons(records.runs()).rows] == ["ant-angle", "ant-angle [angle=45.0]"]
    assert {row["task"] for row in csv.DictReader(io.StringIO(table.to_csv()))} == {"ant-angle", "ant-angle [angle=45.0]"}
    assert [row["parameters"]["angle"] for row in scores(records.runs())] == [30.0] * 2 + [45.0] * 3


def test_a_record_that_names_no_parameters_stands_in_the_row_of_the_catalogues(records):
    records.add([100.0], "ant-angle", source="regenerated")
    records.add([110.0], "ant-angle", "sac", source="regenerated", parameters=ANT)
    assert len(scores_table(records.runs()).rows) == 1


def test_parameters_of_a_task_that_is_not_registered_here_differ_among_its_runs(records):
    for index, slope in enumerate((1, 2)):
        records.add([1.0], "hill", identity=str(index), source="file", parameters={"slope": slope, "snow": True})
    assert [row[0].text for row in scores_table(records.runs()).rows] == ["hill [slope=1]", "hill [slope=2]"]
    records.add([1.0], "dale", source="file", parameters={"slope": 1})
    assert "dale" in [row[0].text for row in scores_table(records.runs()).rows]


def test_runs_that_only_other_parameters_have_leave_the_papers_row_empty(records):
    records.add([5000.0], "ant-angle", source="regenerated", parameters={**ANT, "angle": 45.0})
    assert records.cell("ant-angle", build=table2).mean is None


# --- averages, budgets and untrained behaviour --------------------------------------------------------------------------


def test_an_average_is_over_the_rows_that_every_column_has(records):
    for task, value in {HOPPER: 500.0, "hopper-mixed": 700.0, "hopper-random": 5.0}.items():
        records.add([value, value + 1], task)
        if task != "hopper-random":
            records.add([2 * value], task, "sac")
    table = table1(records.runs())
    *_, last = table.rows
    shown = {cell.algorithm: cell for cell in last if cell.algorithm}
    means = [records.cell(task).mean for task in (HOPPER, "hopper-mixed")]
    assert last[0].text == "Average" and len(table.rows) == 13 and len(last) == len(table.columns)
    assert shown["mopo"].mean == pytest.approx(np.mean(means)) and shown["bc"].mean is None
    assert not any(cell.bold for cell in last)
    assert "over the 2 of 12 rows in which every column with numbers has one; the paper prints none" in notes(table)
    records.add([1.0], "walker2d-random", "bear")
    assert len(table1(records.runs()).rows) == 12
    assert "No average: no two rows have a number in every column" in notes(table1(records.runs()))


def test_an_average_says_what_diverged(records):
    for task in (HOPPER, "hopper-mixed"):
        records.add([1.0, 2.0], task, states=["done", "diverged"])
    assert [cell.lines()[-1] for cell in table1(records.runs()).rows[-1] if cell.algorithm == "mopo"] == ["2 of 4 diverged"]


@pytest.mark.parametrize(("algorithm", "steps"), [("bc", 500_000), ("sac", 500_000), ("mopo", BUDGET), ("mbpo", BUDGET)])
def test_a_difference_asks_for_the_steps_behind_the_papers_number(records, algorithm, steps):
    records.add([1000.0, 1000.0], algorithm=algorithm, steps=steps)
    assert records.cell(algorithm=algorithm).difference is not None
    for other in {500_000, BUDGET} - {steps}:
        records.add([1000.0, 1000.0], "hopper-mixed", algorithm, steps=other)
        assert records.cell("hopper-mixed", algorithm).difference is None
    said = "Steps behind the paper's numbers: 500,000 for BC, SAC, BEAR, BRAC-v; 1,000,000 for MOPO, MBPO."
    assert said in table1(records.runs()).notes
    assert not any("Steps behind" in note for note in table2(records.runs()).notes)


def test_what_nobody_trained_stands_beside_the_datasets_episodes(records):
    probes = {"return_zero": 900.0, "return_random": -50.0}
    records.add([400.0, 500.0, 650.0], "ant-angle", source="regenerated", probes=probes)
    records.add([1.0, 2.0, 3.5], "ant-angle", "bc", source="regenerated", probes=probes)
    records.add([1.0], source="v0")  # an older record has none
    table = scores_table(records.runs())
    assert table.columns[-4:] == ["Batch Mean", "Batch Max", "Zero Action", "Random Actions"]
    assert [[cell.mean for cell in row[-2:]] for row in table.rows] == [[None, None], [900.0, -50.0]]
    assert [cell.bold for cell in table.rows[1][-5:]] == [True, False, False, False, False]
    assert "Zero Action, Random Actions" in notes(table)
    second = table2(records.runs())
    assert second.columns[1:5] == ["Batch Mean", "Batch Max", "Zero Action", "Random Actions"]
    assert "Zero Action" not in table1(records.runs()).columns


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


@pytest.mark.parametrize(
    "algorithm, window, rows, comparable",
    [
        ("mopo", "last_1m", 2_000_000, True),
        ("mopo", "first_1m", 2_000_000, False),
        ("mopo", "all", 2_000_000, False),
        ("bc", "first_1m", 2_000_000, True),
        ("bc", "last_1m", 2_000_000, False),
        ("sac", "all", 2_000_000, True),
        ("sac", "last_1m", 2_000_000, False),
        ("mopo", "all", 1_000_000, True),
    ],
)
def test_a_difference_asks_for_the_rows_behind_the_papers_number(records, algorithm, window, rows, comparable):
    task = "halfcheetah-medium-expert"
    whole = {"rows": rows, "digest": "whole", "return_mean": 1.0, "return_max": 2.0}
    facts = {"whole": whole} if window != "all" else None
    steps = 1_000_000 if algorithm == "mopo" else 500_000
    records.add(
        [1000.0, 1100.0], task, algorithm, steps=steps, window=window, rows=min(rows, 10**6) if facts else rows, probes=facts
    )
    assert (records.cell(task, algorithm).difference is not None) == comparable
    assert ("last_1m for MOPO, MBPO" in notes(table1(records.runs()))) == (rows > 1_000_000)


def test_windows_of_one_dataset_stand_in_one_row(records):
    task, whole = (
        "walker2d-medium-expert",
        {"rows": 2_000_000, "digest": "0123456789abcdef", "return_mean": 1.0, "return_max": 2.0},
    )
    records.add([1000.0], task, "mopo", window="last_1m", rows=10**6, digest="last", probes={"whole": whole})
    records.add([1000.0], task, "bc", window="first_1m", rows=10**6, digest="first", probes={"whole": whole})
    records.add([1000.0], task, "sac", rows=2_000_000, digest=whole["digest"])
    assert all(records.cell(task, algorithm).mean is not None for algorithm in ("mopo", "bc", "sac"))
    said = notes(table1(records.runs()))
    assert (
        "1,000,000 rows, window first_1m for bc; 1,000,000 rows, window last_1m for mopo; 2,000,000 rows, window all for sac"
        in said
    )
    (batch_max,) = [each for row in scores_table(records.runs()).rows for each in row if each.algorithm == "batch max"]
    assert batch_max.mean == pytest.approx(get_task(task).references.score(2.0))


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


def test_rows_on_other_data_than_the_paper_s_are_named(records):
    records.add([1.0])
    assert not any("Not on the paper's data" in note for note in table1(records.runs()).notes)
    records.add([1.0], "hopper-mixed", source="v2")
    (note,) = [each for each in table1(records.runs()).notes if "Not on the paper's data" in each]
    assert note.endswith(": hopper-mixed (v2).")


def test_the_libraries_of_a_table_are_named_and_a_mixture_of_them(records):
    """Seeds of several machines had one mean, and the page of the report alone said by which torch each was made."""
    records.add([1.0, 2.0])
    place = records.cell_folder(HOPPER, "mopo", "a")
    for seed, torch in enumerate(("2.13.0", "2.9.0")):
        path = place / f"seed-{seed}" / "record.json"
        record = json.loads(path.read_text())
        record["segments"] = [{"versions": {"torch": torch, "mujoco": "4.0.0"}, "commit": "c0ffee"}]
        path.write_text(json.dumps(record))
    notes = scores_table(records.runs()).notes
    assert any("with torch 2.13.0 and 2.9.0 and mujoco 4.0.0, at commit c0ffee." in note for note in notes)
    assert "hopper-medium mopo: its runs were not made by the same torch (2.13.0 and 2.9.0)." in notes


def test_no_difference_on_a_swapped_cell(records):
    records.add([100.0, 100.0], "hopper-random", "bc")
    records.add([100.0, 100.0], "hopper-random", "sac", steps=500_000)
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
    assert records.cell().lines() == ["31.3", "(28.0 ± 12.4)", "1 of 2 diverged"]
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
    assert "Not at the default" not in notes(table)  # the column's name says it


def test_a_note_says_what_columns_of_an_algorithm_share_and_their_names_the_rest(records):
    for epochs in (15, 20):
        records.add([1000.0], identity=f"a{epochs}", overrides={"dynamics.max_epochs": epochs, "rollout_states": 100})
    table = table1(records.runs())
    assert table.columns[-2:] == ["MOPO [dynamics.max_epochs=15]", "MOPO [dynamics.max_epochs=20]"]
    assert notes(table).count("Not at the default: rollout_states=100 for mopo on hopper-medium.") == 1
    assert "default: dynamics" not in notes(table)


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
        "v2 (1,000 rows, all, v2-1000-)": [pytest.approx(task.references.score(2000.0))],
        "v2 (7 rows, all, v2-7-012)": [pytest.approx(task.references.score(3000.0))],
        "regenerated": [None],
    }
    assert table.columns == ["Task", "Data", "Unit", "MOPO", "SAC", "Batch Mean", "Batch Max"]
    last = [cell.lines(True) for cell in table.rows[-1]]
    assert last == [
        ["point-angle"],
        ["regenerated"],
        ["return"],
        ["–"],
        ["5.0 ± 1.4", "4.0 and 6.0"],
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
        with pytest.raises(UserError, match=r"no runs in here/it: `mopo-bench run --results FOLDER`"):
            build([], folder="here/it")


def test_three_values_of_a_setting_are_told_apart_in_json_and_csv(records):
    for value in (1, 2, 3):
        records.add([1000.0], identity=f"i{value}", overrides={"x": value})
    rows = json.loads(tables.render("scores", records.runs(), "f", "json"))
    told = [("mopo [x=1]", "i1", {"x": 1}), ("mopo [x=2]", "i2", {"x": 2}), ("mopo [x=3]", "i3", {"x": 3})]
    assert [(row["label"], row["identity"], row["overrides"]) for row in rows] == told
    lines = [
        line for line in csv.DictReader(io.StringIO(tables.render("scores", records.runs(), "f", "csv"))) if line["identity"]
    ]
    assert [(line["label"], line["identity"], line["overrides"]) for line in lines] == [
        (label, identity, f"x={value['x']}") for label, identity, value in told
    ]


def test_scores_give_one_object_a_run(records):
    records.add([[1.0, 1000.0], 5.0, []], states=["done", "diverged", "failed"])
    records.add([3.0], "point-angle", steps=8000, source="regenerated")
    rows = scores(records.runs())
    assert rows[0] == {
        "task": HOPPER, "algorithm": "mopo", "seed": 0, "steps": BUDGET, "data": "hopper-medium@v0", "return": 1000.0,
        "score": pytest.approx(31.35, abs=0.01), "state": "done",
        "data_digest": "0123456789abcdef", "label": "mopo", "identity": "a", "overrides": {}, "parameters": {},
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


@pytest.mark.parametrize("name", ["scores", "table1", "aggregate"])
@pytest.mark.parametrize("metric", METRICS)
def test_what_is_dropped_of_earlier_evaluations_is_in_no_table(records, name, metric):
    """Ten thousand records would fill the memory with the returns of every evaluation."""
    records.add([[3.0, 1.0, 2.0], [1000.0, 1400.0, 1100.0]], values=[[(9.0, 5.0), (1.0, 5.0), (1.0, 5.0)]] * 2)
    brief = Store(records.root).everything(brief=True)
    assert [[sorted(row) for row in run.evaluations] for run in brief] == [
        [["return_mean", "step", "value"]] * 2 + [["return_mean", "returns", "step", "value"]]
    ] * 2
    made = api.make_table(name, records.root, "markdown", metric)
    assert made == render(name, records.runs(), records.root, "markdown", metric)
    assert name == "aggregate" or "what the rewards allow in 2 of 2 seeds" in made


def test_headings_that_would_read_the_same_are_told_apart(records):
    records.add([1000.0], algorithm="sac", about={"title": "SAC"})
    records.add([1000.0], algorithm="sac-wide", about={"title": "SAC"})
    assert scores_table(records.runs()).columns[3:5] == ["SAC (sac)", "SAC (sac-wide)"]


def test_a_metric_is_not_shown_beside_itself(records):
    records.add([1.0])
    with pytest.raises(UserError, match="--beside best: the table is of that metric already; name another"):
        render("scores", records.runs(), ".", metric="best", beside="best")
