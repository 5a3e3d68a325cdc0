"""The steps of a run in the form that was asked for: plain, compiled, captured."""

from __future__ import annotations

from collections.abc import Hashable

import torch

from ..experience import Experience
from ..learner import Learner
from ..private_torch import is_compiler_error
from ..steps import TrainingSteps, Update
from .capture import CapturedSteps, can_capture


def training_steps(learner: Learner, experience: Experience, compiled: bool = False, capture: bool = False) -> TrainingSteps:
    """compiled: updates are compiled graphs. capture: whole steps are CUDA graphs, where the learner lives on a GPU."""
    kind = CapturedSteps if capture and can_capture(learner.device) else TrainingSteps
    return kind(learner, experience, updater(learner, compiled))


class CannotCompile(Exception):
    """The compiler gave up on a learner. Nothing has been computed: its state is as it was before the step."""


def updater(learner: Learner, compiled: bool) -> Update:
    """`learner.update`, or its compiled form: one full graph for each value of `phase`, compiled at the first step of it.

    Compiled code is kept by place in the source, here for all learners at once, and made general, and slower, where two of them
    differ in a number or a size. So what other learners left is forgotten first.
    """
    if not compiled:
        return learner.update
    torch.compiler.reset()
    graphs: dict[Hashable, Update] = {}

    def update(batch, noise, phase):
        if phase not in graphs:
            graphs[phase] = torch.compile(lambda batch, noise: learner.update(batch, noise, phase), fullgraph=True)
        try:
            return graphs[phase](batch, noise)
        except Exception as error:
            if is_compiler_error(error):
                why = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
                raise CannotCompile(f"{type(learner).__name__} cannot be compiled ({why})") from error
            raise

    return update
