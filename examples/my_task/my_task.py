"""A task of your own, in one module: a room with a heat pump, to be kept warm without paying much for electricity.

    pip install ./examples/my_task
    mopo-bench run --tasks my-task --algorithms bc,mopo --seeds 2

The dataset is made when it is first wanted. A log that is there already is named instead; this writes one to try it with:

    python -m my_task log.hdf5
    mopo-bench run --tasks my-task --algorithms bc,mopo --seeds 2 --dataset log.hdf5
"""

import sys

import gymnasium
import h5py
import numpy as np
from mopo_bench import ActionBox, Problem, Task, register_task
from mopo_bench.tasks.data.dataset import OfflineDataset
from mopo_bench.tasks.data.relabelling import with_own_rewards
from mopo_bench.tasks.task import DatasetRecipe, EvaluationProtocol

HORIZON = 48  # steps of half an hour: a day
WARM, COLD = 0.0, -1.6  # 21 and 5 degrees Celsius, as observed: below the latter the pipes freeze, which ends an episode


class HeatedRoom(gymnasium.Env):
    """Observation: temperature of the room above 21 and of the outside above 0 degrees, both in tens of degrees.

    Action: the heat pump's power, from 0 to 1. Policies are evaluated in it, so it pays the reward of the task. `info` says how
    much electricity a step took, which no observation shows; logs store it as infos/energy.
    """

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)

    def __init__(self, price: float = 0.3):
        self.price = price

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        self.state = self.np_random.uniform((-0.7, -0.5), (0.1, 0.5)).astype(np.float32)
        return self.state, {}

    def step(self, action):
        room, outside = self.state.astype(np.float64)
        power = float(np.clip(action, 0.0, 1.0)[0])
        energy = 3.0 * power / (3.0 + outside)  # a heat pump takes more in the cold
        room += 0.1 * (outside - 2.1 - room) + 0.3 * power
        outside += self.np_random.normal(0.0, 0.05)
        self.state, self.steps = np.array((room, outside), np.float32), self.steps + 1
        reward = float(comfort(self.state[0]) - self.price * energy)
        return self.state, reward, bool(self.state[0] < COLD), self.steps >= HORIZON, {"energy": energy}


def comfort(room):
    """From 0 to 1, best at 21 degrees."""
    return np.exp(-np.square((room - WARM) / 0.3))


def frozen(observations, actions, next_observations):
    """Where an episode ends by itself, on batches of tensors (..., features): rollouts of a learned model end by it."""
    return next_observations[..., 0] < COLD


def paid(dataset, price=0.3):
    """The task's reward (N,), from what a log stores. `price` is the task's parameter of that name."""
    return comfort(dataset.next_observations[:, 0].astype(np.float64)) - price * dataset.extras["infos/energy"]


def log(rows, seed):
    """About so many rows of thermostats, each set to another temperature, as arrays by their names in D4RL's layout.

    Who logged them counted comfort alone: the task has another reward than its log.
    """
    environment, draw, table = HeatedRoom(), np.random.default_rng(seed), []
    while len(table) < rows:
        observation, _ = environment.reset(seed=int(draw.integers(2**31)))
        wanted, ended = draw.uniform(-1.0, 0.3), False
        while not ended:
            power = 0.6 + 2.0 * (wanted - observation[0]) + draw.normal(0.0, 0.2)
            action = np.array([np.clip(power, 0.0, 1.0)], np.float32) * (wanted > -0.9)  # some leave it off
            following, _, terminal, timeout, info = environment.step(action)
            counted = comfort(following[0])
            table.append((observation, action, counted, following, terminal, timeout and not terminal, info["energy"]))
            observation, ended = following, terminal or timeout
    names = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts", "infos/energy")
    return {
        name: np.array(column, bool if name in ("terminals", "timeouts") else np.float32)
        for name, column in zip(names, zip(*table, strict=True), strict=True)
    }


def regenerate(task, rows, seed):
    """The dataset, with the task's own reward, where no file is named: made once, then kept in the data cache."""
    arrays = log(rows, seed)
    extras = {"infos/energy": arrays.pop("infos/energy")}
    provenance = {"source": "regenerated", "task": task.name, "seed": seed}
    dataset = OfflineDataset(**arrays, valid_next=np.ones(len(arrays["rewards"]), bool), extras=extras, provenance=provenance)
    return with_own_rewards(dataset, task)


regenerate.version = 1  # raise it when another dataset is made, or the cache keeps the old one

gymnasium.register("my_task/HeatedRoom-v0", entry_point="my_task:HeatedRoom")
register_task(
    Task(
        "my-task",
        "my_task/HeatedRoom-v0",
        Problem(2, 1, termination=frozen, action_box=ActionBox(0.0, 1.0), max_episode_steps=HORIZON),
        parameters={"price": 0.3},  # `--task-set my-task.price=1` is another task, with another reward
        recipe=DatasetRecipe(
            regenerate=regenerate,
            rows=5_000,
            made_from="thermostats set to different temperatures",
            recorded=("energy",),
            reward=paid,
            acceptance=None,  # nothing is asked of the dataset
        ),
        evaluation=EvaluationProtocol(steps=20_000, evaluate_every=1_000, episodes=10),
    )
)

if __name__ == "__main__":
    with h5py.File(sys.argv[1], "w") as file:
        for name, array in log(5_000, seed=0).items():
            file[name] = array
