"""Layers that enlarge images by adding zeros around them or by repeating pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add

from xpnet.backend.fusion import fused
from xpnet.checks import is_integer, require
from xpnet.layers.base import Layer
from xpnet.layers.windows import PerAxis, Window, crop, pad, per_axis, require_image


@dataclass(frozen=True)
class ZeroPadding2D(Layer):
    """y = x with zeros around it,   dx = dy without its border

    x: (batch, height, width, channels).

    Parameters
    ----------
    padding : int, (int, int) or ((int, int), (int, int)), default 1
        The number of zeros on every side, or (top and bottom, left and right), or ((top, bottom), (left, right)).

    Raises
    ------
    ValueError
        A number is not an integer >= 0, or the input is not an image.
    """

    padding: PerAxis = 1

    def __post_init__(self):
        axes = self.padding if isinstance(self.padding, (tuple, list)) else (self.padding,) * 2
        sides = tuple(tuple(side) if isinstance(side, (tuple, list)) else (side,) * 2 for side in axes)
        pairs = [len(side) for side in sides] == [2, 2] and all(
            is_integer(n) and n >= 0 for side in sides for n in side
        )
        rule = "padding must be n, (rows, columns) or ((top, bottom), (left, right)), with integers >= 0"
        require(pairs, rule, f"padding={self.padding!r}")
        object.__setattr__(self, "padding", sides)

    def output_shape(self, input_shape):
        require_image(self, input_shape)
        height, width = self._windows(input_shape)
        return (height.padded, width.padded, input_shape[-1])

    def _windows(self, sizes):
        return [Window(size, 1, 1, 1, *side) for size, side in zip(sizes, self.padding, strict=False)]

    def forward(self, params, x):
        windows = self._windows(x.shape[1:-1])
        return pad(x, windows), lambda dy, need_dx=True: (crop(dy, windows), {})


@dataclass(frozen=True)
class UpSampling2D(Layer):
    """y = x with each pixel repeated in a block of s · s,   dx = Σ of dy over each block   (s may differ by axis)

    x: (batch, height, width, channels).

    Parameters
    ----------
    size : int or (int, int), default 2
        s, along height and width.

    Raises
    ------
    ValueError
        A size is not a positive integer, or the input is not an image.
    """

    size: PerAxis = 2

    def __post_init__(self):
        object.__setattr__(self, "size", per_axis("size", self.size, 2))

    def output_shape(self, input_shape):
        require_image(self, input_shape)
        height, width, channels = input_shape
        return (height * self.size[0], width * self.size[1], channels)

    def forward(self, params, x):
        windows = [Window(n * s, s, s) for n, s in zip(x.shape[1:-1], self.size, strict=True)]

        def value(x):
            for axis, window in ((-2, windows[1]), (-3, windows[0])):
                x = window.add([x] * window.kernel, axis)
            return x

        def gradient(dy):
            for axis, window in ((-3, windows[0]), (-2, windows[1])):
                dy = reduce(add, window.take(dy, axis))
            return dy

        return fused(value, x), lambda dy, need_dx=True: (fused(gradient, dy), {})
