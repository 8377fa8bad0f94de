"""What a network must keep to: every layer with parameters stands in it once, and layers of one's own keep the protocol."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from xpnet.layers import base
from xpnet.layers.base import Layer, Shape
from xpnet.layers.sequential import Sequential
from xpnet.random import host_rng
from xpnet.tree import Tree, leaves, named_leaves


def require_distinct(network: Layer, params: Tree, statistics: Tree) -> None:
    """Raise ValueError where one layer object with parameters or statistics would be two in the network."""
    places: dict[int, str] = {}
    for place, layer, trees in _walk(network, "", (params, statistics)):
        if not leaves(trees):
            continue  # nothing to be trained twice
        if id(layer) in places:
            name = type(layer).__name__
            raise ValueError(
                f"Layers {places[id(layer)]} and {place} are one {name} object, and would have parameters of their own each. "
                f"Make two: {name}(...), {name}(...), or [{name}(...) for _ in range(2)] in place of [layer] * 2. "
                f"Received: {layer!r} twice"
            )
        places[id(layer)] = place


def _walk(layer: Layer, place: str, trees: tuple) -> Iterator[tuple[str, Layer, tuple]]:
    """(place, layer, its parameters and statistics) of all that a layer holds, outer before inner."""
    settings = [getattr(layer, field.name) for field in fields(layer)] if is_dataclass(layer) else vars(layer).values()
    for value in list(settings):
        several = isinstance(value, (tuple, list))
        for i, inner in enumerate(value if several else [value]):
            if isinstance(inner, Layer):
                inner_place = f"{place}.{i}".lstrip(".") if several else place
                inner_trees = tuple(_part(tree, i, len(value)) for tree in trees) if several else trees
                yield inner_place, inner, inner_trees
                yield from _walk(inner, inner_place, inner_trees)


def _part(tree: Tree, i: int, n: int) -> Tree:
    """The part of one of n layers; of a container with a form of its own, the whole."""
    return tree[i] if isinstance(tree, tuple) and len(tree) == n else tree


def checked(network: Sequential, input_shape: Shape) -> Layer:
    """`network` with every layer that is not xpnet's wrapped: what it returns is compared with the protocol.

    It is the network itself if there are none. The first training step runs it, so a layer of one's own is called on real
    samples only, and later steps pay nothing. That step raises TypeError if `forward` or `backward` returns another form, and
    ValueError if an output or a gradient has another shape than `init` or the parameters say. The message names the layer.
    """
    wrapped = _checked(network, "")
    if wrapped is not network:
        base.init(wrapped, host_rng(0, "weights"), input_shape)  # tells each its output's shape
    return wrapped


def _checked(layer: Layer, place: str) -> Layer:
    """`layer` with those of one's own inside wrapped; itself if there are none."""
    if not type(layer).__module__.startswith("xpnet."):
        return _Checked(layer, f"Layer {place}, {type(layer).__name__}")
    name = next((name for name in ("layers", "branches") if isinstance(getattr(layer, name, None), tuple)), None)
    if name is None:
        return layer
    old = getattr(layer, name)
    new = tuple(_checked(inner, f"{place}.{i}".lstrip(".")) for i, inner in enumerate(old))
    if all(a is b for a, b in zip(old, new, strict=True)):
        return layer
    return Sequential(new) if isinstance(layer, Sequential) else replace(layer, **{name: new})  # type: ignore[type-var]


@dataclass(frozen=True)
class _Checked(Layer):
    """A layer whose results are compared with the protocol."""

    layer: Layer
    name: str
    output_shape: list[int] = field(default_factory=list, compare=False)  # as `init` says

    @property
    def random(self):
        return self.layer.random

    @property
    def running(self):
        return self.layer.running

    @property
    def integer_input(self):
        return self.layer.integer_input

    @property
    def batch_first(self):
        return self.layer.batch_first

    def init(self, rng, input_shape):
        params, shape, statistics = base.init(self.layer, rng, input_shape)
        self.output_shape[:] = shape
        return (params, shape, statistics) if self.running else (params, shape)

    def forward(self, params, x, **extra):
        result = self.layer.forward(params, x, **extra)
        n = 2 + self.running
        if not (isinstance(result, tuple) and len(result) == n and callable(result[1])):
            form = "y, backward, statistics" if self.running else "y, backward"
            raise TypeError(f"{self.name}: forward must return {form}. Received: {_form(result)}")
        y, layer_backward, *statistics = result
        if isinstance(y, tuple):
            return result  # of several outputs, which go into no Model
        expected = (*y.shape[: y.ndim - len(self.output_shape)], *self.output_shape) if hasattr(y, "shape") else ()
        if tuple(getattr(y, "shape", ())) != expected or x.shape[0] not in expected[:2]:
            raise ValueError(
                f"{self.name}: init says outputs of shape {tuple(self.output_shape)}, and forward must return one for each "
                f"sample of x, which has shape {tuple(x.shape)}. Received: {_form(y)}"
            )

        def backward(dy, need_dx=True):
            result = layer_backward(dy, need_dx)
            if not (isinstance(result, tuple) and len(result) == 2):
                raise TypeError(f"{self.name}: backward must return dx, grads. Received: {_form(result)}")
            dx, grads = result
            if need_dx and tuple(getattr(dx, "shape", ())) != tuple(x.shape):
                raise ValueError(f"{self.name}: dx must have the shape of x, {tuple(x.shape)}. Received: {_form(dx)}")
            self._compare(params, grads)
            return dx, grads

        return y, backward, *statistics

    def _compare(self, params, grads):
        wanted, got = ({name: tuple(leaf.shape) for name, leaf in named_leaves(tree)} for tree in (params, grads))
        if wanted.keys() != got.keys():
            raise ValueError(
                f"{self.name}: grads must be the tree of the parameters, {list(wanted) or 'empty'}. Received: {list(got)}"
            )
        for name, shape in wanted.items():
            if got[name] != shape:
                raise ValueError(
                    f"{self.name}: the gradient of {name!r} must have the parameter's shape {shape}. Received: {got[name]}"
                )


def _form(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}: {', '.join(type(part).__name__ for part in value)}"
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__}" + ("" if shape is None else f" of shape {tuple(shape)}")
