"""Dropout."""

from __future__ import annotations

from dataclasses import dataclass

from xpnet.checks import set_numbers
from xpnet.layers.base import Layer
from xpnet.random import bernoulli


@dataclass(frozen=True)
class Dropout(Layer):
    """y = x · mask / (1 - rate),   dx = dy · mask / (1 - rate),   mask ~ Bernoulli(1 - rate) for each element

    Inference is the identity: the division keeps the expected value ("inverted" dropout). Srivastava et al., "Dropout",
    JMLR 15 (2014).

    Parameters
    ----------
    rate : float
        The share of elements set to zero, 0 <= rate < 1, kept to 1/65536.

    Raises
    ------
    ValueError
        `rate` is not in [0, 1).
    """

    needs_key = True

    rate: float

    def __post_init__(self):
        set_numbers(self, "[0, 1)", "rate")

    def forward(self, params, x, *, key):
        keep = max(round((1 - self.rate) * 65536), 1) / 65536  # the probability that the mask really has
        mask = bernoulli(key, keep, like=x)
        mask *= 1 / keep

        def backward(dy, need_dx=True):
            return dy * mask, {}

        return x * mask, backward

    def __call__(self, params, x):
        return x
