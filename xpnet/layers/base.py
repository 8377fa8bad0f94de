"""The layer protocol: a layer is a frozen set of settings whose forward pass returns its own backward pass.

A layer that holds layers is a `Container`. `walk` visits all of them, and everything that looks into a network goes by it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np

from xpnet.tree import Array, Tree, from_leaves, join, leaves, named_leaves

Shape = tuple[int, ...]  # of one sample: the batch axis is left out


class Backward(Protocol):
    """The second value of `forward`: from the gradient of the loss by `y`, those by `x` and by the parameters."""

    def __call__(self, dy: Array, need_dx: bool = True) -> tuple[Array | None, Tree]: ...


class Layer:
    """A function of parameters and input that knows its derivative.

    Subclasses are frozen dataclasses of settings. A layer holds no arrays: parameters come in as a tree, gradients go
    out as the same tree. So it is thread-safe, it can be traced by a compiler, and one layer may appear in many
    networks.

    Some layers need more, and say so in a class attribute:

    - ``needs_key = True`` (dropout): `forward` takes a keyword `key`, see `xpnet.random`;
    - ``has_statistics = True`` (batch normalization): `init` returns its running statistics as a third value, `forward` and
      the call take them as a keyword `statistics`, and `forward` returns the new ones as a third value;
    - ``integer_input = True`` (embedding): x is integers, `check_input` looks at their values, `backward` gives None for dx;
    - ``needs_leading_batch = True`` (reshaping): the batch must be the first axis, so no axis of parameter sets can come
      before it.
    """

    needs_key: ClassVar[bool] = False
    has_statistics: ClassVar[bool] = False
    integer_input: ClassVar[bool] = False
    needs_leading_batch: ClassVar[bool] = False
    has_frozen: ClassVar[bool] = False  # are there parameters that do not train?

    def init(self, rng: np.random.Generator, input_shape: Shape) -> tuple[Tree, Shape] | tuple[Tree, Shape, Tree]:
        """Draw initial parameters.

        Parameters
        ----------
        rng : numpy.random.Generator
        input_shape : tuple of int
            Of one sample.

        Returns
        -------
        params : tree of host arrays
        output_shape : tuple of int
            Of one sample.
        """
        known = type(self).output_shape is not Layer.output_shape
        return {}, self.output_shape(input_shape) if known else input_shape

    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape of one sample's output; ValueError where the layer cannot take such samples.

        A layer that overrides `init` alone is asked by drawing its parameters. Override this too where they are many.
        """
        return self.init(np.random.default_rng(0), input_shape)[1]

    def forward(self, params: Tree, x: Array, **extra: Any) -> tuple[Array, Backward] | tuple[Array, Backward, Tree]:
        """The training pass.

        Writes into neither `params` nor `x`.

        Returns
        -------
        y : array
        backward : callable
            ``backward(dy, need_dx=True) -> dx, grads``: from the gradient of the loss by `y`, the gradients by `x`
            (None if not needed) and by the parameters, each a new array, for the optimizer overwrites them. Writes not
            into `dy`.
        """
        raise NotImplementedError

    def check_input(self, x: Array) -> None:
        """Raise ValueError unless the layer takes these values; called once for a data set, when the layer comes first."""

    def frozen(self) -> Layer:
        """The layer that computes in this one's place where its parameters do not train, see `xpnet.layers.Frozen`."""
        return self

    def __call__(self, params: Tree, x: Array) -> Array:
        """Inference: the output alone, no activation kept."""
        return self.forward(params, x)[0]


class Container(Layer):
    """A layer that holds layers.

    Parameters, statistics and gradients are trees of the form of `children`, with each child's tree in its place: a tuple for a
    tuple of layers, a dict for a dict of layers, the child's own tree for a single layer. So `children` also names the layers:
    the path of a layer, such as ``"2.0"``, is where its parameters stand.

    A container of one's own is a frozen dataclass with layers among its fields; it defines `output_shape` and `forward`, which
    calls each child by `xpnet.layers.base.forward`. Override `input_shapes` where not every child takes the container's input.
    """

    @property
    def children(self) -> Tree:
        """The layers inside, a tree. By default a dict of the fields that are layers."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in values.items() if isinstance(value, Layer)}

    def with_children(self, children: Tree) -> Container:
        """The same container of other layers, a tree of the same form."""
        return replace(self, **children)  # type: ignore[type-var]

    @property
    def entrances(self) -> list[Layer]:
        """The children that take the container's own input."""
        return leaves(self.children)

    @property
    def exits(self) -> list[Layer]:
        """The children whose outputs are the container's output, perhaps joined; empty if it is computed from them."""
        return []

    # What a container needs is what its layers need; said once, for the training step asks often

    @cached_property
    def needs_key(self) -> bool:
        return any(child.needs_key for child in leaves(self.children))

    @cached_property
    def has_statistics(self) -> bool:
        return any(child.has_statistics for child in leaves(self.children))

    @cached_property
    def integer_input(self) -> bool:
        return any(child.integer_input for child in self.entrances)

    @cached_property
    def needs_leading_batch(self) -> bool:
        return any(child.needs_leading_batch for child in leaves(self.children))

    @cached_property
    def has_frozen(self) -> bool:
        return any(child.has_frozen for child in leaves(self.children))

    def check_input(self, x: Array) -> None:
        for child in self.entrances:
            child.check_input(x)

    @abstractmethod
    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape of one sample's output; ValueError where a child cannot take such samples, with the child's place."""
        raise NotImplementedError

    def input_shapes(self, input_shape: Shape) -> list[Shape]:
        """What each child takes, in the order of ``leaves(children)``; by default the container's own input."""
        return [input_shape] * len(leaves(self.children))

    def init(self, rng: np.random.Generator, input_shape: Shape) -> tuple[Tree, Shape, Tree]:
        """Parameters, output shape and statistics; each child draws from a generator of its own."""
        output_shape, named = self.output_shape(input_shape), list(named_leaves(self.children))
        params, statistics = [], []
        for (name, child), child_rng, shape in zip(
            named, rng.spawn(len(named)), self.input_shapes(input_shape), strict=True
        ):
            with self.place_of(name, child):
                child_params, _, child_statistics = init(child, child_rng, shape)
            params.append(child_params)
            statistics.append(child_statistics)
        return from_leaves(self.children, params), output_shape, from_leaves(self.children, statistics)

    @contextmanager
    def place_of(self, name: Any, child: Layer) -> Iterator[None]:
        """Errors inside begin with the child's place."""
        try:
            yield
        except ValueError as error:
            raise ValueError(f"{self.child_kind} {name}, {type(child).__name__}: {error}") from error

    child_kind: ClassVar[str] = "Layer"
    freezes: ClassVar[bool] = False  # does what is inside keep its parameters?


@dataclass(frozen=True)
class Wrapper(Container):
    """A container of one layer, which stands at the container's own place: its parameters and statistics are the layer's."""

    layer: Layer

    @property
    def children(self) -> Layer:
        return self.layer

    def with_children(self, children: Tree) -> Container:
        return replace(self, layer=children)

    @property
    def exits(self) -> list[Layer]:
        return [self.layer]

    def init(self, rng: np.random.Generator, input_shape: Shape) -> tuple[Tree, Shape, Tree]:
        output_shape, (shape,) = self.output_shape(input_shape), self.input_shapes(input_shape)
        params, _, statistics = init(self.layer, rng, shape)
        return params, output_shape, statistics

    def output_shape(self, input_shape: Shape) -> Shape:
        return output_shape(self.layer, input_shape)

    def __call__(self, params: Tree, x: Array, *, statistics: Tree = None) -> Array:
        return infer(self.layer, params, x, statistics)


def walk(layer: Layer, path: str = "") -> Iterator[tuple[str, Layer]]:
    """(path, layer) of a layer and of all that it holds, outer before inner."""
    yield path, layer
    if isinstance(layer, Container):
        for name, child in named_leaves(layer.children):
            yield from walk(child, join(path, name))


def forward(layer: Layer, params: Tree, x: Array, key: Array | None, statistics: Tree) -> tuple[Array, Backward, Tree]:
    """`layer.forward` with just what the layer declares -> output, backward, new statistics."""
    if layer.has_statistics:
        _require_statistics(layer, statistics)
        extra: dict[str, Any] = {"key": key} if layer.needs_key else {}
        return layer.forward(params, x, statistics=statistics, **extra)  # type: ignore[return-value]
    result = layer.forward(params, x, key=key) if layer.needs_key else layer.forward(params, x)
    return result[0], result[1], statistics


def infer(layer: Layer, params: Tree, x: Array, statistics: Tree) -> Array:
    """``layer(params, x)``, with the running statistics if the layer has any."""
    if layer.has_statistics:
        _require_statistics(layer, statistics)
        return layer(params, x, statistics=statistics)  # type: ignore[call-arg]
    return layer(params, x)


def _require_statistics(layer: Layer, statistics: Tree) -> None:
    if statistics is None:
        raise TypeError(
            f"{type(layer).__name__} keeps running statistics. Pass statistics=..., the third value of init or of the last "
            "forward."
        )


def init(layer: Layer, rng: np.random.Generator, input_shape: Shape) -> tuple[Tree, Shape, Tree]:
    """`layer.init` -> parameters, output shape, statistics (an empty tree if the layer has none)."""
    require_one_layer(layer)
    require_one_output(input_shape)
    result = layer.init(rng, input_shape)
    if not (isinstance(result, tuple) and len(result) in (2, 3) and isinstance(result[1], (tuple, list))):
        raise TypeError(
            f"{type(layer).__name__}: init must return parameters, output_shape and, with has_statistics = True, statistics; "
            f"output_shape is a tuple, without the batch. Received: {result!r:.200}"
        )
    return (*result, {}) if len(result) == 2 else result


def output_shape(layer: Layer, input_shape: Shape) -> Shape:
    """`layer.output_shape`, of a layer that can stand in a network."""
    require_one_layer(layer)
    require_one_output(input_shape)
    if type(layer).output_shape is Layer.output_shape:  # which asks `init`
        return tuple(init(layer, np.random.default_rng(0), input_shape)[1])
    return layer.output_shape(input_shape)


def require_one_layer(layer: Layer) -> None:
    """Raise if the layer has an activation, which is a layer of its own."""
    if getattr(layer, "activation", None) is not None:
        _refuse()


def compute_in_container(layer: Layer) -> None:
    """Let a layer that has an activation refuse to compute by itself, for that would be without the activation."""
    if layer.activation is not None:  # type: ignore[attr-defined]
        vars(layer)["forward"] = _refuse  # found before the method of the class; a step pays nothing for it


def _refuse(*arguments: Any, **extra: Any) -> None:
    raise ValueError(
        "A layer with activation=... stands for two layers, and computes inside a container: put it into a Sequential([...])."
    )


def require_one_output(*shapes: Shape) -> None:
    """Raise if one of them is the shape of several outputs, as `Parallel` has them."""
    if any(isinstance(n, tuple) for shape in shapes for n in shape):
        raise ValueError(
            "Parallel's outputs go into no layer, loss or prediction: join them by Add or Concatenate, or use the network's "
            f"own forward. Received: outputs of shapes {shapes}"
        )
