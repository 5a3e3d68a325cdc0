"""Files of a results folder changed at random: every command that reads them says what is wrong, and changes no number."""

import contextlib
import json
import os
import shutil
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mopo_bench.algorithms.learning.held import fingerprint
from mopo_bench.harness.runs.checkpoints import fit_damage, load_fit
from mopo_bench.harness.runs.ledger import load_runs
from mopo_bench.harness.runs.reading import archive_damage
from mopo_bench.harness.runs.runner import execute

EXAMPLES = int(os.environ.get("MOPO_BENCH_EXAMPLES", "500"))  # of the slow test
FILES = ("record.json", "cell.json", "plan.json", "checkpoint.pt", "baseline.csv", "evaluations.csv")
JUNK = (None, True, -1, 0, 10**30, 1e308, "", "x", "\x1b[31m[/b]", [], {}, [[]], {"a": 1})
TINY = {"batch_size": 8, "hidden": "8,8"}
GRID = ("--tasks", "point-angle", "--algorithms", "sac", "--seeds", 2, "--steps", 4, "--evaluate-every", 2, "--episodes", 1)
SET = [word for key, value in TINY.items() for word in ("--set", f"all.{key}={value}")]


@pytest.fixture(scope="module")
def whole(plan, command, tmp_path_factory):
    """A folder with a name that rich would take for markup: two seeds of SAC, done, a baseline, and what each seed is worth."""
    folder = tmp_path_factory.mktemp("whole") / "res[" / "b]"
    chosen = {f"all.{key}": value for key, value in TINY.items()}
    execute(plan("sac", results=folder, seeds=(0, 1), settings=chosen, steps=4, evaluate_every=2, episodes=1))
    words = ("--results", folder, "--baseline", folder / "baseline.csv", "--update", "--reason", "a", "--fewest", 1)
    made = command("check", *words)
    assert made.code == 0, made.err
    played = {seed: json.loads(evaluate(command, folder, seed).out)["returns"] for seed in (0, 1)}
    return folder, played


def evaluate(command, folder, seed):
    words = ("point-angle", "--algorithm", "sac", "--seed", seed, "--results", folder, "--episodes", 1, "--json")
    return command("evaluate", *words)


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


def check(data, whole, command, tmp_path):
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
        made = command(*words)
        assert made.code in (0, 1, 2, 3) and "Traceback" not in made.err, (words, made)
        said = [line for line in made.err.splitlines() if not line.startswith("not believed: ")]
        assert len(said) == (made.code == 2), (words, made)
    if path.name in ("checkpoint.pt", "cell.json", "record.json"):
        made = evaluate(command, here, 0)
        assert made.code in (0, 2) and "Traceback" not in made.err
        if made.code == 0:
            assert json.loads(made.out)["returns"] == played[0]


@pytest.fixture(scope="module")
def fit(plan, tmp_path_factory):
    """The file of a fit."""
    results = tmp_path_factory.mktemp("fit")
    execute(plan("mopo", results=results, settings={"all.dynamics.hidden": "4,4,4"}, steps=2, evaluate_every=2, episodes=1))
    return next(results.glob("stages/dynamics/*/seed-0.pt"))


def check_fit(data, fit, tmp_path):
    """One that is believed is as it was fitted."""
    path = tmp_path.joinpath(*fit.parts[-3:])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(mutated(fit.read_bytes(), data.draw))
    assert isinstance(archive_damage(path), str | None)
    if fit_damage(path) is None:
        assert fingerprint(load_fit(path)) == fingerprint(load_fit(fit))


SLOW_EXAMPLES = dict(deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)


@settings(max_examples=50, **SLOW_EXAMPLES)
@given(st.data())
def test_no_traceback_and_no_changed_number(whole, command, tmp_path, data):
    check(data, whole, command, tmp_path)


@settings(max_examples=100, **SLOW_EXAMPLES)
@given(st.data())
def test_no_changed_fit(fit, tmp_path, data):
    check_fit(data, fit, tmp_path)


@pytest.mark.slow
@settings(max_examples=EXAMPLES, **SLOW_EXAMPLES)
@given(st.data())
def test_no_traceback_and_no_changed_number_in_many(whole, command, tmp_path, data):
    check(data, whole, command, tmp_path)
    counted.append("files of runs")


@pytest.mark.slow
@settings(max_examples=EXAMPLES, **SLOW_EXAMPLES)
@given(st.data())
def test_no_changed_fit_in_many(fit, tmp_path, data):
    check_fit(data, fit, tmp_path)
    counted.append("fits")


counted = []


@pytest.fixture(scope="module", autouse=True)
def count():
    yield
    print(f"\nchanged: {dict(Counter(counted))}")
