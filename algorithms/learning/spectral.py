"""A bound on the spectral norms of a network's matrices: each layer, and so the model, is Lipschitz (MOPO's appendix)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

ITERATIONS = 2  # of the power method after each step, which begins where it ended before


class SpectralBound:
    """Keeps matrices (..., in, out) at spectral norms of at most `bound`, by scaling down those that exceed it.

    After a step the norm is estimated from below by power iteration, v <- W^T W v / ||W^T W v||, from the v of the step before,
    as in spectral normalisation (Miyato et al. 2018, arXiv 1802.05957); `settle` computes it in full.
    """

    def __init__(self, matrices: Sequence[Tensor], bound: float, stream: torch.Generator):
        self.matrices, self.bound = matrices, bound
        self.vectors = [
            functional.normalize(torch.randn(each.shape[-1], generator=stream, dtype=torch.float64).to(each), dim=0)
            .expand(*each.shape[:-2], -1)
            .unsqueeze(-1)
            .clone()
            for each in matrices
        ]

    def norms(self) -> list[Tensor]:
        """An estimate for each matrix, (...), which grows to the norm while the matrix changes little."""
        found = []
        for matrix, vector in zip(self.matrices, self.vectors, strict=True):
            for _ in range(ITERATIONS):
                vector.copy_(functional.normalize(matrix.mT @ (matrix @ vector), dim=-2))
            found.append((matrix @ vector).norm(dim=(-2, -1)))
        return found

    def apply(self) -> None:
        """After a step: scales down what the estimates say exceeds the bound."""
        self._scale(self.norms())

    def settle(self) -> None:
        """Scales down what exceeds the bound, by norms in full: what is kept of a fit keeps to the bound."""
        self._scale([torch.linalg.matrix_norm(each, 2) for each in self.matrices])

    def _scale(self, norms: Sequence[Tensor]) -> None:
        for matrix, norm in zip(self.matrices, norms, strict=True):
            matrix.mul_((self.bound / norm).clamp(max=1.0)[..., None, None])
