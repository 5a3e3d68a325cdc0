"""A trained policy as a function of observations: from a run's checkpoint, or from a file that needs nothing of this package.

A file in `.npz` holds arrays, for numpy; one in `.pt2` a program, for `torch.export.load`; one in `.onnx` the same for an ONNX
runtime. What they compute is checked against the learner's own actions before they are kept. `docs/python.md` says how each is
read without this package.
"""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...algorithms.learning.learner import Learner
from ...algorithms.learning.networks import DeterministicActor, GaussianActor
from ...algorithms.learning.registry import get_algorithm
from ...common.errors import UserError
from ...common.files import replace_file
from ...common.settings import Count, converted
from ...common.streams import numpy_stream
from ...tasks.data.dataset import OfflineDataset
from ...tasks.data.request import DatasetRequest
from ...tasks.data.sources import load_dataset
from ...tasks.registry import get_task
from ...tasks.simulation import checked_specification
from ...tasks.task import ActionBox, OfflineProblem, Rules, Task
from .checkpoints import load_checkpoint, load_fit, stage_path
from .evaluation import Evaluator, reset_seeds
from .ledger import existing_folder
from .machine import caller_kept, prepare_process
from .records import Run, Store

Act = Callable[[np.ndarray, np.ndarray | None], np.ndarray]  # observations (n, obs), noise (n, act) or None; actions (n, act)
FORMATS = (".npz", ".pt2", ".onnx")  # that a policy is written in
CHECKED = 64  # random observations on which a file is compared with the learner


@dataclass(frozen=True)
class Policy:
    """A trained policy: call it with observations, get the actions that the environment takes.

    about: where it comes from: `task` and its `parameters`, `algorithm`, `identity`, `seed`, the `step` it had reached, the
    number of `episodes` of its evaluation there, `observation_size`, `action_size`, and the box of its actions, `action_low`
    and `action_high`.
    learner: the one whose actions these are; None where the policy was read from a file.
    """

    act: Act
    about: Mapping[str, Any]
    learner: Learner | None = None

    def __call__(
        self, observations: Any, sampled: bool = False, generator: np.random.Generator | int | None = None
    ) -> np.ndarray:
        """Actions (..., act) in the environment's units, float32, for observations (..., obs): one, or a batch of any shape.

        Deterministic, as policies are evaluated, or `sampled` as in training, with noise from `generator` (a seed, or numpy's).
        Raises UserError where the observations have another size.
        """
        seen = np.asarray(observations, np.float32)
        size, actions = self.about["observation_size"], self.about["action_size"]
        if seen.ndim < 1 or seen.shape[-1] != size:
            raise UserError(f"observations of shape {seen.shape}: the policy of {self.about['task']} sees {size} numbers")
        rows = seen.reshape(-1, size)
        noise = np.random.default_rng(generator).standard_normal((len(rows), actions), np.float32) if sampled else None
        return self.act(rows, noise).reshape(*seen.shape[:-1], actions)

    @property
    def action_box(self) -> ActionBox:
        low, high = (self.about[f"action_{end}"] for end in ("low", "high"))
        return ActionBox(*(tuple(each) if isinstance(each, list) else each for each in (low, high)))

    def save(self, path: Path | str, sampled: bool = False) -> None:
        """Writes it to a file that is read without this package; the suffix says as what, see `FORMATS`.

        Arrays (.npz) hold both ways to act; a program (.pt2, .onnx) is a function of observations (n, obs), or, `sampled`, of
        these and standard normal noise (n, act). Raises UserError where the suffix is another, where the actions are not those
        of networks that arrays can hold, and where ONNX's packages are not installed.
        """
        path = Path(path)
        if path.suffix not in FORMATS:
            raise UserError(f"{path}: a policy is written as {', '.join(FORMATS)}: give a file that ends in one of these")
        if self.learner is None:
            raise UserError(f"{path}: this policy was read from a file; copy that, or load the run that it comes from")
        if path.suffix == ".npz":
            _save_arrays(self, self.learner, path)
        else:
            _save_program(self, self.learner, path, sampled)


# from a run


def load_policy(
    results: Path | str,
    task: str = "",
    algorithm: str = "",
    seed: int = 0,
    identity: str = "",
    dataset: Path | str | None = None,
) -> Policy:
    """The policy of a run as its last checkpoint holds it; or, where `results` is a file that `Policy.save` wrote, that one.

        from mopo_bench import load_policy
        policy = load_policy("runs", "hopper-medium", "mopo", seed=0)
        action = policy(observation)

    identity: which of several runs, by the first letters of its folder's name, where their settings or data differ. dataset:
    the user's own file that the run learned from, where its algorithm looks at the dataset to act and the file was moved.
    Raises UserError where there is no such run, or it has no checkpoint yet, or it diverged, or its code is of another version.
    """
    if Path(results).is_file():
        return read_policy(Path(results))
    folder = existing_folder(results)
    if not task or not algorithm:
        raise UserError("a policy is one of a task, an algorithm and a seed: name all three, or give a file that holds one")
    return policy_of(find_run(folder, task, algorithm, int(seed), identity), folder, Path(dataset) if dataset else None)


def find_run(results: Path, task: str, algorithm: str, seed: int, identity: str) -> Run:
    """The recorded run of that seed; UserError where there is none, or several that their identity would tell apart."""
    here = list(Store(results).runs(task, algorithm))
    found = [run for run in here if run.seed == seed and run.identity.startswith(identity)]
    if not found:
        seeds = ", ".join(sorted({f"{run.identity} seed {run.seed}" for run in here}))
        others = f"; there are {seeds}" if here else "; `mopo-bench status` shows what there is"
        raise UserError(
            f"{results}: no run of {task}/{algorithm} with seed {seed}{f' and identity {identity}' * bool(identity)}{others}"
        )
    if len(found) > 1:
        which = "; ".join(f"{run.identity}: {_chosen(run)}, {run.cell['data']['label']}" for run in found)
        raise UserError(f"{len(found)} runs of {task}/{algorithm} have seed {seed}: say which --identity ({which})")
    return found[0]


def _chosen(run: Run) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(run.cell.get("overrides", {}).items())) or "nothing set"


def _episodes_at(run: Run, step: int) -> int | None:
    """How many episodes the run's evaluation at a step had; None where its record does not say."""
    return next((len(row["returns"]) for row in run.evaluations if row["step"] == step), None)


def policy_of(run: Run, results: Path, dataset: Path | None = None) -> Policy:
    """The policy of a recorded run; see `load_policy`."""
    store = Store(results)
    folder = store.cell_folder(run.task, run.algorithm, run.identity) / f"seed-{run.seed}"
    checkpoint = load_checkpoint(folder)
    if checkpoint is None:
        raise UserError(
            f"{folder} holds no checkpoint: the run was not evaluated yet, or was imported, or its checkpoint was not copied"
        )
    if run.state == "diverged":
        raise UserError(f"{folder} diverged at step {run.record.get('diverged_at')}: its policy is no policy")
    parameters = run.cell.get("rules", {}).get("parameters", {})
    algorithm, task = get_algorithm(run.algorithm), with_parameters(get_task(run.task), parameters)
    known, version = run.cell["versions"].get("learner"), algorithm.versions["learner"]
    if known != version:
        raise UserError(f"{folder} was trained by version {known} of {run.algorithm}, and this is {version}: run it again")
    config = algorithm.configure({key: value for key, value in run.cell["config"].items() if key in algorithm.defaults()})
    configs, problem = algorithm.build_configs(config), _problem(task, run, dataset)
    stages = {}
    for name, kind in algorithm.learner.stages.items():
        path = stage_path(results, name, run.record.get("stages", {}).get(name, "unknown"), run.seed)
        stages[name] = kind(problem, configs[name], [load_fit(path)["state"]])  # type: ignore[arg-type]
    learner = algorithm.learner(problem, configs["learner"], [run.seed], stages=stages)
    learner.load_states([checkpoint["learner"]])
    about = {
        "task": run.task,
        "parameters": parameters,
        "algorithm": run.algorithm,
        "identity": run.identity,
        "seed": run.seed,
        "step": checkpoint["step"],
        "episodes": _episodes_at(run, checkpoint["step"]),
        "data": run.cell["data"]["label"],
        "observation_size": problem.observation_size,
        "action_size": problem.action_size,
        "action_low": task.problem.action_box.low,
        "action_high": task.problem.action_box.high,
        "package": run.cell["package"],
    }
    return Policy(_acting(learner, task.problem.action_box), about, learner)


def _acting(learner: Learner, box: ActionBox) -> Act:
    def act(observations: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        draws = None if noise is None else torch.from_numpy(noise)[None]
        return box.from_unit(learner.act(torch.from_numpy(observations)[None], draws)[0].numpy())

    return act


def with_parameters(task: Task, parameters: Mapping[str, Any]) -> Task:
    """The task with the parameters that a record holds."""
    for name, value in parameters.items():
        task = task.variant(name, value) if name in task.parameters else task
    return task


@dataclass(frozen=True)
class _Recorded(Rules):
    """The problem of a recorded run; its dataset is looked for only if the learner asks for it."""

    find: Callable[[], OfflineDataset]

    @cached_property
    def dataset(self) -> OfflineDataset:
        return self.find()


def _problem(task: Task, run: Run, file: Path | None) -> _Recorded:
    def find() -> OfflineDataset:
        asked = run.cell.get("dataset") or {}
        chosen = file or (Path(asked["file"]) if asked.get("file") else None)
        if not asked and chosen is None:
            raise UserError(f"{run.algorithm} looks at its dataset to act, and this record does not say where that is: name it")
        dataset = load_dataset(task, DatasetRequest(**{**asked, "file": chosen}))
        if dataset.digest() != run.cell["data"]["digest"]:
            raise UserError(
                f"the dataset of {run.task} is not the one that {run.algorithm} learned from, and it looks at it to act"
            )
        problem: OfflineProblem = task.offline_problem(dataset)
        return problem.dataset

    rules = task.problem
    sizes = (rules.observation_size, rules.action_size)
    return _Recorded(*sizes, rules.termination, rules.discount, rules.max_episode_steps, find)


# what it is worth


@dataclass(frozen=True)
class PolicyReturns:
    """What a policy returned on a task.

    about: that of the policy. returns: undiscounted, one for each episode. score: of their mean, None without reference
    returns. sampled: whether its actions were.
    """

    task: str
    about: Mapping[str, Any]
    returns: list[float]
    score: float | None
    sampled: bool

    @property
    def mean(self) -> float:
        return float(np.mean(self.returns))

    @property
    def std(self) -> float | None:
        """The sample standard deviation over episodes; None of one."""
        return float(np.std(self.returns, ddof=1)) if len(self.returns) > 1 else None


@caller_kept()
def evaluate(
    policy: Policy, task: str | Task | None = None, episodes: int | None = None, sampled: bool = False
) -> PolicyReturns:
    """Plays episodes of a policy in the real environment: of its own task with the parameters it had, or of another one.

    The starts are those of the run's own evaluation at the step where the policy stands, so that as many episodes as that had
    give its returns again. So many there are by default; on another task as many as its evaluations have. Raises UserError for
    a task of other sizes or another action box.
    """
    prepare_process()
    about = policy.about
    chosen = (
        task
        if isinstance(task, Task)
        else with_parameters(get_task(task or about["task"]), {} if task else about["parameters"])
    )
    sizes = (chosen.problem.observation_size, chosen.problem.action_size)
    own = (about["observation_size"], about["action_size"])
    if sizes != own:
        raise UserError(
            f"{chosen.name} has observations of {sizes[0]} numbers and actions of {sizes[1]}, the policy {own[0]} and {own[1]}"
        )
    if not np.array_equal(_bounds(chosen.problem.action_box, sizes[1]), _bounds(policy.action_box, sizes[1])):
        raise UserError(f"{chosen.name} takes actions in another box than {about['task']}, on which the policy was trained")
    usual = (about.get("episodes") if chosen.name == about["task"] else None) or chosen.evaluation.episodes
    episodes = converted(usual if episodes is None else episodes, Count, "--episodes")
    generator = numpy_stream(about["seed"], "sampled evaluation", about["step"])
    # the policy gives the environment's own actions already
    played = replace(chosen, problem=replace(chosen.problem, action_box=ActionBox()))
    evaluator = Evaluator(played, checked_specification(chosen))
    (returns,) = evaluator.returns(
        lambda observations: policy(observations, sampled, generator if sampled else None),
        [reset_seeds(about["seed"], about["step"], episodes)],
    )
    score = chosen.references.score(float(returns.mean())) if chosen.references else None
    return PolicyReturns(chosen.name, about, returns.tolist(), score, sampled)


def _bounds(box: ActionBox, size: int) -> np.ndarray:
    return np.array([np.broadcast_to(np.asarray(each, float), size) for each in (box.low, box.high)])


# arrays


def _save_arrays(policy: Policy, learner: Learner, path: Path) -> None:
    form = _form(learner)
    arrays, about = _arrays(learner) if form else {}, {**policy.about, **form}
    generator = np.random.default_rng(0)
    seen = generator.standard_normal((CHECKED, policy.about["observation_size"]), np.float32)
    noise = generator.standard_normal((CHECKED, policy.about["action_size"]), np.float32)
    if "actor_0" in arrays:
        act = acting_arrays(arrays, about)
        differences = [np.abs(act(seen, draw) - policy.act(seen, draw)).max(-1) for draw in (None, noise)]
        # where two candidates are as good as equal, rounding may choose the other one
        if all((difference < 1e-4).mean() > 0.9 for difference in differences):
            arrays["about"] = np.array(json.dumps(about))
            replace_file(path, lambda temporary: _write_arrays(temporary, arrays))
            return
    raise UserError(f"{path}: {policy.about['algorithm']} acts in a way that plain arrays do not hold; write it as .pt2")


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _arrays(learner: Learner) -> dict[str, np.ndarray]:
    """The weights of the networks that act, "actor_0", "actor_1", ..., of the first critic where it chooses, and candidates."""
    arrays: dict[str, np.ndarray] = {}
    for name in learner.acting:
        weights = [weight[0] for weight in getattr(learner, name).weights]
        weights = [weight[0] if weight.ndim > 2 else weight for weight in weights]  # the first of an ensemble
        arrays |= {f"{name}_{index}": weight.numpy() for index, weight in enumerate(weights)}
    if learner.candidates is not None:
        arrays["candidates"] = learner.candidates[0].numpy()
    return arrays


def _form(learner: Learner) -> dict[str, Any]:
    """What the actor's outputs mean: `deterministic` actions before tanh, or means and log standard deviations in a range.

    Empty for an actor of another kind, or none.
    """
    actor = getattr(learner, "actor", None)
    if isinstance(actor, GaussianActor):
        return {"deterministic": False, "log_std_bounds": list(actor.log_std_range), "smooth_log_std": actor.smooth_log_std}
    return {"deterministic": True} if isinstance(actor, DeterministicActor) else {}


def acting_arrays(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> Act:
    """How a policy in arrays acts, by numpy alone."""

    def network(name: str, inputs: np.ndarray) -> np.ndarray:
        last = sum(each.startswith(f"{name}_") for each in arrays) - 2
        for layer in range(0, last + 1, 2):
            inputs = inputs @ arrays[f"{name}_{layer}"] + arrays[f"{name}_{layer + 1}"]
            inputs = np.maximum(inputs, 0) if layer < last else inputs
        return inputs

    def unit_action(observations: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        outputs = network("actor", observations)
        if about["deterministic"]:
            return np.tanh(outputs)
        mean, log_std = np.split(outputs, 2, axis=-1)
        low, high = about["log_std_bounds"]
        smooth = about["smooth_log_std"]
        log_std = low + 0.5 * (high - low) * (1 + np.tanh(log_std)) if smooth else np.clip(log_std, low, high)
        if noise is not None:
            return np.tanh(mean + np.exp(log_std) * noise)
        if "candidates" not in arrays:
            return np.tanh(mean)
        actions = np.tanh(mean + np.exp(log_std) * arrays["candidates"])  # (candidates, n, act)
        repeated = np.broadcast_to(observations, (len(actions), *observations.shape))
        values = network("critic", np.concatenate([repeated, actions], -1))[..., 0]
        return actions[values.argmax(0), np.arange(len(observations))]

    def act(observations: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        action = unit_action(observations, noise)
        low, high = (np.asarray(about[f"action_{end}"], np.float32) for end in ("low", "high"))
        return action if np.all(low == -1) and np.all(high == 1) else low + (action + 1) / 2 * (high - low)

    return act


# programs


class _Program(nn.Module):
    """The learner's actions as a function of observations (n, obs), and of noise (n, act) where they are sampled."""

    def __init__(self, learner: Learner, box: ActionBox):
        super().__init__()
        self.act, self.unit = learner.act, box.is_unit
        self.low, self.high = torch.tensor(box.low), torch.tensor(box.high)

    def forward(self, observations: Tensor, noise: Tensor | None = None) -> Tensor:
        action = self.act(observations[None], None if noise is None else noise[None])[0]
        return action if self.unit else self.low + (action + 1) / 2 * (self.high - self.low)


def _save_program(policy: Policy, learner: Learner, path: Path, sampled: bool) -> None:
    about = {**policy.about, "sampled": sampled}
    sizes = (about["observation_size"], about["action_size"])[: 1 + sampled]
    example = tuple(torch.zeros(2, size) for size in sizes)
    rows = torch.export.Dim("rows", min=1)
    module, shapes = _Program(learner, policy.action_box).eval(), tuple({0: rows} for _ in example)
    if path.suffix == ".onnx":
        _save_onnx(module, example, shapes, path)
        return
    with torch.no_grad():
        program = torch.export.export(module, example, dynamic_shapes=shapes)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            torch.export.save(program, file, extra_files={"about.json": json.dumps(about)})

    replace_file(path, write)


def _save_onnx(module: nn.Module, example: tuple[Tensor, ...], shapes: Any, path: Path) -> None:
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise UserError(
            f"{path}: ONNX files need {' and '.join(missing)}: `pip install onnx onnxscript`, or write .pt2 or .npz"
        )
    names = ["observations", "noise"][: len(example)]
    with warnings.catch_warnings(action="ignore"):  # of what torch itself calls by old names
        program = torch.onnx.export(
            module, example, input_names=names, output_names=["actions"], dynamic_shapes=shapes, dynamo=True, verbose=False
        )
    assert program is not None
    replace_file(path, lambda temporary: program.save(str(temporary), external_data=False))  # one file


def read_policy(path: Path) -> Policy:
    """A policy from a file that `Policy.save` wrote, .npz or .pt2. Raises UserError for another file."""
    if path.suffix not in (".npz", ".pt2"):
        raise UserError(f"{path}: policies are read from .npz and .pt2 files")
    try:
        return _read_arrays(path) if path.suffix == ".npz" else _read_program(path)
    except (OSError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        why = " ".join(str(error).split())
        raise UserError(
            f"{path} is not a policy that `mopo-bench export-policy` wrote ({type(error).__name__}: {why})"
        ) from None


def _read_arrays(path: Path) -> Policy:
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    about = json.loads(str(arrays.pop("about")))
    if "actor_0" not in arrays or "deterministic" not in about:
        raise ValueError("it holds other arrays")
    return Policy(acting_arrays(arrays, about), about)


def _read_program(path: Path) -> Policy:
    extra = {"about.json": ""}
    program = torch.export.load(path, extra_files=extra).module()
    about = json.loads(extra["about.json"])

    def act(observations: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        if (noise is not None) != about["sampled"]:
            wanted = "samples" if about["sampled"] else "is deterministic"
            raise UserError(f"{path}: this program {wanted}; an .npz file holds both ways to act")
        inputs: Sequence[np.ndarray] = [observations] if noise is None else [observations, noise]
        with torch.no_grad():
            return program(*map(torch.from_numpy, inputs)).numpy()

    return Policy(act, about)
