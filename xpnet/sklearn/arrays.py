"""Arrays of any library: scikit-learn's checks for those on the host, and the same checks on the device for the others."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from sklearn.utils import check_consistent_length, compute_sample_weight
from sklearn.utils.validation import _check_sample_weight, validate_data

from xpnet.backend import backend_of_array, namespace, quiet, to_numpy
from xpnet.checks import number, require
from xpnet.tree import Array

UNCHECKED = "no_validation"  # as in `validate_data`, because None is a mistake


def checked(estimator: Any, X: Any, y: Any = UNCHECKED, *, reset: bool, dtypes: Any = "numeric", **checks: Any) -> Any:
    """Check samples and, if given, targets -> X or (X, y).

    Samples in arrays of another library stay in their memory, and targets come to the host.

    Parameters
    ----------
    estimator : BaseEstimator
    X : array-like
    y : array-like, optional
    reset : bool
        Whether to set or to compare the number and the names of features.
    dtypes : "numeric" or tuple of NumPy types
        The types that X may have. Another type is converted to the first.
    **checks
        As in scikit-learn's `validate_data`.
    """
    if backend_of_array(X) is not None:
        X = _checked_samples(X, dtypes, checks.get("allow_nd", False))
        validate_data(estimator, X, y, skip_check_array=True, reset=reset)
    elif reset or not _passes(estimator, X, dtypes):
        return validate_data(estimator, X, y, dtype=dtypes, reset=reset, **checks)
    if isinstance(y, str) and y == UNCHECKED:
        return X
    if _is_finite(y, ndim=1) and len(y) == X.shape[0]:
        return X, y
    of_targets = {name: checks[name] for name in ("multi_output", "y_numeric") if name in checks}
    y = validate_data(estimator, "no_validation", on_host(y), reset=reset, **of_targets)
    check_consistent_length(X, y)
    return X, y


def checked_weights(sample_weight: Any, X: Any) -> Any:
    """Check the samples' weights, which come to the host."""
    if sample_weight is None:
        return None
    samples = X if backend_of_array(X) is None else np.empty((X.shape[0], 0))
    return _check_sample_weight(on_host(sample_weight), samples, ensure_non_negative=True)


def weights_of_classes(class_weight: Any, labels: np.ndarray, sample_weight: Any) -> np.ndarray:
    """Return the samples' weights multiplied by the weights of their classes."""
    rule = 'class_weight must be "balanced" or a dict of class -> weight. For several labels, a list has these or None'
    for weights in class_weight if isinstance(class_weight, list) else [class_weight]:
        if isinstance(weights, dict):
            for label, weight in weights.items():
                number(f"class_weight[{label!r}]", weight, "[0, inf)")
        else:
            require(weights is None or str(weights) == "balanced", rule, f"class_weight={class_weight!r:.200}")
    weight = compute_sample_weight(class_weight, labels)
    weight = weight if sample_weight is None else weight * sample_weight
    rule = "At least one sample must have a weight above 0. Change class_weight or sample_weight"
    require(bool(np.any(weight > 0)), rule, f"weights that are all 0, with class_weight={class_weight!r:.200}")
    return weight


def held_out(X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any] | None:
    """Return validation samples, targets and weights as one, or None if there are none."""
    alone = X is None and (y is not None or sample_weight is not None)
    require(not alone, "y_val and sample_weight_val need the samples X_val. Pass them too", "X_val=None")
    return None if X is None else (X, y, sample_weight)


def _passes(estimator: Any, X: Any, dtypes: Any) -> bool:
    """Whether `validate_data` would return these samples as they are. It takes 40 µs to find out, and a prediction 20 µs."""
    return (
        _is_finite(X, ndim=2)
        and (dtypes == "numeric" or X.dtype in dtypes)
        and X.shape[0] > 0
        and X.shape[1] == estimator.n_features_in_
        and not hasattr(estimator, "feature_names_in_")
    )


@quiet
def _is_finite(x: Any, ndim: int) -> bool:
    """Whether it is a NumPy array of finite numbers with this number of axes. The sum is not finite if a number is not."""
    return (
        type(x) is np.ndarray
        and x.ndim == ndim
        and x.dtype.kind in "fiu"
        and math.isfinite(np.add.reduce(x, axis=None))
    )


def _checked_samples(X: Array, dtypes: Any, allow_nd: bool) -> Array:
    xp = namespace(X)
    if X.ndim < 2 or (X.ndim > 2 and not allow_nd):
        raise ValueError(
            "X must have a row for each sample. Reshape your data with X.reshape((-1, 1)) if it has a single feature, or "
            f"X.reshape((1, -1)) if it is a single sample. Received: an array of shape {tuple(X.shape)}"
        )
    if 0 in X.shape:
        raise ValueError(
            f"At least one sample and one feature are needed. Received: an array of shape {tuple(X.shape)}"
        )
    require(not xp.isdtype(X.dtype, "complex floating"), "X must hold real numbers. Pass X.real, for example", X.dtype)
    if dtypes != "numeric" and dtype_of(X) not in dtypes:
        X = xp.astype(X, getattr(xp, np.dtype(dtypes[0]).name))
    if xp.isdtype(X.dtype, "real floating") and not bool(xp.all(xp.isfinite(X))):
        raise ValueError("Input X contains NaN or infinity. Remove or replace them, for example with SimpleImputer.")
    return X


def dtype_of(X: Any) -> np.dtype:
    """Return the NumPy type with the name of an array's type."""
    return np.dtype(str(X.dtype).rpartition(".")[2])


def on_host(x: Any) -> Any:
    """Return a NumPy array instead of an array of another library, and anything else unchanged."""
    return x if backend_of_array(x) is None else to_numpy(x)


def in_kind_of(X: Any, answer: Array) -> Array:
    """Return an answer in the library and on the device of X. Text and sparse labels stay on the host."""
    if hasattr(answer, "tocsr"):
        return answer
    backend = backend_of_array(X)
    if backend is None:
        return to_numpy(answer)
    if isinstance(answer, np.ndarray) and answer.dtype.kind not in "fiub":
        return answer
    with backend.scope():
        return backend.asarray(answer, answer.dtype if backend.owns(answer) else None)


def rows(X: Any, index: np.ndarray) -> Any:
    """Return the rows with these numbers."""
    backend = backend_of_array(X)
    if backend is None:
        return X[index]
    with backend.scope():
        return backend.gather(X, backend.asarray(index))
