"""Layers that take the maximum or mean over windows of images or sequences."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import ClassVar

from xpnet.backend import device, namespace
from xpnet.backend.fusion import fused
from xpnet.checks import require_choice
from xpnet.layers.base import Layer
from xpnet.layers.windows import PerAxis, Window, per_axis, require_image


@dataclass(frozen=True)
class _Pooling(Layer):
    """Pools along one axis after the other, because the maximum of a window is the maximum of its rows' maxima."""

    rank: ClassVar[int]  # the number of axes of an image, without its channels

    pool_size: PerAxis = 2
    strides: PerAxis = None
    padding: str = "valid"

    def __post_init__(self):
        object.__setattr__(self, "pool_size", per_axis("pool_size", self.pool_size, self.rank))
        strides = self.pool_size if self.strides is None else self.strides
        object.__setattr__(self, "strides", per_axis("strides", strides, self.rank))
        require_choice("padding", self.padding, "valid", "same")

    def output_shape(self, input_shape):
        require_image(self, input_shape, self.rank)
        return (*(window.count for window in self._windows(input_shape[:-1])), input_shape[-1])

    def _windows(self, sizes):
        settings = zip(sizes, self.pool_size, self.strides, strict=True)
        return [Window.fit(size, kernel, stride, 1, self.padding) for size, kernel, stride in settings]

    @abstractmethod
    def _along(self, x, axis, window):
        """Pool along one axis. Return y and backward."""

    def forward(self, params, x):
        y, backwards = x, []
        for axis, window in enumerate(reversed(self._windows(x.shape[1:-1])), 2):
            y, along_axis = self._along(y, -axis, window)
            backwards.append(along_axis)

        def backward(dy, need_dx=True):
            for along_axis in reversed(backwards):
                dy = along_axis(dy)
            return dy, {}

        return y, backward


@dataclass(frozen=True)
class _MaxPooling(_Pooling):
    """The maximum over windows."""

    def _along(self, x, axis, window):
        def value(*parts):
            return reduce(namespace(parts[0]).maximum, parts)

        def gradient(dy, y, *parts):
            shares, rest = [], dy
            for part in parts[:-1]:
                share = namespace(y).astype(part == y, dy.dtype)
                share *= rest
                rest = rest - share
                shares.append(share)
            return window.crop(window.add([*shares, rest], axis), axis)

        parts = window.take(window.pad(x, axis, -math.inf), axis)
        y = fused(value, *parts)
        return y, lambda dy: fused(gradient, dy, y, *parts)


@dataclass(frozen=True)
class MaxPooling2D(_MaxPooling):
    """y = the maximum of each window,   dx = dy at its first maximum, else 0; where windows overlap, their sum

    x: (batch, height, width, channels). The first maximum is the leftmost one in the top row that contains one, as in
    PyTorch. Put a ReLU after the pooling instead of before it. The result is the same, because max(max(a, 0), max(b, 0)) =
    max(max(a, b), 0), but the ReLU computes with fewer numbers.

    Parameters
    ----------
    pool_size : int or (int, int), default 2
        Height and width of the window.
    strides : int or (int, int), optional
        Distance between neighboring windows. The default is `pool_size`.
    padding : {"valid", "same"}, default "valid"
        If the windows do not cover the image, "valid" ignores the rest, and "same" uses windows that extend beyond the edge,
        as in `Conv2D`. Positions beyond the edge do not count.

    Raises
    ------
    ValueError
        A setting is invalid, or the input is not an image or is smaller than the window.
    """

    rank = 2


@dataclass(frozen=True)
class MaxPooling1D(_MaxPooling):
    """y = the maximum of each window,   dx = dy at its first maximum, else 0; where windows overlap, their sum

    x: (batch, time, channels).

    Parameters
    ----------
    pool_size : int, default 2
        Length of the window.
    strides : int, optional
        Distance between neighboring windows. The default is `pool_size`.
    padding : {"valid", "same"}, default "valid"
        As in `MaxPooling2D`.

    Raises
    ------
    ValueError
        A setting is invalid, or the input is not a sequence.
    """

    rank = 1


@dataclass(frozen=True)
class _AveragePooling(_Pooling):
    """The mean over windows. The mean of a window is the mean of its rows' means."""

    def _along(self, x, axis, window):
        xp = namespace(x)

        def total(x):
            return reduce(add, window.take(window.pad(x, axis), axis))

        n = window.kernel
        if window.padded > window.size:
            n = total(xp.ones((window.size, *(1,) * (-1 - axis)), dtype=x.dtype, device=device(x)))

        def gradient(dy):
            return window.crop(window.add([dy / n] * window.kernel, axis), axis)

        return fused(lambda x: total(x) / n, x), lambda dy: fused(gradient, dy)


@dataclass(frozen=True)
class AveragePooling2D(_AveragePooling):
    """y = Σ_window x / n,   dx = Σ dy / n over the windows that a pixel is in   (n pixels in the window)

    x: (batch, height, width, channels). n counts only pixels of the image, not positions beyond its edge.

    Parameters
    ----------
    pool_size : int or (int, int), default 2
        Height and width of the window.
    strides : int or (int, int), optional
        Distance between neighboring windows. The default is `pool_size`.
    padding : {"valid", "same"}, default "valid"
        As in `MaxPooling2D`.

    Raises
    ------
    ValueError
        A setting is invalid, or the input is not an image.
    """

    rank = 2


@dataclass(frozen=True)
class AveragePooling1D(_AveragePooling):
    """y = Σ_window x / n,   dx = Σ dy / n over the windows that a step is in   (n steps in the window)

    x: (batch, time, channels). n counts only steps of the sequence, not positions beyond its ends.

    Parameters
    ----------
    pool_size : int, default 2
        Length of the window.
    strides : int, optional
        Distance between neighboring windows. The default is `pool_size`.
    padding : {"valid", "same"}, default "valid"
        As in `MaxPooling2D`.

    Raises
    ------
    ValueError
        A setting is invalid, or the input is not a sequence.
    """

    rank = 1


@dataclass(frozen=True)
class _GlobalPooling(Layer):
    """Reduces all places of a sample to one number for each channel."""

    rank: ClassVar[int]

    def output_shape(self, input_shape):
        require_image(self, input_shape, self.rank)
        return input_shape[-1:]


@dataclass(frozen=True)
class _GlobalMaxPooling(_GlobalPooling):
    """The maximum over all places."""

    def forward(self, params, x):
        xp = namespace(x)
        pixels = xp.reshape(x, (x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1]))

        def backward(dy, need_dx=True):
            first = xp.argmax(pixels, axis=1)[:, None, :]
            pixel = xp.arange(pixels.shape[1], dtype=first.dtype, device=device(x))[:, None]
            dx = xp.astype(pixel == first, dy.dtype)
            dx *= dy[:, None, :]
            return xp.reshape(dx, x.shape), {}

        return xp.max(pixels, axis=1), backward


@dataclass(frozen=True)
class GlobalMaxPooling2D(_GlobalMaxPooling):
    """y = the maximum of each channel,   dx = dy at its first maximum, else 0

    x: (batch, height, width, channels), y: (batch, channels).

    Raises
    ------
    ValueError
        The input is not an image.
    """

    rank = 2


@dataclass(frozen=True)
class GlobalMaxPooling1D(_GlobalMaxPooling):
    """y = the maximum of each channel over time,   dx = dy at its first maximum, else 0

    x: (batch, time, channels), y: (batch, channels).

    Raises
    ------
    ValueError
        The input is not a sequence.
    """

    rank = 1


@dataclass(frozen=True)
class _GlobalAveragePooling(_GlobalPooling):
    """The mean over all places."""

    def forward(self, params, x):
        xp, n = namespace(x), math.prod(x.shape[1:-1])
        axes = tuple(range(1, x.ndim - 1))

        def backward(dy, need_dx=True):
            return xp.broadcast_to(xp.reshape(dy / n, (-1, *(1,) * len(axes), dy.shape[-1])), x.shape), {}

        return xp.mean(x, axis=axes), backward


@dataclass(frozen=True)
class GlobalAveragePooling2D(_GlobalAveragePooling):
    """y = Σ x / n,   dx = dy / n   (n = height · width)

    x: (batch, height, width, channels), y: (batch, channels).

    Raises
    ------
    ValueError
        The input is not an image.
    """

    rank = 2


@dataclass(frozen=True)
class GlobalAveragePooling1D(_GlobalAveragePooling):
    """y = Σₜ x / T,   dx = dy / T

    x: (batch, T, channels), y: (batch, channels).

    Raises
    ------
    ValueError
        The input is not a sequence.
    """

    rank = 1
