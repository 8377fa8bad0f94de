"""Parameters and running statistics as a flat list of host arrays, as in Keras."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.backend import Backend, to_numpy
from xpnet.tree import Array, Tree, from_leaves, named_leaves

# The order within a layer; other names follow in alphabetical order
ORDER = (
    "weight", "recurrent_weight", "gamma", "beta", "bias", "recurrent_bias", "output_weight", "output_bias", "mean",
    "variance",
)  # fmt: skip


def in_keras_order(state: dict[str, Tree]) -> list[tuple[str, Array]]:
    """(name, array) pairs, layer by layer: weights before biases, and parameters before running statistics."""
    named = [*named_leaves(state["params"]), *named_leaves(state["statistics"])]
    return sorted(named, key=lambda pair: _position(pair[0]))


def _position(name: str) -> tuple:
    *path, leaf = name.split(".")
    numbers = [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in path]
    return numbers, ORDER.index(leaf) if leaf in ORDER else len(ORDER), leaf


def with_weights(backend: Backend, state: dict[str, Tree], weights: Sequence[Any]) -> dict[str, Tree]:
    """Return the state with these parameters and running statistics.

    Raises
    ------
    ValueError
        The number of arrays or a shape is different, or a value is not a finite number in the backend's float type.
    """
    expected = in_keras_order(state)
    if not isinstance(weights, Sequence) or len(weights) != len(expected):
        received = f"{len(weights)} of them" if isinstance(weights, Sequence) else f"a {type(weights).__name__}"
        raise ValueError(
            f"weights must be a list of {len(expected)} arrays: "
            f"{', '.join(f'{name} {tuple(x.shape)}' for name, x in expected)}. Received: {received}"
        )
    given = {}
    for i, ((name, x), values) in enumerate(zip(expected, weights, strict=True)):
        try:
            array = to_numpy(values)
        except (TypeError, ValueError) as error:
            raise ValueError(f"weights[{i}], {name}, must be numbers: {error}") from error
        if array.dtype.kind not in "fiu" or array.shape != tuple(x.shape):
            raise ValueError(
                f"weights[{i}], {name}, must be numbers of shape {tuple(x.shape)}. Received: {array.dtype} of shape "
                f"{array.shape}"
            )
        with np.errstate(over="ignore"):
            array = array.astype(backend.float_name)
        if not np.all(np.isfinite(array)):
            raise ValueError(f"weights[{i}], {name}, must be finite in {backend.float_name}. Received: NaN or infinity")
        given[name] = array
    trees = {
        key: from_leaves(state[key], [backend.asarray(given[name]) for name, _ in named_leaves(state[key])])
        for key in ("params", "statistics")
    }
    return state | backend.copy(trees)
