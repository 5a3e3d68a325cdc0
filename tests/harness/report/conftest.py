"""Synthetic run records, written and read as real ones are."""

import numpy as np
import pytest
from mopo_bench.harness.report.tables import table1
from mopo_bench.harness.runs.records import Store

HOPPER = "hopper-medium"
BUDGET = 1_000_000


class Records(Store):
    def add(
        self, returns, task=HOPPER, algorithm="mopo", identity="a", *, steps=BUDGET, states=None, stages=None, source="v0",
        rows=1000, digest=None, overrides=None, seeds=None, package="0.1.0",
        about=None, parameters=None, window="all", probes=None,
        values=None, warnings=None, metrics=None, stage_records=None,
    ):  # fmt: skip
        """A seed for each of `returns`: its last return, or its whole history. Without `about` an older record.

        values: by seed, the critics' mean value and the highest possible one at each evaluation. warnings: by seed.
        metrics: by seed and name, a number for each evaluation. stage_records: by seed, what is said of its fits.
        """
        digest = digest or ("0123456789abcdef" if (source, rows) == ("v0", 1000) else f"{source}-{rows}-0123456789")
        data = {
            "label": f"{task}@{source}", "source": source, "rows": rows, "episodes": 9, "digest": digest, "window": window,
            "return_max": 3000.0, "return_mean": 1000.0, "from": "a policy & <more>",
        }  # fmt: skip
        data |= probes or {}
        folder = self.cell_folder(task, algorithm, identity)
        cell = {"task": task, "algorithm": algorithm, "config": overrides or {}, "overrides": overrides or {}, "data": data}
        cell |= {"about": about} if about else {}
        cell |= {"rules": {"task": task, "parameters": parameters}} if parameters is not None else {}
        self.write_cell(folder, {**cell, "versions": {"learner": 1}, "package": package})
        for index, history in enumerate(returns):
            history = np.atleast_1d(history).tolist()
            record = {
                "seed": seeds[index] if seeds else index,
                "state": states[index] if states else "done",
                "steps": steps,
                "evaluations": [
                    {"step": steps - (len(history) - 1 - place) * 1000, "returns": [value], "return_mean": value}
                    for place, value in enumerate(history)
                ],
                "stages": stages or {},
                "stage_records": stage_records[index] if stage_records else {},
                **({"warnings": warnings[index]} if warnings else {}),
                "segments": [],
            }
            for row, (mean, highest) in zip(record["evaluations"], values[index] if values else (), strict=False):
                row["value"] = {"mean": mean, "highest": highest}
            for place, row in enumerate(record["evaluations"] if metrics else ()):
                row["metrics"] = {name: values[place] for name, values in metrics[index].items()}
            self.write_record(folder / f"seed-{record['seed']}", record)

    def cell(self, task=HOPPER, algorithm="mopo", build=table1, metric="last"):
        found = [
            each for row in build(self.runs(), metric).rows for each in row if (each.task, each.algorithm) == (task, algorithm)
        ]
        assert len(found) == 1, [each.algorithm for each in found]
        return found[0]


@pytest.fixture
def records(tmp_path):
    return Records(tmp_path / "runs")
