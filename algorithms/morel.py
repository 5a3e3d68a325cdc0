"""MOReL: a pessimistic model that ends in a bad state where the ensemble does not know (Kidambi et al. 2020, arXiv 2005.05951).

disc(s, a)    = max_{i, j} |mu_i(s, a) - mu_j(s, a)|_2,  mu_i the mean of the next observation under network i
unknown(s, a) = disc(s, a) > max_{(s', a') of the dataset} disc(s', a') / pessimism
From an unknown pair the model goes to HALT, where every step from then on earns
r_HALT        = min(0, smallest reward of the dataset) - halt penalty

HALT is absorbing, so its value is known: a step into it enters the ring as the last one, with the reward
r~(s, a)      = r(s, a) + gamma r_HALT / (1 - gamma)
or, not absorbing, as in the authors' code,
r~(s, a)      = r(s, a) - halt penalty

Only what happens to uncertain steps differs from MOPO: model, rollouts and SAC at target entropy -3 are MBPO's. The authors
plan by natural policy gradient from initial states over hundreds of steps, with a policy that began as BC, in four
deterministic networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..common.errors import UserError
from ..common.settings import NonNegative, Positive
from .learning.dynamics import Prediction
from .learning.registry import register_algorithm
from .learning.rollouts import CHUNK, ModelRollouts
from .sac import SAC


class HaltingRollouts(ModelRollouts):
    @dataclass(frozen=True)
    class Config(ModelRollouts.Config):
        pessimism: Positive = 3.0  # by how much the threshold lies below the largest discrepancy of the dataset
        absorbing: bool = True  # whether HALT goes on for ever, or is the end
        halt_penalty: NonNegative = 0.0

    version = 1
    all_networks = True
    derived = ModelRollouts.derived | {"threshold"}

    def build(self) -> None:
        super().build()
        self.halted = -self.config.halt_penalty  # what all that follows an unknown pair is worth, beside its reward
        if self.config.absorbing:
            if (discount := self.problem.discount) >= 1:
                raise UserError(f"HALT has no value at discount {discount:g}, since it never ends; set absorbing=false")
            worst = min(0.0, float(self.problem.dataset.rewards.min()))
            self.halted = discount * (worst + self.halted) / (1 - discount)

    def label(self, prediction: Prediction) -> tuple[Tensor, Tensor]:
        unknown = ~(self.uncertainty(prediction) <= self.threshold[:, None])  # what is not a number is not known either
        return torch.where(unknown, prediction.rewards + self.halted, prediction.rewards), prediction.terminals | unknown

    def uncertainty(self, prediction: Prediction) -> Tensor:
        assert prediction.means is not None
        return discrepancy(prediction.means)

    @cached_property
    def threshold(self) -> Tensor:
        """(S,): beyond this discrepancy a pair is unknown."""
        largest = torch.zeros(len(self.seeds), dtype=self.dtype, device=self.device)
        for rows in self.table.split(CHUNK[self.device.type]):
            batch = self.layout.batch(rows.expand(len(self.seeds), -1, -1))
            means, _ = self.dynamics.predict(batch.observations, batch.actions)
            largest = torch.maximum(largest, discrepancy(means).amax(1))
        return largest / self.config.pessimism

    @cached_property
    def dataset_vitals(self) -> dict[str, Tensor]:
        return {**super().dataset_vitals, "threshold": self.threshold}


def discrepancy(means: Tensor) -> Tensor:
    """The largest distance (S, n) between two networks' next observations, of their means (S, E, n, 1 + obs), reward first."""
    successors = means[..., 1:].transpose(1, 2)
    pairs = torch.cdist(successors, successors, compute_mode="donot_use_mm_for_euclid_dist")
    return pairs.flatten(2).amax(2)


register_algorithm(
    "morel",
    SAC,
    HaltingRollouts,
    target_entropy=-3.0,  # as MBPO's
    title="MOReL",
    about="SAC at target entropy -3 on model rollouts that end, badly, where the networks of the ensemble disagree",
)
