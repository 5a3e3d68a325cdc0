import gymnasium
import numpy as np
import pytest
import torch
from mopo_bench.tasks.terminations import TERMINATIONS, ant

INFINITY, NAN = float("inf"), float("nan")
SIZES = {"never": 5, "hopper": 11, "hopper-released": 11, "walker2d": 17, "ant": 27, "point-angle": 2}


def terminates(name, states):
    """The registered rule on next states; what comes before them is NaN, so that looking at it would show."""
    states = torch.as_tensor(np.asarray(states, np.float32))
    return TERMINATIONS[name](torch.full_like(states, NAN), torch.full_like(states, NAN), states).numpy()


def reference(name, state):
    """One state at a time, in plain Python, as healthy intervals."""
    finite = all(np.isfinite(x) for x in state)
    if name == "never":
        return False
    if name == "hopper":
        return not (finite and all(-100 < x < 100 for x in state[1:]) and state[0] > 0.7 and -0.2 < state[1] < 0.2)
    if name == "hopper-released":
        return not (finite and all(x < 100 for x in state[1:]) and state[0] > 0.7 and -0.2 < state[1] < 0.2)
    if name == "walker2d":
        return not (0.8 < state[0] < 2.0 and -1.0 < state[1] < 1.0)
    if name == "ant":
        return not (finite and 0.2 <= state[0] <= 1.0)
    return not -1.4 <= state[1] <= 1.4


def test_every_rule_is_known():
    assert set(TERMINATIONS) == set(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_random_states_agree_with_a_plain_implementation(name):
    generator = np.random.default_rng(0)
    states = generator.normal(0.0, 0.05, (4000, SIZES[name])).astype(np.float32)
    states[:, 0] = generator.uniform(0.0, 2.5, 4000)
    states[:, 1] = generator.uniform(-0.3, 0.3, 4000) * generator.choice([1.0, 6.0], 4000)
    wild = generator.random(states.shape) < 0.02
    states[wild] = generator.choice([NAN, INFINITY, -INFINITY, 150.0, -150.0, 99.0, -99.0], wild.sum())
    expected = np.array([reference(name, state) for state in states.tolist()])
    assert name == "never" or 0.05 < expected.mean() < 0.99  # both answers occur
    np.testing.assert_array_equal(terminates(name, states), expected)


@pytest.mark.parametrize(
    "name, index, value, expected",
    [
        ("hopper", 0, 0.7, True),
        ("hopper", 0, 0.701, False),
        ("hopper", 0, 150.0, False),  # the height itself is not bounded from above
        ("hopper", 1, 0.2, True),
        ("hopper", 1, -0.2, True),
        ("hopper", 1, -0.199, False),
        ("hopper", 5, 100.0, True),
        ("hopper", 5, -100.0, True),
        ("hopper", 5, -99.9, False),
        ("hopper", 10, NAN, True),
        ("hopper", 0, INFINITY, True),
        ("hopper-released", 5, -100.0, False),
        ("hopper-released", 5, 100.0, True),
        ("hopper-released", 5, -INFINITY, True),
        ("walker2d", 0, 0.8, True),
        ("walker2d", 0, 0.801, False),
        ("walker2d", 0, 2.0, True),
        ("walker2d", 1, 1.0, True),
        ("walker2d", 1, -1.0, True),
        ("walker2d", 1, NAN, True),
        ("walker2d", 9, NAN, False),
        ("ant", 0, 0.2, False),
        ("ant", 0, 0.199, True),
        ("ant", 0, 1.0, False),
        ("ant", 0, 1.001, True),
        ("ant", 26, NAN, True),
        ("ant", 26, -INFINITY, True),
        ("point-angle", 1, 1.4, False),
        ("point-angle", 1, -1.401, True),
        ("point-angle", 0, 5.0, False),
        ("point-angle", 1, NAN, True),
        ("never", 0, NAN, False),
    ],
)
def test_boundaries(name, index, value, expected):
    healthy = np.zeros(SIZES[name], np.float32)
    healthy[0] = 0.9
    assert not terminates(name, healthy)
    healthy[index] = value
    assert terminates(name, healthy) == expected


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("leading", [(), (3,), (2, 3, 4)])
def test_any_leading_axes(name, leading):
    states = np.random.default_rng(1).normal(0.8, 0.5, (*leading, SIZES[name]))
    ended = terminates(name, states)
    assert ended.shape == leading and ended.dtype == bool
    flat = terminates(name, states.reshape(-1, SIZES[name]))
    np.testing.assert_array_equal(ended.ravel(), flat)


def test_the_ant_takes_its_height_range():
    states = torch.zeros(4, 27)
    states[:, 0] = torch.tensor([0.1, 0.3, 0.6, NAN])
    assert ant((0.25, 0.5))(states, states, states).tolist() == [True, False, True, True]
    assert ant(None)(states, states, states).tolist() == [False, False, False, True]


@pytest.mark.parametrize("name, environment_id", [("hopper", "Hopper-v4"), ("walker2d", "Walker2d-v4")])
def test_agrees_with_the_real_environment(name, environment_id):
    environment = gymnasium.make(environment_id)
    environment.action_space.seed(0)
    environment.reset(seed=0)
    states, expected = [], []
    for _ in range(2000):
        observation, _, terminated, truncated, _ = environment.step(environment.action_space.sample())
        states.append(observation.astype(np.float32))
        expected.append(terminated)
        if terminated or truncated:
            environment.reset()
    assert 20 < sum(expected) < 1000
    np.testing.assert_array_equal(terminates(name, states), expected)
