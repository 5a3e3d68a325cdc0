"""The page of what the paper, the authors' code and this benchmark do names defaults, options and tests that are real ones."""

import ast
import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest
from mopo_bench.algorithms.learning.registry import all_algorithms, get_algorithm, task_settings
from mopo_bench.harness.api import table
from mopo_bench.harness.report.choices import METRICS
from mopo_bench.harness.runs.request import RunRequest, suites
from mopo_bench.tasks.data.request import WINDOWS
from mopo_bench.tasks.registry import all_tasks, get_task
from mopo_bench.tasks.task import name_of

ROOT = Path(__file__).resolve().parents[1]
HEADINGS = ["item", "paper", "authors' code", "ours", "changed by", "test"]
PAGE = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")


def rows():
    """Of the tables with those headings: cells by heading."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]
    whole = [row for row in cells if len(row) == len(HEADINGS) and row != HEADINGS and set(row) != {"---"}]
    return [dict(zip(HEADINGS, row, strict=True)) for row in whole]


ROWS = rows()


def in_backticks(heading):
    """What stands between backticks in a column, each once."""
    return sorted({text for row in ROWS for text in re.findall(r"`([^`]+)`", row[heading])})


DEFAULTS = [text for text in in_backticks("ours") if "=" in text or text.startswith("--")]
OPTIONS = in_backticks("changed by")


def test_every_row_is_whole():
    assert len({row["item"] for row in ROWS}) == len(ROWS) > 40, "an item stands there twice"
    for row in ROWS:
        assert row["ours"] and re.search(r"`test_\w+::test_\w+`", row["test"]), row["item"]
        assert ("`--" in row["changed by"]) != row["changed by"].startswith("no option"), row["item"]


@pytest.mark.parametrize("text", DEFAULTS)
def test_default(text):
    """As the code has it, whatever a task's settings are."""
    if text.startswith("--"):
        option, value = text.removeprefix("--").split(" ")
        asked = {field.name: field.default for field in fields(RunRequest)}
        asked["metric"] = inspect.signature(table).parameters["metric"].default
        assert asked[option] == value
        return
    name, value = text.split("=")
    owner, key = name.split(".", 1)
    if owner in all_tasks():
        assert str(facts(get_task(owner))[key]) == value
        return
    algorithm = get_algorithm(owner)
    assert algorithm.configure()[key] == algorithm.configure({key: value})[key]


def facts(task):
    """What the page may say of a task."""
    problem, evaluation = task.problem, task.evaluation
    return {
        **task.parameters,
        **vars(evaluation),
        "discount": problem.discount,
        "termination": name_of(problem.termination),
    }


@pytest.mark.parametrize("text", OPTIONS)
def test_option(text):
    """It is one, and it changes something."""
    option, value = text.split(" ")
    if option == "--set":
        name, value = value.split("=")
        task, _, name = name.rpartition(":")
        owner, key = name.split(".", 1)
        algorithm = get_algorithm(owner)
        usual = algorithm.configure(task_settings(algorithm, task) if task else {})
        assert task in all_tasks() or not task
        assert algorithm.configure({key: value})[key] != usual[key]
    elif option == "--task-set":
        name, value = value.split("=")
        task = get_task(name.split(".")[0])
        assert task.variant(name.split(".")[1], value).identity() != task.identity()
    elif option == "--metric":
        assert value in METRICS
    elif option == "--window":
        assert value in WINDOWS
    else:
        name = option.removeprefix("--").replace("-", "_")
        assert name in {field.name for field in fields(RunRequest)} and int(value) > 0


@pytest.mark.parametrize("text", in_backticks("test"))
def test_named_test(text):
    module, name = text.split("::")
    (file,) = (ROOT / "tests").rglob(f"{module}.py")
    functions = [node.name for node in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)]
    assert name in functions


def test_settings_that_say_whose_code_they_follow_are_on_the_page():
    """Of every algorithm: how its networks begin and whose Adam trains them."""
    for name, algorithm in all_algorithms().items():
        if algorithm.origin.startswith("mopo_bench") and not algorithm.variant_of:
            values = algorithm.configure()
            for key in (key for key in values if key.rpartition(".")[2] in ("initialisation", "adam")):
                shown = [f"{name}.{key}", f"mopo.{key}"] if key.startswith("dynamics") else [f"{name}.{key}"]
                shown += [f"brac-v.{key}"] if key.startswith("behaviour") else []
                assert any(f"{each}={values[key]}" in DEFAULTS for each in shown), f"{name}.{key}"


def test_budget_of_table_2_and_the_penalties_of_brac():
    """The authors' 3000 epochs; D4RL's alpha of 1 on every task."""
    assert {get_task(name).evaluation.steps for name in ("halfcheetah-jump", "ant-angle")} == {3_000_000}
    for name in ("brac-p", "brac-v"):
        algorithm = get_algorithm(name)
        for task in all_tasks():
            assert algorithm.configure(task_settings(algorithm, task))["divergence_coefficient"] == 1


def test_suites_have_six_seeds():
    assert {name: suites()[name]["seeds"] for name in ("table1", "table2")} == {"table1": 6, "table2": 6}
