"""Section 4 of MOPO (Yu et al. 2020, arXiv 2005.13239) in tables: MDPs with S states and A actions, solved exactly.

For `docs/theory.md` and its tests. It is no part of the package, since no run computes with it. Policies are arrays (S, A) of
probabilities, transitions (S, A, S), rewards (S, A); returns are discounted, and occupancies are not normalised.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from scipy.optimize import linprog


@dataclass(frozen=True)
class MDP:
    """A Markov decision process: transitions (S, A, S), rewards (S, A), start distribution (S,), discount below 1."""

    transitions: np.ndarray
    rewards: np.ndarray
    start: np.ndarray
    discount: float

    def values(self, policy: np.ndarray) -> np.ndarray:
        """V (S,) of a policy (S, A), which solves V = r + discount * P V."""
        return np.linalg.solve(np.eye(len(self.start)) - self.discount * self._steps(policy), (policy * self.rewards).sum(1))

    def occupancy(self, policy: np.ndarray) -> np.ndarray:
        """rho (S, A): the sum over time of discount^t P(s_t = s, a_t = a), which adds up to 1 / (1 - discount)."""
        visits = np.linalg.solve(np.eye(len(self.start)) - self.discount * self._steps(policy).T, self.start)
        return visits[:, None] * policy

    def expected_return(self, policy: np.ndarray) -> float:
        """eta of a policy (S, A): the expected sum of discounted rewards from the start distribution on."""
        return float(self.start @ self.values(policy))

    def best_policy(self) -> np.ndarray:
        """A deterministic policy (S, A) of the highest return, by value iteration; of equal actions it takes the first."""
        values, change = np.zeros(len(self.start)), np.inf
        while change > 1e-13 * (1 + np.abs(values).max()):
            action_values = self.rewards + self.discount * self.transitions @ values
            change, values = np.abs(action_values.max(1) - values).max(), action_values.max(1)
        return np.eye(self.rewards.shape[1])[action_values.argmax(1)]

    def policies(self) -> Iterator[np.ndarray]:
        """All A^S deterministic policies, each (S, A)."""
        states, actions = self.rewards.shape
        for chosen in product(range(actions), repeat=states):
            yield np.eye(actions)[list(chosen)]

    def _steps(self, policy: np.ndarray) -> np.ndarray:
        """P (S, S): from state to next state under a policy (S, A)."""
        return np.einsum("sa,sat->st", policy, self.transitions)


def l1(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The largest (p - q) f over -1 <= f <= 1, of distributions (..., S): the whole L1 distance, twice the total variation."""
    return np.abs(p - q).sum(-1)


def wasserstein(p: np.ndarray, q: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """The largest (p - q) f over all f with f_i - f_j <= distances_ij, of distributions (..., S): a linear program for each."""
    states = len(distances)
    above, below = np.nonzero(~np.eye(states, dtype=bool))
    slopes = np.eye(states)[above] - np.eye(states)[below]
    # a constant added to f changes nothing, so f is 0 in the first state
    bounds = [(0, 0), *[(None, None)] * (states - 1)]

    def largest(difference: np.ndarray) -> float:
        return max(0.0, -linprog(-difference, slopes, distances[above, below], bounds=bounds).fun)

    return np.apply_along_axis(largest, -1, p - q)


def sup_norm(values: np.ndarray) -> float:
    """The smallest c with V in c F, where F has the functions with -1 <= f <= 1; values (S,)."""
    return float(np.abs(values).max())


def lipschitz(values: np.ndarray, distances: np.ndarray) -> float:
    """The smallest c with V in c F, where F has the functions with f_i - f_j <= distances_ij; values (S,)."""
    apart = ~np.eye(len(distances), dtype=bool)
    return float((np.abs(values[:, None] - values)[apart] / distances[apart]).max(initial=0))


def model_gap(mdp: MDP, model: MDP, policy: np.ndarray) -> np.ndarray:
    """G (S, A) of lemma 4.1: the true value V after a step of the model, less that after a true step."""
    return (model.transitions - mdp.transitions) @ mdp.values(policy)


def penalised(model: MDP, penalty: np.ndarray) -> MDP:
    """The model with rewards r - penalty, where penalty (S, A) is lambda * u: the MDP in which MOPO plans."""
    return replace(model, rewards=model.rewards - penalty)
