"""One request, whether it comes from the command line, from Python or from a grid file."""

import tomllib

import pytest
from mopo_bench import load, table
from mopo_bench.algorithms.learning.registry import all_algorithms, task_settings
from mopo_bench.common.errors import UserError
from mopo_bench.harness.api import plan_run
from mopo_bench.harness.runs.plan import chosen_tasks, configurations
from mopo_bench.harness.runs.request import RunRequest, of_cell, suites
from mopo_bench.harness.runs.runner import execute
from mopo_bench.tasks.data.request import WINDOWS
from mopo_bench.tasks.registry import all_tasks, get_task


def test_python_and_the_command_line_say_the_same():
    words = RunRequest(tasks="point-angle,ant-angle", algorithms="sac", seeds="0,1", steps="50", settings=["sac.tau=0.1"])
    objects = RunRequest(
        tasks=["point-angle", "ant-angle"], algorithms=("sac",), seeds=range(2), steps=50, settings={"sac.tau": "0.1"}
    )
    assert words == objects
    assert RunRequest(tasks=get_task("point-angle"), algorithms="sac", seeds=3).tasks == (get_task("point-angle"),)


@pytest.mark.parametrize(
    "wrong, word",
    [
        ({"seeds": 0}, "--seeds"),
        ({"seeds": [0, 0]}, "once"),
        ({"seeds": [0.5]}, "whole number"),
        ({"steps": {"point-angle": 0}}, "--steps of point-angle"),
        ({"rows": "many"}, "--rows"),
        ({"data": "web"}, "regenerated"),
        ({"data_digest": "1f0c"}, "8 to 64 digits"),
        ({"data_digest": {"point-angle": "no digest"}}, "--data-digest of point-angle"),
        ({"compile": "maybe"}, "auto"),
        ({"capture": "perhaps"}, "--capture"),
        ({"evaluation_processes": -1}, "--evaluation-processes"),
        ({"settings": ["tau"]}, "key=value"),
        ({"dataset": "mine.hdf5", "rows": 5}, "--dataset"),
        ({"dataset": "mine.hdf5", "data": "d4rl"}, "--data d4rl has nothing to choose"),
        ({"dataset": "mine.hdf5", "tasks": "point-angle,ant-angle"}, "one task"),
        ({"tasks": ()}, "--tasks"),
        ({"algorithms": ""}, "--algorithms"),
    ],
)
def test_refused_by_its_option(wrong, word):
    with pytest.raises(UserError, match=word) as refused:
        RunRequest(**{"tasks": "point-angle", "algorithms": "sac", **wrong})
    assert "\n" not in str(refused.value)


def test_unknown_option_names_the_nearest():
    with pytest.raises(UserError, match="'episodes'"):
        RunRequest.of(tasks="point-angle", algorithms="sac", episods=3)


@pytest.mark.parametrize("name", suites())
def test_suites_hold_what_there_is(name):
    request = RunRequest.of(suite=name)
    assert set(request.tasks) <= set(all_tasks()) and set(request.algorithms) <= set(all_algorithms())
    algorithms = [all_algorithms()[each] for each in request.algorithms]
    for task in request.tasks:
        for algorithm in algorithms:
            configurations(algorithm, get_task(task), request, algorithms)


@pytest.mark.parametrize("name", suites())
def test_printed_grid_is_the_same_grid(name, command, tmp_path):
    extra = ["--seeds", "4-5", "--set", "point-angle:tau=0.5", "--steps", "70"] if name == "ci" else []
    printed = command("run", "--suite", name, *extra, "--print-grid")
    assert printed.code == 0
    file = tmp_path / "grid.toml"
    file.write_text(printed.out)
    again = command("run", "--grid", file, "--print-grid")
    assert tomllib.loads(again.out) == tomllib.loads(printed.out)
    assert set(tomllib.loads(printed.out)) >= {"tasks", "algorithms"}


def test_a_grid_file_is_planned_as_the_words_are(tmp_path):
    file = tmp_path / "grid.toml"
    file.write_text(
        'tasks = ["point-angle", "pendulum-mixed"]\nalgorithms = "sac,bc"\nseeds = 2\nsteps = { point-angle = 70 }\n'
        '[settings]\n"point-angle:sac.tau" = 0.5\nhidden = [8]\n'
    )
    plan = plan_run(grid=file, results=tmp_path, settings={"bc.hidden": (16,)})
    by_name = {(cell.task.name, cell.algorithm.name): cell for cell in plan.cells}
    assert [cell.steps for cell in plan.cells] == [70, 70, 8_000, 8_000]
    assert by_name["point-angle", "sac"].config["tau"] == 0.5 and by_name["pendulum-mixed", "sac"].config["tau"] != 0.5
    assert by_name["pendulum-mixed", "sac"].config["hidden"] == (8,)
    assert by_name["point-angle", "bc"].config["hidden"] == (16,)
    assert {cell.seeds for cell in plan.cells} == {(0, 1)}


def test_what_is_said_beside_a_grid_wins(tmp_path):
    """However general: the demo's cap on epochs names its task, the user's does not."""
    (cell,) = plan_run(
        suite="demo", tasks="halfcheetah-mixed", algorithms="mopo", settings={"dynamics.max_epochs": 3}, results=tmp_path
    ).cells
    assert cell.config["dynamics.max_epochs"] == 3
    (plain,) = plan_run(suite="demo", tasks="halfcheetah-mixed", algorithms="mopo", results=tmp_path).cells
    assert plain.config["dynamics.max_epochs"] == 100 and (plain.steps, plain.evaluate_every) == (35_000, 5_000)


def test_cells_are_left_out(command, tmp_path):
    here = {"tasks": "point-angle,point-edge", "algorithms": "bc,sac", "results": tmp_path}
    left = plan_run(**here, without="point-edge:sac", evaluate_every={"point-edge": 500})
    assert [(cell.task.name, cell.algorithm.name, cell.evaluate_every) for cell in left.cells] == [
        ("point-angle", "bc", 1_000),
        ("point-angle", "sac", 1_000),
        ("point-edge", "bc", 500),
    ]
    for wrong, word in (
        ("sac", "expected TASK:ALGORITHM"),
        ("point-edge:sca", "unknown"),
        ("pendulum-mixed:sac", "not among the tasks"),
        ("point-angle:bc,point-angle:sac,point-edge:bc,point-edge:sac", "nothing is left"),
    ):
        with pytest.raises(UserError, match=word):
            plan_run(**here, without=wrong)
    demo = plan_run(suite="demo", tasks="point-edge", results=tmp_path)  # a grid's exceptions need not be of this run
    assert [cell.algorithm.name for cell in demo.cells] == ["bc", "mopo", "mbpo", "sac"]
    (tmp_path / "grid.toml").write_text(command("run", "--suite", "demo", "--print-grid").out)
    assert 'without = ["halfcheetah-mixed:mbpo"]' in (tmp_path / "grid.toml").read_text().replace("[\n    ", "[").replace(
        ",\n]", "]"
    )


def test_cells_left_out_are_left_out_besides_a_suite_s_own(tmp_path):
    said = RunRequest.of(suite="demo", without="point-edge:sac")
    assert said.without == ("halfcheetah-mixed:mbpo", "point-edge:sac")
    here = {"suite": "demo", "tasks": "point-edge", "results": tmp_path}
    assert [cell.algorithm.name for cell in plan_run(**here, without=["point-edge:sac"]).cells] == ["bc", "mopo", "mbpo"]
    with pytest.raises(UserError, match="halfcheetah-mixed:sac: not among"):  # the suite's exceptions need not be, these must
        plan_run(**here, without="halfcheetah-mixed:sac")
    here = {"suite": "demo", "tasks": "halfcheetah-mixed", "algorithms": "mbpo,sac", "results": tmp_path}
    with pytest.raises(UserError, match="by the suite or grid and --without: halfcheetah-mixed:mbpo, halfcheetah-mixed:sac"):
        plan_run(**here, without="halfcheetah-mixed:sac")


def test_a_grid_narrowed_leaves_out_settings_of_the_others(tmp_path):
    (cell,) = plan_run(suite="demo", tasks="point-edge", algorithms="bc", results=tmp_path).cells
    assert "dynamics.max_epochs" not in cell.config
    (cell,) = plan_run(suite="table1-short", tasks="hopper-medium", algorithms="bc", rows=600, results=tmp_path).cells
    assert not any(key.startswith("behaviour.") for key in cell.config)


@pytest.mark.parametrize(
    "text, word",
    [("tasks = ", "cannot be read"), ('task = "point-angle"', "'tasks'"), ("[settings]\ntua = 1", "'tau'")],
)
def test_bad_grid_files(text, word, tmp_path):
    file = tmp_path / "grid.toml"
    file.write_text(text)
    with pytest.raises(UserError, match=word):
        plan_run(grid=file, tasks="point-angle", algorithms="sac", results=tmp_path)


def test_several_values_sweep(tmp_path):
    settings = ["mopo.penalty_coefficient=0.5,1,2", "hidden=8,8", "sac.tau=0.1,0.2", "sac.batch_size=16,16"]
    plan = plan_run(tasks="point-angle", algorithms="mopo,sac", settings=settings, results=tmp_path)
    mopo = [cell for cell in plan.cells if cell.algorithm.name == "mopo"]
    assert [cell.config["penalty_coefficient"] for cell in mopo] == [0.5, 1.0, 2.0]
    assert all(cell.config["hidden"] == (8, 8) for cell in plan.cells) and len({cell.identity for cell in mopo}) == 3
    assert [cell.config["tau"] for cell in plan.cells if cell.algorithm.name == "sac"] == [0.1, 0.2]
    again = plan_run(
        tasks="point-angle", algorithms="mopo", settings={"mopo.penalty_coefficient": [0.5, 1, 2]}, results=tmp_path
    )
    assert [cell.config["penalty_coefficient"] for cell in again.cells] == [0.5, 1.0, 2.0]


def test_values_of_a_sweep_are_checked(tmp_path):
    with pytest.raises(UserError, match="a number"):
        plan_run(tasks="point-angle", algorithms="mopo", settings=["mopo.penalty_coefficient=0.5,,2"], results=tmp_path)


def test_a_printed_grid_gives_the_same_cells_as_what_was_said(command, tmp_path):
    """Though the demo's setting is the more specific one, and would win over one of its own layer."""
    said = ("--tasks", "halfcheetah-mixed", "--algorithms", "mopo", "--set", "dynamics.max_epochs=3")
    (tmp_path / "grid.toml").write_text(command("run", "--suite", "demo", *said, "--print-grid").out)
    (cell,) = plan_run(grid=tmp_path / "grid.toml", results=tmp_path).cells
    assert cell.config["dynamics.max_epochs"] == 3


def test_a_task_named_wrongly_in_a_number_by_task(tmp_path):
    with pytest.raises(UserError, match="'hopper-medium'"):
        plan_run(tasks="point-angle", algorithms="bc", steps={"hopper-meduim": 5}, results=tmp_path)


def test_a_termination_that_is_set_stays(tmp_path):
    for order in (1, -1):
        settings = ["ant-angle.termination=never", "ant-angle.angle=45"][::order]
        (cell,) = plan_run(tasks="ant-angle", algorithms="bc", rows=200, results=tmp_path, task_set=settings).cells
        assert cell.task.identity()["termination"] == "never" and cell.task.parameters["angle"] == 45.0


def test_by_task_and_algorithm():
    """In words and in Python; the more specific wins, a task over an algorithm, as with settings."""
    words = RunRequest(tasks="t", algorithms="a", steps="100,sac=50, point-angle=70,point-angle:sac=60", window="bc=first_1m")
    assert words.steps == {"*": 100, "sac": 50, "point-angle": 70, "point-angle:sac": 60}
    assert words == RunRequest(tasks="t", algorithms="a", steps=words.steps, window={"bc": "first_1m"})
    cells = [("point-angle", "sac"), ("point-angle", "bc"), ("ant-angle", "sac"), ("ant-angle", "bc")]
    assert [of_cell(words.steps, *cell) for cell in cells] == [60, 70, 50, 100]
    assert [of_cell(words.window, *cell) for cell in cells] == [None, "first_1m", None, "first_1m"]


@pytest.mark.parametrize(
    "said, word",
    [
        ({"steps": "bc=0"}, "--steps of bc"),
        ({"steps": "bc=5,bc=6"}, "once"),
        ({"window": "bc=last"}, "--window of bc"),
        ({"window": "bc"}, "--window='bc'"),
        ({"window": "bk=last_1m"}, "'bc'"),
        ({"steps": "mopo=5"}, "not among the tasks and algorithms of this run"),
        ({"steps": {"point-angle:mopo": 5}}, "not among"),
        ({"rows": {"hopper-medium": 5}}, "not among"),
    ],
)
def test_what_no_cell_would_take_is_refused(said, word, tmp_path):
    with pytest.raises(UserError, match=word):
        plan_run(tasks="point-angle", algorithms="bc,sac", results=tmp_path, **said)


def test_a_grid_may_name_what_is_not_run(tmp_path):
    (cell,) = plan_run(suite="table1", tasks="point-angle", algorithms="bc", results=tmp_path).cells
    assert cell.steps == 500_000 and cell.dataset.window == "first_1m"
    (cell,) = plan_run(suite="table1", tasks="point-angle", algorithms="bc", steps=5, window="all", results=tmp_path).cells
    assert cell.steps == 5 and cell.dataset.window == "all"


@pytest.fixture
def short_windows(monkeypatch):
    """A window of 3 000 rows stands for one of a million."""
    monkeypatch.setitem(WINDOWS, "last_1m", slice(-3_000, None))
    monkeypatch.setitem(WINDOWS, "first_1m", slice(3_000))


def test_a_window_and_a_budget_by_algorithm(short_windows, plan, tmp_path):
    """Each learns from its own rows; who asks for the same rows shares the fit; the others are who they were."""
    names = ("bc", "sac", "mbpo", "mopo", "brac-p", "brac-v")
    usual = {cell.algorithm.name: cell for cell in plan(*names, results=tmp_path).cells}
    windows = {"bc": "first_1m", "mopo": "last_1m", "mbpo": "last_1m", "brac-v": "first_1m"}
    here = {
        cell.algorithm.name: cell for cell in plan(*names, results=tmp_path, window=windows, steps={"bc": 20, "*": 30}).cells
    }
    assert {name: cell.steps for name, cell in here.items()} == {name: 20 if name == "bc" else 30 for name in names}
    changed = {name for name in names if here[name].identity != usual[name].identity}
    assert changed == set(windows) and here["sac"].data == usual["sac"].data
    assert here["mopo"].stage_identity("dynamics") == here["mbpo"].stage_identity("dynamics")
    assert here["mopo"].stage_identity("dynamics") != usual["mopo"].stage_identity("dynamics")
    assert here["brac-p"].stage_identity("behaviour") == usual["brac-p"].stage_identity("behaviour")
    assert here["brac-p"].stage_identity("behaviour") != here["brac-v"].stage_identity("behaviour")
    assert here["mopo"].data["rows"] == 3_000 and here["mopo"].data["whole"]["digest"] == usual["mopo"].digest
    assert here["mopo"].digest != here["bc"].digest


def test_windows_stand_in_one_row_and_are_named(short_windows, plan, tmp_path):
    for window in ({"mopo": "last_1m", "bc": "first_1m"}, {"mopo": "first_1m"}):
        execute(
            plan("mopo", "sac", "bc", results=tmp_path, steps={"bc": 20, "*": 30}, window=window, evaluate_every=10), jobs=1
        )
    text = table("scores", tmp_path)
    assert next(line.split(" | ")[3:8] for line in text.splitlines() if line.startswith("| Task")) == [
        "BC [window=all]",
        "BC [window=first\\_1m]",
        "MOPO [window=first\\_1m]",
        "MOPO [window=last\\_1m]",
        "SAC",
    ]
    assert sum(line.startswith("| point-angle") and "±" not in line for line in text.split("**MOPO")[0].splitlines()) == 1
    assert "3,000 rows, window last" in text and "8,505 rows, window all" in text and "by column: " in text
    frame = load(tmp_path).runs
    assert set(frame.window) == {"all", "last_1m", "first_1m"} and set(frame.data_rows) == {3_000, 8_505}


def test_a_window_that_leaves_nothing_out_is_none(plan, tmp_path):
    (cell,) = plan("bc", results=tmp_path, window={"bc": "last_1m"}).cells
    assert cell.data == plan("bc", results=tmp_path).cells[0].data and cell.data["window"] == "all"


def angles(request):
    return [(task.name, task.parameters.get("angle")) for task in chosen_tasks(request)]


def test_a_parameter_of_a_task_sweeps():
    """Between commas on the command line, in a list elsewhere; one that is several numbers itself takes one value."""
    asked = {"tasks": "point-angle,ant-angle", "algorithms": "sac"}
    assert angles(RunRequest(**asked, task_set="ant-angle.angle=45,60")) == [
        ("point-angle", None),
        ("ant-angle", 45.0),
        ("ant-angle", 60.0),
    ]
    both = RunRequest(**asked, task_set={"ant-angle.angle": [45, 60], "ant-angle.survive_bonus": "0,1"})
    assert len(chosen_tasks(both)) == 5
    (_, task) = chosen_tasks(RunRequest(**asked, task_set="ant-angle.healthy_z_range=0.1,0.9"))
    assert task.parameters["healthy_z_range"] == (0.1, 0.9)


def test_what_is_said_of_a_task_wins_over_the_grid():
    assert angles(RunRequest.of(suite="appendix-e", tasks="ant-angle", task_set="ant-angle.angle=50")) == [("ant-angle", 50.0)]
    weights = chosen_tasks(RunRequest.of(suite="appendix-e", task_set=["ant-angle.angle=50"]))
    assert [task.parameters.get("height_weight") for task in weights] == [None, 5.0, 15.0, 30.0]
    with pytest.raises(UserError, match="with a task of this run"):
        chosen_tasks(RunRequest.of(suite="appendix-e", tasks="point-edge", task_set="ant-angle.angle=50"))
    assert angles(RunRequest.of(suite="appendix-e", tasks="point-edge")) == [("point-edge", None)]


@pytest.mark.parametrize("table", ["table1", "table2"])
def test_a_short_suite_is_its_table_with_less_of_everything(table):
    whole, short = RunRequest.of(suite=table), RunRequest.of(suite=f"{table}-short")
    assert (short.tasks, short.algorithms) == (whole.tasks, whole.algorithms)
    assert (short.data, short.steps, short.seeds) == ("regenerated", 50_000, (0, 1, 2))
    algorithms = [all_algorithms()[each] for each in short.algorithms]
    for task in map(get_task, short.tasks):
        for algorithm in algorithms:
            ((config, overrides),) = configurations(algorithm, task, short, algorithms)
            usual = algorithm.configure(task_settings(algorithm, task.name))
            less = {key for key in overrides if usual[key] is None or overrides[key] < usual[key]}
            assert less == set(overrides) and bool(less) == (algorithm.name not in ("bc", "sac"))
            assert all(config[key] == usual[key] for key in config if key not in overrides)
            assert config.get("warmup_steps", 0) < short.steps / 10


def test_a_short_suite_is_planned_in_small(tmp_path):
    plan = plan_run(suite="table1-short", tasks="hopper-medium", rows=600, steps=20, seeds=1, results=tmp_path)
    by_name = {cell.algorithm.name: cell for cell in plan.cells}
    assert list(by_name) == list(suites()["table1-short"]["algorithms"])
    assert {cell.dataset.source for cell in plan.cells} == {"regenerated"}
    mopo = by_name["mopo"].config
    assert (mopo["rollout_states"], mopo["dynamics.max_epochs"], mopo["rollout_length"]) == (10_000, 100, 5)
    assert by_name["brac-p"].config["behaviour.steps"] == 100_000 and by_name["bear"].config["warmup_steps"] == 4_000


def test_a_dataset_with_another_digest_is_refused(tmp_path):
    """A grid can be bound to its data, whichever version of the package or file is there when it is run."""
    asked = {"tasks": "point-angle,point-edge", "algorithms": "bc", "results": tmp_path, "steps": 10}
    digests = {cell.task.name: cell.digest for cell in plan_run(**asked).cells}
    assert len(plan_run(**asked, data_digest={name: digest[:8] for name, digest in digests.items()}).cells) == 2
    with pytest.raises(UserError, match="--data-digest 0123456789ab: point-edge@regenerated has the digest") as refused:
        plan_run(**asked, data_digest={"point-edge": "0123456789ab"})
    assert digests["point-edge"][:12] in str(refused.value)
    with pytest.raises(UserError, match="point-edge@regenerated has the digest"):
        plan_run(**asked, data_digest=digests["point-angle"])  # of all tasks, and they have different data
    with pytest.raises(UserError, match="not among the tasks"):
        plan_run(**asked, data_digest=f"ant-angle={digests['point-edge']}")
    bound = RunRequest.of(tasks="point-edge", algorithms="bc", data_digest=f"point-edge={digests['point-edge']}").to_grid()
    assert bound["data_digest"] == {"point-edge": digests["point-edge"]}
