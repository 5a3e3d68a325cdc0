"""A stage: a model fitted once on the dataset, before training begins, and shared by every algorithm that names it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch

from ...tasks.task import OfflineProblem


class FitKeeper:
    """Where a fit that takes hours keeps how far it is, so that one that was stopped goes on; this one keeps nothing."""

    def load(self) -> dict[str, Any] | None:
        """The state that was kept, tensors and numbers; None where the fit begins."""
        return None

    def offer(self, state: Callable[[], dict[str, Any]]) -> None:
        """Said wherever the fit could go on from `state()`, which is asked for now and then."""


class Stage:
    """A model fitted once on the data and shared by every algorithm that names it with the same settings.

    A learner or an experience names it in `stages`, `stages = {"dynamics": Dynamics}`, and finds it in `fitted`. A subclass
    gives `fit`, for one seed, and is built from the states of a group's seeds: `Dynamics(problem, config, states)`.
    """

    @dataclass(frozen=True)
    class Config:
        pass

    version: ClassVar[int] = 1
    title: ClassVar[str] = ""  # its printed name; by default that under which it is found
    # numbers of a fit's record that the regression check looks at, with the side that is worse: "low", "high" or "both"
    worse: ClassVar[Mapping[str, str]] = MappingProxyType({})
    models_environment: ClassVar[bool] = False  # an algorithm with such a stage is not model-free

    def __init__(self, problem: OfflineProblem, config: Any, states: Sequence[Mapping[str, Any]]):
        raise NotImplementedError

    @classmethod
    def fit(
        cls,
        problem: OfflineProblem,
        config: Any,
        seed: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        report: Callable[[dict[str, Any]], None] = lambda row: None,
        keeper: FitKeeper = FitKeeper(),  # noqa: B008 - it holds nothing
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The fitted state of one seed (tensors and numbers, saved as they are) and a JSON-able record of the fit.

        Raises FloatingPointError where it diverges: that is a result, and the runs that want the fit have diverged, too.
        report: gets a row of numbers now and then. keeper: of a fit that may be stopped, which ends as it would have ended.
        """
        raise NotImplementedError

    # For estimates of time. A short fit is measured, and multiplied.
    assumes: ClassVar[str] = ""  # what `fit_units` takes for granted, as in "it took 70 epochs"

    @classmethod
    def fit_units(cls, config: Any, data: Mapping[str, Any]) -> float | None:
        """How long a fit is, in steps, rows times epochs or any other unit; None: nobody knows, and no estimate is made.

        data: the facts of the dataset that a run record holds, such as "rows" and "dynamics_rows".
        """
        return None

    @classmethod
    def short_fit(cls, config: Any) -> Any:
        """The same config but for the length of its fit: a second or so on a few thousand rows."""
        return config
