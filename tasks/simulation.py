"""A task's environment as evaluation uses it: checked against the task when a run is planned, stepped as Gymnasium would."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.spaces import Box
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from ..common.errors import FOREIGN, UserError
from ..common.source_digest import unwrapped, version_or_source
from .environments import quiet_model_loading, register
from .task import Task

KNOWN = ("gymnasium.", "mopo_bench.")  # whose environments are known by their versions
STANDARD_WRAPPERS = (TimeLimit, OrderEnforcing, PassiveEnvChecker)  # what `gymnasium.make` adds by itself


def simulate(task: Task, specification: EnvSpec | None = None) -> gymnasium.Env:
    """The task's environment. An episode ends where it is terminated or truncated, or after the task's `max_episode_steps`.

    Wrappers of the environment's own are kept. Where there are none but Gymnasium's standard ones these are left out, since a
    step costs half without them and the caller counts steps. specification: as it was registered with Gymnasium where the task
    was planned, which another process may not know.
    """
    register()
    if specification is not None:
        gymnasium.registry.setdefault(specification.id, specification)
    with warnings.catch_warnings(), quiet_model_loading():
        # v4 is out of date on purpose: it is nearest to the `*-v2` of D4RL's data
        warnings.filterwarnings("ignore", message=".*is out of date", category=DeprecationWarning)
        environment = gymnasium.make(task.environment, disable_env_checker=True, **task.parameters)
    bare = environment
    while isinstance(bare, STANDARD_WRAPPERS):
        bare = bare.env
    return bare if bare is environment.unwrapped else environment


def from_outside(specification: EnvSpec) -> bool:
    """Whether it is another package's environment, or wrapped by one: its code can change under the same name."""
    made_by: list[Any] = [specification, *specification.additional_wrappers]
    return not all(str(each.entry_point).startswith(KNOWN) for each in made_by if each.entry_point)


def code_of(specification: EnvSpec) -> str:
    """What tells an environment from outside Gymnasium and this package apart: versions or sources, and what they are given.

    Of it and of its wrappers, class by class. Empty for one of these two, which are known by their versions.
    """
    if not from_outside(specification):
        return ""
    told, made_of = list[str](), list[Any]([specification, *specification.additional_wrappers])
    for each in made_of:
        entry = each.entry_point
        made_by = unwrapped(load_env_creator(entry) if isinstance(entry, str) else entry)
        parts = made_by.__mro__ if isinstance(made_by, type) else (made_by,)
        told += [version_or_source(part) for part in parts if not str(part.__module__).startswith(KNOWN)]
        given = getattr(entry, "keywords", {}) | (each.kwargs or {})
        told += [json.dumps(given, sort_keys=True, default=lambda value: type(value).__qualname__)] if given else []
    return ".".join(filter(None, told))


def checked_specification(task: Task) -> EnvSpec:
    """What Gymnasium knows of the task's environment, once that was made and found to fit the task's declaration.

    Raises UserError, one line, where there is no such environment, it cannot be made with the task's parameters, its spaces are
    no vectors of the declared sizes, its action box is another one, it stops an episode after another number of steps, or its
    first reset and step do not give what Gymnasium's do.
    """
    register()
    where = f"{task.name}: environment {task.environment}"
    try:
        specification = gymnasium.spec(task.environment)
        environment = simulate(task)
    except UserError:
        raise
    except FOREIGN as error:
        raise UserError(f"{where} cannot be made ({type(error).__name__}: {' '.join(str(error).split())})") from None
    try:
        for complaint in itertools.chain(_complaints(task, environment, specification), _first_step(task, environment)):
            raise UserError(f"{where} {complaint}")
    finally:
        environment.close()
    return specification


def _complaints(task: Task, environment: gymnasium.Env, specification: EnvSpec) -> Iterator[str]:
    problem = task.problem
    seen: Any = environment.observation_space
    acted: Any = environment.action_space
    for kind, space, size in (("observations", seen, problem.observation_size), ("actions", acted, problem.action_size)):
        if not isinstance(space, Box) or len(space.shape) != 1:
            yield f"has {kind} of {space}: a vector of real numbers (a Box of one axis) is needed"
        elif space.shape[0] != size:
            yield f"has {kind} of {space.shape[0]} numbers where the task declares {size}"
    low, high = (np.full(acted.shape, bound) for bound in (problem.action_box.low, problem.action_box.high))
    if not (np.allclose(acted.low, low) and np.allclose(acted.high, high)):
        box = f"[{acted.low.min():g}, {acted.high.max():g}]"
        declared = f"[{low.min():g}, {high.max():g}]"
        yield f"takes actions in {box} where the task declares {declared}: say action_box=ActionBox(low, high)"
    if specification.max_episode_steps not in (None, problem.max_episode_steps):
        limit = specification.max_episode_steps
        yield f"stops after {limit} steps where the task declares max_episode_steps={problem.max_episode_steps}"


def _first_step(task: Task, environment: gymnasium.Env) -> Iterator[str]:
    """What its first reset and step do not give as Gymnasium has it."""
    wanted, given = f"{task.problem.observation_size} numbers", "its reset"
    still = task.problem.action_box.from_unit(np.zeros(task.problem.action_size, np.float32))
    found: Any
    try:
        observation, _ = environment.reset(seed=0)
        given = "its first step"
        after, *found, _ = environment.step(still)
        reward, terminated, truncated = found
    except FOREIGN as error:
        what = "(observation, info)" if given == "its reset" else "(observation, reward, terminated, truncated, info)"
        yield f"fails at {given}, which must give {what} ({type(error).__name__}: {' '.join(str(error).split())})"
        return
    for name, each in (("its reset", observation), ("its first step", after)):
        try:
            shape = np.asarray(each, np.float32).shape
        except FOREIGN as error:
            yield f"gives observations at {name} that are no numbers ({' '.join(str(error).split())}): {wanted} are declared"
            return
        if shape != (task.problem.observation_size,):
            yield f"gives observations of shape {shape} at {name}: {wanted} are declared"
    for name, each, kind, made in (
        ("reward", reward, "one number", lambda value: float(value + 0.0)),
        ("terminated", terminated, "a truth value", bool),
        ("truncated", truncated, "a truth value", bool),
    ):
        try:
            made(each)
        except FOREIGN:
            yield f"gives {name}={each!r} at its first step: {kind} is needed"
