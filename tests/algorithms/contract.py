"""What every algorithm must keep, whatever it computes: seeds of a group never meet, a state is all there is, a step replays.

An algorithm's test calls `check_contract(algorithm, problem)`, and `check_compiles` where it may take a minute.
"""

import io

import torch
from mopo_bench.algorithms.learning.fast.capture import CannotCapture, Captured, CapturedSteps
from mopo_bench.algorithms.learning.steps import BLOCK, TrainingSteps
from support import Group
from torch.fx.experimental.proxy_tensor import make_fx

SEEDS = (0, 1, 2)
STEPS = 20
TOLERANCE = 1e-12  # not bit for bit: products of other shapes may round differently


def check_contract(algorithm, problem, **changes):
    """`changes` are settings on top of `support.SMALL`; the problem needs no environment."""
    whole = Group(algorithm, problem, SEEDS, **changes)
    metrics = whole.advance(STEPS)
    check_metrics(metrics)
    check_act(whole.learner)
    check_alone_as_in_a_group(algorithm, problem, whole, metrics, changes)
    check_nan_stays_in_its_seed(algorithm, problem, whole, changes)
    check_split_and_restacked(algorithm, problem, whole, changes)
    check_replay(algorithm, problem, whole, changes)
    check_recorded(algorithm, problem, changes)


def check_metrics(metrics):
    """(d) A loss reduced over the seeds, too, is a scalar."""
    assert metrics, "update gave no metrics"
    for name, values in metrics.items():
        assert values.shape == (len(SEEDS),), f"{name} has shape {tuple(values.shape)}, expected one number per seed"
        assert values.isfinite().all(), f"{name} is {values.tolist()}"
        assert not values.requires_grad, f"{name} keeps its graph alive"


def check_act(learner):
    """(e) Shapes, range and repeatability; rows of one call do not see one another."""
    problem, count = learner.problem, len(SEEDS)
    generator = torch.Generator().manual_seed(5)
    observations = torch.randn(count, 7, problem.observation_size, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, 7, problem.action_size, generator=generator, dtype=torch.float64)
    for scale in (1.0, 1e3):
        for given in (None, noise):
            actions = learner.act(scale * observations, given)
            assert actions.shape == (count, 7, problem.action_size)
            assert actions.abs().max() <= 1, f"actions reach {float(actions.abs().max())}, outside [-1, 1]"
            assert torch.equal(actions, learner.act(scale * observations, given)), "acting is not repeatable"
    part = learner.act(observations[:, :2])
    torch.testing.assert_close(part, learner.act(observations)[:, :2], rtol=0, atol=TOLERANCE)


def check_alone_as_in_a_group(algorithm, problem, whole, metrics, changes):
    """(a) S = 1 hides what mixes seeds; so does a seed's state that depends on its neighbours."""
    for index, seed in enumerate(SEEDS):
        alone = Group(algorithm, problem, [seed], **changes)
        own = alone.advance(STEPS)
        assert_seed_same(alone, 0, whole, index, f"seed {seed} alone differs from the same seed in a group")
        for name, values in own.items():
            torch.testing.assert_close(values[0], metrics[name][index], rtol=TOLERANCE, atol=TOLERANCE, msg=name)
    first, second = whole.learner.state(0), whole.learner.state(1)
    assert differ(first, second), "two seeds learned the same"


def check_nan_stays_in_its_seed(algorithm, problem, whole, changes):
    """(b) A seed that has diverged leaves the others as they were."""
    sick = Group(algorithm, problem, SEEDS, **changes)
    for network in sick.learner.networks().values():
        for weight in network.weights:
            weight[1] = float("nan")
    sick.advance(STEPS)
    for index in (0, 2):
        assert_seed_same(sick, index, whole, index, f"NaN of seed 1 reached seed {SEEDS[index]}")
    for name, network in sick.learner.networks().items():
        for weight in network.weights:
            assert weight[1].isnan().all(), f"{name} of the seed of NaN came back to life"


def check_split_and_restacked(algorithm, problem, whole, changes):
    """(c) States of different groups, saved, stacked in another order and stepped on."""
    half = STEPS // 2
    pair, single = Group(algorithm, problem, SEEDS[:2], **changes), Group(algorithm, problem, SEEDS[2:], **changes)
    pair.advance(half)
    single.advance(half)
    saved = saved_and_loaded(single.states() + pair.states())
    restacked = Group(algorithm, problem, (SEEDS[2], *SEEDS[:2]), **changes).load(saved, half)
    restacked.advance(STEPS - half)
    for index, place in enumerate((1, 2, 0)):
        message = f"seed {SEEDS[index]} went on differently after its state was stacked with others"
        assert_seed_same(restacked, place, whole, index, message)


def check_replay(algorithm, problem, whole, changes):
    """(c) The same group resumed is bit-equal, model rollouts included; so is one resumed once more."""
    again = whole
    for _ in range(2):
        states = saved_and_loaded(again.states())
        again = Group(algorithm, problem, SEEDS, **changes).load(states, whole.step)
        assert_same(again.states(), whole.states(), "a resumed group differs", tolerance=0)
        for index in range(len(SEEDS)):
            assert_seed_same(again, index, whole, index, "a resumed group differs", tolerance=0)


def assert_seed_same(group, index, other, other_index, message, tolerance=TOLERANCE):
    """All that seed number `index` has learned, and its model rollouts where it has any.

    Not the state of its experience: what a group keeps to replay its rollouts depends on its slowest seed.
    """
    assert_same(group.learner.state(index), other.learner.state(other_index), message, tolerance)
    if not hasattr(group.experience, "ring"):
        return
    ring, wanted = group.experience.ring, other.experience.ring
    assert ring.position[index] == wanted.position[other_index], f"{message}: its ring stands elsewhere"
    assert ring.size[index] == wanted.size[other_index], f"{message}: its ring is filled differently"
    assert_same(ring.rows[index], wanted.rows[other_index], f"{message}: rows of its ring", tolerance)


def check_recorded(algorithm, problem, changes, steps=BLOCK + 10):
    """(f) A step that is recorded once and replayed, as a GPU does it, into a second block of random numbers."""
    recorded, plain = Group(algorithm, problem, SEEDS, **changes), Group(algorithm, problem, SEEDS, **changes)
    runs, replays = (
        [
            CapturedSteps(recorded.learner, recorded.experience, capture=Recorded),
            TrainingSteps(plain.learner, plain.experience),
        ],
        Recorded.replays,
    )
    for step in range(steps):
        for group, run in zip((recorded, plain), runs, strict=True):
            group.experience.refresh(step, group.learner)
            run.take(step)
    assert runs[0].captured is True, runs[0].captured
    phases = {recorded.learner.phase(step) for step in range(steps)}
    assert Recorded.replays - replays >= steps - (Captured.EAGER_CALLS + 1) * len(phases)
    assert_same(recorded.states(), plain.states(), "replayed steps differ from plain ones", tolerance=0)
    torch.testing.assert_close(runs[0].collect(), runs[1].collect(), rtol=0, atol=0)


class Recorded:
    """`Captured`, on a CPU: first calls as they are, then a recording of torch's own operations on the same tensors.

    What is done in Python, or where a tensor is replaced, is lost in it as in a CUDA graph.
    """

    replays = 0

    def __init__(self, work, device):
        self.work, self.calls, self.program = work, 0, None

    def __call__(self):
        self.calls += 1
        if self.calls <= Captured.EAGER_CALLS:
            self.work()
        elif self.program is None:
            try:
                self.program = make_fx(self.work)()  # computes, too
            except RuntimeError as error:
                raise CannotCapture(str(error).splitlines()[0], done=False) from error
        else:
            Recorded.replays += 1
            self.program()


def check_compiles(algorithm, problem, steps=STEPS, **changes):
    """(g) One full graph per phase, which computes what eager computes."""
    torch.compiler.reset()
    compiled = Group(algorithm, problem, SEEDS, compiled=True, **changes)
    eager = Group(algorithm, problem, SEEDS, **changes)
    metrics, expected = compiled.advance(steps), eager.advance(steps)
    assert_same(compiled.states(), eager.states(), "compiled differs from eager")
    torch.testing.assert_close(metrics, expected, rtol=TOLERANCE, atol=TOLERANCE)


def saved_and_loaded(states):
    """As through a checkpoint on disk."""
    file = io.BytesIO()
    torch.save(states, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_same(state, other, message, tolerance=TOLERANCE):
    torch.testing.assert_close(
        state, other, rtol=tolerance, atol=tolerance, equal_nan=True, msg=lambda text: f"{message}: {text}"
    )


def differ(state, other):
    try:
        assert_same(state, other, "")
    except AssertionError:
        return True
    return False
