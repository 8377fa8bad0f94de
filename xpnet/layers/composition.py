"""Layers side by side, and one layer at many positions."""

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
            raise TypeError(f"{type(self).__name__} needs a list of branches. Received: {self.branches!r}")
        object.__setattr__(self, "branches", tuple(one_layer(branch) for branch in self.branches))
        if not self.branches:
            raise ValueError(f"{type(self).__name__} needs at least one branch. Received: branches=()")

    def _join_shapes(self, shapes: list) -> tuple:
        """Return the shape of one sample's joined output."""
        raise NotImplementedError

    def _join(self, ys: list) -> tuple[object, Callable]:
        """Return the joined output, and a function from its gradient dy to the branches' gradients."""
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
                "Either all branches or no branch must take integers. Put Embedding before the branches. "
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


@dataclass(frozen=True)
class Parallel(_Branches):
    """y = (f₁(x), …, fₙ(x)), a tuple,   dx = Σᵢ fᵢ'ᵀ dyᵢ

    For networks with several outputs. Write your own training loop for them, because a `Model` has one output and one loss.
    The parameters are the tuple of the branches' parameters.

    Parameters
    ----------
    branches : iterable of Layer
        f₁, …, fₙ; use a `Sequential` for a branch with several layers.

    Raises
    ------
    TypeError
        `branches` is not a list of layers.
    ValueError
        `branches` is empty, or a branch cannot accept the input.
    """

    def _join_shapes(self, shapes):
        return tuple(shapes)

    def _join(self, ys):
        return tuple(ys), lambda dy: dy


@dataclass(frozen=True)
class Add(_Branches):
    """y = Σᵢ fᵢ(x),   dx = Σᵢ fᵢ'ᵀ dy

    The parameters are the tuple of the branches' parameters.

    Parameters
    ----------
    branches : iterable of Layer
        f₁, …, fₙ; use a `Sequential` for a branch with several layers.

    Raises
    ------
    TypeError
        `branches` is not a list of layers.
    ValueError
        `branches` is empty, a branch cannot accept the input, or the branches' outputs differ in shape.
    """

    def _join_shapes(self, shapes):
        base.require_one_output(*shapes)
        if len(set(shapes)) > 1:
            raise ValueError(
                "Add needs branches whose outputs have the same shape. Change a branch, or the shortcut of Residual. "
                f"Received: shapes {shapes}"
            )
        return shapes[0]

    def _join(self, ys):
        return reduce(add, ys), lambda dy: [dy] * len(self.branches)  # does not keep ys alive


def Residual(branch: Layer, shortcut: Layer | None = None) -> Add:
    """y = f(x) + x,   dx = f'ᵀ dy + dy:   the layer ``Add([f, Identity()])``

    The gradient reaches x undiminished, even in a deep network. K. He et al., "Deep residual learning for image
    recognition", CVPR 2016.

    Parameters
    ----------
    branch : Layer
        f; use a `Sequential` for several layers.
    shortcut : Layer, default Identity()
        Replaces the identity if f changes the shape.

    Raises
    ------
    ValueError
        `branch` or `shortcut` cannot accept the input, or their outputs differ in shape.
    """
    return Add((branch, shortcut or Identity()))


@dataclass(frozen=True)
class Concatenate(_Branches):
    """y = [f₁(x), …, fₙ(x)] along an axis,   dx = Σᵢ fᵢ'ᵀ dyᵢ,   where dyᵢ is the part of dy that belongs to fᵢ

    The parameters are the tuple of the branches' parameters.

    Parameters
    ----------
    branches : iterable of Layer
        f₁, …, fₙ; use a `Sequential` for a branch with several layers.
    axis : int, default -1
        The axis of the batch's outputs to concatenate along. It must not be 0, the batch axis.

    Raises
    ------
    TypeError
        `branches` is not a list of layers.
    ValueError
        `branches` is empty, or a branch cannot accept the input. `axis` is the batch axis or does not exist, or the
        branches' outputs differ along another axis.
    """

    needs_leading_batch = True

    axis: int = -1

    def __post_init__(self):
        super().__post_init__()
        rule = "axis must be an integer other than 0, the batch axis. Use -1 for the channels"
        require(is_integer(self.axis) and self.axis != 0, rule, f"axis={self.axis!r}")

    def _join_shapes(self, shapes):
        base.require_one_output(*shapes)
        rank = len(shapes[0])
        axis = self.axis - (self.axis > 0)  # in the shape of one sample, without the batch axis
        if not -rank <= axis < rank:
            raise ValueError(
                f"axis must be an axis of the branches' outputs, and axis 0 is the batch. Received: axis={self.axis} for "
                f"samples of shapes {shapes}"
            )
        before, after = slice(axis % rank), slice(axis % rank + 1, None)
        if len({(len(shape), shape[before], shape[after]) for shape in shapes}) > 1:
            raise ValueError(
                f"Concatenate along axis {self.axis} needs branches whose outputs have the same size along all other axes. "
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

    x: (batch, time, …), y: (batch, time, …). The batch and time axes are merged, so `layer` sees (batch · time, …). The
    parameters are those of `layer`.

    Parameters
    ----------
    layer : Layer
        f; use a `Sequential` for several layers.

    Raises
    ------
    TypeError
        `layer` is not a layer.
    ValueError
        Samples have fewer than two axes, or `layer` cannot accept the input.
    """

    needs_leading_batch = True

    def __post_init__(self):
        object.__setattr__(self, "layer", one_layer(self.layer))

    def output_shape(self, input_shape):
        if len(input_shape) < 2:
            raise ValueError(
                "TimeDistributed needs samples of shape (time, …) with at least two axes. For others, use the layer by itself. "
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
    """Return `layer`, or the `Sequential` of its two layers if it has an ``activation=``."""
    if not isinstance(layer, Layer):
        raise TypeError(f"A branch must be a single layer. Put several into Sequential([...]). Received: {layer!r}")
    sequential = Sequential([layer])
    return layer if len(sequential.layers) == 1 else sequential
