import pytest
from mopo_bench.common.errors import UserError
from mopo_bench.harness.report.comparisons import comparisons
from scipy import stats


def test_comparisons_against_scipy(records):
    mopo, sac = [10.0, 12.0, 14.0], [1.0, 9.0, 2.0, 30.0]
    records.add(mopo, "point-angle", source="regenerated")
    records.add(sac, "point-angle", "sac", source="regenerated")
    records.add([1.0], "point-angle", "bc", source="regenerated")
    records.add(mopo, "halfcheetah-jump", "sac")  # nothing of MOPO's to compare with
    rows = comparisons(records.runs()).rows
    assert [[cell.text for cell in row if not cell.algorithm] for row in rows] == [
        ["point-angle", "regenerated", "return", "mopo minus bc", "3 and 1", "one seed, no interval"],
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
    assert compared(comparisons(records.runs())) == expected
