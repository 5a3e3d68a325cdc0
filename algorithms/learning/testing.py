"""What every algorithm must keep, whatever it computes: seeds of a group never meet, a state is all there is, a step replays.

An algorithm's test calls `check_contract(algorithm)`, and `check_compiles(algorithm)` where it may take a minute; that of a
stage calls `check_resumes`. They need no environment: the problem is a small one, and everything runs in float64.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from ...common.errors import UserError
from ...common.trees import tree_leaves, tree_map
from ...tasks.data.dataset import OfflineDataset
from ...tasks.task import OfflineProblem
from .experience import Experience
from .fast.capture import CannotCapture, Captured, CapturedSteps
from .fast.stepping import updater
from .learner import Learner
from .registry import Algorithm
from .resumption import check_resumed_copy, saved_and_loaded
from .stage import FitKeeper, Stage
from .steps import BLOCK, StepStreams, TrainingSteps

SEEDS = (0, 1, 2)
STEPS = 20
TOLERANCE = 1e-12  # not bit for bit: products of other shapes may round differently
OBSERVATION_SIZE, ACTION_SIZE = 3, 2
SMALL: dict[str, Any] = {  # of this package's parts; an algorithm takes those that it knows
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
    "cloned.steps": 40,
    "cloned.hidden": (16, 16),
    "cloned.batch_size": 40,
    "adversarial_batch_size": 24,
}


def leaves_the_interval(observations: Tensor, actions: Tensor, next_observations: Tensor) -> Tensor:
    """Terminal where the first feature exceeds 0.5 in size, or is not a number."""
    return ~(next_observations[..., 0].abs() <= 0.5)


@cache
def small_problem(rows: int = 320, seed: int = 0) -> OfflineProblem:
    """A noisy linear system with terminals and with timeouts whose successor is unknown."""
    draw = np.random.default_rng(seed)
    into_state, into_reward = np.array([[0.3, 0.0, 0.1], [0.0, -0.2, 0.1]]), np.array([1.0, -0.5, 0.2])
    columns: dict[str, list[Any]] = {
        name: [] for name in ("observations", "actions", "rewards", "next_observations", "terminals")
    }
    ends, state, age = list[bool](), draw.normal(0, 0.2, OBSERVATION_SIZE), 0
    for _ in range(rows):
        action = draw.uniform(-1, 1, ACTION_SIZE)
        successor = (0.8 * state + action @ into_state + draw.normal(0, 0.05, OBSERVATION_SIZE)).astype(np.float32)
        reward = successor @ into_reward - 0.1 * action @ action + draw.normal(0, 0.1)
        terminal, age = bool(abs(successor[0]) > 0.5), age + 1
        for column, value in zip(columns.values(), (state, action, reward, successor, terminal), strict=True):
            column.append(value)
        ends.append(age == 20 and not terminal)
        state = successor
        if terminal or ends[-1]:
            state, age = draw.normal(0, 0.2, OBSERVATION_SIZE), 0
    arrays: dict[str, Any] = {
        name: np.array(values, bool if name == "terminals" else np.float32) for name, values in columns.items()
    }
    timeouts = np.array(ends)
    dataset = OfflineDataset(**arrays, timeouts=timeouts, valid_next=~timeouts)
    return OfflineProblem(OBSERVATION_SIZE, ACTION_SIZE, leaves_the_interval, 0.99, 20, dataset)


def settings_for(algorithm: Algorithm, **changes: Any) -> dict[str, Any]:
    """SMALL as far as the algorithm knows its keys, then `changes`."""
    known = algorithm.defaults()
    return algorithm.configure({key: value for key, value in SMALL.items() if key in known}, changes)


@cache
def fitted(stage: type[Stage], problem: OfflineProblem, config: Any, seed: int) -> dict[str, Any]:
    """A stage's state, fitted once for all the tests that ask for the same."""
    return stage.fit(problem, config, seed, dtype=torch.float64)[0]


class Stopping(FitKeeper):
    """Keeps each state that is offered, as on disk, and stops the fit at the given one (from 1)."""

    def __init__(self) -> None:
        self.at: int | None = None
        self.kept: bytes | None = None
        self.offered = 0

    def load(self) -> dict[str, Any] | None:
        return None if self.kept is None else torch.load(io.BytesIO(self.kept), weights_only=True)

    def offer(self, state: Callable[[], dict[str, Any]]) -> None:
        self.offered += 1
        file = io.BytesIO()
        torch.save(state(), file)
        self.kept = file.getvalue()
        if self.offered == self.at:
            raise KeyboardInterrupt


class Group:
    """A learner, where its batches come from, and its streams."""

    def __init__(
        self, algorithm: Algorithm, problem: OfflineProblem, seeds: Sequence[int], compiled: bool = False, **changes: Any
    ):
        configs = algorithm.build_configs(settings_for(algorithm, **changes))
        stages = {
            name: stage(problem, configs[name], [fitted(stage, problem, configs[name], seed) for seed in seeds])
            for name, stage in dict[str, Any](algorithm.stages).items()
        }
        common: dict[str, Any] = {"dtype": torch.float64, "stages": stages}
        self.learner = algorithm.learner(problem, configs["learner"], seeds, **common)
        self.experience = algorithm.experience(problem, configs["experience"], seeds, **common)
        self.streams, self.update = StepStreams(self.learner), updater(self.learner, compiled)
        self.step = 0

    def advance(self, steps: int) -> dict[str, Tensor]:
        """Returns the metrics of the last step."""
        for _ in range(steps):
            self.experience.refresh(self.step, self.learner)
            uniform, noise = self.streams.at(self.step)
            batch = self.experience.draw(uniform)
            metrics = self.update(batch, noise, self.learner.phase(self.step))
            self.step += 1
        return metrics

    def states(self) -> list[dict[str, Any]]:
        """What a checkpoint holds of each seed."""
        return [
            {"learner": self.learner.state(index), "experience": self.experience.state(index)}
            for index in range(len(self.learner.seeds))
        ]

    def load(self, states: Sequence[Mapping[str, Any]], step: int) -> Self:
        self.learner.load_states([state["learner"] for state in states])
        self.experience.load_states([state["experience"] for state in states], self.learner)
        self.step = step
        return self


def check_contract(algorithm: Algorithm, problem: OfflineProblem | None = None, **changes: Any) -> None:
    """Raises AssertionError, with what is wrong, where the algorithm breaks the contract on that problem, or a small one.

    `changes` are settings beyond `SMALL`, the sizes of this package's parts: give small ones of your own, such as hidden=(16,).
    """
    problem = problem or small_problem()
    whole = Group(algorithm, problem, SEEDS, **changes)
    metrics = whole.advance(STEPS)
    check_metrics(metrics)
    check_act(whole.learner)
    check_alone_as_in_a_group(algorithm, problem, whole, metrics, changes)
    check_nan_stays_in_its_seed(algorithm, problem, whole, changes)
    check_split_and_restacked(algorithm, problem, whole, changes)
    check_replay(algorithm, problem, whole, changes)
    check_recorded(algorithm, problem, changes)
    check_resumption(algorithm, problem, changes)


def check_metrics(metrics: Mapping[str, Tensor]) -> None:
    """(d) A loss reduced over the seeds, too, is a scalar."""
    assert metrics, "update gave no metrics"
    for name, values in metrics.items():
        assert values.shape == (len(SEEDS),), f"{name} has shape {tuple(values.shape)}, expected one number per seed"
        assert values.isfinite().all(), f"{name} is {values.tolist()}"
        assert not values.requires_grad, f"{name} keeps its graph alive"


def check_act(learner: Learner) -> None:
    """(e) Shapes, range and repeatability; rows of one call do not see one another."""
    problem, count = learner.problem, len(SEEDS)
    generator = torch.Generator().manual_seed(5)
    observations = torch.randn(count, 7, problem.observation_size, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, 7, problem.action_size, generator=generator, dtype=torch.float64)
    for scale in (1.0, 1e3):
        for given in (None, noise):
            actions = learner.act(scale * observations, given)
            assert actions.shape == (count, 7, problem.action_size)
            assert actions.abs().max() <= 1, f"actions reach {float(actions.abs().max())}, outside [-1, 1]"
            assert torch.equal(actions, learner.act(scale * observations, given)), "acting is not repeatable"
    part = learner.act(observations[:, :2])
    torch.testing.assert_close(part, learner.act(observations)[:, :2], rtol=0, atol=TOLERANCE)


def check_alone_as_in_a_group(
    algorithm: Algorithm, problem: OfflineProblem, whole: Group, metrics: Mapping[str, Tensor], changes: Mapping[str, Any]
) -> None:
    """(a) S = 1 hides what mixes seeds; so does a seed's state that depends on its neighbours."""
    for index, seed in enumerate(SEEDS):
        alone = Group(algorithm, problem, [seed], **changes)
        own = alone.advance(STEPS)
        assert_seed_same(alone, 0, whole, index, f"seed {seed} alone differs from the same seed in a group")
        for name, values in own.items():
            torch.testing.assert_close(values[0], metrics[name][index], rtol=TOLERANCE, atol=TOLERANCE, msg=name)
    first, second = whole.learner.state(0), whole.learner.state(1)
    assert differ(first, second), "two seeds learned the same"


def check_nan_stays_in_its_seed(
    algorithm: Algorithm, problem: OfflineProblem, whole: Group, changes: Mapping[str, Any]
) -> None:
    """(b) A seed that has diverged leaves the others as they were."""
    sick = Group(algorithm, problem, SEEDS, **changes)
    for network in sick.learner.networks().values():
        for weight in network.weights:
            weight[1] = float("nan")
    sick.advance(STEPS)
    for index in (0, 2):
        assert_seed_same(sick, index, whole, index, f"NaN of seed 1 reached seed {SEEDS[index]}")
    for name, network in sick.learner.networks().items():
        for weight in network.weights:
            assert weight[1].isnan().all(), f"{name} of the seed of NaN came back to life"


def check_split_and_restacked(algorithm: Algorithm, problem: OfflineProblem, whole: Group, changes: Mapping[str, Any]) -> None:
    """(c) States of different groups, saved, stacked in another order and stepped on."""
    half = STEPS // 2
    pair, single = Group(algorithm, problem, SEEDS[:2], **changes), Group(algorithm, problem, SEEDS[2:], **changes)
    pair.advance(half)
    single.advance(half)
    saved = saved_and_loaded(single.states() + pair.states())
    restacked = Group(algorithm, problem, (SEEDS[2], *SEEDS[:2]), **changes).load(saved, half)
    restacked.advance(STEPS - half)
    for index, place in enumerate((1, 2, 0)):
        message = f"seed {SEEDS[index]} went on differently after its state was stacked with others"
        assert_seed_same(restacked, place, whole, index, message)


def check_replay(algorithm: Algorithm, problem: OfflineProblem, whole: Group, changes: Mapping[str, Any]) -> None:
    """(c) The same group resumed is bit-equal, model rollouts included; so is one resumed once more."""
    again = whole
    for _ in range(2):
        states = saved_and_loaded(again.states())
        again = Group(algorithm, problem, SEEDS, **changes).load(states, whole.step)
        assert_same(again.states(), whole.states(), "a resumed group differs", tolerance=0)
        for index in range(len(SEEDS)):
            assert_seed_same(again, index, whole, index, "a resumed group differs", tolerance=0)


def check_resumption(algorithm: Algorithm, problem: OfflineProblem, changes: Mapping[str, Any]) -> None:
    """(h) As it is asked of code from outside before a run begins: all that changes is saved, or made again."""

    def make() -> tuple[Learner, Experience]:
        group = Group(algorithm, problem, SEEDS[:2], **changes)
        return group.learner, group.experience

    try:
        check_resumed_copy(make)
    except UserError as error:
        raise AssertionError(str(error)) from error


def assert_seed_same(
    group: Group, index: int, other: Group, other_index: int, message: str, tolerance: float = TOLERANCE
) -> None:
    """All that seed number `index` has learned, and its model rollouts where it has any.

    Not the state of its experience: what a group keeps to replay its rollouts depends on its slowest seed.
    """
    assert_same(group.learner.state(index), other.learner.state(other_index), message, tolerance)
    ring, wanted = (getattr(each.experience, "ring", None) for each in (group, other))
    if ring is None or wanted is None:
        return
    assert ring.position[index] == wanted.position[other_index], f"{message}: its ring stands elsewhere"
    assert ring.size[index] == wanted.size[other_index], f"{message}: its ring is filled differently"
    assert_same(ring.rows[index], wanted.rows[other_index], f"{message}: rows of its ring", tolerance)


def check_recorded(algorithm: Algorithm, problem: OfflineProblem, changes: Mapping[str, Any], steps: int = BLOCK + 10) -> None:
    """(f) A step that is recorded once and replayed, as a GPU does it, into a second block of random numbers."""
    recorded, plain = Group(algorithm, problem, SEEDS, **changes), Group(algorithm, problem, SEEDS, **changes)
    runs, replays = (
        [
            CapturedSteps(recorded.learner, recorded.experience, capture=Recorded),
            TrainingSteps(plain.learner, plain.experience),
        ],
        Recorded.replays,
    )
    for step in range(steps):
        for group, run in zip((recorded, plain), runs, strict=True):
            group.experience.refresh(step, group.learner)
            run.take(step)
    assert runs[0].captured is True, runs[0].captured
    phases = {recorded.learner.phase(step) for step in range(steps)}
    assert Recorded.replays - replays >= steps - (Captured.EAGER_CALLS + 1) * len(phases)
    assert_same(recorded.states(), plain.states(), "replayed steps differ from plain ones", tolerance=0)
    torch.testing.assert_close(runs[0].collect(), runs[1].collect(), rtol=0, atol=0)


class Recorded:
    """`Captured`, on a CPU: first calls as they are, then a recording of torch's own operations on the same tensors.

    What is done in Python, or where a tensor is replaced, is lost in it as in a CUDA graph.
    """

    replays = 0

    def __init__(self, work: Callable[[], object], device: torch.device):
        self.work, self.calls = work, 0
        self.program: Callable[[], object] | None = None

    def __call__(self) -> None:
        self.calls += 1
        if self.calls <= Captured.EAGER_CALLS:
            self.work()
        elif self.program is None:
            try:
                self.program = make_fx(self.work)()  # computes, too
            except RuntimeError as error:
                raise CannotCapture(str(error).splitlines()[0], done=False) from error
        else:
            Recorded.replays += 1
            self.program()


def check_compiles(algorithm: Algorithm, problem: OfflineProblem | None = None, steps: int = STEPS, **changes: Any) -> None:
    """(g) One full graph per phase, which computes what eager computes."""
    problem = problem or small_problem()
    torch.compiler.reset()
    compiled = Group(algorithm, problem, SEEDS, compiled=True, **changes)
    eager = Group(algorithm, problem, SEEDS, **changes)
    metrics, expected = compiled.advance(steps), eager.advance(steps)
    assert_same(compiled.states(), eager.states(), "compiled differs from eager")
    torch.testing.assert_close(metrics, expected, rtol=TOLERANCE, atol=TOLERANCE)


def assert_same(state: Any, other: Any, message: str, tolerance: float = TOLERANCE) -> None:
    numbers = (tree_map(lambda each: each if isinstance(each, Tensor | int | float) else 0, tree) for tree in (state, other))
    torch.testing.assert_close(*numbers, rtol=tolerance, atol=tolerance, equal_nan=True, msg=lambda text: f"{message}: {text}")
    words = ([each for each in tree_leaves(tree) if not isinstance(each, Tensor | int | float)] for tree in (state, other))
    assert next(words) == next(words), f"{message}: other words"


def differ(state: Any, other: Any) -> bool:
    try:
        assert_same(state, other, "")
    except AssertionError:
        return True
    return False


def check_resumes(stage: type[Stage], problem: OfflineProblem, config: Any, at: int) -> None:
    """A fit that is stopped where it offers its state for the `at`th time, and again, ends as one that is not."""
    undisturbed, record = stage.fit(problem, config, 0, dtype=torch.float64)
    keeper = Stopping()
    for keeper.at in (at, 2 * at):
        try:
            stage.fit(problem, config, 0, dtype=torch.float64, keeper=keeper)
        except KeyboardInterrupt:
            continue
        raise AssertionError(f"the fit offered its state {keeper.offered} times, fewer than {keeper.at}")
    keeper.at = None
    state, again = stage.fit(problem, config, 0, dtype=torch.float64, keeper=keeper)
    assert 2 * at < keeper.offered <= 3 * at, "something was done twice, or nothing was left to do"
    assert_same(state, undisturbed, "a resumed fit differs", tolerance=0)
    assert again | {"seconds": 0} == record | {"seconds": 0}, "the record of a resumed fit differs"
