"""Curves of another code beside the runs made here."""

import json

import numpy as np
import pytest
from mopo_bench import UserError, export, import_runs, load, run, table
from mopo_bench.harness.report.statistics import difference_interval

THEIRS = {"task": "point-angle", "algorithm": "theirs", "code": "Code 1.0", "data": "regenerated", "rows": 400}
RETURNS = {0: (50.0, 61.5), 1: (52.0, 58.0), 2: (49.0, 66.0)}


@pytest.fixture
def curves(tmp_path):
    """Writes a CSV file of lines, by default of `RETURNS` at steps 20 and 40, and gives its path."""

    def write(text=None, name="curves.csv"):
        lines = [
            f"{seed},{step},{value}" for seed, values in RETURNS.items() for step, value in zip((20, 40), values, strict=True)
        ]
        (tmp_path / name).write_text("seed,step,return\n" + "\n".join(lines) + "\n" if text is None else text)
        return tmp_path / name

    return write


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ours")
    budget = {"steps": 40, "evaluate_every": 20, "episodes": 2, "jobs": 1, "quiet": True}
    run(tasks="point-angle", algorithms="bc", seeds=3, rows=400, results=folder, **budget)
    return folder


def test_a_table_shows_them_beside_runs_on_the_same_data_and_says_what_they_are(curves, ours, tmp_path):
    runs = import_runs(curves(), **THEIRS, results=tmp_path / "theirs")
    assert [(each.seed, each.state, each.steps) for each in runs] == [(0, "done", 40), (1, "done", 40), (2, "done", 40)]
    made = json.loads(table("scores", [ours, tmp_path / "theirs"], "json"))
    assert {row["algorithm"]: row["data"] for row in made} == {name: "point-angle@regenerated" for name in ("bc", "theirs")}
    text = table("scores", [ours, tmp_path / "theirs"], reference="theirs")
    assert text.count("| point-angle |") == 3, "one row of scores, and two comparisons"
    (note, beside) = [line for line in text.splitlines() if line.startswith("- Imported")]
    assert note == beside
    assert note.startswith(
        "- Imported, not made by this project: theirs [imported] on point-angle (Code 1.0; curves.csv, SHA-256 "
    )
    assert "no comparison pairs their seeds" in note and "begun" not in text
    assert "Episodes in an evaluation: 2; theirs [imported] not known." in text and "Made by mopo-bench" in text


def test_seeds_are_not_paired(curves, ours, tmp_path):
    import_runs(curves(), **THEIRS, results=tmp_path / "theirs")
    text = table("scores", [ours, tmp_path / "theirs"], reference="theirs")
    (compared,) = [line for line in text.splitlines() if "theirs [imported] minus bc" in line]
    low, high = difference_interval([values[-1] for values in RETURNS.values()], list(load(ours).runs["return"]))
    assert "| 3 and 3 |" in compared and f"[{low:.1f}, {high:.1f}]" in compared


def test_a_table_of_theirs_alone_is_not_said_to_be_made_here(curves, tmp_path):
    import_runs(curves(), **THEIRS, results=tmp_path / "theirs")
    text = table("scores", tmp_path / "theirs")
    assert "Made by" not in text and "Episodes in an evaluation: theirs [imported] not known." in text and "61.8" in text


def test_rows_of_episodes_make_evaluations(curves, tmp_path):
    lines = [f"{step},7,{episode},{value}" for step, episode, value in ((20, 1, 3.0), (10, 0, 1.0), (20, 0, 4.0), (10, 1, 2.5))]
    (found,) = import_runs(curves("step,seed,episode,return\n" + "\n".join(lines)), **THEIRS, results=tmp_path / "theirs")
    assert found.seed == 7 and [(row["step"], row["return_mean"]) for row in found.evaluations] == [(10, 1.75), (20, 3.5)]
    assert [row["return_std"] for row in found.evaluations] == pytest.approx([np.std([1, 2.5], ddof=1), np.std([3, 4], ddof=1)])
    assert list(load(tmp_path / "theirs").evaluations["episodes"]) == [2, 2]


def test_scores_become_returns(curves, tmp_path):
    path = curves("seed,step,score\n0,1e3,100\n0,2000,0\n")
    (found,) = import_runs(
        path, "hopper-medium", "theirs", "Code 1.0", data="regenerated", rows=2000, results=tmp_path / "theirs"
    )
    assert [row["step"] for row in found.evaluations] == [1000, 2000]
    assert [row["return_mean"] for row in found.evaluations] == pytest.approx([3234.3, -20.272305])
    frame = load(tmp_path / "theirs")
    assert list(frame.evaluations["score"]) == pytest.approx([100.0, 0.0]) and frame.evaluations["episodes"].isna().all()
    assert list(frame.runs["imported"]) == ["Code 1.0"]


def test_again_changes_nothing_and_more_seeds_are_added(curves, tmp_path):
    import_runs(curves(), **THEIRS, results=tmp_path / "theirs")
    before = {path: path.read_bytes() for path in (tmp_path / "theirs").rglob("*.json")}
    import_runs(curves(), **THEIRS, results=tmp_path / "theirs")
    assert before == {path: path.read_bytes() for path in (tmp_path / "theirs").rglob("*.json")}
    more = import_runs(curves("seed,step,return\n5,40,1\n", "more.csv"), **THEIRS, results=tmp_path / "theirs")
    assert [each.seed for each in more] == [5] and "more.csv, SHA-256" in table("scores", tmp_path / "theirs")


def test_another_code_has_a_column_of_its_own(curves, tmp_path):
    import_runs(curves(), **THEIRS, results=tmp_path / "theirs")
    other = curves("seed,step,return\n0,20,5\n0,40,7\n")
    import_runs(other, **{**THEIRS, "code": "Code 1.1"}, results=tmp_path / "theirs")
    assert {row["label"] for row in json.loads(table("scores", tmp_path / "theirs", "json"))} == {
        "theirs [imported]",
        "theirs [imported, code version Code 1.0]",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has the columns of an empty file"),
        ("seed,step,return\n", "no rows"),
        ("seed,step\n0,1\n", "has the columns seed, step: give it"),
        ("seed,step,return,score\n0,1,2,3\n", "score: give it columns"),
        ("seed,step,return,return\n0,1,2,3\n", "return: give it columns"),
        ("seed,step,score\n0,1,2\n", "no references for a score"),
        ("seed,step,return\n0,1.5,2\n", "line 2: step '1.5' is no whole number"),
        ("seed,step,return\n-1,1,2\n", "line 2: seed '-1' is no whole number of at least 0"),
        ("seed,step,return\n0,1,nan\n", "line 2: return 'nan' is no number"),
        ("seed,step,return\n0,1,1e300\n", "line 2: return '1e300' is no number, with a point for decimals, of a usual size"),
        ("seed,step,return\n0,1,\n", "line 2: return '' is no number"),
        ("seed,step,return\n0,1,1_0\n", "line 2: return '1_0' is no number"),
        ("seed,step,return\n0,1e30,1\n", "line 2: step '1e30' is no whole number"),
        ("seed;step;return\n0;1;2\n", "has the columns seed;step;return: give it columns, separated by commas"),
        ("seed,step,return\n0,1\n", "line 2: 2 fields under 3 columns"),
        ("seed,step,return\n0,1,2\n\n0,1,3\n", "line 4: seed 0 has step 1 in line 2 already; of episodes tell a column"),
        ("seed,step,return,episode\n0,1,2,0\n0,1,3,0\n", "line 3: seed 0 has step 1 in line 2 already"),
        ("seed,step,return\n0,1,2\n0,2,4\n3,1,2\n3,2,4\n1,1,5\n", "seeds 0, 3 have the same numbers"),
        ('seed,step,return\n0,1,"2\n', "cannot be read"),
        ("seed,step,return\n0,1,\udcff\n", "cannot be read"),
    ],
)
def test_a_file_that_is_none_is_refused_in_a_line(text, said, tmp_path):
    (tmp_path / "curves.csv").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"curves\.csv") as refusal:
        import_runs(tmp_path / "curves.csv", **THEIRS, results=tmp_path / "theirs")
    assert said in str(refusal.value) and "\n" not in str(refusal.value) and not (tmp_path / "theirs").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"task": "point-angel"}, "did you mean 'point-angle'"),
        ({"algorithm": "mopo"}, "--algorithm mopo: mopo is registered here; give theirs another name, as mopo-theirs"),
        ({"algorithm": "MOPO"}, "mopo is registered here"),
        ({"algorithm": "brac_v."}, "brac-v is registered here"),
        ({"code": "x" * 201}, "in at most 200 characters"),
        ({"algorithm": "their/s"}, "a name is made of letters"),
        ({"code": " "}, "--code: say what made the curves"),
        ({"data": None}, "say what they were trained on"),
        ({"data": "auto"}, "say what they were trained on"),
        ({"data": "d4rl"}, "not a task of D4RL"),
        ({"dataset": "mine.hdf5", "rows": None}, "--data regenerated has nothing to choose with --dataset"),
        ({"task": "ant-angle", "task_set": ["ant-angle.angle=30,45"]}, "one value of each parameter"),
    ],
)
def test_what_is_said_of_it_is_checked(changed, said, curves, tmp_path):
    with pytest.raises(UserError) as refusal:
        import_runs(curves(), **{**THEIRS, **changed}, results=tmp_path / "theirs")
    assert said in str(refusal.value) and not (tmp_path / "theirs").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("task,seed,step,return\nhopper,0,1,2\nwalker,1,1,3\n", "its column task has several values (hopper, walker, ...)"),
        ("seed,step,return,Algo\n0,1,2,cql\n0,2,3,iql\n", "its column algo has several values"),
        ("seed,step,episode,return\n0,1,10,2\n0,2,10,3\n", "no evaluation has two episodes; leave the column episode out"),
        (
            "seed,step,episode,return\n0,1,0,2\n0,1,1,3\n1,1,0,4\n",
            "seed 1 has 1 episodes at step 1, where another has 2: cut off?",
        ),
        ("seed,step,return\n0,1,2\n0,2,3\n0,3,4\n1,1,2\n1,2,3\n", "seeds 0, 1 have the same numbers, as one run has"),
    ],
)
def test_a_file_of_several_things_or_one_cut_off_is_refused(text, said, curves, tmp_path):
    with pytest.raises(UserError) as refusal:
        import_runs(curves(text), **THEIRS, results=tmp_path / "theirs")
    assert said in str(refusal.value) and not (tmp_path / "theirs").exists()


def test_a_run_that_is_there_with_other_numbers_is_refused_and_nothing_written(curves, tmp_path):
    import_runs(curves(), **THEIRS, results=tmp_path / "theirs")
    with pytest.raises(UserError, match="seed-1 holds this run with other numbers"):
        import_runs(curves("seed,step,return\n5,40,1\n1,40,3\n"), **THEIRS, results=tmp_path / "theirs")
    assert sorted(load(tmp_path / "theirs").runs["seed"]) == [0, 1, 2]


@pytest.mark.parametrize("changed", [{"algorithm": "others"}, {"code": "Code 1.1"}, {}])
def test_numbers_that_are_there_already_do_not_count_twice(changed, curves, tmp_path):
    """Under another name, of another version, or as more seeds."""
    import_runs(curves(), **THEIRS, results=tmp_path / "theirs")
    again = curves(curves().read_text().replace("\n2,", "\n12,").replace("\n1,", "\n11,").replace("\n0,", "\n10,"), "again.csv")
    with pytest.raises(UserError, match=r"seed 10 has the numbers of .*seed-0, as one run would: import it once"):
        import_runs(again, **{**THEIRS, **changed}, results=tmp_path / "theirs")
    assert sorted(load(tmp_path / "theirs").runs["seed"]) == [0, 1, 2]


def test_a_name_that_differs_in_no_letter_is_refused(curves, tmp_path):
    """One folder on some systems, and one name to the eye."""
    import_runs(curves(), **THEIRS, results=tmp_path / "theirs")
    with pytest.raises(UserError, match="holds theirs, which differs in no letter"):
        import_runs(curves(), **{**THEIRS, "algorithm": "The-irs"}, results=tmp_path / "theirs")


def test_seeds_of_a_solved_task_may_have_the_same_numbers(curves, tmp_path):
    path = curves("Seed, Step, Return\n0.0,20.0,15\n0,40,15\n1,20,15\n1,40,15\n")
    assert [each.seed for each in import_runs(path, **THEIRS, results=tmp_path / "theirs")] == [0, 1]


@pytest.mark.parametrize(("scores", "said"), [("0.41 0.9", "may be fractions"), ("30 1500", "may be returns"), ("0.9 40", "")])
def test_scores_of_another_scale_are_doubted(scores, said, curves, tmp_path):
    path = curves("seed,step,score\n" + "\n".join(f"0,{step},{value}" for step, value in enumerate(scores.split())))
    import_runs(path, **{**THEIRS, "task": "hopper-medium", "rows": 2000}, results=tmp_path / "theirs")
    text = table("scores", tmp_path / "theirs")
    assert (said in text) if said else "an expert's is 100" not in text


def test_an_imported_column_makes_no_baseline(curves, command, tmp_path):
    import_runs(curves(), **THEIRS, results=tmp_path / "theirs")
    words = ("--update", "--reason", "x", "--fewest", "3", "--baseline", tmp_path / "base.csv")
    done = command("check", "--results", tmp_path / "theirs", *words)
    assert done.code == 2 and "another code made it" in done.err and not (tmp_path / "base.csv").exists()


def test_a_file_of_data_export_is_the_dataset_that_it_was_made_of(curves, command, ours, tmp_path):
    words = ("--to", "d4rl", "--rows", "400", "--data", "regenerated", "--out", tmp_path / "export")
    assert command("data", "export", "point-angle", *words).code == 0
    (file,) = (tmp_path / "export").glob("*.hdf5")
    said = {name: value for name, value in THEIRS.items() if name not in ("data", "rows")}
    import_runs(curves(), **said, dataset=file, results=tmp_path / "theirs")
    text = table("scores", [ours, tmp_path / "theirs"], reference="theirs")
    assert "theirs [imported] minus bc" in text and "rows, window all, read as file " in text


def test_the_site_the_exports_and_the_command_line_take_them(curves, command, tmp_path):
    words = [f"--{name}={value}" for name, value in THEIRS.items()]
    done = command("import", curves(), *words, "--results", tmp_path / "theirs")
    assert done.code == 0 and done.out.startswith("theirs on point-angle@regenerated: 3 seeds to step 40 in ")
    assert "theirs [imported]" in command("status", "--results", tmp_path / "theirs").out
    assert command("report", "--results", tmp_path / "theirs", "--out", tmp_path / "site").code == 0
    (page,) = [path for path in (tmp_path / "site").rglob("point-angle*.html")]
    assert "It was imported: no command here repeats it." in page.read_text() and "mopo-bench run" not in page.read_text()
    for name in ("csv", "tensorboard", "openrlbenchmark"):
        assert export(name, tmp_path / name, tmp_path / "theirs")
    lost = command("evaluate", "point-angle", "--algorithm", "theirs", "--seed", "0", "--results", tmp_path / "theirs")
    assert lost.code == 2 and "was imported" in lost.err
