"""What no machine can hold is said before anything is reserved, and what is less than was asked for is said, too."""

from dataclasses import replace

import pytest
from mopo_bench.harness.cli.run import shortfalls


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", "sac.hidden=1000000,1000000"), "point-angle, sac: hidden=1000000,1000000 takes at least 16,000 GB"),
        (("--set", "sac.batch_size=100000000000000"), "batch_size=100000000000000 in layers of 16 takes at least"),
        (("--steps", 10**15, "--evaluate-every", 1), "the record of 1,000,000,000,000,000 evaluations"),
    ],
)
def test_more_than_memory_is_refused(words, said, arguments, command, tmp_path):
    finished = command(*arguments("sac", results=tmp_path / "runs"), *words)
    assert finished.code == 2 and said in finished.err and " GB here" in finished.err
    assert len(finished.err.splitlines()) == 1 and not (tmp_path / "runs").exists()


def test_fewer_rows_than_asked_for_are_said(plan, tmp_path):
    here = plan("sac", results=tmp_path)
    (cell,) = here.cells
    rows = cell.data["rows"]
    more = replace(here, cells=(replace(cell, dataset=replace(cell.dataset, rows=rows + 1)),))
    assert shortfalls(here) == []
    assert shortfalls(more) == [f"point-angle: --rows {rows + 1:,} asks for more than there are: all {rows:,} are used"]
