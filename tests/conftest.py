"""For all tests: batches are made in a folder of this test run, and nobody's own D4RL files are found."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def data_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOPO_BENCH_DATA", str(folder))
        patch.setenv("D4RL_DATASET_DIR", str(folder / "no-d4rl"))
        yield folder
