"""Runs of several results folders in one table: each counts once, and two that differ are refused."""

import json

import numpy as np
import pytest
from mopo_bench import export, load, plot, report, table
from mopo_bench.common.errors import UserError
from mopo_bench.harness.report.gathering import gathered

from .conftest import Records


@pytest.fixture
def mine(tmp_path):
    return Records(tmp_path / "mine")


@pytest.fixture
def published(tmp_path):
    return Records(tmp_path / "published")


def test_the_seeds_of_one_identity_stand_together(mine, published):
    mine.add([1000.0], seeds=[2])
    published.add([2000.0, 3000.0])
    published.add([500.0], algorithm="sac", identity="b")
    found = gathered([mine.root, published.root])
    assert [(run.algorithm, run.seed) for run in found.runs] == [("mopo", 0), ("mopo", 1), ("mopo", 2), ("sac", 0)]
    assert found.where == f"{mine.root} and {published.root}"
    rows = load([mine.root, published.root]).runs
    assert rows[rows.algorithm == "mopo"]["return"].tolist() == [2000.0, 3000.0, 1000.0]
    shown = json.loads(table("scores", [mine.root, str(published.root)], "json"))
    assert np.mean([row["return"] for row in shown if row["algorithm"] == "mopo"]) == 2000.0


def test_a_run_that_two_folders_hold_counts_once(mine, published):
    for each in (mine, published):
        each.add([[100.0, 2000.0], [100.0, 3000.0]])
    assert table("scores", [mine.root, published.root, mine.root]) == table("scores", mine.root)


def changed(records, name, change, task="hopper-medium", algorithm="mopo", identity="a", seed=0):
    """Changes a file of `records` in place."""
    folder = records.cell_folder(task, algorithm, identity)
    path = folder / name if name == "cell.json" else folder / f"seed-{seed}" / name
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def later(record):
    record["steps"] += 1000
    record["evaluations"].append({"step": record["steps"], "returns": [7.0], "return_mean": 7.0})


CHANGES = {
    "another last return": lambda record: record["evaluations"][-1].update(returns=[2500.0], return_mean=2500.0),
    "another return before": lambda record: record["evaluations"][0].update(returns=[101.0], return_mean=101.0),
    "another state": lambda record: record.update(state="running"),
    "more steps": later,
    "other episodes": lambda record: record["evaluations"][-1].update(returns=[1999.0, 2001.0]),
    "another value": lambda record: record["evaluations"][-1].update(value={"mean": 1.0, "highest": 2.0}),
    "a warning": lambda record: record.update(warnings={"fit": "something"}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("turned", [False, True])
def test_a_run_of_two_folders_that_differs_is_refused(mine, published, change, turned):
    for each in (mine, published):
        each.add([[100.0, 2000.0]])
        each.add([[1.0, 2.0]], algorithm="sac", identity="b")
    changed(published, "record.json", change)
    both = [published.root, mine.root] if turned else [mine.root, published.root]
    with pytest.raises(UserError, match=r"hopper-medium/mopo/a/seed-0 is not the same in .* and in .*: leave one folder out"):
        table("scores", both)
    assert "SAC" in table("scores", both, algorithms="sac")  # what is not shown may differ


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda cell: cell["config"].update(rate=2), "rate differs"),
        (lambda cell: cell["data"].update(window="last_1m"), "the dataset's window differs"),
        (lambda cell: cell["data"].update(rows=7), "the dataset's rows differs"),
    ],
)
def test_one_identity_with_other_settings_is_refused(mine, published, change, said):
    mine.add([1000.0, 2000.0], overrides={"rate": 1})
    published.add([3000.0], seeds=[2], overrides={"rate": 1})
    assert len(gathered([mine.root, published.root]).runs) == 3
    changed(published, "cell.json", change)
    with pytest.raises(UserError, match=f"hopper-medium/mopo/a: {said} between .*mine and .*published"):
        gathered([mine.root, published.root])


def test_the_same_arrays_may_have_been_read_from_a_file(mine, published):
    """Another machine trained the other seeds on what `data export` wrote here."""
    mine.add([1000.0, 2000.0], source="regenerated", digest="same")
    published.add([3000.0], seeds=[2], source="file", digest="same")
    assert len({run.cell["data"]["label"] for run in gathered([mine.root, published.root]).runs}) == 1
    assert "Seeds in a cell: 3." in table("scores", [mine.root, published.root])


def test_a_dataset_is_told_of_in_one_way(mine, published):
    """An earlier version counted its mean otherwise: the first folder's cell is taken for all seeds of an identity."""
    mine.add([1000.0])
    published.add([2000.0], seeds=[1])
    changed(published, "cell.json", lambda cell: cell["data"].update(return_mean=5.0))
    assert {run.cell["data"]["return_mean"] for run in gathered([mine.root, published.root]).runs} == {1000.0}


def test_one_folder_however_it_is_spelt(mine, tmp_path, monkeypatch):
    mine.add([1000.0])
    (mine.root / "hopper-medium/mopo/a/seed-5").mkdir()
    (mine.root / "hopper-medium/mopo/a/seed-5/record.json").write_text("{")
    (tmp_path / "link").symlink_to(mine.root)
    monkeypatch.chdir(tmp_path)
    found = gathered(["mine", tmp_path / "link", tmp_path / "mine", "./mine/../mine"])
    assert found.where == "mine" and len(found.runs) == len(found.faults) == 1


def test_a_folder_that_adds_nothing_is_refused(mine, tmp_path):
    mine.add([1000.0])
    with pytest.raises(UserError, match=r"no runs in .*: leave it out"):
        gathered([mine.root, tmp_path])
    assert gathered(tmp_path).runs == []


def test_what_is_not_believed_is_said_with_its_folder(mine, published, tmp_path):
    mine.add([1000.0, 2000.0])
    published.add([500.0], algorithm="sac", identity="b")
    (published.root / "hopper-medium/sac/b/seed-0/record.json").write_text("{")
    (note,) = [line for line in table("scores", [mine.root, published.root]).splitlines() if "Not believed" in line]
    assert "/published: hopper-medium/sac/b/seed-0: record.json cannot be read" in note
    with pytest.warns(UserWarning, match=r"^not believed, and left out: .*published: hopper-medium/sac/b/seed-0"):
        assert set(load([mine.root, published.root]).runs.algorithm) == {"mopo"}
    with pytest.raises(UserError, match=r"not believed: .*published"):
        export("csv", tmp_path / "csv", [mine.root, published.root])


def test_tasks_and_algorithms(mine, published, command):
    mine.add([1000.0, 2000.0])
    mine.add([1000.0], task="walker2d-medium", identity="c")
    published.add([500.0], algorithm="sac", identity="b")
    folders = ("--results", mine.root, "--results", published.root)
    words = ("table", "scores", *folders, "--format", "json")

    def shown(*more):
        return {(row["task"], row["algorithm"]) for row in json.loads(command(*words, *more).out)}

    assert shown() == {("hopper-medium", "mopo"), ("walker2d-medium", "mopo"), ("hopper-medium", "sac")}
    assert shown("--tasks", "hopper-medium") == {("hopper-medium", "mopo"), ("hopper-medium", "sac")}
    assert shown("--tasks", "hopper-medium", "--algorithms", "mopo") == {("hopper-medium", "mopo")}
    (published.root / "hopper-medium/sac/b/seed-0/record.json").write_text("{")
    assert command(*words, "--algorithms", "mopo").err == ""  # of what is not shown nothing is said
    refused = command(*words, "--algorithms", "bc")
    assert refused.code == 2 and "--algorithms bc: no run of it here, but of mopo, sac" in refused.err


def test_pictures_sites_and_exports_take_several_folders(mine, published, tmp_path, command):
    mine.add([[100.0, 2000.0], [200.0, 3000.0]])
    published.add([[100.0, 500.0]], algorithm="sac", identity="b")
    folders = ("--results", mine.root, "--results", published.root)
    for words in (("plot", "curves", "--out", "a.png"), ("report", "--out", "site"), ("export", "--to", "csv", "--out", "csv")):
        done = command(*words[:-1], tmp_path / words[-1], *folders)
        assert done.code == 0, done.err
    runs = (tmp_path / "csv" / "runs.csv").read_text()
    page = (tmp_path / "site" / "index.html").read_text()
    assert "mopo" in runs and "sac" in runs and "SAC" in page and "Run records in mine and published" in page
    both = [mine.root, published.root]
    plot("curves", tmp_path / "b.png", both)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert report(tmp_path / "again", both).exists() and export("csv", tmp_path / "again.csv", both)


def test_what_is_no_folder_is_refused(mine, tmp_path):
    mine.add([1000.0])
    with pytest.raises(UserError, match="no results folder"):
        load([mine.root, tmp_path / "nowhere"])
    with pytest.raises(UserError, match="expected a path"):
        load(3)
    with pytest.raises(UserError, match="at least one"):
        load([])
    for names in (None, 3, [None]):
        with pytest.raises(UserError, match=r"--tasks .* expected names"):
            table("scores", mine.root, tasks=names)


LONG = [[100.0, 2000.0, 50.0]]


def test_until_takes_a_run_as_it_was_then(mine, published):
    mine.add(LONG, steps=3000)
    published.add([[100.0, 2000.0]], steps=2000)
    text = table("scores", mine.root, until=2500)
    rest = published.root.parent / "other"
    assert "Evaluations after step 2,500 are left out." in text
    assert "Steps: 2000." in text
    assert text.replace("- Evaluations after step 2,500 are left out.\n", "") == table("scores", published.root)
    rows = load(mine.root, until=2000)
    assert rows.runs["steps"].tolist() == [2000]
    assert rows.evaluations["return_mean"].tolist() == [100.0, 2000.0]
    assert table("scores", mine.root, until=3000) == table("scores", mine.root)
    export("csv", rest, mine.root, until=1000)
    assert len((rest / "evaluations.csv").read_text().splitlines()) == 2


def test_a_run_that_was_trained_on_stands_beside_itself_at_one_step(mine, published):
    mine.add(LONG, steps=3000)
    published.add([[100.0, 2000.0], [100.0, 3000.0]], steps=2000)
    with pytest.raises(UserError, match=r"take both at one step with --until$"):
        table("scores", [mine.root, published.root])
    both = [mine.root, published.root]
    assert [run.state for run in gathered(both, until=2000).runs] == ["done", "done"]
    assert load(both, until=2000).runs["return"].tolist() == [2000.0, 3000.0]


def test_what_became_of_a_run_later_is_not_told_of_it(mine):
    mine.add(LONG, states=["diverged"], steps=3000)
    assert [run.state for run in gathered(mine.root).runs] == ["diverged"]
    assert [(run.state, run.steps) for run in gathered(mine.root, until=2000).runs] == [("done", 2000)]


@pytest.mark.parametrize("until", [0, -1, 1.5, "soon"])
def test_a_step_that_is_none_is_refused(mine, until):
    mine.add(LONG, steps=3000)
    with pytest.raises(UserError, match=r"^--until="):
        table("scores", mine.root, until=until)


def test_a_step_before_the_first_evaluation_is_refused_of_what_is_chosen(mine):
    mine.add(LONG, steps=3000)
    with pytest.raises(UserError, match=r"^--until 999: hopper-medium/mopo/a/seed-0 has no .*; leave it out with"):
        plot("curves", mine.root.parent / "no.png", mine.root, until=999)
    mine.add([500.0], task="walker2d-medium", steps=500)
    assert load(mine.root, until=1500).runs["steps"].tolist() == [1000, 500]


def test_some_algorithms_of_a_folder_stand_beside_all_of_another(mine, published):
    for records, value in ((mine, 1.0), (published, 2.0)):
        records.add([value])
        records.add([value], algorithm="sac", identity="b")
    mine.add([3.0], algorithm="awac", identity="c")
    with pytest.raises(UserError, match=r"or take some of one with --results FOLDER:ALGORITHM$"):
        gathered([mine.root, published.root])
    for own in ("awac", " awac ,"):
        runs = gathered([f"{mine.root}:{own}", published.root]).runs
        assert [(run.algorithm, run.evaluations[-1]["return_mean"]) for run in runs] == [
            ("awac", 3.0),
            ("mopo", 2.0),
            ("sac", 2.0),
        ]
    assert [run.algorithm for run in gathered([f"{mine.root}:sac,awac"]).runs] == ["awac", "sac"]
    for both in ([mine.root, f"{mine.root}:awac"], [f"{mine.root}:awac", mine.root]):
        assert len(gathered(both).runs) == 3
    assert len(gathered([f"{mine.root}:awac", f"{mine.root}:sac"]).runs) == 2
    with pytest.raises(UserError, match=r"mine:: name algorithms after the colon, or leave it out$"):
        gathered(f"{mine.root}:")
    with pytest.raises(UserError, match=r"there is no results folder C:.nowhere: name"):
        gathered("C:/nowhere")
    with pytest.raises(UserError, match=r"mine: no run of awca in it, but of awac, mopo, sac$"):
        gathered([f"{mine.root}:awca", published.root])
    with pytest.raises(UserError, match=r"there is no results folder .*nowhere:awac: name"):
        gathered(f"{mine.root.parent}/nowhere:awac")


def test_a_folder_with_a_colon_in_its_name_is_that_folder(tmp_path):
    odd = Records(tmp_path / "runs:mopo")
    odd.add([1.0])
    odd.add([1.0], algorithm="sac", identity="b")
    assert len(gathered(odd.root).runs) == 2


def test_a_copy_under_another_seed_is_not_believed(mine):
    """It would count twice, and make the interval too narrow. What went on longer counts, be it the copy."""
    mine.add([[1000.12345, 2000.54321], [1000.5, 2100.71234]])
    mine.add([[1000.12345, 2000.54321]], seeds=[30])
    mine.add([[1000.12345, 2000.54321]], algorithm="sac", identity="b")  # another column is none
    found = gathered(mine.root)
    assert [(run.algorithm, run.seed) for run in found.runs] == [("mopo", 0), ("mopo", 1), ("sac", 0)]
    said = "hopper-medium/mopo/a/seed-30: has the evaluations of seed 0 to the last digit, as a copy has"
    assert found.faults == [said] == gathered(mine.root, brief=True).faults
    assert f"Not believed, and not in the numbers: {said}." in table("scores", mine.root)
    with pytest.warns(match="as a copy has"):
        assert len(load(mine.root).runs) == 3
    changed(mine, "record.json", later, seed=30)
    changed(
        mine,
        "record.json",
        lambda record: record["evaluations"][-1].update(returns=[7.12345678], return_mean=7.12345678),
        seed=30,
    )
    (said,) = gathered(mine.root).faults
    assert said.startswith("hopper-medium/mopo/a/seed-0: has the evaluations of seed 30")


def test_a_copy_of_which_evaluations_were_left_out_is_one(mine):
    """They are held together by their steps, not by their places."""
    mine.add([[1000.12345, 1500.98765, 2000.54321]])
    mine.add([[1000.12345, 1500.98765, 2000.54321]], seeds=[30])
    changed(mine, "record.json", lambda record: record["evaluations"].pop(1), seed=30)
    (said,) = gathered(mine.root).faults
    assert said.startswith("hopper-medium/mopo/a/seed-30: has the evaluations of seed 0")


def in_episodes(*returns):
    """The same returns of an evaluation for each of a run."""

    def change(record):
        for row, change in zip(record["evaluations"], (0, 1), strict=True):
            returned = [each + change for each in returns]
            row.update(returns=returned, return_mean=float(np.mean(returned)))

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(in_episodes(1.0, 2.0, 5.0), id="counts, whose mean has many digits"),
        pytest.param(lambda record: record["evaluations"].pop(0), id="one evaluation"),
        pytest.param(
            lambda record: record["evaluations"][0].update(returns=[2000.54321], return_mean=2000.54321),
            id="a policy that does nothing",
        ),
    ],
)
@pytest.mark.parametrize("brief", [False, True])
def test_equal_returns_may_be_no_copy(mine, change, brief):
    mine.add([[1000.12345, 2000.54321]] * 2)
    for seed in (0, 1):
        changed(mine, "record.json", change, seed=seed)
    found = gathered(mine.root, brief=brief)
    assert len(found.runs) == 2 and not found.faults
