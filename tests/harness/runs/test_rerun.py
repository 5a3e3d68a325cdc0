"""`run --rerun`: what is done is moved away, whole, and done anew."""

import shutil
from pathlib import Path

import filelock
import pytest
from mopo_bench import UserError, run
from mopo_bench.harness.cli import run as command_module
from mopo_bench.harness.runs.aside import FOLDER, found_of, set_aside
from mopo_bench.harness.runs.ledger import load_runs
from mopo_bench.harness.runs.runner import execute


def moved_to(results):
    (folder,) = (results / FOLDER).iterdir()
    return folder


def test_the_named_runs_and_their_fits(arguments, command, evaluations, contents, tmp_path):
    assert command(*arguments("mopo", "mbpo", "sac", results=tmp_path, seeds="2")).code == 0
    before, files = evaluations(tmp_path), contents(tmp_path)
    finished = command(*arguments("mopo", results=tmp_path, seeds="0,"), "--rerun")
    assert finished.code == 0 and "done: 1" in finished.out
    assert "1 run and 1 fit (point-angle/mopo/" in " ".join(finished.out.split())
    aside = moved_to(tmp_path)
    assert evaluations(aside) == {("mopo", 0): before["mopo", 0]}  # a folder of results itself
    assert [path.name for path in aside.glob("stages/dynamics/*/*.pt")] == ["seed-0.pt"]
    after = contents(tmp_path)
    anew = {path for path in files if after[path] != files[path] and path.name in ("record.json", "seed-0.pt")}
    assert {path.name for path in anew} == {"record.json", "seed-0.pt"} and len(anew) == 2
    assert evaluations(tmp_path) == before  # the same numbers, since nothing else was changed
    assert command("table", "scores", "--results", aside).code == 0
    assert {each.state for each in load_runs(tmp_path)} == {"done"} and len(load_runs(tmp_path)) == 6


def test_nothing_to_set_aside(arguments, command, tmp_path):
    finished = command(*arguments("bc", results=tmp_path), "--rerun")
    assert finished.code == 0 and "Set aside" not in finished.out and not (tmp_path / FOLDER).exists()


def test_a_dry_run_moves_nothing(arguments, command, contents, tmp_path):
    assert command(*arguments("bc", results=tmp_path)).code == 0
    before = contents(tmp_path)
    finished = command(*arguments("bc", results=tmp_path), "--rerun", "--dry-run")
    assert "would set aside 1 run" in finished.out and contents(tmp_path) == before


@pytest.mark.parametrize("answer, words, moved", [("n", (), False), ("y", (), True), (None, ("--yes",), True)])
def test_it_is_asked_in_a_terminal(answer, words, moved, arguments, command, monkeypatch, tmp_path):
    assert command(*arguments("bc", results=tmp_path)).code == 0
    monkeypatch.setattr(type(command_module.console), "is_terminal", True)
    asked = []

    def confirm(text, abort):
        asked.append(text)
        if answer == "n":
            raise command_module.typer.Abort

    monkeypatch.setattr(command_module.typer, "confirm", confirm)
    finished = command(*arguments("bc", results=tmp_path), "--rerun", *words)
    assert finished.code == (0 if moved else 130) and (tmp_path / FOLDER).exists() == moved
    assert [text.startswith("Set aside 1 run (point-angle/bc/") for text in asked] == [True] * (answer is not None)


def test_what_is_being_run_is_left(plan, tmp_path):
    here = plan("bc", "mopo", results=tmp_path)
    execute(here, jobs=1)
    (cell,) = [cell for cell in here.cells if cell.algorithm.name == "bc"]
    found = found_of(here)
    with filelock.FileLock(cell.seed_folder(0) / "lock"), pytest.raises(UserError, match="another process"):
        set_aside(here, found)
    assert found_of(here) == found and not (tmp_path / FOLDER).exists()


def test_nobody_begins_what_is_being_moved(plan, monkeypatch, tmp_path):
    """The locks of all are held until all is moved."""
    here = plan("bc", "mopo", results=tmp_path, steps=25)
    execute(here)
    (fit,) = tmp_path.glob("stages/dynamics/*/seed-0.pt")
    shutil.copy(fit, fit.with_name("seed-0.part.pt"))
    found, moves, rename = found_of(here), [], Path.rename
    locks = [filelock.FileLock(path / "lock" if path.is_dir() else fit.with_suffix(".lock")) for path in found]

    def watched(path, place):
        for each, lock in zip(found, locks, strict=True):
            if each.exists():
                with pytest.raises(filelock.Timeout):
                    lock.acquire(timeout=0)
        moves.append(path)
        return rename(path, place)

    monkeypatch.setattr(Path, "rename", watched)
    set_aside(here, found)
    assert moves == found and len(found) == 4


def test_from_python_twice(capsys, tmp_path):
    options = {
        "tasks": "point-angle",
        "algorithms": "bc",
        "seeds": 1,
        "steps": 10,
        "episodes": 2,
        "jobs": 1,
        "results": tmp_path,
    }
    for _ in range(3):
        (done,) = run(**options, settings={"hidden": (8,)}, rerun=True)
        assert done.state == "done"
    assert len(list((tmp_path / FOLDER).iterdir())) == 2 and "Set aside in" in capsys.readouterr().err
