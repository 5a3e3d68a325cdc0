"""What takes minutes is announced where it begins, through `logging`: the commands, and `run` from Python, show it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

LOG = logging.getLogger("mopo_bench")


@contextmanager
def notices_shown() -> Iterator[None]:
    """Shows what this package announces on standard error, a line each, while the block runs."""
    handler, level = logging.StreamHandler(), LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(level)
