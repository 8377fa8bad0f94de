"""The one thing that array libraries do not do alike: write into a part of an array."""

from __future__ import annotations

from typing import Any

from xpnet.tree import Array


def slice_add(x: Array, index: Any, y: Array) -> Array:
    """`x` with `y` added at ``x[index]``, a slice; `x` is handed over and its memory reused where the library can."""
    if hasattr(x, "at"):  # JAX, whose arrays cannot be written to
        return x.at[index].add(y)
    part = x[index]  # a view
    part += y
    return x
