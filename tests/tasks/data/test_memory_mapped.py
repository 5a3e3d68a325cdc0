"""Unpacked datasets: loaded in bounded memory, shared by processes, made once, never served half-written or damaged."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from mopo_bench.algorithms.learning.experience import Experience
from mopo_bench.common.errors import UserError
from mopo_bench.tasks.data import memory_mapped as arrays
from mopo_bench.tasks.data.hdf5 import read_hdf5, write_hdf5
from mopo_bench.tasks.data.memory_mapped import mapped
from mopo_bench.tasks.task import OfflineProblem
from mopo_bench.tasks.terminations import never

ROWS, OBSERVATION_SIZE, ACTION_SIZE = 60, 17, 6
NAMES = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts", "valid_next")


def write_v0(path, rows, **storage):
    """A file of the size of halfcheetah's: no next observations, no timeouts; written in pieces, since rows may be many."""
    generator = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        observations = file.create_dataset("observations", (rows, OBSERVATION_SIZE), np.float32, **storage)
        actions = file.create_dataset("actions", (rows, ACTION_SIZE), np.float32, **storage)
        for start in range(0, rows, 100_000):
            stop = min(start + 100_000, rows)
            observations[start:stop] = generator.random((stop - start, OBSERVATION_SIZE), np.float32)
            actions[start:stop] = generator.random((stop - start, ACTION_SIZE), np.float32)
        file.create_dataset("rewards", data=generator.random(rows, np.float32), **storage)
        file.create_dataset("terminals", data=np.arange(rows) % 300 == 299, **storage)
    return path


@pytest.fixture
def source(tmp_path):
    path = write_v0(tmp_path / "dataset.hdf5", ROWS)
    with h5py.File(path, "r+") as file:
        file["infos/qpos"] = np.arange(2.0 * ROWS).reshape(ROWS, 2)
        file["infos/.. and \n a name"] = np.arange(ROWS, dtype=">i2")
    return path


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "arrays"


def entries(folder):
    return sorted(path for path in folder.iterdir() if path.name != ".lock")


def table_size(dataset):
    return len(dataset) * dataset.packing.width * 4


def array_size(dataset):
    """Bytes of all that a dataset holds: the table, the flags and the extras."""
    return table_size(dataset) + sum(array.nbytes for array in (dataset.terminals, dataset.timeouts, dataset.valid_next)) + sum(
        array.nbytes for array in dataset.extras.values()
    )  # fmt: skip


def digest_of(dataset):
    """As documented, written down here once more."""
    state = hashlib.sha256()
    for name in NAMES:
        array = getattr(dataset, name)
        state.update(f"{name} {array.dtype.name} {array.shape}\n".encode() + array.tobytes())
    return state.hexdigest()


def problem_of(dataset):
    return OfflineProblem(OBSERVATION_SIZE, ACTION_SIZE, never, 0.99, 1000, dataset)


def is_mapped(array):
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return array is not None


# The same dataset.


def test_mapped_is_what_is_read(source, folder):
    plain = read_hdf5(source, max_episode_steps=20, provenance={"label": "x"})
    for _ in range(2):  # unpacked, and found
        dataset = mapped(source, folder, max_episode_steps=20, provenance={"label": "x"})
        for name in NAMES:
            array = getattr(dataset, name)
            assert is_mapped(array) and not array.flags.writeable
            assert array.dtype == getattr(plain, name).dtype and np.array_equal(array, getattr(plain, name)), name
        assert dataset.extras.keys() == plain.extras.keys() and len(dataset.extras) == 3
        for name, array in plain.extras.items():
            assert is_mapped(dataset.extras[name]) and np.array_equal(dataset.extras[name], array)
            assert dataset.extras[name].dtype == array.dtype
        assert dataset.provenance == plain.provenance == {"source": "file", "file": "dataset.hdf5", "label": "x"}
        assert dataset.digest() == plain.digest() == digest_of(dataset) == digest_of(plain)
        assert dataset.describe() == plain.describe()
        assert is_mapped(dataset.table()) and np.array_equal(dataset.table(), plain.table())
    assert len(entries(folder)) == 1


def test_windows_are_views_of_the_map(source, folder, monkeypatch):
    monkeypatch.setitem(sys.modules["mopo_bench.tasks.data.dataset"].WINDOWS, "last_1m", slice(-20, None))
    dataset = mapped(source, folder)
    last, plain = dataset.window("last_1m"), read_hdf5(source).window("last_1m")
    assert is_mapped(last.table()) and np.array_equal(last.table(), dataset.table()[-20:])
    assert last.digest() == plain.digest() == digest_of(last) != dataset.digest()
    assert last.provenance["rows"] == [40, 60]
    assert dataset.window("all").digest() == dataset.digest() and is_mapped(dataset.head(7).table())


def test_written_and_unpacked(source, folder, tmp_path):
    """What `write_hdf5` stores of the provenance comes with it."""
    first = mapped(source, folder, provenance={"policy": "random"})
    write_hdf5(first, tmp_path / "copy.hdf5")
    copy = mapped(tmp_path / "copy.hdf5", folder)
    assert copy.digest() == first.digest() and copy.provenance == first.provenance
    assert copy.extras.keys() == first.extras.keys()


def test_the_digest_is_stored(source, folder):
    """And not computed again; nor is the file read again."""
    mapped(source, folder)
    (entry,) = entries(folder)
    about = json.loads((entry / "about.json").read_text())
    (entry / "about.json").write_text(json.dumps({**about, "digest": "stored"}))
    assert mapped(source, folder).digest() == mapped(source, folder).window("all").digest() == "stored"


# Folders.


def test_what_differs_is_kept_apart(source, folder, monkeypatch):
    options = [{}, {"clip_actions": True}, {"action_high": 2.0}, {"action_high": np.full(ACTION_SIZE, 2.0)}, {"action_low": -9}]
    for count, each in enumerate(options, 1):
        mapped(source, folder, **each)
        mapped(source, folder, **each, provenance={"label": str(count)})  # labels share what they label
        assert len(entries(folder)) == count
    monkeypatch.setattr(arrays, "READER_VERSION", arrays.READER_VERSION + 1)
    mapped(source, folder)
    renamed = mapped(source.rename(source.with_name("other.hdf5")), folder)
    assert len(entries(folder)) == count + 2 and renamed.provenance["file"] == "other.hdf5"


def test_a_changed_file_is_unpacked_anew(source, folder):
    before = mapped(source, folder)
    first = before.digest()
    with h5py.File(source, "r+") as file:
        file["rewards"][5] = 3.0
    after = mapped(source, folder)
    assert after.rewards[5] == 3.0 and after.digest() == read_hdf5(source).digest() != first
    assert before.rewards[5] != 3.0 and len(entries(folder)) == 2


def test_a_file_that_changes_while_it_is_read_is_not_kept(source, folder, monkeypatch):
    def read_and_touch(path, **options):
        dataset = read_hdf5(path, **options)
        path.write_bytes(path.read_bytes() + b"more")
        return dataset

    monkeypatch.setattr(arrays, "read_hdf5", read_and_touch)
    with pytest.raises(UserError, match="changed while it was read"):
        mapped(source, folder)
    assert entries(folder) == []


@pytest.mark.parametrize("name", ["table.npy", "terminals.npy", "extra-4.npy", "about.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "longer"])
def test_a_damaged_folder_is_made_anew(source, folder, name, damage):
    kept = mapped(source, folder)
    (entry,) = entries(folder)
    path = entry / name
    content = path.read_bytes()
    path.unlink()  # a file of its own, or the map of `kept` would be damaged with it
    if damage != "missing":
        path.write_bytes({"truncated": content[:-1], "empty": b"", "longer": content + b"x"}[damage])
    again = mapped(source, folder)
    assert again.digest() == digest_of(again) == digest_of(kept) and path.read_bytes() == content
    assert entries(folder) == [entry]


def test_deleted_while_it_is_used(source, folder):
    dataset = mapped(source, folder)
    for path in entries(folder)[0].iterdir():
        path.unlink()
    assert digest_of(dataset) == dataset.digest() == mapped(source, folder).digest()


KILLED = """
import os, signal, sys
from pathlib import Path
from mopo_bench.tasks.data import memory_mapped as arrays

where, source, folder = sys.argv[1:]
die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
if where == "reading":
    import mopo_bench.tasks.data.hdf5 as hdf5
    hdf5._clip = die
else:
    setattr(arrays.os if where == "fsync" else arrays.Path, where, die)
arrays.mapped(source, Path(folder))
"""


@pytest.mark.parametrize("where", ["reading", "fsync", "rename"])
def test_a_killed_unpacking_leaves_nothing_that_is_read(source, folder, where, tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, where, source, folder], timeout=100)
    assert killed.returncode == -signal.SIGKILL
    (leftover,) = entries(folder)
    assert (leftover / "table.npy").stat().st_size > ROWS * 4
    other = write_v0(tmp_path / "other.hdf5", 20)  # whoever comes next tidies up
    assert len(mapped(other, folder)) == 20 and not leftover.exists()
    dataset = mapped(source, folder)
    assert dataset.digest() == digest_of(dataset) == read_hdf5(source).digest()
    assert len(entries(folder)) == 2


TWO_AT_ONCE = """
import sys, time
from pathlib import Path
from mopo_bench.tasks.data import memory_mapped as arrays

source, folder, signs, name = sys.argv[1], *map(Path, sys.argv[2:4]), sys.argv[4]
read_hdf5 = arrays.read_hdf5

def noted(*words, **options):
    (signs / f"read-by-{name}").touch()
    time.sleep(0.5)
    return read_hdf5(*words, **options)

arrays.read_hdf5 = noted
(signs / f"ready-{name}").touch()
until = time.monotonic() + 100
while len(list(signs.glob("ready-*"))) < 2 and time.monotonic() < until:
    time.sleep(0.001)
dataset = arrays.mapped(source, folder)
table = dataset.table()
address = table.ctypes.data
for line in Path("/proc/self/maps").read_text().splitlines():
    first, last = (int(end, 16) for end in line.split()[0].split("-"))
    if first <= address < last:
        print(dataset.digest(), *line.split()[1:])
"""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the maps of a process are Linux's")
def test_two_processes_at_once_unpack_once_and_map_the_same_file(source, folder, tmp_path):
    command = [sys.executable, "-c", TWO_AT_ONCE, source, folder, tmp_path]
    both = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in ("a", "b")]
    said = [process.communicate(timeout=200)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert len(list(tmp_path.glob("read-by-*"))) == 1 and len(entries(folder)) == 1
    digest, rights, *where = said[0]
    assert said[0] == said[1] and digest == read_hdf5(source).digest()
    assert rights == "r--s" and where[-1] == str(entries(folder)[0] / "table.npy")


# Errors.


def test_a_bad_file_is_refused_and_leaves_nothing(source, folder, tmp_path):
    with h5py.File(source, "r+") as file:
        file["actions"][3] = 1.5
    for path, words in (
        (source, "outside their box"),
        (tmp_path / "none.hdf5", "does not exist"),
        (tmp_path, "is a directory"),
    ):
        with pytest.raises(UserError, match=words) as refused:
            mapped(path, folder)
        assert len(str(refused.value).splitlines()) == 1
    os.mkfifo(tmp_path / "pipe.hdf5")
    with pytest.raises(UserError, match="not a regular file"):
        mapped(tmp_path / "pipe.hdf5", folder)
    assert entries(folder) == []
    assert mapped(source, folder, clip_actions=True).provenance["clipped_actions"] == 1


def refuse(*_):
    raise OSError(28, "No space left on device")


def test_a_folder_that_cannot_be_written(source, folder, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="MOPO_BENCH_DATA"):
        mapped(source, tmp_path / "file" / "arrays")
    for patched, name in ((os, "posix_fallocate"), (os, "fsync"), (Path, "rename")):
        with monkeypatch.context() as patch:
            patch.setattr(patched, name, refuse, raising=False)
            with pytest.raises(UserError, match=r"No space left.*MOPO_BENCH_DATA") as refused:
                mapped(source, folder)
        assert len(str(refused.value).splitlines()) == 1 and entries(folder) == []


def test_what_is_unpacked_is_served_from_a_folder_that_may_not_be_written(source, folder, monkeypatch):
    mapped(source, folder)
    monkeypatch.setattr(arrays.filelock, "FileLock", refuse)
    assert len(mapped(source, folder)) == ROWS


# Memory.


@pytest.mark.parametrize("storage", [{}, {"compression": "lzf", "shuffle": True}], ids=["contiguous", "chunks"])
def test_peak_of_numpys_memory(storage, tmp_path, folder):
    """All that is allocated is the arrays and a few slices; of a mapped dataset not even those."""
    path = write_v0(tmp_path / "a.hdf5", 300_000, **storage)
    mapped(write_v0(tmp_path / "small.hdf5", 10), folder)  # what is imported and cached at the first call
    tracemalloc.start()
    try:
        dataset = read_hdf5(path)
        peak, size = tracemalloc.get_traced_memory()[1], array_size(dataset)
        assert size < peak < 1.5 * size
        del dataset
        tracemalloc.reset_peak()
        dataset = mapped(path, folder)
        assert tracemalloc.get_traced_memory()[1] < 0.6 * size  # slices, whose size does not depend on the file's, and flags
        tracemalloc.reset_peak()
        mapped(path, folder).window("all").digest()
        Experience(problem_of(dataset), None, [0])
        assert tracemalloc.get_traced_memory()[1] < 0.1 * size
    finally:
        tracemalloc.stop()


def test_an_experience_draws_from_the_map(source, folder, recwarn):
    """No copy, no warning; the numbers of a plain read."""
    torch.set_warn_always(True)  # or only the first test of a process would see a warning
    try:
        experience, plain = (
            Experience(problem_of(dataset), None, [0, 1]) for dataset in (mapped(source, folder), read_hdf5(source))
        )
    finally:
        torch.set_warn_always(False)
    assert experience.table.data_ptr() == experience.problem.dataset.table().ctypes.data
    assert plain.table.data_ptr() == plain.problem.dataset.table().ctypes.data
    uniform = torch.rand(2, 50, dtype=torch.float64)
    assert torch.equal(experience.draw_real(uniform), plain.draw_real(uniform))
    assert not recwarn.list


MEASURED = """
import json, sys
from pathlib import Path
import torch
from mopo_bench.algorithms.learning.experience import Experience
from mopo_bench.tasks.data.memory_mapped import mapped
from mopo_bench.tasks.data.hdf5 import read_hdf5
from mopo_bench.tasks.terminations import never
from mopo_bench.tasks.task import OfflineProblem

def memory(what):  # bytes
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(what))

how, source, folder = sys.argv[1:]
torch.zeros(1000, 1000) @ torch.zeros(1000, 1000)  # the libraries' own memory
before = {what: memory(what) for what in ("VmRSS", "RssAnon")}
dataset = read_hdf5(source) if how == "read" else mapped(source, Path(folder))
used = {"peak": memory("VmHWM") - before["VmRSS"], "loaded": memory("RssAnon") - before["RssAnon"]}
experience = Experience(OfflineProblem(17, 6, never, 0.99, 1000, dataset), None, [0])
experience.draw_real(torch.rand(1, 100_000, dtype=torch.float64))
print(json.dumps({**used, "drawn": memory("RssAnon") - before["RssAnon"], "digest": dataset.digest()}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory of a process is measured on Linux")
def test_two_million_rows_in_bounded_memory(tmp_path, folder):
    """At most one and a half times the arrays where they are read into memory; mapped, next to nothing."""
    path = write_v0(tmp_path / "a.hdf5", 2_000_000, compression="lzf")

    def measure(how):
        command = [sys.executable, "-c", MEASURED, how, path, folder]
        return json.loads(subprocess.run(command, check=True, timeout=300, stdout=subprocess.PIPE, text=True).stdout)

    read, unpacked, found = measure("read"), measure("mapped"), measure("mapped")
    dataset = mapped(path, folder)
    size = array_size(dataset)
    assert size == 2_000_000 * (42 * 4 + 3)
    assert size < read["peak"] < 1.5 * size
    for each in (unpacked, found):
        assert each["loaded"] < 0.2 * size and each["drawn"] < 0.3 * size
        assert each["digest"] == read["digest"]
    assert read["digest"] == digest_of(dataset)
