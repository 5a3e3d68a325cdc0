"""Trees of lists, tuples and dicts."""

from typing import NamedTuple

from mopo_bench.common.trees import tree_leaves, tree_map


class Pair(NamedTuple):
    left: int
    right: list


def test_map_keeps_every_kind_of_branch():
    tree = {"a": [1, (2,)], "b": Pair(3, [4]), "c": (), "d": 5}
    assert tree_map(lambda leaf: 10 * leaf, tree) == {"a": [10, (20,)], "b": Pair(30, [40]), "c": (), "d": 50}
    assert isinstance(tree_map(str, tree)["b"], Pair)
    assert list(tree_leaves(tree)) == [1, 2, 3, 4, 5]
    assert tree_map(abs, -1) == 1 and list(tree_leaves(-1)) == [-1]
