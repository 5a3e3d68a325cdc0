"""What a run is known by, and that its files are whole or not there."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, replace

import pytest
import torch
from mopo_bench.algorithms.learning.fast import compiling
from mopo_bench.algorithms.learning.registry import Algorithm, get_algorithm
from mopo_bench.algorithms.sac import SAC
from mopo_bench.common.errors import UserError, WriteError
from mopo_bench.harness.runs import commit
from mopo_bench.harness.runs.checkpoints import load_checkpoint, save_checkpoint
from mopo_bench.harness.runs.ledger import load_runs
from mopo_bench.harness.runs.policies import load_policy
from mopo_bench.harness.runs.records import Store, identity_hash
from mopo_bench.harness.runs.runner import execute
from mopo_bench.tasks.registry import get_task


def sac_with(version=SAC.version, **fields):
    """SAC as its source would be with further fields in its Config, or other defaults: (type, default) by name."""
    namespace = {"__annotations__": {name: kind for name, (kind, _) in fields.items()}}
    namespace |= {name: default for name, (_, default) in fields.items()}
    config = dataclass(frozen=True)(type("Config", (SAC.Config,), namespace))
    body = {name: value for name, value in vars(SAC).items() if name not in ("__dict__", "__weakref__")}
    return Algorithm("sac", type("SAC", SAC.__bases__, body | {"Config": config, "version": version}))


@pytest.fixture
def identity(plan, tmp_path):
    """Of the one cell of a plan."""

    def of(algorithm="sac", **options):
        (cell,) = plan(algorithm, results=tmp_path, **options).cells
        return cell.identity

    return of


def test_the_commit_is_read_and_nothing_is_written(monkeypatch, tmp_path):
    def git(*words):
        return subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True)

    module = tmp_path / "harness" / "runs" / "commit.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    git("init", "-q"), git("add", "."), git("commit", "-qm", "first")
    os.utime(module, (1, 1))  # git would note in its index that the file is as it was
    before = (tmp_path / ".git" / "index").read_bytes()
    monkeypatch.setattr(commit, "__file__", str(module))
    clean = commit.commit.__wrapped__()
    module.write_text("changed")
    assert len(clean) == 12 and commit.commit.__wrapped__() == f"{clean}-dirty"
    assert (tmp_path / ".git" / "index").read_bytes() == before
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit.commit.__wrapped__() is None  # git is not installed


def test_order_of_keys_does_not_matter(identity):
    assert identity_hash({"a": 1, "b": {"c": 2, "d": 3}}) == identity_hash({"b": {"d": 3, "c": 2}, "a": 1})
    settings = {"sac.tau": 0.1, "sac.initial_temperature": 2.0}
    assert identity(settings=settings) == identity(settings=dict(reversed(settings.items())))


def test_new_setting_at_its_default_stays_out(identity):
    extended = sac_with(clip=(float, 1.0))
    assert identity(extended) == identity("sac")
    assert identity(extended, settings={"sac.clip": 1.0}) == identity("sac")
    assert identity(extended, settings={"sac.clip": 2.0}) != identity("sac")


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"sac.tau": 0.02}},
        {"settings": {"sac.hidden": "16,17"}},
        {"rows": 500},
        {"window": "first_1m", "rows": 499},
    ],
)
def test_what_decides_the_numbers_changes_the_identity(change, identity):
    assert identity(**change) != identity()


def test_algorithm_version_and_task_change_the_identity(identity):
    task = get_task("point-angle")
    others = [
        identity("bc"),
        identity(sac_with(version=SAC.version + 1)),
        identity(Algorithm("another", SAC)),
        identity(tasks=[replace(task, problem=replace(task.problem, discount=0.98))]),
        identity(tasks=[replace(get_task("hopper-random"), name="a")], rows=200),
        identity(tasks=[replace(get_task("hopper-random"), name="b")], rows=200),
    ]
    assert len({identity(), *others}) == len(others) + 1


def test_the_horizon_changes_the_identity():
    task = get_task("point-angle")
    shorter = replace(task, problem=replace(task.problem, max_episode_steps=50))
    assert identity_hash(task.identity()) != identity_hash(shorter.identity())


def test_parameters_of_an_environment_change_the_identity():
    ant = get_task("ant-angle")
    identities = [task.identity() for task in (ant, ant.with_parameters(angle=45.0), ant.with_parameters(survive_bonus=0.0))]
    assert len({identity_hash(each) for each in identities}) == 3


@pytest.mark.parametrize(
    "same",
    [
        {"seeds": (3, 4)},
        {"steps": 7},
        {"evaluate_every": 3},
        {"episodes": 9},
        {"compile": True},
        {"window": "last_1m"},  # all of these rows
        {"settings": {"all.tau": 0.01}},  # what the task says already
    ],
)
def test_how_far_and_how_it_is_run_does_not(same, identity, monkeypatch):
    monkeypatch.setattr(compiling, "compiler_trouble", lambda device: None)
    assert identity(**same) == identity()


def test_stage_identity(plan, tmp_path):
    def of(algorithm, **options):
        (cell,) = plan(algorithm, results=tmp_path, **options).cells
        return cell.stage_identity("dynamics")

    mopo = of("mopo")
    assert mopo == of("mbpo") == of("mopo", settings={"mopo.penalty_coefficient": 7, "mopo.rollout_length": 3})
    assert of("mopo", settings={"mopo.dynamics.max_epochs": 3}) != mopo
    assert of("mopo", rows=500) != mopo


def test_changed_default_under_the_same_version_is_refused(plan, contents, tmp_path):
    execute(plan("sac", results=tmp_path, steps=2), jobs=1)
    before = contents(tmp_path)
    changed = plan(sac_with(initial_temperature=(float, 0.5)), results=tmp_path, steps=4)
    with pytest.raises(UserError, match=r"cell\.json: the default of initial_temperature has changed") as refused:
        execute(changed, jobs=1)
    assert "\n" not in str(refused.value)
    assert contents(tmp_path) == before
    execute(plan(sac_with(version=SAC.version + 1, initial_temperature=(float, 0.5)), results=tmp_path, steps=2), jobs=1)
    assert {run.state for run in load_runs(tmp_path)} == {"done"} and len(load_runs(tmp_path)) == 2


def some_checkpoint(step, **parts):
    row = {"step": step, "return_mean": 1.0, "returns": [1.0]}
    record = {"seed": 0, "state": "running", "steps": step, "evaluations": [row]}
    return {"step": step, "learner": {}, "experience": {}, "record": record, **parts}


def test_checkpoint_survives_a_failed_replacement(tmp_path):
    save_checkpoint(tmp_path / "seed-0", some_checkpoint(1, weights=torch.ones(1000)))
    before = (tmp_path / "seed-0/checkpoint.pt").read_bytes()
    with pytest.raises(Exception, match="lambda"):
        save_checkpoint(tmp_path / "seed-0", some_checkpoint(2, weights=torch.ones(1000), bad=lambda: None))
    assert (tmp_path / "seed-0/checkpoint.pt").read_bytes() == before
    assert [path.name for path in (tmp_path / "seed-0").iterdir()] == ["checkpoint.pt"]
    assert load_checkpoint(tmp_path / "seed-0")["step"] == 1


@pytest.mark.parametrize("missing", [1, 100, 10_000, 40_000])  # of the bytes it needs; torch fails elsewhere each time
def test_checkpoint_survives_a_full_disk(missing, full_disk, tmp_path):
    path = tmp_path / "seed-0/checkpoint.pt"
    checkpoint = {"step": 1, "weights": torch.ones(5000), "others": [torch.ones(100) for _ in range(40)]}
    save_checkpoint(path.parent, checkpoint)
    before = path.read_bytes()
    with full_disk(len(before) - missing), pytest.raises(WriteError) as refused:
        save_checkpoint(path.parent, checkpoint | {"step": 2})
    advice = "check the folder, its permissions and free space"
    assert str(refused.value) == f"{path}: cannot be written (File too large); {advice}"
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_nothing_yet(tmp_path):
    store = Store(tmp_path / "none")
    assert store.read_record(tmp_path) is None and load_checkpoint(tmp_path) is None
    assert list(store.runs()) == []


@pytest.fixture(scope="module")
def half_done(plan, tmp_path_factory):
    results = tmp_path_factory.mktemp("half")
    execute(plan("sac", results=results, steps=50), jobs=1)
    return results


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_in_half, emptied])
@pytest.mark.parametrize(
    "names, ending",
    [
        (["checkpoint.pt"], "the run went on from step 25"),
        (["checkpoint.pt", "checkpoint.before.pt"], "the run began anew"),
    ],
)
def test_after_a_damaged_checkpoint_the_one_before_counts(damage, names, ending, half_done, arguments, command, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(half_done, results)
    (folder,) = (path.parent for path in results.rglob("checkpoint.pt"))
    for name in names:
        damage(folder / name)
    finished = command(*arguments("sac", results=results, steps=100))
    assert finished.code == 0 and "done: 1" in finished.out
    assert [(folder / f"{name}.damaged").exists() for name in names] == [True] * len(names)
    said = " ".join(finished.out.split())
    assert "its checkpoint was damaged" in said and "kept as checkpoint.pt.damaged" in said and ending in said
    (run,) = load_runs(results)
    undisturbed = load_runs(half_done)[0].evaluations
    assert [row["step"] for row in run.evaluations] == [25, 50, 75, 100] and run.evaluations[:2] == undisturbed


def test_a_checkpoint_of_another_seed_or_with_other_weights_is_damaged(half_done, arguments, command, contents, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(half_done, results)
    (mine,) = results.rglob("checkpoint.pt")
    other = mine.parent.with_name("seed-1")
    shutil.copytree(mine.parent, other)
    before = contents(mine.parent)
    finished = command(*arguments("sac", results=results, seeds="1-1", steps=50))
    assert "damaged" in finished.out and (other / "checkpoint.pt.damaged").exists()
    assert contents(mine.parent) == before
    assert {run.seed: run.state for run in load_runs(results)} == {0: "done", 1: "done"}
    checkpoint = torch.load(mine, weights_only=True)
    checkpoint["learner"]["actor"]["weights"][0].add_(1)
    torch.save(checkpoint, mine)
    with pytest.raises(UserError, match="digest differs"):
        load_checkpoint(mine.parent)


def test_cell_says_what_was_run(half_done):
    (run,) = load_runs(half_done)
    assert run.identity == run.cell["identity"]
    assert run.cell["config"]["batch_size"] == 32 and run.cell["config"]["tau"] == 0.01
    assert run.cell["overrides"] == {"batch_size": 32, "hidden": [16, 16]}
    assert run.cell["data"]["label"] == "point-angle@regenerated" and len(run.cell["data"]["digest"]) == 64
    assert run.cell["versions"] == get_algorithm("sac").versions
    segment = run.record["segments"][0]
    assert segment["versions"]["torch"] and segment["device"] == "cpu" and segment["group"] == [0]


def test_csv_repeats_the_record(half_done):
    (path,) = half_done.rglob("evaluations.csv")
    header, *rows = [line.split(",") for line in path.read_text().splitlines()]
    evaluations = json.loads(path.with_name("record.json").read_text())["evaluations"]
    assert len(rows) == len(evaluations) and "metrics.critic_loss" in header and "value.highest" in header
    for row, evaluation in zip(rows, evaluations, strict=True):
        for place, text in zip(header, row, strict=True):
            value = evaluation
            for name in place.split("."):
                value = value[name]
            assert text == (" ".join(f"{each:.6g}" for each in value) if isinstance(value, list) else str(value))


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda weights: weights[:, :1], r"SAC.actor.weights\[0\]: expected a tensor of shape \(2, 16\)"),
        (lambda weights: weights[0, 0], r"expected a tensor of shape \(2, 16\) .* got a tensor of shape \(\)"),
        (lambda weights: weights.long(), "torch.float32, got a tensor of shape .* and torch.int64"),
        (lambda weights: weights.double(), "torch.float32, got a tensor of shape .* and torch.float64"),
        (lambda weights: 0.5, "got a float"),
    ],
    ids=["one column", "scalar", "integers", "doubles", "number"],
)
def test_weights_of_another_shape_or_type_are_refused(change, said, half_done, tmp_path):
    """They had been broadcast, and rounded."""
    results = tmp_path / "results"
    shutil.copytree(half_done, results)
    (path,) = results.rglob("checkpoint.pt")
    checkpoint = load_checkpoint(path.parent)
    weights = checkpoint["learner"]["actor"]["weights"]
    weights[0] = change(weights[0])
    save_checkpoint(path.parent, checkpoint)
    with pytest.raises(UserError, match=said):
        load_policy(results, "point-angle", "sac")


def test_a_checkpoint_of_another_run_is_damaged(half_done, plan, tmp_path):
    """Of the same seed and step, and with weights of the same shapes."""
    execute(plan("sac", results=tmp_path, steps=50, settings={"all.tau": 0.5}), jobs=1)
    (mine,), (other,) = tmp_path.rglob("checkpoint.pt"), half_done.rglob("checkpoint.pt")
    shutil.copy(other, mine)
    with pytest.raises(UserError, match="is that of another run, point-angle/sac/"):
        load_policy(tmp_path, "point-angle", "sac")


def test_half_written_files_are_swept_away(half_done, plan, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(half_done, results)
    (path,) = results.rglob("checkpoint.pt")
    left = [path.with_name(".checkpoint.pt.0a.part"), path.parents[1] / ".cell.json.0a.part", results / ".plan.json.0a.part"]
    for each in left:
        each.touch()
    execute(plan("sac", results=results, steps=50), jobs=1)
    assert not any(each.exists() for each in left)
