"""`hyperparameters.toml` against the paper's table, and settings that do not fit."""

import pytest
from mopo_bench.algorithms.learning.registry import all_algorithms, flattened, get_algorithm, hyperparameters, task_settings
from mopo_bench.common.errors import UserError
from mopo_bench.common.settings import converted
from mopo_bench.tasks.registry import all_tasks

# the paper's table of hyperparameters: (rollout length, penalty coefficient)
PAPER = {
    "halfcheetah": {"random": (5, 0.5), "medium": (1, 1), "mixed": (5, 1), "medium-expert": (5, 1)},
    "hopper": {"random": (5, 1), "medium": (5, 5), "mixed": (5, 1), "medium-expert": (5, 1)},
    "walker2d": {"random": (1, 1), "medium": (5, 5), "mixed": (1, 1), "medium-expert": (1, 2)},
}
TABLE = {f"{domain}-{quality}": row for domain, rows in PAPER.items() for quality, row in rows.items()}
GUESSED = {"halfcheetah-jump": (5, 1), "ant-angle": (5, 1)}


@pytest.mark.parametrize("task, expected", [*TABLE.items(), *GUESSED.items()])
def test_rollout_lengths_and_coefficients(task, expected):
    length, coefficient = expected
    assert task_settings(get_algorithm("mopo"), task) == {"rollout_length": length, "penalty_coefficient": coefficient}
    assert task_settings(get_algorithm("mbpo"), task) == {"rollout_length": length}
    assert task_settings(get_algorithm("sac"), task) == task_settings(get_algorithm("bc"), task) == {}
    assert ("a guess" in hyperparameters()[task]["source"]) == (task in GUESSED)


def test_every_task_of_the_table_is_registered():
    assert set(TABLE) | set(GUESSED) <= set(all_tasks()) & set(hyperparameters())


@pytest.mark.parametrize("task", sorted(hyperparameters()))
def test_every_key_belongs_to_an_algorithm(task):
    """A key under "*" that nobody has would be dropped without a word."""
    known = {name: set(algorithm.defaults()) for name, algorithm in all_algorithms().items()}
    for name, table in hyperparameters()[task].items():
        if name == "source":
            assert table.strip()
            continue
        owned = set().union(*known.values()) if name == "*" else known[name]
        assert set(flattened(table)) <= owned, f"{task}: {set(flattened(table)) - owned}"
    for algorithm in all_algorithms().values():
        values = algorithm.configure(task_settings(algorithm, task))
        assert {key: values[key] for key in task_settings(algorithm, task)} == {
            key: tuple(value) if isinstance(value, list) else value for key, value in task_settings(algorithm, task).items()
        }


def test_an_algorithm_s_own_settings_win_over_shared_ones(monkeypatch):
    table = {"*": {"rollout_length": 2, "tau": 0.5, "learning_rate": 0.1}, "mopo": {"rollout_length": 3}}
    monkeypatch.setattr("mopo_bench.algorithms.learning.registry.hyperparameters", lambda: {"here": table})
    assert task_settings(get_algorithm("mopo"), "here") == {"rollout_length": 3, "tau": 0.5}
    assert task_settings(get_algorithm("mbpo"), "here") == {"rollout_length": 2, "tau": 0.5}
    assert task_settings(get_algorithm("bc"), "here") == {"learning_rate": 0.1}
    assert task_settings(get_algorithm("bc"), "elsewhere") == {}


@pytest.mark.parametrize(
    "key, nearest",
    [
        ("rolout_length", "rollout_length"),
        ("dynamics.elite", "dynamics.elites"),
        ("coefficient", "penalty_coefficient"),
    ],
)
def test_an_unknown_key_names_the_nearest(key, nearest):
    with pytest.raises(UserError, match=f"unknown setting of mopo '{key}': did you mean '{nearest}'"):
        get_algorithm("mopo").configure({key: 1})


@pytest.mark.parametrize("name", ["mopoo", "MOPO"])
def test_an_unknown_algorithm_names_the_nearest(name):
    with pytest.raises(UserError, match="did you mean 'mopo'"):
        get_algorithm(name)


@pytest.mark.parametrize(
    "key, value",
    [
        ("rollout_length", 0),
        ("rollout_length", 2.5),
        ("rollout_length", "five"),
        ("rollout_length", True),
        ("rollout_length", None),
        ("rollout_states", -1),
        ("real_fraction", 1.5),
        ("real_fraction", -0.1),
        ("tau", "nan"),
        ("tau", 2),
        ("actor_learning_rate", 0),
        ("penalty_coefficient", -1),
        ("penalty_coefficient", "inf"),
        ("penalty", "least_std"),
        ("penalised_reward", "median"),
        ("hidden", 64),
        ("hidden", "64,x"),
        ("hidden", ()),
        ("log_std_range", (1, 2, 3)),
        ("dynamics.elites", 8),
        ("dynamics.max_epochs", 0),
        ("dynamics.weight_decays", (0, 0, 0, 0, -1e-5)),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(key, value):
    with pytest.raises(UserError, match=key.rpartition(".")[2]):
        get_algorithm("mopo").configure({key: value})


@pytest.mark.parametrize(
    "key, value",
    [
        ("rollout_length", float("inf")),
        ("log_std_range", (2, -20)),
        ("dynamics.holdout_fraction", 0),
        ("dynamics.holdout_fraction", 1),
    ],
)
def test_a_value_that_should_not_fit_either(key, value):
    with pytest.raises(UserError):
        get_algorithm("mopo").configure({key: value})


@pytest.mark.parametrize(
    "key, written, value",
    [
        ("rollout_length", "3", 3),
        ("rollout_length", 3.0, 3),
        ("real_fraction", "0.5", 0.5),
        ("hidden", "(64, 32)", (64, 32)),
        ("hidden", [64], (64,)),
        ("target_entropy", "none", None),
        ("target_entropy", "-2", -2.0),
        ("log_std_range", "-5,1", (-5.0, 1.0)),
        ("penalty", "ensemble", "ensemble"),
        ("dynamics.max_epochs", "7", 7),
    ],
)
def test_values_as_they_are_written(key, written, value):
    configured = get_algorithm("mopo").configure({key: written})[key]
    assert configured == value and type(configured) is type(value)


def test_identity_holds_what_differs_from_the_defaults():
    """A field added later at its default stays out."""
    mopo = get_algorithm("mopo")
    assert mopo.changed(mopo.configure()) == {"target_entropy": -3.0}
    assert mopo.changed(mopo.configure({"tau": 0.005, "rollout_length": 1})) == {
        "target_entropy": -3.0,
        "rollout_length": 1,
    }


@pytest.mark.parametrize("text, number", [("1e6", 1_000_000), ("2.5E5", 250_000), ("100_000", 100_000), ("7", 7)])
def test_whole_numbers_may_be_written_as_powers(text, number):
    assert converted(text, int, "--steps") == number


@pytest.mark.parametrize("text", ["1e-3", "2.55e1", "1e400", "-e", "1.5", "e5", "nan", "0x1e"])
def test_other_numbers_are_not_whole(text):
    with pytest.raises(UserError, match="whole number"):
        converted(text, int, "--steps")
