"""Shapes and sizes in a network for samples of one shape, without drawing its parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from xpnet.checks import is_custom
from xpnet.layers import base
from xpnet.layers.base import Container, Layer, Shape, Wrapper
from xpnet.layers.frozen import Frozen
from xpnet.layers.mapping import map_layers
from xpnet.layers.sequential import Sequential
from xpnet.random import ShapesOnly
from xpnet.tree import Array, Tree, join, leaves, named_leaves, subtree


class Place(NamedTuple):
    """A layer in a network, the shapes of its input and output, and how often it runs for one sample of the network."""

    path: str
    layer: Layer
    input_shape: Shape
    output_shape: Shape
    runs: int = 1


def walk_shapes(layer: Layer, input_shape: Shape, path: str = "", runs: int = 1) -> Iterator[Place]:
    """Like `base.walk`, with shapes."""
    yield Place(path, layer, input_shape, base.output_shape(layer, input_shape), runs)
    if isinstance(layer, Container):
        children = zip(named_leaves(layer.children), layer.input_shapes(input_shape), strict=True)
        for (name, child), shape in children:
            positions = math.prod(input_shape) // math.prod(shape) if isinstance(layer, Wrapper) else 1
            yield from walk_shapes(child, shape, join(path, name), runs * positions)


@dataclass(frozen=True)
class Measured:
    """The shapes and sizes in a network.

    Attributes
    ----------
    output_shape : tuple of int
        The shape of one sample's output.
    form : dict of str -> tuple of int
        The names and shapes of the parameters and statistics.
    multiplications, activations : int
        The multiplications and the numbers that a forward pass computes for one sample.
    parameters : int
        The number of parameters and statistics.
    divisible : bool
        Whether parts of a batch can be computed at the same time. Layers from outside xpnet may mix the rows of a batch.
    separable : bool
        Whether they can also be computed one after the other. Batch normalization prevents this: it needs all rows at once.
    """

    output_shape: Shape
    form: dict[str, Shape]
    multiplications: int
    activations: int
    parameters: int
    divisible: bool
    separable: bool


def measure(network: Sequential, input_shape: Shape) -> Measured:
    """Measure the network for samples of this shape. If a layer cannot accept them, the ValueError names it."""
    params, output_shape, statistics = base.init(network, ShapesOnly(), input_shape)
    form = {name: tuple(leaf.shape) for tree in (params, statistics) for name, leaf in named_leaves(tree)}
    params = network.filled(params)
    places = [place for place in walk_shapes(network, input_shape) if not isinstance(place.layer, Container)]
    pairs = [(place, subtree(params, place.path)) for place in places]
    return Measured(
        output_shape,
        form,
        sum(multiplications(*pair) for pair in pairs),
        sum(activations(*pair) for pair in pairs),
        sum(math.prod(shape) for shape in form.values()),
        not any(is_custom(layer) for _, layer in base.walk(network)),
        not mixing(network),
    )


def mixing(network: Layer) -> list[Layer]:
    """Return the layers that may mix the rows of a batch: batch normalization, and layers that are not from xpnet."""
    still = map_layers(network, lambda path, layer: layer.still if isinstance(layer, Frozen) else layer)
    layers = [layer for _, layer in base.walk(still)]
    return [layer for layer in layers if hasattr(layer, "in_group") or is_custom(layer)]


def measure_alike(network: Sequential, shape: Shape, known: Shape) -> Measured:
    """Like `measure`, for a shape other than `known`. Raise ValueError if it needs different parameters."""
    rule = f"The model accepts samples of shape {known}, and other shapes that need the same parameters."
    try:
        measured = measure(network, shape)
    except ValueError as error:
        raise ValueError(f"{rule} {error}") from error
    if measured.form != measure(network, known).form or len(shape) != len(known):
        raise ValueError(f"{rule} Build a new model for other shapes. Received: samples of shape {shape}")
    return measured


def multiplications(place: Place, params: Tree) -> int:
    """Estimate the multiplications in a layer's matrix products for one sample of the network.

    Each weight counts once for each position (a step of a sequence, or a pixel of an image) of the layer's input or output,
    whichever has more positions. Products of two activations, as in attention, do not count.
    """
    return 0 if place.layer.integer_input else place.runs * _positions(place) * sum(p.size for p in _matrices(params))


def activations(place: Place, params: Tree) -> int:
    """Estimate the numbers that a layer computes for one sample of the network.

    They are the output or, if it is larger, one row of the widest weight for each position, such as the gates of an LSTM.
    """
    width = 0 if place.layer.integer_input else max((p.shape[-1] for p in _matrices(params)), default=0)
    return place.runs * max(math.prod(place.output_shape), _positions(place) * width)


def _positions(place: Place) -> int:
    return max(math.prod(place.input_shape[:-1]), math.prod(place.output_shape[:-1]))


def _matrices(params: Tree) -> list[Array]:
    return [p for p in leaves(params) if p.ndim > 1 and p.size > p.shape[-1]]
