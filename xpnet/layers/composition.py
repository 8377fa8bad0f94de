"""Layers beside one another, and one layer at many positions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import reduce
from itertools import accumulate, pairwise
from operator import add

from xpnet.backend import namespace
from xpnet.checks import is_integer, require
from xpnet.layers import base
from xpnet.layers.base import Container, Layer, Wrapper
from xpnet.layers.reshaping import Identity
from xpnet.layers.sequential import Sequential
from xpnet.random import fold_in


@dataclass(frozen=True)
class _Branches(Container):
    """Applies every branch to the same input and joins their outputs."""

    branches: tuple[Layer, ...]

    def __post_init__(self):
        if isinstance(self.branches, (Layer, str)) or not isinstance(self.branches, Iterable):
            raise TypeError(f"{type(self).__name__} takes a list of branches. Received: {self.branches!r}")
        object.__setattr__(self, "branches", tuple(one_layer(branch) for branch in self.branches))
        if not self.branches:
            raise ValueError(f"{type(self).__name__} takes at least one branch. Received: branches=()")

    def _join_shapes(self, shapes: list) -> tuple:
        """The shape of the joined output, of one sample."""
        raise NotImplementedError

    def _join(self, ys: list) -> tuple[object, Callable]:
        """The joined output, and the function from its gradient dy to the branches' gradients."""
        raise NotImplementedError

    child_kind = "Branch"

    @property
    def children(self):
        return self.branches

    def with_children(self, children):
        return replace(self, branches=children)

    @property
    def exits(self):
        return list(self.branches)

    def output_shape(self, input_shape):
        if self.integer_input and not all(branch.integer_input for branch in self.branches):
            raise ValueError(
                "Either all branches take integers or none. Put Embedding before the branches. "
                f"Received: {', '.join(type(branch).__name__ for branch in self.branches)}"
            )
        shapes = []
        for i, branch in enumerate(self.branches):
            with self.place_of(i, branch):
                shapes.append(base.output_shape(branch, input_shape))
        return self._join_shapes(shapes)

    def forward(self, params, x, *, key=None, statistics=None):
        ys, backwards, new_statistics = [], [], []
        for i, branch in enumerate(self.branches):
            branch_key = fold_in(key, i) if branch.needs_key else None
            y, branch_backward, new = base.forward(branch, params[i], x, branch_key, statistics and statistics[i])
            ys.append(y)
            backwards.append(branch_backward)
            new_statistics.append(new)
        y, split = self._join(ys)

        def backward(dy, need_dx=True):
            pairs = [f(dy_i, need_dx) for f, dy_i in zip(backwards, split(dy), strict=True)]
            dxs, grads = zip(*pairs, strict=True)
            return (reduce(add, dxs) if need_dx and not self.integer_input else None), grads

        return y, backward, tuple(new_statistics)

    def __call__(self, params, x, *, statistics=None):
        ys = [base.infer(f, params[i], x, statistics and statistics[i]) for i, f in enumerate(self.branches)]
        return self._join(ys)[0]


@dataclass(frozen=True)
class Parallel(_Branches):
    """y = (f₁(x), …, fₙ(x)), a tuple,   dx = Σᵢ fᵢ'ᵀ dyᵢ:   x reaches the loss through every branch

    For networks with several outputs, trained by a loop of your own: `Model` has one output and one loss. Parameters are
    the tuple of the branches' parameters.

    Parameters
    ----------
    branches : iterable of Layer

    Raises
    ------
    ValueError
        There is no branch; a branch does not take the input.
    """

    def _join_shapes(self, shapes):
        return tuple(shapes)

    def _join(self, ys):
        return tuple(ys), lambda dy: dy


@dataclass(frozen=True)
class Add(_Branches):
    """y = Σᵢ fᵢ(x),   dx = Σᵢ fᵢ'ᵀ dy

    Parameters are the tuple of the branches' parameters.

    Parameters
    ----------
    branches : iterable of Layer

    Raises
    ------
    ValueError
        The branches' outputs differ in shape.
    """

    def _join_shapes(self, shapes):
        base.require_one_output(*shapes)
        if len(set(shapes)) > 1:
            raise ValueError(f"Branches that are added must give outputs of one shape. Received: shapes {shapes}")
        return shapes[0]

    def _join(self, ys):
        return reduce(add, ys), lambda dy: [dy] * len(self.branches)  # of ys nothing is kept alive


def Residual(branch: Layer, shortcut: Layer | None = None) -> Add:
    """y = f(x) + x,   dx = f'ᵀ dy + dy:   the layer `Add` of a branch and the identity

    The gradient reaches x undiminished, however deep the network. K. He et al., "Deep residual learning for image
    recognition", CVPR 2016.

    Parameters
    ----------
    branch : Layer
        f; use a `Sequential` for several layers.
    shortcut : Layer, default Identity()
        Stands in place of the identity where f changes the shape.

    Raises
    ------
    ValueError
        f or the shortcut does not take the input, or their outputs differ in shape.
    """
    return Add((branch, shortcut or Identity()))


@dataclass(frozen=True)
class Concatenate(_Branches):
    """y = [f₁(x), …, fₙ(x)] along an axis,   dx = Σᵢ fᵢ'ᵀ dyᵢ,   dyᵢ the part of dy that came from fᵢ

    Parameters are the tuple of the branches' parameters.

    Parameters
    ----------
    branches : iterable of Layer
    axis : int, default -1
        Axis 0 is the batch, along which nothing can be concatenated.

    Raises
    ------
    ValueError
        `axis` is the batch; the branches' outputs differ in another axis, or lack this one.
    """

    needs_leading_batch = True  # type: ignore[assignment]

    axis: int = -1

    def __post_init__(self):
        super().__post_init__()
        rule = "axis must be an integer, and not 0, which is the batch: -1 are the channels"
        require(is_integer(self.axis) and self.axis != 0, rule, f"axis={self.axis!r}")

    def _join_shapes(self, shapes):
        base.require_one_output(*shapes)
        rank = len(shapes[0])
        axis = self.axis - (self.axis > 0)  # of one sample: without the batch
        if not -rank <= axis < rank:
            raise ValueError(f"Branches' outputs of shapes {shapes} have no axis {self.axis}, the batch being axis 0.")
        before, after = slice(axis % rank), slice(axis % rank + 1, None)
        if len({(len(shape), shape[before], shape[after]) for shape in shapes}) > 1:
            raise ValueError(
                f"Branches concatenated along axis {self.axis} must give outputs that differ in no other axis. "
                f"Received: shapes {shapes}"
            )
        return (*shapes[0][before], sum(shape[axis] for shape in shapes), *shapes[0][after])

    def _join(self, ys):
        axis = self.axis % ys[0].ndim
        edges = (0, *accumulate(y.shape[axis] for y in ys))

        def split(dy):
            return [dy[(slice(None),) * axis + (slice(*pair), ...)] for pair in pairwise(edges)]

        return namespace(ys[0]).concat(ys, axis=axis), split


@dataclass(frozen=True)
class TimeDistributed(Wrapper):
    """yₜ = f(xₜ) at every position t, with the same parameters,   dxₜ = f'ᵀ dyₜ,   gradients summed over t

    x: (batch, time, …), y: (batch, time, …): the batch and time axes are merged, the layer sees (batch · time, …). The
    parameters are the layer's own.

    Parameters
    ----------
    layer : Layer

    Raises
    ------
    ValueError
        A sample has no time axis, or nothing behind it.
    """

    needs_leading_batch = True  # type: ignore[assignment]

    def __post_init__(self):
        object.__setattr__(self, "layer", one_layer(self.layer))

    def output_shape(self, input_shape):
        if len(input_shape) < 2:
            raise ValueError(
                "TimeDistributed takes samples of shape (time, …), at least two axes. "
                f"Received: samples of shape {input_shape}"
            )
        shape = base.output_shape(self.layer, input_shape[1:])
        base.require_one_output(shape)
        return input_shape[0], *shape

    def input_shapes(self, input_shape):
        return [input_shape[1:]]

    def forward(self, params, x, *, key=None, statistics=None):
        y, layer_backward, new_statistics = base.forward(self.layer, params, _merge(x), key, statistics)
        y = _split(y, x)

        def backward(dy, need_dx=True):
            dx, grads = layer_backward(_merge(dy), need_dx)
            return (None if dx is None else _split(dx, x)), grads

        return y, backward, new_statistics

    def __call__(self, params, x, *, statistics=None):
        return _split(base.infer(self.layer, params, _merge(x), statistics), x)


def _merge(x):
    return namespace(x).reshape(x, (-1, *x.shape[2:]))


def _split(y, x):
    return namespace(y).reshape(y, (*x.shape[:2], *y.shape[1:]))


def one_layer(layer: Layer) -> Layer:
    """`layer`, or the `Sequential` it stands for if it has an ``activation=``."""
    if not isinstance(layer, Layer):
        raise TypeError(f"A branch is one layer; put several into Sequential([...]). Received: {layer!r}")
    sequential = Sequential([layer])
    return layer if len(sequential.layers) == 1 else sequential
