"""A tiny offline problem, small settings, and a group of seeds stepped as the harness does it, in float64."""

import io
from functools import cache

import numpy as np
import pytest
import torch
from mopo_bench.algorithms.learning.fast.stepping import updater
from mopo_bench.algorithms.learning.registry import Algorithm
from mopo_bench.algorithms.learning.stage import FitKeeper
from mopo_bench.algorithms.learning.steps import StepStreams
from mopo_bench.tasks.data.dataset import OfflineDataset
from mopo_bench.tasks.task import OfflineProblem
from torch import nn

OBSERVATION_SIZE, ACTION_SIZE = 3, 2
SMALL = {
    "batch_size": 40,  # of which int(0.05 * 40) = 2 are real
    "hidden": (16, 16),
    "rollout_length": 3,
    "rollout_states": 30,
    "rollout_every": 4,
    "retained_rollouts": 2,
    "dynamics.networks": 4,
    "dynamics.elites": 2,
    "dynamics.hidden": (16, 16),
    "dynamics.weight_decays": (2.5e-5, 5e-5, 1e-4),
    "dynamics.batch_size": 64,
    "dynamics.max_epochs": 3,
    "behaviour_hidden": (16, 16),
    "critic_hidden": (16, 16),
    "warmup_steps": 2,
    "acting_samples": 5,
    "behaviour.steps": 40,
    "behaviour.hidden": (16, 16),
    "behaviour.batch_size": 40,
}


def leaves_the_interval(observations, actions, next_observations):
    """Terminal where the first feature exceeds 0.5 in size, or is not a number."""
    return ~(next_observations[..., 0].abs() <= 0.5)


def small_problem(rows=320, seed=0):
    """A noisy linear system with terminals and with timeouts whose successor is unknown."""
    draw = np.random.default_rng(seed)
    into_state, into_reward = np.array([[0.3, 0.0, 0.1], [0.0, -0.2, 0.1]]), np.array([1.0, -0.5, 0.2])
    columns = {name: [] for name in ("observations", "actions", "rewards", "next_observations", "terminals")}
    timeouts, state, age = [], draw.normal(0, 0.2, OBSERVATION_SIZE), 0
    for _ in range(rows):
        action = draw.uniform(-1, 1, ACTION_SIZE)
        successor = (0.8 * state + action @ into_state + draw.normal(0, 0.05, OBSERVATION_SIZE)).astype(np.float32)
        reward = successor @ into_reward - 0.1 * action @ action + draw.normal(0, 0.1)
        terminal, age = bool(abs(successor[0]) > 0.5), age + 1
        for column, value in zip(columns.values(), (state, action, reward, successor, terminal), strict=True):
            column.append(value)
        timeouts.append(age == 20 and not terminal)
        state = successor
        if terminal or timeouts[-1]:
            state, age = draw.normal(0, 0.2, OBSERVATION_SIZE), 0
    arrays = {name: np.array(values, bool if name == "terminals" else np.float32) for name, values in columns.items()}
    timeouts = np.array(timeouts)
    batch = OfflineDataset(**arrays, timeouts=timeouts, valid_next=~timeouts)
    return OfflineProblem(OBSERVATION_SIZE, ACTION_SIZE, leaves_the_interval, 0.99, 20, batch)


def settings_for(algorithm: Algorithm, **changes):
    """SMALL as far as the algorithm knows its keys, then `changes`."""
    known = algorithm.defaults()
    return algorithm.configure({key: value for key, value in SMALL.items() if key in known}, changes)


@cache
def fitted(stage, problem, config, seed):
    """A stage's state, fitted once for all the tests that ask for the same."""
    return stage.fit(problem, config, seed, dtype=torch.float64)[0]


class Stopping(FitKeeper):
    """Keeps each state that is offered, as on disk, and stops the fit at the given one (from 1)."""

    def __init__(self):
        self.at, self.offered, self.kept = None, 0, None

    def load(self):
        return None if self.kept is None else torch.load(io.BytesIO(self.kept), weights_only=True)

    def offer(self, state):
        self.offered += 1
        file = io.BytesIO()
        torch.save(state(), file)
        self.kept = file.getvalue()
        if self.offered == self.at:
            raise KeyboardInterrupt


def check_goes_on(stage, problem, config, at):
    """A fit that is stopped, twice, ends with the numbers of one that is not."""
    undisturbed, record = stage.fit(problem, config, 0, dtype=torch.float64)
    keeper = Stopping()
    for keeper.at in (at, 2 * at):
        with pytest.raises(KeyboardInterrupt):
            stage.fit(problem, config, 0, dtype=torch.float64, keeper=keeper)
    keeper.at = None
    state, again = stage.fit(problem, config, 0, dtype=torch.float64, keeper=keeper)
    assert 2 * at < keeper.offered <= 3 * at  # nothing was done twice
    torch.testing.assert_close(state, undisturbed, rtol=0, atol=0)
    assert again | {"seconds": 0} == record | {"seconds": 0}


class Group:
    """A learner, where its batches come from, and its streams."""

    def __init__(self, algorithm: Algorithm, problem: OfflineProblem, seeds, compiled=False, **changes):
        configs = algorithm.build_configs(settings_for(algorithm, **changes))
        stages = {
            name: stage(problem, configs[name], [fitted(stage, problem, configs[name], seed) for seed in seeds])
            for name, stage in algorithm.stages.items()
        }
        common = {"dtype": torch.float64, "stages": stages}
        self.learner = algorithm.learner(problem, configs["learner"], seeds, **common)
        self.experience = algorithm.experience(problem, configs["experience"], seeds, **common)
        self.streams, self.update = StepStreams(self.learner), updater(self.learner, compiled)
        self.step = 0

    def advance(self, steps):
        """Returns the metrics of the last step."""
        for _ in range(steps):
            self.experience.refresh(self.step, self.learner)
            uniform, noise = self.streams.at(self.step)
            batch = self.experience.draw(uniform)
            metrics = self.update(batch, noise, self.learner.phase(self.step))
            self.step += 1
        return metrics

    def states(self):
        """What a checkpoint holds of each seed."""
        return [
            {"learner": self.learner.state(index), "experience": self.experience.state(index)}
            for index in range(len(self.learner.seeds))
        ]

    def load(self, states, step):
        self.learner.load_states([state["learner"] for state in states])
        self.experience.load_states([state["experience"] for state in states], self.learner)
        self.step = step
        return self


def module(weights):
    """[W1, b1, ...], W (in, out) and b (1, out), as linear layers with ReLU between."""
    layers = []
    for weight, bias in zip(weights[::2], weights[1::2], strict=True):
        layer = nn.Linear(*weight.shape, dtype=torch.float64)
        layer.weight.data, layer.bias.data = weight.T.clone(), bias[0].clone()
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def flat(parameters):
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


def flat_weights(weights):
    """As `flat` of the module: nn.Linear keeps (out, in)."""
    return torch.cat([weight.transpose(-1, -2).flatten() for weight in weights])


def assert_weights(index, pairs):
    """Of seed number `index`: triples of weights, a module's parameters, and () or the member of an ensemble it stands for."""
    for weights, parameters, member in pairs:
        own = [weight[(index, *member)] for weight in weights]
        torch.testing.assert_close(flat_weights(own), flat(parameters), rtol=0, atol=1e-10)
