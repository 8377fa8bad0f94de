"""The constructor parameters of the estimators: their allowed values and their meaning. Refused calls change nothing."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval, Options, StrOptions

from xpnet.backend import Backend, backend_of_array, get_backend, make_backend
from xpnet.callbacks import Callback
from xpnet.checks import unknown_name
from xpnet.layers import Layer
from xpnet.sklearn.network import ACTIVATIONS

STOCHASTIC = ("sgd", "adam")

SKLEARN: dict[str, list] = {
    "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
    "solver": [StrOptions({"lbfgs", "sgd", "adam"})],
    "alpha": [Interval(Real, 0, None, closed="left")],
    "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
    "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
    "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
    "power_t": [Interval(Real, 0, None, closed="left")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "shuffle": ["boolean"],
    "random_state": ["random_state"],
    "tol": [Interval(Real, 0, None, closed="left")],
    "verbose": ["verbose"],
    "warm_start": ["boolean"],
    "momentum": [Interval(Real, 0, 1, closed="both")],
    "nesterovs_momentum": ["boolean"],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="left")],
    "beta_1": [Interval(Real, 0, 1, closed="left")],
    "beta_2": [Interval(Real, 0, 1, closed="left")],
    "epsilon": [Interval(Real, 0, None, closed="neither")],
    "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
    "max_fun": [Interval(Integral, 1, None, closed="left")],
}
CONSTRAINTS: dict[str, list] = SKLEARN | {
    "activation": [StrOptions(ACTIVATIONS), Layer, list, tuple],
    "dropout": [Interval(Real, 0, 1, closed="left")],
    "batch_norm": ["boolean"],
    "callbacks": [Callback, list, tuple, None],
    "dtype": [StrOptions({"float32", "float64"}), None],
    "backend": [str, Backend, None],
    "n_layers": [Interval(Integral, 1, None, closed="left"), None],
    "n_units": [Interval(Integral, 1, None, closed="left"), None],
}


def hidden_sizes(estimator: Any) -> list[int]:
    """Return the sizes of the hidden layers. Raises ValueError if one of them is not positive."""
    if estimator.n_layers is not None or estimator.n_units is not None:
        return [100 if estimator.n_units is None else estimator.n_units] * (estimator.n_layers or 1)
    sizes = estimator.hidden_layer_sizes
    sizes = list(sizes) if hasattr(sizes, "__iter__") else [sizes]
    if np.any(np.array(sizes) <= 0):
        raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
    return [operator.index(size) for size in sizes]


def hidden_activations(estimator: Any, count: int) -> Sequence[str | Layer]:
    """Return the activation of each of `count` hidden layers."""
    given = estimator.activation
    if not isinstance(given, (list, tuple)):
        return [given] * count
    if len(given) != count:
        raise ValueError(
            f"activation must be one, or a list of {count}, one for each hidden layer. Received: {given!r}"
        )
    for name in given:
        if not isinstance(name, Layer) and name not in ACTIVATIONS:
            raise unknown_name("An activation must be a layer such as LeakyReLU(0.2) or one of", name, ACTIVATIONS)
    return given


def backend_of(estimator: Any, X: Any, dtype: Any) -> Backend:
    """Return the backend that computes in this floating type: the estimator's, that of X, or the current one."""
    given = estimator.backend
    backend = _named(given) if given is not None else backend_of_array(X) or get_backend()
    return backend.computing_in(np.dtype(dtype).name)


@functools.cache
def _named(backend: str | Backend) -> Backend:
    return make_backend(backend)


def input_types(estimator: Any) -> tuple[type, ...]:
    """Return the floating types that X may have. X of another type is converted to the first."""
    return (np.float64, np.float32) if estimator.dtype is None else (getattr(np, estimator.dtype),)


def keep(estimator: Any, arguments: dict[str, Any]) -> None:
    """Set the arguments of a constructor, its ``locals()``, as attributes without a change, as scikit-learn requires."""
    vars(estimator).update({name: value for name, value in arguments.items() if name not in ("self", "__class__")})


@contextmanager
def intact(*changing: Any) -> Iterator[Callable[[], None]]:
    """Restore the attributes of these objects if the block raises an error, unless it called the function that this yields."""
    before = [(vars(one), dict(vars(one))) for one in changing]
    try:
        yield before.clear
    except BaseException:
        for attributes, values in before:
            attributes.clear()
            attributes.update(values)
        raise
