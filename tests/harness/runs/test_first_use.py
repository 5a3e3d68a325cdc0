"""Code from outside the package is tried before a run begins, once for each version of its source."""

import pytest
import torch
from mopo_bench.algorithms.learning.experience import Experience
from mopo_bench.algorithms.learning.registry import Algorithm, get_algorithm
from mopo_bench.algorithms.mopo import PenalisedRollouts
from mopo_bench.algorithms.sac import SAC
from mopo_bench.common.errors import UserError
from mopo_bench.harness.runs import first_use
from mopo_bench.harness.runs.ledger import load_runs
from mopo_bench.harness.runs.runner import execute


class Loses(SAC):
    """Its scale begins anew where it is resumed."""

    derived = SAC.derived | {"factor"}

    def build(self):
        super().build()
        self.factor = torch.ones(len(self.seeds), 1)

    def update(self, batch, noise, phase):
        self.factor *= 0.9
        return super().update(batch._replace(rewards=batch.rewards * self.factor), noise, phase)


class Keeps(Loses):
    derived = SAC.derived


class LosesPlaces(PenalisedRollouts):
    """Draws rows of the dataset one after another, from a place that it forgets."""

    derived = PenalisedRollouts.derived | {"place"}

    def build(self):
        super().build()
        self.place = torch.zeros(1, dtype=torch.float64)

    def draw(self, uniform):
        self.place += 0.01
        return super().draw((uniform + self.place) % 1)


class OfOne(SAC):
    def act(self, observations, noise=None):
        return super().act(observations, noise)[..., :1]


class Counts(SAC):
    derived = SAC.derived | {"calls"}
    calls = 0

    def act(self, observations, noise=None):
        self.calls += 1
        return super().act(observations, noise) / self.calls


class Standardises(SAC):
    def act(self, observations, noise=None):
        return super().act(observations - observations.mean(1, keepdim=True), noise)


class Rescales(SAC):
    """Would end the process with no word where the dataset is a file in memory."""

    def build(self):
        super().build()
        torch.from_numpy(self.problem.dataset.rewards).div_(10)


class Masks(Experience):
    def build(self):
        super().build()
        self.table[:, self.problem.dataset.packing.alive] = 1


class Fails(SAC):
    def update(self, batch, noise, phase):
        raise ZeroDivisionError("a bug")


@pytest.fixture
def tried(monkeypatch):
    """The names of the algorithms that were tried."""
    found, try_copy = [], first_use.try_copy
    monkeypatch.setattr(first_use, "try_copy", lambda cell: found.append(cell.algorithm.name) or try_copy(cell))
    return found


@pytest.mark.parametrize(
    "learner, experience, said",
    [
        (Loses, Experience, "mine: Loses: a copy that was stopped after 4 steps and resumed differs"),
        (SAC, LosesPlaces, "mine: SAC: a copy that was stopped after 4 steps and resumed differs"),
        (Counts, Experience, "mine: Counts.act: acts otherwise when it is asked again"),
        (Standardises, Experience, "mine: Standardises.act: acts by which other observations are in the batch"),
        (Rescales, Experience, "mine: it writes into the dataset, which all columns and seeds share"),
        (SAC, Masks, "mine: it writes into the dataset"),
        (OfOne, Experience, r"mine: OfOne.act: expected actions of shape \(1, 3, 3\) for observations .*\(1, 3, 1\)"),
    ],
)
def test_refused_before_anything_is_written(learner, experience, said, plan, tmp_path):
    mine = Algorithm("mine", learner, experience)
    with pytest.raises(UserError, match=said) as refused:
        execute(plan(mine, results=tmp_path, steps=25), jobs=1)
    assert "\n" not in str(refused.value) and list(tmp_path.iterdir()) == []


def test_what_was_tried_is_remembered(tried, plan, monkeypatch, tmp_path):
    monkeypatch.setenv("MOPO_BENCH_DATA", str(tmp_path / "data"))
    mine = Algorithm("mine", Keeps)
    for steps in (25, 50):
        execute(plan(mine, "sac", results=tmp_path / "runs", steps=steps), jobs=1)
    assert tried == ["mine"] and list((tmp_path / "data" / "tried").iterdir())
    execute(plan(mine, results=tmp_path / "runs", steps=50, settings={"mine.tau": 0.5}), jobs=1)
    assert tried == ["mine"] * 2
    assert {run.state for run in load_runs(tmp_path / "runs")} == {"done"}


def test_another_source_is_another_code(plan, tmp_path):
    (cell,) = plan(Algorithm("mine", Keeps), results=tmp_path).cells
    before = first_use.outside_sources(cell)
    (own,) = plan("sac", results=tmp_path).cells
    assert len(before) == 1
    assert first_use.outside_sources(own) == []
    assert first_use.tried(cell, before) != first_use.tried(cell, ["other"])
    typed = type("Typed", (Keeps,), {"__module__": "typed.by.hand"})
    (cell,) = plan(Algorithm("mine", typed), results=tmp_path).cells
    assert first_use.outside_sources(cell) is None


def test_another_exception_is_left_to_the_run(plan, tmp_path):
    """Its traceback is kept there, and the others of the grid are run."""
    execute(plan(Algorithm("fails", Fails), get_algorithm("sac"), results=tmp_path, steps=25), jobs=1)
    runs = {run.algorithm: run for run in load_runs(tmp_path)}
    assert (runs["fails"].state, runs["sac"].state) == ("failed", "done")
    assert runs["fails"].record["traceback"].strip().endswith("ZeroDivisionError: a bug")
