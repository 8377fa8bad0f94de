"""Parts of arrays: writing to slices and sliding windows, which differ between libraries, and the analysis of an index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xpnet.backend.base import namespace
from xpnet.tree import Array


def slice_add(x: Array, index: Any, y: Array) -> Array:
    """Return `x` with `y` added to the slice ``x[index]``. The memory of `x` is reused if the library allows it."""
    if hasattr(x, "at"):  # JAX arrays cannot be written to
        return x.at[index].add(y)
    part = x[index]  # a view
    part += y
    return x


def add_row(x: Array, row: Array) -> Array:
    """Return `x`, (n, c), with `row`, (1, c), added to each of its rows. The memory of `x` is reused if the library allows it."""
    xp = namespace(x)
    if hasattr(xp, "add_row"):
        return xp.add_row(x, row)
    x += row
    return x


def sliding_windows(as_strided: Callable, x: Array, axis: int, size: int, stride: int, dilation: int) -> Array:
    """(…, n, …) -> (…, places, …, size), a view: `size` elements, `dilation` apart, from every `stride`-th place of an axis"""
    places = (x.shape[axis] - (size - 1) * dilation - 1) // stride + 1
    before, step, after = x.strides[:axis], x.strides[axis], x.strides[axis + 1 :]
    shape = (*x.shape[:axis], places, *x.shape[axis + 1 :], size)
    return as_strided(x, shape, (*before, step * stride, *after, step * dilation))


def index_codes(shape: tuple[int, ...], index: Any, counted: bool = False) -> tuple[str, list[int], tuple[int, ...]]:
    """Return an index as one character for each axis, the sizes that go with them, and the shape of the result.

    ``=`` means a whole axis, ``+`` a slice with step 1, ``:`` a slice with another step, ``.`` one place, and ``n`` a new
    axis. The sizes are the starts and steps. With `counted`, they also include the numbers of places.
    """
    index = index if isinstance(index, tuple) else (index,)
    missing = len(shape) - sum(part is not None and part is not Ellipsis for part in index)
    if Ellipsis in [part if part is None or part is Ellipsis else 0 for part in index]:
        at = next(i for i, part in enumerate(index) if part is Ellipsis)
        index = (*index[:at], *missing * (slice(None),), *index[at + 1 :])
    else:
        index = (*index, *missing * (slice(None),))
    codes, sizes, result, axis = "", [], [], 0
    for part in index:
        if part is None:
            codes += "n"
            result.append(1)
            continue
        n = shape[axis]
        axis += 1
        if isinstance(part, int) and not isinstance(part, bool) and -n <= part < n:
            codes += "."
            sizes.append(part % n)
            continue
        if not isinstance(part, slice):
            raise TypeError(f"an index of type {type(part).__name__}")
        start, stop, step = part.indices(n)
        count = len(range(start, stop, step))
        result.append(count)
        codes += "=" if (start, count) == (0, n) else "+" if step == 1 else ":"
        sizes += {"=": [], "+": [start], ":": [start, step]}[codes[-1]]
        sizes += [count] if counted and codes[-1] != "=" else []
    return codes, sizes, tuple(result)
