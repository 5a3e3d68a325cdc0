"""What is said of a grid while it runs: fits included, a time left that is calm, and nothing that is not so."""

import io
from types import SimpleNamespace

import pytest
from mopo_bench.harness.runs import progress as module
from mopo_bench.harness.runs.checkpoints import save_tensors, stage_path
from mopo_bench.harness.runs.estimate import Costs, Job
from mopo_bench.harness.runs.progress import Watch, can_draw, progress
from mopo_bench.harness.runs.records import Store
from mopo_bench.harness.runs.runner import execute
from rich.console import Console


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def watched(plan, tmp_path):
    """MOPO on one seed: a fit of 100 s and a run of 400 s for 100 steps."""
    (cell,) = plan("mopo", results=tmp_path).cells
    clock = Clock()
    return Watch(tmp_path, [Job(cell, 0, "dynamics", seconds=100.0), Job(cell, 0, "", 0, 400.0)], 1, clock), cell, clock


def reach(cell, step, state="running"):
    rows = [{"step": step, "return_mean": 1.0, "returns": [1.0]}]
    Store(cell.results).write_record(cell.seed_folder(0), {"seed": 0, "state": state, "steps": step, "evaluations": rows})


def test_a_fit_is_part_of_it(watched, tmp_path):
    watch, cell, clock = watched
    assert watch.done == 0 and watch.left() == "about 8 min left"
    watch.begin(cell, [0], "dynamics")
    for seconds, done in ((0, 0), (50, 0.1), (100, 0.19), (1000, 0.19)):  # one that takes longer does not end before it does
        clock.now = seconds
        watch.look()
        assert watch.done == pytest.approx(done) and watch.counts() == "0/1 runs, 0/1 fits"
    save_tensors(stage_path(tmp_path, "dynamics", cell.stage_identity("dynamics"), 0), {})
    watch.look()
    assert watch.done == pytest.approx(0.2) and watch.counts() == "0/1 runs, 1/1 fits"


def test_a_run_is_as_far_as_its_record(watched):
    watch, cell, _ = watched
    watch.begin(cell, [0])
    for step, state, done in ((25, "running", 0.2), (75, "running", 0.6), (75, "failed", 0.8)):
        reach(cell, step, state)
        watch.look()
        assert watch.done == pytest.approx(done)
    assert watch.counts() == "1/1 runs, 0/1 fits"


def test_the_time_left_counts_down_and_follows_what_is_seen(watched):
    watch, cell, clock = watched
    watch.begin(cell, [0])
    ends = [watch.seconds_left()]
    for clock.now in range(1, 61):
        watch.look()
        ends.append(clock.now + watch.seconds_left())
    assert ends[0] == 500 and set(ends) == {500}  # it does not flicker
    reach(cell, 50)
    clock.now = 400.0  # twice as long as the estimate said: 200 s of work are done, 300 to do
    watch.look()
    assert 400 < watch.seconds_left() < 600


def test_a_fit_that_takes_longer_makes_all_longer(watched):
    watch, cell, clock = watched
    watch.begin(cell, [0], "dynamics")
    watch.look()
    said = []
    for clock.now in (0, 90, 400, 800):
        watch.look()
        said.append(watch.seconds_left())
    assert said[0] == 500 and said[1] == 410 and 800 < said[2] < said[3]


def test_without_an_estimate_no_time_is_said(plan, tmp_path):
    (cell,) = plan("mopo", results=tmp_path).cells
    watch = Watch(tmp_path, [Job(cell, 0, "dynamics"), Job(cell, 0)], 2)
    watch.begin(cell, [0], "dynamics")
    watch.look()
    assert watch.left() == "" and watch.done == 0


def test_a_damaged_record_leaves_it_where_it_was(watched):
    watch, cell, _ = watched
    watch.begin(cell, [0])
    reach(cell, 50)
    watch.look()
    (cell.seed_folder(0) / "record.json").write_text("{")
    watch.look()
    assert watch.done == pytest.approx(0.4)


def test_stopped_where_it_stands(watched):
    watch, cell, _ = watched
    watch.begin(cell, [0])
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt), progress(watch, Console(file=stream, force_terminal=True, width=100)):
        reach(cell, 25)
        raise KeyboardInterrupt
    last = [line for line in stream.getvalue().replace("\r", "\n").splitlines() if "runs" in line][-1]
    assert " 20%" in last and "0/1 runs" in last and "100%" not in stream.getvalue()


def test_lines_where_there_is_no_terminal(watched, monkeypatch):
    watch, _, clock = watched
    stream = io.StringIO()
    with module._lines(watch, Console(file=stream, width=100)) as show:
        for clock.now in range(0, 3601):
            show()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "0% done; 0/1 runs, 0/1 fits; about 8 min left; 20 s so far" and 10 < len(lines) < 40


@pytest.mark.parametrize("widgets, drawn", [(None, False), (SimpleNamespace(), True)])
def test_a_notebook_without_widgets_gets_lines(widgets, drawn, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: widgets)
    assert can_draw(Console(force_jupyter=True)) is drawn
    assert not can_draw(Console(file=io.StringIO())) and can_draw(Console(file=io.StringIO(), force_terminal=True))


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_whole_grid_is_done_in_the_end(jobs, plan, tmp_path):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120)
    execute(plan("mopo", "mbpo", "sac", results=tmp_path, seeds=(0, 1)), jobs=jobs, console=console)
    text = stream.getvalue()
    assert "6/6 runs, 2/2 fits" in text and "100%" in text


def test_a_long_grid_is_measured_a_short_one_is_not(plan, monkeypatch, tmp_path):
    console, seen = Console(file=io.StringIO()), []

    class Measures:
        share = 0.5

        def __init__(self, group):
            self.group = group

        def __call__(self, cell):
            seen.append(cell)
            return Costs(1.0)

    monkeypatch.setattr(module, "Calibration", Measures)
    for steps, measured in ((100, 0), (20_000, 1)):
        here = plan("sac", results=tmp_path, steps=steps)
        todo = [(cell, seed, 0) for cell, seed in here.seeds()]
        (job,) = module.measured_jobs(here, todo, 1, None)
        assert job.seconds is None and len(seen) == 0
        (job,) = module.measured_jobs(here, todo, 1, console)
        assert len(seen) == measured and job.seconds == (2.0 * steps if measured else None)  # on half a core
