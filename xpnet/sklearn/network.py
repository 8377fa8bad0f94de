"""The network of an estimator, and its parameters as the lists `coefs_` and `intercepts_`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.checks import require
from xpnet.layers import Activation, BatchNormalization, Dense, Dropout, Identity, Layer, Sigmoid
from xpnet.layers.base import init
from xpnet.layers.sequential import Sequential
from xpnet.random import ShapesOnly
from xpnet.tree import Tree, leaves

ACTIVATIONS = {
    "identity", "logistic", "tanh", "relu",  # scikit-learn's
    "elu", "gelu", "leaky_relu", "selu", "silu", "softplus",
}  # fmt: skip
Norm = dict[str, np.ndarray]  # of one batch normalization
SCALES, MOMENTS = ("gamma", "beta"), ("mean", "variance")
_SKLEARN = {"identity": Identity(), "logistic": Sigmoid()}


def multilayer_perceptron(
    sizes: Sequence[int], activations: Sequence[str | Layer], outputs: int, dropout: float, batch_norm: bool
) -> Sequential:
    """Return a chain of dense layers. Each hidden layer is Dense, batch normalization, activation and dropout."""
    layers: list[Layer] = []
    for units, activation in zip(sizes, activations, strict=True):
        layers.append(Dense(units))
        if batch_norm:
            layers.append(BatchNormalization())
        if activation != "identity":
            layers.append(activation_layer(activation))
        if dropout:
            layers.append(Dropout(dropout))
    return Sequential([*layers, Dense(outputs)])


def activation_layer(activation: str | Layer) -> Layer:
    """Return the layer for a name of scikit-learn or xpnet."""
    if activation in _SKLEARN:
        return _SKLEARN[activation]
    layer = Activation(activation)
    plain = not (layer.needs_key or layer.has_statistics or leaves(init(layer, ShapesOnly(), (1,))[0]))
    require(plain, "activation needs a layer without parameters or random numbers, such as LeakyReLU(0.2)", layer)
    return layer


def params_of(network: Sequential, coefs: Sequence[Any], biases: Sequence[Any], norms: Sequence[Norm]) -> Tree:
    """Return the tree of parameters. Biases have the shape (1, units)."""
    dense, scales = zip(coefs, biases, strict=True), iter(norms)
    tree: list[Tree] = []
    for layer in network.layers:
        if isinstance(layer, Dense):
            weight, bias = next(dense)
            tree.append({"weight": weight, "bias": bias})
        else:
            tree.append(_select(next(scales), SCALES) if isinstance(layer, BatchNormalization) else {})
    return tuple(tree)


def statistics_of(network: Sequential, norms: Sequence[Norm]) -> Tree:
    """Return the tree of running statistics."""
    rest = iter(norms)
    return tuple(
        _select(next(rest), MOMENTS) if isinstance(layer, BatchNormalization) else {} for layer in network.layers
    )


def coefs_of(network: Sequential, params: Tree) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return `coefs_` and `intercepts_` of a tree of host arrays."""
    dense = [tree for layer, tree in zip(network.layers, params, strict=True) if isinstance(layer, Dense)]
    return [tree["weight"] for tree in dense], [tree["bias"].reshape(-1) for tree in dense]


def norms_of(network: Sequential, params: Tree, statistics: Tree) -> list[Norm]:
    """Return `normalizations_` of trees of host arrays."""
    groups = zip(network.layers, params, statistics, strict=True)
    return [scales | moments for layer, scales, moments in groups if isinstance(layer, BatchNormalization)]


def initial_norm(units: int, dtype: Any) -> Norm:
    """Return the initial parameters and statistics of a batch normalization."""
    zeros, ones = np.zeros((1, units), dtype), np.ones((1, units), dtype)
    return {"gamma": ones, "beta": zeros, "mean": zeros, "variance": ones}


def _select(norm: Norm, names: tuple[str, ...]) -> Norm:
    return {name: norm[name] for name in names}
