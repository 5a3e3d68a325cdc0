"""`results/publish.py`: which runs stand behind the tables of the pages."""

import runpy
import sys
from pathlib import Path

from mopo_bench import load

SCRIPT = Path(__file__).resolve().parents[3] / "results" / "publish.py"


def test_a_diverged_run_is_published_and_one_that_failed_is_named(records, monkeypatch, capsys, tmp_path):
    records.add([1.0, 2.0, 3.0, 4.0], states=["done", "diverged", "failed", "running"])
    records.add([1.0], algorithm="sac")
    main = runpy.run_path(str(SCRIPT))["main"]
    monkeypatch.setitem(main.__globals__, "PUBLISHED", tmp_path / "published")
    monkeypatch.setattr(sys, "argv", ["publish.py", str(records.root), "mine", "hopper-medium/mopo"])
    main()
    found = load(tmp_path / "published" / "mine").runs
    assert dict(zip(found.seed, found.state, strict=True)) == {0: "done", 1: "diverged"}
    said = capsys.readouterr().out
    assert "not taken: hopper-medium/mopo/a seed 2, failed" in said and "seed 3, running" in said and "2 runs are in" in said
