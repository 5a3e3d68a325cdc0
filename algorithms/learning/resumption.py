"""Asked once of code from outside this package: whether a copy that is stopped and resumed goes on as one that was not."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...common.errors import FOREIGN, UserError
from .contract import check_acting
from .experience import Experience
from .held import ADVICE
from .learner import Learner
from .steps import TrainingSteps

STEPS = 4  # before a copy is stopped, and again after it was resumed


class Copy:
    """A learner and its experience in training, to be thrown away."""

    def __init__(self, learner: Learner, experience: Experience):
        self.learner, self.experience = learner, experience
        self.steps, self.step = TrainingSteps(learner, experience), 0

    def advance(self) -> None:
        for _ in range(STEPS):
            self.experience.refresh(self.step, self.learner)
            self.steps.take(self.step)
            self.step += 1

    def states(self) -> list[dict[str, Any]]:
        """What a checkpoint holds of each seed."""
        return [
            {"learner": self.learner.state(index), "experience": self.experience.state(index)}
            for index in range(len(self.learner.seeds))
        ]

    def resume(self, states: Sequence[Mapping[str, Any]]) -> None:
        self.learner.load_states([state["learner"] for state in states])
        self.experience.load_states([state["experience"] for state in states], self.learner)
        self.step = STEPS

    def all_there_is(self) -> dict[str, Any]:
        """Its states, the metrics since the last call, and how it acts."""
        return {"metrics": self.steps.collect()[0], "actions": self.learner.act(self.seen), "state": self.states()}

    @property
    def seen(self) -> Tensor:
        """Observations to act on, (S, n, obs)."""
        rows = self.experience.table[:8, : self.learner.problem.observation_size]
        return rows.expand(len(self.learner.seeds), -1, -1)


def check_resumed_copy(make: Callable[[], tuple[Learner, Experience]]) -> None:
    """UserError unless a copy that is stopped after a few steps and resumed ends, to the bit, as one that was not, and acts
    by observations alone.

    make: builds learner and experience anew, the same each time.
    """
    undisturbed, stopped = Copy(*make()), Copy(*make())
    undisturbed.advance()
    stopped.advance()
    name = type(stopped.learner).__name__
    if where := difference(undisturbed.all_there_is(), stopped.all_there_is()):
        raise UserError(
            f"{name}: two copies of one seed differ after {STEPS} steps ({where}): draw random numbers from `noise`, "
            "`uniforms`, `self.initialise`, or generators that `build` seeds"
        )
    check_acting(stopped.learner, stopped.seen)
    resumed = Copy(*make())
    try:
        resumed.resume(saved_and_loaded(stopped.states()))
    except UserError:
        raise
    except FOREIGN as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{name}: a copy that was stopped after {STEPS} steps cannot be resumed ({said[:300]})") from error
    undisturbed.advance()
    resumed.advance()
    if where := difference(undisturbed.all_there_is(), resumed.all_there_is()):
        raise UserError(
            f"{name}: a copy that was stopped after {STEPS} steps and resumed differs from one that was not ({where}): "
            f"something that changes is not saved; {ADVICE}"
        )


def saved_and_loaded(states: Any) -> Any:
    """As through a checkpoint on disk."""
    file = io.BytesIO()
    torch.save(states, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def difference(value: Any, other: Any, where: str = "") -> str:
    """The first place where two states differ, empty where they do not; NaN equals NaN."""
    if isinstance(value, dict) and isinstance(other, dict) and value.keys() == other.keys():
        found = (difference(value[key], other[key], f"{where}.{key}".lstrip(".")) for key in value)
        return next(filter(None, found), "")
    if isinstance(value, list | tuple) and isinstance(other, list | tuple) and len(value) == len(other):
        found = (difference(*pair, f"{where}[{place}]") for place, pair in enumerate(zip(value, other, strict=True)))
        return next(filter(None, found), "")
    if isinstance(value, Tensor) and isinstance(other, Tensor):
        same = value.shape == other.shape and bool(((value == other) | ((value != value) & (other != other))).all())
        return "" if same else where
    return "" if value == other or (value != value and other != other) else where
