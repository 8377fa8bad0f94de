"""Class labels as targets."""

from __future__ import annotations

import math
from typing import Any

from xpnet.backend import device, namespace
from xpnet.tree import Array


class Marked:
    """The class that a mask marks in each column, or none. NumPy's `Labels` has the same methods and is faster."""

    def __init__(self, mask: Array):
        self.mask = mask

    def read(self, x: Array) -> Array:
        """Return the number of this class, (..., 1, batch), or -∞."""
        xp = namespace(x)
        return xp.max(xp.where(self.mask, x, -math.inf), axis=-2, keepdims=True)

    def replace(self, x: Array, value: Any) -> Array:
        """Return x with `value` for this class. The memory of x may be reused."""
        return namespace(x).where(self.mask, value, x)


def are_labels(y: Array) -> bool:
    """Whether targets are labels: (batch,), or (K, batch, 1) for K networks with rows of their own."""
    return y.ndim == 1 or (y.ndim == 3 and y.shape[-1] == 1)


def one_hot(labels: Array, like: Array) -> Array:
    """Return 1 at each label and 0 elsewhere, (batch,) -> (batch, classes), with the shape, dtype and device of `like`."""
    return namespace(like).astype(is_label(labels, like.mT), like.dtype).mT


def is_label(labels: Array, like: Array) -> Array:
    """Return whether each class is the label. The result and `like` have the classes first: (classes, batch)."""
    xp = namespace(like)
    classes = xp.arange(like.shape[-2], dtype=like.dtype, device=device(like))
    labels = labels if labels.ndim == 1 else labels.mT
    return xp.astype(labels, like.dtype) == classes[:, None]  # every library compares floats, which are exact up to 2²⁴
