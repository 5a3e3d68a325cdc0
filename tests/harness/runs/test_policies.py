"""A trained policy: what a run's checkpoint says, and what a file says without this package."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from mopo_bench import UserError, evaluate, load_policy, register_algorithm
from mopo_bench.algorithms.bc import BC
from mopo_bench.algorithms.learning.networks import DeterministicActor
from mopo_bench.algorithms.learning.registry import all_algorithms
from mopo_bench.algorithms.sac import SAC
from mopo_bench.harness.api import run
from mopo_bench.harness.runs.ledger import load_runs
from mopo_bench.harness.runs.policies import policy_of

PAGE = Path(__file__).resolve().parents[3] / "docs" / "python.md"
BLOCKS = re.findall("```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
SETTINGS = {
    "hidden": (16, 16), "critic_hidden": (16, 16), "behaviour_hidden": (8, 8), "rollout_states": 50, "acting_samples": 20,
    "dynamics.max_epochs": 1, "dynamics.hidden": (8, 8, 8), "behaviour.hidden": (8, 8), "behaviour.steps": 20,
    "mopo.penalty_coefficient": [1, 2], "warmup_steps": 0,
}  # fmt: skip
OPTIONS = {"seeds": [3], "steps": 40, "evaluate_every": 20, "jobs": 1, "quiet": True}


class Standardised(SAC):
    """It looks at the dataset to act, and acts in a way that arrays of networks do not hold."""

    def build(self):
        super().build()
        seen = torch.as_tensor(np.array(self.problem.dataset.observations)).to(self.dtype)
        self.mean, self.std = seen.mean(0), seen.std(0)

    def act(self, observations, noise=None):
        return super().act((observations - self.mean) / self.std, noise)


class Deterministic(SAC):
    @dataclass(frozen=True)
    class Config(SAC.Config):
        pass

    def build(self):
        super().build()
        sizes = (self.problem.observation_size, self.problem.action_size)
        self.greedy = self.trainable(DeterministicActor.create(self.initialise, *sizes, self.config.hidden), 1e-3)

    def act(self, observations, noise=None):
        return self.greedy(observations)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Runs of every kind of acting; `pendulum-mixed` has another action box."""
    folder = tmp_path_factory.mktemp("runs")
    register_algorithm("standardised", Standardised)
    names = "bc,sac,mopo,bear,brac-v"
    run(tasks="point-angle", algorithms=names, results=folder, settings=SETTINGS, episodes=3, **OPTIONS)
    run(tasks="pendulum-mixed", algorithms="bc,bear,standardised", results=folder, settings=FOR_PENDULUM, episodes=2, **OPTIONS)
    yield folder
    del all_algorithms()["standardised"]


FOR_PENDULUM = {key: SETTINGS[key] for key in ("hidden", "behaviour_hidden", "acting_samples")} | {"bear.warmup_steps": 0}


@pytest.fixture(scope="module")
def policies(results):
    return [policy_of(each, results) for each in load_runs(results)]


def seen(policy, rows=200):
    return np.random.default_rng(1).normal(size=(rows, policy.about["observation_size"])).astype(np.float32)


def test_every_run_has_its_policy(policies):
    assert len(policies) == 9 and {each.about["algorithm"] for each in policies} >= {"bc", "bear", "brac-v", "standardised"}


def test_it_returns_what_its_run_did(policies, results):
    """All digits of the last evaluation: the same weights, the same starts, the same way to act."""
    for policy, recorded in zip(policies, load_runs(results), strict=True):
        last = recorded.evaluations[-1]
        found = evaluate(policy)
        assert found.returns == last["returns"] and found.mean == pytest.approx(last["return_mean"])
        assert evaluate(policy, episodes=2, sampled=True).returns != last["returns"][:2]


def test_one_observation_or_many(policies):
    for policy in policies:
        rows = seen(policy, 6)
        actions = policy(rows)
        assert actions.shape == (6, policy.about["action_size"]) and actions.dtype == np.float32
        np.testing.assert_allclose(policy(rows[2]), actions[2], atol=1e-6)
        np.testing.assert_allclose(policy(rows.reshape(2, 3, -1).tolist()).reshape(6, -1), actions, atol=1e-6)
        low, high = policy.about["action_low"], policy.about["action_high"]
        assert (actions >= low).all() and (actions <= high).all()
        once, again, other = (policy(rows, sampled=True, generator=seed) for seed in (0, 0, 1))
        np.testing.assert_array_equal(once, again)
        assert not np.array_equal(once, other) and not np.array_equal(once, actions)
    assert np.abs(policies[0](100 * seen(policies[0]))).max() > 1.5  # pendulum's box is [-2, 2]


@pytest.mark.parametrize("wrong", [np.zeros(7), np.zeros((4, 7)), 1.0])
def test_observations_of_another_size(wrong, policies):
    with pytest.raises(UserError, match="sees 2 numbers"):
        next(each for each in policies if each.about["task"] == "point-angle")(wrong)


LOADER = """
import json, sys
import numpy as np
{code}
policies, inputs, outputs = json.loads(sys.argv[1]), np.load(sys.argv[2]), {{}}
for name in policies:
    policy = ArrayPolicy(name)
    rows, noise = (inputs[f"{{each}} {{policy.about['task']}}"] for each in ("rows", "noise"))
    outputs[name + " mode"], outputs[name + " sampled"] = policy(rows), policy(rows, noise)
np.savez(sys.argv[3], **outputs)
assert not [name for name in sys.modules if name.startswith(("mopo_bench", "torch"))]
"""


def inputs_of(policies, path):
    arrays = {}
    for policy in policies:
        rows, task = seen(policy), policy.about["task"]
        noise = np.random.default_rng(0).standard_normal((len(rows), policy.about["action_size"]), np.float32)
        arrays |= {f"rows {task}": rows, f"noise {task}": noise}
    np.savez(path, **arrays)


def mostly_equal(actual, expected):
    """To float precision; of BEAR's candidates two that are as good as equal may be exchanged."""
    differences = np.abs(actual - expected).max(-1)
    return np.quantile(differences, 0.98) < 2e-6 * max(1, np.abs(expected).max())


def test_arrays_need_numpy_alone(policies, tmp_path):
    kept = {
        str(tmp_path / f"{number}.npz"): each
        for number, each in enumerate(policies)
        if not isinstance(each.learner, Standardised)
    }
    for path, policy in kept.items():
        policy.save(path)
    inputs_of(policies, tmp_path / "inputs.npz")
    code = LOADER.format(code=BLOCKS[-1])
    words = [json.dumps(list(kept)), str(tmp_path / "inputs.npz"), str(tmp_path / "outputs.npz")]
    subprocess.run([sys.executable, "-c", code, *words], check=True)
    outputs = np.load(tmp_path / "outputs.npz")
    for path, policy in kept.items():
        rows, again = seen(policy), load_policy(path)
        for found in (outputs[f"{path} mode"], again(rows)):
            assert mostly_equal(found, policy(rows)), policy.about
        for found in (outputs[f"{path} sampled"], again(rows, True, 0)):
            assert mostly_equal(found, policy(rows, True, 0)), policy.about
        assert evaluate(again, episodes=2).mean == pytest.approx(evaluate(policy, episodes=2).mean, rel=1e-2)


PROGRAM = """
import json, sys
import numpy as np, torch
names, sampled, inputs, outputs = json.loads(sys.argv[1]), json.loads(sys.argv[2]), np.load(sys.argv[3]), {}
for name in names + sampled:
    extra = {"about.json": ""}
    program = torch.export.load(name, extra_files=extra).module()
    task = json.loads(extra["about.json"])["task"]
    given = [torch.from_numpy(inputs[f"{each} {task}"]) for each in (["rows", "noise"] if name in sampled else ["rows"])]
    outputs[name] = program(*given).numpy()
    for rows in (1, 7):
        assert np.allclose(program(*(each[:rows] for each in given)).numpy(), outputs[name][:rows], atol=1e-5)
np.savez(sys.argv[4], **outputs)
assert not [name for name in sys.modules if name.startswith("mopo_bench")]
"""


def test_programs_need_torch_alone(policies, tmp_path):
    *_, bear, standardised = chosen = [each for each in policies if each.about["task"] == "pendulum-mixed"]
    modes = {str(tmp_path / "bear.pt2"): bear, str(tmp_path / "standardised.pt2"): standardised}
    samples = {str(tmp_path / "sampled.pt2"): standardised}
    for paths, sampled in ((modes, False), (samples, True)):
        for path, policy in paths.items():
            policy.save(path, sampled=sampled)
    inputs_of(chosen, tmp_path / "inputs.npz")
    words = [json.dumps(list(modes)), json.dumps(list(samples)), str(tmp_path / "inputs.npz"), str(tmp_path / "outputs.npz")]
    subprocess.run([sys.executable, "-c", PROGRAM, *words], check=True)
    outputs = np.load(tmp_path / "outputs.npz")
    for path, policy in modes.items():
        assert mostly_equal(outputs[path], policy(seen(policy))) and mostly_equal(
            load_policy(path)(seen(policy)), policy(seen(policy))
        )
    for path, policy in samples.items():
        assert mostly_equal(outputs[path], policy(seen(policy), True, 0))
        with pytest.raises(UserError, match="this program samples"):
            load_policy(path)(seen(policy))


def test_what_arrays_do_not_hold_is_refused(policies, tmp_path):
    strange = next(each for each in policies if isinstance(each.learner, Standardised))
    with pytest.raises(UserError, match=r"standardised acts in a way .* \.pt2"):
        strange.save(tmp_path / "policy.npz")
    assert not list(tmp_path.iterdir())


def test_a_deterministic_actor_that_is_no_actor_of_its_name(results, tmp_path):
    """It is compared, not believed: its `actor` is not what acts."""
    register_algorithm("deterministic", Deterministic)
    try:
        run(tasks="point-angle", algorithms="deterministic", results=tmp_path, settings={"hidden": (8,)}, episodes=2, **OPTIONS)
        with pytest.raises(UserError, match="deterministic acts"):
            load_policy(tmp_path, "point-angle", "deterministic", 3).save(tmp_path / "policy.npz")
    finally:
        del all_algorithms()["deterministic"]


def test_an_actor_of_another_kind_is_written_as_a_program(tmp_path):
    """IQL's: arrays do not hold it, and say so in a line; a program does."""
    settings = {"hidden": (8,), "batch_size": 16}
    run(tasks="pendulum-mixed", algorithms="iql", results=tmp_path, settings=settings, episodes=2, **OPTIONS)
    policy = load_policy(tmp_path, "pendulum-mixed", "iql", 3)
    with pytest.raises(UserError, match=r"iql acts in a way .* \.pt2"):
        policy.save(tmp_path / "policy.npz")
    policy.save(tmp_path / "policy.pt2")
    assert mostly_equal(load_policy(tmp_path / "policy.pt2")(seen(policy)), policy(seen(policy)))


@pytest.mark.parametrize(
    "asked, word",
    [
        (("point-angle", "mopo", 3), "say which --identity"),
        (("point-angle", "mopo", 4), "no run of point-angle/mopo with seed 4"),
        (("point-angle", "mbpo", 3), "mopo-bench status"),
        (("point-angle", "bc", 3, "zz"), "identity zz"),
        ((), "name all three"),
    ],
)
def test_there_is_no_such_run(asked, word, results):
    with pytest.raises(UserError, match=word):
        load_policy(results, *asked)


def test_one_of_a_sweep_is_chosen(results):
    for each in load_runs(results):
        assert load_policy(results, each.task, each.algorithm, 3, each.identity[:8]).about["identity"] == each.identity


def test_other_code_or_data_is_refused(results, tmp_path, monkeypatch):
    run(tasks="point-angle", algorithms="bc", results=tmp_path, settings={"hidden": (8,)}, episodes=2, **OPTIONS)
    (checkpoint,) = tmp_path.glob("point-angle/bc/*/seed-3/checkpoint.pt")
    with monkeypatch.context() as patch:
        patch.setattr(BC, "version", BC.version + 1)
        with pytest.raises(UserError, match=rf"trained by version {BC.version - 1}\.\d of bc"):
            load_policy(tmp_path, "point-angle", "bc", 3)
    record = checkpoint.with_name("record.json")
    record.write_text(record.read_text().replace('"done"', '"diverged"'))
    with pytest.raises(UserError, match="diverged at step"):
        load_policy(tmp_path, "point-angle", "bc", 3)
    checkpoint.unlink()
    with pytest.raises(UserError, match="no checkpoint"):
        load_policy(tmp_path, "point-angle", "bc", 3)
    monkeypatch.setattr("mopo_bench.harness.runs.policies.load_dataset", lambda *a: pytest.fail("BC does not ask for its data"))
    assert load_policy(results, "point-angle", "bc", 3)
    with pytest.raises(BaseException, match="does not ask"):
        load_policy(results, "pendulum-mixed", "standardised", 3)


def test_on_the_command_line(results, command, tmp_path):
    words = ("evaluate", "point-angle", "--algorithm", "sac", "--seed", 3, "--results", results, "--episodes", 2)
    found = json.loads(command(*words, "--json").out)
    policy = load_policy(results, "point-angle", "sac", 3)
    assert found["returns"] == evaluate(policy, episodes=2).returns and found["score"] is None and found["step"] == 40
    assert (found["task"], found["algorithm"], found["seed"], found["sampled"], found["episodes"]) == (
        "point-angle",
        "sac",
        3,
        False,
        2,
    )
    sampled = json.loads(command(*words, "--json", "--sampled").out)
    assert sampled["sampled"] and sampled["returns"] != found["returns"]
    assert sampled["returns"] == json.loads(command(*words, "--json", "--sampled").out)["returns"]
    assert "over 2 episodes" in command(*words).out
    file = tmp_path / "policy.npz"
    assert command("export-policy", *words[1:-2], "--out", file).code == 0
    again = json.loads(command("evaluate", "--policy", file, "--episodes", 2, "--json").out)
    assert again["returns"] == pytest.approx(found["returns"], rel=1e-3) and again["trained_on_task"] == "point-angle"


@pytest.mark.parametrize(
    "words, word",
    [
        (("evaluate",), "--policy"),
        (("evaluate", "point-angle"), "--algorithm"),
        (
            ("evaluate", "point-angle", "--algorithm", "sac", "--seed", 3, "--task", "hopper-medium"),
            "observations of 11 numbers and actions of 3",
        ),
        (("evaluate", "point-angle", "--algorithm", "sac", "--seed", 3, "--episodes", 0), "--episodes"),
        (("evaluate", "point-angle", "--algorithm", "sac", "--seed", 3, "--task", "point-angel"), "'point-angle'"),
        (("evaluate", "point-angle", "--policy", "x.npz"), "leave out"),
        (("evaluate", "--policy", "no-such-file.npz"), "no-such-file.npz"),
        (("evaluate", "--policy", "policy.txt"), ".npz"),
        (("export-policy", "point-angle", "--algorithm", "sac", "--seed", 3, "--out", "policy.h5"), ".pt2"),
    ],
)
def test_refused_in_one_line(words, word, results, command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    finished = command(*words, *(("--results", results) if "--policy" not in words else ()))
    assert finished.code == 2 and len(finished.err.splitlines()) == 1 and word in finished.err


@pytest.mark.parametrize("name", ["policy.npz", "policy.pt2"])
def test_a_file_that_is_no_policy(name, tmp_path):
    (tmp_path / name).write_bytes(b"no policy")
    with pytest.raises(UserError, match="is not a policy"):
        load_policy(tmp_path / name)
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(UserError, match="is not a policy"):
        load_policy(tmp_path / "other.npz")


def test_onnx_says_what_to_install(results, monkeypatch, tmp_path):
    monkeypatch.setattr("mopo_bench.harness.runs.policies.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install onnx onnxscript"):
        load_policy(results, "point-angle", "bc", 3).save(tmp_path / "policy.onnx")


def test_the_page_s_code_runs(tmp_path):
    (tmp_path / "page.py").write_text("\n".join(BLOCKS) + CHECKS)
    done = subprocess.run([sys.executable, "page.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "unknown task 'point-angel': did you mean 'point-angle'? `mopo-bench list tasks` shows all" in done.stdout


CHECKS = """
assert several.shape == (2, 3) and len(found.returns) == 5 and len(curve) == 4 and len(errors) == 2
rows = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
assert np.allclose(ArrayPolicy("policy.npz")(rows), policy(rows), atol=1e-5)
assert np.allclose(program(torch.from_numpy(rows)).numpy(), policy(rows), atol=1e-5)
"""
