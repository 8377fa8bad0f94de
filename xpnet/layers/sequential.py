"""Layers one after another: the chain rule as a loop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from xpnet.layers import base
from xpnet.layers.activations import Activation
from xpnet.layers.base import Layer
from xpnet.random import fold_in
from xpnet.tree import leaves


@dataclass(frozen=True)
class Sequential(Layer):
    """y = fₙ(… f₂(f₁(x))),   dx = f₁'ᵀ(f₂'ᵀ(… fₙ'ᵀ dy)): each backward takes the gradient that the next layer returned.

    Parameters are the tuple of the layers' parameters. A `Sequential` is a layer, so it nests. A layer object with parameters
    may stand in a network once, since each place has parameters of its own; one without, such as a `ReLU` or `Dropout`, as
    often as wanted (each place draws its own mask). `Model.build` looks at this.

    Parameters
    ----------
    layers : iterable of Layer
        A layer with an ``activation=`` is entered as two layers.

    Raises
    ------
    TypeError
        Anything but one list of layers is given.
    """

    layers: tuple[Layer, ...]

    def __init__(self, layers: Iterable[Layer], *others: Layer):
        if others or isinstance(layers, Layer) or not isinstance(layers, Iterable):
            received = "several arguments" if others else repr(layers)
            raise TypeError(f"Layers come in one list: Sequential([Dense(10), ReLU()]). Received: {received}")
        object.__setattr__(self, "layers", tuple(part for layer in layers for part in _split_activation(layer)))

    @cached_property
    def random(self):
        return any(layer.random for layer in self.layers)

    @cached_property
    def running(self):
        return any(layer.running for layer in self.layers)

    @cached_property
    def integer_input(self):
        return bool(self.layers) and self.layers[0].integer_input

    @cached_property
    def batch_first(self):
        return any(layer.batch_first for layer in self.layers)

    def init(self, rng, input_shape):
        params, statistics, shape = [], [], input_shape
        for i, (layer, layer_rng) in enumerate(zip(self.layers, rng.spawn(len(self.layers)), strict=True)):
            try:
                if layer.integer_input and i > 0:
                    raise ValueError("It takes integers, which the first layer alone is given: put it first.")
                layer_params, shape, layer_statistics = base.init(layer, layer_rng, shape)
            except ValueError as error:
                raise ValueError(f"Layer {i}, {type(layer).__name__}: {error}") from error
            params.append(layer_params)
            statistics.append(layer_statistics)
        return (tuple(params), shape, tuple(statistics)) if self.running else (tuple(params), shape)

    def check_input(self, x):
        if self.layers:
            self.layers[0].check_input(x)

    def forward(self, params, x, *, key=None, statistics=None):
        y, backwards, new_statistics = x, [], []
        for i, layer in enumerate(self.layers):
            layer_key = fold_in(key, i) if layer.random else None
            y, layer_backward, new = base.forward(layer, params[i], y, layer_key, statistics and statistics[i])
            backwards.append(layer_backward)
            new_statistics.append(new)

        def backward(dy, need_dx=True):
            grads = list(params)  # below the first layer with parameters the trees are empty: their own gradients
            lowest = 0 if need_dx else next((i for i, tree in enumerate(params) if leaves(tree)), len(params))
            for i in reversed(range(lowest, len(params))):
                dy, grads[i] = backwards[i](dy, need_dx or i > lowest)
            return dy if need_dx else None, tuple(grads)

        return (y, backward, tuple(new_statistics)) if self.running else (y, backward)

    def __call__(self, params, x, *, statistics=None):
        for i, layer in enumerate(self.layers):
            x = base.infer(layer, params[i], x, statistics and statistics[i])
        return x


def inside(layer: Layer) -> tuple[Layer, ...]:
    """The layers of a `Sequential`, the branches of an `Add`; of any other layer nothing."""
    return layer.layers if isinstance(layer, Sequential) else getattr(layer, "branches", ())


def _split_activation(layer: Layer) -> tuple[Layer, ...]:
    if not isinstance(layer, Layer):
        remedy = f" Make an object of the class: {layer.__name__}(...)." if isinstance(layer, type) else ""
        raise TypeError(f"Sequential takes a list of layers, such as [Dense(10)].{remedy} Received: {layer!r}")
    activation = getattr(layer, "activation", None)
    if activation is None:
        return (layer,)
    if "_parts" not in vars(
        layer
    ):  # once: an object that is used twice stays one, and is refused when a model is built
        vars(layer)["_parts"] = replace(layer, activation=None), Activation(activation)  # type: ignore[type-var]
    return vars(layer)["_parts"]
