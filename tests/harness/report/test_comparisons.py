import pytest
from mopo_bench.common.errors import UserError
from mopo_bench.harness.report.comparisons import comparisons
from scipy import stats


def test_comparisons_against_scipy(records):
    mopo, sac = [10.0, 12.0, 14.0], [1.0, 9.0, 2.0, 30.0]
    records.add(mopo, "point-angle", source="regenerated", seeds=[10, 11, 12])
    records.add(sac, "point-angle", "sac", source="regenerated")
    records.add([1.0], "point-angle", "bc", source="regenerated")
    records.add(mopo, "halfcheetah-jump", "sac")  # nothing of MOPO's to compare with
    rows = comparisons(records.runs()).rows
    assert [[cell.text for cell in row if not cell.algorithm] for row in rows] == [
        ["point-angle", "regenerated", "return", "mopo minus bc", "3 and 1", "one seed on one side, no interval"],
        ["point-angle", "regenerated", "return", "mopo minus sac", "3 and 4", "not clear"],
        ["point-angle", "regenerated", "return", "mopo minus batch max", "3", "clear"],
    ]
    _, against_sac, against_episode = [row[5] for row in rows]
    welch = stats.ttest_ind(mopo, sac, equal_var=False).confidence_interval()
    student = stats.ttest_1samp(mopo, 3000.0).confidence_interval()
    assert against_sac.mean == pytest.approx(12 - 10.5)
    assert (against_sac.low, against_sac.high) == pytest.approx(tuple(welch))
    assert (against_episode.low, against_episode.high) == pytest.approx(tuple(bound - 3000 for bound in student))
    assert (against_sac.bold, against_episode.bold) == (False, True)


def compared(table):
    return [row[3].text for row in table.rows]


def test_any_algorithm_may_be_the_reference(records):
    for algorithm in ("mopo", "sac", "zeta"):
        records.add([1.0, 2.0], algorithm=algorithm)
    table = comparisons(records.runs(), reference="zeta")
    assert (table.title, compared(table)) == (
        "zeta against the others",
        ["zeta minus mopo", "zeta minus sac", "zeta minus batch max"],
    )
    assert comparisons(records.runs(), reference="mopo") == comparisons(records.runs())


def test_without_the_default_reference_the_first_column_takes_its_place_and_a_note_says_so(records):
    records.add([1.0, 2.0], algorithm="sac")
    records.add([1.0, 2.0], algorithm="alpha")
    records.add([1.0], algorithm="mopo", states=["failed"])
    table = comparisons(records.runs())
    assert (table.title, compared(table)) == ("SAC against the others", ["sac minus alpha", "sac minus batch max"])
    assert table.notes[0] == "No run of mopo gives a number here: the first column, sac, is compared with the others."


def test_another_reference_must_be_there(records):
    records.add([1.0])
    records.add([1.0], algorithm="alpha")
    with pytest.raises(UserError, match="no runs of beta in here/it to compare with: there are mopo, alpha"):
        comparisons(records.runs(), folder="here/it", reference="beta")


def test_each_variant_of_the_reference_is_compared(records):
    records.add([1.0, 2.0])
    records.add([3.0, 4.0], identity="b", overrides={"x": 5})
    records.add([1.0, 2.0], algorithm="sac")
    assert compared(comparisons(records.runs())) == [
        "mopo minus sac",
        "mopo minus batch max",
        "mopo [x=5] minus sac",
        "mopo [x=5] minus batch max",
    ]


@pytest.mark.parametrize(
    ("model_free", "marked"),
    [
        ({"mopo": False, "sac": True, "zeta": True}, "zeta"),
        ({"mopo": False, "sac": True, "zeta": False}, None),  # of one there is no best
        ({"mopo": False, "sac": True, "zeta": None}, None),  # an older record: zeta might be the best
        ({"mopo": True, "sac": True, "zeta": True}, None),  # the reference itself is
    ],
)
def test_the_best_model_free_algorithm_is_marked_where_the_records_say_which_are(records, model_free, marked):
    for value, (algorithm, said) in zip((9.0, 1.0, 2.0), model_free.items(), strict=True):
        records.add([value, value + 1], algorithm=algorithm, about=None if said is None else {"model_free": said})
    expected = [f"mopo minus {each}" + " (best model-free)" * (each == marked) for each in ("sac", "zeta", "batch max")]
    table = comparisons(records.runs())
    assert compared(table) == expected
    assert any("picked afterwards" in note for note in table.notes) == bool(marked)


def readings(table):
    return {row[3].text: (row[4].text, row[6].text, row[5].bold) for row in table.rows}


def test_columns_whose_seeds_coincide_are_paired(records):
    mopo, mbpo = [10.0, 40.0, 90.0, 1.0], [8.0, 36.0, 87.0]
    records.add(mopo, "point-angle")
    records.add(mbpo, "point-angle", "mbpo")
    row = comparisons(records.runs()).rows[0]
    paired = stats.ttest_rel(mopo[:3], mbpo).confidence_interval()
    assert (row[4].text, row[6].text, row[5].mean) == ("3 paired of 4 and 3", "clear", pytest.approx(3.0))
    assert (row[5].low, row[5].high) == pytest.approx(tuple(paired))
    assert any("n paired: Student's" in note and "Welch's" in note for note in comparisons(records.runs()).notes)


def test_two_seeds_have_no_interval(records):
    records.add([1000.0, 1100.0], "point-angle")
    records.add([1.0, 2.0], "point-angle", "sac")
    table = comparisons(records.runs())
    assert readings(table)["mopo minus sac"] == ("2 paired", "two seeds, no interval", False)
    assert readings(table)["mopo minus batch max"] == ("2", "two seeds, no interval", False)
    assert (table.rows[0][5].low, table.rows[0][5].lines(True)) == (None, ["1048.5", "999.0 and 1098.0"])


def test_a_side_with_too_few_seeds_is_not_taken_for_both(records):
    records.add([1000.0, 1100.0], "point-angle")
    records.add([1.0, 2.0, 4.0], "point-angle", "sac")
    assert readings(comparisons(records.runs()))["mopo minus sac"] == (
        "2 paired of 2 and 3",
        "two seeds on one side, no interval",
        False,
    )


def test_without_spread_nothing_is_clear(records):
    records.add([5.0, 5.0, 5.0], "point-angle")
    records.add([1.0, 1.0, 1.0], "point-angle", "sac")
    assert readings(comparisons(records.runs())) == {
        "mopo minus sac": ("3 paired", "no spread, no interval", False),
        "mopo minus batch max": ("3", "no spread, no interval", False),
    }


def test_nothing_is_clear_where_a_seed_diverged(records):
    records.add([5.0, 6.0, 7.5], "point-angle", about={"model_free": False})
    records.add([1.0, 1.5, 2.0, 9.0], "point-angle", "sac", states=["done"] * 3 + ["diverged"], about={"model_free": True})
    records.add([0.0, 0.5, 1.5], "point-angle", "bc", about={"model_free": True})
    read = readings(comparisons(records.runs()))
    assert read["mopo minus sac"] == ("3 paired", "sac: 1 of 4 diverged", False)
    assert "mopo minus bc (best model-free)" in read  # the best mean is one of survivors


def test_where_the_zero_action_returns_no_less_than_the_best_episode_a_note_says_so(records):
    records.add(
        [4000.0, 4100.0, 4300.0], "ant-angle", source="regenerated", probes={"return_zero": 3200.0, "return_random": -5.0}
    )
    records.add([1.0], "halfcheetah-jump", source="regenerated", probes={"return_zero": 2999.0, "return_random": -5.0})
    said = [note for note in comparisons(records.runs()).notes if "zero action" in note]
    assert said == ["ant-angle: zero action gives 3200.0 without learning, no less than batch max, 3000.0."]


def test_nothing_is_clear_where_the_seeds_of_a_column_end_at_different_steps(records):
    records.add([10.0, 11.0, 12.0], "point-angle", source="regenerated")
    records.add([1.0, 1.5], "point-angle", "sac", source="regenerated")
    records.add([2.0], "point-angle", "sac", seeds=[2], steps=2_000_000, source="regenerated")
    (row,) = [row for row in comparisons(records.runs()).rows if row[3].text == "mopo minus sac"]
    assert row[6].text == "sac: seeds of 1000000 to 2000000 steps" and not row[5].bold and row[5].low > 0


def test_nothing_is_clear_where_a_run_is_unfinished(records):
    records.add([10.0, 11.0, 12.0], "point-angle", source="regenerated")
    records.add([1.0, 1.5, 2.0], "point-angle", "sac", states=["done", "done", "running"], source="regenerated")
    (row,) = [row for row in comparisons(records.runs()).rows if row[3].text == "mopo minus sac"]
    assert row[6].text == "sac unfinished" and not row[5].bold and row[5].low > 0
