"""Datasets: what a record of transitions says of itself, and its packed form, without a copy where there need be none."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from mopo_bench.common.errors import UserError
from mopo_bench.tasks.data import dataset as dataset_module
from mopo_bench.tasks.data.dataset import OfflineDataset, Packing
from mopo_bench.tasks.data.request import WINDOWS

ROWS, OBSERVATION_SIZE, ACTION_SIZE = 40, 3, 2
ARRAYS = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts", "valid_next")


def flags(*rows):
    found = np.zeros(ROWS, bool)
    found[list(rows)] = True
    return found


@pytest.fixture
def dataset():
    """Four episodes, each array on its own: rows 0-4 and 5-17 end in terminals, 18-30 by timeout; 31-39 is unfinished."""
    generator = np.random.default_rng(0)
    observations = generator.normal(size=(ROWS + 1, OBSERVATION_SIZE)).astype(np.float32)
    return OfflineDataset(
        observations=observations[:-1],
        actions=generator.uniform(-1, 1, (ROWS, ACTION_SIZE)).astype(np.float32),
        rewards=generator.normal(size=ROWS).astype(np.float32),
        next_observations=observations[1:],
        terminals=flags(4, 17),
        timeouts=flags(30),
        valid_next=~flags(4, 17, 30, 39),
        extras={"infos/qpos": np.arange(2.0 * ROWS).reshape(ROWS, 2)},
        provenance={"source": "file"},
    )


def packed(dataset):
    """The same rows as views of one table, and that table: written down here once more, column by column."""
    alive = 1 - dataset.terminals.astype(np.float32)
    parts = (dataset.observations, dataset.actions, dataset.rewards[:, None], alive[:, None], dataset.next_observations)
    table = np.concatenate(parts, axis=1)
    views = {"observations": table[:, :3], "actions": table[:, 3:5], "rewards": table[:, 5], "next_observations": table[:, 7:]}
    return replace(dataset, **views), table


# The packed table.


def test_a_packed_row():
    packing = Packing(OBSERVATION_SIZE, ACTION_SIZE)
    row = np.arange(packing.width)
    assert row.tolist() == list(range(10))
    assert {name: np.atleast_1d(view).tolist() for name, view in packing.views(row).items()} == {
        "observations": [0, 1, 2], "actions": [3, 4], "rewards": [5], "next_observations": [7, 8, 9]
    }  # fmt: skip
    assert row[packing.alive] == 6 and row[packing.observation_actions].tolist() == [0, 1, 2, 3, 4]


def test_views_of_one_table_are_kept_and_given_back(dataset):
    views, table = packed(dataset)
    for name in ARRAYS[:4]:
        assert np.shares_memory(getattr(views, name), table) and not getattr(views, name).flags.writeable
    assert views.table().base is not None and views.table().ctypes.data == table.ctypes.data
    assert np.array_equal(views.table(), table) and views.table().strides == table.strides
    with pytest.raises(ValueError, match="read-only"):
        views.table()[0, 0] = 1
    cut = views.head(20)
    assert cut.table().ctypes.data == table.ctypes.data and np.array_equal(cut.table(), table[:20])
    tail = replace(views, **{name: getattr(views, name)[33:] for name in ARRAYS}, extras={})
    assert np.shares_memory(tail.table(), table) and np.array_equal(tail.table(), table[33:])
    single = views.head(1)
    assert np.array_equal(single.table(), table[:1])


def test_a_copy_lies_in_a_table_of_its_own(dataset):
    views, table = packed(dataset)
    own = views.copy()
    beneath = own.table()
    assert own.digest() == views.digest() and own.provenance == views.provenance
    assert np.shares_memory(beneath, own.rewards) and np.array_equal(beneath, table)
    for name in ARRAYS:
        assert not np.shares_memory(getattr(own, name), getattr(views, name)) and not getattr(own, name).flags.writeable
    assert all(not np.shares_memory(own.extras[name], views.extras[name]) for name in views.extras)


def test_arrays_of_their_own_are_packed(dataset):
    _, table = packed(dataset)
    made = dataset.table()
    assert np.array_equal(made, table) and made.dtype == np.float32 and not np.shares_memory(made, dataset.observations)
    with pytest.raises(ValueError, match="read-only"):
        made[0, 0] = 1


@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "next_observations", "terminals"])
def test_a_replaced_array_is_in_the_table(dataset, name):
    views, table = packed(dataset)
    before = table.copy()
    changed = getattr(views, name).copy()
    changed[7] = ~changed[7] if changed.dtype == bool else 5
    other = replace(views, **{name: changed})
    expected = packed(replace(dataset, **{name: changed}))[1]
    assert np.array_equal(other.table(), expected) and not np.array_equal(expected, before)
    assert np.array_equal(table, before) and not np.shares_memory(other.table(), table)


def test_columns_in_another_order_are_not_taken_for_a_table(dataset):
    """Views of one memory, but successors for observations, or rewards of one row further down, or of every other row."""
    views, table = packed(dataset)
    swapped = replace(views, observations=views.next_observations, next_observations=views.observations)
    assert np.array_equal(swapped.table(), packed(swapped)[1])
    shifted = replace(views, extras={}, **{name: getattr(views, name)[:-1] for name in ARRAYS})
    shifted = replace(shifted, rewards=views.rewards[1:])
    sparse = replace(views.head(20), rewards=views.rewards[::2])
    assert np.array_equal(sparse.table()[:, 5], table[::2, 5])
    assert np.array_equal(shifted.table()[:, 5], table[1:, 5]) and np.array_equal(shifted.table()[:, :5], table[:-1, :5])


def test_arrays_in_any_layout_are_taken_as_they_are(dataset):
    backwards = {name: getattr(dataset, name)[::-1] for name in ARRAYS}
    contiguous = replace(dataset, extras={}, **{name: np.ascontiguousarray(array) for name, array in backwards.items()})
    backwards["observations"] = np.asfortranarray(backwards["observations"])
    strided = replace(dataset, extras={}, **backwards)
    assert np.shares_memory(strided.actions, dataset.actions)
    assert strided.digest() == contiguous.digest() != dataset.digest()
    assert np.array_equal(strided.table(), contiguous.table())


# The digest.


def test_digest_is_the_same_on_every_machine_and_version():
    number, flags = np.arange(4, dtype=np.float32), np.array([False, True, False, False])
    dataset = OfflineDataset(number[:, None], -number[:, None], number, number[:, None] + 1, flags, ~flags, ~flags)
    assert dataset.digest() == "aaef2c9d3fed7e5d2202dfe208e39cc355ac2f252bff58ffcfa056b0a65b80e1"


@pytest.mark.parametrize("slice_bytes", [1, 100, 1 << 23])
def test_digest_is_of_the_bytes_of_each_array(dataset, slice_bytes, monkeypatch):
    monkeypatch.setattr(dataset_module, "SLICE_BYTES", slice_bytes)
    state = hashlib.sha256()
    for name in ARRAYS:
        array = getattr(dataset, name)
        state.update(f"{name} {array.dtype.name} {array.shape}\n".encode() + array.tobytes())
    for each in (dataset, packed(dataset)[0], dataset.window("all")):
        assert each.digest() == state.hexdigest()


def test_a_digest_known_before_goes_with_the_same_rows_only(dataset):
    known = dataset.trusting("of before")
    assert known.digest() == known.window("all").digest() == "of before"
    for other in (dataset, known.head(39), replace(known, rewards=known.rewards + 1)):
        assert len(other.digest()) == 64


@pytest.mark.parametrize("name", ARRAYS)
def test_digest_notices_one_value_of_each_array(dataset, name):
    changed = getattr(dataset, name).copy()
    changed.flat[-2] = ~changed.flat[-2] if changed.dtype == bool else np.nextafter(changed.flat[-2], np.float32(9))
    assert replace(dataset, **{name: changed}).digest() != dataset.digest()


def test_arrays_are_read_only_so_that_the_digest_stays_true(dataset):
    for name in ARRAYS:
        with pytest.raises(ValueError, match="read-only"):
            getattr(dataset, name)[0] = 0
    source = np.zeros(ROWS, np.float32)
    replace(dataset, rewards=source)
    source[0] = 1.0  # the caller's own array stays writable


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rewards", np.zeros(ROWS)),
        ("rewards", np.zeros((ROWS, 1), np.float32)),
        ("terminals", np.zeros(ROWS - 1, bool)),
        ("next_observations", np.zeros((ROWS, OBSERVATION_SIZE + 1), np.float32)),
        ("extras", {"infos/qpos": np.zeros(ROWS - 1)}),
        ("extras", {"qpos": np.zeros(ROWS)}),
    ],
)
def test_a_wrong_array_is_refused_when_a_dataset_is_made(dataset, name, value):
    with pytest.raises(ValueError, match="qpos" if name == "extras" else name):
        replace(dataset, **{name: value})


# Episodes and windows.


def test_episode_statistics_equal_a_plain_double_loop(dataset):
    returns, lengths, row = [], [], 0
    while row < len(dataset):
        total, length = 0.0, 0
        while row < len(dataset):
            total, length, row = total + float(dataset.rewards[row]), length + 1, row + 1
            if dataset.terminals[row - 1] or dataset.timeouts[row - 1]:
                break
        returns.append(total)
        lengths.append(length)
    assert lengths == [5, 13, 13, 9]
    assert dataset.episode_lengths().tolist() == lengths
    assert dataset.episode_returns().dtype == np.float64
    np.testing.assert_allclose(dataset.episode_returns(), returns, rtol=1e-12)
    facts = dataset.describe()
    assert (facts["rows"], facts["episodes"]) == (ROWS, 4)
    assert not (dataset.terminals | dataset.timeouts)[-1]  # the last of them is cut
    assert dataset.whole_episodes().tolist() == [True, True, True, False]
    assert facts["return_min"] == pytest.approx(min(returns[:3])) and facts["return_max"] == pytest.approx(max(returns[:3]))
    assert facts["return_mean"] == pytest.approx(sum(returns[:3]) / 3)
    assert facts["action_min"] == dataset.actions.min() and facts["action_max"] == dataset.actions.max()


def test_what_is_left_of_a_cut_episode_is_no_return(dataset):
    """Of ten steps that cost 1 each, in episodes of ten: nobody returned -3."""
    ends = np.arange(ROWS) % 10 == 9
    costly = replace(dataset, rewards=np.full(ROWS, -1, np.float32), timeouts=ends, terminals=np.zeros(ROWS, bool)).head(33)
    facts = costly.describe()
    assert (facts["episodes"], facts["return_mean"], facts["return_max"], facts["return_min"]) == (4, -10, -10, -10)
    assert costly.episode_returns().tolist() == [-10, -10, -10, -3]
    assert costly.head(30).describe()["return_max"] == -10  # nothing is cut
    only = costly.head(7)  # it is all there is
    assert only.whole_episodes().tolist() == [True] and only.describe()["return_max"] == -7


def test_what_a_window_leaves_of_its_first_episode_is_no_return(dataset, monkeypatch):
    ends = np.arange(ROWS) % 10 == 9
    costly = replace(dataset, rewards=np.full(ROWS, -1, np.float32), timeouts=ends, terminals=np.zeros(ROWS, bool)).head(30)
    for rows, whole in ((13, [False, True]), (10, [True]), (3, [True]), (30, [True] * 3)):
        monkeypatch.setitem(WINDOWS, "last_1m", slice(-rows, None))
        last = costly.window("last_1m")
        assert last.whole_episodes().tolist() == whole
        assert last.describe()["return_max"] == (-3 if rows == 3 else -10)


def test_windows_cut_a_million_rows_at_either_end():
    rows = 1_000_005
    number = np.arange(rows, dtype=np.float32)
    flags = np.zeros(rows, bool)
    dataset = OfflineDataset(
        number[:, None], np.zeros((rows, 1), np.float32), number, number[:, None] + 1, flags, flags, ~flags,
        {"infos/row": np.arange(rows)}, {"source": "regenerated"},
    )  # fmt: skip
    for name, start, stop in (("all", 0, rows), ("last_1m", 5, rows), ("first_1m", 0, 1_000_000)):
        window = dataset.window(name)
        assert len(window) == stop - start
        assert (window.rewards[0], window.rewards[-1]) == (start, stop - 1)
        assert (window.extras["infos/row"][0], window.next_observations[-1, 0]) == (start, stop)
        within = {"starts_within_an_episode": True} if start else {}
        assert window.provenance == {"source": "regenerated", "window": name, "rows": [start, stop], **within}
        assert (window.digest() == dataset.digest()) == (name == "all")
    assert dataset.window("last_1m").head(10).provenance["rows"] == [5, 15]
    assert dataset.provenance == {"source": "regenerated"}
    with pytest.raises(UserError, match=r"last_2m.*last_1m"):
        dataset.window("last_2m")


def test_head_keeps_the_true_successor_of_its_last_row(dataset):
    head = dataset.head(8)
    assert len(head) == len(head.extras["infos/qpos"]) == 8
    assert head.valid_next[7] and np.array_equal(head.next_observations[7], dataset.observations[8])
    assert head.episode_lengths().tolist() == [5, 3]
    assert len(dataset.head(1000)) == ROWS and dataset.head(1000).provenance["rows"] == [0, ROWS]
    with pytest.raises(UserError, match="at least 1"):
        dataset.head(0)
