"""Losses: each is a formula and its derivative, value and gradient computed together.

``loss, dz = softmax_cross_entropy(y, z)`` for targets y and network outputs z. With an axis of K networks in front,
z: (K, batch, units), the loss is (K,): one for each network.
"""

from __future__ import annotations

from xpnet.losses.base import Loss
from xpnet.losses.classification import BinaryCrossEntropy, CategoricalCrossEntropy, SoftmaxCrossEntropy, one_hot
from xpnet.losses.positions import PerPosition
from xpnet.losses.regression import (
    GaussianNLL,
    Huber,
    MeanAbsoluteError,
    MeanSquaredError,
    Poisson,
    Quantile,
)

softmax_cross_entropy = SoftmaxCrossEntropy()
categorical_cross_entropy = CategoricalCrossEntropy()
binary_cross_entropy = BinaryCrossEntropy()
mean_squared_error = MeanSquaredError()
mean_absolute_error = MeanAbsoluteError()
huber = Huber()
poisson = Poisson()
quantile = Quantile()
gaussian_nll = GaussianNLL()

_BY_NAME: dict[str, Loss] = {
    "softmax_cross_entropy": softmax_cross_entropy,
    "categorical_cross_entropy": categorical_cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "mean_squared_error": mean_squared_error,
    "mean_absolute_error": mean_absolute_error,
    "huber": huber,
    "poisson": poisson,
    "quantile": quantile,
    "gaussian_nll": gaussian_nll,
}

__all__ = [
    "BinaryCrossEntropy",
    "CategoricalCrossEntropy",
    "GaussianNLL",
    "Huber",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "PerPosition",
    "Poisson",
    "Quantile",
    "SoftmaxCrossEntropy",
    *sorted(_BY_NAME),
    "get",
    "one_hot",
]


def get(loss: str | Loss) -> Loss:
    """The loss of that name, with default settings; a loss is returned as it is."""
    if isinstance(loss, Loss):
        return loss
    if not isinstance(loss, str) or loss not in _BY_NAME:
        names = ", ".join(_BY_NAME)
        raise ValueError(f"A loss is an object such as Huber(0.5) or one of {names}. Received: {loss!r}")
    return _BY_NAME[loss]
