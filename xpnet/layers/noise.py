"""Noise. These layers disturb their input at each training step and are the identity at inference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xpnet.backend import device, namespace
from xpnet.checks import set_numbers
from xpnet.layers.base import Layer
from xpnet.layers.dropout import DropoutBase
from xpnet.layers.reshaping import Identity
from xpnet.layers.windows import require_image
from xpnet.random import normal


@dataclass(frozen=True)
class GaussianNoise(Layer):
    """y = x + stddev · n,   dx = dy,   n ~ N(0, 1) for each element

    x, y: any shape. Inference is the identity. C. Bishop, "Training with noise is equivalent to Tikhonov regularization",
    Neural Computation 7 (1995).

    Parameters
    ----------
    stddev : float
        The standard deviation of the noise, in the units of x.

    Raises
    ------
    ValueError
        `stddev` is negative or not finite.
    """

    needs_key = True

    stddev: float

    def __post_init__(self):
        set_numbers(self, "[0, inf)", "stddev")

    def forward(self, params, x, *, key):
        y = normal(key, like=x)
        y *= self.stddev
        y += x
        return y, lambda dy, need_dx=True: (dy, {})

    def at_inference(self):
        return Identity()

    def __call__(self, params, x):
        return x


@dataclass(frozen=True)
class _SpatialDropout(DropoutBase):
    rank: ClassVar[int]  # the number of axes of a sample, without its channels

    def output_shape(self, input_shape):
        require_image(self, input_shape, self.rank)
        return input_shape

    def forward(self, params, x, *, key):
        one_position = (x.shape[0], *[1] * (x.ndim - 2), x.shape[-1])
        ones = namespace(x).ones(one_position, dtype=x.dtype, device=device(x))
        mask = self.mask(key, like=ones)
        return x * mask, lambda dy, need_dx=True: (dy * mask, {})


@dataclass(frozen=True)
class SpatialDropout1D(_SpatialDropout):
    """y = x · mask / (1 - rate),   dx = dy · mask / (1 - rate),   mask ~ Bernoulli(1 - rate) for each (sample, channel)

    x, y: (batch, length, c). A dropped channel is 0 at every position. `Dropout` drops single numbers, which the network can
    guess from their neighbors. Inference is the identity. J. Tompson et al., "Efficient object localization using
    convolutional networks", CVPR 2015.

    Parameters
    ----------
    rate : float
        The share of channels set to zero, 0 <= rate < 1, rounded to a multiple of 1/65536.

    Raises
    ------
    ValueError
        `rate` is not in [0, 1), or samples do not have shape (length, c).
    """

    rank = 1


@dataclass(frozen=True)
class SpatialDropout2D(_SpatialDropout):
    """y = x · mask / (1 - rate),   dx = dy · mask / (1 - rate),   mask ~ Bernoulli(1 - rate) for each (sample, channel)

    `SpatialDropout1D` for images. x, y: (batch, height, width, c).

    Parameters
    ----------
    rate : float
        The share of channels set to zero, 0 <= rate < 1, rounded to a multiple of 1/65536.

    Raises
    ------
    ValueError
        `rate` is not in [0, 1), or samples do not have shape (height, width, c).
    """

    rank = 2
