"""Model rollouts against a loop over single states, the ring against a deque, and the mixture of batches."""

from collections import deque
from dataclasses import replace

import numpy as np
import pytest
import torch
from mopo_bench.algorithms.learning import rollouts
from mopo_bench.algorithms.learning.dynamics import Prediction
from mopo_bench.algorithms.learning.registry import get_algorithm
from mopo_bench.algorithms.learning.replay import Layout, Ring
from mopo_bench.algorithms.learning.rollouts import ModelRollouts
from mopo_bench.algorithms.learning.testing import ACTION_SIZE, OBSERVATION_SIZE, Group, assert_seed_same, saved_and_loaded

WIDTH = 2 * OBSERVATION_SIZE + ACTION_SIZE + 2
FINAL = 1e3  # what a rollout must never go on from


class HandMade:
    """A model easily made again: s' = s / 2 + (a, sum a) + noise / 10 + elite, r = elite + s[0] + noise.

    It ends where the first feature leaves +-`limit`; the state after the end is `FINAL`, so that going on would show.
    """

    def __init__(self, limit=0.6):
        self.limit = limit
        self.elites = torch.zeros(1, 1, dtype=torch.long)  # the one network of its predictions

    def predict(self, observations, actions):
        """Its means at elite 0, and standard deviations, with one network."""
        moved = 0.5 * observations + torch.cat((actions, actions.sum(-1, keepdim=True)), -1)
        means = torch.cat((observations[..., :1], moved), -1)[:, None]
        return means, torch.tensor([1.0, 0.1, 0.1, 0.1], dtype=means.dtype).expand_as(means)

    def sample(self, observations, actions, uniform, noise, all_networks=True):
        elite = (uniform * 3).floor() / 10
        moved = 0.5 * observations + torch.cat((actions, actions.sum(-1, keepdim=True)), -1) + 0.1 * noise[..., 1:]
        successors = moved + elite[..., None]
        terminals = ~(successors[..., 0].abs() <= self.limit)
        successors = torch.where(terminals[..., None], FINAL, successors)
        rewards = elite + observations[..., 0] + noise[..., 0]
        return Prediction(rewards, successors, terminals, elite, None, None)


class Leaning:
    """A policy that is a formula: a = tanh(scale (s1, s2) + noise) with a scale per seed."""

    def __init__(self, *scales):
        self.scales = torch.tensor(scales, dtype=torch.float64)[:, None, None]

    def act(self, observations, noise):
        return torch.tanh(self.scales * observations[..., :2] + noise)

    def acting_states(self):
        return [{"scale": scale.clone()} for scale in self.scales]

    def load_acting_states(self, states):
        for index, state in enumerate(states):
            self.scales[index] = state["scale"]


def make_rollouts(problem, seeds, dynamics, **settings):
    config = ModelRollouts.Config(**{"rollout_length": 4, "rollout_states": 25, "rollout_every": 3, **settings})
    return ModelRollouts(problem, config, seeds, dtype=torch.float64, stages={"dynamics": dynamics})


def real_rows(experience):
    """The rows of the batch that critics may use, packed."""
    return experience.table[torch.from_numpy(experience.problem.dataset.critic_rows)]


def rolled_out_slowly(experience, seed, scale, limit):
    """One state after the other, in plain Python: the rows of one refresh, step by step as they enter the ring."""
    config, stream = experience.config, torch.Generator().manual_seed(seed)

    def uniforms():
        return torch.rand(config.rollout_states, generator=stream, dtype=torch.float64).numpy()

    real = real_rows(experience).numpy()
    starts, draws = (uniforms() * len(real)).astype(int), []
    for _ in range(config.rollout_length):
        uniform = uniforms()
        noise = torch.randn(config.rollout_states, ACTION_SIZE + 1 + OBSERVATION_SIZE, generator=stream)
        draws.append((uniform, noise.double().numpy()))
    by_step = [[] for _ in draws]
    for state, start in enumerate(starts):
        observation = real[start, :OBSERVATION_SIZE]
        for step, (uniform, noise) in enumerate(draws):
            action_noise, reward_noise, state_noise = np.split(noise[state], [ACTION_SIZE, ACTION_SIZE + 1])
            action = np.tanh(scale * observation[:2] + action_noise)
            elite = int(uniform[state] * 3) / 10
            successor = 0.5 * observation + [action[0], action[1], action.sum()] + 0.1 * state_noise + elite
            reward, ended = elite + observation[0] + reward_noise[0], abs(successor[0]) > limit
            if ended:
                successor = np.full(OBSERVATION_SIZE, FINAL)
            # what follows an end does not count: the state itself stands there, which is finite
            by_step[step].append(
                np.concatenate((observation, action, [reward, not ended], observation if ended else successor))
            )
            if ended:
                break
            observation = successor
    return np.array([row for rows in by_step for row in rows])


@pytest.fixture
def plain_streams(monkeypatch):
    """Streams by seed alone, so that the loop needs no names."""
    monkeypatch.setattr(rollouts, "torch_stream", lambda seed, *name, device: torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("limit", [0.2, 0.9, 1e9])
def test_equals_a_loop_over_single_states(limit, problem, plain_streams):
    """Few live on, about half do, or all do; each seed at its own pace."""
    scales = (0.0, -2.0)
    experience = make_rollouts(problem, (5, 6), HandMade(limit))
    experience.refresh(0, Leaning(*scales))
    for index, (seed, scale) in enumerate(zip((5, 6), scales, strict=True)):
        expected = rolled_out_slowly(experience, seed, scale, limit)
        rows = experience.ring.rows[index, : experience.ring.size[index]].numpy()
        np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-12)
        assert experience.vitals["rollout_length"][index] == len(rows) / 25
        np.testing.assert_allclose(experience.vitals["model_reward"][index], expected[:, 5].mean(), atol=1e-12)
        assert experience.vitals["ended"][index] == pytest.approx((expected[:, 6] == 0).sum() / 25)


def test_ended_rollouts_stop(problem):
    """A row starts from the batch or from the live end of another; a terminal row is stored, and nothing after it."""
    experience = make_rollouts(problem, (0,), HandMade())
    experience.refresh(0, Leaning(1.0))
    layout = experience.layout
    rows = layout.batch(experience.ring.rows[0, : experience.ring.size[0]])
    assert 10 < (rows.alive == 0).sum() < len(rows.alive) - 10
    assert torch.equal(rows.alive == 0, (rows.next_observations == rows.observations).all(-1))
    assert rows.observations.abs().max() < FINAL
    starts = {tuple(row) for row in layout.batch(real_rows(experience)).observations.tolist()}
    followed = {tuple(row) for row in rows.next_observations[rows.alive == 1].tolist()}
    begun = [tuple(row) in starts for row in rows.observations.tolist()]
    assert sum(begun) == 25
    assert all(begins or tuple(row) in followed for begins, row in zip(begun, rows.observations.tolist(), strict=True))


def test_refreshes_when_due(problem):
    """Every `rollout_every` steps from step 0, and with other numbers each time."""
    experience, policy = make_rollouts(problem, (0,), HandMade(1e9)), Leaning(0.5)
    sizes = []
    for step in range(7):
        experience.refresh(step, policy)
        sizes.append(experience.ring.size[0])
    assert sizes == [100, 100, 100, 200, 200, 200, 300]
    rows = experience.ring.rows[0]
    assert not torch.equal(rows[:100], rows[100:200])


def test_a_seed_alone_and_in_a_group_across_chunks(problem, monkeypatch):
    """What a seed draws for its second chunk must not depend on how long others lived in the first."""
    monkeypatch.setitem(rollouts.CHUNK, "cpu", 2)
    policies = {0: 50.0, 1: 0.0}  # seed 0 is pushed out at once, most of the time
    group = make_rollouts(problem, (0, 1), HandMade(0.4))
    group.refresh(0, Leaning(*policies.values()))
    for index, (seed, scale) in enumerate(policies.items()):
        alone = make_rollouts(problem, (seed,), HandMade(0.4))
        alone.refresh(0, Leaning(scale))
        assert alone.ring.size[0] == group.ring.size[index]
        torch.testing.assert_close(alone.ring.rows[0], group.ring.rows[index], rtol=0, atol=1e-12)


def test_ring_is_a_deque_of_bounded_length():
    """Random writes, some of nothing and some larger than the ring, to each seed on its own."""
    draw = np.random.default_rng(0)
    ring, expected = Ring(2, 11, 3, torch.float64, "cpu"), [deque(maxlen=11), deque(maxlen=11)]
    written = [0, 0]
    for _ in range(200):
        seed, count = int(draw.integers(2)), int(draw.choice([0, 1, 3, 10, 11, 12, 25, 40]))
        rows = draw.normal(size=(count, 3))
        ring.write(seed, torch.tensor(rows).reshape(count, 3))
        expected[seed].extend(map(tuple, rows))
        written[seed] += count
        for each in range(2):
            assert ring.size[each] == len(expected[each])
            assert ring.position[each] == written[each] % 11
            begin = ring.position[each] if ring.size[each] == 11 else 0
            kept = torch.roll(ring.rows[each], -begin, 0)[: ring.size[each]]
            assert [tuple(row) for row in kept.tolist()] == list(expected[each])
    assert min(written) > 100


def test_drawing_covers_exactly_what_is_filled():
    ring = Ring(2, 50, 1, torch.float64, "cpu")
    ring.write(0, torch.arange(1.0, 8.0, dtype=torch.float64)[:, None])
    ring.write(1, torch.arange(101.0, 231.0, dtype=torch.float64)[:, None])
    uniform = torch.linspace(0, 1 - 2.0**-53, 7001, dtype=torch.float64).expand(2, -1)
    drawn = ring.draw(uniform)
    assert drawn.shape == (2, 7001, 1)
    values, counts = drawn[0].unique(return_counts=True)
    assert values.tolist() == [*range(1, 8)] and counts.min() >= 999
    values, counts = drawn[1].unique(return_counts=True)
    assert values.tolist() == [*range(181, 231)] and counts.min() >= 139


def test_batches_are_12_real_rows_of_256(problem):
    """int(0.05 * 256); the others from the ring, each at its own uniform numbers."""
    experience = make_rollouts(problem, (0, 1), HandMade())
    experience.refresh(0, Leaning(0.0, 1.0))
    uniform = torch.rand(2, 256, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = experience.draw(uniform)
    rows = experience.layout.pack(batch.observations, batch.actions, batch.rewards, batch.alive, batch.next_observations)
    for seed in range(2):
        real = real_rows(experience)
        real = real[(uniform[seed, :12] * len(real)).long()]
        model = experience.ring.rows[seed, (uniform[seed, 12:] * experience.ring.size[seed]).long()]
        assert torch.equal(rows[seed], torch.cat((real, model)))


@pytest.mark.parametrize("fraction, rows", [(0.0, 0), (0.05, 0), (0.5, 8), (1.0, 16)])
def test_batches_may_be_of_one_kind(fraction, rows, problem):
    """None real, as of a small batch, or all; the real ones stand first, and the batch says how many they are."""
    experience = make_rollouts(problem, (0, 1), HandMade(), real_fraction=fraction)
    experience.refresh(0, Leaning(0.0, 1.0))
    batch = experience.draw(torch.rand(2, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    assert batch.real_rows == rows and batch.rewards.shape == (2, 16)
    real = {tuple(row.tolist()) for row in real_rows(experience)[:, :OBSERVATION_SIZE]}
    of_rewards = {float(row) for row in real_rows(experience)[:, experience.layout.rewards]}
    for seed in range(2):
        assert [float(reward) in of_rewards for reward in batch.rewards[seed]] == [True] * rows + [False] * (16 - rows)
        assert all(tuple(row.tolist()) in real for row in batch.observations[seed, :rows])


def test_real_rows_are_those_critics_may_use(problem):
    """Valid rows and terminals, packed as they are, each at its own uniform numbers; rows with neither are left out."""
    batch = problem.dataset
    keep = batch.critic_rows
    assert 0 < (~keep).sum() < 100 and batch.terminals.sum() > 10
    columns = (
        batch.observations,
        batch.actions,
        batch.rewards[:, None],
        ~batch.terminals[:, None],
        batch.next_observations,
    )
    expected = np.concatenate(columns, 1)[keep].astype(np.float64)
    experience = make_rollouts(problem, (0, 1), HandMade())
    evenly = (torch.arange(len(expected)) + 0.5).double() / len(expected)
    drawn = experience.draw_real(torch.stack((evenly, evenly.flip(0)))).numpy()
    np.testing.assert_array_equal(drawn, np.stack((expected, expected[::-1])))


def test_where_critics_may_use_every_row_there_is_no_index(problem):
    batch = problem.dataset
    every = replace(problem, dataset=replace(batch, valid_next=np.ones(len(batch), bool)))
    experience = make_rollouts(every, (0,), HandMade())
    assert experience.usable is None and make_rollouts(problem, (0,), HandMade()).usable is not None
    evenly = (torch.arange(len(batch)) + 0.5).double()[None] / len(batch)
    assert torch.equal(experience.draw_real(evenly)[0], experience.table)


def test_layout_packs_and_unpacks(generator):
    layout = Layout(OBSERVATION_SIZE, ACTION_SIZE)
    assert layout.width == WIDTH
    parts = [torch.randn(2, 5, *size, generator=generator) for size in ((3,), (2,), (), (), (3,))]
    batch = layout.batch(layout.pack(*parts))
    unpacked = (batch.observations, batch.actions, batch.rewards, batch.alive, batch.next_observations)
    assert all(torch.equal(part, other) for part, other in zip(parts, unpacked, strict=True))


# resume: the ring is not saved but rolled out again


def test_replay_after_the_ring_has_wrapped(problem):
    """Policies change between refreshes, and the ring has been overwritten several times."""
    group = Group(get_algorithm("mopo"), problem, (0, 1))
    group.advance(50)
    capacity = group.experience.ring.capacity
    assert group.experience.ring.size == [capacity] * 2 and 0 not in group.experience.ring.position
    assert len(group.experience.history) < 13  # of as many refreshes: what was overwritten is forgotten
    states = saved_and_loaded(group.states())
    resumed = Group(get_algorithm("mopo"), problem, (0, 1)).load(states, 50)
    for index in range(2):
        assert_seed_same(resumed, index, group, index, "resumed", tolerance=0)
    group.advance(8)
    resumed.advance(8)
    for index in range(2):
        assert_seed_same(resumed, index, group, index, "gone on", tolerance=0)


@pytest.fixture
def unequal():
    """Rollouts of seeds that fill their rings at different paces, each in its own group, after 13 refreshes.

    Seed 0 needs few refreshes to fill its ring, so that it forgets policies which seed 1 still needs.
    """

    def make(problem, seeds, scales, steps=39):
        experience, policy = make_rollouts(problem, seeds, HandMade(0.5), retained_rollouts=2), Leaning(*scales)
        for step in range(steps):
            policy.scales += 0.001
            experience.refresh(step, policy)
        return experience, policy

    return make


def restacked(problem, parts, times):
    """The seeds of several groups in one, saved and loaded `times` over."""
    states = [experience.state(index) for experience, _ in parts for index in range(len(experience.seeds))]
    seeds = [seed for experience, _ in parts for seed in experience.seeds]
    scales = [float(scale) for _, policy in parts for scale in policy.scales]
    for _ in range(times):
        together = make_rollouts(problem, seeds, HandMade(0.5), retained_rollouts=2)
        policy = Leaning(*scales)
        together.load_states(saved_and_loaded(states), policy)
        assert policy.scales.flatten().tolist() == scales  # the present policy is back
        states = [together.state(index) for index in range(len(seeds))]
    return together


@pytest.mark.parametrize("times", [1, 2])
def test_replay_of_seeds_that_need_unequal_histories(times, problem, unequal):
    parts = [unequal(problem, (0,), (-0.6,)), unequal(problem, (1,), (40.0,))]
    lengths = [len(experience.history) for experience, _ in parts]
    assert lengths[0] != lengths[1]
    together = restacked(problem, parts, times)
    for index, (experience, _) in enumerate(parts):
        assert together.ring.position[index] == experience.ring.position[0]
        assert together.ring.size[index] == experience.ring.size[0]
        torch.testing.assert_close(together.ring.rows[index], experience.ring.rows[0], rtol=0, atol=1e-12)
