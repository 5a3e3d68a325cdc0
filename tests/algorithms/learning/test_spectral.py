"""The bound on spectral norms, against torch's singular values."""

import torch
from mopo_bench.algorithms.learning.dynamics import Dynamics, EnsembleNetwork
from mopo_bench.algorithms.learning.spectral import SpectralBound
from mopo_bench.algorithms.learning.testing import SMALL, check_resumes

SMALLEST = {key.removeprefix("dynamics."): value for key, value in SMALL.items() if key.startswith("dynamics.")}


def matrices(generator, *shapes):
    return [torch.randn(2, 3, *shape, generator=generator, dtype=torch.float64) for shape in shapes]


def norms(each):
    return torch.linalg.svdvals(each)[..., 0]


def test_estimates_are_those_of_torch(generator):
    """From below, and to four digits once matrices stand still for some steps."""
    whole = matrices(generator, (16, 8), (8, 8), (8, 3))
    bound = SpectralBound(whole, 1.0, generator)
    first = bound.norms()
    for _ in range(50):
        last = bound.norms()
    for matrix, early, late in zip(whole, first, last, strict=True):
        exact = torch.linalg.matrix_norm(matrix, 2)
        assert early.shape == (2, 3) and (early <= exact * (1 + 1e-12)).all()
        torch.testing.assert_close(late, exact, rtol=1e-4, atol=0)


def test_what_exceeds_the_bound_is_scaled_to_it_and_nothing_else(generator):
    (whole,) = matrices(generator, (6, 6))
    whole[0] *= 0.01
    before = whole.clone()
    SpectralBound([whole], 1.0, generator).settle()
    assert torch.equal(whole[0], before[0])
    torch.testing.assert_close(norms(whole[1]), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(whole[1] / before[1], (1 / norms(before[1]))[:, None, None].expand(3, 6, 6))


def test_a_fit_keeps_to_the_bound(problem):
    """Every layer of every network, heads included; without the setting they exceed it."""
    largest = {}
    for bound in (None, 0.5):
        config = Dynamics.Config(**SMALLEST, spectral_norm=bound)
        state, _ = Dynamics.fit(problem, config, 0, dtype=torch.float64)
        network = EnsembleNetwork([weight[None] for weight in state["weights"]])
        assert len(network.matrices) == len(config.hidden) + 2
        largest[bound] = [float(norms(each).max()) for each in network.matrices]
    assert max(largest[0.5]) <= 0.5 * (1 + 1e-9) and min(largest[0.5]) > 0
    assert max(largest[None]) > 0.6


def test_a_fit_with_a_bound_that_is_stopped_resumes(problem):
    """The vectors of the power method are part of its state."""
    check_resumes(Dynamics, problem, Dynamics.Config(**SMALLEST, spectral_norm=0.5), at=1)
