"""Bad dataset files: each kind with what makes a good file bad, and words that the complaint must hold.

python tests/tasks/data/bad_files.py        writes docs/bad-files.md, what is said of each
"""

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import gymnasium
import h5py
import numpy as np
from gymnasium.spaces import Box
from mopo_bench.tasks import registry
from mopo_bench.tasks.task import Problem, Task

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "bad-files.md"
ROWS, OBSERVATION_SIZE, ACTION_SIZE = 40, 3, 2


class Small(gymnasium.Env):
    """Has the sizes of the files; no run on one of them gets far."""

    observation_space = Box(-np.inf, np.inf, (OBSERVATION_SIZE,))
    action_space = Box(-1.0, 1.0, (ACTION_SIZE,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.normal(size=OBSERVATION_SIZE), {}

    def step(self, action):
        return self.np_random.normal(size=OBSERVATION_SIZE), 0.0, False, False, {}


gymnasium.register("mopo_bench_tests/Small-v0", Small)
TASK = Task("small", "mopo_bench_tests/Small-v0", Problem(OBSERVATION_SIZE, ACTION_SIZE))


def columns(rows=ROWS):
    """A v0 file's required arrays: terminals in rows 4 and 17."""
    generator = np.random.default_rng(0)
    terminals = np.zeros(rows, bool)
    terminals[[4, 17]] = True
    return {
        "observations": generator.normal(size=(rows, OBSERVATION_SIZE)).astype(np.float32),
        "actions": generator.uniform(-1, 1, (rows, ACTION_SIZE)).astype(np.float32),
        "rewards": generator.normal(size=rows).astype(np.float32),
        "terminals": terminals,
    }


def save(path, arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def put(key, value):
    def edit(file):
        if key in file:
            del file[key]
        file[key] = value

    return edit


def poke(key, row, value):
    """The same array in float64, with the values at `row` changed."""

    def edit(file):
        array = file[key][()].astype(np.float64)
        array[row] = value
        put(key, array)(file)

    return edit


def drop(key):
    return lambda file: file.pop(key)


def virtual(file):
    layout = h5py.VirtualLayout((ROWS,), np.float32)
    layout[:] = h5py.VirtualSource("elsewhere.hdf5", "rewards", (ROWS,))
    del file["rewards"]
    file.create_virtual_dataset("rewards", layout)


def external_storage(file):
    del file["rewards"]
    file.create_dataset("rewards", (ROWS,), np.float32, external=[("elsewhere.bin", 0, 4 * ROWS)])


def swapped(file):
    file.move("observations", "kept")
    file.move("actions", "observations")
    file.move("kept", "actions")


def python_objects(file):
    del file["rewards"]
    file.create_dataset("rewards", (ROWS,), dtype=h5py.vlen_dtype(np.float32))


def never_written(file):
    for name, shape in (("observations", (OBSERVATION_SIZE,)), ("actions", (ACTION_SIZE,)), ("rewards", ()), ("terminals", ())):
        del file[name]
        file.create_dataset(name, (1_000_000_000, *shape), np.float32, chunks=(1000, *shape))


# what is done to the opened file
BAD = {
    "required key missing": (drop("rewards"), "'rewards' is missing; add it (found: actions, observations, terminals)"),
    "misspelt key": (lambda file: file.move("observations", "observation"), "rename 'observation'"),
    "group for a dataset": (lambda file: file.pop("actions") and file.create_group("actions"), "actions is a group"),
    "group within infos": (lambda file: file.create_group("infos/qpos"), "infos/qpos is a group"),
    "dataset for a group": (put("infos", np.zeros(ROWS)), "infos is a dataset"),
    "named datatype": (put("timeouts", np.dtype("f4")), "timeouts is a datatype"),
    "scalar": (put("rewards", 1.0), "rewards is a scalar"),
    "null dataspace": (put("rewards", h5py.Empty("f4")), "rewards is a scalar"),
    "observations without columns": (put("observations", np.zeros(ROWS)), "observations has rank 1"),
    "actions of rank 3": (put("actions", np.zeros((ROWS, 2, 1))), "actions has rank 3"),
    "rewards of two columns": (put("rewards", np.zeros((ROWS, 2))), "rewards has rank 2"),
    "fewer rewards": (put("rewards", np.zeros(ROWS - 1)), "rewards has 39 rows"),
    "more timeouts": (put("timeouts", np.zeros(ROWS + 1, bool)), "timeouts has 41 rows"),
    "info of another length": (put("infos/qpos", np.zeros(3)), "infos/qpos has 3 rows"),
    "rows never written": (never_written, "it claims 1,000,000,000 rows, 28.0 GB, many times what its bytes can hold"),
    "zero rows": (put("observations", np.zeros((0, 3))), "observations is empty"),
    "zero columns": (put("actions", np.zeros((ROWS, 0))), "actions is empty"),
    "strings": (put("observations", np.full((ROWS, 3), b"a")), "dtype |S1"),
    "variable-length strings": (put("rewards", ["a"] * ROWS), "dtype object"),
    "complex": (put("observations", np.zeros((ROWS, 3), complex)), "dtype complex128"),
    "terminals of 2": (poke("terminals", 6, 2), "terminals is neither 0 nor 1 in 1 rows, first in row 6"),
    "terminals not a number": (poke("terminals", 6, np.nan), "terminals is neither"),
    "timeouts of a half": (put("timeouts", np.full(ROWS, 0.5)), "timeouts is neither 0 nor 1 in 40 rows"),
    "observations not a number": (poke("observations", (9, 1), np.nan), "observations is not finite"),
    "rewards infinite": (
        poke("rewards", slice(11, 14), -np.inf),
        "rewards is not finite as float32 in 3 rows, first in row 11",
    ),
    "float32 overflow": (poke("rewards", 2, 1e39), "first in row 2"),
    "next observations on a terminal": (
        lambda file: put("next_observations", np.where(file["terminals"][()], np.nan, 0.0)[:, None].repeat(3, 1))(file),
        "next_observations is not finite",
    ),
    "next observations of another size": (put("next_observations", np.zeros((ROWS, 4))), "4 columns, expected 3"),
    "actions above their box": (poke("actions", slice(20, 22), 1.5), "outside their box in 2 rows, the worst by 0.5"),
    "actions below their box": (poke("actions", 20, -1.002), "outside their box in 1 rows"),
    "soft link": (put("timeouts", h5py.SoftLink("/terminals")), "timeouts is a soft or external link"),
    "external link": (put("rewards", h5py.ExternalLink("/dev/zero", "rewards")), "rewards is a soft or external link"),
    "external link in infos": (put("infos/qpos", h5py.ExternalLink("a.hdf5", "b")), "infos/qpos is a soft or external"),
    "link for infos": (put("infos", h5py.SoftLink("/nowhere")), "infos is a soft or external link"),
    "link for provenance": (put("metadata/provenance", h5py.SoftLink("/rewards")), "provenance is a soft or external"),
    "virtual dataset": (virtual, "keeps its values in another file"),
    "external storage": (external_storage, "keeps its values in another file"),
    "provenance not JSON": (put("metadata/provenance", np.bytes_("{")), "not a JSON object"),
    "provenance a number": (put("metadata/provenance", 3), "not a JSON object"),
    "provenance an array": (put("metadata/provenance", [b"{}", b"{}"]), "not a JSON object"),
    "provenance a JSON list": (put("metadata/provenance", np.bytes_("[3]")), "not a JSON object"),
    "provenance of variable length": (put("metadata/provenance", "{}"), "in a fixed-length string"),
    "provenance a group": (lambda file: file.create_group("metadata/provenance"), "not a JSON object"),
    "arrays of Python objects": (python_objects, "dtype object"),
}


def cut(share):
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def contents(data):
    return lambda path: path.write_bytes(data)


def pickled(path):
    import pickle

    path.write_bytes(pickle.dumps(columns()))


def numpy_archive(path):
    np.savez(path.open("wb"), **columns())


def replaced_by_folder(path):
    path.unlink()
    path.mkdir()


def failing_disk(path):
    """A file whose first bytes no read gets: the system says so of a process's memory."""
    path.unlink()
    path.symlink_to("/proc/self/mem")


def killed_writer(path):
    script = f"import h5py, os; file = h5py.File({str(path)!r}, 'w', libver='latest'); file['rewards'] = [1.0]; file.flush()"
    subprocess.run([sys.executable, "-c", f"{script}; os._exit(0)"], check=True)


def edited(edit):
    def change(path):
        with h5py.File(path, "r+") as file:
            edit(file)

    return change


# what is done to the file from outside, and what only the task can tell
BROKEN = {
    "no such file": lambda path: path.unlink(),
    "a folder": replaced_by_folder,
    "empty": contents(b""),
    "a web page": contents(b"<html>404</html>"),
    "a pickle": pickled,
    "a NumPy archive": numpy_archive,
    "cut in half": cut(0.5),
    "cut by a tenth": cut(0.9),
    "on a disk that fails": failing_disk,
    "its writer was killed": killed_writer,
    "observations and actions exchanged": edited(swapped),
    "of another task": edited(put("actions", np.zeros((ROWS, 6)))),
}


def complaint(kind, folder):
    """Exit status and complaint of a run on that file, the file's own path shown as FILE."""
    from mopo_bench.harness.cli.main import main

    path = save(folder / "dataset.hdf5", columns())
    (BROKEN[kind] if kind in BROKEN else edited(BAD[kind][0]))(path)
    words = f"run --tasks small --algorithms bc --steps 1 --seeds 1 --results {folder / 'results'} --dataset {path}"
    error = io.StringIO()
    with (
        mock.patch.dict(registry._TASKS, small=TASK),
        mock.patch.object(sys, "argv", ["mopo-bench", *words.split()]),
        contextlib.redirect_stderr(error),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        try:
            main()
        except SystemExit as stopped:
            return stopped.code, error.getvalue().strip().removeprefix("mopo-bench: ").replace(str(path), "FILE")
    raise AssertionError("main always exits")


def document(folder):
    lines = [
        "# Bad files, and what is said of each",
        "",
        "`mopo-bench run --dataset FILE` with each of these files: exit status 2, this one line on standard error, nothing",
        "written. `data inspect FILE` says the same, but for what only a task can tell. Made by",
        "`python tests/tasks/data/bad_files.py`.",
        "",
        "| file | message |",
        "|---|---|",
    ]
    for number, kind in enumerate([*BROKEN, *BAD]):
        place = folder / str(number)
        place.mkdir(parents=True)
        code, line = complaint(kind, place)
        assert code == 2, (kind, code, line)
        # which differs between its versions
        line = re.sub(r"damaged \(.*\);", "damaged (and what HDF5 says of it);", line)
        lines.append(f"| {kind} | {line.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MOPO_BENCH_DATA"] = folder + "/cache"
        DOCUMENT.write_text(document(Path(folder)))
