"""Convolutions. Every window of the image becomes a row of a matrix, so one matrix product computes all of them."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from xpnet import initializers
from xpnet.backend import device, namespace
from xpnet.backend.indexing import add_row
from xpnet.checks import is_integer, require, set_booleans, set_counts
from xpnet.layers.base import Layer, compute_in_container
from xpnet.layers.windows import PerAxis, Window, col2im, crop, im2col, pad, per_axis, require_image
from xpnet.tree import Array


@dataclass(frozen=True)
class _Kernel(Layer):
    """The settings and parameters that the layers below share."""

    filters: int
    kernel_size: PerAxis
    strides: PerAxis = 1
    padding: str | int = "valid"
    dilation_rate: PerAxis = 1
    groups: int = 1
    activation: str | Layer | None = None
    use_bias: bool = True
    weight_initializer: str | initializers.Initializer = "glorot_uniform"
    bias_initializer: str | initializers.Initializer = "zeros"

    rank: ClassVar[int]  # the number of axes of an image, without its channels

    def __post_init__(self):
        set_counts(self, "filters", "groups")
        set_booleans(self, "use_bias")
        for name in ("kernel_size", "strides", "dilation_rate"):
            object.__setattr__(self, name, per_axis(name, getattr(self, name), self.rank))
        known = self.padding >= 0 if is_integer(self.padding) else self.padding in ("valid", "same")
        if is_integer(self.padding):
            object.__setattr__(self, "padding", int(self.padding))
        require(known, 'padding must be "valid", "same" or an integer >= 0', f"padding={self.padding!r}")
        if self.filters % self.groups:
            raise ValueError(f"filters must be a multiple of groups={self.groups}. Received: filters={self.filters}")
        initializers.get(self.weight_initializer), initializers.get(self.bias_initializer)
        compute_in_container(self)

    def output_shape(self, input_shape):
        require_image(self, input_shape, self.rank)
        *sizes, channels = input_shape
        if channels % self.groups:
            raise ValueError(
                f"The number of input channels must be a multiple of groups={self.groups}. Received: {channels} channels"
            )
        try:
            windows = self._windows(sizes)
        except ValueError as error:
            if min(self.kernel_size) <= self.filters:
                raise
            name, (rule, received) = type(self).__name__, str(error).split(" Received: ")
            raise ValueError(
                f"{rule} {name} accepts filters, then kernel_size, but not the number of input channels, which comes with the "
                f"data. For {self.kernel_size[0]} filters, write {name}({self.kernel_size[0]}, {self.strides[0]}). "
                f"Received: {received}"
            ) from error
        return (*self._shapes(channels, windows)[1], self.filters)

    def init(self, rng, input_shape):
        output_shape, (*sizes, channels) = self.output_shape(input_shape), input_shape
        weight_channels, _ = self._shapes(channels, self._windows(sizes))
        weight_shape = (*self.kernel_size, *weight_channels)
        taps = math.prod(self.kernel_size)
        fans = {"fan_in": taps * channels // self.groups, "fan_out": taps * self.filters}
        params = {"weight": initializers.draw(self.weight_initializer, rng, weight_shape, **fans)}
        if self.use_bias:
            params["bias"] = initializers.draw(self.bias_initializer, rng, (1, self.filters))
        return params, output_shape

    @abstractmethod
    def _windows(self, sizes) -> list[Window]:
        """Return the window along each axis of an input with these sizes."""

    @abstractmethod
    def _shapes(self, channels, windows) -> tuple:
        """Return the last two axes of the weight, and the sizes of the output."""


@dataclass(frozen=True)
class _Convolution(_Kernel):
    """y = C W + b,   dx = im2colᵀ(dy Wᵀ),   dW = Cᵀ dy,   db = Σ dy,   C = im2col(x), with a row for each window of x"""

    def _windows(self, sizes):
        settings = zip(sizes, self.kernel_size, self.strides, self.dilation_rate, strict=True)
        return [Window.fit(*setting, self.padding) for setting in settings]

    def _shapes(self, channels, windows):
        return (channels // self.groups, self.filters), [window.count for window in windows]

    def forward(self, params, x):
        xp, groups, windows, b = namespace(x), self.groups, self._windows(x.shape[1:-1]), params.get("bias")
        W = _split(xp.reshape(params["weight"], (-1, self.filters)), groups)
        columns = im2col(_split(pad(x, windows), groups), windows)
        y = _join(columns @ W, groups)
        if b is not None:
            y = add_row(y, b)  # y is a new array

        def backward(dy, need_dx=True):
            dy = xp.reshape(dy, (-1, self.filters))
            parts = _split(dy, groups)
            grads = {"weight": xp.reshape(_join(xp.matmul(columns.mT, parts), groups), params["weight"].shape)}
            if b is not None:
                grads["bias"] = _sum_rows(dy)
            return (crop(_join(col2im(parts, W, windows), groups), windows) if need_dx else None), grads

        return xp.reshape(y, (x.shape[0], *(window.count for window in windows), self.filters)), backward


@dataclass(frozen=True)
class Conv2D(_Convolution):
    """y[i, j] = b + Σ_{k, l} x[s i + r k - p, s j + r l - p] W[k, l]   (strides s, dilation r, padding p, as in torch)

    x: (batch, height, width, in), y: (batch, ⌊(height + 2p - r (kh - 1) - 1) / s⌋ + 1, ..., filters),
    W: (kh, kw, in / groups, filters), b: (1, filters). The windows of x are the rows of C: (batch · places, kh · kw · in):

        y = C W + b,   dW = Cᵀ dy,   db = Σ dy,   dC = dy Wᵀ,   dx = dC, each entry added to the pixel it was copied from

    As in other libraries, the kernel is not flipped, so this is strictly a cross-correlation. Y. LeCun et al.,
    "Gradient-based learning applied to document recognition", Proc. IEEE 86 (1998); as a matrix product: K. Chellapilla
    et al., "High performance convolutional neural networks for document processing", IWFHR 2006.

    Parameters
    ----------
    filters : int
        The number of output channels.
    kernel_size : int or (int, int)
        The height and width of the window. Here and below, a single integer applies to both axes.
    strides : int or (int, int), default 1
        The distance between neighboring windows.
    padding : {"valid", "same"} or int, default "valid"
        The zeros around the image. "valid" adds none. "same" adds enough for ⌈size / strides⌉ windows along each axis. If
        their number is odd, the extra zero is at the bottom or right. An integer is the number of zeros on each side.
    dilation_rate : int or (int, int), default 1
        The distance between neighboring taps of a window.
    groups : int, default 1
        The number of groups of channels. Each group of output channels uses only its own group of input channels.
        ``groups=in`` gives a depthwise convolution.
    activation : str or Layer, optional
        ``Conv2D(8, 3, activation="relu")`` means the two layers ``Conv2D(8, 3), ReLU()`` in a `Sequential`.
    use_bias : bool, default True
        If False, b is omitted.
    weight_initializer : str or initializer, default "glorot_uniform"
        Draws W.
    bias_initializer : str or initializer, default "zeros"
        Draws b.

    Raises
    ------
    ValueError
        A setting is invalid, or `filters` or the number of input channels is not a multiple of `groups`. The input is not an
        image, or it is smaller than the window.
    """

    rank = 2


@dataclass(frozen=True)
class Conv1D(_Convolution):
    """y[t] = b + Σ_k x[s t + r k - p] W[k]   (strides s, dilation r, padding p)

    x: (batch, time, in), y: (batch, ⌊(time + 2p - r (k - 1) - 1) / s⌋ + 1, filters), W: (k, in / groups, filters),
    b: (1, filters). The derivation is the same as for `Conv2D`, with one axis.

    Parameters
    ----------
    filters : int
        The number of output channels.
    kernel_size : int
        The length of the window.
    strides, dilation_rate, groups : int, default 1
        As in `Conv2D`.
    padding : {"valid", "same"} or int, default "valid"
        As in `Conv2D`.
    activation, use_bias, weight_initializer, bias_initializer
        As in `Conv2D`, with the same defaults.

    Raises
    ------
    ValueError
        As in `Conv2D`, or the input is not a sequence.
    """

    rank = 1


@dataclass(frozen=True)
class Conv2DTranspose(_Kernel):
    """y = im2colᵀ(x Wᵀ) + b,   dx = C W,   dW = Cᵀ x,   db = Σ dy,   C = im2col(dy)

    The adjoint of a `Conv2D` from `filters` channels to in channels. Each pixel of x is multiplied by the kernel and added to
    y at the window of that convolution. The backward pass is the forward pass of that convolution. Strides enlarge the image.

    x: (batch, height, width, in), y: (batch, ..., ..., filters), W: (kh, kw, filters / groups, in), b: (1, filters). With
    q = r (k - 1) + 1, a side of length n becomes s n + max(q - s, 0) with "valid", s n with "same", and s (n - 1) + q - 2p
    with an integer padding p, because p pixels are cut off each side.

    M. Zeiler et al., "Deconvolutional networks", CVPR 2010; V. Dumoulin and F. Visin, "A guide to convolution arithmetic
    for deep learning" (2016).

    Parameters
    ----------
    filters : int
        The number of output channels.
    kernel_size, strides, padding, dilation_rate, groups, activation, use_bias, weight_initializer, bias_initializer
        As in `Conv2D`, with the same defaults.

    Raises
    ------
    ValueError
        As in `Conv2D`, or the padding cuts off the whole output.
    """

    rank = 2

    def _windows(self, sizes):
        """Return the windows of the convolution from y to x, which has as many places as x has pixels."""
        windows = []
        for n, kernel, stride, dilation in zip(sizes, self.kernel_size, self.strides, self.dilation_rate, strict=True):
            reach = (kernel - 1) * dilation + 1
            if not isinstance(self.padding, str):
                size = (n - 1) * stride + reach - 2 * self.padding
            else:
                size = n * stride + (max(reach - stride, 0) if self.padding == "valid" else 0)
            rule = "The padding must not cut off the whole output. Make it smaller, or the kernel larger"
            require(size >= 1, rule, f"an output of size {size} for an input of size {n}, with padding={self.padding}")
            windows.append(Window.fit(size, kernel, stride, dilation, self.padding))
        return windows

    def _shapes(self, channels, windows):
        return (self.filters // self.groups, channels), [window.size for window in windows]

    def forward(self, params, x):
        xp, groups, windows, b = namespace(x), self.groups, self._windows(x.shape[1:-1]), params.get("bias")
        W = _split(xp.reshape(params["weight"], (-1, x.shape[-1])), groups)
        pixels = _split(xp.reshape(x, (-1, x.shape[-1])), groups)
        y = crop(_join(col2im(pixels, W, windows), groups), windows)
        if b is not None:
            y += b  # y is a new array

        def backward(dy, need_dx=True):
            columns = im2col(_split(pad(dy, windows), groups), windows)
            grads = {"weight": xp.reshape(_join(xp.matmul(columns.mT, pixels), groups), params["weight"].shape)}
            if b is not None:
                grads["bias"] = _sum_rows(xp.reshape(dy, (-1, self.filters)))
            return (xp.reshape(_join(columns @ W, groups), x.shape) if need_dx else None), grads

        return y, backward


def _split(x: Array, groups: int) -> Array:
    """(..., groups · c) -> (groups, ..., c), or x unchanged if there is one group."""
    xp = namespace(x)
    return x if groups == 1 else xp.moveaxis(xp.reshape(x, (*x.shape[:-1], groups, x.shape[-1] // groups)), -2, 0)


def _join(x: Array, groups: int) -> Array:
    """(groups, ..., c) -> (..., groups · c), the inverse of `_split`."""
    xp = namespace(x)
    return x if groups == 1 else xp.reshape(xp.moveaxis(x, 0, -2), (*x.shape[1:-1], groups * x.shape[-1]))


def _sum_rows(dy: Array) -> Array:
    """Return Σ over the rows of a tall matrix, as a matrix product, which is 12 times faster than NumPy's sum for (86528, 16)."""
    ones = namespace(dy).ones((1, dy.shape[0]), dtype=dy.dtype, device=device(dy))
    return namespace(dy).matmul(ones, dy)
