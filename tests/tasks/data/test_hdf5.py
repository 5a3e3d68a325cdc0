"""Files: one comes back bit for bit, what it leaves out is inferred, and a bad one is refused in one line."""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from bad_files import ACTION_SIZE, BAD, BROKEN, DOCUMENT, OBSERVATION_SIZE, ROWS, columns, complaint, document, poke, save
from mopo_bench.common.errors import UserError
from mopo_bench.tasks.data import dataset as dataset_module
from mopo_bench.tasks.data.episodes import infer_timeouts
from mopo_bench.tasks.data.hdf5 import read_hdf5, trouble_reported, write_hdf5

ARRAYS = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts", "valid_next")


def rows_where(mask):
    return np.flatnonzero(mask).tolist()


@pytest.fixture
def v0(tmp_path):
    return save(tmp_path / "dataset.hdf5", columns())


@pytest.fixture
def dataset(tmp_path):
    """Four episodes: rows 0-4 and 5-17 end in terminals, 18-30 by timeout; 31-39 is unfinished."""
    arrays = columns() | {"infos/qpos": np.arange(2.0 * ROWS).reshape(ROWS, 2)}
    path = save(tmp_path / "source.hdf5", arrays)
    return read_hdf5(path, max_episode_steps=10 + 3, provenance={"policy": "random", "seed": 3})


# What the two layouts say, and what is inferred.


def test_v0_without_timeouts_infers_them(v0):
    dataset = read_hdf5(v0, max_episode_steps=10)
    # 0-4 terminal; 5-14 timeout; 15-17 terminal; 18-27 and 28-37 timeout; 38-39 unfinished.
    assert rows_where(dataset.timeouts) == [14, 27, 37]
    assert rows_where(~dataset.valid_next) == [4, 14, 17, 27, 37, 39]
    assert rows_where(~dataset.critic_rows) == [14, 27, 37, 39]
    assert dataset.dynamics_rows is dataset.valid_next
    valid = dataset.valid_next[:-1]
    assert np.array_equal(dataset.next_observations[:-1][valid], dataset.observations[1:][valid])
    starts, stops = dataset.episodes()
    assert starts.tolist() == [0, 5, 15, 18, 28, 38] and stops.tolist() == [5, 15, 18, 28, 38, 40]
    facts = dataset.describe()
    assert (facts["repaired"], facts["dropped"], facts["timeouts"], facts["terminals"]) == (3, 4, 3, 2)


def test_v0_with_timeouts_takes_them_as_they_are(tmp_path):
    timeouts = np.zeros(ROWS, np.uint8)
    timeouts[[11, 39]] = 1
    dataset = read_hdf5(save(tmp_path / "a.hdf5", columns() | {"timeouts": timeouts}), max_episode_steps=10)
    assert rows_where(dataset.timeouts) == [11, 39]
    assert rows_where(~dataset.valid_next) == [4, 11, 17, 39]
    assert dataset.describe()["repaired"] == 0
    assert dataset.episodes()[1].tolist() == [5, 12, 18, 40]


def test_v2_next_observations_are_kept_and_valid_everywhere(tmp_path):
    arrays = columns() | {"next_observations": np.full((ROWS, OBSERVATION_SIZE), 7.0)}
    dataset = read_hdf5(save(tmp_path / "a.hdf5", arrays), max_episode_steps=10)
    assert dataset.valid_next.all() and (dataset.next_observations == 7).all()
    assert dataset.next_observations.dtype == np.float32
    assert dataset.describe()["dropped"] == 0


def test_a_terminal_restarts_the_count_and_is_not_a_timeout():
    terminals = np.zeros(12, bool)
    terminals[[2, 6]] = True
    # Rows 3-6 end in a terminal at the limit; 7-10 by timeout.
    assert rows_where(infer_timeouts(np.zeros((12, 3)), terminals, 4)) == [10]


def test_columns_are_squeezed_and_converted(tmp_path):
    arrays = columns()
    plain = read_hdf5(save(tmp_path / "plain.hdf5", arrays))
    arrays |= {
        "observations": arrays["observations"].astype(np.float64),
        "rewards": arrays["rewards"][:, None],
        "terminals": arrays["terminals"][:, None].astype(np.float64),
    }
    assert read_hdf5(save(tmp_path / "other.hdf5", arrays)).digest() == plain.digest()
    integers = columns() | {"observations": np.arange(ROWS)[:, None]}
    assert read_hdf5(save(tmp_path / "integers.hdf5", integers)).observations[7, 0] == 7.0


def test_actions_are_clipped_within_the_tolerance_or_on_request(tmp_path):
    arrays = columns()
    arrays["actions"][3, 1] = 1.0009
    nearly = read_hdf5(save(tmp_path / "nearly.hdf5", arrays))
    assert nearly.actions[3, 1] == 1.0 and "clipped_actions" not in nearly.provenance
    arrays["actions"][[5, 8], 0] = [-4.0, 2.0]
    clipped = read_hdf5(save(tmp_path / "far.hdf5", arrays), clip_actions=True)
    assert clipped.actions[[5, 8], 0].tolist() == [-1.0, 1.0] and clipped.provenance["clipped_actions"] == 2
    wide = read_hdf5(tmp_path / "far.hdf5", action_low=np.array([-4.0, -1.5]), action_high=np.array([2.0, 1.5]))
    assert np.array_equal(wide.actions, arrays["actions"])


# Slices.


def save_in_chunks(path, arrays, chunks):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            shape = chunks if chunks is True else (chunks, *array.shape[1:])
            file.create_dataset(name, data=array, chunks=shape, compression="gzip")
    return path


def test_slices_make_no_difference(tmp_path, monkeypatch):
    arrays = columns() | {"infos/qpos": np.arange(2.0 * ROWS).reshape(ROWS, 2), "infos/count": np.arange(ROWS)}
    plain = save(tmp_path / "plain.hdf5", arrays)
    whole = read_hdf5(plain, max_episode_steps=10)
    for slice_bytes in (1, 45, 12 * ROWS - 1, 12 * ROWS):
        monkeypatch.setattr(dataset_module, "SLICE_BYTES", slice_bytes)
        for path in (plain, *(save_in_chunks(tmp_path / f"{chunks}.hdf5", arrays, chunks) for chunks in (True, 1, 7, ROWS))):
            read = read_hdf5(path, max_episode_steps=10)
            for name in ARRAYS:
                assert np.array_equal(getattr(read, name), getattr(whole, name)), name
            assert read.extras.keys() == whole.extras.keys()
            assert all(np.array_equal(read.extras[name], array) for name, array in whole.extras.items())
            assert read.digest() == whole.digest()


def test_no_chunk_is_unpacked_twice(tmp_path, monkeypatch):
    path = save_in_chunks(tmp_path / "a.hdf5", columns(), 7)
    monkeypatch.setattr(dataset_module, "SLICE_BYTES", 12 * 17)  # 17 rows of observations: 14 are whole chunks
    asked = []
    original = h5py.Dataset.__getitem__

    def note(node, rows, **options):
        if node.name == "/observations":
            asked.append((rows.start, rows.stop))
        return original(node, rows, **options)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", note)
    read_hdf5(path)
    assert asked == [(0, 14), (14, 28), (28, 40)]


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_few_rows(rows, tmp_path):
    arrays = {name: array[:rows] for name, array in columns().items()}
    dataset = read_hdf5(save(tmp_path / "a.hdf5", arrays))
    assert np.array_equal(dataset.next_observations[:-1], dataset.observations[1:])
    assert np.array_equal(dataset.next_observations[-1], dataset.observations[-1]) and not dataset.valid_next[-1]


@pytest.mark.parametrize("slice_bytes", [1, 45, 1 << 20])
def test_bad_rows_are_counted_over_the_whole_file(v0, monkeypatch, slice_bytes):
    monkeypatch.setattr(dataset_module, "SLICE_BYTES", slice_bytes)
    for edit, words in (
        (poke("rewards", [3, 4, 20, 39], np.nan), "rewards is not finite as float32 in 4 rows, first in row 3;"),
        (poke("terminals", [13, 38], 7), "terminals is neither 0 nor 1 in 2 rows, first in row 13;"),
        (poke("actions", ([30, 31, 39], [0, 1, 0]), [1.5, -1.75, 1.75]), "in 3 rows, the worst by 0.75 in row 31;"),
    ):
        whole = v0.read_bytes()
        with h5py.File(v0, "r+") as file:
            edit(file)
        assert words in refusal(v0)
        v0.write_bytes(whole)


def test_the_arrays_are_views_of_one_table(tmp_path):
    for arrays in (columns(), columns() | {"next_observations": np.ones((ROWS, OBSERVATION_SIZE))}):
        dataset = read_hdf5(save(tmp_path / "a.hdf5", arrays))
        table = dataset.table()
        assert all(np.shares_memory(table, getattr(dataset, name)) for name in ARRAYS[:4])
        assert np.array_equal(table[:, 6], 1 - dataset.terminals)


# Writing.


@pytest.mark.parametrize("compression", ["gzip", "lzf"])
def test_round_trip_is_bit_identical(dataset, tmp_path, compression):
    write_hdf5(dataset, tmp_path / "new" / "copy.hdf5", compression=compression)
    copy = read_hdf5(tmp_path / "new" / "copy.hdf5")
    for name in ARRAYS:
        written, again = getattr(dataset, name), getattr(copy, name)
        assert written.dtype == again.dtype and written.tobytes() == again.tobytes(), name
    assert copy.extras.keys() == dataset.extras.keys() == {"infos/qpos", "infos/timeout_inferred"}
    assert all(np.array_equal(copy.extras[name], array) for name, array in dataset.extras.items())
    assert copy.extras["infos/qpos"].dtype == np.float64
    assert copy.provenance == dataset.provenance == {
        "source": "file", "file": "source.hdf5", "policy": "random", "seed": 3
    }  # fmt: skip
    assert copy.describe() == dataset.describe() and copy.describe()["repaired"] == 1
    assert os.listdir(tmp_path / "new") == ["copy.hdf5"]


def test_a_failing_write_leaves_the_old_file_and_nothing_else(dataset, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    folder.mkdir()
    target = folder / "dataset.hdf5"
    target.write_bytes(b"old")
    with pytest.raises(ValueError, match="nonsense"):
        write_hdf5(dataset, target, compression="nonsense")
    with pytest.raises(TypeError):
        write_hdf5(replace(dataset, provenance={"policy": object()}), target)

    def refuse(source, destination):
        assert Path(source).parent == folder and h5py.is_hdf5(source)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(UserError, match=r"dataset\.hdf5.*No space left"):
            write_hdf5(dataset, target)
    assert os.listdir(folder) == ["dataset.hdf5"] and target.read_bytes() == b"old"
    with pytest.raises(UserError, match="cannot be written"):
        write_hdf5(dataset, folder)  # a directory stands there
    assert sorted(os.listdir(tmp_path)) == ["out", "source.hdf5"]
    write_hdf5(dataset, target)
    assert read_hdf5(target).digest() == dataset.digest()


def test_digest_knows_values_only(dataset, tmp_path):
    digests = set()
    for compression in ("gzip", "lzf"):
        path = tmp_path / f"{compression}.hdf5"
        write_hdf5(dataset, path, compression=compression)
        digests.add(read_hdf5(path).digest())
    assert (tmp_path / "gzip.hdf5").read_bytes() != (tmp_path / "lzf.hdf5").read_bytes()
    digests.add(replace(dataset, extras={}, provenance={"seed": 4}).digest())
    assert digests == {dataset.digest()} and len(dataset.digest()) == 64


# Bad files, see bad_files.py.


def refusal(path, **options):
    with pytest.raises(UserError) as caught:
        read_hdf5(path, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and path.name.splitlines()[0] in message, message
    return message


@pytest.mark.parametrize(("edit", "words"), BAD.values(), ids=BAD.keys())
def test_bad_file_is_refused_in_one_line(v0, edit, words):
    read_hdf5(v0, observation_size=OBSERVATION_SIZE, action_size=ACTION_SIZE)  # it is good before the edit
    with h5py.File(v0, "r+") as file:
        edit(file)
    message = refusal(v0)
    assert words in message and "damaged" not in message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"observation_size": 17}, "observations has 3 columns, expected 17"),
        ({"action_size": 6}, "actions has 2 columns, expected 6"),
    ],
)
def test_another_tasks_file_is_refused(v0, options, words):
    assert words in refusal(v0, **options)


def test_what_is_not_a_whole_hdf5_file_is_refused(v0, tmp_path):
    whole = v0.read_bytes()
    assert "does not exist" in refusal(tmp_path / "missing.hdf5")
    assert "is a directory" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe.hdf5")
    assert "not a regular file" in refusal(tmp_path / "pipe.hdf5")
    for content in (b"", b"<html>404</html>", whole[4:]):
        v0.write_bytes(content)
        assert "not an HDF5 file" in refusal(v0)
    for size in (9, len(whole) // 2, len(whole) - 1):
        v0.write_bytes(whole[:size])
        assert "truncated" in refusal(v0)
    odd = tmp_path / "two\nlines.hdf5"
    odd.write_bytes(b"")
    refusal(odd)


def test_a_file_that_another_process_holds_open_is_read(dataset, tmp_path):
    path = tmp_path / "held.hdf5"
    write_hdf5(dataset, path)
    script = "import h5py, sys; file = h5py.File(sys.argv[1], 'r+', locking=True); print(1, flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script, path], **pipes) as holder:
        holder.stdout.readline()
        with pytest.raises(BlockingIOError):  # it is locked
            h5py.File(path, "r", locking=True)
        assert read_hdf5(path).digest() == dataset.digest()
        holder.stdin.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_what_may_not_be_read_is_not_called_missing_or_damaged(v0):
    v0.chmod(0o600)
    for mode in (0o755, 0o000):  # of its folder: one that may be entered, and one that may not
        v0.parent.chmod(mode)
        os.seteuid(65534)
        try:
            message = refusal(v0)
        finally:
            os.seteuid(0)
        assert "it may not be read; check its permissions" in message


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BlockingIOError(errno.EAGAIN, "x"), "it is locked"),
        (OSError(errno.ESTALE, "x"), "the system cannot read it (Stale file handle)"),
        (OSError(errno.EINVAL, "x"), "truncated or damaged"),
        (OSError("inflate() failed"), "truncated or damaged"),
    ],
)
def test_what_the_system_says_of_a_file(error, words, tmp_path):
    with pytest.raises(UserError) as caught, trouble_reported(tmp_path / "a.hdf5"):
        raise error
    assert words in str(caught.value)


def test_no_file_has_such_a_name():
    assert "does not exist" in refusal(Path("a\0b"))


def test_damaged_bytes_never_raise_anything_but_a_user_error(v0):
    whole = v0.read_bytes()
    generator = np.random.default_rng(1)
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        for place in generator.integers(0, len(whole), 8):
            damaged[place] = generator.integers(256)
        v0.write_bytes(damaged)
        try:
            read_hdf5(v0)
        except UserError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1
    assert refused > 20


@pytest.mark.parametrize("kind", [*BROKEN, *BAD])
def test_bad_file_on_the_command_line(kind, tmp_path, monkeypatch):
    """Exit 2, one line, and nothing written: no results folder, nothing in the cache but the lock."""
    monkeypatch.setenv("MOPO_BENCH_DATA", str(tmp_path / "cache"))
    code, line = complaint(kind, tmp_path)
    assert code == 2 and len(line.splitlines()) == 1 and line.startswith("FILE: ")
    assert {path.name for path in tmp_path.iterdir()} <= {"dataset.hdf5", "cache"}
    assert [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()] in ([], [".lock"])


def test_the_documented_messages_are_those_that_come(tmp_path, monkeypatch):
    monkeypatch.setenv("MOPO_BENCH_DATA", str(tmp_path / "cache"))
    assert DOCUMENT.read_text() == document(tmp_path), "write it again with `python tests/tasks/data/bad_files.py`"
