"""Golden traces: float64 numbers of every algorithm after a few steps on the small problem, in golden/<name>.json.

They notice that numbers changed, so that whoever changed them raises a version: it is part of a run's identity. Once it
is raised, `python tests/algorithms/golden.py` writes the files anew. It refuses numbers that changed under an unchanged
version; where that is right (a new torch that draws differently), delete the file first.
"""

import json
import sys
from pathlib import Path

import torch
from mopo_bench.algorithms.learning.dynamics import Dynamics
from mopo_bench.algorithms.learning.registry import get_algorithm
from mopo_bench.algorithms.learning.testing import SMALL, Group, small_problem
from mopo_bench.harness.collection.collect import ONLINE_SAC, Collection

FOLDER = Path(__file__).parent / "golden"
ALGORITHMS = ("bc", "sac", "mbpo", "mopo", "morel", "bear", "brac-p", "brac-v", "cql", "iql", "combo", "rambo")
NAMES = (*ALGORITHMS, "dynamics", "collection")
STEPS = 10


def trace(name):
    """Versions by class name, and numbers by what they are."""
    if name == "dynamics":
        return dynamics_trace()
    if name == "collection":  # of the learner that makes datasets, which keeps its numbers where SAC's defaults change
        online = {key: getattr(ONLINE_SAC, key) for key in ("initialisation", "adam")}
        return algorithm_trace("sac", **online) | {"versions": {"Collection": Collection.version}}
    return algorithm_trace(name)


def algorithm_trace(name, **changes):
    algorithm = get_algorithm(name)
    group = Group(algorithm, small_problem(), (0, 1), **changes)
    metrics = group.advance(STEPS)
    numbers = {f"metric {key}": values.tolist() for key, values in metrics.items()}
    for key, network in group.learner.networks().items():
        numbers[f"weights {key}"] = norms(network.weights)
    if hasattr(group.experience, "ring"):
        ring = group.experience.ring
        rewards = group.experience.layout.batch(ring.rows).rewards
        numbers |= {"ring rows": ring.size, "ring rewards": rewards.mean(1).tolist()}
    classes = (algorithm.learner, algorithm.experience, *algorithm.stages.values())
    return {"versions": {each.__name__: each.version for each in classes}, "numbers": numbers}


def dynamics_trace():
    settings = {key.removeprefix("dynamics."): value for key, value in SMALL.items() if key.startswith("dynamics.")}
    state, record = Dynamics.fit(small_problem(), Dynamics.Config(**settings), 0, dtype=torch.float64)
    numbers = {
        "epochs": record["epochs"],
        "elites": record["elites"],
        "holdout error": record["holdout_error"],
        "input mean": state["input_mean"].tolist(),
        "input std": state["input_std"].tolist(),
        "weights": norms([weight[None] for weight in state["weights"]]),
    }
    return {"versions": {"Dynamics": Dynamics.version}, "numbers": numbers}


def norms(weights):
    """Of each seed and weight."""
    return torch.stack([weight.flatten(1).norm(dim=1) for weight in weights], 1).tolist()


def stored(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


def changes(numbers, other):
    """Keys of what differs by more than rounding."""
    keys = sorted(set(numbers) | set(other))
    return [key for key in keys if not close(numbers.get(key), other.get(key))]


def close(values, other):
    if values is None or other is None:
        return False
    values, other = (torch.tensor(each, dtype=torch.float64) for each in (values, other))
    return values.shape == other.shape and torch.allclose(values, other, rtol=1e-6, atol=1e-9)


def write(name):
    made, path = trace(name), FOLDER / f"{name}.json"
    if path.exists() and (old := stored(name))["versions"] == made["versions"]:
        if changed := changes(made["numbers"], old["numbers"]):
            return f"{name}: {', '.join(changed)} changed under {made['versions']}: raise a version or revert"
        return None  # what differs is rounding, of this machine or that one
    FOLDER.mkdir(exist_ok=True)
    path.write_text(json.dumps(made, indent=1) + "\n")
    return None


if __name__ == "__main__":
    sys.exit("\n".join(filter(None, map(write, NAMES))) or None)
