"""For tests of your own algorithms and stages: the checks that every algorithm of this package passes.

from mopo_bench.testing import check_contract
def test_mine():
    check_contract(get_algorithm("mine"))
"""

from .algorithms.learning.testing import Group, check_compiles, check_contract, check_resumes, small_problem

__all__ = ["Group", "check_compiles", "check_contract", "check_resumes", "small_problem"]
