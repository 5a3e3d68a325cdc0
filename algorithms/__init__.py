"""How a policy is learned: one file per algorithm, a Config and its losses. Here they get their names."""

from .bc import BC
from .mbpo import ModelRollouts
from .mopo import Penalised
from .registry import register_algorithm
from .sac import SAC

register_algorithm("bc", BC)
register_algorithm("sac", SAC)
# the authors' code sets a target entropy of -3 for every task, whatever its number of action dimensions
register_algorithm("mbpo", SAC, ModelRollouts, target_entropy=-3.0)
register_algorithm("mopo", SAC, Penalised, target_entropy=-3.0)
