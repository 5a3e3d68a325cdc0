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
