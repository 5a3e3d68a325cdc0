"""TD3+BC (Fujimoto and Gu 2021, arXiv 2106.06860), with observations standardised over the dataset."""

from dataclasses import dataclass

import torch
from mopo_bench import Learner, per_seed, register_algorithm
from mopo_bench.algorithms.learning.networks import Critics, DeterministicActor


class TD3BC(Learner):
    @dataclass(frozen=True)
    class Config:
        batch_size: int = 256
        hidden: tuple[int, ...] = (256, 256)
        learning_rate: float = 3e-4
        tau: float = 0.005
        alpha: float = 2.5
        smoothing: float = 0.2
        smoothing_clip: float = 0.5
        actor_delay: int = 2

    def build(self):
        config, sizes = self.config, (self.problem.observation_size, self.problem.action_size)
        observations = torch.tensor(self.problem.dataset.observations, dtype=self.dtype, device=self.device)
        self.mean, self.std = observations.mean(0), observations.std(0, correction=0) + 1e-3
        actor = DeterministicActor.create(self.initialise, *sizes, config.hidden)
        critic = Critics.create(self.initialise, *sizes, config.hidden)
        self.actor = self.trainable(actor, config.learning_rate)
        self.critic = self.trainable(critic, config.learning_rate)
        self.slow_actor, self.slow_critic = self.slow_copy(actor), self.slow_copy(critic)

    def noise(self):
        return {"smoothing": (self.config.batch_size, self.problem.action_size)}

    def phase(self, step):
        return "critic and actor" if (step + 1) % self.config.actor_delay == 0 else "critic"

    def update(self, batch, noise, phase):
        config = self.config
        observations = self.standardised(batch.observations)
        next_observations = self.standardised(batch.next_observations)
        smoothing = (config.smoothing * noise["smoothing"]).clamp(-config.smoothing_clip, config.smoothing_clip)
        next_actions = (self.slow_actor(next_observations) + smoothing).clamp(-1, 1)
        next_value = self.slow_critic(next_observations, next_actions).amin(1)
        target = batch.rewards + self.problem.discount * batch.alive * next_value

        def critic_loss(critic):
            values = critic(observations, batch.actions)
            return per_seed((values - target[:, None]).square().sum(1))

        metrics = {"critic_loss": self.minimise(self.critic, critic_loss)}
        if phase == "critic":
            return metrics
        value = self.critic(observations, self.actor(observations))[:, 0]
        scale = config.alpha / per_seed(value.abs())

        def actor_loss(actor):
            actions = actor(observations)
            value = self.critic(observations, actions)[:, 0]
            return per_seed((actions - batch.actions).square()) - scale * per_seed(value)

        metrics["actor_loss"] = self.minimise(self.actor, actor_loss)
        self.follow(self.slow_actor, self.actor, config.tau)
        self.follow(self.slow_critic, self.critic, config.tau)
        return metrics

    def act(self, observations, noise=None):
        return self.actor(self.standardised(observations))

    def standardised(self, observations):
        return (observations - self.mean) / self.std


register_algorithm("td3-bc", TD3BC, title="TD3+BC", about="TD3 whose policy's loss has a term of behaviour cloning")
