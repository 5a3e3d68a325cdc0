"""For tests of your own algorithms and stages: the checks that every algorithm of this package passes.

Such a test is `check_contract(get_algorithm("mine"))`, with both from `mopo_bench.testing`.
"""

from .algorithms.learning.registry import get_algorithm
from .algorithms.learning.testing import Group, check_compiles, check_contract, check_resumes, small_problem

__all__ = ["Group", "check_compiles", "check_contract", "check_resumes", "get_algorithm", "small_problem"]
