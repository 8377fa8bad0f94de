"""A chain of layers: the chain rule as a loop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from xpnet.layers import base, parameters
from xpnet.layers.activations import Activation
from xpnet.layers.base import Container, Layer, Shape
from xpnet.random import fold_in
from xpnet.tree import leaves


@dataclass(frozen=True)
class Sequential(Container):
    """y = fₙ(… f₂(f₁(x))),   dx = f₁'ᵀ(f₂'ᵀ(… fₙ'ᵀ dy)):   each backward receives the gradient that the next layer returned

    The parameters are the tuple of the layers' parameters. A `Sequential` is a layer, so it can be nested.

    A layer object that appears in the network more than once has one set of parameters ("tied weights"). Its gradient is the
    sum over its places, which may be in different containers. The first place holds the parameters, and the trees of the
    others are empty. Running statistics are shared in the same way: each step updates them once, to the mean over the
    places. Layers without parameters, such as `ReLU` and `Dropout`, share nothing, and each `Dropout` draws its own mask.

    Parameters
    ----------
    layers : iterable of Layer
        f₁, …, fₙ. A layer with an ``activation=`` becomes two layers.

    Raises
    ------
    TypeError
        The argument is not a single list of layers.
    ValueError
        A layer object is frozen at one place and not at another, or its places need parameters of different shapes.
    """

    layers: tuple[Layer, ...]
    links: tuple[tuple[str, str], ...] = field(init=False, repr=False)  # (later, first) paths of shared layers

    def __init__(self, layers: Iterable[Layer], *others: Layer):
        if others or isinstance(layers, Layer) or not isinstance(layers, Iterable):
            received = "several arguments" if others else repr(layers)
            raise TypeError(
                f"Sequential needs one list of layers, such as Sequential([Dense(10), ReLU()]). Received: {received}"
            )
        object.__setattr__(self, "layers", tuple(part for layer in layers for part in _split_activation(layer)))
        object.__setattr__(self, "links", parameters.links(self))

    @property
    def children(self):
        return self.layers

    def with_children(self, children):
        return type(self)(children)

    @property
    def entrances(self):
        return list(self.layers[:1])

    @property
    def exits(self):
        return list(self.layers[-1:])

    def output_shape(self, input_shape: Shape) -> Shape:
        return self._shapes(input_shape)[-1]

    def input_shapes(self, input_shape):
        return self._shapes(input_shape)[:-1]

    def _shapes(self, input_shape):
        """Return the shape of the input and the shape of each layer's output."""
        shapes = [input_shape]
        for i, layer in enumerate(self.layers):
            with self.place_of(i, layer):
                if layer.integer_input and i > 0:
                    raise ValueError(
                        f"Only the first layer can receive integers. Put this layer first. Received: place {i}"
                    )
                shapes.append(base.output_shape(layer, shapes[-1]))
        return shapes

    def init(self, rng, input_shape):
        params, shape, statistics = super().init(rng, input_shape)
        parameters.require_one_form(self.links, params)
        return parameters.empty(params, self.links), shape, parameters.empty(statistics, self.links)

    def forward(self, params, x, *, key=None, statistics=None):
        if self.links:
            params, statistics = self.filled(params), self.filled(statistics)
        y, backwards, new_statistics = x, [], []
        for i, layer in enumerate(self.layers):
            layer_key = fold_in(key, i) if layer.needs_key else None
            y, layer_backward, new = base.forward(layer, params[i], y, layer_key, statistics and statistics[i])
            backwards.append(layer_backward)
            new_statistics.append(new)

        def backward(dy, need_dx=True):
            grads = list(params)  # below the first layer that trains, the empty trees of params serve as gradients
            if self.has_frozen:
                grads = [parameters.trainable(layer, tree) for layer, tree in zip(self.layers, params, strict=True)]
            lowest = 0 if need_dx else next((i for i, tree in enumerate(grads) if leaves(tree)), len(params))
            for i in reversed(range(lowest, len(params))):
                dy, grads[i] = backwards[i](dy, need_dx or i > lowest)
            summed = parameters.add(tuple(grads), self.links) if self.links else tuple(grads)
            return dy if need_dx else None, summed

        if self.links and self.has_statistics:
            return y, backward, parameters.add(tuple(new_statistics), self.links, mean=True)
        return y, backward, tuple(new_statistics)

    def __call__(self, params, x, *, statistics=None):
        if self.links:
            params, statistics = self.filled(params), self.filled(statistics)
        for i, layer in enumerate(self.layers):
            x = base.infer(layer, params[i], x, statistics and statistics[i])
        return x

    def filled(self, tree):
        """Return a tree of parameters or statistics in which shared layers have theirs at every place."""
        return parameters.fill(tree, self.links) if tree else tree


def _split_activation(layer: Layer) -> tuple[Layer, ...]:
    if not isinstance(layer, Layer):
        remedy = f" Make an object of the class: {layer.__name__}(...)." if isinstance(layer, type) else ""
        raise TypeError(f"Sequential needs a list of layers, such as [Dense(10)].{remedy} Received: {layer!r}")
    activation = getattr(layer, "activation", None)
    if activation is None:
        return (layer,)
    if "_parts" not in vars(layer):  # split only once, so that a layer used twice still shares its parameters
        vars(layer)["_parts"] = replace(layer, activation=None), Activation(activation)  # type: ignore[type-var]
    return vars(layer)["_parts"]
