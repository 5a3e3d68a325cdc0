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
    assert found.folder == f"{mine.root} and {published.root}"
    rows = load([mine.root, published.root]).runs
    assert rows[rows.algorithm == "mopo"]["return"].tolist() == [2000.0, 3000.0, 1000.0]
    shown = json.loads(table("scores", [mine.root, str(published.root)], "json"))
    assert np.mean([row["return"] for row in shown if row["algorithm"] == "mopo"]) == 2000.0


def test_a_run_that_two_folders_hold_counts_once(mine, published):
    for each in (mine, published):
        each.add([[100.0, 2000.0], [100.0, 3000.0]])
    assert table("scores", [mine.root, published.root, mine.root]) == table("scores", mine.root)


@pytest.mark.parametrize("other", [{"returns": [[100.0, 2500.0]]}, {"returns": [[100.0, 2000.0]], "steps": 2_000_000}])
def test_a_run_of_two_folders_that_differs_is_refused(mine, published, other):
    mine.add([[100.0, 2000.0]])
    published.add(**other)
    with pytest.raises(UserError, match=r"hopper-medium/mopo/a/seed-0 is in .*mine .* and in .*published .*leave one out"):
        table("scores", [mine.root, published.root])


def test_what_is_not_believed_is_said_with_its_folder(mine, published, tmp_path):
    mine.add([1000.0, 2000.0])
    published.add([500.0], algorithm="sac", identity="b")
    (published.root / "hopper-medium/sac/b/seed-0/record.json").write_text("{")
    (note,) = [line for line in table("scores", [mine.root, published.root]).splitlines() if "Not believed" in line]
    assert "/published: hopper-medium/sac/b/seed-0: record.json cannot be read" in note
    with pytest.warns(UserWarning, match=r"published.* not believed, and left out: .*hopper-medium/sac/b/seed-0"):
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
    assert "mopo" in runs and "sac" in runs and "SAC" in (tmp_path / "site" / "index.html").read_text()
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
