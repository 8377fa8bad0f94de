"""The layers of a model that have weights, for exchange with libraries whose modules have other names and layouts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from xpnet.backend import to_numpy
from xpnet.backend.conversion import real_numbers
from xpnet.errors import ConversionError
from xpnet.layers.base import Container, Layer
from xpnet.model import Model
from xpnet.tree import Tree, join, map_leaves, named_leaves, subtree

Weights = dict[str, np.ndarray]


class WeightedLayer(NamedTuple):
    """A layer that is not a container, at one place, with its parameters and running statistics as host arrays."""

    path: str
    layer: Any
    weights: Weights

    def __str__(self) -> str:
        return f"Layer {self.path}, {type(self.layer).__name__}"


def require_one_network(model: Model) -> None:
    """Raise ConversionError if the model has several seeds."""
    if isinstance(model.seed, tuple):
        raise ConversionError(
            "Other libraries' files and modules hold one network. Use a model with one seed, such as Model(..., seed=0). "
            f"Received: seed={model.seed}"
        )


def weighted_layers(model: Model) -> list[WeightedLayer]:
    """Return the layers with weights in the order of the network; a shared layer appears at each of its places."""
    require_one_network(model)
    state = model.built_state()
    host = {part: map_leaves(to_numpy, state[part]) for part in ("params", "statistics")}
    filled = {part: model.network.filled(tree) for part, tree in host.items()}
    found = []
    for path, layer in _in_order(model.network, ""):
        weights = dict(subtree(filled["params"], path))
        if layer.has_statistics:
            weights |= subtree(filled["statistics"], path)
        if weights:
            found.append(WeightedLayer(path, layer, weights))
    return found


def _in_order(layer: Layer, path: str) -> Iterator[tuple[str, Layer]]:
    """Like `base.walk`, but dicts of children are in their own order, not sorted."""
    if not isinstance(layer, Container):
        yield path, layer
        return
    children: Tree = layer.children
    if isinstance(children, dict):
        for key, branch in children.items():
            for name, child in named_leaves(branch):
                yield from _in_order(child, join(path, join(key, name)))
    else:
        for name, child in named_leaves(children):
            yield from _in_order(child, join(path, name))


def converted(name: str, value: Any) -> np.ndarray:
    """Return an array of another library as a host array; raise ConversionError unless it holds real numbers."""
    if str(getattr(value, "dtype", "")) == "torch.bfloat16":  # NumPy has no such type
        value = value.float()
    try:
        return real_numbers(value)
    except ValueError as error:
        raise ConversionError(f"{name}: {error}") from error


def require_shape(place: WeightedLayer, theirs: str, received: tuple, expected: tuple) -> None:
    """Raise ConversionError if an array of another library does not have the shape that a layer needs."""
    if tuple(received) != tuple(expected):
        raise ConversionError(
            f"{place}: {theirs} must have shape {tuple(expected)}. Build the model with the same sizes, or pass names=... if the "
            f"array belongs to another layer. Received: shape {tuple(received)}"
        )


def set_weights(model: Model, values: Mapping[str, Weights]) -> None:
    """Set the weights of all layers by their path. Raises ConversionError, and changes nothing, if they do not fit."""
    first: dict[str, Weights] = {}
    links = getattr(model.network, "links", ())
    for path, weights in values.items():
        home = next((join(a, path[len(b) :].strip(".")) for b, a in links if f"{path}.".startswith(f"{b}.")), path)
        for name, array in first.setdefault(home, weights).items():
            if home != path and not np.array_equal(array, weights[name]):
                raise ConversionError(
                    f"Layers {home} and {path} are one layer object with one set of weights, so their weights must be equal. "
                    f"Make two layers to load different ones. Received: {name!r} with other values"
                )
    try:
        model.load_state_dict({join(path, name): x for path, weights in first.items() for name, x in weights.items()})
    except ValueError as error:
        raise ConversionError(str(error)) from error
