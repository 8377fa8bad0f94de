"""Random changes to images, on the device: training transforms each image in a new way at each step.

Images are (batch, height, width, channels). Each layer is a linear map A of the pixels, so dx = Aᵀ dy. Both A and Aᵀ are
computed by gathering pixels, never by scattering them. Pixels from outside an image are 0. The random numbers for an image
are a function of the step's key and the image's place in the batch (see `xpnet.random`), the same on every backend.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from numbers import Real
from operator import add
from typing import Literal

from xpnet.backend import device, namespace
from xpnet.checks import is_integer, require, require_choice, set_counts, set_numbers, share_of
from xpnet.layers.base import Layer
from xpnet.layers.reshaping import Identity
from xpnet.layers.windows import require_image
from xpnet.random import bit_pairs


@dataclass(frozen=True)
class _Augmentation(Layer):
    """A random layer on images that is the identity at inference."""

    needs_key = True

    def output_shape(self, input_shape):
        require_image(self, input_shape)
        return input_shape

    def at_inference(self):
        return Identity()

    def __call__(self, params, x):
        return x


@dataclass(frozen=True)
class RandomTranslation(_Augmentation):
    """y[i, j] = x[i + s, j + t],   dx[i, j] = dy[i - s, j - t],   (s, t) uniform for each image, in whole pixels

    x, y: (batch, height, width, c). Inference is the identity. P. Simard, D. Steinkraus and J. Platt, "Best practices
    for convolutional neural networks applied to visual document analysis", ICDAR 2003.

    Parameters
    ----------
    height, width : int or float
        The largest shift, vertical and horizontal. An int is a number of pixels. A float below 1 is a share of the image's
        size, rounded to pixels. Pixels from outside are 0, so put this layer before a rescaling that changes the value of
        black.

    Raises
    ------
    ValueError
        A shift is negative or not smaller than the image, or the input is not an image.
    """

    height: int | float
    width: int | float

    def __post_init__(self):
        for name, value in (("height", self.height), ("width", self.width)):
            fits = value >= 0 if is_integer(value) else isinstance(value, Real) and 0 <= value < 1
            rule = f"{name} must be a number of pixels (an integer >= 0) or a share of the image (a float in [0, 1))"
            require(fits, rule, f"{name}={value!r}")

    def output_shape(self, input_shape):
        super().output_shape(input_shape)
        inside = all(farthest(r, n) < n for r, n in zip((self.height, self.width), input_shape, strict=False))
        require(inside, "A shift must be smaller than the image", f"{self} for samples of shape {input_shape}")
        return input_shape

    def forward(self, params, x, *, key):
        h, w = x.shape[1:3]
        down, across = _draws(key, x)
        s, t = _shift(down, self.height, h), _shift(across, self.width, w)

        def backward(dy, need_dx=True):
            return (_window(dy, -s, -t, h, w) if need_dx else None), {}

        return _window(x, s, t, h, w), backward


@dataclass(frozen=True)
class RandomCrop(Layer):
    """y[i, j] = x[i + s, j + t],   dx[i, j] = dy[i - s, j - t],   (s, t) uniform for each image, with y inside x

    x: (batch, h, w, c), y: (batch, height, width, c). Inference returns the middle of the image. A. Krizhevsky,
    I. Sutskever and G. Hinton, "ImageNet classification with deep convolutional neural networks", NeurIPS 2012.

    Parameters
    ----------
    height, width : int
        The size of y in pixels.

    Raises
    ------
    ValueError
        A setting is not a positive integer, or the image is smaller than the crop.
    """

    needs_key = True

    height: int
    width: int

    def __post_init__(self):
        set_counts(self, "height", "width")

    def output_shape(self, input_shape):
        require_image(self, input_shape)
        h, w, channels = input_shape
        if h < self.height or w < self.width:
            raise ValueError(
                f"RandomCrop({self.height}, {self.width}) needs images of at least that size. Put ZeroPadding2D before it. "
                f"Received: samples of shape {input_shape}"
            )
        return self.height, self.width, channels

    def forward(self, params, x, *, key):
        h, w = x.shape[1:3]
        down, across = _draws(key, x)
        s, t = _below(h - self.height + 1, down), _below(w - self.width + 1, across)

        def backward(dy, need_dx=True):
            return (_window(dy, -s, -t, h, w) if need_dx else None), {}

        return _window(x, s, t, self.height, self.width), backward

    def at_inference(self):
        return _MiddleCrop(self)

    def __call__(self, params, x):
        s, t = (x.shape[1] - self.height) // 2, (x.shape[2] - self.width) // 2
        return x[:, s : s + self.height, t : t + self.width, :]


@dataclass(frozen=True)
class _MiddleCrop(Layer):
    """y = the middle of x,   dx = dy, with zeros around it"""

    layer: RandomCrop

    def output_shape(self, input_shape):
        return self.layer.output_shape(input_shape)

    def forward(self, params, x):
        h, w = x.shape[1:3]
        s, t = (namespace(x).full((x.shape[0], 1, 1), (n - m) // 2, dtype=namespace(x).int32, device=device(x))
                for n, m in ((h, self.layer.height), (w, self.layer.width)))  # fmt: skip
        return self.layer(params, x), lambda dy, need_dx=True: (_window(dy, -s, -t, h, w), {})


@dataclass(frozen=True)
class RandomFlip(_Augmentation):
    """y = x, or x mirrored, with probability ½ for each image and direction,   dx = dy mirrored in the same way

    x, y: (batch, height, width, c). Inference is the identity.

    Parameters
    ----------
    mode : {"horizontal", "vertical", "horizontal_and_vertical"}, default "horizontal"
        "horizontal" exchanges left and right, and "vertical" exchanges top and bottom. "horizontal_and_vertical" draws each
        of the two independently.

    Raises
    ------
    ValueError
        `mode` is not one of these, or the input is not an image.
    """

    mode: Literal["horizontal", "vertical", "horizontal_and_vertical"] = "horizontal"

    def __post_init__(self):
        require_choice("mode", self.mode, "horizontal", "vertical", "horizontal_and_vertical")

    def forward(self, params, x, *, key):
        vertical, horizontal = (bits[..., None] < 32768 for bits in _draws(key, x))

        def mirror(z):
            xp = namespace(z)
            if self.mode != "horizontal":
                z = xp.where(vertical, xp.flip(z, axis=1), z)
            if self.mode != "vertical":
                z = xp.where(horizontal, xp.flip(z, axis=2), z)
            return z

        return mirror(x), lambda dy, need_dx=True: (mirror(dy) if need_dx else None, {})


@dataclass(frozen=True)
class RandomRotation(_Augmentation):
    """y[p] = Σₙ Λ(n - R p) x[n],   dx[n] = Σₚ Λ(n - R p) dy[p],   R rotates by a uniform angle for each image

    n and p are pixels, counted from the middle of the image. Λ(δ) = max(1 - |δ₁|, 0) · max(1 - |δ₂|, 0) is bilinear
    interpolation, so in the sum over n only the four pixels around R p contribute. In dx a pixel p contributes only if
    n - R p = R (R⁻¹n - p) is inside the square of half-width 1 where Λ > 0. Then |R⁻¹n - p| < √2, so p is one of the 3 x 3
    pixels around the one nearest to R⁻¹n. Both sums therefore have few terms.

    x, y: (batch, height, width, c). Inference is the identity.

    Parameters
    ----------
    degrees : float
        The largest angle, in either direction; 0 <= degrees <= 180.

    Raises
    ------
    ValueError
        `degrees` is not in [0, 180], or the input is not an image.
    """

    degrees: float

    def __post_init__(self):
        set_numbers(self, "[0, 180]", "degrees")

    def forward(self, params, x, *, key):
        xp = namespace(x)
        bits, _ = _draws(key, x)
        angle = (xp.astype(bits, x.dtype) - 32767.5) * (math.radians(self.degrees) / 32768)
        cos, sin = xp.cos(angle), xp.sin(angle)

        def backward(dy, need_dx=True):
            return (_rotate(dy, cos, sin, transposed=True) if need_dx else None), {}

        return _rotate(x, cos, sin), backward


def farthest(setting, length):
    """The largest shift in pixels, from a number of pixels or a share of the length."""
    return int(setting) if is_integer(setting) else round(share_of(length, setting))


def _shift(bits, setting, length):
    reach = farthest(setting, length)
    return _below(2 * reach + 1, bits) - reach


def _rotate(x, cos, sin, transposed=False):
    """y[p] = Σₙ Λ(n - q) x[n], q = R p;   transposed: y[p] = Σₙ Λ(R (n - q)) x[n], q = R⁻¹ p"""
    xp = namespace(x)
    h, w = x.shape[1:3]
    middle_i, middle_j = (h - 1) / 2, (w - 1) / 2
    i, j = _grid(x, h, w, x.dtype)
    i, j = _turn(cos, -sin if transposed else sin, i - middle_i, j - middle_j)
    i += middle_i
    j += middle_j
    corner, steps = (xp.round, (-1, 0, 1)) if transposed else (xp.floor, (0, 1))
    i0, j0 = corner(i), corner(j)

    def part(a, b):
        n, m = i0 + a, j0 + b
        d, e = _turn(cos, sin, n - i, m - j) if transposed else (n - i, m - j)
        y = _pixels(x, xp.astype(n, xp.int32), xp.astype(m, xp.int32))
        y *= (xp.maximum(1.0 - xp.abs(d), 0.0) * xp.maximum(1.0 - xp.abs(e), 0.0))[..., None]
        return y

    return reduce(add, (part(a, b) for a in steps for b in steps))


def _turn(cos, sin, i, j):
    return cos * i - sin * j, sin * i + cos * j


def _draws(key, x):
    """Return two arrays of 16 random bits for each image, with shape (batch, 1, 1)."""
    a, b = bit_pairs(key, x.shape[0], device(x))
    return a[:, None, None], b[:, None, None]


def _below(n, bits):
    """Return integers in 0 .. n - 1, from 16 random bits."""
    return (bits * n) >> 16


def _window(x, s, t, height, width):
    """Return x[s + i, t + j] for i < height, j < width, 0 outside x. The transpose is the window at (-s, -t) of x's size."""
    i, j = _grid(x, height, width, s.dtype)
    return _pixels(x, s + i, t + j)


def _grid(x, height, width, dtype):
    """Return row numbers (height, 1) and column numbers (1, width), which broadcast to an image."""
    xp = namespace(x)
    i = xp.arange(height, dtype=dtype, device=device(x))
    j = xp.arange(width, dtype=dtype, device=device(x))
    return i[:, None], j[None, :]


def _pixels(x, i, j):
    """Return x[i, j] for each image, 0 outside. i and j broadcast to (batch, height, width)."""
    xp = namespace(x)
    batch, h, w, channels = x.shape
    inside = (i >= 0) & (i < h) & (j >= 0) & (j < w)
    sample = xp.arange(batch, dtype=i.dtype, device=device(x))[:, None, None]
    index = ((sample * h + i) * w + j) * xp.astype(inside, i.dtype)  # outside, read the first pixel; set to 0 below
    y = xp.take(xp.reshape(x, (-1, channels)), xp.reshape(index, (-1,)), axis=0)
    y = xp.reshape(y, (*index.shape, channels))
    y *= xp.astype(inside, x.dtype)[..., None]
    return y
