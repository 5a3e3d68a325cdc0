"""Reading records and printing a table must not wait for libraries that learn, simulate or draw."""

import subprocess
import sys

CODE = """
import sys
import mopo_bench.harness.runs.records, mopo_bench.tasks.registry
before = set(sys.modules)
from mopo_bench.harness.report import plots, tables
heavy = {"torch", "pandas", "scipy", "gymnasium", "mujoco", "matplotlib", "seaborn"}
print(*sorted(heavy & (set(sys.modules) - before)))
"""


def test_tables_import_nothing_heavy_beside_the_records_and_the_registry():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
