"""What a run records of itself: impossible values, what its model predicts, how its fit went; and where metrics stand."""

import math

import pytest
import torch
from mopo_bench.algorithms.learning.experience import Experience
from mopo_bench.algorithms.learning.networks import squashed_log_prob
from mopo_bench.algorithms.learning.registry import Algorithm, get_algorithm
from mopo_bench.algorithms.learning.steps import TrainingSteps, highest_value
from mopo_bench.algorithms.learning.testing import Group, small_problem
from mopo_bench.algorithms.sac import SAC
from mopo_bench.harness.runs.ledger import load_runs
from mopo_bench.harness.runs.records import warnings
from mopo_bench.harness.runs.runner import execute


class Boasts(SAC):
    """Reports values that no reward allows from its step 30 on; and a metric with the name of the score."""

    def build(self):
        super().build()
        self.steps = torch.zeros(len(self.seeds))

    def update(self, batch, noise, phase):
        self.steps += 1
        metrics = super().update(batch, noise, phase)
        boast = torch.where(self.steps > 30, 1e6, metrics["critic_value"])
        return metrics | {"critic_value": boast, "return_mean": torch.full_like(boast, 777.0)}


class Shy(Boasts):
    """The same learner, saying nothing of it."""

    def update(self, batch, noise, phase):
        metrics = super().update(batch, noise, phase)
        return {name: values for name, values in metrics.items() if name != "critic_value"}


class Doubled(Experience):
    """Rewards are not those of the dataset, but those of its batches."""

    def draw(self, uniform):
        batch = super().draw(uniform)
        return batch._replace(rewards=2 * batch.rewards)


def runs_of(plan, results, *algorithms, **options):
    execute(plan(*algorithms, results=results, **options), jobs=1)
    return {run.algorithm: run for run in load_runs(results)}


def test_impossible_values_and_where_metrics_stand(plan, tmp_path):
    runs = runs_of(
        plan, tmp_path, Algorithm("boasts", Boasts), Algorithm("shy", Shy), Algorithm("doubled", SAC, Doubled), "sac", "bc"
    )
    assert {name: len(warnings(run.record)) for name, run in runs.items()} == {
        "boasts": 1, "shy": 0, "doubled": 0, "sac": 0, "bc": 0,
    }  # fmt: skip
    (said,) = warnings(runs["boasts"].record)
    assert said.startswith("at step 50 the critics' mean value is ")
    for row in runs["boasts"].evaluations:
        assert row["metrics"]["return_mean"] == 777.0 and row["return_mean"] == pytest.approx(sum(row["returns"]) / 3)
    assert "value" not in runs["bc"].evaluations[0]
    sac, doubled = (runs[name].evaluations[-1] for name in ("sac", "doubled"))
    assert sac["value"]["mean"] == sac["metrics"]["critic_value"]
    assert doubled["value"]["highest_reward"] == pytest.approx(2 * sac["value"]["highest_reward"])


def test_the_highest_reward_survives_a_resume(plan, tmp_path):
    """The run goes on with other batches; what it met before counts."""
    before = runs_of(plan, tmp_path, "sac", steps=50)["sac"].evaluations[-1]["value"]["highest_reward"]
    after = [row["value"]["highest_reward"] for row in runs_of(plan, tmp_path, "sac", steps=100)["sac"].evaluations]
    undisturbed = runs_of(plan, tmp_path / "other", "sac", steps=100)["sac"].evaluations
    assert after == [row["value"]["highest_reward"] for row in undisturbed] and after[-1] >= before


def test_the_highest_value():
    """Of the best that can be met: that reward for ever, or ending at once where rewards are costs."""
    discounted = sum(0.9**time * (3.0 + (time > 0) * 0.5) for time in range(2000))
    assert highest_value(3.0, 0.5, 0.9) == pytest.approx(discounted)
    assert highest_value(-3.0, 0.5, 0.9) == -3.0
    assert highest_value(3.0, 0.0, 1.0) is None and highest_value(-math.inf, 0.0, 0.9) is None


def test_an_entropy_bonus_is_a_bound():
    """No squashed Gaussian has more entropy than uniform actions."""
    problem = small_problem()
    learner = Group(get_algorithm("sac"), problem, (0, 1)).learner
    learner.log_temperature.weights[0].fill_(math.log(0.3))
    for log_std in (-2.0, -0.14, 1.0):
        before = log_densities(log_std)
        entropy = -before.mean()
        assert 0.3 * entropy <= learner.value_bonus()[0] == pytest.approx(0.3 * 2 * math.log(2))
    brac = Group(get_algorithm("brac-v"), problem, (0,), entropy_coefficient=0.3).learner
    assert brac.value_bonus() == pytest.approx(0.3 * 2 * math.log(2))
    steps = TrainingSteps(learner, Group(get_algorithm("sac"), problem, (0, 1)).experience)
    learner.log_temperature.weights[0].fill_(math.log(0.1))
    assert [steps.highest()[1][0] for _ in range(2)] == pytest.approx([0.6 * math.log(2), 0.2 * math.log(2)])


def log_densities(log_std):
    """Log densities of 20 000 samples of a squashed Gaussian around 0, of two dimensions."""
    stream = torch.Generator().manual_seed(0)
    scale = torch.full((20_000, 2), log_std)
    return squashed_log_prob(scale.exp() * torch.randn(20_000, 2, generator=stream), torch.zeros(20_000, 2), scale)


def test_what_is_said_of_a_model(plan, tmp_path):
    """A penalty that is far too large is warned of in the record; the rewards as predicted stand beside those as kept."""
    settings = {"mopo.penalty_coefficient": "0.5,100"}
    execute(plan("mopo", "mbpo", results=tmp_path, settings=settings, steps=50), jobs=1)
    found = {run.cell["overrides"].get("penalty_coefficient", run.algorithm): run for run in load_runs(tmp_path)}
    assert sorted(map(str, found)) == ["0.5", "100.0", "mbpo"]
    for coefficient, run in found.items():
        vitals, weight = run.evaluations[-1]["vitals"], 0.0 if coefficient == "mbpo" else coefficient
        assert len(vitals["uncertainty"]) == 2 and min(vitals["uncertainty"]) > 0
        assert vitals["dataset_penalty"] == pytest.approx(weight * vitals["dataset_uncertainty"], rel=1e-4)
        assert ("rewards" in run.record["warnings"]) == (vitals["dataset_penalty"] > abs(vitals["dataset_reward"]))
        assert "was cut off at 2 epochs" in run.record["warnings"]["dynamics"]
        taken = vitals["penalty"]
        assert taken == pytest.approx(vitals["raw_model_reward"] - vitals["model_reward"], rel=1e-4, abs=1e-6)
        assert taken == pytest.approx(weight * sum(vitals["uncertainty"]) / 2, rel=0.3, abs=1e-6)
    assert "rewards" in found[100.0].record["warnings"] and "rewards" not in found["mbpo"].record["warnings"]
    assert found["mbpo"].evaluations[-1]["vitals"]["dataset_uncertainty"] == pytest.approx(
        found[0.5].evaluations[-1]["vitals"]["dataset_uncertainty"]
    )
