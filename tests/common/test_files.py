"""A file is the old one or the new one, whatever goes wrong between."""

import os
import sys

import h5py
import numpy as np
import pytest
from mopo_bench.common.errors import WriteError
from mopo_bench.common.files import replace_file
from mopo_bench.tasks.data.behaviour_policies import BehaviourPolicy, roll_out
from mopo_bench.tasks.data.hdf5 import copy_with_rewards, write_hdf5
from mopo_bench.tasks.registry import get_task

HOPPER = get_task("hopper-random")


@pytest.fixture
def path(tmp_path):
    """Of a file that is there already."""
    found = tmp_path / "folder" / "file"
    found.parent.mkdir()
    found.write_text("old")
    return found


def assert_old(path):
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]


def test_new_file_in_a_new_folder(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    replace_file(path, lambda temporary: temporary.write_text("new"))
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("links", [True, False])
def test_one_that_is_kept_is_never_missing(links, path, monkeypatch):
    """Whoever looks, before and after anything that is done to the folder, finds the old one or the new one."""
    if not links:  # as a disk without them answers
        monkeypatch.setattr(os, "link", lambda *names: (_ for _ in ()).throw(PermissionError("no links here")))
    before, seen = path.with_name("before"), []

    def look(event, arguments):
        if watching and event.startswith("os.") and str(path.parent) in str(arguments[0]):
            seen.append((event, (path.read_text(), before.exists() and before.read_text())))

    watching = True
    sys.addaudithook(look)  # there is no taking it away
    for text in ("newer", "newest"):
        replace_file(path, lambda temporary, text=text: temporary.write_text(text), before)
    watching = False
    assert [event for event, *_ in seen].count("os.rename") == 4
    assert {texts for _, texts in seen} == {
        ("old", False), ("old", "old"), ("newer", "old"), ("newer", "newer"), ("newest", "newer")
    }  # fmt: skip
    assert (path.read_text(), before.read_text()) == ("newest", "newer")
    assert sorted(path.parent.iterdir()) == [before, path]


@pytest.mark.parametrize("error", [ZeroDivisionError, RuntimeError, KeyboardInterrupt])
def test_what_goes_wrong_in_the_writer_is_its_own(error, path):
    def half(temporary):
        temporary.write_text("ne")
        raise error("a bug")

    with pytest.raises(error, match="a bug"):
        replace_file(path, half)
    assert_old(path)


def test_what_the_system_refuses_is_one_line(path):
    def half(temporary):
        temporary.write_text("ne")
        raise OSError("disk\nfull")

    with pytest.raises(WriteError) as refused:
        replace_file(path, half)
    assert str(refused.value) == f"{path}: cannot be written (disk full); check the folder, its permissions and free space"
    assert_old(path)
    with pytest.raises(WriteError, match="file/below: cannot be written"):
        replace_file(path / "below", half)


@pytest.mark.parametrize("size", [0, 100, 30_000])
def test_full_disk(size, full_disk, path, tmp_path):
    """Small and large files, by every writer there is."""
    policy = BehaviourPolicy.random(HOPPER, 0)
    dataset = roll_out(HOPPER, policy, 2_000, 0)
    source = tmp_path / "source.hdf5"
    write_hdf5(dataset, source)
    writers = [
        lambda: replace_file(path, lambda temporary: temporary.write_text("new" * 20_000)),
        lambda: policy.save(path),
    ]
    if hasattr(os, "posix_fallocate"):  # elsewhere nothing keeps HDF5 from crashing
        writers += [lambda: write_hdf5(dataset, path), lambda: copy_with_rewards(source, path, np.zeros(2_000), {})]
    for write in writers:
        with full_disk(size), pytest.raises(WriteError, match=r"folder/file: cannot be written \(File too large\)"):
            write()
        assert_old(path)
    writers[-1]()
    assert h5py.is_hdf5(path) or path.read_bytes()
