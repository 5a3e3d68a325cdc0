"""What the paper shows beside its two tables: laid out as its tables are, each number with how sure it is."""

import csv
import io

from mopo_bench.harness.report.paper import LAYOUTS, SURE, paper_table
from mopo_bench.harness.report.tables import beside_paper

JUMP = "halfcheetah-jump"


def notes(table):
    return "\n".join(table.notes)


def test_figure_1_without_a_run():
    table = beside_paper("figure1", [])
    assert table.columns == ["Environment", "SAC", "MBPO, one network", "MBPO"]
    assert [row[0].text for row in table.rows] == ["halfcheetah-mixed", JUMP]
    assert [cell.lines()[1] for cell in table.rows[0][1:]] == ["(-581.3) I", "(2247.2 ± 581.0) M", "(5598.4 ± 1285.0) M"]
    assert table.rows[1][3].lines()[1] == "(2971.4 ± 1262.0)"
    assert all(f"{sure}: {meaning}." in table.notes for sure, meaning in SURE.items())
    assert not any(note.startswith(tuple(f"{sure}: " for sure in SURE)) for note in beside_paper("table1", []).notes)


def test_numbers_that_stand_in_two_tables_are_one():
    """Those that were read in Table 2 are the same here; what is from memory says so."""
    second = paper_table("table2")
    for name in LAYOUTS:
        for place, number in paper_table(name).items():
            assert number.sure in ("S", *SURE)
            if number.sure == "S" and place in second:
                assert number == second[place], (name, place)


def test_numbers_from_memory_are_no_reference(records):
    """Beside a number that was read stands a difference, beside one that was not none; a file says which it was."""
    for algorithm in ("mbpo", "mbpo-single"):
        records.add([1000.0, 1100.0], JUMP, algorithm, steps=3_000_000)
    table = beside_paper("figure1", records.runs())
    by_column = {cell.algorithm: cell for cell in table.rows[1][1:]}
    assert by_column["mbpo"].difference == 1050.0 - 2971.4
    assert by_column["mbpo-single"].mean == 1050.0 and by_column["mbpo-single"].difference is None
    lines = [line for line in csv.DictReader(io.StringIO(table.to_csv())) if line["task"] == JUMP]
    assert {line["algorithm"]: line["paper_sure"] for line in lines} == {"sac": "S", "mbpo-single": "M", "mbpo": "S"}


def test_figure_1_shows_other_tasks_on_which_its_own_column_was_run(records):
    records.add([10.0], "point-edge", "mbpo-single", source="regenerated")
    records.add([20.0], "point-edge", "mbpo", source="regenerated")
    records.add([30.0], "point-angle", "mbpo", source="regenerated")
    table = beside_paper("figure1", records.runs())
    assert [row[0].text for row in table.rows] == ["halfcheetah-mixed", JUMP, "point-edge"]
    assert [cell.lines()[0] for cell in table.rows[2][1:]] == ["–", "10.0", "20.0"]
