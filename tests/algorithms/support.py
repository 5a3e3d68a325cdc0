"""Plain torch modules with the weights of a network, for references."""

import torch
from torch import nn


def module(weights):
    """[W1, b1, ...], W (in, out) and b (1, out), as linear layers with ReLU between."""
    layers = []
    for weight, bias in zip(weights[::2], weights[1::2], strict=True):
        layer = nn.Linear(*weight.shape, dtype=torch.float64)
        layer.weight.data, layer.bias.data = weight.T.clone(), bias[0].clone()
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class TensorFlowAdam(torch.optim.Optimizer):
    """As TensorFlow 1 defines it: -lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon); Keras has an epsilon of 1e-7."""

    def __init__(self, parameters, lr, epsilon=1e-8):
        super().__init__(parameters, {"lr": lr, "epsilon": epsilon})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                t, m, v = self.state.get(parameter, (0, 0, 0))
                t, m, v = t + 1, 0.9 * m + 0.1 * parameter.grad, 0.999 * v + 0.001 * parameter.grad**2
                rate = group["lr"] * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t)
                parameter -= rate * m / (v.sqrt() + group["epsilon"])
                self.state[parameter] = t, m, v


def flat(parameters):
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


def flat_weights(weights):
    """As `flat` of the module: nn.Linear keeps (out, in)."""
    return torch.cat([weight.transpose(-1, -2).flatten() for weight in weights])


def assert_weights(index, pairs):
    """Of seed number `index`: triples of weights, a module's parameters, and () or the member of an ensemble it stands for."""
    for weights, parameters, member in pairs:
        own = [weight[(index, *member)] for weight in weights]
        torch.testing.assert_close(flat_weights(own), flat(parameters), rtol=0, atol=1e-10)
