"""Which runs are compiled and what is told of it; a learner is compiled once for each kind of step, and never again."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from mopo_bench.algorithms.learning.dynamics import Dynamics
from mopo_bench.algorithms.learning.experience import Experience
from mopo_bench.algorithms.learning.fast import compiling
from mopo_bench.algorithms.learning.fast.compiling import LONG_RUN, Compile, compiler_trouble, decide
from mopo_bench.algorithms.learning.fast.stepping import updater
from mopo_bench.algorithms.learning.registry import Algorithm, get_algorithm, task_settings
from mopo_bench.algorithms.learning.steps import BLOCK, StepStreams
from mopo_bench.algorithms.sac import SAC
from mopo_bench.common.errors import UserError
from mopo_bench.harness.collection import collect as collecting
from mopo_bench.harness.runs.ledger import load_runs
from mopo_bench.harness.runs.runner import execute
from mopo_bench.tasks.data.sources import DatasetRequest, load_dataset
from mopo_bench.tasks.registry import get_task
from mopo_bench.tasks.task import Problem, Task
from mopo_bench.tasks.terminations import hopper
from torch._dynamo.utils import counters

TROUBLE = "nothing can be compiled here (no compiler)"


@pytest.fixture
def compiler(monkeypatch):
    """Says which trouble there is with the compiler, without a look at the machine's."""

    def told(trouble):
        for module in (compiling, collecting):
            monkeypatch.setattr(module, "compiler_trouble", lambda device="cpu": trouble)

    return told


@pytest.fixture
def compiled_to_itself(compiler, monkeypatch):
    """Compiling takes no time and changes nothing; gives how many times it was asked for."""
    asked = []
    compiler(None)
    monkeypatch.setattr(torch, "compile", lambda function, **options: asked.append(options) or function)
    return asked


@pytest.mark.parametrize(
    ("wanted", "steps", "trouble", "compiled", "why"),
    [
        ("auto", LONG_RUN, None, True, "auto: at least 50,000 steps, and a compiler"),
        ("auto", LONG_RUN - 1, None, False, "auto: fewer than 50,000 steps"),
        ("auto", LONG_RUN, TROUBLE, False, f"auto: {TROUBLE}"),
        ("on", 1, None, True, "on"),
        (True, 1, None, True, "on"),
        ("off", LONG_RUN, None, False, "off"),
        (False, LONG_RUN, TROUBLE, False, "off"),
    ],
)
def test_what_is_compiled(wanted, steps, trouble, compiled, why, compiler):
    compiler(trouble)
    found = decide(wanted, steps)
    assert (found.compiled, found.why) == (compiled, why) and found.wanted in list(Compile)


def test_short_runs_look_for_no_compiler(monkeypatch):
    monkeypatch.setattr(compiling, "compiler_trouble", lambda device: pytest.fail("it looked"))
    assert not decide("auto", 100).compiled and not decide("off", 10**6).compiled


@pytest.mark.parametrize("wanted", ["yes", "", None, 1.5])
def test_what_else_is_wanted_is_refused(wanted):
    with pytest.raises(UserError, match="auto, on or off"):
        decide(wanted, 10)


def test_wanted_without_a_compiler(compiler, arguments, command, tmp_path):
    compiler(TROUBLE)
    collect = ("data", "collect", "point-angle", "--steps", "50", "--out", tmp_path / "collected")
    for words in (arguments("sac", results=tmp_path / "runs"), collect):
        finished = command(*words, "--compile", "on")
        assert finished.code == 2 and finished.out == "" and len(finished.err.splitlines()) == 1
        assert "--compile on: nothing can be compiled here (no compiler)" in finished.err and "g++" in finished.err
    assert list(tmp_path.iterdir()) == []


def test_a_compiler_that_is_not_there(arguments, tmp_path):
    """As torch finds it, in a process of its own."""
    words = ["-c", "from mopo_bench.harness.cli.main import main; main()", *arguments("sac", results=tmp_path / "runs")]
    environment = {**os.environ, "CXX": "no-such-compiler"}
    finished = subprocess.run(
        [sys.executable, *words, "--compile", "on"], env=environment, capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == 2 and finished.stdout == "" and len(finished.stderr.splitlines()) == 1
    assert "no-such-compiler" in finished.stderr and not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_the_compiler_of_this_machine():
    trouble = compiler_trouble()
    if trouble:
        pytest.skip(trouble)
    assert decide("on", 1).compiled


def test_record_says_what_was_decided(compiled_to_itself, plan, evaluations, monkeypatch, tmp_path):
    """A run goes on compiled or not, whatever it was before, under the same identity."""
    monkeypatch.setattr(compiling, "LONG_RUN", 75)
    for steps, options in ((25, {}), (50, {"compile": True}), (75, {}), (100, {"compile": "off"})):
        assert execute(plan("sac", results=tmp_path, steps=steps, **options), jobs=1).keys() == {"done"}
    (run,) = load_runs(tmp_path)
    assert [(segment["compiled"], segment["compile"]) for segment in run.record["segments"]] == [
        (False, "auto: fewer than 75 steps"),
        (True, "on"),
        (True, "auto: at least 75 steps, and a compiler"),
        (False, "off"),
    ]
    assert len(compiled_to_itself) == 2
    execute(plan("sac", results=tmp_path / "undisturbed", compile=False), jobs=1)
    assert evaluations(tmp_path) == evaluations(tmp_path / "undisturbed")


def test_stopped_run_goes_on_as_it_was_begun(compiled_to_itself, plan, monkeypatch, tmp_path):
    """What is left may be less than what is worth it: all steps count."""
    monkeypatch.setattr(compiling, "LONG_RUN", 100)

    class Stopped(SAC):
        def update(self, batch, noise, phase):
            if Stopped.calls == 90:
                Stopped.calls = 0
                raise KeyboardInterrupt
            Stopped.calls += 1
            return super().update(batch, noise, phase)

        calls = 0

    for stopped in (True, False):
        try:
            execute(plan(Algorithm("sac", Stopped), results=tmp_path, steps=100), jobs=1)
        except KeyboardInterrupt:
            assert stopped
    (run,) = load_runs(tmp_path)
    assert run.state == "done" and [segment["compiled"] for segment in run.record["segments"]] == [True, True]


class Branches(SAC):
    """Not one full graph: what is done depends on a number that is computed."""

    def update(self, batch, noise, phase):
        metrics = super().update(batch, noise, phase)
        if float(metrics["critic_loss"][0]) < -1:
            raise ZeroDivisionError
        return metrics


def test_learner_that_cannot_be_compiled(compiler, plan, evaluations, monkeypatch, tmp_path):
    """Left to itself it runs uncompiled; where that was asked for, the run fails and says why."""
    compiler(None)
    monkeypatch.setattr(compiling, "LONG_RUN", 50)
    branches = Algorithm("branches", Branches)
    assert execute(plan(branches, results=tmp_path / "auto", steps=50), jobs=1).keys() == {"done"}
    (run,) = load_runs(tmp_path / "auto")
    (segment,) = run.record["segments"]
    assert segment["compiled"] is False and segment["compile"].startswith("auto: Branches cannot be compiled (")
    execute(plan("sac", results=tmp_path / "sac", steps=50, compile=False), jobs=1)
    assert list(evaluations(tmp_path / "auto").values()) == list(evaluations(tmp_path / "sac").values())

    assert execute(plan(branches, results=tmp_path / "on", steps=50, compile="on"), jobs=1).keys() == {"failed"}
    (run,) = load_runs(tmp_path / "on")
    assert "Branches cannot be compiled" in run.record["traceback"] and run.record["segments"][0]["compiled"] is True


HOPPER = Task("hopper", "Hopper-v4", Problem(11, 3, hopper, max_episode_steps=60))
USUAL = {"seed": 4, "random_steps": 50, "evaluate_every": 70, "evaluation_episodes": 2}


@pytest.mark.parametrize("begun", ["on", "off"])
def test_collection_goes_on_as_it_was_begun(begun, compiled_to_itself, compiler, monkeypatch, tmp_path):
    """Its bytes are those of compiled steps or of eager ones, however often it was stopped, and longer than planned."""
    monkeypatch.setattr(compiling, "LONG_RUN", 100)
    first, second = (120, 90) if begun == "on" else (80, 300)
    for steps in (first, first + 1, first + second):
        batch = collecting.collect(HOPPER, tmp_path, steps=steps, rows=20, **USUAL)
        assert f"--compile {begun} --out" in batch.provenance["command"]
        assert torch.load(tmp_path / "checkpoint.pt")["identity"]["compiled"] is (begun == "on")
    other = "off" if begun == "on" else "on"
    with pytest.raises(UserError, match="another collection"):
        collecting.collect(HOPPER, tmp_path, steps=500, rows=20, compiled=other, **USUAL)
    compiler(TROUBLE)
    if begun == "off":
        collecting.collect(HOPPER, tmp_path, steps=500, rows=20, **USUAL)
    else:
        with pytest.raises(UserError, match=r"compiled collection.*no compiler.*--out"):
            collecting.collect(HOPPER, tmp_path, steps=500, rows=20, **USUAL)


# Whether a graph serves is decided before the backend is asked, so that most can be tested without a compiler.
BACKENDS = ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]


@pytest.fixture
def graphs(request, compiler, monkeypatch):
    """How many graphs were compiled since it was last called; with the backend that is the parameter."""
    compiler(None)
    if request.param == "inductor" and (trouble := compiler_trouble()):
        pytest.skip(trouble)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=request.param))
    seen = [counters["stats"]["unique_graphs"]]

    def new():
        seen.append(counters["stats"]["unique_graphs"])
        return seen[-1] - seen[-2]

    return new


POINT = get_task("point-angle")


def problem_with(gaps):
    """point-angle's; with gaps, a part of its rows are for no critic."""
    batch = load_dataset(POINT, DatasetRequest())
    if gaps:
        batch = replace(batch, valid_next=batch.valid_next & (np.arange(len(batch)) % 7 > 0))
    return POINT.offline_problem(batch)


@pytest.mark.parametrize("graphs", BACKENDS, indirect=True)
def test_one_graph_wherever_batches_come_from(graphs):
    """Rows of the batch, of the usable part of it, of the model's ring; evaluations and a checkpoint in between."""
    mopo = get_algorithm("mopo")
    usual, less = task_settings(mopo, "point-angle"), {"hidden": (8, 8), "rollout_states": 50, "dynamics.max_epochs": 1}
    configs = mopo.build_configs(mopo.configure(usual, less))
    plain, gaps = problem_with(gaps=False), problem_with(gaps=True)
    dynamics = Dynamics(plain, configs["dynamics"], [Dynamics.fit(plain, configs["dynamics"], 0)[0]])
    model = mopo.experience(plain, configs["experience"], [0], stages={"dynamics": dynamics})
    learner = SAC(plain, configs["learner"], [0])
    real, usable = (Experience(each, Experience.Config(), [0]) for each in (plain, gaps))
    assert real.usable is None and usable.usable is not None
    model.refresh(0, learner)
    update, streams = updater(learner, True), StepStreams(learner)
    for step, experience in enumerate((real, usable, model) * 40):
        uniform, noise = streams.at(step)
        update(experience.draw(uniform), noise, learner.phase(step))
        if step % 10 == 0:
            learner.act(torch.zeros(1, 5, plain.observation_size))
            learner.load_states([learner.state(0)])
            model.load_states([model.state(0)], learner)
    assert step > BLOCK and graphs() == 1


@pytest.mark.parametrize("graphs", BACKENDS, indirect=True)
@pytest.mark.parametrize(
    ("algorithm", "settings", "kinds"),
    [("mopo", {}, 1), ("bear", {"bear.warmup_steps": 30, "bear.behaviour_hidden": "8,8"}, 2)],
    ids=["mopo", "bear"],
)
def test_one_graph_for_each_kind_of_step_of_a_run(algorithm, settings, kinds, graphs, plan, tmp_path):
    """Through refreshes, evaluations and checkpoints; a run that goes on in a process needs its own, and no more."""
    for steps in (60, 110):
        execute(plan(algorithm, results=tmp_path, settings=settings, steps=steps, compile=True), jobs=1)
        assert graphs() == (kinds if steps == 60 else 1)
    (run,) = load_runs(tmp_path)
    assert run.state == "done" and [segment["compiled"] for segment in run.record["segments"]] == [True, True]


@pytest.mark.parametrize("graphs", BACKENDS[:1], indirect=True)
def test_learners_one_after_another(graphs):
    """A worker trains many, of other sizes and settings: each has its own graph, as in a new process, none a general one."""
    problem = problem_with(gaps=False)
    config = get_algorithm("bc").learner.Config
    real, shapes = Experience(problem, Experience.Config(), [0]), []
    for size in range(3, 13):
        learner = get_algorithm("bc").learner(problem, config(hidden=(size,), learning_rate=1e-4 * size, batch_size=16), [0])
        update, streams = updater(learner, True), StepStreams(learner)
        for step in range(3):
            uniform, noise = streams.at(step)
            update(real.draw(uniform), noise, None)
        shapes.append(graphs())
    assert shapes == [1] * 10
