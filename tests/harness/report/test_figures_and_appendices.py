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


def test_the_ablation_has_a_row_for_each_penalty():
    table = beside_paper("ablation", [])
    assert table.columns == ["Variant", "halfcheetah-mixed", "walker2d-mixed", JUMP, "ant-angle"]
    assert [row[0].text for row in table.rows][-4:] == [
        "MOPO [penalty=none]",
        "MOPO [penalty=true_error]",
        "MBPO",
        "MBPO, one network",
    ]
    by_name = {row[0].text: [cell.lines()[-1] for cell in row[1:]] for row in table.rows}
    assert by_name["MOPO [penalty=none]"][2:] == ["(-980.8 ± 5625.0) M", "(18.6 ± 49.0) M"]
    assert by_name["MOPO"][2:] == ["(4016.6 ± 144.0)", "(2530.9 ± 137.0)"]
    assert by_name["MOPO [penalty=true_error]"] == ["–"] * 4


def test_a_penalty_that_stands_alone_is_not_taken_for_the_usual_one(records):
    """Elsewhere a column alone has the plain name whatever its settings."""
    records.add([10.0], "point-edge", "mopo", source="regenerated", overrides={"penalty": "ensemble", "hidden": [4]})
    table = beside_paper("ablation", records.runs())
    assert {row[0].text: row[-1].mean for row in table.rows if row[-1].mean is not None} == {"MOPO [penalty=ensemble]": 10.0}
    assert table.columns[-1] == "point-edge"


def test_appendix_e_has_a_row_for_each_goal(records):
    angles = {"survive_bonus": 1.0, "healthy_z_range": [0.2, 1.0]}
    for angle in (30.0, 45.0, 50.0):
        records.add([angle], "ant-angle", identity=str(angle), source="regenerated", parameters={**angles, "angle": angle})
    table = beside_paper("appendix-e", records.runs())
    shown = {row[0].text: row[3].lines() for row in table.rows}
    assert shown["ant-angle"] == ["30.0", "(2530.9 ± 137.0)"]
    assert shown["ant-angle [angle=45.0]"] == ["45.0", "(2571.0 ± 598.0) M"]
    assert shown["ant-angle [angle=60.0]"] == ["–", "(841.0 ± 1104.0) M"]
    assert shown["ant-angle [angle=50.0]"] == ["50.0"]
    assert not any("not shown" in note for note in table.notes)
    assert "not shown: ant-angle [angle=45.0], ant-angle [angle=50.0]." in notes(beside_paper("table2", records.runs()))
