"""SAC and BEAR against d3rlpy, step by step: python benchmarks/peers/d3rlpy_equality.py [--out FILE.md]

Both start from the same weights and see the same batches and the same noise, in float64. With d3rlpy's definitions brought to
ours (`d3rlpy_peer.py` says how) every loss and weight must agree; then each difference alone is left in, and must show.

Needs d3rlpy beside this package: python -m pip install d3rlpy
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import d3rlpy
import torch
from d3rlpy.torch_utility import TorchMiniBatch
from d3rlpy_peer import AS_PYTORCH, DIFFERENCES, OTHERS, SHARED, make
from mopo_bench.algorithms.learning.learner import Batch, Learner
from mopo_bench.algorithms.learning.registry import get_algorithm
from mopo_bench.algorithms.learning.steps import StepStreams
from mopo_bench.harness.runs.machine import describe_machine, prepare_process
from mopo_bench.tasks.data.sources import DatasetRequest, load_dataset
from mopo_bench.tasks.registry import get_task
from torch import Tensor, nn

STEPS = 20
TOLERANCE = 1e-9  # of a difference, relative to the larger of 1 and the number itself
TASK = "point-angle"  # terminals occur in it
SETTINGS = {
    **AS_PYTORCH,
    "batch_size": 64,
    "hidden": (32, 24),
    "actor_learning_rate": 5e-4,
    "critic_learning_rate": 1e-3,
    "tau": 0.01,
    "temperature_learning_rate": 2e-3,
    "initial_temperature": 0.5,
    "behaviour_hidden": (40, 28),
    "behaviour_learning_rate": 7e-4,
    "multiplier_learning_rate": 3e-3,
    "warmup_steps": 8,
    "log_std_range": (-0.1, 0.1),  # narrow, so that it clips
}
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("sac", "sac", {}),
    ("bear", "bear", {"kernel": "laplacian"}),
    ("bear, Gaussian kernel", "bear", {"kernel": "gaussian"}),
]
Values = dict[str, Tensor]


@contextmanager
def drawing(draws: list[Tensor]) -> Iterator[None]:
    """Whatever torch draws from the standard normal is taken from `draws`, in order, to the last one."""
    left = list(draws)

    def draw(*shape: Any, **_: Any) -> Tensor:
        size = torch.Size(shape if isinstance(shape[0], int) else shape[0])
        if not left or left[0].shape != size:
            raise AssertionError(f"drawn {tuple(size)}, expected {tuple(left[0].shape) if left else 'nothing more'}")
        return left.pop(0)

    with mock.patch("torch.randn", draw), mock.patch("torch.distributions.normal._standard_normal", draw):
        yield
    if left:
        raise AssertionError(f"{len(left)} draws were not made")


def ordered_draws(name: str, noise: Values, warmup: bool, twice: bool) -> list[Tensor]:
    """Our noise of a step, of one seed, in d3rlpy's order; `twice`: the MMD's also for the multiplier's own step."""
    one = {key: values[0] for key, values in noise.items()}
    if name == "sac":
        return [one["next"], one["now"]]
    mmd = [one["decoded"].flatten(0, 1), one["now"]]
    actor = mmd if warmup else [one["now"][0], *mmd]
    return [one["encoded"], one["next"], *(mmd if twice else []), *actor]


def beside(module: nn.Module, weights: list[Tensor], heads: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
    """Each parameter of a d3rlpy network and the view of our weights [W1, b1, ...] that stands for it.

    Two heads are one last layer of ours, side by side.
    """
    linears = iter([part for part in module.modules() if isinstance(part, nn.Linear)])
    for index in range(0, len(weights), 2):
        parts = heads if index == len(weights) - 2 else 1
        for weight, bias in zip(weights[index].chunk(parts, -1), weights[index + 1].chunk(parts, -1), strict=True):
            linear = next(linears)
            yield linear.weight, weight.T
            yield linear.bias, bias[0]


def pairs(learner: Learner, modules: Any) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """By the names of our networks: d3rlpy's parameters and what stands for them in the learner's first seed."""
    own = {name: [weight[0] for weight in network.weights] for name, network in learner.networks().items()}
    found = {"actor": list(beside(modules.policy, own.pop("actor"), heads=2))}
    for name, ensemble in (("critic", modules.q_funcs), ("target", modules.targ_q_funcs)):
        weights = own.pop(name)
        members = [beside(each, [weight[index] for weight in weights]) for index, each in enumerate(ensemble)]
        found[name] = [pair for member in members for pair in member]
    if behaviour := own.pop("behaviour", None):
        half = len(behaviour) // 2
        found["behaviour"] = [*beside(modules.vae_encoder, behaviour[:half], 2), *beside(modules.vae_decoder, behaviour[half:])]
    for name, module in (("log_temperature", "log_temp"), ("log_multiplier", "log_alpha")):
        if name in own:
            found[name] = [(next(getattr(modules, module).parameters()), own.pop(name)[0][None])]
    if own:
        raise AssertionError(f"nothing of d3rlpy's stands for {', '.join(own)}")
    return found


class Peer:
    """d3rlpy's algorithm in float64, with a learner's weights."""

    def __init__(self, name: str, learner: Learner, aligned: Collection[str]):
        self.name, self.learner, self.aligned = name, learner, aligned
        self.impl = make(name, learner.problem, learner.config, aligned).impl
        for module in vars(self.impl.modules).values():
            if isinstance(module, nn.Module):
                module.double()
        self.pairs = pairs(learner, self.impl.modules)
        for each in self.pairs.values():
            for parameter, view in each:
                parameter.data.copy_(view)

    def step(self, batch: Batch, noise: Values, step: int) -> dict[str, float]:
        """One update; the losses as we define them."""
        warmup = self.name == "bear" and step < self.learner.config.warmup_steps
        twice = warmup and "multiplier in the warm-up" in self.aligned
        rewards = batch.rewards[0, :, None]
        rows = TorchMiniBatch(
            observations=batch.observations[0],
            actions=batch.actions[0],
            rewards=rewards,
            next_observations=batch.next_observations[0],
            next_actions=batch.actions[0],  # read by neither algorithm, nor are the returns
            returns_to_go=rewards,
            terminals=1 - batch.alive[0, :, None],
            intervals=torch.ones_like(rewards),
            device="cpu",
        )
        with drawing([noise["next"][0]]):
            target = self.impl.compute_target(rows)
        errors = [  # in float64: d3rlpy's own sum of them is kept in float32
            forwarder.compute_error(rows.observations, rows.actions, rewards, target, rows.terminals, self.impl._gamma)
            for forwarder in self.impl._q_func_forwarder.forwarders
        ]
        with drawing(ordered_draws(self.name, noise, warmup, twice)):
            metrics = self.impl.update(rows, step)
        losses = {"critic_loss": 0.5 * sum(error.item() for error in errors), "actor_loss": metrics["actor_loss"]}
        return losses if self.name == "sac" else {**losses, "behaviour_loss": metrics["imitator_loss"]}

    def act(self, observations: Tensor) -> Tensor:
        draws = []
        if self.name == "bear":
            draws = [self.learner.candidates[0].transpose(0, 1).expand(len(observations), -1, -1)]
        with drawing(draws):
            return self.impl.predict_best_action(observations)


def distance(theirs: Tensor, ours: Tensor) -> float:
    return ((theirs.detach() - ours).abs() / ours.abs().clamp(min=1)).max().item()


class Comparison(NamedTuple):
    losses: dict[str, float]  # the largest distance over the steps
    weights: dict[str, float]  # the largest over the steps, of each network
    actions: float  # after the last step
    moved: dict[str, float]  # how far the steps took each network's weights

    @property
    def largest(self) -> float:
        return max(*self.losses.values(), *self.weights.values(), self.actions)


def compare(name: str, aligned: Collection[str], **changes: Any) -> Comparison:
    """Both libraries over `STEPS` steps from the same weights."""
    task, algorithm = get_task(TASK), get_algorithm(name)
    problem = task.offline_problem(load_dataset(task, DatasetRequest("regenerated")))
    known = {key: value for key, value in SETTINGS.items() if key in algorithm.defaults()}
    configs = algorithm.build_configs(algorithm.configure(known, changes))
    learner = algorithm.learner(problem, configs["learner"], [0], dtype=torch.float64)
    experience = algorithm.experience(problem, configs["experience"], [0], dtype=torch.float64)
    peer, streams = Peer(name, learner, aligned), StepStreams(learner)
    started = {network: [view.clone() for _, view in each] for network, each in peer.pairs.items()}
    losses: dict[str, float] = {}
    weights: dict[str, float] = {}
    for step in range(STEPS):
        uniform, noise = streams.at(step)
        batch = experience.draw(uniform)
        metrics = learner.update(batch, noise, learner.phase(step))
        for key, value in peer.step(batch, noise, step).items():
            losses[key] = max(losses.get(key, 0.0), distance(torch.tensor(value, dtype=torch.float64), metrics[key][0]))
        for network, each in peer.pairs.items():
            apart = max(distance(parameter, view) for parameter, view in each)
            weights[network] = max(weights.get(network, 0.0), apart)
    observations = experience.draw(uniform).next_observations
    actions = distance(peer.act(observations[0]), learner.act(observations)[0])
    moved = {
        network: max(distance(view, first) for (_, view), first in zip(each, started[network], strict=True))
        for network, each in peer.pairs.items()
    }
    return Comparison(losses, weights, actions, moved)


def report() -> tuple[list[str], list[str]]:
    """Lines of Markdown, and what is wrong."""
    versions = describe_machine()["versions"] | {"d3rlpy": d3rlpy.__version__}
    stated = ", ".join(f"{name} {versions[name]}" for name in ("mopo-bench", "d3rlpy", "torch"))
    equal, different, wrong = [], [], []
    for title, name, changes in CASES:
        result = compare(name, DIFFERENCES[name], **changes)
        if not result.largest <= TOLERANCE:
            wrong.append(f"{title}: {result.largest:.1e} apart with every definition aligned")
        equal += [f"| {title} | {key.replace('_', ' ')} | {value:.1e} | |" for key, value in result.losses.items()]
        for key, value in result.weights.items():
            equal.append(f"| {title} | weights: {key.replace('_', ' ')} | {value:.1e} | {result.moved[key]:.1e} |")
        equal.append(f"| {title} | actions after the last step | {result.actions:.1e} | |")
    for name, differences in DIFFERENCES.items():
        for what, difference in differences.items():
            alone = compare(name, [other for other in differences if other != what])
            different.append(f"| {name} | {what} | {' | '.join(difference)} | {apart(alone)} |")
            if not alone.largest > TOLERANCE:
                wrong.append(f"{name}: {what} makes no difference")
        different.append(f"| {name} | all of these | | | nothing does | {apart(compare(name, ()))} |")
    lines = [
        "# SAC and BEAR against d3rlpy, step by step",
        "",
        f"{stated}. {STEPS} steps in float64 from the same weights, with the same batches (of {TASK}) and the same noise.",
        "Distances are relative to the larger of 1 and the number itself.",
        "",
        "**With d3rlpy's definitions brought to ours**, the largest distance over the steps, and how far they moved a weight:",
        "",
        "| Algorithm | Compared | Distance | Moved |",
        "| --- | --- | --- | --- |",
        *equal,
        "",
        "**Where the definitions differ**, and the largest distance of a loss and of a weight when that alone is left in:",
        "",
        "| Algorithm | What | Ours | d3rlpy | What brings it to ours | Losses | Weights |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *different,
        "",
        "**What differs outside a step**",
        "",
        "| Algorithm | What | Ours | d3rlpy |",
        "| --- | --- | --- | --- |",
        *[f"| {' | '.join(row)} |" for row in OTHERS],
        "",
        "**What is the same as it comes**",
        "",
        *[f"- {name}: {text}." for name, text in SHARED.items()],
    ]
    return lines, wrong


def apart(result: Comparison) -> str:
    return f"{max(result.losses.values()):.1e} | {max(result.weights.values()):.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also writes the tables to this file")
    options = parser.parse_args()
    prepare_process()
    lines, wrong = report()
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
