from mopo_bench.harness.report.frames import frames
from mopo_bench.harness.report.groups import groups_in
from mopo_bench.harness.report.notes import made_of
from mopo_bench.harness.report.tables import scores_table, table1

ENSEMBLE = {"stages": {"dynamics": "dynamics ensemble"}}


def test_shared_fits_are_read_from_the_records(records):
    records.add([1.0, 2.0], algorithm="mopo", stages={"dynamics": "x"}, about=ENSEMBLE)
    records.add([1.0, 2.0], algorithm="mbpo", stages={"dynamics": "x"})
    records.add([1.0, 2.0], "walker2d-medium", "mopo", stages={"dynamics": "y"})
    records.add([1.0, 2.0], "walker2d-medium", "mbpo", stages={"dynamics": "z"})
    shared = [note for note in table1(records.runs()).notes if "shared" in note]
    assert shared == ["One dynamics ensemble per seed is shared by mbpo and mopo on hopper-medium."]


def test_an_algorithm_whose_columns_all_share_a_fit_is_named_once(records):
    for coefficient in (0.5, 1.0, 4.0):
        chosen = {"overrides": {"penalty_coefficient": coefficient}, "identity": str(coefficient)}
        records.add([1.0], algorithm="mopo", stages={"dynamics": "x"}, about=ENSEMBLE, **chosen)
    records.add([1.0], algorithm="mbpo", stages={"dynamics": "x"})
    shared = [note for note in table1(records.runs()).notes if "shared" in note]
    assert shared == ["One dynamics ensemble per seed is shared by mbpo and all columns of mopo on hopper-medium."]
    other = {"overrides": {"penalty_coefficient": 8.0}, "identity": "8"}
    records.add([1.0], algorithm="mopo", stages={"dynamics": "y"}, **other)
    (shared,) = [note for note in table1(records.runs()).notes if "shared" in note]
    assert "by mbpo, mopo [penalty_coefficient=0.5], mopo [penalty_coefficient=1.0] and mopo [" in shared and "=8" not in shared


def fits(*errors, **where):
    """By seed what is recorded of a fit."""
    return [{"dynamics": {"holdout_error": error, **where} if error else {}} for error in errors]


def test_a_fit_that_was_made_anew_is_shared_where_its_numbers_are_the_same(records):
    """An identity is that of settings and data: another machine may fit other numbers under it. Later versions record more."""
    said = {"stages": {"dynamics": "x"}, "about": ENSEMBLE}
    three = [1.0, 2.0, 3.0]
    records.add(three, algorithm="mopo", stage_records=fits(0.1, 0.2, 0.3, seconds=9.0), **said)
    records.add(three, algorithm="mbpo", stage_records=fits(0.1, 0.25, 0.35, seconds=5.0, machine={}, epochs=7), **said)
    found = [note for note in table1(records.runs()).notes if "dynamics" in note]
    assert found == [
        "One dynamics ensemble per seed, but for seeds 1, 2, is shared by mbpo and mopo on hopper-medium.",
        "hopper-medium, seeds 1, 2: one dynamics ensemble for mbpo; another for mopo; of the same settings, and of other "
        "numbers, as other machines fit them.",
    ]
    rows = frames(records.runs()).fits
    assert sorted(zip(rows["seed"], rows["algorithms"], rows["holdout_error"], strict=True)) == [
        (0, "mbpo, mopo", 0.1), (1, "mbpo", 0.25), (1, "mopo", 0.2), (2, "mbpo", 0.35), (2, "mopo", 0.3)
    ]  # fmt: skip
    assert rows[rows["seed"] == 0]["epochs"].item() == 7, "the fuller record tells of it"


def test_what_holds_more_or_nothing_is_no_other_fit(records):
    said = {"stages": {"dynamics": "x"}, "about": ENSEMBLE}
    records.add([1.0], algorithm="mopo", stage_records=fits(0.1), **said)
    records.add([1.0], algorithm="mbpo", stage_records=fits(0.1, epochs=7), **said)
    records.add([1.0], algorithm="combo", stage_records=fits(None), **said)
    found = [note for note in scores_table(records.runs()).notes if "dynamics" in note]
    assert found == ["One dynamics ensemble per seed is shared by combo, mbpo and mopo on hopper-medium."]
    assert len(frames(records.runs()).fits) == 1


def test_each_fit_has_a_sentence_of_its_own(records):
    for identity, algorithms in {"x": ("mopo", "mbpo"), "y": ("combo", "rambo")}.items():
        for algorithm in algorithms:
            records.add([1.0], algorithm=algorithm, stages={"dynamics": identity}, about=ENSEMBLE)
    assert [note for note in scores_table(records.runs()).notes if "dynamics" in note] == [
        "One dynamics ensemble per seed is shared by mbpo and mopo on hopper-medium.",
        "One dynamics ensemble per seed is shared by combo and rambo on hopper-medium.",
    ]


def test_fits_of_different_seeds_are_not_shared(records):
    records.add([1.0], algorithm="mopo", stages={"dynamics": "x"}, seeds=[0])
    records.add([1.0], algorithm="mbpo", stages={"dynamics": "x"}, seeds=[1])
    assert not any("shared" in note for note in table1(records.runs()).notes)


def test_notes_say_steps_seeds_and_versions(records):
    records.add([1.0, 2.0], steps=5000)
    records.add([1.0], algorithm="sac", steps=9000, package="0.2.0")
    assert "Steps: 5000 to 9000. Seeds in a cell: 1 to 2. Made by mopo-bench 0.1.0, 0.2.0." in table1(records.runs()).notes


def test_a_fit_whose_record_has_no_title_goes_by_its_stage(records):
    for algorithm in ("mopo", "mbpo"):
        records.add([1.0], algorithm=algorithm, stages={"dynamics": "x"})
    assert "One dynamics per seed is shared by mbpo and mopo on hopper-medium." in table1(records.runs()).notes


def test_old_and_new_records_share_a_fit_under_its_title(records):
    records.add([1.0], algorithm="mbpo", stages={"dynamics": "x"}, about=ENSEMBLE)
    records.add([1.0], algorithm="mopo", stages={"dynamics": "x"})
    assert "One dynamics ensemble per seed is shared by mbpo and mopo on hopper-medium." in table1(records.runs()).notes


def test_runs_that_were_all_warmup_are_named(records):
    for algorithm, warmup_steps in {"bear": 5000, "brac-p": 4999, "brac-v": 0}.items():
        records.add([1.0], algorithm=algorithm, steps=5000, about={"warmup_steps": warmup_steps})
    records.add([1.0], algorithm="sac", steps=5000)
    said = [note for note in table1(records.runs()).notes if "warm-up" in note]
    assert said == ["hopper-medium bear: all its steps were warm-up, in which the policy sees no critic."]


def test_steps_and_windows_are_told_by_column_where_columns_differ(records):
    records.add([1.0], steps=5000)
    records.add([1.0], algorithm="sac", steps=9000)
    said = [note for note in table1(records.runs()).notes if "by column" in note]
    assert said == ["Steps by column: mopo 5000; sac 9000."]
    records.add([1.0], "hopper-mixed", "sac", steps=9000, window="last_1m")
    said = [note for note in table1(records.runs()).notes if "by column" in note]
    assert said[1:] == ["Windows by column: mopo all; sac all and last_1m."]


def test_runs_of_other_tasks_are_not_called_none(records):
    records.add([1.0], "point-angle")
    assert table1(records.runs()).notes[-1] == "No run is shown: the results folder has none of these tasks and algorithms."


def test_seeds_that_are_one_training_are_named(records):
    falls, other, constant = {"loss": [0.5, 0.25]}, {"loss": [0.5, 0.26]}, {"learning_rate": [0.1, 0.1]}
    for algorithm, metrics in (("mopo", [falls, falls]), ("mbpo", [falls, other]), ("sac", [falls]), ("bc", [constant] * 2)):
        records.add([[1.0, 2.0], [1.0, 3.0]][: len(metrics)], algorithm=algorithm, metrics=metrics)
    (said,) = [note for note in table1(records.runs()).notes if "one training" in note]
    assert said.startswith("hopper-medium mopo: its 2 seeds have the same metrics to the last digit")


def test_evaluations_at_other_intervals_are_said(records):
    """The mean of the last ten is of other parts of a run then."""
    records.add([[1.0, 2.0]], steps=5000)
    records.add([[1.0, 2.0]], algorithm="sac", steps=5000)
    assert not [note for note in table1(records.runs()).notes if "between evaluations" in note]
    for folder in records.root.glob("*/sac/*/seed-0/record.json"):
        folder.write_text(folder.read_text().replace('"step": 4000', '"step": 4900'))
    (said,) = [note for note in table1(records.runs()).notes if "between evaluations" in note]
    assert said.startswith("hopper-medium: steps between evaluations are 100 of sac; 1,000 of mopo: ")


def test_two_datasets_of_one_name_are_said(records):
    """As two versions of the package make them."""
    for number, parameters in enumerate(({"angle": 30}, {"angle": 45})):
        records.add([1.0], "ant-angle", identity=f"{number}", parameters=parameters, digest=f"{number}" * 16)
    records.add([1.0], identity="old", source="regenerated", digest="3c909e8f99d4")
    assert not [note for note in made_of(groups_in(records.runs(), "")) if "datasets" in note]
    records.add([1.0], identity="new", source="regenerated", digest="7017fd8f767f")
    (said,) = [note for note in made_of(groups_in(records.runs(), "")) if "datasets" in note]
    assert said.startswith("hopper-medium@regenerated is 2 datasets, with the digests 3c909e8f and 7017fd8f: ")
