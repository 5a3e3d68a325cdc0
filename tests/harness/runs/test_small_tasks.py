"""What the small tasks are for shows in their scores."""

import numpy as np
import pytest
from mopo_bench import run


@pytest.mark.slow
def test_a_lost_penalty_shows_on_point_edge(tmp_path):
    """Without the penalty MOPO is MBPO, which runs over the edge; on two seeds that is far more than chance makes."""
    last = {"mopo": [], "mbpo": []}
    for record in run(tasks=["point-edge"], algorithms=list(last), seeds=[11, 12], results=tmp_path, group=2):
        last[record.algorithm].append(record.evaluations[-1]["return_mean"])
    mopo, mbpo = np.array(last["mopo"]), np.array(last["mbpo"])
    assert len(mopo) == len(mbpo) == 2
    assert mopo.min() > 90 and (mopo - mbpo).mean() > 20
