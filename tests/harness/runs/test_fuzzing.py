"""Files of a results folder changed at random: every command that reads them says what is wrong, and changes no number."""

import contextlib
import io
import json
import os
import shutil
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mopo_bench.harness.cli.main import main
from mopo_bench.harness.runs.ledger import load_runs
from mopo_bench.harness.runs.runner import execute

EXAMPLES = int(os.environ.get("MOPO_BENCH_EXAMPLES", "500"))  # of the slow test
FILES = ("record.json", "cell.json", "plan.json", "checkpoint.pt", "baseline.csv", "evaluations.csv")
JUNK = (None, True, -1, 0, 10**30, 1e308, "", "x", "\x1b[31m[/b]", [], {}, [[]], {"a": 1})
TINY = {"batch_size": 8, "hidden": "8,8"}
GRID = ("--tasks", "point-angle", "--algorithms", "sac", "--seeds", 2, "--steps", 4, "--evaluate-every", 2, "--episodes", 1)
SET = [word for key, value in TINY.items() for word in ("--set", f"all.{key}={value}")]


def call(*words):
    """Exit status and output of a command in this process; any other exception than its exit is a failure of the test."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["mopo-bench", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stopped:
        return stopped.code, out.getvalue(), err.getvalue()
    finally:
        sys.argv = before


@pytest.fixture(scope="module")
def whole(plan, tmp_path_factory):
    """A folder with a name that rich would take for markup: two seeds of SAC, done, a baseline, and what each seed is worth."""
    folder = tmp_path_factory.mktemp("whole") / "res[" / "b]"
    chosen = {f"all.{key}": value for key, value in TINY.items()}
    execute(plan("sac", results=folder, seeds=(0, 1), settings=chosen, steps=4, evaluate_every=2, episodes=1))
    code, _, err = call(
        "check", "--results", folder, "--baseline", folder / "baseline.csv", "--update", "--reason", "a", "--fewest", 1
    )
    assert code == 0, err
    played = {seed: json.loads(evaluate(folder, seed)[1])["returns"] for seed in (0, 1)}
    return folder, played


def evaluate(folder, seed):
    words = ("point-angle", "--algorithm", "sac", "--seed", seed, "--results", folder, "--episodes", 1, "--json")
    return call("evaluate", *words)


def leaves(value, path=()):
    yield path
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from leaves(each, (*path, key))


def mutated(content, draw):
    """The bytes of a file with something about them changed."""
    kind = draw(st.sampled_from(["cut", "bytes", "doubled", "leaf", "leaf"]))
    if kind == "leaf":
        with contextlib.suppress(ValueError):
            value = json.loads(content)
            path, junk = draw(st.sampled_from(list(leaves(value)))), draw(st.sampled_from(JUNK))
            if not path:
                return json.dumps(junk).encode()
            holder = value
            for key in path[:-1]:
                holder = holder[key]
            if draw(st.booleans()):
                holder[path[-1]] = junk
            else:
                del holder[path[-1]]
            return json.dumps(value).encode()
    if kind == "cut":
        return content[: draw(st.integers(0, len(content) - 1))]
    if kind == "doubled":
        return content + content[draw(st.integers(0, len(content) - 1)) :]
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        changed[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(changed)


def check(data, whole, tmp_path):
    folder, played = whole
    here = tmp_path / "res[" / "b]"
    shutil.rmtree(here, ignore_errors=True)
    shutil.copytree(folder, here)
    path = sorted(here.rglob(data.draw(st.sampled_from(FILES))))[0]
    path.write_bytes(mutated(path.read_bytes(), data.draw))

    kept = {run.seed: run.evaluations[-1] for run in load_runs(folder)}
    for run in load_runs(here):
        if run.state == "done" and run.steps == 4:
            assert run.evaluations[-1]["returns"] == pytest.approx(kept[run.seed]["returns"], rel=1e-5)
            assert run.evaluations[-1]["return_mean"] == pytest.approx(kept[run.seed]["return_mean"], rel=1e-5)
    commands = [
        ("status", "--results", here),
        ("table", "scores", "--results", here),
        ("table", "scores", "--results", here, "--format", "json"),
        ("check", "--results", here, "--baseline", here / "baseline.csv", "--seeds", 1),
    ]
    if path.name not in ("baseline.csv", "evaluations.csv", "checkpoint.pt"):
        commands.append(("run", *GRID, *SET, "--results", here, "--jobs", 1, "--dry-run"))
    for words in commands:
        code, _, err = call(*words)
        assert code in (0, 1, 2, 3) and "Traceback" not in err, (words, code, err)
        said = [line for line in err.splitlines() if not line.startswith("not believed: ")]
        assert len(said) == (code == 2), (words, err)
    if path.name in ("checkpoint.pt", "cell.json", "record.json"):
        code, out, err = evaluate(here, 0)
        assert code in (0, 2) and "Traceback" not in err
        if code == 0:
            assert json.loads(out)["returns"] == played[0]


SLOW_EXAMPLES = dict(deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)


@settings(max_examples=50, **SLOW_EXAMPLES)
@given(st.data())
def test_no_traceback_and_no_changed_number(whole, tmp_path, data):
    check(data, whole, tmp_path)


@pytest.mark.slow
@settings(max_examples=EXAMPLES, **SLOW_EXAMPLES)
@given(st.data())
def test_no_traceback_and_no_changed_number_in_many(whole, tmp_path, data):
    check(data, whole, tmp_path)
    counted.append(None)


counted = []


@pytest.fixture(scope="module", autouse=True)
def count():
    yield
    print(f"\n{len(counted)} changed files")
