"""How a policy is learned: one file per algorithm, a Config and its losses. Here they get their names."""

from .bc import BC
from .bear import BEAR
from .brac import BRAC, D4RLLoader
from .learning.registry import register_algorithm
from .mbpo import ModelRollouts
from .mopo import Penalised
from .sac import SAC

register_algorithm("bc", BC)
register_algorithm("sac", SAC)
# the authors' code sets a target entropy of -3 for every task, whatever its number of action dimensions
register_algorithm("mbpo", SAC, ModelRollouts, target_entropy=-3.0)
register_algorithm("mopo", SAC, Penalised, target_entropy=-3.0)
register_algorithm("bear", BEAR)
# as D4RL's paper words it: Lagrange threshold 10 (the upper end of log_multiplier_range, as in BEAR's own code), 5 samples
register_algorithm("bear-2020", BEAR, variant_of="bear", matched_samples=5)
register_algorithm("brac-p", BRAC, D4RLLoader, value_penalty=False)
register_algorithm("brac-v", BRAC, D4RLLoader)
