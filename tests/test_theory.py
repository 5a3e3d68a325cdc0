"""MOPO's theory (arXiv 2005.13239, section 4) holds on random MDPs, and fails once a sign, a discount or a factor is wrong.

Lemma 4.1 (equation 1), the lower bound (7), theorem 4.4 (10) and its corollary (11), the last three with the L1 and with the
Wasserstein distance, are computed exactly by `docs/theory.py`. Each statement is written once, as how far it is from holding. A
mutation is the same function with another argument, and must be refuted by an MDP that the search finds.
"""

import contextlib
import io
import re
import runpy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import wasserstein_distance

DOCS = Path(__file__).resolve().parents[1] / "docs"
theory = SimpleNamespace(**runpy.run_path(str(DOCS / "theory.py")))
HOLDS = settings(max_examples=40, deadline=None, derandomize=True, database=None)
SEARCH = settings(HOLDS, max_examples=1000, phases=[Phase.generate])  # any counterexample will do, it need not be small
DISTANCES = ("l1", "wasserstein")


@dataclass(frozen=True)
class Case:
    """An MDP, a model of it, a policy, an error estimator's excess (S, A) over the distance, and states in a plane (S, 2)."""

    world: theory.MDP
    model: theory.MDP
    policy: np.ndarray
    excess: np.ndarray
    places: np.ndarray

    @cached_property
    def distances(self):
        return np.linalg.norm(self.places[:, None] - self.places, axis=-1)

    def distance(self, kind):
        """d (S, A) between the model's next states and the true ones."""
        p, q = self.model.transitions, self.world.transitions
        return theory.l1(p, q) if kind == "l1" else theory.wasserstein(p, q, self.distances)

    def constant(self, kind):
        """The smallest c with the values of every policy in c F; deterministic policies are enough."""
        size = theory.sup_norm if kind == "l1" else partial(theory.lipschitz, distances=self.distances)
        return max(size(self.world.values(policy)) for policy in self.world.policies())

    @property
    def scale(self):
        """What rounding is held against: returns are at most this large, and products of them with errors."""
        return (1 + self.constant("wasserstein")) / (1 - self.world.discount) ** 2


@st.composite
def random_cases(draw, lowest_reward=-1):
    states, actions = draw(st.integers(1, 4)), draw(st.integers(1, 3))

    def distributions(*shape):
        weights = draw(arrays(int, shape, elements=st.integers(0, 3))).astype(float)
        weights[weights.sum(-1) == 0] = 1
        return weights / weights.sum(-1, keepdims=True)

    rewards = draw(arrays(int, (states, actions), elements=st.integers(4 * lowest_reward, 4))) / 4
    discount = draw(st.sampled_from([0.5, 0.9, 0.0, 0.95]))
    world = theory.MDP(distributions(states, actions, states), rewards, distributions(states), discount)
    excess = draw(st.sampled_from([0, 1])) * draw(arrays(int, (states, actions), elements=st.integers(0, 4))) / 8
    places = draw(st.lists(st.tuples(*[st.integers(-5, 5)] * 2), min_size=states, max_size=states, unique=True))
    model = replace(world, transitions=distributions(states, actions, states))
    return Case(world, model, distributions(states, actions), excess, np.array(places, float))


@st.composite
def forks(draw):
    """A start with two actions, as on the page: one is known, one leads to good or bad, and the model takes it for a mixture.

    Both distances can be met exactly here, which is rare among random MDPs, and what cuts a bound short needs it.
    """
    middle, good, gamma = draw(st.integers(-3, 3)) / 4, draw(st.integers(0, 8)) / 8, draw(st.sampled_from([0.5, 0.9]))
    truth = np.repeat(np.eye(4)[:, None], 2, axis=1)  # start, good, bad, middle
    learned = truth.copy()
    truth[0] = np.eye(4)[[3, draw(st.sampled_from([1, 2]))]]
    learned[0] = [[0, 0, 0, 1], [0, good, 1 - good, 0]]
    rewards = np.repeat([[0.0], [1.0], [-1.0], [middle]], 2, axis=1)
    world = theory.MDP(truth, rewards, np.eye(4)[0], gamma)
    places = np.array([[4.0, 0], [1, 0], [-1, 0], [middle, 0]])
    return Case(world, replace(world, transitions=learned), np.full((4, 2), 0.5), np.zeros((4, 2)), places)


def cases():
    return st.one_of(random_cases(), forks())


def lemma(case, sign=1, factor=1.0, power=1, visited="model", valued="world"):
    """How far equation 1 is from holding for the case's policy."""
    gap = (case.model.transitions - case.world.transitions) @ getattr(case, valued).values(case.policy)
    predicted = factor * case.world.discount**power * (getattr(case, visited).occupancy(case.policy) * gap).sum()
    return abs(case.model.expected_return(case.policy) - case.world.expected_return(case.policy) - sign * predicted)


def penalty(case, kind, factor=1.0, power=1):
    """lambda * u (S, A), with lambda = discount * c and an admissible u, or mutated."""
    estimator = case.distance(kind) + case.excess
    return factor * case.world.discount**power * case.constant(kind) * estimator


def lower_bound(case, kind, **mutation):
    """How far the penalised return is above the true one, of the case's policy and of every deterministic one: equation 7."""
    careful = theory.penalised(case.model, penalty(case, kind, **mutation))
    return max(
        careful.expected_return(policy) - case.world.expected_return(policy) for policy in [case.policy, *case.world.policies()]
    )


def theorem(case, kind, twice=2.0, **mutation):
    """How far the planned policy's true return is below what equation 10 promises."""
    taken = penalty(case, kind, **mutation)
    planned = theory.penalised(case.model, taken).best_policy()
    promised = max(
        case.world.expected_return(policy) - twice * (case.model.occupancy(policy) * taken).sum()
        for policy in [case.policy, *case.world.policies()]
    )
    return promised - case.world.expected_return(planned)


def corollary(case, kind, twice=2.0):
    """The same of equation 11, at the worst of a grid of delta; errors are in units of lambda."""
    taken = penalty(case, kind)
    planned = theory.penalised(case.model, taken).best_policy()
    found = [
        ((case.model.occupancy(policy) * taken).sum(), case.world.expected_return(policy)) for policy in case.world.policies()
    ]
    errors, returns = np.array(found).T
    grid = np.linspace(errors.min(), errors.max(), 20)
    promised = [returns[errors <= delta + 1e-12 * case.scale].max() - twice * delta for delta in grid]
    return max(promised) - case.world.expected_return(planned)


@HOLDS
@given(cases())
def test_telescoping_lemma(case):
    assert lemma(case) <= 1e-12 * case.scale


@HOLDS
@given(cases())
def test_model_gap_and_occupancy_are_what_they_are_called(case):
    """By their sums over time, simulated from the definitions."""
    rho = case.model.occupancy(case.policy)
    assert np.isclose(rho.sum(), 1 / (1 - case.world.discount))
    assert np.isclose((rho * case.model.rewards).sum(), case.model.expected_return(case.policy), atol=1e-12 * case.scale)
    at, visits = case.world.start, np.zeros_like(rho)
    for step in range(800):  # 0.95^800 is 1e-18
        visits += case.world.discount**step * at[:, None] * case.policy
        at = np.einsum("s,sa,sat->t", at, case.policy, case.model.transitions)
    assert np.allclose(visits, rho, atol=1e-10)
    gap = theory.model_gap(case.world, case.model, case.policy)
    assert np.all(np.abs(gap) <= case.constant("l1") * case.distance("l1") + 1e-12 * case.scale)


@pytest.mark.parametrize("kind", DISTANCES)
def test_penalised_return_is_a_lower_bound(kind):
    @HOLDS
    @given(cases())
    def holds(case):
        assert lower_bound(case, kind) <= 1e-9 * case.scale

    holds()


@HOLDS
@given(cases())
def test_largest_reward_gives_a_constant(case):
    """c = r_max / (1 - discount), as in the paper, is never below the smallest one."""
    assert case.constant("l1") <= np.abs(case.world.rewards).max() / (1 - case.world.discount) + 1e-12 * case.scale


@HOLDS
@given(random_cases(lowest_reward=0))
def test_half_the_l1_distance_is_enough_where_no_reward_is_negative(case):
    assert lower_bound(case, "l1", factor=0.5) <= 1e-9 * case.scale


@pytest.mark.parametrize("kind", DISTANCES)
@pytest.mark.parametrize("statement", [theorem, corollary])
def test_planned_policy_is_as_good_as_promised(statement, kind):
    @HOLDS
    @given(cases())
    def holds(case):
        assert statement(case, kind) <= 1e-9 * case.scale

    holds()


@HOLDS
@given(cases())
def test_value_iteration_finds_the_best_of_all_policies(case):
    best = max(case.model.expected_return(policy) for policy in case.model.policies())
    assert np.isclose(case.model.expected_return(case.model.best_policy()), best, atol=1e-9 * case.scale)
    assert case.model.expected_return(case.policy) <= best + 1e-9 * case.scale


@HOLDS
@given(cases())
def test_stochastic_policies_need_no_larger_constant(case):
    values = case.world.values(case.policy)
    assert theory.sup_norm(values) <= case.constant("l1") + 1e-9 * case.scale
    assert theory.lipschitz(values, case.distances) <= case.constant("wasserstein") + 1e-9 * case.scale


@HOLDS
@given(cases())
def test_wasserstein_distance_is_scipy_s_on_a_line(case):
    line = np.cumsum(1 + np.abs(case.places[:, 0]))
    p, q = case.model.transitions[0, 0], case.world.transitions[0, 0]
    found = theory.wasserstein(p, q, np.abs(line[:, None] - line))
    assert np.isclose(found, wasserstein_distance(line, line, p, q), atol=1e-9)


MUTATIONS = {
    "lemma, sign": partial(lemma, sign=-1),
    "lemma, gamma lost": partial(lemma, power=0),
    "lemma, gamma twice": partial(lemma, power=2),
    "lemma, half": partial(lemma, factor=0.5),
    "lemma, twice": partial(lemma, factor=2),
    "lemma, occupancy under the truth, as equation 2 is printed": partial(lemma, visited="world"),
    "lemma, values of the model": partial(lemma, valued="model"),
    **{
        f"{name}, {kind}": partial(statement, kind=kind, **mutation)
        for kind in DISTANCES
        for name, statement, mutation in [
            ("lower bound, sign", lower_bound, {"factor": -1}),
            ("lower bound, no penalty", lower_bound, {"factor": 0}),
            ("lower bound, half", lower_bound, {"factor": 0.5}),
            ("lower bound, gamma twice", lower_bound, {"power": 2}),
            ("theorem, sign of the penalty", theorem, {"factor": -1, "twice": -2}),
            ("theorem, sign of the error", theorem, {"twice": -2}),
            ("theorem, error lost", theorem, {"twice": 0}),
            ("theorem, once", theorem, {"twice": 1}),
            ("theorem, half a penalty", theorem, {"factor": 0.5}),
            ("corollary, once", corollary, {"twice": 1}),
        ]
    },
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutated_statement_is_refuted(name):
    """`find` fails where there is no such MDP; its search is the same every time."""
    case = find(cases(), lambda case: MUTATIONS[name](case) > 1e-3, settings=SEARCH)
    assert MUTATIONS[name](case) > 1e-3


def test_a_lost_gamma_in_the_penalty_is_seen_where_the_bound_is_met():
    """With lambda = c the bound (7) holds everywhere; a tight MDP, which the search finds, tells it from gamma * c."""

    def met(case, **mutation):
        careful = theory.penalised(case.model, penalty(case, "l1", **mutation))
        wrong = case.distance("l1")[0].argmax()
        policy = np.eye(2)[[wrong] * 4]
        return np.isclose(careful.expected_return(policy), case.world.expected_return(policy), atol=1e-9)

    case = find(forks(), lambda case: case.distance("l1").max() > 0 and met(case), settings=SEARCH)
    assert lower_bound(case, "l1", power=0) <= 0 and not met(case, power=0)


def test_the_page(monkeypatch):
    """Its blocks run one after another, in the folder that it names, and print what stands below them."""
    monkeypatch.syspath_prepend(DOCS)
    blocks = re.findall("```python\n(.*?)```\n\n```text\n(.*?)```", (page := (DOCS / "theory.md").read_text()), re.DOTALL)
    assert len(blocks) == page.count("```python") > 4
    names = {}
    for block, shown in blocks:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(block, names)
        assert printed.getvalue() == shown
