"""Dropout."""

from __future__ import annotations

from dataclasses import dataclass

from xpnet.checks import set_numbers
from xpnet.layers.base import Layer
from xpnet.layers.reshaping import Identity
from xpnet.random import bernoulli


@dataclass(frozen=True)
class DropoutBase(Layer):
    """The base class of `Dropout` and the spatial dropouts. It draws the mask; inference is the identity."""

    needs_key = True

    rate: float

    def __post_init__(self):
        set_numbers(self, "[0, 1)", "rate")

    def mask(self, key, like):
        """Return an array that is 0 at random positions and 1 / (1 - rate) elsewhere."""
        keep = max(round((1 - self.rate) * 65536), 1) / 65536  # the mask's actual probability
        mask = bernoulli(key, keep, like=like)
        mask *= 1 / keep
        return mask

    def at_inference(self):
        return Identity()

    def __call__(self, params, x):
        return x


@dataclass(frozen=True)
class Dropout(DropoutBase):
    """y = x · mask / (1 - rate),   dx = dy · mask / (1 - rate),   mask ~ Bernoulli(1 - rate) for each element

    x, y: any shape. Inference is the identity, because the division preserves the expected value ("inverted" dropout).
    N. Srivastava et al., "Dropout", JMLR 15 (2014).

    Parameters
    ----------
    rate : float
        The share of elements set to zero, 0 <= rate < 1, rounded to a multiple of 1/65536.

    Raises
    ------
    ValueError
        `rate` is not in [0, 1).
    """

    def forward(self, params, x, *, key):
        mask = self.mask(key, like=x)
        return x * mask, lambda dy, need_dx=True: (dy * mask, {})
