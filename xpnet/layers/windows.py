"""Windows that slide over images, for convolution and pooling.

Taking windows out of an image and adding windows to an image are linear maps, and each is the adjoint of the other. If one is
applied to values, the other is applied to their gradients. Both proceed one axis at a time. Taking adds one axis to a view
for each axis of the image. If the library has such views, the data are copied only once. Adding needs k + k slices instead of
k · k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xpnet.backend import device, namespace
from xpnet.backend.fusion import fused
from xpnet.backend.indexing import slice_add
from xpnet.checks import count
from xpnet.layers.base import Layer, Shape
from xpnet.tree import Array

PerAxis = Any  # an int or a tuple with one int for each axis; the layer stores a tuple


@dataclass(frozen=True)
class Window:
    """A window of `kernel` taps, `dilation` apart, at every `stride`-th place along an axis that is padded at both ends.

    An `axis` is counted from the end: -1 is the last.
    """

    size: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0

    @classmethod
    def fit(cls, size: int, kernel: int, stride: int, dilation: int, padding: str | int) -> Window:
        """Return a window with Keras' padding: "same" gives ⌈size / stride⌉ places, with more zeros after the data."""
        reach = (kernel - 1) * dilation + 1
        before = after = 0 if isinstance(padding, str) else padding
        if padding == "same":
            both = max((math.ceil(size / stride) - 1) * stride + reach - size, 0)
            before, after = both // 2, both - both // 2
        if before + size + after < reach:
            raise ValueError(
                'The window must fit into the input. Make it smaller, or use padding="same". Received: a window over '
                f"{reach} places for an input of {size}, with padding={padding!r}"
            )
        return cls(size, kernel, stride, dilation, before, after)

    @property
    def padded(self) -> int:
        return self.before + self.size + self.after

    @property
    def count(self) -> int:
        """The number of places of the window."""
        return (self.padded - (self.kernel - 1) * self.dilation - 1) // self.stride + 1

    @property
    def taps(self) -> list[slice]:
        """The positions that each tap reads."""
        reach = (self.count - 1) * self.stride + 1
        return [slice(i, i + reach, self.stride) for i in range(0, self.kernel * self.dilation, self.dilation)]

    def pad(self, x: Array, axis: int, value: float = 0.0) -> Array:
        if self.padded == self.size:
            return x
        xp, (left, right) = namespace(x), (x.shape[:axis], x.shape[axis:][1:])
        ends = [xp.full((*left, n, *right), value, dtype=x.dtype, device=device(x)) for n in (self.before, self.after)]
        return xp.concat((ends[0], x, ends[1]), axis=axis)

    def crop(self, x: Array, axis: int) -> Array:
        """The adjoint of `pad`."""
        return x if self.padded == self.size else x[along(axis, slice(self.before, self.before + self.size))]

    def take(self, x: Array, axis: int) -> list[Array]:
        """Return what each tap reads from the padded `x`: `kernel` views, each of `count` places."""
        return [x[along(axis, tap)] for tap in self.taps]

    def slide(self, x: Array, axis: int) -> Array:
        """Like `take`, stacked on a new last axis: (…, padded, …) -> (…, count, …, kernel), a view if the library has one.

        Here `axis` is counted from the front, because each call adds an axis at the end.
        """
        xp = namespace(x)
        if hasattr(xp, "sliding_windows"):
            return xp.sliding_windows(x, axis, self.kernel, self.stride, self.dilation)
        return xp.stack(self.take(x, axis - x.ndim), axis=-1)

    def add(self, parts: Sequence[Array], axis: int) -> Array:
        """The adjoint of `take`: add each part to a zero array of `padded` positions, at the positions that its tap reads."""
        xp, shape = namespace(parts[0]), list(parts[0].shape)
        shape[axis] = self.padded
        if self.padded == self.count * len(parts) and self.stride == len(parts):  # the taps alternate without overlap
            return xp.reshape(xp.stack(parts, axis=axis), tuple(shape)) if len(parts) > 1 else parts[0]
        x = xp.zeros(tuple(shape), dtype=parts[0].dtype, device=device(parts[0]))
        for tap, part in zip(self.taps, parts, strict=True):
            x = slice_add(x, along(axis, tap), part)
        return x


def along(axis: int, part: slice) -> tuple:
    """Return the index of a slice along one axis."""
    return (..., part, *(slice(None),) * (-1 - axis))


def pad(x: Array, windows: Sequence[Window]) -> Array:
    """Put zeros around images (..., *sizes, channels)."""

    def padded(x):
        for axis, window in enumerate(windows, -1 - len(windows)):
            x = window.pad(x, axis)
        return x

    return x if all(window.padded == window.size for window in windows) else fused(padded, x)


def crop(x: Array, windows: Sequence[Window]) -> Array:
    """The adjoint of `pad`."""
    for axis, window in enumerate(windows, -1 - len(windows)):
        x = window.crop(x, axis)
    return x


def im2col(x: Array, windows: Sequence[Window]) -> Array:
    """Return windows as rows: padded images (..., batch, *sizes, c) -> (..., batch · places, taps · c).

    With one channel, the matrix is stored as its transpose. Copies therefore run along the channels or, if there is only one,
    along the image.
    """
    xp, rank = namespace(x), len(windows)
    channel, groups = x.ndim - 1, x.shape[: -rank - 2]
    for axis, window in enumerate(windows, channel - rank):
        x = window.slide(x, axis)
    leading, places, taps = range(len(groups)), range(len(groups), channel), range(channel + 1, x.ndim)
    length = x.shape[channel] * math.prod(x.shape[channel + 1 :])
    if x.shape[channel] == 1:
        return xp.reshape(xp.permute_dims(x, (*leading, *taps, channel, *places)), (*groups, length, -1)).mT
    return xp.reshape(xp.permute_dims(x, (*leading, *places, *taps, channel)), (*groups, -1, length))


def col2im(dy: Array, W: Array, windows: Sequence[Window]) -> Array:
    """The adjoint of ``x -> im2col(x) @ W``: (..., batch · places, out) -> (..., batch, *sizes, c), still padded."""
    xp, groups, places, rank = namespace(dy), dy.shape[:-2], [window.count for window in windows], len(windows)
    axes, channel = range(-rank - 1, -1), -1
    if W.shape[-2] == math.prod(window.kernel for window in windows):  # with one channel, add along the image
        axes, channel = range(-rank, 0), -rank - 2

    def product(W):
        if channel == -1:
            return xp.reshape(dy @ W.mT, (*groups, -1, *places, W.shape[-2]))
        return xp.reshape(W @ dy.mT, (*groups, W.shape[-2], -1, *places))

    def add_up(*products):
        dx = windows[0].add(products, axes[0])
        for axis, window in zip(axes[1:], windows[1:], strict=True):
            dx = window.add(_parts(dx, channel, window.kernel), axis)
        return namespace(dx).moveaxis(dx, channel, -1)

    # dy @ W.mT in parts: each part fits into the cache, and its memory is contiguous, unlike a slice of the whole product
    return fused(add_up, *[product(part) for part in _parts(W, -2, windows[0].kernel)])


def _parts(x: Array, axis: int, count: int) -> list[Array]:
    """Cut `x` into `count` equal slices."""
    n = x.shape[axis] // count
    return [x[along(axis, slice(i * n, i * n + n))] for i in range(count)]


def per_axis(name: str, value: PerAxis, rank: int) -> tuple[int, ...]:
    """Return a setting as one positive integer for each axis. A single integer applies to every axis."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * rank
    values = tuple(count(name, v) for v in values)
    if len(values) != rank:
        raise ValueError(
            f"{name} must be an integer or a tuple of {rank}, one for each axis. Received: {name}={value!r}"
        )
    return values


def require_image(layer: Layer, input_shape: Shape, rank: int = 2) -> None:
    """Raise ValueError unless the samples have `rank` axes and an axis of channels."""
    if len(input_shape) != rank + 1:
        axes, example = ("(height, width, channels)", (28, 28, 1)) if rank == 2 else ("(time, channels)", (100, 1))
        raise ValueError(
            f"{type(layer).__name__} needs samples of shape {axes}. Put a layer such as Reshape({example}) before it, or "
            f"ChannelsLast() if channels come first. Received: samples of shape {input_shape}"
        )
