"""Training step by step: the numbers that each step draws, the update, and the sums of its metrics."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...common.errors import UserError
from ...common.streams import torch_stream
from .contract import check_actions, check_metrics
from .experience import Experience
from .learner import Learner

BLOCK = 100  # steps whose random numbers are drawn together

Update = Callable[..., dict[str, Tensor]]  # as `Learner.update`


class StepStreams:
    """Row positions and noise of every step, derived from (seed, block): the same for a seed alone, in a group, resumed.

    They are drawn on the learner's device, whose numbers differ from another kind of device's.
    """

    def __init__(self, learner: Learner):
        self.learner = learner
        if twice := learner.noise().keys() & learner.uniforms().keys():
            raise UserError(f"{type(learner).__name__}: {', '.join(sorted(twice))} cannot be both normal and uniform noise")
        self.block = -1
        self.uniform = torch.empty(0)
        self.noise: dict[str, Tensor] = {}

    def prepare(self, step: int) -> bool:
        """Draws the block of this step, where it is not there yet: into the same tensors. True where it did."""
        if step // BLOCK == self.block:
            return False
        self.block = step // BLOCK
        self._draw(self.block)
        return True

    def at(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """For step `step`: row positions in [0, 1), (S, B) in float64, and the learner's noise by name, (S, *shape)."""
        self.prepare(step)
        offset = step % BLOCK
        return self.uniform[offset], {name: values[offset] for name, values in self.noise.items()}

    def at_prepared(self, step: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The same for a step that only the device knows, (1,), of the block that was prepared."""
        offset = step % BLOCK
        noise = {name: values.index_select(0, offset)[0] for name, values in self.noise.items()}
        return self.uniform.index_select(0, offset)[0], noise

    def _draw(self, block: int) -> None:
        learner = self.learner
        device, shapes, uniforms = learner.device, learner.noise(), learner.uniforms()
        size = (BLOCK, learner.config.batch_size)
        uniform: list[Tensor] = []
        noise: dict[str, list[Tensor]] = {name: [] for name in (*shapes, *uniforms)}
        for seed in learner.seeds:
            stream = torch_stream(seed, "batches", block, device=device)
            uniform.append(torch.rand(*size, generator=stream, dtype=torch.float64, device=device))
            stream = torch_stream(seed, "noise", block, device=device)
            for name, shape in shapes.items():
                noise[name].append(
                    torch.randn(BLOCK, *shape, generator=stream, dtype=torch.float32, device=device).to(learner.dtype)
                )
            stream = torch_stream(seed, "uniforms", block, device=device)
            for name, shape in uniforms.items():
                noise[name].append(
                    torch.rand(BLOCK, *shape, generator=stream, dtype=torch.float32, device=device).to(learner.dtype)
                )
        # the step first, so that one step's numbers are one contiguous piece; later blocks take the place of the first
        if not len(self.uniform):
            self.uniform = torch.stack(uniform, 1)
            self.noise = {name: torch.stack(values, 1) for name, values in noise.items()}
            return
        torch.stack(uniform, 1, out=self.uniform)
        for name, values in noise.items():
            torch.stack(values, 1, out=self.noise[name])


def highest_value(reward: float, bonus: float, discount: float) -> float | None:
    """Above which no state is worth anything: r + gamma max(0, r + bonus) / (1 - gamma); None where nothing is known.

    reward: the highest that there is. bonus: what critics add to that of each later step. What has ended is worth 0.
    """
    if discount >= 1 or not (math.isfinite(reward) and math.isfinite(bonus)):
        return None
    return reward + discount * max(0.0, reward + bonus) / (1 - discount)


class TrainingSteps:
    """The steps of a learner on its experience, taken one by one, and the sums of their metrics.

    `update` is the learner's own, or a form of it that computes the same.
    """

    captured: bool | str = False  # whether steps are replayed from a CUDA graph, or why not; see `fast/capture.py`

    def __init__(self, learner: Learner, experience: Experience, update: Update | None = None):
        self.learner, self.experience = learner, experience
        self.streams, self.update = StepStreams(learner), update or learner.update
        self._now = torch.zeros(1, dtype=torch.long, device=learner.device)
        self._sums: dict[str, Tensor] = {}  # (S,) each
        self._names: dict[Hashable, list[str]] = {}  # of the metrics that come with each phase
        self._taken: Counter[Hashable] = Counter()  # steps of each phase since the sums were emptied
        self._before: Counter[str] = Counter()  # steps that metrics were summed over before a run was stopped and resumed
        # the first step whose metrics were not finite, by seed; found on the device, read once an interval
        self._first_bad = torch.full((len(learner.seeds),), -1, dtype=torch.long, device=learner.device)
        self._highest_reward = torch.full((len(learner.seeds),), -torch.inf, dtype=learner.dtype, device=learner.device)
        self._bonus_before = self._bonus()
        rows = experience.table[:3, : learner.problem.observation_size]
        sampled = type(experience).refresh is not Experience.refresh  # nobody else asks for actions with noise
        check_actions(learner, rows.expand(len(learner.seeds), -1, -1), sampled)

    def take(self, step: int) -> None:
        """Step number `step` (from 0). What its experience wants to refresh was refreshed before."""
        phase = self.learner.phase(step)
        self.streams.prepare(step)
        self._now.fill_(step)
        self._take(step, phase)
        self._taken[phase] += 1

    def not_compiled(self) -> None:
        """From now on updates are the learner's own."""
        self.update = self.learner.update
        self.forget_graphs()

    def forget_graphs(self) -> None:
        """Lets go of what was recorded, if anything was."""

    def collect(self) -> tuple[dict[str, list[float]], list[int]]:
        """The mean of each metric since the last call, by seed, and each seed's first step that was not finite, or -1.

        A metric need not come with every phase: its mean is over those steps that have it.
        """
        counts = self._counts()
        means = {name: (self._sums[name] / count).tolist() for name, count in counts.items() if count}
        first_bad = self._first_bad.tolist()
        for total in self._sums.values():
            total.zero_()
        self._first_bad.fill_(-1)
        self._taken.clear()
        self._before.clear()
        return means, first_bad

    def _counts(self) -> Counter[str]:
        """Over how many steps each metric is summed."""
        counts = Counter[str](self._before)
        for phase, taken in self._taken.items():
            counts.update(dict.fromkeys(self._names[phase], taken))
        return counts

    def state(self, index: int) -> dict[str, Any]:
        """What was summed for seed number `index` since `collect` was last called, ready to be saved."""
        own = {"first_bad": self._first_bad, "highest_reward": self._highest_reward, "bonus_before": self._bonus_before}
        return {
            "counts": dict(self._counts()),
            "sums": {name: values[index].clone() for name, values in self._sums.items()},
            **{name: values[index].clone() for name, values in own.items()},
        }

    def load_states(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Takes one state per seed, in order, all of the same steps."""
        self._before = Counter(states[0]["counts"])

        def together(values: Sequence[Tensor]) -> Tensor:
            return torch.stack(list(values)).to(self.learner.device)

        self._sums = {name: together([state["sums"][name] for state in states]) for name in states[0]["sums"]}
        self._first_bad.copy_(together([state["first_bad"] for state in states]))
        self._highest_reward.copy_(together([state["highest_reward"] for state in states]))
        self._bonus_before = together([state["bonus_before"] for state in states])

    def highest(self) -> tuple[list[float], list[float]]:
        """By seed: the highest reward in the batches so far, and the highest `value_bonus` since the last call; see
        `highest_value`."""
        before, self._bonus_before = self._bonus_before, self._bonus()
        return self._highest_reward.tolist(), torch.maximum(before, self._bonus_before).tolist()

    def _bonus(self) -> Tensor:
        bonus = torch.as_tensor(self.learner.value_bonus(), dtype=self.learner.dtype, device=self.learner.device)
        return bonus.expand(len(self.learner.seeds)).clone()

    def _take(self, step: int, phase: Hashable) -> None:
        self._work(phase, *self.streams.at(step))

    def _work(self, phase: Hashable, uniform: Tensor, noise: dict[str, Tensor]) -> None:
        batch = self.experience.draw(uniform)
        self._highest_reward.copy_(torch.maximum(self._highest_reward, batch.rewards.amax(1)))
        metrics = self.update(batch, noise, phase)
        if self._names.get(phase) != (names := list(metrics) if isinstance(metrics, dict) else []) or not names:
            self._check(phase, metrics)
        for name, values in metrics.items():
            if name not in self._sums:
                self._sums[name] = torch.zeros_like(values)
            self._sums[name].add_(values)
        bad = ~sum(metrics.values(), torch.zeros_like(self._first_bad)).isfinite() & (self._first_bad < 0)
        self._first_bad.copy_(torch.where(bad, self._now, self._first_bad))

    def _check(self, phase: Hashable, metrics: dict[str, Tensor]) -> None:
        """Asked at the first step of each phase, whose metrics come with all others of it."""
        check_metrics(self.learner, metrics)
        if phase in self._names:
            before, now = (", ".join(names) for names in (self._names[phase], metrics))
            raise UserError(
                f"{type(self.learner).__name__}.update: expected the same metrics at every step of a phase ({before}), got "
                f"{now or 'none'}; give steps of two kinds two values of `phase`"
            )
        self._names[phase] = list(metrics)
