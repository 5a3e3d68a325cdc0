"""mopo-bench: regenerates Tables 1 and 2 of MOPO (Yu et al., NeurIPS 2020), and takes your algorithm beside them."""

from typing import Any

_WHERE = {
    "ActionBox": "tasks.task",
    "Experience": "algorithms.learning.experience",
    "Learner": "algorithms.learning.learner",
    "Problem": "tasks.task",
    "ReferenceReturns": "tasks.task",
    "Stage": "algorithms.learning.stage",
    "Task": "tasks.task",
    "UserError": "common.errors",
    "check": "harness.api",
    "diagnose": "harness.diagnosis.diagnosing",
    "evaluate": "harness.runs.policies",
    "export": "harness.api",
    "import_runs": "harness.runs.imports",
    "load": "harness.api",
    "load_policy": "harness.runs.policies",
    "per_seed": "algorithms.learning.learner",
    "plot": "harness.api",
    "register_algorithm": "algorithms.learning.registry",
    "register_task": "tasks.registry",
    "report": "harness.api",
    "run": "harness.api",
    "table": "harness.api",
}
__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    """The public names, imported when first asked for: torch takes seconds, `mopo-bench --help` should not."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_WHERE[name]}", __name__), name)
