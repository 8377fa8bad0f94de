"""Parameters and running statistics as Keras' flat list of host arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.backend import Backend, to_numpy
from xpnet.tree import Array, Tree, from_leaves, named_leaves

# Within a layer; what is not here comes last, by name
ORDER = (
    "weight", "recurrent_weight", "scale", "offset", "bias", "recurrent_bias", "output_weight", "output_bias", "mean",
    "variance",
)  # fmt: skip


def in_keras_order(state: dict[str, Tree]) -> list[tuple[str, Array]]:
    """(name, array) of parameters and statistics: layer by layer, weights before biases, parameters before statistics."""
    named = [*named_leaves(state["params"]), *named_leaves(state["statistics"])]
    return sorted(named, key=lambda pair: _position(pair[0]))


def _position(name: str) -> tuple:
    *path, leaf = name.split(".")
    numbers = [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in path]
    return numbers, ORDER.index(leaf) if leaf in ORDER else len(ORDER), leaf


def with_weights(backend: Backend, state: dict[str, Tree], weights: Sequence[Any]) -> dict[str, Tree]:
    """The state with other parameters and statistics.

    Raises
    ------
    ValueError
        Another number of arrays, another shape, something that is no number or not finite in the backend's float type.
    """
    expected = in_keras_order(state)
    if not isinstance(weights, Sequence) or len(weights) != len(expected):
        received = f"{len(weights)} of them" if isinstance(weights, Sequence) else f"a {type(weights).__name__}"
        raise ValueError(
            f"weights is a list of {len(expected)} arrays: {', '.join(f'{name} {tuple(x.shape)}' for name, x in expected)}. "
            f"Received: {received}"
        )
    given = {}
    for i, ((name, x), values) in enumerate(zip(expected, weights, strict=True)):
        try:
            array = to_numpy(values)
        except (TypeError, ValueError) as error:
            raise ValueError(f"weights[{i}] must be numbers, for {name}: {error}") from error
        if array.dtype.kind not in "fiu" or array.shape != tuple(x.shape):
            raise ValueError(
                f"weights[{i}] must be numbers of shape {tuple(x.shape)}, for {name}. Received: {array.dtype} of shape "
                f"{array.shape}"
            )
        with np.errstate(over="ignore"):
            array = array.astype(backend.float_name)
        if not np.all(np.isfinite(array)):
            raise ValueError(
                f"weights[{i}] must be finite in {backend.float_name}, for {name}. Received: NaN or infinity"
            )
        given[name] = array
    trees = {
        key: from_leaves(state[key], [backend.asarray(given[name]) for name, _ in named_leaves(state[key])])
        for key in ("params", "statistics")
    }
    return state | backend.copy(trees)
