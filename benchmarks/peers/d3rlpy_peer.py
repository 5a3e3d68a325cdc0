"""d3rlpy's SAC and BEAR made from our settings, where their definitions differ from ours, and what brings them to ours.

Nothing of d3rlpy's arithmetic is replaced: a definition is brought to ours by a setting, by a flag or a number that it keeps to
itself, by clearing, scaling or putting back what an optimiser sees or left, or by the order in which its own steps are called.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any, NamedTuple

import d3rlpy
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.optimizers import AdamFactory
from mopo_bench.algorithms.bear import BEAR
from mopo_bench.algorithms.sac import SAC
from mopo_bench.tasks.task import Rules
from torch import Tensor


class Difference(NamedTuple):
    ours: str
    theirs: str
    aligned: str  # what brings d3rlpy's to ours


BOTH = {
    "critic loss": Difference(
        "half the squared error, summed over the critics",
        "no half",
        "Adam's epsilon doubled for d3rlpy's critics: gradients of twice the size then give the same step",
    ),
    "log std": Difference(
        "clipped to log_std_range: by default -20 to 2 for SAC, -5 to 2 for BEAR",
        "clipped to -20 to 2; not a setting",
        "set in the policy network",
    ),
}
DIFFERENCES = {
    "sac": {
        **BOTH,
        "temperature loss": Difference(
            "on log alpha",
            "on alpha = exp(log alpha): the gradient has a factor alpha",
            "its gradient divided by alpha before the step",
        ),
        "temperature order": Difference(
            "the temperature of before the step is used throughout",
            "the temperature's step comes before the actor's loss, which uses the new one",
            "the new temperature held back to the end of the step",
        ),
    },
    "bear": {
        **BOTH,
        "entropy": Difference(
            "none",
            "SAC's: alpha log pi of the chosen action in the target, and in the actor's loss; alpha is learned",
            "initial_temperature 1e-300, temp_learning_rate 0",
        ),
        "squash": Difference(
            "the autoencoder's output is taken after tanh in its own loss, before tanh in the MMD",
            "the other way round, the policy's samples in the MMD being before tanh too: with_squash=True leaves tanh out",
            "with_squash negated on its way to the decoder",
        ),
        "MMD gradient": Difference(
            "reaches the actor",
            "cancels after the warm-up: the backward pass of the multiplier's step leaves minus it in the actor's gradients",
            "the actor's gradients cleared after the multiplier's step",
        ),
        "order": Difference(
            "the actor sees the critics of before the step",
            "the critics' step comes first, and the actor sees the new ones",
            "the critics' step held back until the actor has had its own",
        ),
        "multiplier rate": Difference(
            "multiplier_learning_rate",
            "the actor's: alpha_learning_rate is ignored",
            "set in its optimiser",
        ),
        "multiplier in the warm-up": Difference(
            "learned",
            "left alone",
            "d3rlpy's own step of it called in the warm-up too",
        ),
    },
}
# What differs outside a training step.
OTHERS = [
    (
        "both",
        "rows",
        "every one whose successor is known, or that is terminal",
        "episodes: the last row of a cut one is not used",
    ),
    ("both", "reported critic loss", "in the networks' precision", "added up in float32, whatever that is; gradients are not"),
    (
        "sac",
        "first weights and Adam",
        "settings, by default Keras' and TensorFlow 1's; `initialisation` and `adam` of torch here",
        "PyTorch's",
    ),
    ("sac", "target entropy", "a setting, by default minus the number of action dimensions", "minus that number"),
    ("bear", "acting", "the best of the same candidates at every state", "the best of new samples at every call"),
    ("bear", "default widths of the autoencoder", "750, 750", "256, 256"),
]
# Settings of ours under which networks begin as d3rlpy's and Adam is PyTorch's.
AS_PYTORCH = {"initialisation": "torch", "adam": "torch"}
# What needs no alignment, under those settings.
SHARED = {
    "sac": "the networks, log-probabilities, the smaller of two critics in target and actor, the present policy in the target, "
    "the order critics, actor, targets, the targets' step, the mode as action",
    "bear": "latents of twice the action dimensions, the encoder's log std clipped to -4 to 15, a KL weight of 1/2, sampled "
    "latents clipped to ±1/2; kernels with 2 sigma, the biased MMD, its root of + 1e-6 state by state, the policy's samples "
    "before tanh; the target from the best of the present policy's samples by 3/4 of the smaller and 1/4 of the larger critic; "
    "the multiplier's loss, its clipping to -5 to 10; a warm-up by the MMD alone; the first critic choosing the action",
}


def make(
    name: str, problem: Rules, config: SAC.Config | BEAR.Config, aligned: Collection[str] | None = None, device: str = "cpu"
) -> Any:
    """d3rlpy's algorithm `name` with our settings, ready to be trained; with `aligned` definitions as ours (None: all)."""
    aligned = DIFFERENCES[name] if aligned is None else aligned
    settings = {
        "batch_size": config.batch_size,
        "gamma": problem.discount,
        "tau": config.tau,
        "actor_learning_rate": config.actor_learning_rate,
        "critic_learning_rate": config.critic_learning_rate,
        "critic_optim_factory": AdamFactory(eps=2e-8 if "critic loss" in aligned else 1e-8),
        "actor_encoder_factory": VectorEncoderFactory(list(config.hidden)),
        "critic_encoder_factory": VectorEncoderFactory(list(config.hidden)),
    }
    algorithm = (_sac if name == "sac" else _bear)(config, settings, aligned, device)
    algorithm.create_impl((problem.observation_size,), problem.action_size)
    if "log std" in aligned:
        policy = algorithm.impl.policy
        policy._min_logstd, policy._max_logstd = config.log_std_range
    (_align_sac if name == "sac" else _align_bear)(algorithm.impl, config, aligned)
    return algorithm


def _sac(config: SAC.Config, settings: dict[str, Any], aligned: Collection[str], device: str) -> Any:
    settings |= {
        "temp_learning_rate": config.temperature_learning_rate,
        "initial_temperature": config.initial_temperature,
    }
    return d3rlpy.algos.SACConfig(**settings).create(device)


def _bear(config: BEAR.Config, settings: dict[str, Any], aligned: Collection[str], device: str) -> Any:
    settings |= {
        "imitator_learning_rate": config.behaviour_learning_rate,
        "imitator_encoder_factory": VectorEncoderFactory(list(config.behaviour_hidden)),
        "alpha_learning_rate": config.multiplier_learning_rate,
        "mmd_kernel": config.kernel,
        "mmd_sigma": config.kernel_width,
        "n_mmd_action_samples": config.matched_samples,
        "alpha_threshold": config.threshold,
        "n_target_samples": config.target_samples,
        "lam": config.minimum_weight,
        "warmup_steps": config.warmup_steps,
        "n_action_samples": config.acting_samples,
    }
    if "entropy" in aligned:
        settings |= {"initial_temperature": 1e-300, "temp_learning_rate": 0.0}
    return d3rlpy.algos.BEARConfig(**settings).create(device)


def _align_sac(impl: Any, config: SAC.Config, aligned: Collection[str]) -> None:
    modules = impl.modules
    optimiser, weights = modules.temp_optim.optim, list(modules.log_temp.parameters())

    def divide(*_: Any) -> None:
        weights[0].grad.div_(weights[0].detach().exp())

    if "temperature loss" in aligned:
        optimiser.register_step_pre_hook(divide)
    if "temperature order" in aligned:
        hold_back_temperature(impl, optimiser, weights)


def hold_back_temperature(impl: Any, optimiser: Any, weights: list[Tensor]) -> None:
    """What the optimiser's step does shows only after the whole update."""
    update, before, after = impl.inner_update, [], []

    def put_back(*_: Any) -> None:
        after[:] = copies(weights)
        assign(weights, before)

    def inner_update(batch: Any, grad_step: int) -> dict[str, float]:
        before[:] = copies(weights)
        metrics = update(batch, grad_step)
        assign(weights, after)
        return metrics

    optimiser.register_step_post_hook(put_back)
    impl.inner_update = inner_update


def _align_bear(impl: Any, config: BEAR.Config, aligned: Collection[str]) -> None:
    modules = impl.modules
    if "squash" in aligned:
        forward = modules.vae_decoder.forward
        modules.vae_decoder.forward = lambda states, latents, with_squash: forward(states, latents, not with_squash)
    if "MMD gradient" in aligned:
        modules.alpha_optim.optim.register_step_post_hook(lambda *_: modules.actor_optim.zero_grad())
    if "multiplier rate" in aligned:
        modules.alpha_optim.optim.param_groups[0]["lr"] = config.multiplier_learning_rate
    multiplier_always = "multiplier in the warm-up" in aligned

    def inner_update(batch: Any, grad_step: int) -> dict[str, float]:
        warmup, held_back = grad_step < config.warmup_steps, []
        metrics = impl.update_imitator(batch)
        if "order" in aligned:
            held_back.append(hold_back(modules.q_funcs.parameters(), partial(impl.update_critic, batch)))
        else:
            metrics |= impl.update_critic(batch)
        if warmup and multiplier_always:
            mmd_loss = impl._compute_mmd_loss(batch.observations)
            held_back.append(hold_back(modules.log_alpha.parameters(), partial(impl.update_alpha, mmd_loss)))
        metrics |= impl.warmup_actor(batch) if warmup else impl.update_actor(batch)
        for show in held_back:
            show()
        impl.update_critic_target()
        return metrics

    if "order" in aligned or multiplier_always:
        impl.inner_update = inner_update


def hold_back(parameters: Iterable[Tensor], step: Callable[[], Any]) -> Callable[[], None]:
    """Takes the step and undoes it; gives what brings its outcome back."""
    weights = list(parameters)
    before = copies(weights)
    step()
    after = copies(weights)
    assign(weights, before)
    return lambda: assign(weights, after)


def copies(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


def assign(tensors: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.data.copy_(value.detach())
