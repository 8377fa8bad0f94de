"""Parameters and running statistics: drawing them, and reading and setting them as a list or a dict of host arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xpnet import settings
from xpnet.backend import Backend, to_numpy
from xpnet.layers import base
from xpnet.layers.base import Shape
from xpnet.layers.sequential import Sequential
from xpnet.random import host_rng
from xpnet.tree import Array, Tree, from_leaves, map_leaves, named_leaves

# The order within a layer; other names follow in alphabetical order
ORDER = (
    "weight", "recurrent_weight", "gamma", "beta", "bias", "recurrent_bias", "output_weight", "output_bias", "mean",
    "variance",
)  # fmt: skip


def drawn(backend: Backend, network: Sequential, seed: int | tuple[int, ...], shape: Shape) -> dict[str, Tree]:
    """Return initial parameters and statistics, on the device; with several seeds, the parameters of all on a leading axis."""
    seeds = seed if isinstance(seed, tuple) else (seed,)
    draws = [base.init(network, host_rng(one, "weights"), shape) for one in seeds]
    params, output_shape, statistics = draws[0]
    base.require_one_output(output_shape)
    if isinstance(seed, tuple):
        settings.require_rows(network, shape, output_shape)
        params = map_leaves(lambda *values: np.stack(values), *(params for params, *_ in draws))
    params = map_leaves(lambda p: np.asarray(p, dtype=backend.float_name), params)
    params, statistics = (moved_copy(backend, tree) for tree in (params, statistics))
    return {"params": params, "optimizer": {}, "statistics": statistics}


def moved_copy(backend: Backend, tree: Tree) -> Tree:
    """Copy a tree of any library's arrays to a backend."""
    return backend.copy(map_leaves(backend.asarray, tree))


def in_keras_order(state: dict[str, Tree]) -> list[tuple[str, Array]]:
    """Return (name, array) pairs, layer by layer: weights before biases, and parameters before running statistics."""
    named = [*named_leaves(state["params"]), *named_leaves(state["statistics"])]
    return sorted(named, key=lambda pair: _position(pair[0]))


def named_weights(state: dict[str, Tree]) -> dict[str, Array]:
    """Return parameters and running statistics by name, in the order of `in_keras_order`. Raise ValueError if names repeat."""
    named = in_keras_order(state)
    if len(found := dict(named)) < len(named):
        raise ValueError(
            "A layer's parameters and running statistics must have different names. "
            f"Received: {[name for name, _ in named]}"
        )
    return found


def in_order(state: dict[str, Tree], weights: Any) -> list[Any]:
    """Return a dict's values in the order of `in_keras_order`. Raise ValueError unless it has exactly the names of the state."""
    names = named_weights(state).keys()
    if not isinstance(weights, Mapping) or weights.keys() != names:
        received = f"a {type(weights).__name__}"
        if isinstance(weights, Mapping):
            received = f"without {sorted(names - weights.keys())}, and with {sorted(map(str, weights.keys() - names))}"
        raise ValueError(f"state_dict must map {', '.join(names)} to arrays. Received: {received}")
    return [weights[name] for name in names]


def _position(name: str) -> tuple[Any, ...]:
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
