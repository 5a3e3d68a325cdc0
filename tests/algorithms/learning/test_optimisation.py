"""Adam in the forms of three libraries, against their formulas written out; PyTorch's against torch.optim in test_dynamics."""

import math

import pytest
import torch
from mopo_bench.algorithms.learning import private_torch
from mopo_bench.algorithms.learning.optimisation import EPSILON, Adam

RATE, BETA1, BETA2, STEPS = 0.01, 0.9, 0.999, 30


def by_hand(weight, gradients, form, decay):
    """Of one number, in Python's own floats."""
    first = second = 0.0
    for step, gradient in enumerate(gradients, 1):
        gradient += decay * weight
        first = BETA1 * first + (1 - BETA1) * gradient
        second = BETA2 * second + (1 - BETA2) * gradient**2
        if form == "torch":
            weight -= RATE * (first / (1 - BETA1**step)) / (math.sqrt(second / (1 - BETA2**step)) + 1e-8)
        else:
            epsilon = {"tensorflow": 1e-8, "keras": 1e-7}[form]
            weight -= RATE * math.sqrt(1 - BETA2**step) / (1 - BETA1**step) * first / (math.sqrt(second) + epsilon)
    return weight


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("form", EPSILON)
def test_adam_equals_its_formula(form, fused, generator, monkeypatch):
    """With gradients so small that epsilon, and where it is added, decide; the kernel and the public operations."""
    if not fused:
        monkeypatch.setattr(private_torch, "fused_adam", None)
    weights = [torch.randn(2, 3, generator=generator, dtype=torch.float64) for _ in range(2)]
    gradients = 1e-7 * torch.randn(STEPS, 2, 2, 3, generator=generator, dtype=torch.float64)
    decays = [0.0, 1e-8]
    expected = [
        [by_hand(float(value), gradients[:, index].flatten(1)[:, place].tolist(), form, decays[index]) for place, value in
         enumerate(weight.flatten())]
        for index, weight in enumerate(weights)
    ]  # fmt: skip
    before = [weight.clone() for weight in weights]
    optimiser = Adam(weights, RATE, decays, form)
    for step in range(STEPS):
        optimiser.step(weights, list(gradients[step]))
    for weight, old, wanted in zip(weights, before, expected, strict=True):
        torch.testing.assert_close(weight.flatten(), torch.tensor(wanted, dtype=torch.float64), rtol=1e-12, atol=1e-12)
        assert (weight - old).abs().max() > 1e-3
    assert optimiser.count.tolist() == [STEPS]


def test_the_forms_differ_where_gradients_are_small(generator):
    """By more than half at the first step, and by nothing that counts where gradients are of ordinary size."""
    ends = {}
    for size in (1e-7, 1.0):
        for form in EPSILON:
            weights = [torch.zeros(2, 1, dtype=torch.float64)]
            Adam(weights, RATE, form=form).step(weights, [torch.full((2, 1), size, dtype=torch.float64)])
            ends[size, form] = -float(weights[0][0, 0]) / RATE
    assert ends[1e-7, "torch"] == pytest.approx(1 / 1.1)
    assert ends[1e-7, "tensorflow"] == pytest.approx(1 / (1 + 0.1 / math.sqrt(1e-3)))
    assert ends[1e-7, "keras"] == pytest.approx(1 / (1 + 1 / math.sqrt(1e-3)))
    assert all(ends[1.0, form] == pytest.approx(1, rel=1e-5) for form in EPSILON)
