"""MOPO: SAC at target entropy -3 on penalised model rollouts (Yu et al. 2020, arXiv 2005.13239, eq. 8 ff.).

The rollouts are MBPO's, but for the reward with which a model step is kept:
r~(s, a) = r(s, a) - lambda * u(s, a),  u the model's uncertainty
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ..common.settings import Choice, NonNegative
from .learning.dynamics import Prediction
from .learning.penalties import PENALTIES, SIMULATED
from .learning.registry import register_algorithm
from .learning.rollouts import ModelRollouts
from .sac import SAC


class PenalisedRollouts(ModelRollouts):
    @dataclass(frozen=True)
    class Config(ModelRollouts.Config):
        # see `penalties.py`; the code's standard deviation, not the formula's covariance
        penalty: Annotated[str, Choice(*PENALTIES, *SIMULATED)] = "max_std"
        penalty_coefficient: NonNegative = 1.0  # lambda
        penalised_reward: Annotated[str, Choice("sampled", "mean")] = "sampled"  # the code's; "mean" is the paper's

    version = 1
    all_networks = True

    def label(self, prediction: Prediction) -> tuple[Tensor, Tensor]:
        rewards = prediction.rewards if self.config.penalised_reward == "sampled" else prediction.mean_rewards
        return rewards - self.config.penalty_coefficient * self.uncertainty(prediction), prediction.terminals

    def uncertainty(self, prediction: Prediction) -> Tensor:
        if self.true_step is not None:
            return SIMULATED[self.config.penalty](prediction, self.true_step)
        return PENALTIES[self.config.penalty](prediction)

    @classmethod
    def needs_simulator(cls, config: Config) -> bool:
        return config.penalty in SIMULATED


register_algorithm(
    "mopo",
    SAC,
    PenalisedRollouts,
    target_entropy=-3.0,  # as MBPO's
    title="MOPO",
    about="SAC at target entropy -3 on model rollouts whose rewards are penalised by the model's uncertainty",
)
