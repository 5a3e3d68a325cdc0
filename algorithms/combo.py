"""COMBO: CQL whose values are pushed down at model rollouts, too, and up on the dataset (Yu et al. 2021, arXiv 2102.08363).

gap_e  = mean log sum exp Q_e(s, .), s from both or from the rollouts alone,  - mean Q_e(s, a), (s, a) from the dataset
critic = mean (Q_e(s, a) - y)^2 + weight * gap_e,          (s, a) from both

The rest is CQL's, without its warm-up; the rollouts are MBPO's, and half of a batch is real. No use is made of the model's
uncertainty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ..common.errors import UserError
from ..common.settings import Choice
from .cql import CQL
from .learning.learner import Batch
from .learning.registry import register_algorithm
from .learning.rollouts import ModelRollouts


class COMBO(CQL):
    @dataclass(frozen=True)
    class Config(CQL.Config):
        lowered_states: Annotated[str, Choice("all", "model")] = "all"

    version = 1

    def lowered(self, batch: Batch) -> slice:
        real = self._real_rows(batch)
        return slice(real, None) if self.config.lowered_states == "model" else slice(None)

    def raised(self, batch: Batch) -> slice:
        return slice(self._real_rows(batch))

    def _real_rows(self, batch: Batch) -> int:
        rows, real = batch.rewards.shape[1], batch.real_rows
        if real is None or not 0 < real < rows:
            raise UserError(
                f"COMBO wants rows of the dataset and of the model in a batch, got {real} real ones of {rows}; "
                "choose another real_fraction"
            )
        return real


register_algorithm(
    "combo",
    COMBO,
    ModelRollouts,
    real_fraction=0.5,
    warmup_steps=0,
    title="COMBO",
    about="CQL on model rollouts, at whose states it pushes values down, too, and up on the dataset",
)
