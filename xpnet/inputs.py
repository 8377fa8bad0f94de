"""What people hand to a model, checked and moved to its device before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from xpnet.backend import Backend, namespace, to_numpy
from xpnet.layers.base import Shape
from xpnet.losses import Loss
from xpnet.tree import Array


def prepare_x(backend: Backend, x: Any, name: str = "x") -> Array:
    """Samples on the backend's device; integers (bytes) stay integers.

    Raises
    ------
    ValueError
        Not numbers, no sample axis or no sample, or a value that is not finite.
    """
    x = _moved(backend, x, name)
    if x.ndim < 2:
        raise ValueError(
            f"{name} must have samples along its first axis and features behind it. Reshape one feature for each "
            f"sample to (n, 1), one sample to (1, n). Received: {name} of shape {tuple(x.shape)}"
        )
    _require_samples(name, x)
    _require_finite(name, x)
    return x


def prepare_targets(
    backend: Backend,
    loss: Loss,
    output_shape: Shape,
    x: Array,
    y: Any,
    sample_weight: Any = None,
    class_weight: Mapping[Any, float] | None = None,
) -> dict[str, Array]:
    """The data of a training or evaluation run: ``{"x", "y"}`` and with weights ``"weight"``.

    Raises
    ------
    ValueError
        Another number of targets or weights than of samples; targets that do not fit the loss or the network's
        output; weights that are negative or not finite, or lack a class.
    """
    y = _moved(backend, y, "y")
    _require_length("y", y, x)
    data = {"x": x, "y": loss.check(y, output_shape, backend.dtype)}
    weight = None
    if sample_weight is not None:
        weight = to_numpy(_moved(backend, sample_weight, "sample_weight")).astype(backend.float_name)
        if weight.ndim != 1:
            raise ValueError(f"sample_weight must have shape (samples,). Received: shape {weight.shape}")
        _require_length("sample_weight", weight, x)
        if not (np.all(np.isfinite(weight)) and np.all(weight >= 0)):
            raise ValueError(f"Weights must be finite and at least 0. Received: a smallest weight of {weight.min()}")
    if class_weight is not None:
        class_weights = _weights_of_classes(to_numpy(y), class_weight)
        weight = class_weights if weight is None else weight * class_weights
    if weight is not None:
        data["weight"] = backend.asarray(weight)
    return data


def _weights_of_classes(labels: np.ndarray, class_weight: Mapping[Any, float]) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] > 1:
        labels = np.argmax(labels, axis=1)
    classes, position = np.unique(labels.reshape(-1), return_inverse=True)
    missing = [c.item() for c in classes if c.item() not in class_weight]
    if missing:
        raise ValueError(f"class_weight must hold every label of y. Missing: {missing}. Received: {dict(class_weight)}")
    weights = np.array([float(class_weight[c.item()]) for c in classes])
    if not (np.all(np.isfinite(weights)) and np.all(weights >= 0)):
        raise ValueError(f"Class weights must be finite and at least 0. Received: {dict(class_weight)}")
    return weights[position]


def _moved(backend: Backend, x: Any, name: str) -> Array:
    try:
        return backend.asarray(x)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: {error}") from error


def _require_samples(name: str, x: Array) -> None:
    if 0 in x.shape:
        raise ValueError(f"{name} is empty: at least one sample is needed. Received: shape {tuple(x.shape)}")


def _require_length(name: str, values: Array, x: Array) -> None:
    if values.ndim == 0 or values.shape[0] != x.shape[0]:
        raise ValueError(
            f"{name} must have one entry for each sample of x. Received: {name} of shape {tuple(values.shape)} for x of "
            f"shape {tuple(x.shape)}"
        )


def _require_finite(name: str, x: Array) -> None:
    xp = namespace(x)
    if not xp.isdtype(x.dtype, "real floating") or bool(xp.isfinite(xp.sum(x))):  # a finite sum has finite terms
        return
    if not bool(xp.all(xp.isfinite(x))):
        raise ValueError(
            f"{name} holds values that are not finite. Replace them, for example with numpy.nan_to_num or "
            f"sklearn.impute.SimpleImputer. Received: {name} with NaN or infinity"
        )
