"""MBPO: SAC at target entropy -3 on model rollouts (Janner et al. 2019, arXiv 1906.08253), from a fixed dataset.

Every so many steps the policy is rolled out in the learned dynamics for a few steps, from states of the dataset:
s' , r ~ T_i(. | s, a),  a ~ pi(. | s),  T_i a random elite of the ensemble
A batch is mostly rows of these rollouts, as the model drew them, and a few of the dataset.
"""

from __future__ import annotations

from typing import Any

from .learning.registry import register_algorithm
from .learning.rollouts import ModelRollouts
from .sac import SAC

register_algorithm(
    "mbpo",
    SAC,
    ModelRollouts,
    target_entropy=-3.0,  # the authors' code: for every task, whatever its number of action dimensions
    title="MBPO",
    about="SAC at target entropy -3 on model rollouts",
)
# of the paper's figure 1 and appendix D: what the ensemble is worth
ONE_NETWORK: dict[str, Any] = {"dynamics.networks": 1, "dynamics.elites": 1}
register_algorithm(
    "mbpo-single",
    SAC,
    ModelRollouts,
    variant_of="mbpo",
    target_entropy=-3.0,
    title="MBPO, one network",
    about="MBPO whose dynamics model is one network in place of an ensemble",
    **ONE_NETWORK,
)
