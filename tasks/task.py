"""A task and its parts: the problem, the recipe of its dataset, how policies are evaluated on it, and its reference returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..common.errors import UserError, unknown
from ..common.settings import Count, Fraction, converted
from ..common.source_digest import unwrapped, version_or_source
from .data.dataset import OfflineDataset
from .rewards import Reward
from .terminations import TERMINATIONS, Termination, never

Regenerate = Callable[["Task", int, int], OfflineDataset]
# What the real simulator does from states (n, obs) at actions (n, act) in [-1, 1]: next observations (n, obs), rewards (n). No
# part of an offline problem: the harness hands it to what asks for it in its type, see `true_step.py`.
TrueStep = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class ActionBox:
    """The environment's action box, mapped to [-1, 1] for everything that learns; one bound holds for every dimension."""

    low: float | tuple[float, ...] = -1.0
    high: float | tuple[float, ...] = 1.0

    @property
    def is_unit(self) -> bool:
        return bool(np.all(np.equal(self.low, -1.0)) and np.all(np.equal(self.high, 1.0)))

    def to_unit(self, actions: np.ndarray) -> np.ndarray:
        """Actions (..., act) of the environment in [-1, 1]; those outside the box are clipped."""
        if self.is_unit:
            return actions
        low, high = np.asarray(self.low, actions.dtype), np.asarray(self.high, actions.dtype)
        return np.clip(2 * (actions - low) / (high - low) - 1, -1, 1)

    def from_unit(self, actions: np.ndarray) -> np.ndarray:
        """Actions (..., act) in [-1, 1] as the environment takes them."""
        if self.is_unit:
            return actions
        low, high = np.asarray(self.low, actions.dtype), np.asarray(self.high, actions.dtype)
        return low + (actions + 1) / 2 * (high - low)


@dataclass(frozen=True)
class Rules:
    """What a learner may know of a task in addition to its dataset. Actions are in [-1, 1], whatever the environment's box.

    termination: `(s, a, s')` as tensors (..., obs), (..., act) and (..., obs), to booleans (...).
    discount: per step. max_episode_steps: where the environment stops an episode.
    """

    observation_size: int
    action_size: int
    termination: Termination
    discount: float
    max_episode_steps: int


@dataclass(frozen=True)
class OfflineProblem(Rules):
    """The rules and the dataset, never an environment. The dataset's actions are in [-1, 1], too."""

    dataset: OfflineDataset


@dataclass(frozen=True)
class Problem(Rules):
    """What a task asks to be solved: its rules, and the action box of its environment."""

    termination: Termination = never
    discount: float = 0.99
    max_episode_steps: int = 1000
    action_box: ActionBox = ActionBox()

    def __post_init__(self) -> None:
        """Raises UserError for a `max_episode_steps` that is no whole number of steps, or a `discount` outside [0, 1]."""
        object.__setattr__(self, "max_episode_steps", converted(self.max_episode_steps, Count, "max_episode_steps"))
        object.__setattr__(self, "discount", converted(self.discount, Fraction, "discount"))


@dataclass(frozen=True)
class DataFile:
    """One file of D4RL: where it is and what it must be."""

    version: str  # v0 is the paper's
    url: str
    bytes: int
    sha256: str

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Acceptance:
    """What a dataset must show before it may stand for the paper's; `harness/collection/acceptance.py` looks.

    margin: the best episode must return so much more than the zero action and than random actions, under the task's reward.
    pitch, speed: columns of the observation that hold the torso's angle (rad) and its forward velocity (m/s); None where
        nothing is asked of it. The median of |pitch| must be below `upright`, the last tenth's mean velocity above `moving`.
    growing: for a replay buffer, whose last tenth must return `margin` more than its first.
    expert: the return that the best episodes must have on average; None where there is no expert among them.
    """

    margin: float
    pitch: int | None = None
    speed: int | None = None
    upright: float = 1.0
    moving: float = 1.0
    growing: bool = False
    expert: float | None = None


@dataclass(frozen=True)
class DatasetRecipe:
    """How a task's dataset comes to be: D4RL's files, else regenerated from what the package bundles, else collected anew.

    files: D4RL's, one for each version.
    kinematics: the name in `episodes.KINEMATICS` by which the ends of episodes are found in a log that does not store them.
    regenerate: `(task, rows, seed)` to a dataset of about that many rows. Raise its attribute `version`, if it has one, when
        it makes another dataset, or the cache keeps the old one.
    rows: how many rows are regenerated unless the user asks for another number.
    made_from: whose policy a regenerated dataset is of, in words for tables.
    label: a regenerated dataset is shown as task@label.
    protocol: the parts of which D4RL's protocol makes the dataset, in order; see `collect` of `harness/collection/collect.py`.
    collected_under: parameters of the environment that had other values when the dataset was logged.
    recorded: entries of the environment's `info` that the log must store in addition to the transitions.
    reward: computes the task's own rewards from what was recorded; None where the log has them already.
    acceptance: what the dataset must show to be fit for comparisons; None where nothing is asked.
    """

    files: tuple[DataFile, ...] = ()
    kinematics: str | None = None
    regenerate: Regenerate | None = None
    rows: int = 100_000
    made_from: str = ""
    label: str = "regenerated"
    protocol: tuple[str, ...] = ()
    collected_under: Mapping[str, Any] = field(default_factory=dict)
    recorded: tuple[str, ...] = ()
    reward: Reward | None = None
    acceptance: Acceptance | None = None


@dataclass(frozen=True)
class EvaluationProtocol:
    """The budget in gradient steps, how many steps lie between evaluations, and how many episodes one evaluation takes."""

    steps: int = 1_000_000
    evaluate_every: int = 1_000
    episodes: int = 10


class ReferenceReturns(NamedTuple):
    """The returns that the normalised score maps to 0 and 100, in D4RL those of a random and of an expert policy."""

    min: float
    max: float

    def score(self, episode_return: float) -> float:
        """The normalised score of a return or a mean of returns: 100 (R - min) / (max - min)."""
        return 100 * (episode_return - self.min) / (self.max - self.min)

    def of_score(self, score: float) -> float:
        """The return whose normalised score this is."""
        return self.min + score * (self.max - self.min) / 100

    def score_std(self, std: float) -> float:
        """A standard deviation of returns on the scale of scores, which has no offset: 100 std / (max - min)."""
        return 100 * std / (self.max - self.min)


@dataclass(frozen=True)
class Task:
    """A task: an environment with its rules, where its dataset comes from, and how policies are evaluated on it.

    A task of your own needs no more than its first three fields, and a dataset (a file that the user names, or a recipe):

        register_task(Task("pendulum", "Pendulum-v1", Problem(3, 1, action_box=ActionBox(-2.0, 2.0), max_episode_steps=200)))

    environment: Gymnasium's id.
    parameters: keyword arguments of the environment. They make variants of the task, and are part of a run's identity.
    follows: for parameters that change the problem, gives the changed fields of `Problem` by name.
    references: None where the field has agreed on none; tables then show returns.
    origin: the module that registered it.
    """

    name: str
    environment: str
    problem: Problem
    parameters: Mapping[str, Any] = field(default_factory=dict)
    follows: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    recipe: DatasetRecipe = DatasetRecipe()
    evaluation: EvaluationProtocol = EvaluationProtocol()
    references: ReferenceReturns | None = None
    origin: str = ""

    def with_parameters(self, **parameters: Any) -> Task:
        """A variant of the task, and of its problem as far as that follows. Raises UserError for an unknown parameter."""
        for name in parameters:
            if name not in self.parameters:
                raise unknown(f"parameter of {self.name}", name, self.parameters, "mopo-bench list tasks --json")
        parameters = {**self.parameters, **parameters}
        problem = replace(self.problem, **self.follows(parameters)) if self.follows else self.problem
        return replace(self, parameters=parameters, problem=problem)

    def variant(self, name: str, value: Any) -> Task:
        """The task with one parameter at another value, perhaps written on a command line; "termination" takes a rule's name.

        Raises UserError for an unknown parameter or rule, and for a value that does not fit.
        """
        if name == "termination" and name not in self.parameters:
            if value not in TERMINATIONS:
                raise unknown("termination", str(value), TERMINATIONS, "mopo-bench list tasks")
            return replace(self, problem=replace(self.problem, termination=TERMINATIONS[value]))
        if name not in self.parameters:
            known = [*self.parameters, "termination"]
            raise unknown(f"parameter of {self.name}", name, known, "mopo-bench list tasks --json")
        kind = _kind_of(self.parameters[name])
        return self.with_parameters(**{name: converted(value, kind, f"{self.name}.{name}")})

    def variants(self, name: str, value: Any) -> list[Task]:
        """The task at each of the values that a parameter sweeps over: several in a list, or in a text between commas.

        A parameter that is several numbers itself takes one value. Raises UserError as `variant`.
        """
        if isinstance(value, str) and not isinstance(self.parameters.get(name), tuple):
            value = value.split(",")
        swept = isinstance(value, list | tuple) and not isinstance(self.parameters.get(name), tuple)
        return [self.variant(name, each) for each in (dict.fromkeys(value) if swept else [value])]

    def as_collected(self) -> Task:
        """The task in whose environment the dataset is logged, which may pay another reward than this one's."""
        parameters = {**self.parameters, **self.recipe.collected_under}
        return replace(self, parameters=parameters, recipe=replace(self.recipe, collected_under={}))

    def identity(self) -> dict[str, Any]:
        """What of a task, in addition to its dataset, decides the numbers of a run."""
        return {
            "task": self.name,
            "environment": self.environment,
            "parameters": dict(self.parameters),
            "termination": _with_source(self.problem.termination),
            "max_episode_steps": self.problem.max_episode_steps,
            "discount": self.problem.discount,
        }

    def offline_problem(self, dataset: OfflineDataset) -> OfflineProblem:
        """The learner's view: the rules, and the dataset with its actions mapped to [-1, 1]."""
        problem, box = self.problem, self.problem.action_box
        if not box.is_unit:
            dataset = replace(dataset, actions=box.to_unit(dataset.actions))
        sizes = (problem.observation_size, problem.action_size)
        return OfflineProblem(*sizes, problem.termination, problem.discount, problem.max_episode_steps, dataset)


def _kind_of(default: Any) -> Any:
    """The type of a parameter, from its default; several numbers may also be none at all."""
    several: Any = tuple
    return several[tuple(map(type, default))] | None if isinstance(default, tuple) else type(default)


def _with_source(rule: Any) -> str:
    """The name of a rule and, of one from outside this package, its version or source: edited, it is another rule."""
    version, name = version_or_source(unwrapped(rule)), name_of(rule)
    return f"{name} (version {version})" if version else name


def name_of(function: Any) -> str:
    """The name of a function as it stands in a run's identity; of a `functools.partial`, with the arguments that it fixes.

    Raises UserError for a function without a name of its own: two lambdas, or two closures of one factory, would be taken
    for one.
    """
    if isinstance(function, partial):
        fixed = ", ".join(f"{key}={value!r}" for key, value in function.keywords.items())
        return f"{name_of(function.func)}({fixed})"
    name = getattr(function, "__qualname__", "<object>")
    if "<" in name:
        raise UserError(
            f"{name} does not distinguish one run from another: give a function of a module, or functools.partial of one"
        )
    return name
