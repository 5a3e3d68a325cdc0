"""Code from outside: what it raises, leaves or names is its own run's affair, and what is not finite is divergence."""

import csv
import math
import sys

import pytest
import torch
from mopo_bench.algorithms.learning.dynamics import Dynamics
from mopo_bench.algorithms.learning.registry import Algorithm, all_algorithms
from mopo_bench.algorithms.sac import SAC
from mopo_bench.common import plugins
from mopo_bench.common.errors import UserError
from mopo_bench.harness.runs.ledger import load_runs, reason
from mopo_bench.harness.runs.runner import execute
from mopo_bench.tasks.environments import PointEnvironment

TINY = {"all.batch_size": 8, "all.hidden": "8,8"}


@pytest.fixture
def tiny(plan, tmp_path):
    def make(*algorithms, settings=TINY, **options):
        return plan(*algorithms, results=tmp_path, settings=settings, steps=20, evaluate_every=10, episodes=1, **options)

    return make


def found(results):
    return {run.algorithm: run for run in load_runs(results)}


class Late(SAC):
    """Something happens in step 12: after the tries of a first use, and one evaluation."""

    def build(self):
        super().build()
        self.calls = torch.zeros(1)

    def update(self, batch, noise, phase):
        self.calls += 1
        metrics = super().update(batch, noise, phase)
        return metrics if self.calls < 12 else self.late(metrics)


class Named(SAC):
    """Its metrics are called as what a record says of returns is."""

    def update(self, batch, noise, phase):
        (first, *_), metrics = (each := super().update(batch, noise, phase)).values(), each
        return metrics | {name: first * 0 + 777 for name in ("return_mean", "return", "score", "returns", "step", "state")}


class Exits(Late):
    def late(self, metrics):
        sys.exit(0)


class ExitsActing(Late):
    def late(self, metrics):
        return metrics

    def act(self, observations, noise=None):
        if self.calls >= 12:
            sys.exit(0)
        return super().act(observations, noise)


class HidesWeights(Late):
    """Critics of NaN and infinities, metrics and actions that are finite."""

    worst = math.nan

    def late(self, metrics):
        self.critic.weights[0][:, 0] = self.worst
        return {name: values.nan_to_num(0.0) for name, values in metrics.items()}

    def update(self, batch, noise, phase):
        if self.calls >= 12:  # nothing is learned any more
            return {name: torch.zeros(len(self.seeds)) for name in self.names}
        metrics = super().update(batch, noise, phase)
        self.names = list(metrics)
        return metrics


class HidesInfinity(HidesWeights):
    worst = math.inf


def test_a_metric_never_takes_the_place_of_a_return(tiny, command, tmp_path):
    execute(tiny(Algorithm("named", Named), "sac"))
    runs = found(tmp_path)
    assert [row["returns"] for row in runs["named"].evaluations] == [row["returns"] for row in runs["sac"].evaluations]
    assert [row["return_mean"] for row in runs["named"].evaluations] == [row["return_mean"] for row in runs["sac"].evaluations]
    assert runs["named"].evaluations[-1]["metrics"]["return_mean"] == 777 and runs["named"].state == "done"
    shown = csv.DictReader(command("table", "scores", "--results", tmp_path, "--format", "csv").out.splitlines())
    rows = {row.pop("algorithm"): row for row in shown}
    for row in (rows["named"], rows["sac"]):
        del row["label"], row["identity"]
    assert rows["named"] == rows["sac"]


@pytest.mark.parametrize("kind", [Exits, ExitsActing])
def test_sys_exit_is_a_failure_of_the_run(kind, tiny, command, monkeypatch, tmp_path):
    """It had ended the grid, with exit status 0."""
    monkeypatch.setitem(all_algorithms(), "exits", Algorithm("exits", kind))
    outcome = execute(tiny("exits", "sac"))
    assert outcome == {"failed": ["point-angle/exits/seed-0"], "done": ["point-angle/sac/seed-0"]}
    assert reason(found(tmp_path)["exits"].record).startswith("SystemExit: 0 (test_foreign.py, line ")
    assert len(found(tmp_path)["exits"].evaluations) == 1


def test_sys_exit_in_an_environment_is_a_failure_of_the_run(tiny, monkeypatch, tmp_path):
    here = tiny("sac", settings=TINY)
    monkeypatch.setattr(PointEnvironment, "step", lambda self, action: sys.exit(0))
    assert execute(here) == {"failed": ["point-angle/sac/seed-0"]}


def test_sys_exit_in_a_plug_in_leaves_it_out(monkeypatch, capsys):
    class Entry:
        name, value, dist = "bad", "bad.module", None

        def load(self):
            sys.exit(0)

    monkeypatch.setattr(plugins, "entry_points", lambda group: [Entry()])
    monkeypatch.setattr(plugins, "_loaded", False)
    plugins.load_plugins()
    assert "plug-in bad (bad.module) does not load: SystemExit: 0" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [HidesWeights, HidesInfinity])
def test_weights_that_are_not_finite_are_divergence(kind, tiny, tmp_path):
    execute(tiny(Algorithm("hides", kind)))
    run = found(tmp_path)["hides"]
    assert run.state == "diverged" and len(run.evaluations) == 1
    assert "a weight was not finite" in reason(run.record)


def test_a_fit_that_is_not_finite_is_divergence(tiny, monkeypatch, tmp_path):
    fit = Dynamics.fit.__func__

    def broken(cls, *arguments, **options):
        state, record = fit(cls, *arguments, **options)
        state["weights"][0][0, 0] = math.nan
        return state, record

    monkeypatch.setattr(Dynamics, "fit", classmethod(broken))
    execute(tiny("mopo", settings={**TINY, "all.rollout_states": 10, "all.dynamics.max_epochs": 1}))
    assert "the dynamics that was fitted is not finite" in reason(found(tmp_path)["mopo"].record)


def test_a_learner_without_metrics_is_refused(tiny):
    """Its divergence could not be seen."""

    class Silent(SAC):
        def update(self, batch, noise, phase):
            super().update(batch, noise, phase)
            return {}

    with pytest.raises(UserError, match="expected a dict of metrics"):
        execute(tiny(Algorithm("silent", Silent)))
