"""The registered tasks agree with D4RL's table of files, with Gymnasium's environments and with the paper."""

import csv
import json
import pickle
import subprocess
import sys
from dataclasses import replace
from importlib import resources

import gymnasium
import mopo_bench.results
import numpy as np
import pytest
import torch
from mopo_bench.common.errors import UserError
from mopo_bench.harness.report.paper import tasks_of
from mopo_bench.tasks import terminations as rules
from mopo_bench.tasks.environments import quiet_model_loading
from mopo_bench.tasks.registry import all_tasks, get_task, register_task

DOMAINS, QUALITIES = ("halfcheetah", "hopper", "walker2d"), ("random", "medium", "mixed", "medium-expert")
TABLE_1 = [f"{domain}-{quality}" for quality in QUALITIES for domain in DOMAINS]
TABLE_2 = ["halfcheetah-jump", "ant-angle"]
CATALOGUE = [name for name, task in all_tasks().items() if task.origin == "mopo_bench"]


def paper_table(name):
    text = (resources.files(mopo_bench.results) / "paper" / f"{name}.csv").read_text()
    return list(csv.DictReader(text.splitlines()))


def test_the_papers_tasks_are_registered():
    for table, names in (("table1", TABLE_1), ("table2", TABLE_2)):
        assert {row["task"] for row in paper_table(table)} == set(names)
        assert [name for name in all_tasks() if name in names] == list(tasks_of(table)) == names
    assert {"point-angle", "point-edge"} <= set(CATALOGUE)


def test_tasks_are_known_without_heavy_imports():
    """A listing, a status or a table asks for the tasks, and should not wait for torch or a simulator."""
    program = (
        "import json, sys; from mopo_bench.tasks.registry import all_tasks; all_tasks(); print(json.dumps(list(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    imported = set(json.loads(printed))
    assert "mopo_bench.tasks.catalog" in imported
    assert not imported & {"torch", "gymnasium", "mujoco", "h5py", "pandas", "scipy", "requests"}


@pytest.mark.parametrize(
    "domain, references",
    [("halfcheetah", (-280.178953, 12135.0)), ("hopper", (-20.272305, 3234.3)), ("walker2d", (1.629008, 4592.3))],
)
def test_reference_returns(domain, references):
    for quality in QUALITIES:
        task = get_task(f"{domain}-{quality}")
        assert task.references == references
        assert task.references.score(references[0]) == 0 and task.references.score(references[1]) == 100
        assert task.references.score_std(references[1] - references[0]) == pytest.approx(100)


def test_scores_are_those_the_paper_prints():
    """Raw returns of D4RL's paper, and what MOPO's Table 1 makes of them."""
    for row in paper_table("table1_baseline_returns"):
        score = get_task(row["task"]).references.score(float(row["raw_return"]))
        assert score == pytest.approx(float(row["normalized"]), abs=0.11), row


def test_no_references_no_score():
    for name in (*TABLE_2, "point-angle", "point-edge"):
        assert get_task(name).references is None


# v0 calls a replay buffer "mixed" (v2: "medium_replay"), and walker2d's is "walker_mixed"
V0_STEMS = {"walker2d-mixed": "walker_mixed"}


@pytest.mark.parametrize("name", TABLE_1)
def test_files(name):
    table = {(row["version"], row["file"]): row for row in paper_table("d4rl_files")}
    v0, v2 = get_task(name).recipe.files
    stem = name.replace("-", "_")
    assert (v0.version, v0.name) == ("v0", f"{V0_STEMS.get(name, stem)}.hdf5")
    assert (v2.version, v2.name) == ("v2", f"{stem.replace('mixed', 'medium_replay')}-v2.hdf5")
    for file, folder in ((v0, "gym_mujoco"), (v2, "gym_mujoco_v2")):
        row = table[file.version, file.name]
        assert (file.bytes, file.sha256) == (int(row["bytes"]), row["sha256"]) and len(file.sha256) == 64
        assert file.url == f"http://rail.eecs.berkeley.edu/datasets/offline_rl/{folder}/{file.name}"


def test_every_file_belongs_to_one_task():
    names = [file.name for task in all_tasks().values() for file in task.recipe.files]
    assert len(set(names)) == len(names) == len(paper_table("d4rl_files")) == 24


@pytest.mark.parametrize("name", CATALOGUE)
def test_environment(name):
    task = get_task(name)
    with quiet_model_loading():
        environment = gymnasium.make(task.environment, **task.parameters)
    assert environment.observation_space.shape == (task.problem.observation_size,)
    assert environment.action_space.shape == (task.problem.action_size,)
    assert set(environment.action_space.low.tolist()) == {task.problem.action_box.low}
    assert set(environment.action_space.high.tolist()) == {task.problem.action_box.high}
    assert environment.spec.max_episode_steps == task.problem.max_episode_steps
    assert environment.reset(seed=0)[0].shape == (task.problem.observation_size,)


@pytest.mark.parametrize(
    "names, rule",
    [
        ([f"halfcheetah-{quality}" for quality in QUALITIES] + ["halfcheetah-jump"], rules.never),
        ([f"hopper-{quality}" for quality in QUALITIES], rules.hopper),
        ([f"walker2d-{quality}" for quality in QUALITIES], rules.walker2d),
        (["point-angle", "point-edge"], rules.point_angle),
    ],
)
def test_terminations(names, rule):
    assert all(get_task(name).problem.termination is rule for name in names)


def test_parameters_of_table_2():
    assert get_task("halfcheetah-jump").parameters == {"height_weight": 15.0, "observation": "torso", "z_reference": "nominal"}
    assert get_task("ant-angle").parameters == {"angle": 30.0, "survive_bonus": 1.0, "healthy_z_range": (0.2, 1.0)}
    assert all(get_task(name).evaluation.episodes == 100 and get_task(name).evaluation.steps == 3_000_000 for name in TABLE_2)


def test_what_is_logged_allows_both_references_and_older_collections_resume():
    jump = get_task("halfcheetah-jump")
    assert {"z", "z_init"} <= set(jump.recipe.recorded)
    for task in (jump, jump.with_parameters(z_reference="reset")):
        collected = {"height_weight": 15.0, "observation": "torso", "z_reference": "reset", "reward": "behaviour"}
        assert task.as_collected().parameters == collected


def test_what_follows_from_parameters():
    """A variant's rules are those of its environment."""
    state = torch.zeros(27)
    state[0] = 5.0
    ant = get_task("ant-angle")
    assert ant.problem.termination(state, state, state) and not ant.with_parameters(healthy_z_range=None).problem.termination(
        state, state, state
    )
    assert get_task("halfcheetah-jump").with_parameters(observation="plain").problem.observation_size == 17
    with pytest.raises(UserError, match="'angle'"):
        ant.with_parameters(angel=45.0)


def test_a_termination_without_a_name_is_refused():
    """Two lambdas would be one to a run's identity."""
    with pytest.raises(UserError, match="partial"):
        problem = replace(get_task("point-angle").problem, termination=lambda *states: None)
        register_task(replace(get_task("point-angle"), name="nameless", problem=problem))
    assert "nameless" not in all_tasks()


def test_budget_of_table_1():
    for name in TABLE_1:
        task = get_task(name)
        assert (task.problem.discount, task.problem.max_episode_steps) == (0.99, 1000)
        assert (task.evaluation.steps, task.evaluation.episodes) == (1_000_000, 10)


def test_identities_are_the_same_in_another_process():
    """Else nothing would be found again: a function's address, say, must not be in them."""
    program = (
        "import json; from mopo_bench.tasks.registry import all_tasks; "
        "print(json.dumps({name: task.identity() for name, task in all_tasks().items() if task.origin == 'mopo_bench'}))"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    here = {name: get_task(name).identity() for name in CATALOGUE}
    assert json.loads(printed) == json.loads(json.dumps(here))
    assert " at 0x" not in printed
    assert len({json.dumps(identity) for identity in here.values()}) == len(here)


def test_termination_is_part_of_the_identity():
    ant = get_task("ant-angle")
    other = replace(ant, problem=replace(ant.problem, termination=rules.ant(None)))
    assert other.identity() != ant.identity()


@pytest.mark.parametrize("name", [name for name in CATALOGUE if all_tasks()[name].recipe.regenerate is None])
def test_tasks_travel_to_workers(name):
    assert pickle.loads(pickle.dumps(get_task(name))).identity() == get_task(name).identity()


@pytest.mark.parametrize(
    "name, nearest",
    [("hoper-medium", "hopper-medium"), ("walker-mixed", "walker2d-mixed"), ("halfcheetah_jump", "halfcheetah-jump")],
)
def test_unknown_task_names_the_nearest(name, nearest):
    with pytest.raises(UserError, match=f"'{nearest}'"):
        get_task(name)


def test_task_can_be_added(monkeypatch):
    monkeypatch.setattr("mopo_bench.tasks.registry._TASKS", dict(all_tasks()))
    variant = get_task("ant-angle").with_parameters(angle=60.0)
    register_task(type(variant)(**{**vars(variant), "name": "ant-angle-60", "origin": "a test"}))
    assert get_task("ant-angle-60").parameters["angle"] == 60.0
    assert get_task("ant-angle").parameters["angle"] == 30.0


def test_action_box():
    box = type(get_task("hopper-medium").problem.action_box)((-2.0, 0.0), (2.0, 1.0))
    actions = np.array([[-2.0, 0.0], [2.0, 1.0], [0.0, 0.5], [1.0, 0.25]], np.float32)
    unit = np.array([[-1, -1], [1, 1], [0, 0], [0.5, -0.5]], np.float32)
    assert box.to_unit(actions).tolist() == unit.tolist()
    assert box.from_unit(unit).tolist() == actions.tolist()
    assert not box.is_unit and get_task("hopper-medium").problem.action_box.is_unit
