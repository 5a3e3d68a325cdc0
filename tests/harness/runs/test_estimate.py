"""What a dry run says of time: what is done costs nothing, what is shared costs once, and the rest is multiplication."""

from dataclasses import dataclass, replace

import pytest
from mopo_bench.algorithms.learning.dynamics import USUAL_EPOCHS
from mopo_bench.algorithms.learning.fast import compiling
from mopo_bench.algorithms.learning.learner import Learner
from mopo_bench.algorithms.learning.registry import Algorithm, hyperparameters
from mopo_bench.algorithms.learning.stage import Stage
from mopo_bench.algorithms.sac import SAC
from mopo_bench.harness.runs.estimate import COMPILED, Calibration, Costs, duration, estimate, finished_at, sentences
from mopo_bench.harness.runs.fits import fit_stage
from mopo_bench.harness.runs.ledger import load_runs
from mopo_bench.harness.runs.runner import execute
from mopo_bench.tasks.registry import get_task

FITS = {"dynamics": 5000.0, "behaviour": 700.0}


def costs(cell):
    return Costs(step=1.0, evaluation=10.0, refresh=100.0, fits={stage: FITS[stage] for stage in cell.algorithm.stages})


def seconds(plan, costs_of=costs):
    """By algorithm or stage."""
    return {row.work: row.seconds for row in estimate(plan, 1, costs_of).rows}


@pytest.mark.parametrize(
    ("options", "steps", "evaluations", "refreshes"),
    [
        ({}, 100, 4, 5),
        ({"steps": 200}, 200, 8, 10),
        ({"steps": 110}, 110, 5, 6),  # the last step is evaluated, too
        ({"evaluate_every": 100}, 100, 1, 5),
        ({"settings": {"mopo.rollout_every": 1000}}, 100, 4, 1),
        ({"seeds": (0, 1, 2)}, 300, 12, 15),
    ],
)
def test_run_is_steps_evaluations_and_refreshes(options, steps, evaluations, refreshes, plan, tmp_path):
    found = seconds(plan("mopo", results=tmp_path, **options))
    assert found["mopo"] == steps + 10 * evaluations + 100 * refreshes
    assert found["dynamics"] == 5000 * len(options.get("seeds", (0,)))


def test_compiled_steps_take_less(plan, monkeypatch, tmp_path):
    monkeypatch.setattr(compiling, "compiler_trouble", lambda device: None)
    eager, compiled = (seconds(plan("sac", results=tmp_path, compile=wanted))["sac"] for wanted in ("off", "on"))
    assert eager - compiled == pytest.approx(100 * (1 - COMPILED))


def test_fits_are_counted_once(plan, tmp_path):
    here = plan("mbpo", "mopo", "brac-p", "brac-v", "sac", results=tmp_path, seeds=(0, 1))
    found = estimate(here, 1, costs)
    rows = {row.work: row for row in found.rows}
    assert rows["dynamics"].seconds == 10_000 and rows["behaviour"].seconds == 1_400
    assert [rows[name].steps for name in ("sac", "dynamics")] == [100, 0]
    assert found.core_seconds == sum(row.seconds for row in found.rows) == found.wall_seconds
    other = plan("mopo", "mbpo", results=tmp_path, settings={"mopo.dynamics.max_epochs": 1})
    assert [row.seconds for row in estimate(other, 1, costs).rows if row.work == "dynamics"] == [5000, 5000]


def test_what_is_done_takes_no_time(plan, tmp_path):
    execute(plan("mopo", "sac", results=tmp_path), jobs=1)
    found = estimate(plan("mopo", "sac", results=tmp_path), 1, lambda cell: pytest.fail("it was measured"))
    assert found.core_seconds == found.wall_seconds == 0
    assert [(row.work, row.states, row.seconds) for row in found.rows] == [(name, {"done": 1}, 0) for name in ("mopo", "sac")]
    assert sentences(found, Calibration()) == ["Everything is done already."]
    found = estimate(plan("mopo", "sac", results=tmp_path, seeds=(0, 1), steps=150), 1, costs)
    rows = {row.work: row for row in found.rows}
    assert rows["sac"].states == {"running": 1, "missing": 1} and rows["sac"].missing == 2
    assert rows["sac"].seconds == 50 + 2 * 10 + 150 + 6 * 10  # SAC has no refreshes
    assert rows["mopo"].seconds == 50 + 2 * 10 + 3 * 100 + 150 + 6 * 10 + 8 * 100
    assert rows["dynamics"].seconds == 5000  # that of seed 0 is there


def test_fit_that_is_there_takes_no_time(plan, tmp_path):
    here = plan("mopo", results=tmp_path, seeds=(0, 1))
    fit_stage(here.cells[0], "dynamics", 1)
    assert seconds(here)["dynamics"] == 5000


def test_diverged_run_takes_no_time(plan, tmp_path):
    execute(plan("sac", results=tmp_path), jobs=1)
    (record,) = tmp_path.glob("point-angle/sac/*/seed-0/record.json")
    record.write_text(record.read_text().replace('"done"', '"diverged"'))
    assert seconds(plan("sac", results=tmp_path, steps=200)) == {"sac": 0}


def test_processes_share_the_work(plan, tmp_path):
    assert finished_at([3, 1, 1, 1], 2) == 3 and finished_at([3, 1, 1, 1], 1) == 6 and finished_at([], 2) == 0
    assert finished_at([1, 1, 1, 3], 2) == 4  # begun in this order
    here = plan("mopo", "sac", results=tmp_path, seeds=(0, 1, 2))
    one, two, many = (estimate(here, processes, costs) for processes in (1, 2, 50))
    assert one.core_seconds == two.core_seconds == one.wall_seconds > two.wall_seconds > many.wall_seconds == 5000
    assert two.wall_seconds >= one.wall_seconds / 2


@dataclass(frozen=True)
class Fitted(Stage):
    """A stage of which nothing says how long it takes."""

    def __init__(self, problem, config, states):
        self.states = states

    @classmethod
    def fit(cls, problem, config, seed, **options):
        return {}, {}


class Sums(Stage):
    """A stage that says how long it takes, and reports nothing."""

    @dataclass(frozen=True)
    class Config:
        sums: int = 1000

    def __init__(self, problem, config, states):
        self.states = states

    @classmethod
    def fit_units(cls, config, data):
        return config.sums

    @classmethod
    def fit(cls, problem, config, seed, **options):
        return {"sum": sum(float(problem.dataset.rewards.sum()) for _ in range(config.sums))}, {}


class WithSums(SAC):
    stages = {"sums": Sums}  # noqa: RUF012 - a class-level declaration


def test_a_stranger_s_stage_is_measured_as_it_is(plan, tmp_path):
    (cell,) = plan(Algorithm("with sums", WithSums), results=tmp_path).cells
    calibration = Calibration()
    usual, ten_times = (calibration(replace(cell, config=cell.config | {"sums.sums": sums})) for sums in (1000, 10_000))
    assert 0 < usual.fits["sums"] < ten_times.fits["sums"] and usual.refresh == 0


class WithFit(SAC):
    stages = {"fitted": Fitted}  # noqa: RUF012 - a class-level declaration


class Broken(SAC):
    def update(self, batch, noise, phase):
        raise ZeroDivisionError("a bug\nin two lines")


def test_what_cannot_be_measured_is_left_out(plan, tmp_path):
    here = plan(Algorithm("with fit", WithFit), Algorithm("broken", Broken), "sac", results=tmp_path)
    found = estimate(here, 1, Calibration())
    rows = {row.work: row for row in found.rows}
    assert rows["broken"].seconds is None and rows["broken"].note == "ZeroDivisionError: a bug in two lines"
    assert rows["with fit"].seconds is None and "how long a fit of fitted takes" in rows["with fit"].note
    assert rows["fitted"].seconds is None
    assert found.core_seconds == rows["sac"].seconds > 0
    told = sentences(found, Calibration())
    assert "point-angle/with fit, point-angle/broken, point-angle/fitted" in " ".join(told)


@pytest.fixture
def learners(monkeypatch):
    """How many learners are built."""
    built, build = [], Learner.__init__
    monkeypatch.setattr(Learner, "__init__", lambda self, *each, **named: built.append(self) or build(self, *each, **named))
    return built


def test_measured_on_point_angle(learners, plan, monkeypatch, tmp_path):
    """Every part takes some time, and nothing is written; another task of the same sizes costs no second measurement."""
    task = get_task("point-angle")
    monkeypatch.setitem(hyperparameters(), "another", hyperparameters()["point-angle"])
    tasks = [task, replace(task, name="another", problem=replace(task.problem, discount=0.9))]
    here = plan("bc", "mbpo", "mopo", "bear", "brac-v", results=tmp_path / "runs", tasks=tasks, settings={"mopo.tau": 0.5})
    calibration = Calibration()
    found = estimate(here, 2, calibration)
    assert len(calibration.units) == 5 and len(learners) == 7  # and two for the behaviour policy, in training and fitted
    rows = {(row.task, row.work): row.seconds for row in found.rows}
    assert len(rows) == 2 * 5 + 2 and all(0 < value < 1000 for value in rows.values())
    assert all(rows["point-angle", name] == rows["another", name] for name in ("bc", "mopo"))
    for cell in here.cells:
        parts = calibration(cell)
        rolls_out = cell.algorithm.name in ("mbpo", "mopo")
        assert parts.step > 0 and parts.evaluation > 0 and (parts.refresh > 0) == rolls_out
        assert parts.fits.keys() == cell.algorithm.stages.keys()
    assert 0 < calibration.share <= 1.1 and 0 < calibration.seconds < 100
    assert len(learners) == 7 and not (tmp_path / "runs").exists()


def test_costs_grow_with_what_is_asked_for(plan, tmp_path):
    """By multiplication, out of one measurement."""
    calibration = Calibration()

    def of(**settings):
        (cell,) = plan("mopo", results=tmp_path, settings={f"mopo.{key}": value for key, value in settings.items()}).cells
        return cell, calibration(cell)

    cell, usual = of()
    _, more = of(rollout_states=1000, rollout_length=6)
    assert more.refresh == pytest.approx(30 * usual.refresh) and more.step == usual.step
    _, longer = of(**{"dynamics.max_epochs": 20})
    assert longer.fits["dynamics"] == pytest.approx(10 * usual.fits["dynamics"])
    _, free = of(**{"dynamics.max_epochs": None})
    assert free.fits["dynamics"] == pytest.approx(USUAL_EPOCHS / 2 * usual.fits["dynamics"])
    problem = cell.task.problem
    longer = replace(cell.task, problem=replace(problem, max_episode_steps=2 * problem.max_episode_steps))
    patient = calibration(replace(cell, task=longer))
    assert patient.evaluation == pytest.approx(2 * usual.evaluation)
    assert len(calibration.units) == 1


def test_in_words(plan, tmp_path):
    calibration = Calibration()
    here = plan("mbpo", "mopo", results=tmp_path, seeds=(0, 1))
    found = estimate(here, 2, lambda cell: Costs(36.0, fits={"dynamics": 3600.0}))
    calibration.seconds, calibration.processor_seconds = 14.0, 13.0
    first, how = sentences(found, calibration, "table1")
    assert first == (
        "All 4 runs of table1 and 2 fits for them take 6.0 core-hours on this machine, about 3.0 h with 2 processes."
    )
    assert "in 14 s" in how and f"{USUAL_EPOCHS} epochs" in how
    calibration.processor_seconds = 7.0
    _, load, _ = sentences(found, calibration)
    assert load == "Other work leaves a process 50% of a core at present; at that load, about 6.0 h."
    execute(plan("mbpo", results=tmp_path), jobs=1)
    found = estimate(here, 1, costs)
    assert sentences(found, calibration)[0].startswith("3 of 4 runs and 1 fit for them take 1.9 core-hours")
    assert {run.state for run in load_runs(tmp_path)} == {"done"}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.4, "0 s"), (45, "45 s"), (720, "12 min"), (3.2 * 3600, "3.2 h"), (71 * 3600, "71.0 h"), (54.3 * 86400, "54.3 days")],
)
def test_duration(value, text):
    assert duration(value) == text
