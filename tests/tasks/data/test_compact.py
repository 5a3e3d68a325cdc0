"""Replay buffers as they are shipped: nothing is lost but digits after the fourth; fewer rows are whole episodes."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from mopo_bench.common.errors import UserError
from mopo_bench.tasks.data.behaviour_policies import BehaviourPolicy, roll_out
from mopo_bench.tasks.data.compact import read_compact, thinned, write_compact
from mopo_bench.tasks.data.dataset import COLUMNS
from mopo_bench.tasks.data.hdf5 import read_hdf5
from mopo_bench.tasks.registry import get_task


@pytest.fixture(scope="module")
def logged():
    """Hopper falls often, so that most episodes end in a terminal, whose successor is in no other row."""
    task = get_task("hopper-random")
    dataset = roll_out(task, BehaviourPolicy.random(task, 0), 2_000, 0)
    assert dataset.terminals.sum() > 20
    return dataset


@pytest.fixture
def written(logged, tmp_path):
    write_compact(logged, tmp_path / "small.hdf5", ["infos/qpos"])
    return tmp_path / "small.hdf5"


def test_all_rows_and_successors_return(logged, written):
    found = read_compact(written, action_low=-1, action_high=1)
    for name in ("terminals", "timeouts", "valid_next"):
        assert np.array_equal(getattr(found, name), getattr(logged, name)), name
    for name in ("observations", "next_observations", "actions", "rewards"):
        apart = np.abs(getattr(found, name).astype(np.float64) - getattr(logged, name))
        assert 0 < apart.max() < 1.1e-4, name
    assert sorted(found.extras) == ["infos/qpos"]
    assert np.abs(found.extras["infos/qpos"] - logged.extras["infos/qpos"]).max() < 1.1e-4
    assert found.provenance == logged.provenance


def test_a_reader_of_d4rls_layout_loses_the_last_successors_alone(logged, written):
    found = read_hdf5(written)
    assert np.array_equal(found.valid_next, ~(logged.terminals | logged.timeouts) & (np.arange(2_000) < 1_999))
    assert np.abs(found.next_observations - logged.next_observations)[found.valid_next].max() < 1.1e-4


def test_it_is_small(logged, written):
    arrays = sum(getattr(logged, name).nbytes for name in COLUMNS)
    assert written.stat().st_size < arrays / 2


def test_successors_from_elsewhere_are_refused(logged, tmp_path):
    moved = logged.next_observations.copy()
    moved[3] += 1
    with pytest.raises(UserError, match="next observations are not those of the row after"):
        write_compact(replace(logged, next_observations=moved), tmp_path / "small.hdf5")
    assert not list(tmp_path.iterdir())


def test_a_wrong_number_of_last_successors_is_refused(written):
    with h5py.File(written, "r+") as file:
        kept = file["final_observations"][1:]
        del file["final_observations"]
        file["final_observations"] = kept
    with pytest.raises(UserError, match="final_observations has shape"):
        read_compact(written, action_low=-1, action_high=1)


@pytest.mark.parametrize("rows", [100, 700, 1_500])
def test_thinned_keeps_whole_episodes_from_all_along(rows, logged):
    found = thinned(logged, rows)
    assert abs(len(found) - rows) <= logged.episode_lengths().max()
    episodes = {logged.observations[start].tobytes(): stop - start for start, stop in zip(*logged.episodes(), strict=True)}
    starts, stops = found.episodes()
    places = [list(episodes).index(found.observations[start].tobytes()) for start in starts]
    assert [episodes[found.observations[start].tobytes()] for start in starts] == list(stops - starts)
    assert places == sorted(places)
    assert abs(np.mean(places) / len(episodes) - 0.5) < 0.1  # neither the beginning nor the end alone
    assert found.provenance["thinned_from"] == 2_000


def test_thinned_knows_whether_its_first_episode_is_still_the_one_that_a_window_cut(logged):
    cut = logged.noting(starts_within_an_episode=True)
    for rows in (500, len(cut)):
        found = thinned(cut, rows)
        kept = (found.observations[0] == cut.observations[0]).all()
        assert found.whole_episodes()[0] == (not kept) and kept == (rows == len(cut))


def test_thinned_prefers_no_length_of_episodes(logged):
    """Of twenty logs of as many long episodes as short ones; filled up by rows, nine of ten that were kept were short."""
    kept = []
    for seed in range(20):
        lengths = np.random.default_rng(seed).permutation([5, 45] * 40)
        ends = np.isin(np.arange(2_000), np.cumsum(lengths) - 1)
        kept += list(thinned(replace(logged, terminals=np.zeros(2_000, bool), timeouts=ends), 250).episode_lengths())
    assert set(kept) == {5, 45} and len(kept) == 200
    assert 0.4 < np.mean(np.array(kept) == 5) < 0.6


def test_thinned_asked_for_more_is_the_whole(logged):
    assert thinned(logged, 2_000) is logged
    with pytest.raises(UserError, match="at least 1"):
        thinned(logged, 0)
