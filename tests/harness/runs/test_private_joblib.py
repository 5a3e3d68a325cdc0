"""Process pools, by joblib's private names and without them."""

import os

import pytest
from mopo_bench.harness.runs import private_joblib
from mopo_bench.harness.runs.private_joblib import close_pool, kill_workers, process_pool


@pytest.mark.parametrize("private", [True, False])
def test_pool_of_processes(private, monkeypatch):
    assert private_joblib.loky is not None
    if not private:
        monkeypatch.setattr(private_joblib, "loky", None)
    pool = process_pool(1, 60)
    try:
        assert pool.submit(os.getpid).result() != os.getpid()
        assert pool.submit(divmod, 7, 2).result() == (3, 1)
    finally:
        close_pool(pool)
    with pytest.raises(RuntimeError):
        pool.submit(os.getpid)


def test_without_private_names_workers_are_left_alone(monkeypatch):
    monkeypatch.setattr(private_joblib, "loky", None)
    kill_workers()
