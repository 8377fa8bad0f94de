"""Layers that change the shape or the scale of their input and learn nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

from xpnet.backend import namespace
from xpnet.checks import is_integer, require, set_numbers
from xpnet.layers.base import Layer


@dataclass(frozen=True)
class Identity(Layer):
    """y = x,   dx = dy"""

    def forward(self, params, x):
        return x, lambda dy, need_dx=True: (dy, {})


@dataclass(frozen=True)
class Rescaling(Layer):
    """y = scale · x + offset,   dx = scale · dy

    With ``Rescaling(1 / 255)`` as the first layer, a network accepts images as bytes, which stay bytes on the device.

    Parameters
    ----------
    scale : float
        The factor.
    offset : float, default 0.0
        The summand.

    Raises
    ------
    ValueError
        A setting is not a finite number.
    """

    scale: float
    offset: float = 0.0

    def __post_init__(self):
        set_numbers(self, "(-inf, inf)", "scale", "offset")

    def forward(self, params, x):
        y = x * self.scale
        if self.offset:
            y += self.offset
        return y, lambda dy, need_dx=True: (dy * self.scale, {})


@dataclass(frozen=True)
class Reshape(Layer):
    """y = x with each sample in a new shape,   dx = dy in the shape of x

    x: (batch, ...), y: (batch, *target_shape).

    Parameters
    ----------
    target_shape : tuple of int
        The shape of one sample. One entry may be -1; it is computed from the others.

    Raises
    ------
    ValueError
        The shape is invalid, or a sample has a different number of elements.
    """

    needs_leading_batch = True

    target_shape: tuple[int, ...]

    def __post_init__(self):
        shape = tuple(self.target_shape) if isinstance(self.target_shape, (tuple, list)) else (self.target_shape,)
        sizes = all(is_integer(n) and (n >= 1 or n == -1) for n in shape) and shape.count(-1) <= 1
        rule = "target_shape must be a tuple of positive sizes, one of which may be -1"
        require(sizes, rule, f"target_shape={self.target_shape!r}")
        object.__setattr__(self, "target_shape", shape)

    def output_shape(self, input_shape):
        shape, count = self._fitted(input_shape), math.prod(input_shape)
        if math.prod(shape) != count:
            raise ValueError(
                f"target_shape={self.target_shape} must have as many elements as a sample. Received: samples of shape "
                f"{input_shape} with {count} elements"
            )
        return shape

    def _fitted(self, input_shape):
        known = math.prod(n for n in self.target_shape if n != -1)
        return tuple(math.prod(input_shape) // known if n == -1 else n for n in self.target_shape)

    def forward(self, params, x):
        return _reshape(x, self._fitted(x.shape[1:]))


@dataclass(frozen=True)
class Flatten(Layer):
    """y = x with each sample as one row,   dx = dy in the shape of x

    x: (batch, ...), y: (batch, the number of elements of a sample).
    """

    needs_leading_batch = True

    def output_shape(self, input_shape):
        return (math.prod(input_shape),)

    def forward(self, params, x):
        return _reshape(x, (math.prod(x.shape[1:]),))


def _reshape(x, sample_shape):
    reshape = namespace(x).reshape
    return reshape(x, (x.shape[0], *sample_shape)), lambda dy, need_dx=True: (reshape(dy, x.shape), {})


@dataclass(frozen=True)
class ChannelsLast(Layer):
    """y[n, …, c] = x[n, c, …],   dx[n, c, …] = dy[n, …, c]

    Use it as the first layer if images have shape (batch, channels, height, width), because all layers expect
    (batch, height, width, channels).
    """

    def output_shape(self, input_shape):
        return (*input_shape[1:], input_shape[0])

    def forward(self, params, x):
        moveaxis = namespace(x).moveaxis
        return moveaxis(x, 1, -1), lambda dy, need_dx=True: (moveaxis(dy, -1, 1), {})


@dataclass(frozen=True)
class Permute(Layer):
    """y = x with the axes of each sample in another order,   dx = dy with the axes in the order of x

    Axis i of a sample of y is axis ``dims[i - 1]`` of x. Axes are counted from 1, as in Keras, because axis 0 is the batch.

    Parameters
    ----------
    dims : tuple of int
        The new order, such as (2, 1), which exchanges the two axes of each sample.

    Raises
    ------
    ValueError
        `dims` is not a permutation of 1, …, n, or a sample does not have n axes.
    """

    needs_leading_batch = True

    dims: tuple[int, ...]

    def __post_init__(self):
        dims = tuple(self.dims) if isinstance(self.dims, (tuple, list)) else (self.dims,)
        rule = "dims must be a permutation of 1, ..., n for samples with n axes"
        require(all(map(is_integer, dims)) and sorted(dims) == [*range(1, len(dims) + 1)], rule, f"dims={self.dims!r}")
        object.__setattr__(self, "dims", tuple(map(int, dims)))

    def output_shape(self, input_shape):
        if len(input_shape) != len(self.dims):
            raise ValueError(
                f"{self} needs samples with {len(self.dims)} axes. Received: samples of shape {input_shape}"
            )
        return tuple(input_shape[i - 1] for i in self.dims)

    def forward(self, params, x):
        permute = namespace(x).permute_dims
        back = [self.dims.index(i) + 1 for i in range(1, x.ndim)]
        return permute(x, (0, *self.dims)), lambda dy, need_dx=True: (permute(dy, (0, *back)), {})
