import pytest
from mopo_bench.common.errors import UserError
from mopo_bench.harness.report.paper import paper_table, swapped_cells


def test_the_swapped_cells_are_those_that_the_authors_own_returns_contradict():
    named = {
        ("random", "BC"): (9.8, 1.6),
        ("mixed", "SAC"): (3.5, 1.9),
        ("mixed", "BEAR"): (25.3, 10.8),
        ("mixed", "BRAC-v"): (0.8, 0.9),
    }
    expected = {}
    for (quality, algorithm), (hopper, walker2d) in named.items():
        expected |= {(f"hopper-{quality}", algorithm): hopper, (f"walker2d-{quality}", algorithm): walker2d}
        printed = [paper_table("table1")[f"{domain}-{quality}", algorithm].mean for domain in ("hopper", "walker2d")]
        assert printed == [walker2d, hopper]
    assert swapped_cells() == expected


def test_paper_numbers_read_as_printed():
    assert paper_table("table1")["halfcheetah-random", "MOPO"] == (35.4, 2.5, 6, "S")
    assert paper_table("table1")["halfcheetah-random", "BC"] == (2.1, None, None, "S")
    assert paper_table("table2")["ant-angle", "Batch Max"] == (2311.9, None, None, "S")
    assert (len(paper_table("table1")), len(paper_table("table2"))) == (72, 16)
    with pytest.raises(UserError, match="'table1'"):
        paper_table("table11")
