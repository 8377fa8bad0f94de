"""What array libraries do not do alike: write into a part of an array, and look at it through windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xpnet.tree import Array


def slice_add(x: Array, index: Any, y: Array) -> Array:
    """`x` with `y` added at ``x[index]``, a slice; `x` is handed over and its memory reused where the library can."""
    if hasattr(x, "at"):  # JAX, whose arrays cannot be written to
        return x.at[index].add(y)
    part = x[index]  # a view
    part += y
    return x


def sliding_windows(as_strided: Callable, x: Array, axis: int, size: int, stride: int, dilation: int) -> Array:
    """(…, n, …) -> (…, places, …, size): `size` elements, `dilation` apart, from every `stride`-th place of an axis; a view"""
    places = (x.shape[axis] - (size - 1) * dilation - 1) // stride + 1
    before, step, after = x.strides[:axis], x.strides[axis], x.strides[axis + 1 :]
    shape = (*x.shape[:axis], places, *x.shape[axis + 1 :], size)
    return as_strided(x, shape, (*before, step * stride, *after, step * dilation))
