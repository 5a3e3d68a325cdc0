"""A training step of SAC and of BEAR beside d3rlpy's, and drawing a batch.

On either side a step starts with drawing its batch and ends with the last network's update. Ours: row positions and noise
(drawn 100 steps at a time), the batch, the update. d3rlpy's: `sample_transition_batch` and `update`, its `fit` without logging.
"""

import parts
import pytest
import textbook
import torch
from mopo_bench.algorithms.learning.steps import BLOCK
from parts import PeerTraining, Training, sized

FORMS = {"compiled": True, "not compiled": False}


@pytest.mark.parametrize("form", FORMS)
def test_sac_step(side_by_side, d3rlpy, form):
    goal = {"compiled": (2.8, 4.0), "not compiled": (2.0, 2.5)}[form]
    beside_d3rlpy(side_by_side, "SAC", form, goal, count=sized(50, 3), rounds=sized(12, 3))


@pytest.mark.parametrize("form", FORMS)
def test_bear_step(side_by_side, d3rlpy, form):
    """After the warm-up, where every term is in the loss. The autoencoder's layers are 750 x 750 on both sides."""
    beside_d3rlpy(side_by_side, "BEAR", form, (2.0, 4.0), count=sized(15, 2), rounds=sized(10, 3), warmup_steps=0)


def beside_d3rlpy(side_by_side, name, form, goal, count, rounds, **changes):
    ours = Training(name.lower(), compiled=FORMS[form], **changes)
    peer = PeerTraining(name.lower(), **changes)
    side_by_side(
        f"{name} step, {form}",
        lambda: ours.steps(count),
        {"d3rlpy": lambda: peer.steps(count)},
        rounds=rounds,
        units=count,
        unit="ms",
        goal=goal,
        flops=parts.flops_of_step(name.lower(), **changes),
        peer_flops=parts.flops_of(lambda: peer.steps(1)),
        ours_includes="row positions and noise, drawing the batch, the update of all networks; metrics are summed as tensors",
        peer_includes="sample_transition_batch, the update of all networks with its noise; metrics become numbers",
    )


def test_drawing_a_batch(side_by_side):
    """A MOPO batch, 12 real rows and 244 of the model."""
    training = Training("mopo", rollout_states=sized(50_000, 2_000))
    experience, stream = training.experience, torch.Generator().manual_seed(0)
    experience.ring.size[0] = experience.ring.capacity  # zeros are rows as good as any
    batch, size = parts.the_problem().dataset, training.learner.config.batch_size
    sizes = batch.observations.shape[1], batch.actions.shape[1]
    real = textbook.Buffer(len(batch), *sizes)
    real.add(
        observations=batch.observations,
        actions=batch.actions,
        rewards=batch.rewards[:, None],
        terminals=batch.terminals[:, None],
        next_observations=batch.next_observations,
    )
    model = textbook.Buffer(experience.ring.capacity, *sizes)
    model.size = model.capacity

    def ours():
        for _ in range(sized(10, 1)):
            for uniform in torch.rand(BLOCK, 1, size, dtype=torch.float64, generator=stream):
                experience.draw(uniform)

    def peer():
        for _ in range(BLOCK):
            textbook.draw_batch(real, model, size, experience.config.real_fraction)

    side_by_side(
        "drawing a batch",
        ours,
        {"textbook": peer},
        rounds=sized(20, 3),
        units=sized(10, 1) * BLOCK,
        peer_units=BLOCK,
        unit="us",
        goal=(40e-6, 20e-6),
        goal_of="time",
        both_backends=False,
        ours_includes="row positions, drawn 100 batches at a time; rows of the batch and of the ring",
        peer_includes="row positions; rows of the batch and of the buffer, column by column; tensors of them",
    )
