"""Short rollouts of the policy in the learned dynamics, branching from states of the dataset, kept in a ring per seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from ...common.settings import Count, Fraction
from ...common.streams import torch_stream
from .dynamics import Dynamics, Prediction
from .experience import Experience
from .learner import Learner
from .penalties import max_std
from .replay import Batch, Ring

# States that go through all steps of a rollout together. On a CPU their activations stay in cache; a GPU wants many at once.
CHUNK = {"cpu": 1_000, "cuda": 10_000}
PROBED, DATASET_ROWS = 100, 1_000  # states, of each step and of the dataset, whose uncertainty is recorded


class ModelRollouts(Experience):
    """Batches of which a small part is real and the rest comes from a ring of model rollouts."""

    @dataclass(frozen=True)
    class Config:
        rollout_length: Count = 5
        rollout_states: Count = 50_000  # states of the dataset from which rollouts start, each time
        rollout_every: Count = 1_000  # gradient steps
        retained_rollouts: Count = 5  # the ring holds this many full refreshes: more where rollouts end early
        real_fraction: Fraction = 0.05  # int(0.05 * 256) = 12 of 256 rows

    version = 1
    stages = {"dynamics": Dynamics}  # noqa: RUF012 - a class-level declaration
    all_networks = False
    derived = Experience.derived | {"ring", "history", "dataset_vitals"}

    def build(self) -> None:
        config = self.config
        self.dynamics: Dynamics = self.fitted["dynamics"]
        capacity = config.retained_rollouts * config.rollout_length * config.rollout_states
        self.ring = Ring(len(self.seeds), capacity, self.layout.width, self.dtype, self.device)
        self.history: list[dict[str, Any]] = []  # refreshes with rows still in the ring: enough to replay them

    def label(self, prediction: Prediction) -> tuple[Tensor, Tensor]:
        """Rewards and terminals, each (S, n), with which a model step enters the ring."""
        return prediction.rewards, prediction.terminals

    def uncertainty(self, prediction: Prediction) -> Tensor:
        """u(s, a), (S, n), of a prediction of all networks: recorded, and in a subclass perhaps more."""
        return max_std(prediction)

    def refresh(self, step: int, learner: Learner) -> None:
        if step % self.config.rollout_every:
            return
        before = list(self.ring.position)
        held = [self._held.state(index) for index in range(len(self.seeds))]
        written = self.roll_out(step, learner, [True] * len(self.seeds))
        entry = {"step": step, "position": before, "rows": written, "policy": learner.acting_states(), "held": held}
        self.history.append(entry)
        while all(
            sum(entry["rows"][seed] for entry in self.history[1:]) >= self.ring.capacity for seed in range(len(self.seeds))
        ):
            del self.history[0]

    def roll_out(self, step: int, learner: Learner, write: Sequence[bool]) -> list[int]:
        """Rolls the policy out in the model and writes each live step to the ring of the seeds in `write`; rows per seed.

        Random numbers come from (seed, step), so a rollout can be made again.
        """
        written, sums = [0] * len(self.seeds), torch.zeros(2, len(self.seeds), dtype=self.dtype, device=self.device)
        alive = torch.zeros(len(self.seeds), dtype=self.dtype, device=self.device)
        uncertainty = torch.full((len(self.seeds), self.config.rollout_length), torch.nan, dtype=self.dtype, device=self.device)
        for chunk, (streams, rollouts) in enumerate(self._chunks(step)):
            for age in range(self.config.rollout_length):
                rows, rewards, terminals, prediction = self._model_step(learner, rollouts, streams)
                if chunk == 0:
                    uncertainty[:, age] = self._probed(rows, rollouts.alive)
                for seed, wanted in enumerate(write):
                    if wanted:
                        live = rollouts.live(rows, seed)
                        self.ring.write(seed, live)
                        written[seed] += len(live)
                sums += torch.where(rollouts.alive, torch.stack((rewards, prediction.rewards)), 0).sum(2)
                rollouts.advance(prediction.next_observations, terminals)
                if rollouts.over:
                    break
            alive += rollouts.alive.sum(1)
        rows_made = torch.tensor(written, dtype=self.dtype, device=self.device)
        labels, rewards = sums / rows_made.clamp(min=1)
        self.vitals = {
            "rollout_length": rows_made / self.config.rollout_states,
            "model_reward": labels,  # as kept
            "raw_model_reward": rewards,  # as predicted
            "penalty": rewards - labels,  # a model step's, taken from its reward
            "ended": 1 - alive / self.config.rollout_states,  # the share of rollouts that a terminal step ended
            "uncertainty": uncertainty,  # (S, steps of a rollout)
            **self.dataset_vitals,
        }
        return written

    def _probed(self, rows: Tensor, alive: Tensor) -> Tensor:
        """The mean uncertainty (S,) of a few rows (S, n, width), by all networks, whichever were asked for the rollout."""
        batch, alive = self.layout.batch(rows[:, :PROBED]), alive[:, :PROBED]
        uncertainty = self.uncertainty(self._expected(batch.observations, batch.actions))
        return torch.where(alive, uncertainty, 0).sum(1) / alive.sum(1)

    def _expected(self, observations: Tensor, actions: Tensor) -> Prediction:
        """What the ensemble expects, without a random number: rewards and next observations are the means over its networks."""
        means, stds = self.dynamics.predict(observations, actions)
        rewards, successors = means.mean(1)[..., 0], means.mean(1)[..., 1:]
        terminals = self.problem.termination(observations, actions, successors)
        asked = (observations, actions, self.dynamics.elites)
        return Prediction(rewards, successors, terminals, rewards, means, stds, *asked)

    @cached_property
    def dataset_vitals(self) -> dict[str, Tensor]:
        """Of rows of the dataset, evenly chosen, (S,) each: mean reward, uncertainty, and what labels take from the reward."""
        seeds = len(self.seeds)
        count = min(len(self.table), DATASET_ROWS)
        places = torch.linspace(0, len(self.table) - 1, count, dtype=torch.float32, device=self.device).long()
        batch = self.layout.batch(self.table.index_select(0, places).expand(seeds, -1, -1))
        prediction = self._expected(batch.observations, batch.actions)
        return {
            "dataset_reward": batch.rewards.mean(1),
            "dataset_uncertainty": self.uncertainty(prediction).mean(1),
            "dataset_penalty": (prediction.rewards - self.label(prediction)[0]).mean(1),
        }

    def warnings(self) -> list[str | None]:
        """Where labels take more from the rewards of the dataset's own rows than there is: the data itself is punished."""
        vitals = self.dataset_vitals
        pairs = zip(vitals["dataset_penalty"].tolist(), vitals["dataset_reward"].tolist(), strict=True)
        return [
            f"the penalty on the dataset's own rows, {penalty:.3g} a step, exceeds {'the size of ' * (reward < 0)}their mean "
            f"reward, {reward:.3g}: the data itself is punished"
            if penalty > abs(reward)
            else None
            for penalty, reward in pairs
        ]

    def _chunks(self, step: int) -> Iterator[tuple[list[torch.Generator], LiveRollouts]]:
        """The rollouts of this step at their starts, so many at once as is fastest, and the streams of their numbers."""
        total, chunk = self.config.rollout_states, CHUNK[self.device.type]
        for first in range(0, total, chunk):
            # streams of its own: where one seed's rollouts all end early, its next chunk is as it would be alone
            streams = [torch_stream(seed, "rollouts", step, first, device=self.device) for seed in self.seeds]
            starts = self._stack(streams, partial(torch.rand, min(chunk, total - first), dtype=torch.float64))
            yield streams, LiveRollouts(self.draw_real(starts)[..., : self.layout.observation_size])

    def _model_step(
        self, learner: Learner, rollouts: LiveRollouts, streams: list[torch.Generator]
    ) -> tuple[Tensor, Tensor, Tensor, Prediction]:
        """The policy acts, the model answers: rows as the ring keeps them, rewards, terminals, and what was predicted."""
        observations, actions_end = rollouts.observations, self.layout.action_size
        uniform, noise = (rollouts.of_their_starts(drawn) for drawn in self._draw_noise(streams, rollouts.starts))
        actions = learner.act(observations, noise[..., :actions_end])
        # where launching costs more than arithmetic, asking each elite for its own states is the slower way
        everyone = self.all_networks or self.device.type != "cpu"
        prediction = self.dynamics.sample(observations, actions, uniform, noise[..., actions_end:], everyone)
        rewards, terminals = self.label(prediction)
        # What follows a terminal step never counts, but 0 times infinity is not 0: the state stands in for it.
        successors = torch.where(terminals[..., None], observations, prediction.next_observations)
        rows = self.layout.pack(observations, actions, rewards, (~terminals).to(self.dtype), successors)
        return rows, rewards, terminals, prediction

    def _draw_noise(self, streams: list[torch.Generator], starts: int) -> tuple[Tensor, Tensor]:
        """For every start, its rollout over or not, so that what one draws does not depend on the others' ends."""
        width = self.layout.action_size + 1 + self.layout.observation_size
        uniform = self._stack(streams, partial(torch.rand, starts, dtype=torch.float64))
        return uniform, self._stack(streams, partial(torch.randn, starts, width)).to(self.dtype)

    def _stack(self, streams: list[torch.Generator], draw: Callable[..., Tensor]) -> Tensor:
        return torch.stack([draw(generator=stream, device=self.device) for stream in streams])

    def draw(self, uniform: Tensor) -> Batch:
        real = int(self.config.real_fraction * uniform.shape[1])
        rows = torch.cat((self.draw_real(uniform[:, :real]), self.ring.draw(uniform[:, real:])), 1)
        return self.layout.batch(rows)._replace(real_rows=real)

    def state(self, index: int) -> dict[str, Any]:
        """The policies of the retained refreshes, 300 kB each, instead of the ring, 210 MB: it is rolled out again."""
        entries = [
            {
                "step": entry["step"],
                "position": entry["position"][index],
                "rows": entry["rows"][index],
                "policy": entry["policy"][index],
                "held": entry["held"][index],
            }
            for entry in self.history
            if entry["rows"][index]  # of a group, others may still hold rows of a refresh that this seed has forgotten
        ]
        return {**super().state(index), "history": entries}

    def load_states(self, states: Sequence[Mapping[str, Any]], learner: Learner) -> None:
        present = learner.acting_states()
        by_step = [{entry["step"]: entry for entry in state["history"]} for state in states]
        self.history = []
        started = [False] * len(states)
        for step in sorted(set().union(*by_step)):
            entries = [history.get(step) for history in by_step]
            for seed, entry in enumerate(entries):
                if entry is not None and not started[seed]:
                    self.ring.position[seed], started[seed] = entry["position"], True
            before = list(self.ring.position)
            policies = [entry["policy"] if entry else present[seed] for seed, entry in enumerate(entries)]
            learner.load_acting_states(policies)
            held = [entry.get("held", {}) if entry else {} for entry in entries]
            self._held.load_states(held)
            written = self.roll_out(step, learner, [entry is not None for entry in entries])
            self.history.append({"step": step, "position": before, "rows": written, "policy": policies, "held": held})
        learner.load_acting_states(present)
        super().load_states(states, learner)

    assumes = "no rollout ended early"

    @classmethod
    def refresh_every(cls, config: Config) -> int:
        return config.rollout_every

    @classmethod
    def short_refresh(cls, config: Config, device: str) -> tuple[Config, float]:
        """One chunk of states, for one step."""
        states = CHUNK[device]
        short = replace(config, rollout_length=1, rollout_states=states, rollout_every=2**31, retained_rollouts=1)
        return short, config.rollout_length * config.rollout_states / states


class LiveRollouts:
    """Which rollouts of each seed go on, and where: `observations` (S, n, obs), of which those that are `alive` (S, n) count.

    Rollouts end raggedly. Those that have ended are dropped, n falls, as far as every seed has some to drop: the live ones
    then stand first, and `order` (S, n) says from which start each of them came.
    """

    def __init__(self, starts: Tensor):
        seeds, self.starts = starts.shape[:2]
        self.observations = starts
        self.alive = torch.ones(seeds, self.starts, dtype=torch.bool, device=starts.device)
        self.order = torch.arange(self.starts, device=starts.device).expand(seeds, -1)

    @property
    def over(self) -> bool:
        return not self.alive.shape[1]

    def of_their_starts(self, values: Tensor) -> Tensor:
        """What was drawn for every start, (S, starts, ...), as the rollouts stand now, (S, n, ...)."""
        return gathered(values, self.order)

    def live(self, rows: Tensor, seed: int) -> Tensor:
        """Those of the rows (S, n, width) of this seed that count."""
        alive = self.alive[seed]
        return rows[seed] if bool(alive.all()) else rows[seed][alive]

    def advance(self, observations: Tensor, terminals: Tensor) -> None:
        """They stand at these observations now, but for those that have ended in the step."""
        self.alive, self.observations = self.alive & ~terminals, observations
        longest = int(self.alive.sum(1).max())
        if longest < self.alive.shape[1]:
            kept = self.alive.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :longest]
            self.alive, self.order = gathered(self.alive, kept), gathered(self.order, kept)
            self.observations = gathered(observations, kept)


def gathered(values: Tensor, index: Tensor) -> Tensor:
    """values (S, n, ...) at index (S, m): (S, m, ...)."""
    index = index.view(*index.shape, *[1] * (values.dim() - 2))
    return values.gather(1, index.expand(-1, -1, *values.shape[2:]))
