"""The layer protocol: a layer is a frozen set of settings whose forward pass returns its own backward pass.

A layer that holds layers is a `Container`. `walk` visits all layers of a network, and everything that inspects networks uses it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol

from xpnet.keywords import Settings
from xpnet.random import Generator, ShapesOnly
from xpnet.tree import Array, Tree, from_leaves, join, leaves, map_leaves, named_leaves

Shape = tuple[int, ...]  # the shape of one sample, without the batch axis


class Backward(Protocol):
    """The second value of `forward`: given dL/dy, it returns dL/dx and the gradients of the parameters."""

    def __call__(self, dy: Array, need_dx: bool = True) -> tuple[Array | None, Tree]: ...


class Layer(metaclass=Settings):
    """A function of parameters and input that knows its derivative.

    Subclasses are frozen dataclasses of settings. A layer holds no arrays. It receives its parameters as a tree and returns
    their gradients as the same tree. A layer is therefore thread-safe, and many networks can share it.

    Some layers need more, and declare it in a class attribute:

    - ``needs_key = True`` (dropout): `forward` accepts a keyword `key`, see `xpnet.random`. `__call__` draws nothing.
    - ``has_statistics = True`` (batch normalization): `init` returns the running statistics as a third value. `forward` and
      `__call__` accept them as a keyword `statistics`, and `forward` returns the new ones as a third value.
    - ``integer_input = True`` (embedding): x contains integers, `check_input` checks their values, and `backward` returns
      None for dx.
    - ``needs_leading_batch = True`` (reshaping): the batch must be the first axis, so an axis of parameter sets cannot come
      before it.
    """

    needs_key: ClassVar[bool] = False
    has_statistics: ClassVar[bool] = False
    integer_input: ClassVar[bool] = False
    needs_leading_batch: ClassVar[bool] = False
    has_frozen: ClassVar[bool] = False  # whether some parameters do not train

    def init(self, rng: Generator, input_shape: Shape) -> tuple[Tree, Shape] | tuple[Tree, Shape, Tree]:
        """Draw initial parameters.

        Parameters
        ----------
        rng : numpy.random.Generator
        input_shape : tuple of int
            The shape of one input sample.

        Returns
        -------
        params : tree of host arrays
        output_shape : tuple of int
            The shape of one output sample.
        """
        known = type(self).output_shape is not Layer.output_shape
        return {}, self.output_shape(input_shape) if known else input_shape

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of one sample's output; raise ValueError if the layer cannot accept such samples.

        By default this calls `init` with a generator for which `draw` draws nothing. Override it if `init` does not use `draw`.
        """
        return tuple(init(self, ShapesOnly(), input_shape)[1])

    def forward(self, params: Tree, x: Array, **extra: Any) -> tuple[Array, Backward] | tuple[Array, Backward, Tree]:
        """The training pass. It must not write to `params` or `x`.

        Returns
        -------
        y : array
        backward : callable
            ``backward(dy, need_dx=True) -> dx, grads``. Given the gradient of the loss with respect to `y`, it returns the
            gradients with respect to `x` (None if ``need_dx=False``) and to the parameters. Each gradient of a parameter
            must be a new array, because the optimizer overwrites it. `backward` must not write to `dy`.
        """
        raise NotImplementedError

    def check_input(self, x: Array) -> None:
        """Raise ValueError unless the layer accepts these values. Called once for a data set if the layer comes first."""

    def frozen(self) -> Layer:
        """Return the layer that replaces this one while its parameters do not train; see `xpnet.layers.Frozen`."""
        return self

    def at_inference(self) -> Layer:
        """Return the layer whose `forward` computes this layer's inference, for gradients in inference mode."""
        return self.frozen()

    def __call__(self, params: Tree, x: Array) -> Array:
        """Inference: return only the output, and keep no activations."""
        return self.forward(params, x)[0]


def _of_children(flag: str) -> Any:
    """A cached property: whether a child of the container has this flag. Every training step reads it."""
    return cached_property(lambda self: any(getattr(child, flag) for child in leaves(self.children)))


class Container(Layer):
    """A layer that holds layers.

    Parameters, statistics and gradients are trees with the structure of `children`: a tuple for a tuple of layers, a dict for
    a dict of layers, and the child's own tree for a single layer. The path of a layer, such as ``"2.0"``, is therefore also
    the path of its parameters.

    A custom container is a frozen dataclass with layers among its fields. It defines `output_shape`, and `forward`, which calls
    each child through `xpnet.layers.base.forward`. Override `input_shapes` unless every child receives the container's input.
    At inference, the container runs `forward` with its children in inference mode.
    """

    @property
    def children(self) -> Tree:
        """The tree of the layers inside. By default, a dict of the fields that are layers or tuples of layers."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return {name: tree for name, tree in values.items() if all(isinstance(leaf, Layer) for leaf in leaves(tree))}

    def with_children(self, children: Tree) -> Container:
        """Return the same container with other layers, given as a tree with the same structure."""
        return replace(self, **children)  # type: ignore[type-var]

    @property
    def entrances(self) -> list[Layer]:
        """The children that receive the container's own input."""
        return leaves(self.children)

    @property
    def exits(self) -> list[Layer]:
        """The children whose outputs, perhaps joined, are the container's output; empty if `forward` changes them."""
        return []

    needs_key, has_statistics = _of_children("needs_key"), _of_children("has_statistics")
    needs_leading_batch, has_frozen = _of_children("needs_leading_batch"), _of_children("has_frozen")

    @cached_property
    def integer_input(self) -> bool:
        return any(child.integer_input for child in self.entrances)

    def check_input(self, x: Array) -> None:
        for child in self.entrances:
            child.check_input(x)

    @abstractmethod
    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of one sample's output. If a child cannot accept its input, the ValueError names it."""

    def input_shapes(self, input_shape: Shape) -> list[Shape]:
        """Return each child's input shape, in the order of ``leaves(children)``; by default, the container's own."""
        return [input_shape] * len(leaves(self.children))

    def init(self, rng: Generator, input_shape: Shape) -> tuple[Tree, Shape, Tree]:
        """Return parameters, output shape and statistics. Each child draws from a separate generator."""
        output_shape, named = self.output_shape(input_shape), list(named_leaves(self.children))
        rngs, shapes, params, statistics = rng.spawn(len(named)), self.input_shapes(input_shape), [], []
        for (name, child), child_rng, shape in zip(named, rngs, shapes, strict=True):
            with self.place_of(name, child):
                child_params, _, child_statistics = init(child, child_rng, shape)
            params.append(child_params)
            statistics.append(child_statistics)
        return from_leaves(self.children, params), output_shape, from_leaves(self.children, statistics)

    def __call__(self, params: Tree, x: Array, *, statistics: Tree = None) -> Array:
        return forward(self._inferring, params, x, None, statistics)[0]

    @cached_property
    def _inferring(self) -> Container:
        return self.with_children(map_leaves(_Inferring, self.children))

    @contextmanager
    def place_of(self, name: Any, child: Layer) -> Iterator[None]:
        """A ``with`` block that puts the child's name in front of errors."""
        try:
            yield
        except ValueError as error:
            raise ValueError(f"{self.child_kind} {name}, {type(child).__name__}: {error}") from error

    child_kind: ClassVar[str] = "Layer"
    freezes: ClassVar[bool] = False  # whether the layers inside do not train


@dataclass(frozen=True)
class Wrapper(Container):
    """A container of one layer. Its path, parameters and statistics are those of the layer."""

    layer: Layer

    @property
    def children(self) -> Layer:
        return self.layer

    def with_children(self, children: Tree) -> Container:
        return replace(self, layer=children)

    @property
    def exits(self) -> list[Layer]:
        return [self.layer]

    def init(self, rng: Generator, input_shape: Shape) -> tuple[Tree, Shape, Tree]:
        output_shape, (shape,) = self.output_shape(input_shape), self.input_shapes(input_shape)
        params, _, statistics = init(self.layer, rng, shape)
        return params, output_shape, statistics

    def output_shape(self, input_shape: Shape) -> Shape:
        return output_shape(self.layer, input_shape)

    def __call__(self, params: Tree, x: Array, *, statistics: Tree = None) -> Array:
        return infer(self.layer, params, x, statistics)


@dataclass(frozen=True)
class _Inferring(Wrapper):
    """A layer whose `forward` computes only inference, without random numbers or a backward pass."""

    needs_key = False

    def forward(self, params: Tree, x: Array, *, statistics: Tree = None) -> Any:
        return infer(self.layer, params, x, statistics), None, statistics


def walk(layer: Layer, path: str = "") -> Iterator[tuple[str, Layer]]:
    """Yield (path, layer) for a layer and all layers inside it, outer layers first."""
    yield path, layer
    if isinstance(layer, Container):
        for name, child in named_leaves(layer.children):
            yield from walk(child, join(path, name))


def forward(layer: Layer, params: Tree, x: Array, key: Array | None, statistics: Tree) -> tuple[Array, Backward, Tree]:
    """Call `layer.forward` with the arguments that the layer declares. Return output, backward and new statistics."""
    if layer.has_statistics:
        _require_statistics(layer, statistics)
        extra: dict[str, Any] = {"key": key} if layer.needs_key else {}
        return layer.forward(params, x, statistics=statistics, **extra)  # type: ignore[return-value]
    result = layer.forward(params, x, key=key) if layer.needs_key else layer.forward(params, x)
    return result[0], result[1], statistics


def infer(layer: Layer, params: Tree, x: Array, statistics: Tree) -> Array:
    """Return ``layer(params, x)``, passing the running statistics if the layer has any."""
    if layer.has_statistics:
        _require_statistics(layer, statistics)
        return layer(params, x, statistics=statistics)  # type: ignore[call-arg]
    return layer(params, x)


def _require_statistics(layer: Layer, statistics: Tree) -> None:
    if statistics is None:
        raise TypeError(
            f"{type(layer).__name__} needs its running statistics. Pass statistics=..., the third value that init or the last "
            "forward returned. Received: statistics=None"
        )


def init(layer: Layer, rng: Generator, input_shape: Shape) -> tuple[Tree, Shape, Tree]:
    """Call `layer.init`. Return parameters, output shape and statistics (an empty tree if the layer has none)."""
    require_one_layer(layer)
    require_one_output(input_shape)
    result = layer.init(rng, input_shape)
    formed = isinstance(result, tuple) and len(result) in (2, 3) and isinstance(result[1], (tuple, list))
    if not (formed and all(hasattr(leaf, "shape") for leaf in leaves(result[::2]))):
        raise TypeError(
            f"{type(layer).__name__}: init must return parameters (a tree of NumPy arrays), output_shape (a "
            f"tuple without the batch) and, with has_statistics = True, statistics (another tree). Received: {result!r:.200}"
        )
    return (*result, {}) if len(result) == 2 else result


def output_shape(layer: Layer, input_shape: Shape) -> Shape:
    """Return `layer.output_shape`, after checking that the layer can be part of a network."""
    require_one_layer(layer)
    require_one_output(input_shape)
    return layer.output_shape(input_shape)


def require_one_layer(layer: Layer) -> None:
    """Raise ValueError if the layer has an activation, which is a separate layer."""
    if getattr(layer, "activation", None) is not None:
        _refuse()


def compute_in_container(layer: Layer) -> None:
    """Make `forward` raise if the layer has an activation, because `forward` would ignore it."""
    if layer.activation is not None:  # type: ignore[attr-defined]
        vars(layer)["forward"] = _refuse  # shadows the method of the class, so a training step pays nothing for it


def _refuse(*arguments: Any, **extra: Any) -> None:
    raise ValueError(
        "A layer with activation=... means two layers, so it must be inside a container. Put it into a Sequential([...]). "
        "Received: a direct call"
    )


def require_one_output(*shapes: Shape) -> None:
    """Raise ValueError if one of the shapes describes several outputs, as the shapes of `Parallel` do."""
    if any(isinstance(n, tuple) for shape in shapes for n in shape):
        raise ValueError(
            "A layer, loss or prediction needs one output, but Parallel returns several. Join them with Add or Concatenate, "
            f"or call the network's own forward. Received: outputs of shapes {shapes}"
        )
