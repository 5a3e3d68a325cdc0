"""For all tests: datasets are made in a folder of this test run, and nobody's own D4RL files are found."""

import os
import resource
from contextlib import contextmanager

import pytest


@pytest.fixture(autouse=True, scope="session")
def data_folder(tmp_path_factory):
    """One for all processes of a test run: what a dataset or a probe costs is paid once."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "data"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOPO_BENCH_DATA", str(folder))
        patch.setenv("D4RL_DATASET_DIR", str(folder / "no-d4rl"))
        patch.setenv("MOPO_BENCH_D4RL_MIRRORS", "")  # no server is asked
        yield folder


@pytest.fixture(scope="session")
def full_disk():
    """While `with full_disk(size):` lasts, the system refuses to let any file grow past `size` bytes; processes inherit it."""

    @contextmanager
    def limited(size):
        usual = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)

    return limited
