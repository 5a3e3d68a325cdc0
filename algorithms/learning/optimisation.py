"""Gradients of one network at a time, and Adam."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import torch
from torch import Tensor

from ...common.settings import Choice
from ...common.trees import tree_map
from . import private_torch
from .networks import Network

AnyNetwork = TypeVar("AnyNetwork", bound=Network)

# Whose Adam: PyTorch's, TensorFlow 1's (tf.train) or Keras' (tf.keras.optimizers).
AdamForm = Annotated[str, Choice("torch", "tensorflow", "keras")]
EPSILON = {"torch": 1e-8, "tensorflow": 1e-8, "keras": 1e-7}
ENDLESS = 1e9  # steps after which nothing is left of the bias correction


class Adam:
    """Adam (Kingma and Ba, 2015) on one network's weights, in place, with m and v the moments without bias correction.

    form "torch", as in the paper's Algorithm 1:  -lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon).
    "tensorflow" and "keras", as in the note below that algorithm, add epsilon before v is corrected, so that it counts more in
    the first thousands of steps:                 -lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + epsilon).
    """

    def __init__(
        self, weights: Sequence[Tensor], learning_rate: float, decays: Sequence[float] | None = None, form: str = "torch"
    ):
        self.learning_rate, self.form = learning_rate, form
        self.decays = list(decays) if decays is not None else [0.0] * len(weights)
        self.first = [torch.zeros_like(weight) for weight in weights]
        self.second = [torch.zeros_like(weight) for weight in weights]
        # one count per network, of shape (1,): an in-place step on a 0-dim tensor is lost by the compiler; in float32 whatever
        # the weights are, since the fused kernel on a GPU reads it as that
        self.count = torch.zeros(1, dtype=torch.float32, device=weights[0].device)
        if form != "torch":
            self.endless = torch.full_like(self.count, ENDLESS)

    def step(self, weights: list[Tensor], gradients: Sequence[Tensor], beta1: float = 0.9, beta2: float = 0.999) -> None:
        """One step; `decays` holds a factor per weight, added to its gradient as factor times weight (L2, not decoupled)."""
        self.count += 1
        if private_torch.fused_adam is None or torch.compiler.is_compiling():
            self._step_plainly(weights, gradients, beta1, beta2)
            return
        rate: float | Tensor = self.learning_rate
        count = self.count
        if self.form != "torch":  # the kernel's own correction is PyTorch's: it is told that it is over, and gets the rate
            rate, count = self._corrected_rate(beta1, beta2), self.endless
        for decay in sorted(set(self.decays)):  # one fused call per decay; nearly always one
            chosen = [index for index, other in enumerate(self.decays) if other == decay]
            private_torch.fused_adam(
                [weights[i] for i in chosen],
                [gradients[i] for i in chosen],
                [self.first[i] for i in chosen],
                [self.second[i] for i in chosen],
                [],
                [count[0]] * len(chosen),
                lr=rate,
                beta1=beta1,
                beta2=beta2,
                weight_decay=decay,
                eps=EPSILON[self.form],
                amsgrad=False,
                maximize=False,
            )

    def _corrected_rate(self, beta1: float, beta2: float) -> Tensor:
        """lr * sqrt(1 - b2^t) / (1 - b1^t), (); the fused kernel on a GPU reads it as float32."""
        count = self.count[0].double()
        rate = torch.sqrt(1 - beta2**count) / (1 - beta1**count) * self.learning_rate
        return rate.float() if rate.is_cuda else rate

    def _step_plainly(self, weights: list[Tensor], gradients: Sequence[Tensor], beta1: float, beta2: float) -> None:
        """The same in public operations, which a compiler can read."""
        count = self.count.to(weights[0].dtype)
        bias1, bias2 = 1 - beta1**count, (1 - beta2**count).sqrt()
        epsilon = EPSILON[self.form] if self.form == "torch" else EPSILON[self.form] / bias2
        for weight, gradient, first, second, decay in zip(
            weights, gradients, self.first, self.second, self.decays, strict=True
        ):
            gradient = gradient + decay * weight if decay else gradient
            first.lerp_(gradient, 1 - beta1)
            second.lerp_(gradient.square(), 1 - beta2)
            weight.sub_(self.learning_rate * (first / bias1) / (second.sqrt() / bias2 + epsilon))


def gradient(network: AnyNetwork, loss: Callable[[AnyNetwork], Any]) -> tuple[list[Tensor], Tensor, Any]:
    """Gradients of `loss` with respect to this network's weights alone.

    `loss` gives (S,), or a pair of (S,) and tensors; returned are the gradients, the losses (S,) and those tensors.
    Seeds do not share weights, so the gradient of the sum over seeds is each seed's own.
    """

    def objective(weights: list[Tensor]) -> tuple[Tensor, tuple[Tensor, Any]]:
        result = loss(network.with_weights(weights))
        values, extra = result if isinstance(result, tuple) else (result, ())
        return values.sum(), (values, extra)

    if torch.compiler.is_compiling():
        gradients, (values, extra) = torch.func.grad(objective, has_aux=True)(network.weights)
        return gradients, values, extra
    # The same by plain autograd, which the compiler cannot trace but which is 1.4 times faster when nothing is compiled.
    leaves = [weight.detach().requires_grad_() for weight in network.weights]
    with torch.enable_grad():
        total, (values, extra) = objective(leaves)
    gradients = torch.autograd.grad(total, leaves, materialize_grads=True)
    return list(gradients), values.detach(), tree_map(torch.Tensor.detach, extra)
