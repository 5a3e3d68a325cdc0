"""A diagnosis of a small trained run of point-edge, whose simulator is known."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas
import pytest
import torch
from mopo_bench import UserError, diagnose, run
from mopo_bench.common.trees import tree_leaves
from mopo_bench.harness.diagnosis import pictures
from mopo_bench.harness.diagnosis.model import TrainedModel
from mopo_bench.harness.runs.checkpoints import load_checkpoint, load_tensors
from mopo_bench.tasks.points import POINT_EDGE

SETTINGS = {
    "hidden": (16, 16),
    "batch_size": 32,
    "rollout_length": 3,
    "rollout_states": 50,
    "dynamics.max_epochs": 2,
    "dynamics.hidden": (16, 16, 16),
}
SMALL = {"rows": 60, "episodes": 1}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    options = {"seeds": [3], "steps": 40, "evaluate_every": 20, "episodes": 2, "jobs": 1, "quiet": True, "rows": 2_000}
    run(tasks="point-edge", algorithms="mopo,mbpo", settings=SETTINGS, results=folder, **options)
    return folder


@pytest.fixture(scope="module")
def found(results):
    return diagnose("point-edge", "mopo", 3, results, **SMALL)


def test_says_the_same_twice(results, found):
    assert diagnose("point-edge", "mopo", 3, results, **SMALL).to_dict() == found.to_dict()


def test_what_is_measured_is_the_simulator_s(found):
    """The error of every point of the policy's episode, and u as the default penalty is defined."""
    points = found.points["policy"]
    answers = points.answers
    np.testing.assert_allclose(points.errors, np.linalg.norm(answers.means.mean(0) - points.truth, axis=1))
    assert (answers.uncertainty >= np.linalg.norm(answers.stds, axis=-1).max(0) - 1e-6).all()  # over all networks, not elites
    assert len(points.seen) == found.facts["policy"]["points"] == 100
    noise_free = found.points["dataset"]
    moved = noise_free.seen[:, 1:] - noise_free.truth[:, 1:]  # the stored rows have the noise that the expected step lacks
    assert moved.std() == pytest.approx(POINT_EDGE.noise_scale(np.zeros(1))[0], rel=0.3)
    apart = np.linalg.norm(noise_free.seen - noise_free.truth, axis=1)
    assert found.facts["dataset"]["simulator_error"] == pytest.approx(np.median(apart), rel=1e-5)
    assert "simulator_error" in found.facts["policy"] and "simulator_error" not in found.facts["rollouts"]


def test_a_fit_whose_weights_were_changed_is_refused(results, tmp_path):
    shutil.copytree(results, tmp_path / "runs")
    (path,) = (tmp_path / "runs").glob("stages/dynamics/*/seed-3.pt")
    fit = load_tensors(path, "")
    next(leaf for leaf in tree_leaves(fit["state"]) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()).add_(1.0)
    torch.save(fit, path)
    with pytest.raises(UserError, match="digest"):
        diagnose("point-edge", "mopo", 3, tmp_path / "runs", **SMALL)


def test_rollouts_have_a_line_for_every_step(found):
    assert [row["step"] for row in found.horizon] == [1, 2, 3] and found.horizon[0]["alive"] == 60
    assert found.facts["rollouts"]["points"] == sum(row["alive"] for row in found.horizon)
    assert all(row["drift_low"] <= row["drift_high"] for row in found.horizon)
    assert found.facts["dataset"]["epsilon_u"] > 0 and found.facts["rollouts"]["epsilon_u"] > 0


def test_a_model_that_is_right_has_no_error(results, monkeypatch):
    """A simulator that does what the elites expect: no error, every u above it, and no ranks to correlate."""
    monkeypatch.setattr(TrainedModel, "truth", lambda self, *asked: self.ask(*asked).means.mean(0))
    right = diagnose("point-edge", "mopo", 3, results, **SMALL)
    for name in ("dataset", "rollouts", "policy"):
        assert right.facts[name]["error"] == pytest.approx(0, abs=1e-6) and right.facts[name]["bounded"] == 1
    assert right.facts["rollouts"]["z_score"] < 1  # of each elite, whose mean is not the mean of all
    assert right.horizon[0]["drift"] > 0  # a rollout samples


def test_a_model_that_went_on_learning_is_the_one_that_is_asked(tmp_path):
    """RAMBO's, not the fit with which it began."""
    settings = SETTINGS | {"rollout_every": 10, "cloned.hidden": (16, 16), "cloned.steps": 20, "adversarial_batch_size": 32}
    options = {"seeds": [3], "steps": 40, "evaluate_every": 20, "episodes": 1, "jobs": 1, "quiet": True, "rows": 500}
    run(tasks="point-edge", algorithms="rambo", settings=settings, results=tmp_path, **options)
    model = TrainedModel.load(tmp_path, "point-edge", "rambo", 3, "", None)
    saved = load_checkpoint(next(tmp_path.glob("point-edge/rambo/*/seed-3")))["experience"]["held"]["weights"]
    (stage,) = tmp_path.glob("stages/dynamics/*/seed-3.pt")
    fit = load_tensors(stage, "")["state"]["weights"]
    for weight, (_, _, learned), fitted in zip(model.dynamics.network.weights, saved[2], fit, strict=True):
        assert torch.equal(weight, learned) and not torch.equal(weight[0], fitted)


def test_command_writes_numbers_points_and_a_picture(results, command, tmp_path):
    words = ("diagnose", "point-edge", "--algorithm", "mbpo", "--seed", 3, "--results", results, "--rows", 60, "--episodes", 1)
    out = tmp_path / "diagnosis"
    done = command(*words, "--length", 2, "--out", out, "--json")
    assert done.code == 0, done.err
    printed = json.loads(done.out)
    assert printed == json.loads((out / "diagnosis.json").read_text()) and len(printed["horizon"]) == 2
    points = pandas.read_csv(out / "diagnosis.csv")
    assert points["origin"].value_counts().to_dict()["dataset"] == 60 and points["error"].notna().all()
    assert (out / "diagnosis.png").stat().st_size > 10_000
    assert "Needs the simulator" in (out / "diagnosis.md").read_text()


@pytest.mark.parametrize("broken", ["some", "all"])
def test_a_picture_of_a_model_that_is_not_finite_says_so(broken, found, tmp_path, monkeypatch):
    """Such points cannot be drawn, and their mean is no number: the legend counts them, the title has a dash."""

    def spoiled(points):
        means = points.answers.means.copy()
        means[:, slice(None) if broken == "all" else slice(None, None, 2)] = np.inf
        return replace(points, answers=points.answers._replace(means=means))

    points = {name: spoiled(each) for name, each in found.points.items()}
    facts = {name: each.facts() for name, each in points.items()}
    drawn = []
    monkeypatch.setattr(pictures, "save", lambda figure, out: drawn.extend(figure.axes))
    pictures.draw(replace(found, points=points, facts=facts), tmp_path / "a.png")
    against, _, _, rewards = drawn
    drawn[0].figure.draw_without_rendering()
    count = len(found.points["policy"].seen)
    missing = count if broken == "all" else count // 2
    assert re.search("model –, true -?[0-9.]+$", rewards.get_title())
    assert f"a step ({missing} of {count} not finite, not shown)" in [
        text.get_text() for text in rewards.get_legend().get_texts()
    ]
    assert "60 not finite, not shown" in against.get_legend().get_texts()[0].get_text()
    assert len(rewards.collections[0].get_offsets()) == count - missing


def test_refused(results, command):
    with pytest.raises(UserError, match="no run of point-edge/mopo with seed 9"):
        diagnose("point-edge", "mopo", 9, results)
    refused = command("diagnose", "point-edge", "--algorithm", "sac", "--results", results)
    assert refused.code == 2 and "sac rolls out no dynamics model" in refused.err and len(refused.err.splitlines()) == 1
    with pytest.raises(UserError, match="--rows"):
        diagnose("point-edge", "mopo", 3, results, rows=0)
