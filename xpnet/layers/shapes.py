"""Shapes and sizes in a network for samples of one shape, without drawing its parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from xpnet.layers import base
from xpnet.layers.base import Container, Layer, Shape, Wrapper
from xpnet.layers.sequential import Sequential
from xpnet.random import ShapesOnly
from xpnet.tree import Tree, join, leaves, named_leaves, subtree


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
    """A network's output shape, the names and shapes of its parameters and statistics, and its multiplications per sample."""

    output_shape: Shape
    form: dict[str, Shape]
    multiplications: int


def measure(network: Sequential, input_shape: Shape) -> Measured:
    """Measure the network for samples of this shape. If a layer cannot accept them, the ValueError names it."""
    params, output_shape, statistics = base.init(network, ShapesOnly(), input_shape)
    form = {name: tuple(leaf.shape) for tree in (params, statistics) for name, leaf in named_leaves(tree)}
    params = network.filled(params)
    places = [place for place in walk_shapes(network, input_shape) if not isinstance(place.layer, Container)]
    return Measured(output_shape, form, sum(multiplications(place, subtree(params, place.path)) for place in places))


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
    if place.layer.integer_input:
        return 0
    positions = max(math.prod(place.input_shape[:-1]), math.prod(place.output_shape[:-1]))
    weights = sum(p.size for p in leaves(params) if p.ndim > 1 and p.size > p.shape[-1])
    return place.runs * positions * weights
